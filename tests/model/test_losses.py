"""Each loss against its closed form in numpy, written out a second time with loops where that is plainer."""

from __future__ import annotations

import math

import numpy as np
import pytest

from l1ad.config import BetaConfig, LossConfig
from l1ad.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def losses(stack):
    from l1ad.model import losses

    return losses


def f32(rng, *shape, scale=1.0):
    return rng.normal(0, scale, shape).astype(np.float32)


def test_kl_is_the_integral(losses):
    """KL of N(mu, sigma) from N(0, 1) by quadrature, summed or averaged over the latent dimensions."""
    mu, log_var = np.array([[0.3, -1.2]], np.float32), np.array([[0.4, -0.7]], np.float32)
    z = np.linspace(-12, 12, 200001)
    total = 0.0
    for m, v in zip(mu[0].astype(float), np.exp(log_var[0].astype(float))):
        p = np.exp(-((z - m) ** 2) / (2 * v)) / math.sqrt(2 * math.pi * v)
        total += np.trapezoid(p * (-((z - m) ** 2) / (2 * v) - 0.5 * math.log(v) + z**2 / 2), z)
    found = np.asarray(losses.kl_divergence(mu, log_var, reduction="sum"))
    assert found[0] == pytest.approx(total, rel=1e-5)
    assert np.asarray(losses.kl_divergence(mu, log_var, reduction="mean"))[0] == pytest.approx(total / 2, rel=1e-5)


def test_training_and_scoring_mean_the_same(losses):
    from l1ad import scores

    rng = np.random.default_rng(1)
    mu, log_var = f32(rng, 50, 8), f32(rng, 50, 8)
    assert np.allclose(losses.kl_divergence(mu, log_var, reduction="sum"), scores.kl(mu, log_var), rtol=1e-5)
    assert np.allclose(losses.masked_mse(mu, log_var, None) * 8, scores.mse(mu, log_var), rtol=1e-5)


def test_padding_does_not_count(losses):
    rng = np.random.default_rng(2)
    target, output = f32(rng, 20, 6), f32(rng, 20, 6)
    mask = (rng.random((20, 6)) < 0.5).astype(np.float32)
    mask[0] = 0
    found = np.asarray(losses.masked_mse(target, output, mask))
    for i in range(20):
        terms = [(target[i, j] - output[i, j]) ** 2 for j in range(6) if mask[i, j]]
        assert found[i] == pytest.approx(np.mean(terms) if terms else 0.0, rel=1e-5)
    changed = np.where(mask == 0, 99.0, output).astype(np.float32)
    assert np.allclose(losses.masked_mse(target, changed, mask), found)


def test_cylindrical(losses):
    pt, eta = np.array([[10.0, 5.0]], np.float32), np.array([[1.0, -2.0]], np.float32)
    other_pt, other_eta = np.array([[12.0, 5.0]], np.float32), np.array([[1.0, 2.0]], np.float32)
    first = 2.0 + 2.0 * math.sinh(1.0)
    second = 2 * 5.0 * math.sinh(2.0)
    both = np.ones((1, 2), np.float32)
    found = losses.cylindrical_mae((pt, eta), (other_pt, other_eta), both, scale_gev=4.0)
    assert np.asarray(found)[0] == pytest.approx((first + second) / 2 / 4.0, rel=1e-5)
    one = np.array([[1.0, 0.0]], np.float32)
    found = losses.cylindrical_mae((pt, eta), (other_pt, other_eta), one, scale_gev=4.0)
    assert np.asarray(found)[0] == pytest.approx(first / 4.0, rel=1e-5)


def test_phi_goes_round_the_circle(losses):
    a = np.array([3.1, -3.1, 0.2, 2.0], np.float32)
    b = np.array([-3.1, 3.1, 0.1, -2.0], np.float32)
    expected = [math.atan2(math.sin(x - y), math.cos(x - y)) for x, y in zip(a, b)]
    assert np.allclose(losses.cyclic_difference(a, b), expected, atol=1e-5)


def test_tanh_ranges(losses):
    """eta = 3 tanh for e/gamma, 2.1 tanh for muons, 4 tanh for jets; phi = pi tanh (2108.03986)."""
    raw = np.array([[0.5, 0.5, 0.5]], np.float32)
    pt, eta, phi = losses.tanh_ranges((raw, raw, raw), ("eg", "mu", "jet"))
    assert np.allclose(pt, raw)
    assert np.allclose(eta, np.array([[3.0, 2.1, 4.0]]) * math.tanh(0.5), rtol=1e-6)
    assert np.allclose(phi, math.pi * math.tanh(0.5), rtol=1e-6)
    mask = np.array([[1.0, 0.0, 2.0]], np.float32)
    zero = np.zeros_like(raw)
    wanted = (zero, zero, np.full_like(raw, -3.0))
    given = (raw, 2 * raw, np.full_like(raw, 3.0))
    for cyclic, angle in ((False, 36.0), (True, (2 * math.pi - 6.0) ** 2)):
        expected = (1 + 2) * (0.25 + 1.0 + angle) / (3 * (1 + 2))
        found = np.asarray(losses.tanh_ranges_mse(wanted, given, mask, cyclic=cyclic))[0]
        assert found == pytest.approx(expected, rel=1e-5)


def test_beta_schedules(losses):
    def at(schedule, step):
        config = BetaConfig(value=0.8, schedule=schedule, epochs=4)
        return float(losses.beta_at(config, np.int64(step), 10))

    assert [at("constant", s) for s in (0, 500)] == pytest.approx([0.8, 0.8])
    assert [at("warmup", s) for s in (0, 10, 20, 40, 400)] == pytest.approx([0.0, 0.2, 0.4, 0.8, 0.8])
    assert [at("cyclic", s) for s in (0, 10, 20, 30, 39, 40, 50)] == pytest.approx([0, 0.4, 0.8, 0.8, 0.8, 0, 0.4])


def test_vicreg(losses):
    """Equations 1 to 5 of arXiv:2105.04906 with loops."""
    rng = np.random.default_rng(3)
    a, b = f32(rng, 40, 3, scale=0.4), f32(rng, 40, 3, scale=2.0)
    invariance, variance, covariance = (float(v) for v in losses.vicreg_terms(a, b))
    assert invariance == pytest.approx(np.mean([np.sum((x - y) ** 2) for x, y in zip(a, b)]), rel=1e-4)
    expected_variance = expected_covariance = 0.0
    for z in (a.astype(float), b.astype(float)):
        c = np.cov(z, rowvar=False, ddof=1)
        expected_variance += np.mean([max(0.0, 1 - math.sqrt(c[j, j] + 1e-4)) for j in range(3)])
        expected_covariance += sum(c[i, j] ** 2 for i in range(3) for j in range(3) if i != j) / 3
    assert variance == pytest.approx(expected_variance, rel=1e-4)
    assert covariance == pytest.approx(expected_covariance, rel=1e-4)


def test_weights_of_events(losses):
    assert float(losses.weighted_mean(np.array([1.0, 4.0], np.float32), np.array([3.0, 1.0], np.float32))) == 1.75


def batch_of(stack, geometry, events):
    from l1ad.model.stage import Batch

    tf = stack.tf
    codes = tf.constant(events.inputs)
    weight = tf.ones((len(events),))
    return Batch(codes, geometry.inputs(codes), weight, tf.constant([1, 2]), tf.constant(0, tf.int64))


def test_geometry_is_that_of_the_layout(stack, geometry, sample):
    """Physical values, masks and the scaled inputs against the layout and the frozen scaling."""
    from l1ad.trigger.scaling import scale_node

    codes = stack.tf.constant(sample.inputs)
    expected = sample.physical()
    for k, values in enumerate(geometry.physical(geometry.word_values(codes))):
        assert np.allclose(values, expected[:, :, k], rtol=1e-5), k
    node = scale_node(geometry.scaling, sample.layout, geometry.input.type)
    frozen = node.type.to_float(node.evaluate(sample.inputs.astype(np.int64), fractions=(0,)))
    assert np.array_equal(np.asarray(geometry.inputs(codes)), frozen)
    assert np.allclose(geometry.unscale(geometry.scale(codes)), geometry.word_values(codes), atol=8.0)
    assert np.array_equal(np.asarray(geometry.filled(codes)), (sample.hw[:, :, 0] != 0).astype(float))


@pytest.mark.parametrize("kind", ["mse", "cylindrical", "tanh_ranges"])
def test_a_perfect_decoder_has_no_loss(stack, losses, geometry, sample, kind):
    """What each loss asks of the decoder, given to it: pt, eta and phi as the loss reads them."""
    tf = stack.tf
    from l1ad import Events

    config = LossConfig(reconstruction=kind, cyclic_phi=True)
    # An eta beyond the range of its type cannot be reached: half of it can.
    events = Events.from_arrays(sample.hw[:200] // np.array([1, 2, 1], dtype=np.int16))
    batch = batch_of(stack, geometry, events)
    if kind == "mse":
        output = batch.x
    elif kind == "cylindrical":
        output = (geometry.word_values(batch.codes) - geometry.scaling.stored_offset()) / 2.0**geometry.scaling.shift
        output = tf.cast(output, tf.float32)
    else:
        ranges = np.array([losses.ETA_RANGES[g] for g in geometry.groups])
        truth = events.physical()
        parts = np.zeros((200, 19, 3))
        parts[:, :, 0] = np.asarray(batch.x).reshape(200, 19, 3)[:, :, 0]
        inside = np.where(ranges > 0, truth[:, :, 1] / np.where(ranges > 0, ranges, 1), 0)
        parts[:, :, 1] = np.arctanh(np.clip(inside, -0.999999, 0.999999))
        phi = (truth[:, :, 2] + math.pi) % (2 * math.pi) - math.pi
        parts[:, :, 2] = np.arctanh(np.clip(phi / math.pi, -0.999999, 0.999999))
        output = tf.constant(parts.reshape(200, 57).astype(np.float32))
    reconstruction = losses.Reconstruction(config, geometry)
    perfect = np.asarray(reconstruction(batch, batch.x, output))
    assert np.abs(perfect).max() < 2e-3
    wrong = np.asarray(reconstruction(batch, batch.x, output + 1.0))
    assert wrong.min() > 0.05


def test_object_scales_are_factors(stack, losses, geometry, sample):
    batch = batch_of(stack, geometry, sample[:50])
    plain = LossConfig(object_scales={"met": 1.0, "eg": 0.0, "mu": 0.0, "jet": 0.0})
    found = np.asarray(losses.Reconstruction(plain, geometry)(batch, batch.x, batch.x * 0))
    x = np.asarray(batch.x)
    assert np.allclose(found, (x[:, 0] ** 2 + x[:, 2] ** 2) / 2, rtol=1e-5)
    with pytest.raises(ConfigError, match="object_scales: found tauon"):
        losses.Reconstruction(LossConfig(object_scales={"tauon": 2.0}), geometry)


def test_the_gradient_of_the_squared_error_is_that_of_its_definition(stack):
    from l1ad import scores
    from l1ad.model.keras import tf_ops
    from l1ad.model.losses import squared_error

    tf = stack.tf
    target, output = (tf.random.stateless_normal((50, 7), [1, seed]) for seed in (1, 2))
    weight = tf.random.stateless_uniform((50,), [1, 3])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([target, output])
        values = [squared_error(target, output), scores.mse(target, output, ops=tf_ops())]
        losses = [tf.reduce_sum(weight * value) for value in values]
    assert np.allclose(values[0], np.sum((np.asarray(target) - np.asarray(output)) ** 2, axis=1), rtol=1e-5)
    for variable in (target, output):
        assert np.allclose(*(tape.gradient(loss, variable) for loss in losses), rtol=1e-5, atol=1e-6)
