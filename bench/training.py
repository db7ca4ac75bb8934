"""Training speed: one epoch of the same QKeras network by plain `model.fit`, with tfmot around it, and by our step.

The network is a 57-28-15-8 variational autoencoder with its float decoder 15-28-57, the batch 16384 events, the
optimiser Adam, the data 98,304 crossings in memory. Peer and ours minimise the same loss, ``(1 - beta)`` times the mean
squared error plus ``beta`` times the mean KL divergence. `fit` gets the inputs scaled already; ours starts from
hardware codes and scales and shuffles on the device.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from common import Case, arguments, measure, report

from l1ad.config import RunConfig
from l1ad.events import Events, get_layout
from l1ad.model import build_network, build_stages
from l1ad.model.keras import import_tf
from l1ad.model.pruning import make_pruner
from l1ad.model.stage import Geometry
from l1ad.model.step import DeviceData, make_optimizer, make_steps, shuffled
from l1ad.trigger.quantizer import Quantizer
from l1ad.trigger.scaling import CodeCounts, fit_scaling

BATCH = 16384
BETA = 0.1
SPARSITY = 0.5


def crossings(n: int) -> Events:
    """Crossings like zero bias; what they hold does not matter for the speed."""
    rng = np.random.default_rng(1)
    layout = get_layout("cms_ugt")
    pt = -np.sort(-np.rint(rng.exponential(25.0, (n, layout.n_objects))), axis=1)
    hw = np.zeros((n, *layout.shape), dtype=np.int16)
    hw[:, :, 0] = np.clip(pt, 0, layout.code_max[:, 0])
    hw[:, :, 1] = rng.integers(-100, 100, pt.shape) * (layout.code_max[:, 1] > 0)
    hw[:, :, 2] = rng.integers(0, 144, pt.shape)
    return Events.from_arrays(hw)


def config(schedule: str, epochs: int) -> RunConfig:
    """The configuration of both."""
    return RunConfig.of(
        {
            "name": "bench",
            "data": {"sample": "bundled"},
            "model": {"family": "vae", "hidden": [28, 15], "latent": 8, "decoder": {"hidden": [15, 28]}},
            "loss": {"mask_padding": False, "beta": {"value": BETA}},
            "pruning": {"schedule": schedule, "sparsity": SPARSITY, "end_epoch": epochs, "every_steps": 10},
            "training": {"batch": BATCH, "epochs": epochs},
        }
    )


def peer(n_epochs: int, prune: bool) -> tuple[Any, list[Any]]:
    """The same network as one Keras model with its loss inside, and the callbacks that it needs."""
    modules = import_tf()
    tf, keras = modules.tf, modules.keras
    built = config("none", n_epochs)
    network = build_network(built, get_layout("cms_ugt"))
    encoder, callbacks = network.encoder, []
    if prune:
        import tensorflow_model_optimization as tfmot

        schedule = tfmot.sparsity.keras.PolynomialDecay(0.0, SPARSITY, 0, 6 * n_epochs, frequency=10)

        def wrap(layer: Any) -> Any:
            if type(layer).__name__ == "QDense":
                return tfmot.sparsity.keras.prune_low_magnitude(layer, pruning_schedule=schedule)
            return layer

        encoder = keras.models.clone_model(encoder, clone_function=wrap)
        callbacks = [tfmot.sparsity.keras.UpdatePruningStep()]
    decoder = network.parts["decoder"]
    see = encoder.get_layer("input_quantizer")

    class Peer(keras.Model):  # type: ignore[misc,name-defined]
        """The usual way to write a variational autoencoder in Keras."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = encoder, decoder

        def call(self, x: Any, training: bool = False) -> Any:
            mu, log_var = self.encoder(x, training=training)
            output = self.decoder(mu + tf.exp(0.5 * log_var) * tf.random.normal(tf.shape(mu)), training=training)
            divergence = 0.5 * tf.reduce_mean(mu**2 + tf.exp(log_var) - log_var - 1.0)
            self.add_loss((1 - BETA) * tf.reduce_mean((see(x) - output) ** 2) + BETA * divergence)
            return output

    model = Peer()
    model.compile(optimizer=keras.optimizers.Adam(1e-3))
    return model, callbacks


def main() -> None:
    options = arguments("training", "Training step")
    n = 2 * BATCH if options.quick else 6 * BATCH
    epochs = 1000
    tf = import_tf().tf
    events = crossings(n)
    counts = CodeCounts(events.layout)
    counts.add(events.inputs)
    scaling = fit_scaling(counts).scaling
    geometry = Geometry.of(events.layout, scaling, Quantizer.parse("quantized_bits(8,5)"))
    scaled = np.asarray(geometry.scale(tf.constant(events.inputs)))
    cases = []
    for name, prune in (("QKeras model.fit", False), ("QKeras model.fit with tfmot", True)):
        model, callbacks = peer(epochs, prune)

        def fit(model: Any = model, callbacks: list[Any] = callbacks) -> None:
            model.fit(scaled, batch_size=BATCH, epochs=1, verbose=0, callbacks=callbacks)

        cases.append(Case(name, fit, n))
    for name, schedule in (("l1ad", "none"), ("l1ad with pruning", "polynomial")):
        built = config(schedule, epochs)
        network = build_network(built, events.layout)
        (stage,) = build_stages(built, network, geometry, steps=n // BATCH)
        pruner = make_pruner(stage.prunable, built.pruning, epochs=epochs, steps_per_epoch=n // BATCH)
        optimizer = make_optimizer(built.training, steps_per_epoch=n // BATCH, epochs=epochs)
        steps = make_steps(stage, geometry, optimizer, pruner, ("loss",), batch=BATCH, seed=1, jit=True)
        data = DeviceData.of(events.inputs, np.ones(n, dtype=np.float32), geometry)
        done = [0]

        def epoch(steps: Any = steps, data: DeviceData = data, done: list[int] = done) -> None:
            steps(data, shuffled(n, (1, done[0])), 0, done[0] * (n // BATCH), n // BATCH)
            done[0] += 1

        cases.append(Case(name, epoch, n, ours=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = measure(cases, repeats=options.repeats, warmup=2)
    rate = {r.name: r.rate for r in results}
    ratios = {
        "l1ad over model.fit": rate["l1ad"] / rate["QKeras model.fit"],
        "l1ad with pruning over model.fit": rate["l1ad with pruning"] / rate["QKeras model.fit"],
        "tfmot over model.fit": rate["QKeras model.fit with tfmot"] / rate["QKeras model.fit"],
    }
    notes = [f"{name}: {value:.2f}" for name, value in ratios.items()]
    report("training", "Training step", results, options, extra=ratios, notes=notes)


if __name__ == "__main__":
    main()
