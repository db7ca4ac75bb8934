"""Group sums against numpy, and drift tests that hold their level and find a drift."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.stats import kstest

from l1ad.events import Events
from l1ad.events.bundled import bundled
from l1ad.rates.stability import LUMI_BITS, GroupSums, Stability, bridge_p_value, drift_test, group_keys
from l1ad.trigger.program import Trigger


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
    for name in ("all_w", "all_w2", "tail_w", "tail_w2"):
        assert np.array_equal(getattr(one, name), getattr(many, name))
    assert one.tail_w == pytest.approx([weight[passed & (keys == k)].sum() for k in one.keys])
    assert one.all_w2 == pytest.approx([(weight[keys == k] ** 2).sum() for k in one.keys])
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
    assert Stability("lumi", lumi, *(np.ones(2) for _ in range(4))).labels() == ["7:1", "7:2"]
    assert group_keys(events[:1].with_columns(), "run") is not None
    assert group_keys(Events.from_arrays(np.zeros((1, 19, 3), dtype=int)), "lumi") is None


def test_joining_keeps_sums_and_expects_enough() -> None:
    rng = np.random.default_rng(2)
    keys = np.arange(500)
    counts = rng.poisson(0.7, 500).astype(float)
    whole = Stability("run", keys, np.full(500, 100.0), np.full(500, 100.0), counts, counts)
    groups = whole.joined()
    assert groups.all_w.sum() == 50_000.0
    assert groups.tail_w.sum() == counts.sum()
    assert (groups.all_w * groups.fraction >= 5.0).all()
    assert len(whole.joined(max_groups=10).keys) <= 11


def p_values(weights: np.ndarray, toys: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Chi-square and CUSUM probabilities of samples whose rate does not depend on the group.

    `weights` (2,) are those of the events of two strata, drawn equally often; the lighter reaches the tail more often,
    as in a stratified simulation. Groups are as unequal as pile-up makes them.
    """
    rng = np.random.default_rng(seed)
    n = 8_000
    found = []
    for _ in range(toys):
        hard = rng.random(n) < 0.5
        weight = np.where(hard, *weights)
        passed = rng.random(n) < np.where(hard, 0.1, 0.01)
        keys = rng.poisson(52.0, n)
        columns = (np.bincount(keys, w, 120) for w in (weight, weight**2, weight * passed, weight**2 * passed))
        test = drift_test(Stability("pileup", np.arange(120), *columns))
        assert test is not None
        found.append((test.chi2_p_value, test.cusum_p_value))
    return tuple(np.array(found).T)  # type: ignore[return-value]


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.2, 1.8)])
def test_the_probabilities_of_a_constant_rate_are_uniform(weights: tuple[float, float]) -> None:
    for p in p_values(np.array(weights), 300, 3):
        assert kstest(p, "uniform").pvalue > 0.01
        # 300 toys at 5 %: 15 expected, standard deviation 3.8.
        assert 5 <= (p < 0.05).sum() <= 27
        assert (p < 0.001).sum() <= 4


@pytest.mark.parametrize(
    "steps",
    [np.full(4, 0.25), np.full(15, 1 / 15), np.full(60, 1 / 60), np.r_[0.6, np.full(40, 0.01)], np.r_[0.5, 0.0, 0.5]],
)
def test_a_bridge_goes_as_far_as_simulated_ones(steps: np.ndarray) -> None:
    rng = np.random.default_rng(9)
    walk = np.cumsum(rng.standard_normal((40_000, len(steps))) * np.sqrt(steps), axis=1)
    farthest = np.abs(walk - np.cumsum(steps) * walk[:, -1:]).max(axis=1)
    for level in (0.4, 0.8, 1.1, 1.5):
        expected = float((farthest >= level).mean())
        error = np.sqrt(expected * (1 - expected) / len(walk))
        assert bridge_p_value(level, steps) == pytest.approx(expected, abs=4 * error + 0.01 * expected)
    assert bridge_p_value(0.0, steps) == 1.0
    assert bridge_p_value(9.0, steps) < 1e-12


def test_a_deployed_trigger_fires_more_often_with_more_pileup(oracles: Path) -> None:
    """More collisions, more energy: the rate of v4 must depend on pile-up, and not on pile-up dealt out at random."""
    net = np.load(oracles / "axol1tl_v4.npz")
    trigger = Trigger.from_layers(
        [net[f"w{i}"] for i in range(3)],
        [net[f"b{i}"] for i in range(3)],
        {
            "input": "ap_fixed<8,6,RND_CONV,SAT>",
            "weight": "ap_fixed<6,3>",
            "bias": "ap_fixed<10,7>",
            "relu": "ap_ufixed<10,6,RND_CONV,SAT>",
            "result": "ap_fixed<10,7,RND_CONV,SAT>",
        },
        {"offset": net["offset"], "shift": net["shift"]},
    )
    events = Events.read(bundled("zero_bias_weighted"))
    weight, passed = np.asarray(events.weight, dtype=float), trigger.score(events) >= 346
    pileup = group_keys(events, "pileup")
    assert pileup is not None
    real = drift_test(table(pileup, weight, passed))
    assert real is not None
    assert real.chi2_p_value < 1e-9
    assert real.cusum_p_value < 1e-9
    assert np.average(pileup[passed], weights=weight[passed]) > np.average(pileup, weights=weight) + 1.0
    rng = np.random.default_rng(10)
    dealt = [drift_test(table(rng.permutation(pileup), weight, passed)) for _ in range(60)]
    for name in ("chi2_p_value", "cusum_p_value"):
        assert kstest([getattr(test, name) for test in dealt], "uniform").pvalue > 0.01


def test_a_step_is_found_and_placed() -> None:
    rng = np.random.default_rng(4)
    rate = np.where(np.arange(200) < 80, 20.0, 26.0)
    counts = rng.poisson(rate).astype(float)
    test = drift_test(Stability("run", np.arange(200), np.full(200, 1e6), np.full(200, 1e6), counts, counts))
    assert test is not None
    assert test.cusum_p_value < 1e-6
    assert abs(int(test.cusum_at) - 79) <= 6
    assert test.chi2_p_value < 0.01


def test_too_few_events_say_nothing() -> None:
    assert drift_test(Stability("run", np.array([1]), *(np.ones(1) * x for x in (9, 9, 1, 1)))) is None
    empty = Stability("run", np.arange(5), np.ones(5), np.ones(5), np.zeros(5), np.zeros(5))
    assert drift_test(empty) is None
    assert empty.effective_counts() is None
