"""A tiny end-to-end generation with PYTHIA."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pythia8mc", reason="pythia8mc is not installed (extra simulate)")
pytest.importorskip("numba", reason="numba is not installed (extra simulate)")

from l1ad.errors import InputError
from l1ad.events.simulate import simulate
from l1ad.events.simulate.generate import generate
from l1ad.events.simulate.library import MUON, write_library
from l1ad.events.simulate.processes import BACKGROUND, SIGNALS, get_process


def test_soft_to_events(tmp_path: Path) -> None:
    soft = generate(BACKGROUND["soft"], 200, seed=1)
    assert len(soft) == 200
    assert soft.pthat.max() < 20.0
    assert soft.n_tried >= 200
    # the inelastic cross section at 13.6 TeV, less a per cent for the veto
    assert soft.sigma_mb == pytest.approx(77.9, abs=2.0)
    assert np.abs(soft.eta).max() < 5.2
    assert 50 < len(soft.et) / 200 < 250
    write_library(tmp_path / "soft.h5", soft)
    events = simulate(n=100, seed=2, library=tmp_path, background=["soft"])
    assert events.columns["n_pu"].mean() == pytest.approx(52, abs=6)
    assert (events.hw[:, 9, 0] > 0).mean() > 0.9


def test_blocks_make_workers_irrelevant(same: Callable[..., None]) -> None:
    process = replace(BACKGROUND["qcd_50"], block=10)
    same(generate(process, 25, seed=3), generate(process, 25, seed=3, workers=2))


def test_hard_slice_has_jets_where_it_should() -> None:
    library = generate(BACKGROUND["qcd_80"], 60, seed=4)
    assert library.pthat.min() >= 80
    assert library.pthat.max() <= 120
    lead = library.jet_pt[library.jet_offset[:-1][np.diff(library.jet_offset) > 0]]
    assert 60 < np.median(lead) < 140


def test_suep_replaces_the_scalar() -> None:
    library = generate(SIGNALS["suep_m300"], 20, seed=5)
    # 300 GeV in soft particles, and muons from dark photons
    assert len(library.et) / 20 > 250
    assert (library.kind == MUON).any()


def test_refusals() -> None:
    with pytest.raises(InputError, match="tune: found 'none'"):
        generate(BACKGROUND["soft"], 10, seed=1, tune="none")
    with pytest.raises(InputError, match="n: found 0"):
        generate(BACKGROUND["soft"], 0, seed=1)
    with pytest.raises(InputError, match="setting: found 'Not:aSetting = on'"):
        generate(replace(SIGNALS["a4l_ma50"], settings=("Not:aSetting = on",)), 10, seed=1)
    with pytest.raises(InputError, match="expected one of zero_bias, haa4b_ma15"):
        get_process("nonsense")
