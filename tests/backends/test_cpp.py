"""The C++ of a program: every node and every cast against the golden evaluation, compiled with g++ and ap_types."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from l1ad import Trigger
from l1ad.backends import cpp, native
from l1ad.errors import InputError, MissingToolError, TriggerError
from l1ad.events.layout import get_layout
from l1ad.trigger.build import ProgramBuilder
from l1ad.trigger.fixed import FixedType, Overflow, Rounding
from l1ad.trigger.graph import Program

MAIN = """
#include "program.h"
#include <cstdio>
#include <vector>
int main(int, char **argv) {
    FILE *in = fopen(argv[1], "rb"), *out = fopen(argv[2], "wb");
    int codes[INPUTS];
    std::vector<long long> row(COLUMNS);
    while (fread(codes, sizeof codes, 1, in) == 1) {
        here::input_t input[INPUTS];
        for (int i = 0; i < INPUTS; i++)
            input[i] = here::input_t(codes[i]);
        here::trace(input, row.data());
        fwrite(row.data(), sizeof(long long), COLUMNS, out);
    }
    return fclose(out);
}
"""


def compiled_trace(program: Program, folder: Path, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Trace of the compiled program."""
    code = cpp.print_program(program, namespace="here")
    (folder / "program.h").write_text(code.header)
    text = MAIN.replace("INPUTS", str(program.nodes[0].size)).replace("COLUMNS", str(code.trace_size))
    (folder / "main.cpp").write_text(text)
    include = [native.ap_types()]
    # -O0: what is tested is the text, and the compiler's optimiser would cost most of the time.
    flags = ["-std=c++17", "-O0", "-Wno-unknown-pragmas"]
    main = native.compile_program(folder, ["main.cpp"], "main", headers=["program.h"], include=include, flags=flags)
    return cpp.split_trace(program, code.printed, native.score_events([main], inputs, code.trace_size))


def random_inputs(program: Program, rng: np.random.Generator, n: int) -> np.ndarray:
    """Random words, and the ends of all of them."""
    node = program.nodes[0]
    codes = rng.integers(node.low, node.high + 1, size=(n, node.size))
    codes[0], codes[1], codes[2] = node.low, node.high, 0
    return codes


def assert_same(program: Program, got: dict[str, np.ndarray], inputs: np.ndarray) -> None:
    expected = program.evaluate(inputs)
    assert list(got) == list(expected)
    for name, codes in expected.items():
        wrong = np.flatnonzero((got[name] != codes).any(axis=1))
        assert not len(wrong), f"{name} ({program.node(name).type}): {got[name][wrong[0]]} != {codes[wrong[0]]}"


def every_cast(rng: np.random.Generator) -> Program:
    """A quantiser, a relu and a square for every rounding and overflow mode, signed and not, onto several grids."""
    builder = ProgramBuilder(get_layout("cms_ugt"))
    few = builder.take(builder.input, [0, 3, 4, 15, 16, 27, 28, 29])
    weights = rng.integers(-31, 32, size=(8, 8))
    fine = builder.dense(few, weights, weight_type=FixedType(6, 1), bias=rng.integers(-9, 9, 8))
    modes = list(product(get_args(Rounding), get_args(Overflow), (True, False)))
    for i, (rounding, overflow, signed) in enumerate(modes):
        width, integer = [(10, 7), (6, 9), (5, -1), (12, 12), (17, 13), (3, 0)][i % 6]
        kind = FixedType(width, integer, signed, rounding, overflow)
        builder.quantize(fine, kind, name=f"quantize_{i}")
        if i % 4 == 0:
            builder.relu(fine, kind, name=f"relu_{i}")
        if i % 8 == 1:
            builder.multiply(fine, few, kind, name=f"multiply_{i}")
    total = builder.dense(fine, np.ones((8, 1), int), weight_type=FixedType(2, 2))
    return builder.program(score=builder.quantize(total, FixedType(18, 14, False), name="score"))


def every_node(rng: np.random.Generator) -> Program:
    """Each operation, with names that are no C++ identifiers."""
    builder = ProgramBuilder(get_layout("cms_ugt"))
    word = FixedType(18, 13)
    n = builder.input.size
    scaled = builder.scale(
        builder.input,
        multiplier=rng.choice([16, 32], n),
        offset=rng.integers(-4000, 4000, n),
        shift=rng.integers(-4, 7, n),
        word=word,
        type=FixedType(8, 6, True, "RND_CONV", "SAT"),
        name="q_scale/0",
    )
    other = builder.scale(
        builder.input,
        multiplier=np.full(n, 32),
        offset=rng.integers(-40000, 40000, n),
        shift=rng.integers(-6, 5, n),
        word=word.with_modes("TRN", "SAT"),
        type=FixedType(11, 9, False, "RND", "SAT"),
        name="q_scale 0",
    )
    hidden = builder.dense(
        scaled, rng.integers(-16, 16, (n, 6)) * (rng.random((n, 6)) < 0.3), weight_type=FixedType(5, 2)
    )
    hidden = builder.relu(hidden, FixedType(9, 5, False, "RND_CONV", "SAT"), name="int")
    table = rng.integers(-(1 << 19), 1 << 19, (1, 512))
    shared = builder.lut(hidden, table, first=0, type=FixedType(20, 12), name="table")
    low, high = scaled.interval.span
    single = rng.integers(0, 200, (n, high - low + 1))
    each = builder.lut(scaled, single, first=low, type=FixedType(8, 8, False), name="4tables")
    first = builder.take(each, [0, 5, 5, 56, 20, 33])
    difference = builder.subtract(first, hidden, name="class")
    same = builder.subtract(hidden, hidden)
    joined = builder.concat(difference, shared, same, builder.take(other, [1, 2, 3]), difference)
    top = builder.maximum(joined, rng.integers(0, joined.size, (5, 4)))
    squares = builder.multiply(top, top, FixedType(18, 14, False))
    # A constant column and one without weights, and a bias that no partial sum stays below.
    column = np.ones((5, 1), int)
    total = builder.dense(squares, column, [37], weight_type=FixedType(2, 2), bias_type=FixedType(8, 5))
    builder.dense(squares, np.zeros((5, 2), int), [1, 0], weight_type=FixedType(2, 2), name="empty")
    score = builder.quantize(total, FixedType(18, 14, True, "RND_CONV", "SAT"), name="score")
    return builder.program(score=score, latents=hidden)


@pytest.mark.parametrize("make", [every_cast, every_node])
def test_compiled_nodes_equal_the_golden_evaluation(make, tmp_path) -> None:
    rng = np.random.default_rng(7)
    program = make(rng)
    inputs = random_inputs(program, rng, 500)
    assert_same(program, compiled_trace(program, tmp_path, inputs), inputs)


def test_names_are_identifiers_and_differ() -> None:
    names = cpp.identifiers(every_node(np.random.default_rng(0)))
    assert names["q_scale/0"] == "q_scale_0"
    assert names["q_scale 0"] == "q_scale_0_2"
    assert names["int"] == "int_"
    assert len(set(names.values())) == len(names)


def test_zero_weights_are_not_printed() -> None:
    trigger = small_trigger()
    header = cpp.print_program(trigger.program, namespace="here").header
    assert header.count("sum += ") == sum(node.n_nonzero for node in trigger.program.nodes if node.op == "dense")


def small_trigger() -> Trigger:
    rng = np.random.default_rng(3)
    weights = [rng.integers(-8, 8, (57, 4)) * (rng.random((57, 4)) < 0.2), rng.integers(-8, 8, (4, 2))]
    types = {
        "input": "ap_fixed<8,6,RND_CONV,SAT>",
        "weight": "ap_fixed<6,3>",
        "bias": "ap_fixed<10,7>",
        "relu": "ap_ufixed<10,6,RND_CONV,SAT>",
        "result": "ap_fixed<10,7,RND_CONV,SAT>",
    }
    scaling = {"offset": np.zeros(57), "shift": np.full(57, 4)}
    return Trigger.from_layers(weights, [np.zeros(4, int), np.ones(2, int)], types, scaling)


def test_a_part_can_be_left_to_another_function() -> None:
    program = small_trigger().program
    network = cpp.Network("scale", ("result",))
    code = cpp.print_program(program, namespace="here", network=network)
    assert code.printed == ("input", "scale", "result", "multiply_1", "sum", "score")
    assert "inline void network(const scale_t scale[57], result_t result[2]);" in code.header
    assert "compute_dense" not in code.header
    assert code.header.count("    network(scale, result);") == 2
    with pytest.raises(TriggerError, match="after result"):
        cpp.print_program(program, namespace="here", network=cpp.Network("result", ("scale",)))


def test_ap_types_of_another_place(tmp_path) -> None:
    with pytest.raises(InputError, match=r"no ap_fixed\.h"):
        native.ap_types(tmp_path)
    (tmp_path / "ap_fixed.h").write_text("")
    assert native.ap_types(tmp_path) == tmp_path.resolve()


def test_a_missing_compiler_is_one_line(monkeypatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(MissingToolError, match=r"no-such-compiler.*install g\+\+") as error:
        native.find_compiler()
    assert "\n" not in str(error.value)


def test_a_failed_compile_keeps_its_log_and_shows_the_end(tmp_path) -> None:
    (tmp_path / "main.cpp").write_text("int main() {\n" + "missing;\n" * 12 + "}\n")
    with pytest.raises(native.BuildError) as error:
        native.compile_program(tmp_path, ["main.cpp"], "main", headers=[], include=[])
    lines = str(error.value).splitlines()
    log = (tmp_path / "main.0.log").read_text().splitlines()
    assert "compile of main.cpp failed" in lines[0]
    assert str(tmp_path / "main.0.log") in lines[0]
    assert lines[1:] == log[-10:]
    assert "missing" in str(error.value)


def test_a_compile_is_not_repeated_until_a_source_changes(tmp_path) -> None:
    (tmp_path / "main.cpp").write_text('#include "a.h"\nint main() { return VALUE; }\n')
    (tmp_path / "a.h").write_text("#define VALUE 0\n")

    def build() -> int:
        return native.compile_program(tmp_path, ["main.cpp"], "main", headers=["a.h"], include=[]).stat().st_mtime_ns

    first = build()
    assert build() == first
    (tmp_path / "a.h").write_text("#define VALUE 1\n")
    assert build() != first


def test_results_come_in_order_whatever_the_workers(tmp_path) -> None:
    (tmp_path / "main.cpp").write_text(
        '#include <cstdio>\nint main(int, char **a) { FILE *i = fopen(a[1], "rb"), *o = fopen(a[2], "wb"); int c;\n'
        "while (fread(&c, 4, 1, i) == 1) { long long r[2] = {c, -c}; fwrite(r, 16, 1, o); } return fclose(o); }\n"
    )
    main = native.compile_program(tmp_path, ["main.cpp"], "main", headers=[], include=[])
    n = 2 * native.CHUNK_EVENTS + 5
    codes = np.arange(n)[:, None]
    for workers in (1, 3):
        assert (native.score_events([main], codes, 2, workers=workers) == np.hstack([codes, -codes])).all()
    assert native.score_events([main], codes[:0], 2).shape == (0, 2)


def test_a_program_that_stops_is_reported(tmp_path) -> None:
    (tmp_path / "main.cpp").write_text('#include <cstdio>\nint main() { fprintf(stderr, "no luck\\n"); return 3; }\n')
    main = native.compile_program(tmp_path, ["main.cpp"], "main", headers=[], include=[])
    with pytest.raises(native.BuildError, match=r"exit status 3.*\n.*no luck"):
        native.score_events([main], np.zeros((1, 1), int), 1)


@pytest.mark.slow
def test_v4_oracle_through_the_header(oracles, tmp_path) -> None:
    data = np.load(oracles / "axol1tl_v4.npz")
    trigger = v4(data)
    inputs = trigger.inputs(data["hw"])
    got = compiled_trace(trigger.program, tmp_path, inputs)
    assert (got["score"][:, 0] == data["score"]).all()
    assert (got["result"] == data["mu"]).all()


def v4(data) -> Trigger:
    types = {
        "input": "ap_fixed<8,6,RND_CONV,SAT>",
        "weight": "ap_fixed<6,3>",
        "bias": "ap_fixed<10,7>",
        "relu": "ap_ufixed<10,6,RND_CONV,SAT>",
        "result": "ap_fixed<10,7,RND_CONV,SAT>",
    }
    weights, biases = [data[f"w{i}"] for i in range(3)], [data[f"b{i}"] for i in range(3)]
    return Trigger.from_layers(weights, biases, types, {"offset": data["offset"], "shift": data["shift"]})
