"""Jet calibration: interpolation, closure of the fit, files, and the table that ships."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from l1ad.errors import InputError
from l1ad.events.simulate.calibration import (
    REGIONS,
    JetCalibration,
    default_calibration,
    fit_calibration,
    read_calibration,
    write_calibration,
)
from l1ad.events.simulate.detector import ABS_IETA, Detector

FULL = replace(Detector(), jet_factor_soft=10.0, jet_factor_hard=10.0, jet_ramp=0.0)


def test_interpolates_by_region() -> None:
    table = JetCalibration(((10.0, 20.0),) * 7, tuple((1.0 + k, 2.0 + k) for k in range(7)))
    rows = np.array([int(np.flatnonzero(a == ABS_IETA)[0]) for a in REGIONS])
    got = table(np.full(7, 15.0), rows, FULL)
    np.testing.assert_allclose(got, 15.0 * (1.5 + np.arange(7)))


def test_cap_and_ramp() -> None:
    table = JetCalibration(((10.0,),) * 7, ((1.6,),) * 7)
    knobs = replace(Detector(), jet_factor_soft=1.4, jet_factor_hard=1.2, jet_ramp=10.0)
    got = table(np.array([0.0, 5.0, 10.0, 23.0, 50.0]), np.full(5, 40), knobs)
    np.testing.assert_allclose(got, [0.0, 5.0 * 1.2, 14.0, 23.0 * 1.3, 60.0])


def test_fit_inverts_a_known_response() -> None:
    """Raw pt = 0.7 generator pt with 20 % resolution on a falling spectrum: the fit gives 1 / 0.7."""
    rng = np.random.default_rng(1)
    generated = 12 * rng.random(200_000) ** (-1 / 4.0)
    raw = generated * 0.7 * rng.normal(1.0, 0.2, len(generated))
    table = fit_calibration(raw, generated, np.full(len(raw), 40))
    factors = np.array(table.factor[0])[1:]
    np.testing.assert_allclose(factors, 1 / 0.7, rtol=0.06)
    assert table.factor[3] == (1.0,)


def test_files(tmp_path: Path) -> None:
    table = default_calibration()
    write_calibration(tmp_path / "c.json", table, "copy")
    assert read_calibration(tmp_path / "c.json") == table
    text = (tmp_path / "c.json").read_text()
    (tmp_path / "c.json").write_text(text.replace('"format_version": 1', '"format_version": 9'))
    with pytest.raises(InputError, match=r"c.json: format_version: found 9, expected 1"):
        read_calibration(tmp_path / "c.json")


def test_the_shipped_table_makes_sense() -> None:
    table = default_calibration()
    for raw, factor in zip(table.raw, table.factor, strict=True):
        assert len(raw) == len(factor) >= 8
        assert np.all(np.diff(raw) > 0)
        assert 0.9 < min(factor) <= max(factor) < 1.8
