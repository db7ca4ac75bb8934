"""The VHDL in simulation, where GHDL is installed; its packing everywhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("alkaid", reason="alkaid is not installed: pip install 'l1ad[rtl]'")

from l1ad.backends import ghdl, project, rtl
from l1ad.errors import InputError, MissingToolError


def test_pack_and_unpack_are_inverse() -> None:
    fields = [rtl.Field("a", 0, 3, False), rtl.Field("none", 3, 0, False), rtl.Field("b", 3, 4, True)]
    codes = np.array([[5, 0, -8], [0, 0, 7], [7, 0, -1]])
    text = ghdl.pack(codes, fields, 7)
    assert text.split() == ["1000101", "0111000", "1111111"]
    np.testing.assert_array_equal(ghdl.unpack(text, fields), codes)
    np.testing.assert_array_equal(ghdl.unpack("1\n0\n", [rtl.Field("c", 0, 1, False, 4)]), [[16], [0]])


@pytest.mark.parametrize("clocks", [0, 1, 3])
def test_vhdl_gives_the_golden_scores(small, tmp_path: Path, clocks: int) -> None:
    if shutil.which("ghdl") is None:
        pytest.skip("ghdl is not on PATH: apt install ghdl")
    trigger = small(3).with_thresholds({"NOMINAL": 40})
    made = rtl.convert(trigger, None, tmp_path / "p", flavor="vhdl", latency_clocks=clocks)
    inputs = project.golden_vectors(trigger.program, 300)
    expected = trigger.score(inputs, golden=True)
    assert len(np.unique(expected)) > 50
    np.testing.assert_array_equal(ghdl.GhdlRtl(made).score(inputs), expected)


def test_tables_in_vhdl(tail, tmp_path: Path) -> None:
    if shutil.which("ghdl") is None:
        pytest.skip("ghdl is not on PATH: apt install ghdl")
    made = rtl.convert(tail, None, tmp_path / "p", flavor="vhdl", latency_clocks=1)
    inputs = project.golden_vectors(tail.program, 100)
    np.testing.assert_array_equal(ghdl.GhdlRtl(made).score(inputs), tail.score(inputs, golden=True))


def test_missing_ghdl_and_wrong_flavor(small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = rtl.convert(small(1), None, tmp_path / "p", flavor="vhdl")
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(MissingToolError, match="apt install ghdl"):
        ghdl.GhdlRtl(made).score(np.zeros((1, 57), dtype=int))
    with pytest.raises(InputError, match="expected vhdl"):
        ghdl.GhdlRtl(rtl.convert(small(1), None, tmp_path / "v"))
