"""The traced trigger: the deployed answers, projects, and what a user may get wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("alkaid", reason="alkaid is not installed: pip install 'l1ad[rtl]'")

from l1ad import Trigger
from l1ad.backends import project, rtl
from l1ad.errors import InputError, TriggerError
from l1ad.events.layout import get_layout
from l1ad.trigger.build import NodeOps, ProgramBuilder
from l1ad.trigger.fixed import FixedType


def _every_node() -> Trigger:
    """A program with every operation that there is, in types with every rounding that hurts."""
    rng = np.random.default_rng(11)
    builder = ProgramBuilder(get_layout("cms_ugt"))
    # pt, eta and phi are scaled with an offset that makes the word wrap, and shifts in both directions.
    n = builder.input.size
    scaled = builder.scale(
        builder.input,
        multiplier=np.where(np.arange(n) % 3 == 0, 16, 32),
        offset=rng.integers(-400, 400, n),
        shift=rng.integers(-2, 6, n),
        word=FixedType.parse("ap_fixed<14,9>"),
        type=FixedType.parse("ap_fixed<8,6,RND_CONV,SAT>"),
    )
    pooled = builder.maximum(scaled, rng.integers(0, n, (6, 4)))
    dense = builder.dense(
        scaled, rng.integers(-7, 8, (n, 6)) * (rng.random((n, 6)) < 0.3), weight_type=FixedType.parse("ap_fixed<6,3>")
    )
    hidden = builder.relu(dense, FixedType.parse("ap_ufixed<8,5,RND,SAT>"))
    narrow = builder.quantize(dense, FixedType.parse("ap_fixed<6,5,RND_INF,SAT_SYM>"))
    low, high = narrow.interval.span
    kind = FixedType(10, 4, False, "RND_CONV", "SAT")
    table = kind.quantize(np.exp(np.arange(low, high + 1) / 16.0))
    looked = builder.lut(narrow, table[None, :], first=low, type=kind)
    difference = builder.subtract(looked, pooled)
    product = builder.multiply(difference, hidden, FixedType.parse("ap_fixed<16,12,RND_ZERO,WRAP>"))
    joined = builder.take(builder.concat(product, hidden), [0, 3, 5, 6, 7, 11])
    ops = NodeOps(builder)
    score = ops.total([(1.0, ops.product(joined, joined)), (0.5, looked)], constant=1.5)
    return Trigger(builder.program(score=score), "every node")


@pytest.fixture(scope="module")
def every_node() -> Trigger:
    return _every_node()


def test_every_node_gives_its_codes(every_node: Trigger) -> None:
    inputs = project.golden_vectors(every_node.program, 3000)
    golden, traced = every_node.trace(inputs), rtl.Interpreter(every_node).trace(inputs)
    assert set(traced) == set(golden) - {"input"}
    for name, codes in traced.items():
        np.testing.assert_array_equal(codes, golden[name], err_msg=name)
    assert len({node.op for node in every_node.program.nodes}) == 11


def test_deployed_v4_in_the_interpreter(v4: Trigger, oracles: Path) -> None:
    data = np.load(oracles / "axol1tl_v4.npz")
    scores = rtl.Interpreter(v4).score(v4.inputs(data["hw"]))
    assert int((scores == data["score"]).sum()) == 20_008


def test_interpreter_of_random_triggers(small) -> None:
    for seed in range(3):
        trigger = small(seed, score="student" if seed == 1 else "mu2")
        inputs = project.golden_vectors(trigger.program, 2000)
        np.testing.assert_array_equal(rtl.Interpreter(trigger).score(inputs), trigger.score(inputs, golden=True))


def test_a_score_from_tables(tail: Trigger) -> None:
    inputs = project.golden_vectors(tail.program, 2000)
    np.testing.assert_array_equal(rtl.Interpreter(tail).score(inputs), tail.score(inputs, golden=True))


@pytest.mark.parametrize("flavor", ["verilog", "vhdl"])
def test_project_is_complete_and_the_same_twice(small, tmp_path: Path, flavor: str) -> None:
    trigger = small(1).with_thresholds({"NOMINAL": 40, "TIGHT": 70})
    made = [rtl.convert(trigger, None, tmp_path / name, flavor=flavor) for name in "ab"]
    files = [sorted(p.relative_to(m.folder) for p in m.folder.rglob("*") if p.is_file()) for m in made]
    assert files[0] == files[1]
    for name in files[0]:
        assert (made[0].folder / name).read_bytes() == (made[1].folder / name).read_bytes(), name
    assert all(path.is_file() for path in made[0].sources)
    script = (made[0].folder / "build.tcl").read_text()
    assert made[0].options.part in script
    assert all(path.name in script for path in made[0].sources)
    assert "create_clock -period 25" in (made[0].folder / "constraints.xdc").read_text()
    ports = json.loads((made[0].folder / "ports.json").read_text())
    assert [d["threshold"] for d in ports["decisions"]] == [40, 70]
    # Fields lie side by side, and an input that is always zero takes no wire.
    ends = [field["lsb"] + field["width"] for field in ports["inputs"]]
    assert [field["lsb"] for field in ports["inputs"]] == [0, *ends[:-1]]
    assert ports["inputs"][1] == {"name": "met_eta", "lsb": 12, "width": 0, "signed": False, "shift": 0}
    again = rtl.load(tmp_path / "a")
    assert (again.options, again.cost, again.trigger.hash) == (made[0].options, made[0].cost, trigger.hash)


def test_two_triggers_share_no_module_name(small, tmp_path: Path) -> None:
    names = []
    for seed in (1, 2):
        made = rtl.convert(small(seed, name=f"v{seed}"), None, tmp_path / str(seed))
        text = "\n".join(path.read_text() for path in made.sources)
        names.append(set(re.findall(r"^\s*module\s+(\w+)", text, re.MULTILINE)))
    assert len(names[0]) >= 4
    assert not names[0] & names[1]


def test_latency_adds_registers_and_keeps_the_logic(small, tmp_path: Path) -> None:
    costs = [rtl.convert(small(1), None, tmp_path / str(n), latency_clocks=n).cost for n in (0, 1, 3)]
    assert costs[0].ff == 0
    assert 0 < costs[1].ff < costs[2].ff
    assert costs[0].lut == costs[1].lut == costs[2].lut
    assert not (tmp_path / "0" / "constraints.xdc").exists()
    assert "estimate" in costs[0].provenance


def test_effort_costs_no_correctness_and_saves_adders(every_node: Trigger, small) -> None:
    from l1ad.backends import alir

    for trigger in (small(2), every_node):
        program = trigger.program
        inputs = project.golden_vectors(program, 500)
        combs = [rtl.trace_program(program, effort=effort) for effort in (0, 6)]
        golden = trigger.score(inputs, golden=True)
        for comb in combs:
            scores = np.rint(comb.predict(inputs.astype(float), n_threads=1)[:, 0] * 16).astype(int)
            np.testing.assert_array_equal(scores, golden)
        assert alir.adder_bits(combs[1]) <= 1.05 * alir.adder_bits(combs[0])


def test_out_of_reach_is_said_before_anything_is_written(small, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ns of logic .* \(estimate\), expected 2 ns; \d+ clocks of 1 ns"):
        rtl.convert(small(1), None, tmp_path / "x", clock_ns=1.0)
    assert not (tmp_path / "x").exists()
    rtl.convert(small(1), None, tmp_path / "x", clock_ns=1.0, ignore_estimate=True)


def test_stale_folder_is_refused(small, tmp_path: Path) -> None:
    rtl.convert(small(1), None, tmp_path)
    with pytest.raises(InputError, match="remove the folder"):
        rtl.convert(small(2), None, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flavor": "chisel"}, "verilog, vhdl"),
        ({"effort": -1}, "0 or more"),
        ({"latency_clocks": -1}, "0 .no registers. or more"),
        ({"clock_ns": 0.0}, "more than 0"),
        ({"part": "ice40"}, "unknown family"),
        ({"top": "7up"}, "a name such as"),
        ({"speed": 3}, "flavor"),
    ],
)
def test_wrong_options(small, tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rtl.convert(small(1), None, tmp_path / "x", **options)


def test_a_node_that_cannot_be_expressed_is_named(tmp_path: Path) -> None:
    builder = ProgramBuilder(get_layout("cms_ugt"))
    one = builder.take(builder.input, [0])
    wide = builder.dense(one, [[1 << 25]], weight_type=FixedType(30, 30), name="too_wide")
    score = builder.quantize(wide, FixedType(18, 14, False, "TRN", "SAT"))
    trigger = Trigger(builder.program(score=score), "wide")
    with pytest.raises(TriggerError, match=r"node too_wide: .*24 bits; hls4ml and cmssw can"):
        rtl.convert(trigger, None, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_constant_score_and_thresholds_of_no_score_are_refused(small, tmp_path: Path) -> None:
    types = {
        "input": "ap_fixed<8,6,RND_CONV,SAT>",
        "weight": "ap_fixed<6,3>",
        "bias": "ap_fixed<10,7>",
        "result": "ap_fixed<10,7,RND_CONV,SAT>",
    }
    scaling = {"offset": np.zeros(57), "shift": np.zeros(57, int)}
    dead = Trigger.from_layers([np.zeros((57, 2), int)], [np.array([8, 16])], types, scaling, name="dead")
    with pytest.raises(TriggerError, match="dead: score: found 80 for every crossing, expected a score that depends"):
        rtl.convert(dead, None, tmp_path / "x")
    for threshold in (-1, (1 << 18) + 1):
        trigger = small(1).with_thresholds({"TIGHT": threshold})
        with pytest.raises(InputError, match=f"threshold TIGHT: found {threshold}, expected 0 to 262144"):
            rtl.convert(trigger, None, tmp_path / "x")
    assert not (tmp_path / "x").exists()
