"""Trigger algorithms on towers made by hand, and sums against plain numpy."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("numba", reason="numba is not installed (extra simulate)")

from l1ad.events.simulate import kernel
from l1ad.events.simulate.detector import ABS_IETA, ETA_CENTRE
from l1ad.events.simulate.kernel import N_CANDIDATES, PAD, PADDED
from l1ad.events.simulate.towers import LEAK_STEPS, RECORD, Deposits


def padded(cells: dict[tuple[int, int], float], floor: float = 0.0) -> np.ndarray:
    """Towers by (row, column), everything else at ``floor``; azimuth continued."""
    out = np.zeros(PADDED, np.float32)
    out[PAD : PAD + 80, PAD : PAD + 72] = floor
    for (row, column), value in cells.items():
        out[row + PAD, column + PAD] = value
    kernel.wrap_phi(out)
    return out


def find_jets(tower: np.ndarray, seed: float = 4.0) -> np.ndarray:
    out = np.zeros((N_CANDIDATES, 4), np.float32)
    return out[: kernel.jets(tower, seed, out)]


def find_egs(
    em: np.ndarray, had: np.ndarray | None = None, lead: np.ndarray | None = None, **changes: float
) -> np.ndarray:
    knobs = {"seed": 1.0, "h_over_e": 0.06, "fine_grain": 0.6, "shape": 0.2, "veto_off": 120.0} | changes
    out = np.zeros((N_CANDIDATES, 3), np.float32)
    had = np.zeros(PADDED, np.float32) if had is None else had
    lead = em[PAD : PAD + 80, PAD : PAD + 72].copy() if lead is None else lead
    return out[: kernel.e_gammas(em, had, lead, np.array(list(knobs.values())), ETA_CENTRE, out)]


# ------------------------------------------------------------------------------------------------------ towers


def random_records(n: int, rng: np.random.Generator) -> np.ndarray:
    records = np.zeros(n, RECORD)
    records["em"], records["had"] = rng.exponential(1, n), rng.exponential(1, n)
    records["cell"] = rng.integers(0, 5760, n)
    records["leak"] = rng.integers(-100, 101, n)
    return records


@pytest.mark.parametrize("mirror", [0, 1])
def test_fill_against_numpy(mirror: int) -> None:
    rng = np.random.default_rng(1)
    deposits, turn = Deposits.of(np.array([0, 1000, 3000]), random_records(3000, rng)), 50
    em, had, lead = (np.zeros((80, 72), np.float32) for _ in range(3))
    kernel.fill(
        np.array([1]), np.array([turn]), np.array([mirror], np.uint8), np.array([0.5], np.float32),
        deposits.offset, deposits.forward, deposits.records, em, had, lead,
    )  # fmt: skip
    chosen = deposits.records[1000:]
    row, column = chosen["cell"] // 72, (chosen["cell"] % 72 + turn) % 72
    row = 79 - row if mirror else row
    forward = (row < 12) | (row >= 68)
    want_em, want_had = np.zeros((80, 72)), np.zeros((80, 72))
    share = chosen["leak"] / LEAK_STEPS
    inner = ~forward
    np.add.at(want_had, (row[inner], column[inner]), 0.5 * chosen["had"][inner])
    np.add.at(want_em, (row[inner], column[inner]), 0.5 * (chosen["em"] * (1 - np.abs(share)))[inner])
    np.add.at(
        want_em,
        (row[inner], (column + np.sign(share).astype(int))[inner] % 72),
        0.5 * (chosen["em"] * np.abs(share))[inner],
    )
    for half in (0, 1):
        np.add.at(
            want_had, (row[forward], column[forward] // 2 * 2 + half), 0.25 * (chosen["em"] + chosen["had"])[forward]
        )
    np.testing.assert_allclose(em, want_em, atol=1e-4)
    np.testing.assert_allclose(had, want_had, atol=1e-4)
    # energy is conserved whatever leaks where
    assert em.sum() + had.sum() == pytest.approx(0.5 * (chosen["em"].sum() + chosen["had"].sum()), rel=1e-5)
    assert (lead <= em + 1e-5).all()


def test_forward_deposits_come_last_and_nothing_moves_between_collisions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("l1ad.events.simulate.towers._CHUNK_COLLISIONS", 2)
    rng = np.random.default_rng(8)
    offset = np.array([0, 0, 40, 41, 300, 300])
    records = random_records(300, rng)
    got = Deposits.of(offset, records)
    for i, (a, b) in enumerate(pairwise(offset)):
        rows = records["cell"][a:b] // 72
        in_hf = (rows < 12) | (rows > 67)
        want = np.concatenate([records[a:b][~in_hf], records[a:b][in_hf]])
        np.testing.assert_array_equal(got.records[a:b], want)
        assert got.forward[i] == a + (~in_hf).sum()
    both = Deposits.concatenate([got, got])
    np.testing.assert_array_equal(both.forward, np.concatenate([got.forward, got.forward + 300]))


def primitives(
    em: np.ndarray, had: np.ndarray, **changes: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, float]:
    knobs = {
        "noise_em": 0.0,
        "noise_had": 0.0,
        "zs_em": 1.0,
        "zs_had": 1.5,
        "zs_hf": 3.0,
        "em": 1.0,
        "had": 1.0,
    } | changes
    out = [np.zeros(PADDED, np.float32) for _ in range(3)]
    ones = np.ones((80, 72), np.float32)
    noise = np.zeros(20000, np.float32)
    hit, total = kernel.primitives(em, had, ones, ones, noise, 0, np.array(list(knobs.values())), *out)
    return (*out, hit, total)


def test_primitives_suppress_round_down_and_saturate() -> None:
    em, had = np.zeros((80, 72), np.float32), np.zeros((80, 72), np.float32)
    em[40, 0], em[40, 1], em[40, 2], em[40, 3] = 0.99, 1.0, 7.74, 500.0
    had[40, 10], had[40, 11], had[2, 0], had[2, 1] = 1.49, 1.5, 2.9, 3.2
    em[2, 4] = 50.0  # HF has no electromagnetic part
    a, b, tower, hit, total = primitives(em, had)
    assert list(a[40 + PAD, PAD : PAD + 4]) == [0.0, 1.0, 7.5, 127.5]
    assert list(b[40 + PAD, PAD + 10 : PAD + 12]) == [0.0, 1.5]
    assert list(b[2 + PAD, PAD : PAD + 2]) == [0.0, 3.0]
    assert hit == 4
    assert total == pytest.approx(1 + 7.5 + 127.5 + 1.5 + 3.0)
    np.testing.assert_array_equal(tower[:, :PAD], tower[:, 72 : 72 + PAD])  # the azimuth goes on
    np.testing.assert_array_equal(tower[:, 72 + PAD :], tower[:, PAD : 2 * PAD])


def test_energy_that_no_cut_touches_is_conserved() -> None:
    rng = np.random.default_rng(2)
    em = np.zeros((80, 72), np.float32)
    had = (0.5 * rng.integers(6, 100, (80, 72))).astype(np.float32)
    *_, tower, hit, total = primitives(em, had)
    assert total == had.sum() == tower[PAD : PAD + 80, PAD : PAD + 72].sum()
    assert hit == int((ABS_IETA < 29).sum()) * 72


# ------------------------------------------------------------------------------------------------------- sums


def test_missing_energy_balances_one_tower() -> None:
    out = np.zeros(4, np.float32)
    kernel.missing(padded({(40, 10): 50.0, (70, 0): 20.0}), 0, np.array([3.0, 4.5, 6.0, 0.01]), out)
    phi = 10.5 * 2 * np.pi / 72
    assert out[:2] == pytest.approx([-50 * np.cos(phi), -50 * np.sin(phi)], rel=1e-5)
    hf = 0.5 * 2 * np.pi / 72
    assert out[2:] - out[:2] == pytest.approx([-20 * np.cos(hf), -20 * np.sin(hf)], rel=1e-5)


def test_missing_energy_threshold_rises_with_pile_up() -> None:
    knobs, out = np.array([3.0, 4.5, 6.0, 0.01]), np.zeros(4, np.float32)
    tower = padded({(12, 0): 5.0})  # |ieta| 28: 4.5 + 0.01 * hits * 0.5
    kernel.missing(tower, 200, knobs, out)
    assert np.hypot(*out[:2]) == pytest.approx(5.0, rel=1e-5)
    kernel.missing(tower, 400, knobs, out)
    assert np.hypot(*out[:2]) == 0.0


# ------------------------------------------------------------------------------------------------------- jets


def test_one_jet() -> None:
    (jet,) = find_jets(padded({(40, 30): 20.0, (41, 30): 5.0, (44, 34): 3.0, (45, 30): 3.5}))
    # row 45 is outside the 9 x 9 window and in the highest of the four strips, which is left out
    assert list(jet) == [28.0, 0.0, 40.0, 30.0]


def test_below_seed_is_no_jet() -> None:
    assert len(find_jets(padded({(40, 30): 3.5}))) == 0


def test_jet_across_the_end_of_azimuth() -> None:
    (jet,) = find_jets(padded({(40, 0): 20.0, (40, 71): 5.0, (40, 69): 2.0}))
    assert list(jet) == [27.0, 0.0, 40.0, 0.0]


def test_flat_pile_up_is_subtracted() -> None:
    (jet,) = find_jets(padded({(40, 30): 20.5}, floor=0.5), seed=4.0)
    assert jet[0] == pytest.approx(20.0)
    assert jet[1] == pytest.approx(81 * 0.5)


@pytest.mark.parametrize("row", [0, 2, 5, 77, 79])
def test_flat_pile_up_is_subtracted_at_the_edge(row: int) -> None:
    """Strips that leave the detector are scaled: nothing remains of a flat floor, wherever the jet is."""
    (jet,) = find_jets(padded({(row, 30): 20.5}, floor=0.5))
    assert jet[0] == pytest.approx(20.0, abs=1e-4)


def test_of_equal_towers_one_is_the_seed() -> None:
    jets = find_jets(padded({(40, 30): 8.0, (40, 31): 8.0, (41, 30): 8.0}))
    assert len(jets) == 1
    assert jets[0, 0] == 24.0


def test_two_jets_keep_apart() -> None:
    jets = find_jets(padded({(40, 10): 8.0, (40, 15): 9.0}))
    assert sorted(jets[:, 0]) == [8.0, 9.0]
    assert len(find_jets(padded({(40, 10): 8.0, (40, 14): 9.0}))) == 1


def test_the_hardest_candidates_are_kept() -> None:
    # 28 seeds at distances that no window or strip spans
    cells = {
        (row, column): 5.0 + i
        for i, (row, column) in enumerate((r, c) for r in (4, 25, 46, 67) for c in range(0, 70, 10))
    }
    jets = find_jets(padded(cells))
    assert len(jets) == N_CANDIDATES
    assert sorted(jets[:, 0]) == sorted(cells.values())[-N_CANDIDATES:]


# ------------------------------------------------------------------------------------------------------ e/gamma


def test_one_electron() -> None:
    (eg,) = find_egs(padded({(40, 30): 20.0, (40, 31): 2.0, (41, 30): 3.0}))
    assert eg[0] == 25.0
    assert eg[1] == pytest.approx(ETA_CENTRE[40] + 3 / 25 * (ETA_CENTRE[41] - ETA_CENTRE[40]))
    assert eg[2] == pytest.approx((30.5 + 2 / 25) * 2 * np.pi / 72)


def test_vetoes() -> None:
    em = padded({(40, 30): 20.0})
    assert len(find_egs(em, had=padded({(40, 30): 1.0}))) == 1
    assert len(find_egs(em, had=padded({(40, 30): 1.5}))) == 0
    lead = np.zeros((80, 72), np.float32)
    lead[40, 30] = 11.9
    assert len(find_egs(em, lead=lead)) == 0
    lead[40, 30] = 12.1
    assert len(find_egs(em, lead=lead)) == 1
    wide = {(40, 30): 20.0, (41, 30): 4.0, (39, 30): 5.6}  # the weaker row is left out: 4.0 of at most 5.5
    assert len(find_egs(padded(wide))) == 1
    assert len(find_egs(padded(wide | {(41, 28): 2.0}))) == 0


def test_no_veto_above_its_end() -> None:
    em = padded({(40, 30): 127.0})
    assert len(find_egs(em, had=padded({(40, 30): 127.0}))) == 1


def test_forward_has_no_electrons() -> None:
    assert len(find_egs(padded({(11, 30): 20.0, (68, 30): 20.0}))) == 0
    assert len(find_egs(padded({(12, 30): 20.0, (67, 30): 20.0}))) == 2
