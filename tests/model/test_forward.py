"""The quick forward pass against QKeras: values and gradients."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The initializer .* is unseeded:UserWarning"),
]


@pytest.mark.parametrize(
    "text", ["quantized_bits(8,5)", "quantized_bits(4,0)", "quantized_relu(10,6)", "quantized_relu(3,1)"]
)
def test_a_quantiser_is_that_of_qkeras(stack, text):
    from l1ad.model.forward import quantize
    from l1ad.model.quantizers import from_qkeras, to_qkeras
    from l1ad.trigger.quantizer import Quantizer

    tf = stack.tf
    ours = Quantizer.parse(text)
    theirs = to_qkeras(ours)
    assert from_qkeras(theirs, where="test") == ours
    kind = ours.type
    rng = np.random.default_rng(1)
    ends = np.array([kind.min_code, kind.max_code]) * kind.lsb
    ties = (np.arange(-40, 40) + 0.5) * kind.lsb
    values = [rng.normal(0, 3, 500), ties, np.arange(-40, 40) * kind.lsb, ends, ends * 1.01, [0.0, -1e-9, 1e-9, 1e4]]
    x = tf.constant(np.concatenate(values).astype(np.float32))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        a, b = quantize(ours, x), theirs(x)
    assert np.array_equal(a, b)
    assert np.array_equal(np.asarray(a), ours(np.asarray(x)))
    assert np.array_equal(tape.gradient(a, x), tape.gradient(b, x))


def test_a_model_has_the_values_and_gradients_of_keras(stack, geometry, sample):
    from l1ad.config import RunConfig
    from l1ad.model import build_network
    from l1ad.model.forward import apply

    tf = stack.tf
    decoder = {"hidden": [6], "batch_norm": True, "activation": "leaky_relu"}
    model = {"family": "cnn_vae", "conv": [{"filters": 2, "pool": [3, 1]}], "hidden": [5], "latent": 3}
    config = {"name": "x", "data": {"sample": "bundled"}, "model": {**model, "decoder": decoder}}
    network = build_network(RunConfig.of(config), sample.layout)
    x = geometry.inputs(tf.constant(sample.inputs[:300]))
    variables = network.encoder.trainable_variables + network.parts["decoder"].trainable_variables
    losses = []
    with tf.GradientTape(persistent=True) as tape:
        for quick in (True, False):
            if quick:
                mu, log_var = apply(network.encoder, x, training=True, quantised=True)
                (y,) = apply(network.parts["decoder"], mu + log_var, training=True)
            else:
                mu, log_var = network.encoder(x, training=True)
                y = network.parts["decoder"](mu + log_var, training=True)
            losses.append(tf.reduce_mean(y**2) + tf.reduce_mean(mu**3) + tf.reduce_mean(tf.exp(0.1 * log_var)))
    assert float(losses[0]) == pytest.approx(float(losses[1]), rel=1e-6)
    for a, b in zip(*(tape.gradient(loss, variables) for loss in losses), strict=True):
        assert np.allclose(a, b, rtol=1e-4, atol=1e-6)


def test_weights_depend_on_the_seed_only(sample):
    from l1ad.config import RunConfig
    from l1ad.model import build_network

    def weights(seed):
        config = {"name": "x", "seed": seed, "data": {"sample": "bundled"}, "model": {"family": "vae", "hidden": [4]}}
        return build_network(RunConfig.of(config), sample.layout).encoder.get_weights()

    assert all(np.array_equal(a, b) for a, b in zip(weights(1), weights(1), strict=True))
    assert not np.array_equal(weights(1)[0], weights(2)[0])
    first, mu = weights(1)[0], weights(1)[2]
    assert first.std() > 0
    assert not np.array_equal(first[:4, :4], mu[:4, :4])


def test_heads_and_upsampling_are_those_of_keras(stack):
    """Float heads of one tensor in one product, with a BatchNorm between, and an image that grows."""
    from l1ad.model.forward import apply

    tf, keras = stack.tf, stack.keras
    keras.utils.set_random_seed(3)
    inputs = keras.Input((6,))
    x = keras.layers.Dense(5)(inputs)
    heads = [keras.layers.Dense(n, name=f"head_{n}")(x) for n in (2, 3)]
    image = keras.layers.Reshape((1, 3, 1))(heads[1])
    grown = keras.layers.UpSampling2D((2, 3))(image)
    model = keras.Model(inputs, [heads[0], grown])
    values = tf.random.stateless_normal((40, 6), [1, 2])
    with tf.GradientTape(persistent=True) as tape:
        results = [apply(model, values, training=True), model(values, training=True)]
        losses = [tf.reduce_sum(a**2) + tf.reduce_sum(b**3) for a, b in results]
    for a, b in zip(*results, strict=True):
        assert a.shape == b.shape
        assert np.allclose(a, b, atol=1e-5)
    for a, b in zip(*(tape.gradient(loss, model.trainable_variables) for loss in losses), strict=True):
        assert np.allclose(a, b, rtol=1e-4, atol=1e-4)
