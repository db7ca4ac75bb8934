"""Training speed: one epoch of the same QKeras network by `model.fit` in several ways, with tfmot, and by our step.

The network is a 57-28-15-8 variational autoencoder with its float decoder 15-28-57, the batch 16384 events, the
optimiser Adam, the data 98,304 crossings in memory. Peer and ours minimise the same loss, ``(1 - beta)`` times the mean
squared error plus ``beta`` times the mean KL divergence, on the same two cores. `fit` gets the inputs scaled and
quantised already; ours starts from hardware codes. Every way but one shuffles the events in each epoch. The peer of the
project's figure is the first row: `fit` on numpy arrays, as most people write it, which is the fastest of those that
shuffle and are not compiled.
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
PEER = "QKeras model.fit"


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


def build(n_epochs: int, prune: bool) -> tuple[Any, Any, list[Any]]:
    """Encoder and decoder of a peer, and the callbacks that it needs: the very layers that ours trains."""
    network = build_network(config("none", n_epochs), get_layout("cms_ugt"))
    if not prune:
        return network.encoder, network.parts["decoder"], []
    import tensorflow_model_optimization as tfmot

    schedule = tfmot.sparsity.keras.PolynomialDecay(0.0, SPARSITY, 0, 6 * n_epochs, frequency=10)

    def wrap(layer: Any) -> Any:
        if type(layer).__name__ == "QDense":
            return tfmot.sparsity.keras.prune_low_magnitude(layer, pruning_schedule=schedule)
        return layer

    encoder = import_tf().keras.models.clone_model(network.encoder, clone_function=wrap)
    return encoder, network.parts["decoder"], [tfmot.sparsity.keras.UpdatePruningStep()]


def sample(mu: Any, log_var: Any) -> Any:
    """The reparametrisation of a variational autoencoder, as its Keras example has it."""
    tf = import_tf().tf
    return mu + tf.exp(0.5 * log_var) * tf.random.normal(tf.shape(mu))


def divergence(mu: Any, log_var: Any) -> Any:
    """Mean KL divergence times its factor."""
    tf = import_tf().tf
    return BETA * 0.5 * tf.reduce_mean(mu**2 + tf.exp(log_var) - log_var - 1.0)


def subclassed(n_epochs: int, *, prune: bool = False, jit: bool = False) -> tuple[Any, list[Any]]:
    """A `keras.Model` whose `call` adds both terms of the loss: the usual way to write a variational autoencoder."""
    tf, keras = import_tf().tf, import_tf().keras
    encoder, decoder, callbacks = build(n_epochs, prune)

    class Peer(keras.Model):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = encoder, decoder

        def call(self, x: Any, training: bool = False) -> Any:
            mu, log_var = self.encoder(x, training=training)
            output = self.decoder(sample(mu, log_var), training=training)
            self.add_loss((1 - BETA) * tf.reduce_mean((x - output) ** 2) + divergence(mu, log_var))
            return output

    model = Peer()
    model.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=jit)
    return model, callbacks


def functional(n_epochs: int) -> Any:
    """A functional model with a `Lambda` that samples, ``loss="mse"`` and the KL divergence by `add_loss`."""
    keras = import_tf().keras
    encoder, decoder, _ = build(n_epochs, False)
    inputs = encoder.inputs[0]
    mu, log_var = encoder.outputs
    output = decoder(keras.layers.Lambda(lambda heads: sample(*heads))([mu, log_var]))
    model = keras.Model(inputs, output)
    model.add_loss(divergence(mu, log_var))
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mse", loss_weights=[1 - BETA])
    return model


def peers(x: Any, epochs: int) -> list[Case]:
    """`model.fit` in the ways in which people write it; `x` are the inputs, scaled and in the input type."""
    tf, n = import_tf().tf, len(x)

    def case(name: str, model: Any, *data: Any, callbacks: Any = (), note: str = "") -> Case:
        options: dict[str, Any] = {"epochs": 1, "verbose": 0, "callbacks": list(callbacks)}
        if not isinstance(data[0], tf.data.Dataset):
            options["batch_size"] = BATCH
        return Case(name, lambda: model.fit(*data, **options), n, note=note)

    rows = tf.data.Dataset.from_tensor_slices(x)
    shuffled_rows, batched_once = rows.shuffle(n).batch(BATCH).prefetch(2), rows.batch(BATCH).cache().prefetch(2)
    thinned, callbacks = subclassed(epochs, prune=True)
    less = "tf.data, batched once, never shuffled: less work"
    return [
        case(PEER, subclassed(epochs)[0], x, note="numpy arrays, add_loss"),
        case("QKeras model.fit, functional model", functional(epochs), x, x, note="numpy arrays, mse and add_loss"),
        case("QKeras model.fit, compiled", subclassed(epochs, jit=True)[0], x, note="jit_compile=True"),
        case("QKeras model.fit, tf.data", subclassed(epochs)[0], shuffled_rows, note="shuffled"),
        case("QKeras model.fit, fixed batches", subclassed(epochs)[0], batched_once, note=less),
        case("QKeras model.fit with tfmot", thinned, x, callbacks=callbacks, note="numpy arrays"),
    ]


def ours(events: Events, geometry: Geometry, epochs: int) -> list[Case]:
    """Our step: hardware codes on the device, shuffled there."""
    n, cases = len(events), []
    data = DeviceData.of(events.inputs, np.ones(n, dtype=np.float32), geometry)
    for name, schedule, jit in (
        ("l1ad", "none", True),
        ("l1ad with pruning", "polynomial", True),
        ("l1ad, not compiled", "none", False),
    ):
        built = config(schedule, epochs)
        network = build_network(built, events.layout)
        (stage,) = build_stages(built, network, geometry, steps=n // BATCH)
        pruner = make_pruner(stage.prunable, built.pruning, epochs=epochs, steps_per_epoch=n // BATCH)
        optimizer = make_optimizer(built.training, steps_per_epoch=n // BATCH, epochs=epochs)
        steps = make_steps(stage, geometry, optimizer, pruner, ("loss",), batch=BATCH, seed=1, jit=jit)
        done = [0]

        def epoch(steps: Any = steps, done: list[int] = done) -> None:
            steps(data, shuffled(n, (1, done[0])), 0, done[0] * (n // BATCH), n // BATCH)
            done[0] += 1

        cases.append(Case(name, epoch, n, ours=True))
    return cases


def main() -> None:
    options = arguments("training", "Training step")
    n = 2 * BATCH if options.quick else 6 * BATCH
    epochs = 1000
    events = crossings(n)
    counts = CodeCounts(events.layout)
    counts.add(events.inputs)
    geometry = Geometry.of(events.layout, fit_scaling(counts).scaling, Quantizer.parse("quantized_bits(8,5)"))
    x = np.asarray(geometry.inputs(import_tf().tf.constant(events.inputs)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = measure([*peers(x, epochs), *ours(events, geometry, epochs)], repeats=options.repeats, warmup=2)
    rate = {r.name: r.rate for r in results}
    ratios = {f"l1ad over {name}": rate["l1ad"] / value for name, value in rate.items() if name.startswith("QKeras")}
    ratios["l1ad with pruning over l1ad"] = rate["l1ad with pruning"] / rate["l1ad"]
    ratios[f"l1ad with pruning over {PEER}"] = rate["l1ad with pruning"] / rate[PEER]
    notes = [f"{name}: {value:.2f}" for name, value in ratios.items()]
    report("training", "Training step", results, options, extra=ratios, notes=notes)


if __name__ == "__main__":
    main()
