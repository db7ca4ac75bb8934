"""The golden program against the deployed network, a rational evaluation, and brute force over its intervals."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l1ad import Events, Trigger
from l1ad.errors import InputError, TriggerError
from l1ad.events.layout import ObjectGroup, ObjectLayout, Word, get_layout
from l1ad.trigger.build import SCORE_TYPE, NodeOps, ProgramBuilder
from l1ad.trigger.fixed import FixedType
from l1ad.trigger.graph import Program
from l1ad.trigger.layers import Scaling, add_scaling, input_multiplier
from l1ad.trigger.widths import prove

V4_TYPES = {
    "input": "ap_fixed<8,6,RND_CONV,SAT>",
    "weight": "ap_fixed<6,3>",
    "bias": "ap_fixed<10,7>",
    "relu": "ap_ufixed<10,6,RND_CONV,SAT>",
    "result": "ap_fixed<10,7,RND_CONV,SAT>",
}


@pytest.fixture(scope="module")
def v4(oracles):
    data = np.load(oracles / "axol1tl_v4.npz")
    weights, biases = [data[f"w{i}"] for i in range(3)], [data[f"b{i}"] for i in range(3)]
    scaling = {"offset": data["offset"], "shift": data["shift"]}
    return Trigger.from_layers(weights, biases, V4_TYPES, scaling, "mu2", name="axol1tl_v4"), data


def small_trigger(seed: int = 1) -> Trigger:
    rng = np.random.default_rng(seed)
    weights = [rng.integers(-32, 32, (57, 5)), rng.integers(-32, 32, (5, 3))]
    biases = [rng.integers(-100, 100, 5), rng.integers(-100, 100, 3)]
    scaling = {"offset": rng.integers(0, 40, 57), "shift": rng.integers(2, 7, 57)}
    return Trigger.from_layers(weights, biases, V4_TYPES, scaling, "mu2", name="small")


def random_words(rng: np.random.Generator, n: int) -> np.ndarray:
    words = get_layout("cms_ugt").input_words
    return np.stack([rng.integers(w.word_min, w.word_max + 1, n) for w in words], axis=1)


def test_deployed_v4_network_gives_every_recorded_score_and_latent(v4):
    trigger, data = v4
    assert np.array_equal(trigger.score(data["hw"]), data["score"])
    assert np.array_equal(trigger.latents(data["hw"]), data["mu"])
    assert np.array_equal(trigger.latents(data["hw"], golden=True), data["mu"])


def test_a_changed_weight_is_seen_by_the_oracle(v4):
    trigger, data = v4
    value = trigger.program.to_json()
    dense = next(node for node in value["nodes"] if node["op"] == "dense")
    row = 27  # pt of the first jet
    column = int(np.argmax(np.abs(dense["weights"][row])))
    dense["weights"][row][column] = 0
    changed = Trigger(Program.from_json(value))
    assert (changed.score(data["hw"]) != data["score"]).any()


def test_events_words_and_inputs_give_the_same_score():
    trigger = small_trigger()
    rng = np.random.default_rng(2)
    hw = np.zeros((50, 19, 3), dtype=np.int16)
    hw[:, :, 0] = np.sort(rng.integers(0, 200, (50, 19)), axis=1)[:, ::-1]
    score = trigger.score(hw)
    assert np.array_equal(trigger.score(hw.reshape(50, 57)), score)
    assert np.array_equal(trigger.score(Events.from_arrays(hw)), score)
    assert np.array_equal(trigger.score(Events.from_arrays(hw, layout="adc2021")), score)


def test_save_and_load(tmp_path):
    trigger = small_trigger().with_thresholds({"L1_AD": 12})
    path = tmp_path / "trigger.json"
    trigger.save(path)
    again = Trigger.load(tmp_path)
    words = random_words(np.random.default_rng(3), 200)
    assert again.hash == trigger.hash
    assert dict(again.thresholds) == {"L1_AD": 12}
    assert np.array_equal(again.score(words), trigger.score(words))
    assert again.program.to_json() == trigger.program.to_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(format="other"), "format"),
        (lambda v: v.update(format_version=9), "format_version"),
        (lambda v: v["program"]["nodes"][1]["shift"].__setitem__(0, 1), "edited"),
        (lambda v: v["program"]["nodes"][1].pop("shift"), "fields"),
        (lambda v: v["program"]["nodes"][2].update(op="softmax"), "op"),
        (lambda v: v["program"]["nodes"][2].update(inputs=["nobody"]), "nobody"),
        (lambda v: v["program"].update(score="dense_1"), "score"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path, change, message):
    path = tmp_path / "trigger.json"
    small_trigger().save(path)
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match=message) as error:
        Trigger.load(path)
    assert "\n" not in str(error.value)


def test_shape_type_and_layout_are_checked():
    trigger = small_trigger()
    with pytest.raises(TriggerError, match="shape"):
        trigger.score(np.zeros((3, 18, 3), int))
    with pytest.raises(TriggerError, match="integers"):
        trigger.score(np.zeros((3, 19, 3)))
    with pytest.raises(TriggerError, match="layout"):
        trigger.score(Events.from_arrays(np.zeros((1, 15, 3), int), layout="atlas_l1topo"))


# ---------------------------------------------------------------- scaling


def test_two_roundings_of_the_scaling():
    """-3.5 >> 6 is floored on the 1/32 grid before it is rounded: -0.0625, not -0.0547 (l1-facts, section 2)."""
    layout = ObjectLayout("one", (ObjectGroup("x", 1, (Word("pt", 9, lsb=0.5, unit="GeV"),)),))
    builder = ProgramBuilder(layout)
    fine = FixedType(14, 6, True, "RND_CONV", "SAT")
    scaling = Scaling(np.array([4.0]), np.array([6]))
    ref = add_scaling(builder, scaling, fine)
    assert input_multiplier(layout, scaling.word).tolist() == [16]
    node = builder._nodes[-1]
    code = node.evaluate(np.array([[1]]), fractions=(0,))  # 0.5 GeV - 4 GeV = -3.5
    assert fine.to_float(code).item() == -0.0625
    assert ref.size == 1


def test_offsets_without_fraction_bits_lose_their_halves():
    scaling = Scaling(np.array([17.5, 4.5, -0.5]), np.zeros(3, int), FixedType.parse("ap_fixed<10,10>"))
    assert scaling.stored_offset().tolist() == [17.0, 4.0, -1.0]
    assert scaling.truncated().tolist() == [0, 1, 2]
    halves = Scaling(np.array([17.5, 4.5, -0.5]), np.zeros(3, int), FixedType.parse("ap_fixed<10,9>"))
    assert not len(halves.truncated())


def test_bad_scaling_is_named():
    layers = ([np.zeros((57, 1), int)], [np.zeros(1, int)], V4_TYPES)
    with pytest.raises(TriggerError, match="shape"):
        Trigger.from_layers(*layers, {"offset": np.zeros(3), "shift": np.zeros(3, int)})
    with pytest.raises(TriggerError, match="offset 0"):
        Trigger.from_layers(*layers, {"offset": np.full(57, 600.0), "shift": np.zeros(57, int)})
    with pytest.raises(TriggerError, match="shift 0"):
        Trigger.from_layers(*layers, {"offset": np.zeros(57), "shift": np.full(57, 18)})
    with pytest.raises(TriggerError, match="fields"):
        Trigger.from_layers(*layers, {"offset": np.zeros(57)})


# ---------------------------------------------------------------- properties


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_chain_is_the_rational_chain(seed):
    """A random two-layer network evaluated with fractions, node by node, from its published description."""
    rng = np.random.default_rng(seed)
    trigger = small_trigger(seed)
    words = random_words(rng, 3)
    nodes = {n.name: n for n in trigger.program.nodes}
    scale, d1, d2 = nodes["scale"], nodes["dense_1"], nodes["dense_2"]
    for event, score in zip(words, trigger.score(words), strict=True):
        x = []
        for i, code in enumerate(event):
            value = Fraction(int(code), 2 if i % 3 == 0 else 1) - Fraction(int(scale.offset[i]), 32)
            shifted = (value * 32 / 2 ** int(scale.shift[i])).__floor__()
            x.append(clip(round(Fraction(shifted, 32) * 4), -128, 127))  # Python rounds half to even
        hidden = []
        for j in range(5):
            total = sum(Fraction(v, 4) * Fraction(int(w), 8) for v, w in zip(x, d1.weights[:, j], strict=True))
            hidden.append(clip(round(max(total + Fraction(int(d1.bias[j]), 8), 0) * 16), 0, 1023))
        squares = 0
        for k in range(3):
            total = sum(Fraction(v, 16) * Fraction(int(w), 8) for v, w in zip(hidden, d2.weights[:, k], strict=True))
            mu = clip(round((total + Fraction(int(d2.bias[k]), 8)) * 8), -512, 511)
            squares += (mu * mu) // 4  # 1/64 cut to 1/16
        assert int(score) == squares % (1 << 18)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_an_autoencoder_on_an_embedding_is_the_rational_chain(seed):
    """The shape of AXOL1TL v5 (57-29-10, then 10-9-6-4-6-9-10), each linear layer with a type of its own."""
    rng = np.random.default_rng(seed)
    sizes = (57, 29, 10, 9, 6, 4, 6, 9, 10)
    linear = {1: (12, 6), 4: (11, 5), 7: (18, 14)}  # layer: width and integer bits, RND_CONV and SAT
    fraction = {True: 3, False: 4}  # weights ap_fixed<4,1> in the backbone, ap_fixed<5,1> in the autoencoder
    weights = [rng.integers(-8, 8, pair) for pair in itertools.pairwise(sizes)]
    biases = [rng.integers(-8, 8, n) for n in sizes[1:]]
    offset, shift = rng.integers(0, 40, 57), rng.integers(2, 7, 57)
    word = "ap_fixed<18,14,RND_CONV,SAT>"
    types = {
        "input": "ap_fixed<14,6,RND_CONV,SAT>",
        "weight": ["ap_fixed<4,1>"] * 2 + ["ap_fixed<5,1>"] * 6,
        "bias": "ap_fixed<4,1>",
        "relu": [None if i in linear else "ap_ufixed<10,6,RND_CONV,SAT>" for i in range(7)],
        "result": [f"ap_fixed<{w},{n},RND_CONV,SAT>" for w, n in (linear.get(i, (18, 14)) for i in range(8))],
        "term": word,
        "score": word,
    }
    scaling = {"offset": offset, "shift": shift}
    trigger = Trigger.from_layers(weights, biases, types, scaling, "embedding_mse", embedding=2)
    words = random_words(rng, 3)
    scores, latents = trigger.score(words), trigger.latents(words)
    for event, score, latent in zip(words, scores, latents, strict=True):
        value = []
        for i, code in enumerate(event):
            shifted = (
                Fraction(int(code) * (16 if i % 3 == 0 else 32) - 32 * int(offset[i])) / 2 ** int(shift[i])
            ).__floor__()
            value.append(Fraction(clip(round(Fraction(shifted * 8)), -(2**13), 2**13 - 1), 256))
        outputs = []
        for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
            step = Fraction(1, 2 ** fraction[i < 2])
            sums = [sum(v * int(c) for v, c in zip(value, w[:, j], strict=True)) * step for j in range(w.shape[1])]
            sums = [s + Fraction(int(c), 8) for s, c in zip(sums, b, strict=True)]
            if i in linear:
                width, integer = linear[i]
                unit, low, high = 2 ** (width - integer), -(2 ** (width - 1)), 2 ** (width - 1) - 1
            else:
                unit, low, high = 16, 0, 1023
            value = [Fraction(clip(round(s * unit), low, high), unit) for s in sums]
            outputs.append(value)
        squares = [(a - b) ** 2 for a, b in zip(outputs[-1], outputs[1], strict=True)]
        total = sum(min(round(q * 16), 2**17 - 1) for q in squares)
        assert int(score) == min(total, 2**17 - 1)
        assert [Fraction(int(c), 64) for c in latent] == outputs[1]


def clip(value: int, low: int, high: int) -> int:
    return max(low, min(high, value))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_no_input_leaves_the_intervals(seed):
    trigger = small_trigger(seed)
    rng = np.random.default_rng(seed)
    words = random_words(rng, 300)
    layout_words = get_layout("cms_ugt").input_words
    low = np.array([w.word_min for w in layout_words])
    high = np.array([w.word_max for w in layout_words])
    corners = np.where(rng.random((300, 57)) < 0.5, low, high)
    values = trigger.program.evaluate(np.concatenate([words, corners]))
    for name, interval in trigger.program.intervals.items():
        assert (values[name] >= interval.low).all()
        assert (values[name] <= interval.high).all()


def test_the_interval_of_a_dense_layer_is_reached():
    """The bound is not only safe but tight: the worst input of each output gives exactly its end."""
    builder = ProgramBuilder(get_layout("cms_ugt"))
    rng = np.random.default_rng(4)
    weights = rng.integers(-8, 8, (57, 4))
    ref = builder.dense(builder.input, weights, rng.integers(-8, 8, 4), weight_type=FixedType(4, 4))
    node = builder._nodes[-1]
    source = builder.input.interval
    for output in range(4):
        for high, end in ((True, ref.interval.high), (False, ref.interval.low)):
            worst = node.worst_input(source, output, high=high)
            assert node.evaluate(worst[None, :], fractions=(0,))[0, output] == end[output]


def test_proof_finds_the_wrap_and_an_input_that_wraps():
    """Issue of generator versions 6.0.0 to 6.0.3: an accumulator left at ap_fixed<16,6> (l1-facts, section 8)."""
    builder = ProgramBuilder(get_layout("cms_ugt"))
    narrow = FixedType(16, 6)
    weights = np.full((57, 2), 31)
    dense = builder.dense(builder.input, weights, weight_type=FixedType(6, 3), type=narrow, name="accumulator")
    mu = builder.quantize(dense, FixedType(10, 7, True, "RND_CONV", "SAT"))
    score = NodeOps(builder).total([(1.0, builder.multiply(mu, mu, SCORE_TYPE))])
    report = prove(builder.program(score=score, latents=mu))
    assert not report.proven
    (row,) = report.wraps
    assert row.node == "accumulator"
    assert row.source == "input"
    exact = float(row.worst_input @ np.full(57, 31)) / 8
    assert not narrow.min_code * narrow.lsb <= exact <= narrow.max_code * narrow.lsb
    wide = FixedType(row.needed.width, row.needed.integer)
    assert wide.min_code * wide.lsb <= exact <= wide.max_code * wide.lsb
    assert "bits would not" in str(row)


def test_exact_accumulators_are_proven():
    report = prove(small_trigger().program)
    assert {row.verdict for row in report.rows if row.op == "dense"} == {"proven"}


def test_weight_that_does_not_fit_its_type_is_refused():
    with pytest.raises(TriggerError, match="weight"):
        Trigger.from_layers(
            [np.full((57, 1), 40)], [np.zeros(1, int)], V4_TYPES, {"offset": np.zeros(57), "shift": np.zeros(57, int)}
        )


def test_loading_and_scoring_does_not_import_tensorflow(tmp_path):
    path = tmp_path / "trigger.json"
    small_trigger().save(path)
    code = (
        "import sys, numpy, l1ad; l1ad.Trigger.load(sys.argv[1]).score(numpy.zeros((2, 19, 3), int));"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 0
