"""The compact dijet file gives back what went in, to its steps; the bundled files hold what they promise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from l1ad.errors import InputError
from l1ad.search import bundled, readers
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
    with pytest.raises(InputError, match="sample: found nothing, expected one of qcd, wp_bpt_3000_400, x_yy_4q"):
        bundled.bundled_dijets("nothing")


def test_any_file_is_read(tmp_path: Path) -> None:
    events = _events(30)
    bundled.write_compact(events, tmp_path / "compact.h5", constituents_from=0.0)
    events.write(tmp_path / "own.h5")
    columns = {"label": events.label}
    for j in (1, 2):
        pt, eta, phi, m = (events.feature(name)[:, j - 1] for name in ("pt", "eta", "phi", "m"))
        momenta = {"px": pt * np.cos(phi), "py": pt * np.sin(phi), "pz": pt * np.sinh(eta), "m": m}
        columns |= {f"{name}j{j}": values for name, values in momenta.items()}
    pq.write_table(pa.table(columns), tmp_path / "table.parquet")
    compact = bundled.read_compact(tmp_path / "compact.h5")
    for name, same in (("compact.h5", compact), ("own.h5", events)):
        np.testing.assert_array_equal(bundled.read_any(tmp_path / name).jets, same.jets)
    np.testing.assert_allclose(bundled.read_any(tmp_path / "table.parquet").m_jj, events.m_jj, rtol=1e-4)
    assert bundled.read_any(tmp_path / "compact.h5").constituents is None
    assert bundled.read_any(tmp_path / "compact.h5", constituents=True).constituents is not None
    with pytest.raises(InputError, match=r"compact\.h5: format: found l1ad-dijets-compact, .*bundled\.read_any"):
        readers.read(tmp_path / "compact.h5")
    with pytest.raises(InputError, match=r"absent\.h5: file: found No such file or directory"):
        bundled.read_any(tmp_path / "absent.h5")


@pytest.mark.parametrize("lost", ["label", "jets/m", "constituents/rows", "constituents/eta", "attribute steps"])
def test_damaged_compact_files(tmp_path: Path, lost: str) -> None:
    path = tmp_path / "c.h5"
    bundled.write_compact(_events(30), path, constituents_from=0.0)
    with h5py.File(path, "a") as file:
        if lost.startswith("attribute"):
            del file.attrs[lost.split()[1]]
        else:
            del file[lost]
    with pytest.raises(
        InputError, match=rf"c\.h5: file: found .*{lost.split('/')[-1].split()[-1]}.*, expected a whole"
    ):
        bundled.read_any(path, constituents=True)
    for broken in (path.read_bytes()[:3000], b"no"):
        path.write_bytes(broken)
        with pytest.raises(InputError, match=r"c\.h5: file: found .*, expected a whole l1ad-dijets-compact"):
            bundled.read_compact(path)


def test_the_bundled_sample() -> None:
    names = bundled.bundled_dijet_names()
    signals = [name for name in names if name != "qcd"]
    assert "qcd" in names
    assert len(signals) == 3
    size = sum((bundled.FOLDER / f"dijets_{name}.h5").stat().st_size for name in names)
    assert size <= 5e6
    qcd = bundled.bundled_dijets()
    assert len(qcd) >= 40_000
    region, sideband = qcd.in_signal_region(), qcd.in_sideband()
    assert np.all(region | sideband)
    assert sideband.sum() >= 4_900
    assert qcd.m_jj.min() >= 1300.0
    assert not qcd.label.any()
    # A falling spectrum that reaches the masses of the signals, and jets lighter than theirs.
    counts = np.histogram(qcd.m_jj[region], [1300, 1600, 2000, 2500, 3100])[0]
    assert np.all(np.diff(counts) < 0)
    assert counts[-1] > 200
    for name in signals:
        events = bundled.bundled_dijets(name)
        assert len(events) >= 2_000
        assert events.label.all()
        assert np.median(events.m_jj) == pytest.approx(3000.0, rel=0.1)
        assert np.median(events.feature("m")) > 1.5 * np.median(qcd.feature("m")[region])
    both = bundled.bundled_dijets("qcd", signals[0])
    assert len(both) == len(qcd) + len(bundled.bundled_dijets(signals[0]))


def test_bundled_constituents_are_those_of_the_jets() -> None:
    events = bundled.bundled_dijets(constituents=True)
    assert events.constituents is not None
    assert events.m_jj.min() > bundled.CONSTITUENTS_FROM - 1.0
    momenta = events.constituents.astype(np.float64)
    pt = np.hypot(momenta[..., 0], momenta[..., 1])
    there = (pt > 0).sum(axis=2)
    np.testing.assert_array_equal(there, np.minimum(events.feature("n_const"), bundled.N_CONSTITUENTS))
    # The hardest 20 carry most of the jet, and no more than it has.
    total = momenta.sum(axis=2)
    share = np.hypot(total[..., 0], total[..., 1]) / events.feature("pt")
    assert share.max() < 1.05
    assert np.median(share) > 0.7
