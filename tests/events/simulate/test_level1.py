"""From candidates to integers: saturation, rounding, slots, muons."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("numba", reason="numba is not installed (extra simulate)")

from l1ad.events.layout import get_layout
from l1ad.events.simulate import level1
from l1ad.events.simulate.calibration import JetCalibration
from l1ad.events.simulate.detector import Detector
from l1ad.events.simulate.library import Library
from l1ad.events.simulate.mixing import Crossings, Pool, draw, make_pool
from l1ad.events.simulate.propagate import to_second_station

IDENTITY = JetCalibration(((1.0,),) * 7, ((1.0,),) * 7)
CALM = Detector(spikes=0.0)


@pytest.fixture(scope="module")
def pool(toy_libraries: list[Library]) -> Pool:
    return make_pool(toy_libraries, CALM)


def test_magnitudes_round_down_and_saturate() -> None:
    got = level1.magnitude_codes(np.array([0.0, 0.49, 0.5, 22.3, 255.0, 255.49, 255.5, 1e6]), 0.5, 511)
    assert list(got) == [0, 0, 1, 44, 510, 510, 511, 511]


def test_angles_wrap() -> None:
    lsb = 2 * np.pi / 144
    got = level1.angle_codes(np.array([0.0, 0.99 * lsb, lsb, -0.5 * lsb, 2 * np.pi, 143.5 * lsb - 2 * np.pi]), 144)
    assert list(got) == [0, 0, 1, 143, 0, 143]


def raw(n: int = 1, **objects: list) -> level1.RawObjects:
    """Candidates of one crossing."""
    jets, egs, met = np.zeros((n, 16, 4), np.float32), np.zeros((n, 16, 3), np.float32), np.zeros((n, 4), np.float32)
    for i, jet in enumerate(objects.get("jets", [])):
        jets[0, i] = jet
    for i, eg in enumerate(objects.get("egs", [])):
        egs[0, i] = eg
    met[0] = objects.get("met", [0, 0, 0, 0])
    none = np.zeros((0, 0))
    return level1.RawObjects(jets, egs, none, none, met, np.zeros(n), np.zeros(n))


def convert(
    monkeypatch: pytest.MonkeyPatch, pool: Pool, objects: level1.RawObjects, **knobs: float
) -> level1.L1Objects:
    monkeypatch.setattr(level1, "reconstruct", lambda *_: objects)
    rng = np.random.default_rng(1)
    detector = replace(
        CALM, eg_scale=1.0, met_scale=1.0, met_scale_hf=1.0, jet_factor_soft=1.0, jet_factor_hard=1.0, **knobs
    )
    return level1.emulate(pool, draw(pool, 1, detector, rng, mu=0.0), detector, rng, IDENTITY)


def test_saturation_codes_of_every_object(monkeypatch: pytest.MonkeyPatch, pool: Pool) -> None:
    huge = raw(jets=[[5000, 0, 40, 0]], egs=[[1000, 0.0, 0.0]], met=[9000, 0, 0, 9000])
    got = convert(monkeypatch, pool, huge)
    layout = get_layout("cms_ugt")
    assert (got.hw[0, 0, 0], got.hw[0, 1, 0], got.hw[0, 9, 0]) == (4095, 511, 2047)
    assert list(np.flatnonzero(layout.saturated(got.hw)[0])) == [0, 1, 9]
    assert got.columns["met_hf"][0] == 4095
    assert got.columns["ht"][0] == 2047


def test_slots_are_ordered_and_the_rest_is_zero(monkeypatch: pytest.MonkeyPatch, pool: Pool) -> None:
    jets = [[10.0 + i, 0, 40 + i, 2 * i] for i in range(12)]
    got = convert(monkeypatch, pool, raw(jets=jets, egs=[[3.0, 0.5, 0.1], [9.0, -0.5, 0.2]]))
    assert list(got.hw[0, 9:, 0]) == [2 * (21 - i) for i in range(10)]
    assert list(got.hw[0, 9:, 2]) == [2 * 2 * (11 - i) + 1 for i in range(10)]
    assert list(got.hw[0, 1:5, 0]) == [18, 6, 0, 0]
    assert not got.hw[0, 3:5].any()
    assert not got.hw[0, 0].any()
    get_layout("cms_ugt").check(got.hw, where="test")


def test_ht_counts_central_jets_above_threshold(monkeypatch: pytest.MonkeyPatch, pool: Pool) -> None:
    jets = [[30.0, 0, 40, 0], [29.9, 0, 42, 20], [50.0, 0, 5, 30], [100.0, 0, 60, 40]]
    assert convert(monkeypatch, pool, raw(jets=jets)).columns["ht"][0] == 2 * (30 + 100)


def lone_muons(pool: Pool, mirror: int, n: int) -> tuple[Pool, Crossings]:
    """Crossings with one collision that has one muon of 20 GeV at eta 0.5."""
    muons = np.tile(np.array([20.0, 0.5, 1.0, 1.0], np.float32), (1, 1))
    lone = replace(pool, mu_offset=np.array([0, 1]), muons=muons)
    crossings = Crossings(
        first=np.arange(n + 1), events=np.zeros(n, np.int64), turns=np.full(n, 9), mirrors=np.full(n, mirror, np.uint8),
        scales=np.ones(n, np.float32), spikes=np.zeros((n, 3), np.float32), counts=np.ones((n, 1), np.int64),
        mu=np.ones(n), weight=np.ones(n),
    )  # fmt: skip
    return lone, crossings


@pytest.mark.parametrize("mirror", [0, 1])
def test_muons(pool: Pool, mirror: int) -> None:
    n = 20000
    detector = replace(CALM, mu_tail=0.0)
    lone, crossings = lone_muons(pool, mirror, n)
    pt, eta, phi = level1.muons(lone, crossings, detector, np.random.default_rng(2))
    seen = pt[:, 0] > 0
    assert not pt[:, 1:].any()
    # 20 GeV is on the plateau: binomial
    assert seen.mean() == pytest.approx(detector.mu_efficiency, abs=5 * np.sqrt(0.07 * 0.93 / n))
    assert np.median(pt[seen, 0]) == pytest.approx(20 * detector.mu_scale + detector.mu_shift, rel=0.01)
    want_eta, want_phi = to_second_station(20.0, 0.5, 1.0 + 9 * 2 * np.pi / 72, 1)
    assert eta[seen, 0].mean() == pytest.approx(-want_eta if mirror else want_eta, abs=1e-3)
    assert phi[seen, 0].mean() == pytest.approx(float(want_phi), abs=1e-3)


def test_out_of_time_muons_are_not_seen(pool: Pool) -> None:
    lone, crossings = lone_muons(pool, 0, 200)
    late = replace(crossings, scales=np.full(200, 0.5, np.float32))
    pt, _, _ = level1.muons(lone, late, CALM, np.random.default_rng(3))
    assert not pt.any()


def test_more_pile_up_more_objects(pool: Pool) -> None:
    rng = np.random.default_rng(4)
    filled = []
    for mu in (5.0, 50.0):
        crossings = draw(pool, 300, CALM, rng, mu=mu)
        filled.append((level1.emulate(pool, crossings, CALM, rng).hw[:, 9:, 0] > 0).sum(axis=1).mean())
    assert filled[1] > filled[0] + 0.5


def test_out_of_time_energy_adds(pool: Pool) -> None:
    """The knob's energy reaches the towers: the summed energy rises by its share of one mean crossing."""
    detector = replace(CALM, noise_em=0.0, noise_had=0.0, zs_em=0.0, zs_had=0.0, zs_hf=0.0)
    sums = []
    for share in (0.0, 0.5):
        d = replace(detector, out_of_time=share)
        crossings = draw(pool, 200, d, np.random.default_rng(5), mu=40.0, mu_spread=0.0)
        sums.append(level1.reconstruct(pool, crossings, d, np.random.default_rng(6)).sum_et.mean())
    assert 1.15 < sums[1] / sums[0] < 1.55
