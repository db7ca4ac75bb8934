"""The training step against `model.fit` of the same network, with and without tfmot."""

from __future__ import annotations

import numpy as np
import pytest

from l1ad.config import RunConfig

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The initializer .* is unseeded:UserWarning"),
]

BATCH, EPOCHS = 256, 10


def configuration(**changes):
    base = {
        "name": "ae",
        "seed": 5,
        "data": {"sample": "bundled"},
        "model": {"family": "autoencoder", "hidden": [7], "latent": 3},
        "score": "mse",
        "loss": {"mask_padding": False},
        "training": {"batch": BATCH, "epochs": EPOCHS},
    }
    return RunConfig.of({**base, **changes})


def ours(config, geometry, sample, jit=False):
    """The losses of all steps and the trained encoder, events in file order."""
    from l1ad.model import build_network, build_stages
    from l1ad.model.keras import import_tf
    from l1ad.model.pruning import make_pruner
    from l1ad.model.step import DeviceData, make_optimizer, make_steps

    n = len(sample) // BATCH
    network = build_network(config, sample.layout)
    (stage,) = build_stages(config, network, geometry, steps=n)
    pruner = make_pruner(stage.prunable, config.pruning, epochs=EPOCHS, steps_per_epoch=n)
    optimizer = make_optimizer(config.training, steps_per_epoch=n, epochs=EPOCHS)
    run = make_steps(stage, geometry, optimizer, pruner, ("loss",), batch=BATCH, seed=1, jit=jit)
    data = DeviceData.of(sample.inputs, np.ones(len(sample), np.float32), geometry)
    order = import_tf().tf.range(len(sample))
    losses = []
    for epoch in range(EPOCHS):
        losses.append(run(data, order, 0, epoch * n, n)[:, 0])
        if pruner is not None:
            pruner.apply()
    return np.concatenate(losses), network.encoder


class Recorder:
    """Losses of single batches: Keras shows the mean since the start of the epoch."""

    def __init__(self, keras):
        recorder = self

        class Callback(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                recorder.running.append((batch, logs["loss"]))

        self.running, self.callback = [], Callback()

    @property
    def losses(self):
        result, previous = [], 0.0
        for batch, mean in self.running:
            total = mean * (batch + 1)
            result.append(total - (previous if batch else 0.0))
            previous = total
        return np.array(result)


def peer(config, geometry, sample, stack, wrap=None, callbacks=()):
    from l1ad.model import build_network

    model = build_network(config, sample.layout).encoder
    if wrap is not None:
        weights = model.get_weights()
        wrapped = stack.keras.models.clone_model(model, clone_function=wrap)
        for layer in wrapped.layers:
            inner = getattr(layer, "layer", None)
            if inner is not None:
                inner.set_weights(model.get_layer(inner.name).get_weights())
        del weights
        model = wrapped
    x = np.asarray(geometry.inputs(stack.tf.constant(sample.inputs)))
    recorder = Recorder(stack.keras)
    model.compile(optimizer=stack.keras.optimizers.Adam(1e-3), loss="mse")
    model.fit(
        x, x, batch_size=BATCH, epochs=EPOCHS, shuffle=False, verbose=0, callbacks=[*callbacks, recorder.callback]
    )
    return recorder.losses, model


@pytest.mark.parametrize("jit", [False, True])
def test_fifty_steps_have_the_loss_curve_of_model_fit(stack, geometry, sample, jit):
    config = configuration()
    found, encoder = ours(config, geometry, sample, jit)
    expected, model = peer(config, geometry, sample, stack)
    assert len(found) == 50
    assert np.allclose(found, expected, rtol=2e-3)
    assert found[-1] < 0.9 * found[0]
    for a, b in zip(encoder.get_weights(), model.get_weights(), strict=True):
        assert np.allclose(a, b, atol=2e-3)


@pytest.mark.parametrize("schedule", ["polynomial", "constant"])
def test_pruning_is_that_of_tfmot(stack, geometry, sample, schedule):
    """Masks and loss curve of `prune_low_magnitude` around every QDense."""
    import tensorflow_model_optimization as tfmot

    from l1ad.model.pruning import tfmot_schedule

    pruning = {"schedule": schedule, "sparsity": 0.6, "begin_epoch": 1, "end_epoch": 7, "every_steps": 3}
    config = configuration(pruning=pruning)
    found, encoder = ours(config, geometry, sample)
    plan, _ = tfmot_schedule(config.pruning, epochs=EPOCHS, steps_per_epoch=len(sample) // BATCH)

    def wrap(layer):
        if type(layer).__name__ != "QDense":
            return layer
        return tfmot.sparsity.keras.prune_low_magnitude(layer, pruning_schedule=plan)

    callbacks = [tfmot.sparsity.keras.UpdatePruningStep()]
    expected, model = peer(config, geometry, sample, stack, wrap, callbacks)
    assert np.allclose(found, expected, rtol=5e-3)
    stripped = tfmot.sparsity.keras.strip_pruning(model)
    for layer in encoder.layers:
        if type(layer).__name__ == "QDense":
            a, b = np.asarray(layer.kernel), np.asarray(stripped.get_layer(layer.name).kernel)
            assert np.mean((a == 0) == (b == 0)) > 0.995, layer.name
            assert np.mean(a == 0) == pytest.approx(0.6, abs=0.02)
            assert np.allclose(a, b, atol=5e-3)


def test_a_mask_keeps_the_largest(stack):
    from l1ad.model.pruning import magnitude_mask

    kernel = stack.tf.constant([[1.0, -5.0, 0.1], [3.0, 0.0, -2.0]])
    assert np.array_equal(magnitude_mask(kernel, stack.tf.constant(0.5)), [[0, 1, 0], [1, 0, 1]])
    assert np.array_equal(magnitude_mask(kernel, stack.tf.constant(0.99)), [[0, 1, 0], [0, 0, 0]])


def test_the_scaled_copy_on_the_device_changes_nothing(monkeypatch, geometry, sample):
    from l1ad.model import step

    found, _ = ours(configuration(), geometry, sample[:512])
    monkeypatch.setattr(step, "SCALED_BYTES", 0)
    again, _ = ours(configuration(), geometry, sample[:512])
    assert np.array_equal(found, again)


def test_a_compiled_step_is_the_plain_one(stack, geometry, sample):
    """A variational autoencoder with pruning, compiled by XLA or not: the same losses but for float32 rounding."""
    model = {"family": "vae", "hidden": [6], "latent": 3, "decoder": {"hidden": [6]}}
    pruning = {"schedule": "polynomial", "sparsity": 0.5, "begin_epoch": 1, "end_epoch": 5, "every_steps": 2}
    config = configuration(model=model, score="mu2", pruning=pruning)
    plain, encoder = ours(config, geometry, sample)
    compiled, other = ours(config, geometry, sample, jit=True)
    assert np.allclose(plain, compiled, rtol=2e-3)
    for a, b in zip(encoder.get_weights(), other.get_weights(), strict=True):
        assert np.allclose(a, b, atol=2e-3)


def test_compiling_is_for_long_trainings():
    from types import SimpleNamespace

    from l1ad.model.step import COMPILE_EVENTS, compiles

    def asked(jit, epochs, able=True):
        training = configuration(training={"batch": 100, "jit": jit}).training
        stage = SimpleNamespace(epochs=epochs, compiles=able)
        return compiles(training, stage, steps_per_epoch=10, batch=100)

    enough = COMPILE_EVENTS // 1000
    assert [asked("auto", enough), asked("auto", enough - 1), asked("auto", enough, able=False)] == [True, False, False]
    assert [asked(True, 1, able=False), asked(False, enough)] == [True, False]


def test_noise_is_normal_and_another_at_each_step(stack):
    from l1ad.model.noise import NoiseBank

    tf = stack.tf
    bank = NoiseBank.of(1, size=1 << 16)
    assert np.array_equal(bank.numbers, NoiseBank.of(1, size=1 << 16).numbers)
    assert not np.array_equal(bank.numbers, NoiseBank.of(2, size=1 << 16).numbers)
    values = np.asarray(bank.numbers, dtype=np.float64)
    # Six standard errors of mean, variance and fourth moment of a normal distribution.
    for power, expected, variance in ((1, 0.0, 1.0), (2, 1.0, 2.0), (4, 3.0, 96.0)):
        assert abs(np.mean(values**power) - expected) < 6 * np.sqrt(variance / values.size), power
    like = tf.zeros((256, 4))
    drawn = [np.asarray(bank.draw(like, tf.constant([7, step]))) for step in range(40)]
    assert all(block.shape == (256, 4) and len(np.unique(block)) > 1000 for block in drawn)
    assert np.array_equal(drawn[3], bank.draw(like, tf.constant([7, 3])))
    # 64 blocks: 40 draws hit about 30 of them.
    assert len({block.tobytes() for block in drawn}) > 20
    assert bank.draw(tf.zeros((1 << 14, 4)), tf.constant([7, 3])).shape == (1 << 14, 4)
