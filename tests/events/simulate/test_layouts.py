"""Calorimeter regions and the topological trigger's objects: sums, symmetries, words, and the same crossings in all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba", reason="numba is not installed (extra simulate)")

from l1ad.errors import InputError
from l1ad.events.layout import get_layout
from l1ad.events.simulate import kernel, produce, simulate
from l1ad.events.simulate.detector import ETA_CENTRE, ETA_EDGES, Detector
from l1ad.events.simulate.kernel import N_CANDIDATES, PAD, PADDED
from l1ad.events.simulate.level1 import LAYOUTS
from l1ad.events.simulate.realism import realism_tables
from l1ad.events.store import Events

STRATA = ["soft", "qcd_20", "qcd_30", "qcd_50"]


def padded(towers: np.ndarray) -> np.ndarray:
    """Towers (80, 72) in a padded array, azimuth continued."""
    out = np.zeros(PADDED, np.float32)
    out[PAD : PAD + 80, PAD : PAD + 72] = towers
    kernel.wrap_phi(out)
    return out


def random_towers(seed: int) -> np.ndarray:
    """Falling spectrum in 0.5 GeV steps, four of five towers empty."""
    rng = np.random.default_rng(seed)
    towers = np.floor(2 * rng.exponential(4.0, (80, 72))) / 2
    return np.where(rng.random((80, 72)) < 0.2, np.minimum(towers, 255.0), 0.0)


def find_regions(towers: np.ndarray) -> np.ndarray:
    """(18, 14): azimuth, pseudorapidity."""
    out = np.zeros(252, np.int16)
    kernel.regions(padded(towers), out)
    return out.reshape(18, 14)


def find_taus(towers: np.ndarray, seed: float = 1.0, k: int = N_CANDIDATES) -> np.ndarray:
    out = np.zeros((k, 3), np.float32)
    found = out[: kernel.taus(padded(towers), np.array([seed]), ETA_CENTRE, out)]
    return found[np.lexsort((found[:, 2], found[:, 1], -found[:, 0]))]


# ----------------------------------------------------------------------------------------------------- regions


def test_regions_hold_the_towers_within_three() -> None:
    towers = random_towers(1)
    regions = find_regions(towers)
    assert ETA_EDGES[12] == -3.0
    assert ETA_EDGES[68] == 3.0
    assert regions.sum() == 2 * towers[12:68].sum()
    # each one against the mean of its towers, found by a reshape and not by loops
    turned = np.roll(towers[12:68], 2, axis=1)  # azimuth index 0 starts two towers before 0
    want = 2 * turned.reshape(14, 4, 18, 4).sum(axis=(1, 3)).T
    np.testing.assert_array_equal(regions, want)


@pytest.mark.parametrize(
    ("row", "column", "place"),
    [
        (12, 0, (0, 0)),  # eta -3, phi just above 0
        (12, 71, (0, 0)),  # and just below
        (12, 2, (1, 0)),
        (12, 69, (17, 0)),
        (39, 36, (9, 6)),  # the two regions next to eta 0, phi = pi
        (40, 36, (9, 7)),
        (67, 0, (0, 13)),
    ],
)
def test_where_a_tower_goes(row: int, column: int, place: tuple[int, int]) -> None:
    towers = np.zeros((80, 72))
    towers[row, column] = 10.0
    regions = find_regions(towers)
    assert regions[place] == 20
    assert regions.sum() == 20


def test_forward_towers_are_left_out() -> None:
    towers = np.zeros((80, 72))
    towers[:12] = towers[68:] = 100.0
    assert not find_regions(towers).any()


def test_regions_peg_at_ten_bits() -> None:
    towers = np.zeros((80, 72))
    towers[40:44, 2:5] = 42.5  # 12 x 42.5 = 510 GeV = 1020
    assert find_regions(towers)[1, 7] == 1020
    towers[40, 5] = 1.5
    assert find_regions(towers)[1, 7] == 1023
    towers[40:44, 2:6] = 255.0
    assert find_regions(towers)[1, 7] == 1023
    assert get_layout("cms_calo_regions").words[0][0].saturation == 1023


@pytest.mark.parametrize("turn", [1, 5, 17])
def test_turning_and_mirroring_towers_turns_and_mirrors_regions(turn: int) -> None:
    towers = random_towers(2)
    regions = find_regions(towers)
    np.testing.assert_array_equal(find_regions(np.roll(towers, 4 * turn, axis=1)), np.roll(regions, turn, axis=0))
    np.testing.assert_array_equal(find_regions(towers[::-1]), regions[:, ::-1])


# -------------------------------------------------------------------------------------------------------- taus


def test_a_tau_is_nine_towers() -> None:
    towers = np.zeros((80, 72))
    towers[39:42, 9:12] = [[1, 2, 3], [4, 20, 5], [6, 7, 8]]
    towers[37:44, 7] = 3.0  # outside the window; a maximum of its own only where nothing larger is next to it
    first = find_taus(towers)[0]
    assert first[0] == 56.0
    assert first[1] == pytest.approx(ETA_CENTRE[40])
    assert first[2] == pytest.approx((10 + 0.5) * 2 * np.pi / 72)


def test_equal_neighbours_make_one_tau() -> None:
    towers = np.zeros((80, 72))
    towers[30, 70], towers[30, 71], towers[31, 0] = 5.0, 5.0, 4.0
    found = find_taus(towers)
    assert len(found) == 1
    assert found[0, 0] == 10.0  # around the first of the two: the third is two columns away


def test_taus_are_central() -> None:
    assert ETA_EDGES[14] == -2.5
    assert ETA_EDGES[66] == 2.5
    for row, there in ((13, 0), (14, 1), (65, 1), (66, 0)):
        towers = np.zeros((80, 72))
        towers[row, 5] = 30.0
        assert len(find_taus(towers)) == there


def test_taus_against_plain_python() -> None:
    """Every tower that no neighbour beats, by a double loop with a modulo in place of the padding."""
    towers = random_towers(3)
    want = []
    for row in range(14, 66):
        for column in range(72):
            window = [(r, c) for r in (row - 1, row, row + 1) for c in (column - 1, column, column + 1)]
            values = np.array([towers[r, c % 72] for r, c in window])
            if values[4] >= 1 and (values[:4] < values[4]).all() and (values[5:] <= values[4]).all():
                want.append((values.sum(), ETA_CENTRE[row], (column + 0.5) * 2 * np.pi / 72))
    want_array = np.array(sorted(want, key=lambda x: (-x[0], x[1], x[2])), np.float32)
    assert len(want_array) > 100
    np.testing.assert_allclose(find_taus(towers, k=1000), want_array, rtol=1e-6)
    # with fewer slots the hardest are kept
    np.testing.assert_array_equal(find_taus(towers)[:, 0], want_array[:N_CANDIDATES, 0])


# --------------------------------------------------------------------------------------------------- simulated


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(produce, "CHUNK", 100)


def run(folder: Path, layout: str, n: int = 250, **options: object) -> Events:
    arguments = {"seed": 5, "mu": 30.0, "library": folder, "background": STRATA} | options
    return simulate("zero_bias", n, layout=layout, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("stratified", [False, True])
def test_the_same_crossings_in_every_layout(toy_folder: Path, stratified: bool) -> None:
    ugt, *others = (run(toy_folder, layout, stratified=stratified) for layout in LAYOUTS)
    for events in others:
        for name in set(ugt.columns) - {"ht", "met_hf"}:
            np.testing.assert_array_equal(events.columns[name], ugt.columns[name], err_msg=name)
        assert ("weight" in events.columns) == stratified
    regions, topo = others
    # the same jets, in steps of 0.1 in place of 0.5 GeV; all of these are far from saturation
    got, want = topo.objects("jet")[:, :, 0] // 5, ugt.objects("jet")[:, :6, 0]
    np.testing.assert_array_equal(got, want)
    # one rounds the missing energy with HF to 0.1, the other to 0.5 GeV
    np.testing.assert_array_equal(topo.objects("met")[:, 0, 0] // 5, ugt.columns["met_hf"])
    # regions hold every central jet's towers, of which a jet subtracts pile-up and adds some calibration
    jets = np.where(np.abs(ugt.objects("jet")[:, :, 1]) < 50, ugt.objects("jet")[:, :, 0], 0).sum(axis=1)
    assert np.corrcoef(jets, regions.hw.sum(axis=(1, 2)))[0, 1] > 0.5


@pytest.mark.parametrize("layout", ["cms_calo_regions", "atlas_l1topo"])
def test_words_are_legal_and_files_come_back(toy_folder: Path, tmp_path: Path, layout: str) -> None:
    events = run(toy_folder, layout, stratified=True)
    events.layout.check(events.hw, where="simulated")
    assert events.hw.shape[1:] == events.layout.shape
    if layout == "atlas_l1topo":
        for name in ("jet", "tau", "mu"):
            pt = events.objects(name)[:, :, 0]
            assert (np.diff(pt, axis=1) <= 0).all()
            assert not events.objects(name)[pt == 0].any()  # an empty slot is empty
            assert pt.any()
        assert np.abs(events.objects("tau")[:, :, 1] * 0.025).max() < 2.5
    events.write(tmp_path / "events.h5", compression="gzip")
    again = Events.read(tmp_path / "events.h5")
    assert again.layout.name == layout
    np.testing.assert_array_equal(again.hw, events.hw)
    np.testing.assert_array_equal(again.weight, events.weight)


def test_region_energy_is_that_of_the_towers(toy_folder: Path) -> None:
    """Without noise and thresholds the regions hold the showered energy of the central towers but for the rounding."""
    calm = Detector(
        noise_em=0.0, noise_had=0.0, zs_em=0.0, zs_had=0.0, gain_spread=0.0, dead_em=0.0, dead_had=0.0,
        scale_em=1.0, scale_had=1.0, spikes=0.0,
    )  # fmt: skip
    events = run(toy_folder, "cms_calo_regions", n=60, detector=calm, mu=40.0)
    from l1ad.events.simulate.produce import load_libraries
    from l1ad.events.simulate.towers import deposit

    soft = load_libraries(toy_folder, ["soft"])[0]
    records = deposit(soft, calm).records
    rows = records["cell"] // 72
    central = (rows >= 12) & (rows < 68)
    a_collision = (records["em"] + records["had"])[central].sum() / len(soft)
    want = 2 * a_collision * events.columns["n_pu"].sum()  # most collisions are soft
    lost = 2 * 0.25 * 2 * 56 * 72 * len(events)  # half a step a tower and calorimeter, rounded down
    total = events.hw.sum(dtype=np.int64)
    assert want - lost < total < 1.15 * want


def test_turned_crossings_look_alike(toy_folder: Path) -> None:
    """Collisions are turned at random: no azimuth and no side is preferred."""
    hw = run(toy_folder, "cms_calo_regions", n=1500).hw[:, :, 0].reshape(-1, 18, 14).astype(float)
    # dead towers and gains are fixed in the detector: a few per cent of a region
    by_azimuth = hw.mean(axis=(0, 2))
    np.testing.assert_allclose(by_azimuth / by_azimuth.mean(), 1.0, atol=0.12)
    left, right = hw[:, :, :7].mean(), hw[:, :, 7:].mean()
    assert left / right == pytest.approx(1.0, abs=0.06)


def test_refusals(toy_folder: Path) -> None:
    with pytest.raises(InputError, match=r"layout: found adc2021, expected one of cms_ugt, cms_calo_regions"):
        run(toy_folder, "adc2021")
    with pytest.raises(InputError, match=r"layout: found atlas_l1topo, expected cms_ugt"):
        realism_tables(run(toy_folder, "atlas_l1topo", n=20))
