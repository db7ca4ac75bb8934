"""The realism tables: arithmetic on made-up events, and the figures on the bundled sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import l1ad
from l1ad.errors import InputError
from l1ad.events.simulate import realism
from l1ad.events.store import Events

DATA = Path(l1ad.__file__).parent / "data"


def events(hw: np.ndarray, **meta: object) -> Events:
    n = len(hw)
    columns = {"ht": np.full(n, 2 * 200, np.int16), "met_hf": np.full(n, 2 * 85, np.int16)}
    return Events.from_arrays(
        hw, columns=columns, meta={"process": "zero_bias", "stratified": False, "mu": 52.0} | meta
    )


def crossing(n: int = 1) -> np.ndarray:
    """MET 18, e/gamma 30 and 15 (one forward), a muon of 22, jets of 100, 60, 60, 60."""
    hw = np.zeros((n, 19, 3), np.int16)
    hw[:, 0, 0] = 36
    hw[:, 1:3, 0] = 60, 30
    hw[:, 2, 1] = 60  # eta 2.61
    hw[:, 5, 0] = 44
    hw[:, 9:13, 0] = 200, 120, 120, 120
    return hw


def test_seed_decisions() -> None:
    got = {name: bool(bits[0]) for name, bits in realism.seed_decisions(events(crossing())).items()}
    assert got["DoubleEG_25_14"]
    assert not got["DoubleEG_25_14_er2p5"]
    assert got["SingleEG26er2p5"]
    assert not got["SingleEG36er2p5"]
    assert got["SingleMu22"]
    assert not got["DoubleMu_15_7"]
    assert got["QuadJet60er2p5"]
    assert got["SingleJet90"]
    assert not got["SingleJet120"]
    assert got["HTT200er"]
    assert not got["HTT255er"]
    assert got["ETMHF80"]
    assert not got["ETMHF90"]
    assert got["OR"]
    assert set(realism.OFFICIAL_FRACTIONS) | set(realism.REFERENCE_RATES_KHZ) <= set(got)


def test_quantiles_are_in_gev() -> None:
    """Slots that hold twice the offset as a code are at their offset in GeV: ratio 1."""
    hw = np.zeros((100, 19, 3), np.int16)
    hw[:, :, 0] = np.round(2 * np.array(realism.DEPLOYED_OFFSETS_GEV)).astype(np.int16)
    hw[50:, 6:9] = 0
    rows = realism.quantile_table(events(hw))
    np.testing.assert_allclose([r.median_ratio for r in rows], 1.0)
    assert [r.filled for r in rows][5:9] == [1.0, 0.5, 0.5, 0.5]
    assert rows[0].width_deployed == (16.0, 32.0)


def test_a_hard_sample_fails() -> None:
    hw = np.zeros((100, 19, 3), np.int16)
    hw[:, :, 0] = np.round(4 * np.array(realism.DEPLOYED_OFFSETS_GEV)).astype(np.int16)
    report = realism.realism_tables(events(hw))
    assert not report.passed
    assert "1.00" not in realism.format_report(report).splitlines()[-1]


def test_rates_use_the_weights() -> None:
    hw = np.concatenate([crossing(10), np.zeros((90, 19, 3), np.int16)])
    natural = {r.seed: r for r in realism.rate_table(events(hw))}
    assert natural["SingleMu22"].rate_khz == pytest.approx(2860.88064)
    weight = np.where(np.arange(100) < 10, 0.5, 1.0)
    weighted = Events.from_arrays(hw, weight=weight, columns=dict(events(hw).columns), meta={"process": "zero_bias"})
    rows = {r.seed: r for r in realism.rate_table(weighted)}
    assert rows["SingleMu22"].rate_khz == pytest.approx(1430.44032)
    assert rows["SingleMu22"].error_khz == pytest.approx(1430.44032 / np.sqrt(10))


def test_top_pulls() -> None:
    row = {r.seed: r for r in realism.top_table(events(crossing(400), process="tt_hadronic"))}["SingleMu22"]
    assert row.simulated == 1.0
    assert row.error == pytest.approx(np.sqrt(0.065 * 0.935 / 200))
    assert row.pull == pytest.approx(0.935 / row.error)


def test_refusals(tmp_path: Path) -> None:
    foreign = Events.from_arrays(crossing(), meta={"process": "zero_bias"})
    with pytest.raises(InputError, match="columns"):
        realism.realism_tables(foreign)
    with pytest.raises(InputError, match="process: found w_lnu"):
        realism.realism_tables(events(crossing(), process="w_lnu"))


def test_official_fractions_are_those_of_the_official_file(oracles: Path) -> None:
    uproot = pytest.importorskip("uproot", reason="uproot is not installed")
    with uproot.open(oracles / "nano_tt_v15.root") as file:
        tree = file["Events"]
        for seed, fraction in realism.OFFICIAL_FRACTIONS.items():
            assert tree[f"L1_{seed}"].array(library="np").mean() == pytest.approx(fraction, abs=1e-9), seed
        mu = tree["Pileup_nTrueInt"].array(library="np")
    assert mu.mean() == pytest.approx(realism.OFFICIAL_MU, abs=0.1)
    assert mu.std() == pytest.approx(realism.OFFICIAL_MU_SPREAD, abs=0.1)


@pytest.mark.skipif(not (DATA / "zero_bias.h5").exists(), reason="the bundled sample is not there")
def test_the_bundled_sample_is_realistic() -> None:
    """The figures of the project: medians within 25 %, rates within a factor of 1.5, rms pull below 1.5."""
    report = realism.realism_tables(*realism.bundled_sources())
    assert report.passed, realism.format_report(report)
    assert len(report.top) == 38
    assert [r.slot for r in report.quantiles if not r.judged] in ([], ["mu4"], ["mu3", "mu4"])


@pytest.mark.skipif(not (DATA / "zero_bias.h5").exists(), reason="the bundled sample is not there")
def test_the_bundled_sample_is_complete() -> None:
    natural, weighted = (Events.read(DATA / f"{stem}.h5") for stem in ("zero_bias", "zero_bias_weighted"))
    assert len(natural) >= 100_000
    assert len(weighted) >= 60_000
    assert weighted.weight.mean() == pytest.approx(1.0, abs=0.03)
    signals = sorted(DATA.glob("signal_*.h5"))
    assert len(signals) >= 4
    for path in signals:
        assert len(Events.read(path)) >= 2000, path.name
    crossings = [path for path in DATA.glob("*.h5") if not path.name.startswith("dijets")]
    assert sum(path.stat().st_size for path in crossings) <= 15e6
    # 1 kHz from the sum of all pt: an interval below 15 %
    order = np.argsort(-weighted.hw[:, :, 0].astype(int).sum(axis=1), kind="stable")
    weight = weighted.weight[order]
    last = int(np.searchsorted(np.cumsum(weight) / len(weight) * realism.CROSSINGS_KHZ, 1.0))
    assert np.sqrt((weight[:last] ** 2).sum()) / weight[:last].sum() < 0.15
