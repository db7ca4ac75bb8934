"""SIC against closed forms, flatness against scipy's contingency test."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from l1ad.errors import InputError
from l1ad.search import metrics


def test_sic_of_two_exponentials() -> None:
    # With scores exp(1) for background and exp(1/3) for signal: eps_S = t^(1/3), eps_B = t, SIC = t^(-1/6).
    rng = np.random.default_rng(0)
    score = np.concatenate([rng.exponential(1.0, 400_000), rng.exponential(3.0, 100_000)])
    truth = np.arange(500_000) >= 400_000
    curve = metrics.sic_curve(score, truth)
    for eps_b in (0.5, 0.1, 0.01, 2e-3):
        i = int(np.argmin(np.abs(curve.background_efficiency - eps_b)))
        assert curve.sic[i] == pytest.approx(eps_b ** (-1 / 6), rel=0.08)
    assert curve.background_efficiency.min() * 400_000 >= 25
    assert metrics.efficiency_at(score, truth, 0.01) == pytest.approx(0.01 ** (1 / 3), rel=0.03)


def test_ties_are_selected_together() -> None:
    score = np.concatenate([np.zeros(50), np.ones(50)])
    truth = np.arange(100) % 2 == 0
    curve = metrics.sic_curve(score, truth)
    assert curve.threshold.tolist() == [1.0, 0.0]
    assert curve.sic.tolist() == pytest.approx([0.5 / np.sqrt(0.5), 1.0])
    assert curve.maximum == pytest.approx(1.0)


def test_flatness_is_the_contingency_test() -> None:
    rng = np.random.default_rng(1)
    mass, edges = rng.exponential(500, 20_000) + 1500, np.array([1500.0, 1700, 2000, 2500, 4000])
    inside = (mass >= 1500) & (mass <= 4000)
    flat = rng.uniform(size=mass.size) < 0.05
    ours = metrics.flatness(mass, flat, edges)
    table = [np.histogram(mass[inside & c], edges)[0] for c in (flat, ~flat)]
    theirs = stats.chi2_contingency(table, correction=False)
    assert ours.chi2 == pytest.approx(theirs.statistic)
    assert ours.p == pytest.approx(theirs.pvalue)
    assert ours.p > 0.01
    sculpted = rng.uniform(size=mass.size) < 0.05 * mass / 1700
    assert metrics.flatness(mass, sculpted, edges).p < 1e-3


def test_bad_input() -> None:
    with pytest.raises(InputError, match="SIC"):
        metrics.sic_curve(np.ones(10), np.ones(10, bool))
    with pytest.raises(InputError, match="bin 1"):
        metrics.flatness([1.0, 1.0], [True, False], [0, 2, 3])
    with pytest.raises(InputError, match="selected fraction"):
        metrics.flatness([1.0, 2.5], [True, True], [0, 2, 3])
