"""Frozen integers against QKeras in float64, layer by layer, on random networks and on inputs meant to break them."""

from __future__ import annotations

import numpy as np
import pytest

from l1ad.errors import ConfigError, InputError, TriggerError
from l1ad.events import get_layout
from l1ad.trigger.freeze import freeze_model
from l1ad.trigger.layers import Scaling
from l1ad.trigger.widths import prove

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    # QKeras hands one initialiser to several layers; every weight here is set by hand.
    pytest.mark.filterwarnings("ignore:The initializer .* is unseeded:UserWarning"),
]

LAYOUT = get_layout("cms_ugt")


@pytest.fixture(scope="module")
def stack():
    from l1ad.model.keras import import_tf

    return import_tf()


def scaling_of(rng, layout=LAYOUT):
    """Offsets with halves (which the type truncates) and shifts that keep the words in range."""
    bits = np.array([word.bits for word in layout.input_words])
    shift = np.clip(bits - 2 + rng.integers(-3, 1, len(bits)), 0, 8)
    shift[bits == 9] = rng.integers(-1, 6, (bits == 9).sum())
    return Scaling(rng.integers(-40, 80, len(bits)) / 2.0, shift)


def adversarial(rng, n, layout=LAYOUT):
    """Legal input words at their ends, next to them, all zero, all equal, and drawn over the whole word."""
    low = np.array([word.word_min for word in layout.input_words])
    high = np.array([word.word_max for word in layout.input_words])
    uniform = rng.integers(low, high + 1, (n, len(low)))
    ends = np.where(rng.random((n, len(low))) < 0.5, low, high)
    near = np.clip(ends + rng.integers(-2, 3, (n, len(low))), low, high)
    small = np.clip(rng.integers(-4, 5, (n, len(low))), low, high)
    rows = np.concatenate([uniform, ends, near, small, low[None], high[None], np.zeros((1, len(low)), dtype=np.int64)])
    return rows[rng.permutation(len(rows))[:n]].astype(np.int16)


def scaled_words(trigger, scaling, codes):
    """The scaled words before the input type, in float64, from the formula of l1-facts section 2."""
    unit = np.array([word.lsb if word.name == "pt" else 1.0 for word in trigger.layout.input_words])
    return np.floor((codes * unit - np.floor(scaling.offset)) * 2.0**-scaling.shift * 32) / 32


def assert_equal_everywhere(trigger, model, scaling, codes):
    from l1ad.model.replay import replay

    expected = replay(model, scaled_words(trigger, scaling, codes))
    found = trigger.trace(codes)
    compared = 0
    for name, values in expected.items():
        node = "scale" if name == "input_quantizer" else name
        if node not in found:
            continue
        compared += 1
        wrong = np.argwhere(trigger.program.node(node).type.to_float(found[node]) != values)
        assert not len(wrong), f"{name}: {len(wrong)} values differ, the first in event {wrong[0][0]}"
    assert compared >= 4
    return expected


def randomise(model, rng):
    """Weights over the whole range of their quantisers and beyond, on ties and off the grid."""
    for layer in model.layers:
        weights = []
        for values in layer.get_weights():
            wide = rng.normal(0, 1.5, values.shape)
            ties = np.rint(rng.normal(0, 8, values.shape)) / 16
            weights.append(np.where(rng.random(values.shape) < 0.5, wide, ties) * (rng.random(values.shape) < 0.8))
        if weights:
            layer.set_weights(weights)
    return model


def random_dense(stack, rng):
    """A random dense network with one or two heads."""
    keras, q = stack.keras, stack.qkeras

    def bits():
        width = int(rng.integers(3, 12))
        return q.quantized_bits(width, int(rng.integers(0, width)), alpha=1)

    x = inputs = keras.Input((57,))
    x = q.QActivation(q.quantized_bits(int(rng.integers(6, 15)), 5, alpha=1), name="input_quantizer")(x)
    for i in range(int(rng.integers(1, 4))):
        x = q.QDense(int(rng.integers(2, 20)), kernel_quantizer=bits(), bias_quantizer=bits(), name=f"dense_{i}")(x)
        width = int(rng.integers(2, 13))
        relu = q.quantized_relu(width, int(rng.integers(0, width + 3)))
        linear = q.quantized_bits(width + 1, int(rng.integers(1, 8)), alpha=1)
        x = q.QActivation(relu if rng.random() < 0.7 else linear, name=f"act_{i}")(x)
    heads = []
    for name in ("mu", "log_var"):
        dense = q.QDense(4, kernel_quantizer=bits(), bias_quantizer=bits(), name=f"{name}_dense")(x)
        heads.append(q.QActivation(q.quantized_bits(10, 6, alpha=1), name=name)(dense))
    return randomise(keras.Model(inputs, heads), rng)


def score_by_hand(kind, values, *, shift=0, table_lsb=2.0**-8):
    """The score from float64 latents, cut as the default types cut: floor to 1/16 after each product, then the sum.

    All in units of ``2**shift``.
    """
    mu, log_var = values["mu"], values["log_var"]

    def cut(x):
        return np.clip(np.floor(x * 2.0**-shift * 16), 0, 2**18 - 1) / 16

    def table(x):
        return np.clip(np.rint(np.exp(x) / table_lsb), 0, 2**18 - 1) * table_lsb

    if kind == "mu2":
        total = cut(mu**2).sum(axis=1)
    elif kind == "kl":
        total = (0.5 * cut(mu**2) + 0.5 * table(log_var) - 0.5 * log_var).sum(axis=1) - 0.5 * mu.shape[1]
    else:
        total = cut(mu**2 * table(-log_var)).sum(axis=1)
    return np.clip(np.floor(total * 16), 0, 2**18 - 1).astype(np.int64)


@pytest.mark.parametrize("seed", range(12))
def test_random_dense_networks_are_exact(stack, seed, make_crossings):
    rng = np.random.default_rng(seed)
    model, scaling = random_dense(stack, rng), scaling_of(rng)
    kind = ("mu2", "kl", "rz")[seed % 3]
    trigger = freeze_model(model, scaling, LAYOUT, kind)
    codes = np.concatenate([make_crossings(1500, seed).inputs, adversarial(rng, 1500)])
    values = assert_equal_everywhere(trigger, model, scaling, codes)
    if kind == "rz":
        shift = trigger.provenance["score_shift"]
        by_hand = score_by_hand(kind, values, shift=shift, table_lsb=2.0 ** (30 - 18))
    else:
        assert "score_shift" not in trigger.provenance
        by_hand = score_by_hand(kind, values)
    assert np.array_equal(trigger.score(codes), by_hand)
    assert prove(trigger.program).proven


def heads_from_inputs(stack, log_var="quantized_bits(8,4)"):
    """Two inputs go straight to the heads: every pair of codes can be asked for."""
    keras, q = stack.keras, stack.qkeras
    bits = q.quantized_bits(2, 1, alpha=1)
    x = inputs = keras.Input((57,))
    x = q.QActivation(q.quantized_bits(14, 9, alpha=1), name="input_quantizer")(x)
    heads = []
    for position, (name, word) in enumerate((("mu", "quantized_bits(10,6)"), ("log_var", log_var))):
        layer = q.QDense(2, kernel_quantizer=bits, bias_quantizer=bits, name=f"{name}_dense")
        dense = layer(x)
        kernel = np.zeros((57, 2))
        kernel[3 + position, 0] = kernel[6 + position, 1] = 1.0
        layer.set_weights([kernel, np.zeros(2)])
        heads.append(q.QActivation(word.replace(")", ",alpha=1)"), name=name)(dense))
    return keras.Model(inputs, heads)


@pytest.mark.parametrize("shift", [None, 7, 20])
def test_r_z_is_cut_where_its_types_say(stack, shift):
    """The word of R_z is a shift of its definition: exact against float64, never saturated at the shift it chooses."""
    from l1ad.config import FreezeConfig

    rng = np.random.default_rng(8)
    scaling = Scaling(np.zeros(57), np.zeros(57, dtype=np.int64))
    options = FreezeConfig(shift=shift)
    trigger = freeze_model(heads_from_inputs(stack), scaling, LAYOUT, "rz", options=options)
    codes = np.zeros((4000, 57), dtype=np.int64)
    # pt in 0.5 GeV on one side and eta in codes on the other: both heads over their whole range and beyond.
    codes[:, [3, 6]] = rng.integers(0, 200, (4000, 2))
    codes[:, [4, 7]] = rng.integers(-40, 41, (4000, 2))
    codes[:4] = 0
    codes[:2, [3, 6]], codes[:2, [4, 7]] = 511, -100
    values = {name: trigger.program.node(name).type.to_float(trigger.trace(codes)[name]) for name in ("mu", "log_var")}
    assert (values["mu"].max(), values["log_var"].min(), values["log_var"].max()) == (63.875, -16.0, 15.875)
    stated = trigger.provenance["score_shift"]
    assert np.array_equal(trigger.score(codes), score_by_hand("rz", values, shift=stated, table_lsb=2.0 ** (24 - 18)))
    exact = (values["mu"] ** 2 * np.exp(-values["log_var"])).sum(axis=1)
    largest = 2.0**14
    if shift is None:
        # 2 x 64^2 x e^16 is 2^36.1: 23 shifts are the fewest with which it stays below 2^14.
        assert stated == 23
        assert prove(trigger.program).proven
        assert trigger.score(codes).max() < 2**18 - 1
        assert exact.max() > largest * 2.0 ** (stated - 1)
    else:
        assert stated == shift
        assert (trigger.score(codes) == 2**18 - 1).any() == (exact.max() >= largest * 2.0**shift)
    # Half an entry of the table for each square, two terms and a sum cut to 1/16: no more than that is lost.
    lost = 2.0**5 * (values["mu"] ** 2).sum(axis=1) + 3 * 2.0 ** (stated - 4)
    inside = (values["mu"] ** 2 * np.exp(-values["log_var"])).max(axis=1) + exact < largest * 2.0**stated
    assert inside.sum() > 1000
    assert (np.abs(trigger.score(codes) / 16 * 2.0**stated - exact) <= lost)[inside].all()


@pytest.mark.parametrize("seed", range(4))
def test_convolutions_and_poolings_are_exact(stack, seed, make_crossings):
    rng = np.random.default_rng(100 + seed)
    keras, q = stack.keras, stack.qkeras

    def bits(width, integer):
        return q.quantized_bits(width, integer, alpha=1)

    padding = ("valid", "same")[seed % 2]
    strides = (1, 1) if seed < 2 else (2, 1)
    x = inputs = keras.Input((57,))
    x = q.QActivation(bits(8, 5), name="input_quantizer")(x)
    x = keras.layers.Reshape((19, 3, 1))(x)
    x = q.QConv2D(
        3, (3, 2), strides=strides, padding=padding, kernel_quantizer=bits(6, 2), bias_quantizer=bits(8, 3), name="conv"
    )(x)
    x = q.QActivation(q.quantized_relu(8, 5), name="relu")(x)
    if seed % 2:
        x = q.QAveragePooling2D((3, 1), average_quantizer=bits(10, 0), name="mean")(x)
        x = q.QActivation(q.quantized_relu(8, 5), name="mean_relu")(x)
    else:
        x = keras.layers.MaxPooling2D((2, 1), name="largest")(x)
    x = keras.layers.ZeroPadding2D(((1, 0), (0, 1)), name="padded")(x)
    x = keras.layers.UpSampling2D((1, 2), name="larger")(x)
    x = keras.layers.Flatten(name="flat")(x)
    x = q.QDense(4, kernel_quantizer=bits(6, 2), bias_quantizer=bits(8, 3), name="mu_dense")(x)
    x = q.QActivation(bits(10, 6), name="mu")(x)
    model = randomise(keras.Model(inputs, x), rng)
    scaling = scaling_of(rng)
    trigger = freeze_model(model, scaling, LAYOUT, "mu2")
    codes = np.concatenate([make_crossings(500, seed).inputs, adversarial(rng, 500)])
    assert_equal_everywhere(trigger, model, scaling, codes)
    # QKeras itself: float32 is exact up to 24 bits, which these words keep.
    values = scaled_words(trigger, scaling, codes)
    mu = np.asarray(model(values.astype(np.float32)), dtype=np.float64)
    latent = trigger.program.node("mu").type
    agree = latent.to_float(trigger.latents(codes)) == mu
    # QAveragePooling2D divides by three and multiplies again in float32: its last bit may fall over a tie.
    assert agree.mean() == 1.0 if not seed % 2 else agree.mean() > 0.99


def test_the_scores_of_other_families_are_exact(stack):
    """Reconstruction error against the quantised input, and an embedding against what is decoded from it."""
    rng = np.random.default_rng(5)
    keras, q = stack.keras, stack.qkeras

    def bits(width, integer):
        return q.quantized_bits(width, integer, alpha=1)

    def dense(x, n, name, activation):
        x = q.QDense(n, kernel_quantizer=bits(6, 2), bias_quantizer=bits(8, 3), name=f"{name}_dense")(x)
        return q.QActivation(activation, name=name)(x)

    inputs = keras.Input((57,))
    see = q.QActivation(bits(8, 5), name="input_quantizer")(inputs)
    embedding = dense(see, 5, "embedding", q.quantized_relu(8, 5))
    decoded = dense(embedding, 5, "decoded", bits(10, 6))
    output = dense(decoded, 57, "output", bits(12, 6))
    model = randomise(keras.Model(inputs, [decoded, embedding, output]), rng)
    scaling = scaling_of(rng)
    codes = adversarial(rng, 2000)
    for kind, a, b in (("embedding_mse", "decoded", "embedding"), ("mse", "input_quantizer", "output")):
        trigger = freeze_model(model, scaling, LAYOUT, kind)
        values = assert_equal_everywhere(trigger, model, scaling, codes)
        total = (np.floor((values[a] - values[b]) ** 2 * 16) / 16).sum(axis=1)
        assert np.array_equal(trigger.score(codes), np.clip(total * 16, 0, 2**18 - 1).astype(np.int64)), kind


def test_the_shift_of_r_z_follows_from_events(stack):
    from l1ad.config import FreezeConfig
    from l1ad.trigger.freeze import shift_for

    scaling = Scaling(np.zeros(57), np.zeros(57, dtype=np.int64))
    model = heads_from_inputs(stack)
    trigger = freeze_model(model, scaling, LAYOUT, "rz")
    codes = np.zeros((50, 57), dtype=np.int64)
    codes[7, 3], codes[7, 4] = 80, -8
    # mu = 40 GeV, log_var = -8: R_z is 1600 e^8 = 2^22.19; with a factor of four to spare 2^25 holds it, 11 shifts.
    assert shift_for(trigger, codes) == 11
    assert shift_for(trigger, codes[:1]) == 0
    made = freeze_model(model, scaling, LAYOUT, "rz", options=FreezeConfig(shift=11))
    score = int(made.score(codes)[7])
    assert score / 16 * 2**11 == pytest.approx(1600 * np.exp(8), rel=0.03)
    assert 2**15 <= score < 2**16


def test_weights_are_the_integers_that_qkeras_multiplies_with(stack):
    rng = np.random.default_rng(1)
    model = random_dense(stack, rng)
    trigger = freeze_model(model, scaling_of(rng), LAYOUT, "mu2")
    layer, node = model.get_layer("dense_0"), trigger.program.node("dense_0")
    quantised = np.asarray(layer.kernel_quantizer_internal(layer.kernel))
    assert np.array_equal(node.weight_type.to_float(node.weights), quantised)
    assert np.array_equal(node.bias_type.to_float(node.bias), np.asarray(layer.bias_quantizer_internal(layer.bias)))


def test_types_that_replace_the_trained_ones_are_stated(stack):
    """AXOL1TL v1 truncates and wraps where QKeras rounds and saturates: the proof must say so."""
    from l1ad.config import FreezeConfig

    rng = np.random.default_rng(2)
    model = random_dense(stack, rng)
    options = FreezeConfig(activation="ap_ufixed<10,7>", head="ap_fixed<10,7>")
    trigger = freeze_model(model, scaling_of(rng), LAYOUT, "mu2", options=options)
    assert trigger.program.node("mu").type.overflow == "WRAP"
    report = prove(trigger.program)
    assert not report.proven
    assert "bits would not" in str(report.wraps[0])


def test_what_cannot_be_frozen_says_why(stack):
    keras, q = stack.keras, stack.qkeras
    rng = np.random.default_rng(3)
    scaling = scaling_of(rng)

    def model(*layers):
        x = inputs = keras.Input((57,))
        for layer in layers:
            x = layer(x)
        return keras.Model(inputs, x)

    def see():
        return q.QActivation(q.quantized_bits(8, 5, alpha=1), name="input_quantizer")

    def dense(alpha=1):
        k = q.quantized_bits(6, 2, alpha=alpha)
        return q.QDense(3, kernel_quantizer=k, bias_quantizer=q.quantized_bits(8, 3, alpha=1), name="d")

    def head(name="mu"):
        return q.QActivation(q.quantized_bits(8, 5, alpha=1), name=name)

    cases = [
        (model(dense(), head()), "unquantised"),
        (model(see(), keras.layers.Dense(3, name="float_dense"), head()), "float_dense"),
        (model(see(), dense(None), head()), "auto_po2"),
        (model(see(), keras.layers.BatchNormalization(name="norm"), dense(), head()), "norm"),
        (model(see(), dense(), head("latent")), "layer mu"),
        (model(see(), head()), "nothing to freeze"),
        (model(see(), dense(), q.QActivation("quantized_relu(8,5,use_sigmoid=1)", name="mu")), "use_sigmoid"),
    ]
    for network, word in cases:
        with pytest.raises((TriggerError, ConfigError), match=word) as caught:
            freeze_model(network, scaling, LAYOUT, "mu2")
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="score"):
        freeze_model(cases[0][0], scaling, LAYOUT, "entropy")


@pytest.mark.slow
def test_a_million_crossings_and_a_hundred_thousand_adversarial_ones(stack, make_crossings):
    from l1ad.config import RunConfig
    from l1ad.model import build_network

    rng = np.random.default_rng(9)
    config = {"name": "v4", "data": {"sample": "bundled"}, "model": {"family": "vae"}}
    model = randomise(build_network(RunConfig.of(config), LAYOUT).encoder, rng)
    scaling = scaling_of(rng)
    for kind in ("mu2", "rz"):
        trigger = freeze_model(model, scaling, LAYOUT, kind)
        for codes in [make_crossings(100_000, seed).inputs for seed in range(10)] + [adversarial(rng, 100_000)]:
            values = assert_equal_everywhere(trigger, model, scaling, codes)
            unit = {"shift": trigger.provenance["score_shift"], "table_lsb": 2.0**12} if kind == "rz" else {}
            assert np.array_equal(trigger.score(codes), score_by_hand(kind, values, **unit))
