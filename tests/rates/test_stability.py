"""Group sums against numpy, and drift tests that hold their level and find a drift."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from l1ad.events import Events
from l1ad.rates.stability import LUMI_BITS, GroupSums, Stability, drift_test, group_keys


def table(keys: np.ndarray, weight: np.ndarray, passed: np.ndarray, chunks: int = 1) -> Stability:
    total = GroupSums(1)
    for part in np.array_split(np.arange(len(keys)), chunks)[::-1]:
        index = np.flatnonzero(passed[part])
        total.fill(keys[part], weight[part], [(index, weight[part][index])])
    return total.table("run", 0)


def test_groups_agree_with_numpy_however_divided(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    # In order, as runs are: each chunk knows only some of the groups.
    keys = np.sort(rng.integers(100, 140, 3000))
    weight = rng.gamma(1.0, 1.0, 3000)
    passed = rng.random(3000) < 0.1
    one, many = table(keys, weight, passed), table(keys, weight, passed, 7)
    assert one.keys.tolist() == np.unique(keys).tolist()
    for name in ("all_w", "tail_w", "tail_w2"):
        assert np.array_equal(getattr(one, name), getattr(many, name))
    assert one.tail_w == pytest.approx([weight[passed & (keys == k)].sum() for k in one.keys])
    assert one.all_w == pytest.approx([weight[keys == k].sum() for k in one.keys])
    sums = GroupSums(1)
    sums.fill(keys, weight, [(np.flatnonzero(passed), weight[passed])])
    with h5py.File(tmp_path / "g.h5", "w") as file:
        sums.write(file)
    with h5py.File(tmp_path / "g.h5") as file:
        again = GroupSums.read(file, 1).table("run", 0)
    assert np.array_equal(again.tail_w2, one.tail_w2)


def test_keys_of_events() -> None:
    columns = {"run": [7, 7], "lumi": [1, 2], "bx": [5, 3000], "n_pv": [51.4, 51.6]}
    events = Events.from_arrays(np.zeros((2, 19, 3), dtype=int), columns=columns)
    assert [k.tolist() for k in (group_keys(events, v) for v in ("run", "bx", "pileup")) if k is not None] == [
        [7, 7],
        [5, 3000],
        [51, 52],
    ]
    lumi = group_keys(events, "lumi")
    assert lumi is not None
    assert lumi.tolist() == [(7 << LUMI_BITS) + 1, (7 << LUMI_BITS) + 2]
    assert Stability("lumi", lumi, np.ones(2), np.ones(2), np.ones(2)).labels() == ["7:1", "7:2"]
    assert group_keys(events[:1].with_columns(), "run") is not None
    assert group_keys(Events.from_arrays(np.zeros((1, 19, 3), dtype=int)), "lumi") is None


def test_joining_keeps_sums_and_expects_enough() -> None:
    rng = np.random.default_rng(2)
    keys = np.arange(500)
    counts = rng.poisson(0.7, 500).astype(float)
    groups = Stability("run", keys, np.full(500, 100.0), counts, counts).joined()
    assert groups.all_w.sum() == 50_000.0
    assert groups.tail_w.sum() == counts.sum()
    assert (groups.all_w * groups.fraction >= 5.0).all()
    assert len(Stability("run", keys, np.full(500, 100.0), counts, counts).joined(max_groups=10).keys) <= 11


@pytest.mark.parametrize("weighted", [False, True])
def test_a_constant_rate_passes_as_often_as_it_should(weighted: bool) -> None:
    rng = np.random.default_rng(3)
    chi2, cusum = [], []
    for _ in range(300):
        counts = rng.poisson(20.0, 100)
        if weighted:
            weights = [rng.choice([0.5, 1.5], n) for n in counts]
            tail_w = np.array([w.sum() for w in weights])
            tail_w2 = np.array([(w**2).sum() for w in weights])
        else:
            tail_w = tail_w2 = counts.astype(float)
        test = drift_test(Stability("run", np.arange(100), np.full(100, 1e6), tail_w, tail_w2))
        assert test is not None
        chi2.append(test.chi2_p_value)
        cusum.append(test.cusum_p_value)
    # 300 trials at 5 %: 15 expected, standard deviation 3.8. The CUSUM looks at 100 points only and is conservative.
    assert 4 <= sum(p < 0.05 for p in chi2) <= 28
    assert sum(p < 0.05 for p in cusum) <= 25
    assert np.mean(chi2) == pytest.approx(0.5, abs=0.06)


def test_a_step_is_found_and_placed() -> None:
    rng = np.random.default_rng(4)
    rate = np.where(np.arange(200) < 80, 20.0, 26.0)
    counts = rng.poisson(rate).astype(float)
    test = drift_test(Stability("run", np.arange(200), np.full(200, 1e6), counts, counts))
    assert test is not None
    assert test.cusum_p_value < 1e-6
    assert abs(int(test.cusum_at) - 79) <= 6
    assert test.chi2_p_value < 0.01


def test_too_few_events_say_nothing() -> None:
    assert drift_test(Stability("run", np.array([1]), np.ones(1) * 9, np.ones(1), np.ones(1))) is None
    empty = Stability("run", np.arange(5), np.ones(5), np.zeros(5), np.zeros(5))
    assert drift_test(empty) is None
    assert empty.effective_counts() is None
