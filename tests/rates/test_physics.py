"""Efficiencies, gains, ROC curves and summaries against hand counts and sklearn-like brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l1ad.errors import InputError
from l1ad.rates import BaseRate, ScoreHistogram, ZeroBias
from l1ad.rates.intervals import clopper_pearson
from l1ad.rates.physics import (
    Signal,
    area_under_curve,
    conditional_value_at_risk,
    efficiency_at_fpr,
    roc_curve,
    summarise,
)


def histogram(scores: object, weight: object = None, fired: object = None) -> ScoreHistogram:
    result = ScoreHistogram(has_menu=fired is not None)
    w = None if weight is None else np.asarray(weight, dtype=float)
    if fired is None:
        result.fill(np.asarray(scores), w)
    else:
        none = 1.0 - np.asarray(fired, dtype=float)
        result.fill(np.asarray(scores), w, chance_none=none, mean_share=0.5 + 0.5 * none)
    return result


weighted_scores = st.lists(st.tuples(st.integers(0, 12), st.floats(0.1, 5.0)), min_size=1, max_size=30)


@given(weighted_scores, weighted_scores)
@settings(max_examples=60, deadline=None)
def test_area_is_the_chance_to_rank_a_pair_rightly(
    signal: list[tuple[int, float]], back: list[tuple[int, float]]
) -> None:
    s, sw = np.array([x for x, _ in signal]), np.array([w for _, w in signal])
    b, bw = np.array([x for x, _ in back]), np.array([w for _, w in back])
    wins = (s[:, None] > b[None, :]) + 0.5 * (s[:, None] == b[None, :])
    expected = (sw[:, None] * bw[None, :] * wins).sum() / (sw.sum() * bw.sum())
    zero_bias = ZeroBias(histogram(b, bw), BaseRate(1.0))
    assert area_under_curve(Signal("s", histogram(s, sw)), zero_bias) == pytest.approx(expected, rel=1e-9)
    threshold, tpr = efficiency_at_fpr(Signal("s", histogram(s, sw)), zero_bias, 0.3)
    by_hand = next(t for t in range(14) if bw[b >= t].sum() / bw.sum() <= 0.3)
    assert threshold == by_hand
    assert tpr == pytest.approx(sw[s >= by_hand].sum() / sw.sum())


def test_the_roc_curve_starts_at_one_and_ends_at_zero() -> None:
    fpr, tpr = roc_curve(Signal("s", histogram([1, 2])), ZeroBias(histogram([0, 2]), BaseRate(1.0)))
    assert fpr[[0, 1, 2, 3]].tolist() == [1.0, 0.5, 0.5, 0.0]
    assert tpr[[0, 1, 2, 3]].tolist() == [1.0, 1.0, 0.5, 0.0]


def test_efficiency_and_gain_by_hand() -> None:
    # 100 events: 20 accepted by the menu; 15 score 50 or more, 9 of them rejected by the menu.
    scores = [60] * 6 + [0] * 14 + [60] * 9 + [0] * 71
    fired = [1] * 20 + [0] * 80
    signal = Signal("s", histogram(scores, fired=fired))
    assert signal.menu_efficiency == pytest.approx(0.20)
    total, pure = signal.efficiency(50), signal.efficiency(50, "pure")
    assert (total.value, total.events, pure.value, pure.events) == (0.15, 15, 0.09, 9)
    assert total.interval_68 == pytest.approx(clopper_pearson(15, 100))
    gain = signal.gain(50)
    assert gain is not None
    assert gain[0] == pytest.approx((20 + 9) / 20 - 1)
    low, high = clopper_pearson(9, 29)
    assert gain[1] == pytest.approx((low / (1 - low), high / (1 - high)), rel=1e-6)
    assert Signal("s", histogram([1, 2], fired=[0, 0])).gain(0) is None


def test_weighted_efficiency() -> None:
    signal = Signal("s", histogram([5, 5, 1, 1], [3.0, 1.0, 2.0, 2.0]))
    assert signal.efficiency(5).value == 0.5
    with pytest.raises(InputError, match="pure rate"):
        signal.efficiency(5, "pure")


def test_summaries_over_signals() -> None:
    values = [0.4, 0.1, 0.2, 0.3, 0.5, 0.6]
    summary = summarise(values)
    assert (summary.mean, summary.median) == pytest.approx((0.35, 0.35))
    # A quarter of six is one and a half: the worst, and half of the second worst.
    assert summary.cvar25 == pytest.approx((0.1 + 0.5 * 0.2) / 1.5)
    assert conditional_value_at_risk([3.0, 1.0, 2.0, 4.0]) == 1.0
    assert conditional_value_at_risk([5.0]) == 5.0
    assert conditional_value_at_risk(values, 1.0) == pytest.approx(0.35)
    with pytest.raises(InputError, match="CVaR"):
        conditional_value_at_risk([])


def test_signals_that_cannot_be_used() -> None:
    with pytest.raises(InputError, match="signal s: events: found none"):
        Signal("s", ScoreHistogram())
    with pytest.raises(InputError, match="signal s: weight: found 0 for all 2 events"):
        Signal("s", histogram([1, 2], [0.0, 0.0]))
