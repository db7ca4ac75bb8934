"""The fast kernel against the golden program: random programs, instruction sets, sanitizers, broken surroundings."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l1ad import Events, Trigger
from l1ad.errors import MissingToolError, TriggerError
from l1ad.events.layout import ObjectGroup, ObjectLayout, Word, get_layout
from l1ad.trigger.build import ProgramBuilder, Ref
from l1ad.trigger.emulate import ExactProgram, SlowEmulationWarning, Unsupported, score, supported_levels
from l1ad.trigger.emulate import run as emulate_run
from l1ad.trigger.emulate.build import Kernel, Recipe, build, find_compiler, load
from l1ad.trigger.emulate.codegen import NO_SCORE, generate
from l1ad.trigger.emulate.ranges import Chain
from l1ad.trigger.emulate.writer import LEVELS
from l1ad.trigger.fixed import FixedType
from l1ad.trigger.graph import Program

ROUNDINGS = ("TRN", "TRN_ZERO", "RND", "RND_ZERO", "RND_INF", "RND_MIN_INF", "RND_CONV")
OVERFLOWS = ("WRAP", "SAT", "SAT_ZERO", "SAT_SYM")
ACCUMULATOR_EDGES = [(1 << 15) - 1, 1 << 15, (1 << 31) - 1, 1 << 31, 1 << 40]
V4_TYPES = {
    "input": "ap_fixed<8,6,RND_CONV,SAT>",
    "weight": "ap_fixed<6,3>",
    "bias": "ap_fixed<10,7>",
    "relu": "ap_ufixed<10,6,RND_CONV,SAT>",
    "result": "ap_fixed<10,7,RND_CONV,SAT>",
}

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C compiler (cc, gcc or clang) on PATH")


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("L1AD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def words(rng: np.random.Generator, program: Program, n: int) -> np.ndarray:
    """Rows of network inputs: uniform words, with the ends of every word and of all words at once among them."""
    node = program.nodes[0]
    rows = rng.integers(node.low, node.high + 1, (n, node.size))
    extreme = rng.random((n, node.size))
    rows = np.where(extreme < 0.05, node.low, np.where(extreme > 0.95, node.high, rows))
    rows[0], rows[1], rows[2] = node.low, node.high, 0
    return rows.astype(np.int16)


def random_layout(rng: np.random.Generator) -> ObjectLayout:
    def word(name: str) -> Word:
        signed = bool(rng.integers(2))
        return Word(name, int(rng.integers(1, 16)), signed, kind="linear" if signed else "magnitude")

    groups = [
        ObjectGroup(f"g{i}", int(rng.integers(1, 4)), tuple(word(n) for n in "abc"[: 1 + i0]))
        for i0 in [int(rng.integers(3))]
        for i in range(int(rng.integers(1, 4)))
    ]
    return ObjectLayout("random", tuple(groups))


def random_type(rng: np.random.Generator, width: int, fraction: int) -> FixedType:
    return FixedType(
        width, width - fraction, bool(rng.integers(2)), str(rng.choice(ROUNDINGS)), str(rng.choice(OVERFLOWS))
    )


def random_dense(rng: np.random.Generator, builder: ProgramBuilder, x: Ref) -> Ref:
    bits = int(rng.choice([2, 4, 6, 8, 9, 12]))
    weight_type = FixedType(bits, bits - int(rng.integers(0, 4)))
    bias_type = FixedType(10, 10 - int(rng.integers(-2, 7)))
    n = int(rng.integers(1, 14))
    weights = rng.integers(weight_type.min_code, weight_type.max_code + 1, (x.size, n))
    weights[rng.random(weights.shape) < rng.choice([0.0, 0.5, 0.9])] = 0
    bias = rng.integers(bias_type.min_code, bias_type.max_code + 1, n)
    kind = None if rng.random() < 0.6 else random_type(rng, int(rng.integers(4, 24)), int(rng.integers(-2, 8)))
    return builder.dense(x, weights, bias, weight_type=weight_type, bias_type=bias_type, type=kind)


def random_step(rng: np.random.Generator, builder: ProgramBuilder, pool: list[Ref]) -> Ref:
    x = pool[int(rng.integers(len(pool)))]
    choice = rng.choice(["dense", "relu", "quantize", "lut", "multiply", "subtract", "concat", "take", "maximum"])
    narrow = random_type(rng, int(rng.integers(2, 15)), x.fraction - int(rng.integers(-2, 7)))
    if choice == "dense":
        return random_dense(rng, builder, x)
    if choice == "relu":
        return builder.relu(x, narrow)
    if choice == "quantize" or x.size == 1:
        return builder.quantize(x, narrow)
    if choice == "lut":
        address = builder.quantize(x, random_type(rng, int(rng.integers(2, 8)), x.fraction))
        low, high = address.interval.span
        kind = FixedType(int(rng.integers(3, 40)), 3, bool(rng.integers(2)))
        rows = address.size if rng.integers(2) else 1
        table = rng.integers(kind.min_code, kind.max_code + 1, (rows, high - low + 1))
        return builder.quantize(builder.lut(address, table, first=low, type=kind), random_type(rng, 12, 4))
    if choice in ("multiply", "subtract"):
        other = x if rng.integers(2) else builder.take(x, rng.permutation(x.size))
        a, b = (builder.quantize(v, random_type(rng, 9, x.fraction - i)) for i, v in enumerate((x, other)))
        return builder.multiply(a, a if rng.integers(2) else b) if choice == "multiply" else builder.subtract(a, b)
    if choice == "concat":
        other = pool[int(rng.integers(len(pool)))]
        if abs(other.fraction - x.fraction) > 8:
            return builder.quantize(x, narrow)
        return builder.concat(x, other)
    if choice == "take":
        return builder.take(x, rng.integers(0, x.size, int(rng.integers(1, x.size + 1))))
    return builder.maximum(x, rng.integers(0, x.size, (int(rng.integers(1, 6)), int(rng.integers(1, 4)))))


def random_program(seed: int) -> Program:
    """A program of every kind of node, with types of any mode; most of it is what the score depends on."""
    rng = np.random.default_rng(seed)
    builder = ProgramBuilder(random_layout(rng))
    n = builder.input.size
    if rng.random() < 0.8:
        word = FixedType(int(rng.integers(12, 22)), 13, True, "TRN", str(rng.choice(["WRAP", "SAT", "SAT_SYM"])))
        x = builder.scale(
            builder.input,
            multiplier=rng.choice([0, 1, 2, 3, 16, 32], n),
            offset=rng.integers(-40, 41, n) * rng.choice([1, 8, 16, 32], n),
            shift=rng.integers(-2, 8, n),
            word=word,
            type=random_type(rng, int(rng.integers(5, 15)), int(rng.integers(0, 4))),
        )
    else:
        x = builder.quantize(builder.input, random_type(rng, int(rng.integers(5, 16)), int(rng.integers(-3, 3))))
    pool = [x, builder.relu(random_dense(rng, builder, x), random_type(rng, 10, 4))]
    for _ in range(int(rng.integers(2, 7))):
        step = random_step(rng, builder, pool)
        if step.interval.type.width > 40 or step.size > 60:
            step = builder.quantize(step, random_type(rng, 16, step.fraction - 6))
        pool.append(step)
    near = [p for p in pool[-3:] if abs(p.fraction - pool[-1].fraction) < 12]
    last = random_dense(rng, builder, builder.concat(*near))
    # A wrap keeps low bits of what may be huge: it shows every bit that was lost on the way.
    overflow = str(rng.choice(["WRAP", "WRAP", *OVERFLOWS]))
    last = builder.quantize(last, FixedType(12, 8, bool(rng.integers(2)), str(rng.choice(ROUNDINGS)), overflow))
    total = builder.dense(last, np.ones((last.size, 1), dtype=np.int64), weight_type=FixedType(2, 2))
    kind = FixedType(18, 14, bool(rng.integers(2)), str(rng.choice(ROUNDINGS)), str(rng.choice(OVERFLOWS)))
    return builder.program(score=builder.quantize(total, kind))


def golden(program: Program, rows: np.ndarray) -> np.ndarray:
    return program.evaluate(rows)[program.score][:, 0]


def kernel_scores(program: Program, rows: np.ndarray, level: str, **options: int) -> np.ndarray:
    recipe = Recipe(program, tuple(range(rows.shape[1])), rows.shape[1], level)
    scores = np.empty(len(rows), dtype=np.int32)
    assert load(recipe).score(rows, scores) == 0, options
    return scores


# ------------------------------------------------------------------------------------------- the kernel and the program


@functools.lru_cache
def varied_programs(first: int, n: int) -> tuple[Program, ...]:
    """Random programs whose scores take many values: one that is always saturated shows nothing."""
    found: list[Program] = []
    seed = first
    while len(found) < n:
        program = random_program(seed)
        seed += 1
        if len(set(golden(program, words(np.random.default_rng(1), program, 200)).tolist())) > 20:
            found.append(program)
    return tuple(found)


def check_every_level(program: Program, seed: int) -> None:
    rows = words(np.random.default_rng([seed, 1]), program, 1003)
    expected = golden(program, rows)
    for level in supported_levels():
        assert np.array_equal(kernel_scores(program, rows, level), expected), level
    assert np.array_equal(ExactProgram(program).codes(rows)[:, 0], expected)


@needs_compiler
@pytest.mark.parametrize("index", range(8))
def test_random_programs_give_the_golden_score_at_every_level(index):
    check_every_level(varied_programs(0, 8)[index], index)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("index", range(200))
def test_many_random_programs_give_the_golden_score_at_every_level(index):
    check_every_level(varied_programs(1000, 200)[index], index)


@pytest.mark.parametrize("index", range(8))
def test_numpy_gives_the_golden_codes_of_every_node(index):
    program = varied_programs(0, 8)[index]
    rows = words(np.random.default_rng([index, 2]), program, 501).astype(np.int32)
    rows[7, 0] = program.intervals[program.nodes[0].name].high[0] + 1  # a word that its bits cannot hold
    for name, expected in program.evaluate(rows).items():
        codes = ExactProgram(program, name).codes(rows)
        assert codes.dtype == np.int64
        assert np.array_equal(codes, expected), name


def test_random_programs_use_every_node_and_mode():
    nodes = [node for program in varied_programs(0, 8) for node in program.nodes]
    assert {node.op for node in nodes} == {
        "input", "scale", "dense", "relu", "quantize", "lut", "multiply", "subtract", "concat", "take", "maximum",
    }  # fmt: skip
    assert {node.type.rounding for node in nodes} == set(ROUNDINGS)
    assert {node.type.overflow for node in nodes} == set(OVERFLOWS)


def network(seed: int, sizes: tuple[int, ...] = (57, 28, 15, 8), **types: str) -> Trigger:
    """A network, of the deployed shape by default, with half its weights zero."""
    rng = np.random.default_rng(seed)
    weights = [rng.integers(-32, 32, (a, b)) * (rng.random((a, b)) < 0.5) for a, b in pairwise(sizes)]
    biases = [rng.integers(-200, 200, b) for b in sizes[1:]]
    scaling = {"offset": rng.integers(0, 40, 57), "shift": rng.integers(-1, 8, 57)}
    return Trigger.from_layers(weights, biases, {**V4_TYPES, **types}, scaling, "mu2")


@needs_compiler
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("types", [{}, {"input": "ap_fixed<14,6,RND_CONV,SAT>", "relu": "ap_ufixed<10,7>"}])
def test_networks_of_the_deployed_shape_give_the_golden_score(level, types):
    if level not in supported_levels():
        pytest.skip(f"this machine does not run {level}")
    trigger = network(3, **types)
    rows = words(np.random.default_rng(5), trigger.program, 5000)
    expected = trigger.score(rows, golden=True)
    assert np.array_equal(trigger.score(rows, isa=level), expected)
    assert len(set(expected.tolist())) > 100


@needs_compiler
def test_deployed_v4_network_at_every_level_and_with_threads(oracles):
    data = np.load(oracles / "axol1tl_v4.npz")
    weights, biases = [data[f"w{i}"] for i in range(3)], [data[f"b{i}"] for i in range(3)]
    scaling = {"offset": data["offset"], "shift": data["shift"]}
    trigger = Trigger.from_layers(weights, biases, V4_TYPES, scaling, "mu2", name="axol1tl_v4")
    for level in supported_levels():
        assert np.array_equal(trigger.score(data["hw"], isa=level), data["score"]), level
    many = np.concatenate([data["hw"]] * 8)
    assert np.array_equal(trigger.score(many, threads=3), np.concatenate([data["score"]] * 8))
    assert np.array_equal(ExactProgram(trigger.program).codes(data["hw"].reshape(-1, 57))[:, 0], data["score"])


@needs_compiler
@pytest.mark.parametrize("name", ["cms_calo_regions", "atlas_l1topo"])
def test_other_layouts_with_rows_that_have_more_words_than_inputs(name):
    layout = get_layout(name)
    rng = np.random.default_rng(11)
    n = layout.n_inputs
    weights = [rng.integers(-32, 32, (n, 6)), rng.integers(-32, 32, (6, 1))]
    trigger = Trigger.from_layers(
        weights, [rng.integers(-99, 99, 6), [50]], V4_TYPES, {"offset": np.zeros(n), "shift": np.full(n, 3)},
        "student", layout=layout,
    )  # fmt: skip
    low = [[w.word_min for w in slot] for slot in layout.words]
    high = [[w.word_max for w in slot] for slot in layout.words]
    hw = rng.integers(low, np.array(high) // 8 + 1, (777, *layout.shape)).astype(np.int16)
    expected = trigger.score(hw, golden=True)
    for level in {supported_levels()[0], supported_levels()[-1]}:
        assert np.array_equal(trigger.score(hw, isa=level), expected), level
    assert np.array_equal(trigger.score(trigger.inputs(hw), isa=supported_levels()[-1]), expected)
    assert len(set(expected.tolist())) > 20


# --------------------------------------------------------------------------------------------- widths, never too narrow


@needs_compiler
@pytest.mark.parametrize("edge", ACCUMULATOR_EDGES)
@pytest.mark.parametrize("negative", [False, True])
def test_sums_at_the_edge_of_a_type(edge, negative):
    """Two inputs and a bias whose largest sum is exactly `edge`: one more than a type holds must widen it."""
    layout = ObjectLayout("edge", (ObjectGroup("g", 9, (Word("a", 8),)),))
    builder = ProgramBuilder(layout)
    sign = -1 if negative else 1
    each = edge // (9 * 255)
    bias = edge - 9 * 255 * each
    wide = FixedType(44, 44)
    sums = builder.dense(builder.input, np.full((9, 1), sign * each), [sign * bias], weight_type=wide, bias_type=wide)
    assert abs(sums.interval.span[0 if negative else 1]) == edge
    shift = max(edge.bit_length() - 12, 0)
    score_ref = builder.quantize(
        builder.quantize(sums, FixedType(18, 18 + shift, True, "TRN", "SAT")), FixedType(18, 14)
    )
    program = builder.program(score=score_ref)
    rows = words(np.random.default_rng(edge % 97), program, 300)
    for level in supported_levels():
        assert np.array_equal(kernel_scores(program, rows, level), golden(program, rows)), level


@needs_compiler
def test_byte_products_that_would_saturate_are_not_used():
    """As unsigned bytes 255 * 127 twice is beyond int16, though no sum is: the instruction would clip it silently."""
    layout = ObjectLayout("bytes", (ObjectGroup("g", 8, (Word("a", 8, signed=True, kind="linear"),)),))
    builder = ProgramBuilder(layout)
    weights = np.array([[127], [127], *[[0]] * 6])
    sums = builder.dense(builder.input, weights, weight_type=FixedType(8, 8))
    assert sums.interval.span == (-32512, 32258)
    program = builder.program(score=builder.quantize(sums, FixedType(18, 14)))
    rows = words(np.random.default_rng(0), program, 500)
    for level in supported_levels():
        assert np.array_equal(kernel_scores(program, rows, level), golden(program, rows)), level


def in_python(line: str) -> str:
    """A statement of `Chain` as a Python expression: integers without an end, so that what does not fit shows."""
    text = line.removeprefix("t = ").removesuffix(";").replace("(T)", "").replace("INT64_C", "").replace("||", "or")
    text = re.sub(r"\(t < 0 \? (.+?) : 0\)", r"((\1) if t < 0 else 0)", text)
    if " ? " in text:
        condition, rest = text.split(" ? ", 1)
        yes, no = rest.split(" : ", 1)
        text = f"({yes}) if ({condition}) else ({no})"
    return text


@settings(max_examples=300, deadline=None)
@given(
    st.integers(-(1 << 40), 1 << 40), st.integers(0, 1 << 20), st.integers(1, 40), st.booleans(),
    st.sampled_from(ROUNDINGS), st.sampled_from(OVERFLOWS), st.integers(-8, 50), st.data(),
)  # fmt: skip
def test_statements_are_the_cast_and_stay_within_their_type(low, size, width, signed, rounding, overflow, shift, data):
    """The C statements, run as Python, give `FixedType.cast`, and no intermediate value leaves the type chosen."""
    kind = FixedType(width, width, signed, rounding, overflow)
    chain = Chain(low, low + size)
    chain.cast(kind, shift)
    limit = 1 << (chain.bits - 1)
    value = data.draw(st.integers(low, low + size))
    t = value
    for line in chain.lines:
        t = eval(in_python(line), {"t": t, "SHIFT": lambda n: min(n, chain.bits - 1)})
        assert -limit <= t < limit, (line, t)
    assert t == int(kind.cast(np.array([value]), shift)[0])
    assert chain.low <= t <= chain.high


@needs_compiler
@pytest.mark.parametrize("level", LEVELS)
def test_layers_too_large_to_write_out_use_tables(level):
    if level not in supported_levels():
        pytest.skip(f"this machine does not run {level}")
    program = network(8, (57, 9, 5)).program
    rows = words(np.random.default_rng(9), program, 500)
    source = generate(program, level=level, unrolled_products=10)
    assert "static const int16_t w0[]" in source
    assert np.array_equal(compiled(source, level, rows), golden(program, rows))


def compiled(source: str, level: str, rows: np.ndarray) -> np.ndarray:
    """Scores of a source that is not in the cache."""
    import tempfile

    from l1ad.trigger.emulate.build import _LEVEL_FLAGS, BASE_FLAGS, _seal, compile_source

    compiler = find_compiler()
    assert compiler is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.so"
        compile_source(source, path, compiler=compiler, flags=(*BASE_FLAGS, *_LEVEL_FLAGS[level]))
        _seal(path)
        recipe = Recipe(network(8, (57, 9, 5)).program, tuple(range(rows.shape[1])), rows.shape[1], level)
        scores = np.empty(len(rows), dtype=np.int32)
        Kernel(path, recipe).score(rows, scores)
    return scores


def test_values_beyond_64_bits_are_refused_not_wrapped():
    layout = ObjectLayout("wide", (ObjectGroup("g", 1, (Word("a", 12),)),))
    builder = ProgramBuilder(layout)
    big = builder.dense(builder.input, [[1 << 49]], weight_type=FixedType(51, 51))
    square = builder.multiply(builder.quantize(big, FixedType(62, 62)), big, FixedType(62, 62, True, "TRN", "SAT"))
    program = builder.program(score=builder.quantize(square, FixedType(18, 14, True, "TRN", "SAT")))
    with pytest.raises(Unsupported, match="bits"):
        generate(program, level="portable")


# -------------------------------------------------------------------------------------------------------- what comes in


@needs_compiler
def test_any_integer_type_and_any_strides():
    trigger = network(4, (57, 9, 5))
    rows = words(np.random.default_rng(6), trigger.program, 3000)
    rows[:, :] = np.abs(rows)  # so that unsigned types can hold them
    node = trigger.program.nodes[0]
    rows = np.minimum(rows, node.high).astype(np.int16)
    expected = trigger.score(rows, golden=True)
    level = supported_levels()[-1]
    for dtype in (np.int32, np.int64, np.uint16, np.uint64, ">i2"):
        assert np.array_equal(trigger.score(rows.astype(dtype), isa=level), expected), dtype
    assert np.array_equal(trigger.score(np.asfortranarray(rows), isa=level), expected)
    assert np.array_equal(trigger.score(rows[::2], isa=level), expected[::2])
    assert np.array_equal(trigger.score(rows[::-1], isa=level), expected[::-1])
    wide = np.zeros((len(rows), 80), dtype=np.int16)
    wide[:, 5:62] = rows
    assert np.array_equal(trigger.score(wide[:, 5:62], isa=level), expected)
    assert np.array_equal(trigger.score(rows.reshape(-1, 19, 3), isa=level), expected)
    assert np.array_equal(trigger.score(Events.from_arrays(np.zeros((5, 19, 3), np.int16)), isa=level),
                          trigger.score(np.zeros((5, 57), np.int16), golden=True))  # fmt: skip
    odd = np.frombuffer(b"\0" + rows.tobytes(), dtype=np.uint8)[1:].view(np.int16).reshape(rows.shape)
    assert np.array_equal(trigger.score(odd, isa=level), expected)
    for n in (0, 1, 31, 32, 33):
        assert np.array_equal(trigger.score(rows[:n], isa=level), expected[:n]), n


@needs_compiler
@pytest.mark.parametrize("dtype", [np.int16, np.int64])
def test_words_that_their_bits_cannot_hold_get_the_golden_score(dtype):
    trigger = network(4, (57, 9, 5))
    rows = words(np.random.default_rng(6), trigger.program, 2000).astype(dtype)
    rows[7, 0], rows[500, 5], rows[1999, 56] = 5000, -3, 300
    if dtype == np.int64:
        rows[100, 3] = 1 << 20
    expected = trigger.score(rows, golden=True)
    for level in supported_levels():
        assert np.array_equal(trigger.score(rows, isa=level), expected), level
    assert np.array_equal(ExactProgram(trigger.program).codes(rows)[:, 0], expected)
    if dtype == np.int16:
        kernel = load(Recipe(trigger.program, tuple(range(57)), 57, supported_levels()[-1]))
        scores = np.empty(len(rows), dtype=np.int64)
        assert kernel.score(rows, scores) == 3
        assert np.flatnonzero(scores == NO_SCORE).tolist() == [7, 500, 1999]


@needs_compiler
def test_a_word_beyond_int16_wraps_as_the_input_type_of_the_program_does():
    layout = ObjectLayout("wide", (ObjectGroup("g", 9, (Word("a", 8),)),))
    builder = ProgramBuilder(layout)
    clipped = builder.quantize(builder.input, FixedType(7, 7, False, "TRN", "SAT"))
    total = builder.dense(clipped, np.ones((9, 1), dtype=np.int64), weight_type=FixedType(2, 2))
    program = builder.program(score=builder.quantize(total, FixedType(18, 14, False)))
    rows = words(np.random.default_rng(1), program, 40).astype(np.int64)
    rows[:, 4] = 0
    rows[17, 4] = (1 << 16) + 5
    expected = golden(program, rows)
    assert np.array_equal(score(program, rows, isa="portable"), expected)


@needs_compiler
def test_the_kernel_refuses_arrays_that_it_would_read_beside():
    trigger = network(4, (57, 9, 5))
    kernel = load(Recipe(trigger.program, tuple(range(57)), 57, "portable"))
    good = np.zeros((4, 57), dtype=np.int16)
    for rows, scores in (
        (good.astype(np.int32), np.empty(4, np.int32)),
        (good[:, :50], np.empty(4, np.int32)),
        (good, np.empty(3, np.int32)),
        (good, np.empty(4, np.int16)),
        (good, np.empty(8, np.int32)[::2]),
        (np.zeros((4, 114), np.int16)[:, ::2], np.empty(4, np.int32)),
    ):
        with pytest.raises(ValueError, match=r"rows|scores"):
            kernel.score(rows, scores)


def test_options_that_cannot_be_are_one_line():
    trigger = network(4, (57, 9, 5))
    rows = np.zeros((3, 57), dtype=np.int16)
    with pytest.raises(TriggerError, match=r"isa: found avx9, expected one that this machine runs: portable"):
        trigger.score(rows, isa="avx9")
    with pytest.raises(TriggerError, match="threads: found 0"):
        trigger.score(rows, threads=0)


@needs_compiler
def test_many_events_use_the_kernel_and_few_do_not_wait_for_a_compiler(monkeypatch):
    trigger = network(21, (57, 9, 5))
    used = []
    original = Kernel.score
    monkeypatch.setattr(Kernel, "score", lambda self, *a: used.append(self.level) or original(self, *a))
    rows = words(np.random.default_rng(6), trigger.program, emulate_run.COMPILE_EVENTS)
    few = trigger.score(rows[:10])
    assert not used
    scores = trigger.score(rows)
    assert set(used) == {supported_levels()[-1]}
    assert np.array_equal(scores[:10], few)
    used.clear()
    assert np.array_equal(trigger.score(rows[:10]), few)
    assert len(used) == 1  # it is there now, so few events use it too


@needs_compiler
def test_scores_into_a_given_array():
    trigger = network(4, (57, 9, 5))
    rows = words(np.random.default_rng(6), trigger.program, 100)
    out = np.full(100, -1, dtype=np.int32)
    assert score(trigger.program, rows, isa="portable", out=out) is out
    assert np.array_equal(out, trigger.score(rows, golden=True))


# ------------------------------------------------------------------------------------------------ sanitizers, processes

_DRIVER = """
#include <stdio.h>
int main(int argc, char **argv)
{
    const int64_t n = atoll(argv[2]), stride = atoll(argv[3]);
    const int64_t words = n ? (n - 1) * stride + WORDS : 0;
    /* Exactly as large as the rows: whatever is read beside them is caught. */
    int16_t *rows = malloc(words * sizeof(int16_t) + !words);
    int32_t *scores = malloc(n * sizeof(int32_t) + !n);
    int64_t *wide = malloc(n * sizeof(int64_t) + !n);
    FILE *file = fopen(argv[1], "rb");
    if (argc != 4 || !file || fread(rows, sizeof(int16_t), words, file) != (size_t)words)
        return 3;
    fclose(file);
    l1ad_score32(rows, n, stride, scores);
    l1ad_score64(rows, n, stride, wide);
    for (int64_t i = 0; i < n; i++) {
        if (scores[i] != wide[i])
            return 4;
        printf("%d\\n", scores[i]);
    }
    free(rows); free(scores); free(wide);
    return 0;
}
"""


def sanitized_scores(folder: Path, program: Program, rows: np.ndarray, level: str, **options: int) -> np.ndarray:
    """Scores from the generated C under the address and undefined-behaviour sanitizers, in a process of its own."""
    from l1ad.trigger.emulate.build import _LEVEL_FLAGS

    source, binary, data = folder / "kernel.c", folder / "kernel", folder / "rows"
    source.write_text(generate(program, level=level, **options) + _DRIVER, encoding="utf-8")
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command = [find_compiler(), *flags, *_LEVEL_FLAGS[level], "-o", str(binary), str(source)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if "cannot find" in made.stderr and "san" in made.stderr:
        pytest.skip("the compiler has no libasan or libubsan")
    assert made.returncode == 0, made.stderr
    assert "warning" not in made.stderr, made.stderr
    stride = rows.strides[0] // 2 if len(rows) > 1 else rows.shape[1]
    base = rows if rows.base is None or stride == rows.shape[1] else rows.base
    data.write_bytes(np.ascontiguousarray(base).tobytes())
    ran = subprocess.run([binary, data, str(len(rows)), str(stride)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return np.array(ran.stdout.split(), dtype=np.int64)


@needs_compiler
@pytest.mark.parametrize("level", LEVELS)
def test_generated_c_under_the_sanitizers(tmp_path, level):
    if level not in supported_levels():
        pytest.skip(f"this machine does not run {level}")
    rng = np.random.default_rng(77)
    for program, options in (
        (network(5, (57, 5, 3)).program, {}),
        (varied_programs(0, 8)[3], {"unrolled_products": 5}),
    ):
        for n in (0, 1, 75):
            rows = words(rng, program, max(n, 3))[:n]
            scores = sanitized_scores(tmp_path, program, np.ascontiguousarray(rows), level, **options)
            assert np.array_equal(scores, golden(program, rows))


@needs_compiler
@pytest.mark.parametrize("options", [{}, {"unrolled_products": 0}])
def test_parts_of_a_sum_may_overflow_by_the_rules_of_c(tmp_path, options):
    """Five terms of up to 546 million reach beyond int32 before four others take them back: signed, C forbids that."""
    builder = ProgramBuilder(ObjectLayout("parts", (ObjectGroup("g", 9, (Word("a", 8),)),)))
    n = builder.input.size
    lifted = builder.scale(
        builder.input,
        multiplier=np.ones(n, np.int64), offset=np.full(n, -200), shift=np.zeros(n, np.int64),
        word=FixedType(16, 16), type=FixedType(12, 12),
    )  # fmt: skip
    assert lifted.interval.span == (200, 455)
    weights = np.array([1_200_000] * 5 + [-1_200_000] * 4)[:, None]
    sums = builder.dense(lifted, weights, weight_type=FixedType(22, 22))
    assert -(1 << 31) <= sums.interval.span[0] < sums.interval.span[1] < 1 << 31
    kept = builder.quantize(sums, FixedType(18, 32, True, "TRN", "SAT"))
    program = builder.program(score=builder.quantize(kept, FixedType(18, 14)))
    rows = words(np.random.default_rng(2), program, 60)
    rows[5, :5], rows[5, 5:] = 255, 0
    found = sanitized_scores(tmp_path, program, rows, "portable", **options)
    assert np.array_equal(found, golden(program, rows))


@needs_compiler
@pytest.mark.parametrize("level", LEVELS)
def test_impossible_words_and_gaps_between_rows_under_the_sanitizers(tmp_path, level):
    """A table must not be read beside its ends, whatever the words; words between rows are not read."""
    if level not in supported_levels():
        pytest.skip(f"this machine does not run {level}")
    layout = ObjectLayout("lut", (ObjectGroup("g", 9, (Word("a", 6, signed=True, kind="linear"),)),))
    builder = ProgramBuilder(layout)
    table = builder.lut(builder.input, np.arange(9 * 64).reshape(9, 64), first=-32, type=FixedType(12, 12))
    total = builder.dense(table, np.ones((9, 1), dtype=np.int64), weight_type=FixedType(2, 2))
    program = builder.program(score=builder.quantize(total, FixedType(18, 14)))
    wide = np.random.default_rng(1).integers(-(1 << 15), 1 << 15, (40, 11)).astype(np.int16)
    wide[::3, :9] = np.random.default_rng(2).integers(-32, 32, (14, 9))
    # The last row ends with the file: the driver asks for no word behind it.
    wide = wide[:, :]
    scores = sanitized_scores(tmp_path, program, wide[:, :9], level)
    good = ((wide[:, :9] >= -32) & (wide[:, :9] < 32)).all(axis=1)
    assert good.sum() == 14
    assert np.array_equal(scores[good], golden(program, wide[good, :9]))
    assert (scores[~good] == NO_SCORE).all()


_SCORE_SCRIPT = """
import sys, warnings
import numpy as np
from l1ad import Trigger
trigger = Trigger.load(sys.argv[1])
rows = np.load(sys.argv[2])
scores = trigger.score(rows)
scores = trigger.score(rows)
np.save(sys.argv[3], scores)
"""


def score_in_process(tmp_path: Path, name: str, **environment: str) -> subprocess.Popen[str]:
    env = {**os.environ, **environment, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [
        sys.executable,
        "-c",
        _SCORE_SCRIPT,
        str(tmp_path / "t.json"),
        str(tmp_path / "r.npy"),
        str(tmp_path / name),
    ]
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def saved(tmp_path):
    trigger = network(30, (57, 9, 5))
    rows = words(np.random.default_rng(6), trigger.program, 5000)
    trigger.save(tmp_path / "t.json")
    np.save(tmp_path / "r.npy", rows)
    return trigger.score(rows, golden=True)


@needs_compiler
def test_processes_that_build_the_same_entry_at_once(tmp_path, saved):
    cache = tmp_path / "cache"
    running = [score_in_process(tmp_path, f"{i}.npy", L1AD_CACHE=str(cache)) for i in range(4)]
    for process in running:
        assert process.communicate(timeout=300)[1] == ""
    for i in range(4):
        assert np.array_equal(np.load(tmp_path / f"{i}.npy"), saved)
    assert [path.suffix for path in (cache / "kernels").iterdir()] == [".so"]


def test_without_a_compiler_the_scores_are_the_same_and_it_says_so_once(tmp_path, saved):
    process = score_in_process(tmp_path, "n.npy", PATH="", CC="", L1AD_CACHE=str(tmp_path / "cache"))
    message = process.communicate(timeout=300)[1]
    assert process.returncode == 0, message
    assert message.count("no C compiler") == 1
    assert "slower" in message
    assert np.array_equal(np.load(tmp_path / "n.npy"), saved)


def test_a_compiler_that_fails_is_named_and_the_scores_are_the_same(tmp_path, saved):
    fake = tmp_path / "bin" / "cc"
    fake.parent.mkdir()
    fake.write_text(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo fake 1 && exit 0\necho 'error: out of cheese' >&2\nexit 1\n"
    )
    fake.chmod(0o755)
    process = score_in_process(tmp_path, "f.npy", PATH=str(fake.parent), CC="", L1AD_CACHE=str(tmp_path / "cache"))
    message = process.communicate(timeout=300)[1]
    assert "out of cheese" in message
    assert np.array_equal(np.load(tmp_path / "f.npy"), saved)
    assert not list((tmp_path / "cache").rglob("*.so")) + list((tmp_path / "cache").rglob("*.part"))


@needs_compiler
def test_a_cache_that_cannot_be_written_or_is_damaged(tmp_path, monkeypatch):
    trigger = network(31, (57, 4, 2))
    rows = words(np.random.default_rng(6), trigger.program, 200)
    expected = trigger.score(rows, golden=True)
    recipe = Recipe(trigger.program, tuple(range(57)), 57, "portable")

    def fresh() -> np.ndarray:
        scores = np.empty(len(rows), dtype=np.int32)
        load(recipe).score(rows, scores)
        return scores

    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("L1AD_CACHE", str(tmp_path / "file"))
    assert np.array_equal(fresh(), expected)
    monkeypatch.setenv("L1AD_CACHE", str(tmp_path / "cache"))
    path = build(recipe)
    content = path.read_bytes()
    for damage in (content[: len(content) // 2], b"", b"not a library"):
        path.unlink()  # a library that is loaded must not change under its process
        path.write_bytes(damage)
        assert np.array_equal(fresh(), expected)
        assert path.read_bytes()[-32:] == content[-32:] or len(path.read_bytes()) > 1000


@needs_compiler
def test_a_kernel_that_differs_from_the_golden_program_is_never_used(tmp_path, monkeypatch):
    monkeypatch.setenv("L1AD_CACHE", str(tmp_path))
    original = Recipe.source
    monkeypatch.setattr(Recipe, "source", lambda self: original(self).replace("(type)s->", "1 + (type)s->"))
    trigger = network(40, (57, 4, 2))
    rows = words(np.random.default_rng(6), trigger.program, 200)
    with pytest.raises(MissingToolError, match="differs from the golden program on"):
        load(Recipe(trigger.program, tuple(range(57)), 57, "portable"))
    with pytest.warns(SlowEmulationWarning, match="differs from the golden program"):
        scores = trigger.score(rows, isa="portable")
    assert np.array_equal(scores, trigger.score(rows, golden=True))
    assert not list(tmp_path.rglob("*.so"))


@needs_compiler
def test_the_cache_key_follows_program_row_level_and_compiler(tmp_path):
    trigger, other = network(4, (57, 9, 5)), network(5)
    compiler = find_compiler()
    columns = tuple(range(57))
    recipes = [
        Recipe(trigger.program, columns, 57, "portable"),
        Recipe(other.program, columns, 57, "portable"),
        Recipe(trigger.program, columns, 60, "portable"),
        Recipe(trigger.program, columns[1:] + columns[:1], 57, "portable"),
        Recipe(trigger.program, columns, 57, "avx2"),
    ]
    keys = {recipe.key(compiler, ("-O3",)) for recipe in recipes} | {recipes[0].key(compiler, ("-O2",))}
    copy = tmp_path / "cc"
    copy.write_text('#!/bin/sh\necho "another compiler 99.1"\n')
    copy.chmod(0o755)
    keys.add(recipes[0].key(str(copy), ("-O3",)))
    assert len(keys) == len(recipes) + 2
    again = Trigger(Program.from_json(trigger.program.to_json()), name="another name")
    assert Recipe(again.program, columns, 57, "portable").key(compiler, ("-O3",)) in keys
    assert shutil.which("cc") or compiler
