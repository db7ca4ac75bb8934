"""The compact dijet file gives back what went in, to its steps; the bundled files hold what they promise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from l1ad.errors import InputError
from l1ad.search import bundled
from l1ad.search.jets import Dijets, invariant_mass


def _events(n: int = 50, c: int = 40) -> Dijets:
    rng = np.random.default_rng(2)
    names = tuple(bundled.STEPS)
    values = {
        "pt": rng.uniform(400, 2000, (n, 2)),
        "eta": rng.uniform(-1.5, 1.5, (n, 2)),
        "phi": rng.uniform(-np.pi, np.pi, (n, 2)),
        "m": rng.uniform(5, 600, (n, 2)),
        "m_sd": rng.uniform(0, 600, (n, 2)),
        "n_const": rng.integers(1, 300, (n, 2)),
        "n_charged": rng.integers(0, 150, (n, 2)),
        "lepton_fraction": rng.uniform(0, 1, (n, 2)),
        "b_tag": rng.integers(0, 2, (n, 2)),
        **{f"tau{i}": rng.uniform(0, 1 / i, (n, 2)) for i in range(1, 5)},
    }
    jets = np.stack([values[name] for name in names], axis=2).astype(np.float32)
    pt = np.sort(jets[:, :, :1] * rng.exponential(0.05, (n, 2, c)), axis=2)[:, :, ::-1]
    pt[pt < 0.5] = 0.0
    eta = jets[:, :, 1:2] + rng.normal(0, 0.2, (n, 2, c)).clip(-0.8, 0.8)
    phi = jets[:, :, 2:3] + rng.normal(0, 0.2, (n, 2, c)).clip(-0.8, 0.8)
    constituents = np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], axis=3)
    label = (np.arange(n) % 3 == 0).astype(np.int8)
    m_jj = invariant_mass(jets[:, :, :4])
    return Dijets(jets, names, m_jj, label, np.ones(n), constituents.astype(np.float32))


def test_round_trip(tmp_path: Path) -> None:
    events = _events()
    bundled.write_compact(events, tmp_path / "c.h5", constituents_from=0.0, attributes={"process": "test"})
    again = bundled.read_compact(tmp_path / "c.h5")
    assert again.constituents is None
    assert again.names == events.names
    for name, step in bundled.STEPS.items():
        # Half a step, and the rounding of 32-bit floats.
        np.testing.assert_allclose(again.feature(name), events.feature(name), atol=0.5 * step * 1.01, rtol=1e-6)
    np.testing.assert_allclose(again.m_jj, events.m_jj, rtol=2e-3)
    np.testing.assert_array_equal(again.label, events.label)
    # Writing what was read changes nothing more.
    bundled.write_compact(again, tmp_path / "d.h5")
    np.testing.assert_array_equal(bundled.read_compact(tmp_path / "d.h5").jets, again.jets)


def test_constituents_of_the_heavy_events(tmp_path: Path) -> None:
    events = _events()
    threshold = float(np.median(events.m_jj))
    bundled.write_compact(events, tmp_path / "c.h5", constituents_from=threshold, n_constituents=30)
    again = bundled.read_compact(tmp_path / "c.h5", constituents=True)
    rows = np.flatnonzero(events.m_jj >= threshold)
    assert len(again) == len(rows) == 25
    np.testing.assert_array_equal(again.label, events.label[rows])
    assert again.constituents is not None
    assert events.constituents is not None
    assert again.constituents.shape == (25, 2, 30, 3)
    old, new = events.constituents[rows, :, :30].astype(float), again.constituents.astype(float)
    pt_old, pt_new = (np.hypot(v[..., 0], v[..., 1]) for v in (old, new))
    np.testing.assert_array_equal(pt_new > 0, pt_old > 0)
    there = (pt_old > 0) & (pt_old > 3e-4 * events.feature("pt")[rows][:, :, None])
    np.testing.assert_allclose(pt_new[there], pt_old[there], rtol=0.018)
    for angle in (
        lambda v: np.arcsinh(v[..., 2] / np.hypot(v[..., 0], v[..., 1])),
        lambda v: np.arctan2(v[..., 1], v[..., 0]),
    ):
        difference = (angle(new[there]) - angle(old[there]) + np.pi) % (2 * np.pi) - np.pi
        assert np.abs(difference).max() < 0.5 * 0.007 + 0.5 * 5e-4 + 1e-5


def test_bad_files(tmp_path: Path) -> None:
    events = _events(5)
    wide = events.jets.copy()
    wide[2, 0, 0] = 9000.0
    with pytest.raises(InputError, match="pt: found 9000"):
        bundled.write_compact(replace(events, jets=wide), tmp_path / "w.h5")
    assert not (tmp_path / "w.h5").exists()
    with pytest.raises(InputError, match="odd"):
        bundled.write_compact(replace(events, names=(*events.names[:-1], "odd")), tmp_path / "w.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = [1]
    with pytest.raises(InputError, match="format"):
        bundled.read_compact(tmp_path / "other.h5")
    bundled.write_compact(replace(events, constituents=None), tmp_path / "n.h5")
    with pytest.raises(InputError, match="constituents"):
        bundled.read_compact(tmp_path / "n.h5", constituents=True)
    with pytest.raises(InputError, match="dijets_nothing"):
        bundled.bundled_dijets("nothing")
