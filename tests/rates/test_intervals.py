"""Intervals against their definition, and against scipy's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom, binomtest

from l1ad.errors import InputError
from l1ad.rates.intervals import (
    LEVEL_68,
    LEVEL_95,
    Counts,
    IntervalMethod,
    block_counts,
    check_interval_method,
    clopper_pearson,
    effective_counts,
    fraction_interval,
)


@pytest.mark.parametrize("level", [LEVEL_68, LEVEL_95])
@pytest.mark.parametrize(("passed", "total"), [(0, 10), (1, 10), (10, 10), (57, 100_000), (210, 6_000_000)])
def test_clopper_pearson_is_that_of_scipy(passed: int, total: int, level: float) -> None:
    expected = binomtest(passed, total).proportion_ci(level, method="exact")
    assert clopper_pearson(passed, total, level) == pytest.approx((expected.low, expected.high), rel=1e-7, abs=1e-15)


def test_its_ends_are_where_the_tails_have_half_of_the_rest() -> None:
    low, high = clopper_pearson(7, 1000, LEVEL_95)
    assert binom.sf(6, 1000, low) == pytest.approx(0.025)
    assert binom.cdf(7, 1000, high) == pytest.approx(0.025)


@given(st.integers(1, 400), st.integers(1, 100_000), st.floats(0.01, 100))
@settings(max_examples=60, deadline=None)
def test_equal_weights_give_back_the_counts(passed: int, more: int, weight: float) -> None:
    total = passed + more
    found = effective_counts(passed * weight, passed * weight**2, total * weight, total * weight**2)
    assert found == pytest.approx((passed, total), rel=1e-9)


def test_effective_counts_have_the_error_that_repetition_shows() -> None:
    rng = np.random.default_rng(3)
    n, toys = 20_000, 400
    fractions, predicted = [], []
    for _ in range(toys):
        stratum = rng.random(n) < 0.5
        weight = np.where(stratum, 0.1, 1.9)
        tail = rng.random(n) < np.where(stratum, 0.05, 0.002)
        fractions.append(weight[tail].sum() / weight.sum())
        counts = effective_counts(weight[tail].sum(), (weight[tail] ** 2).sum(), weight.sum(), (weight**2).sum())
        predicted.append(np.sqrt(fractions[-1] * (1 - fractions[-1]) / counts.total))
    assert np.mean(predicted) == pytest.approx(np.std(fractions), rel=0.1)


def test_nothing_in_the_tail() -> None:
    counts = effective_counts(0.0, 0.0, 100.0, 200.0)
    assert counts == (0.0, 50.0)
    assert clopper_pearson(*counts)[0] == 0.0
    assert clopper_pearson(*counts)[1] > 0.0


def test_blocks_agree_with_a_bootstrap_and_see_what_single_events_do_not() -> None:
    rng = np.random.default_rng(4)
    blocks = 400
    all_w = rng.uniform(80, 120, blocks)
    # Sections whose rate differs: the scatter between them is larger than that of counts.
    tail_w = rng.poisson(rng.gamma(4.0, 5.0, blocks)).astype(float)
    found = block_counts(tail_w, all_w)
    fraction = tail_w.sum() / all_w.sum()
    chosen = rng.integers(0, blocks, (4000, blocks))
    bootstrap = tail_w[chosen].sum(axis=1) / all_w[chosen].sum(axis=1)
    assert np.sqrt(fraction * (1 - fraction) / found.total) == pytest.approx(bootstrap.std(), rel=0.05)
    assert found.passed < 0.5 * tail_w.sum()


@pytest.mark.parametrize(("passed", "total"), [(0, 10), (1, 10), (10, 10), (57, 1000)])
def test_without_weights_the_general_interval_is_that_of_clopper_and_pearson(passed: int, total: int) -> None:
    for unseen in (None, 0.5 / total, 1.0 / total):
        found = fraction_interval(Counts(passed, total), LEVEL_95, unseen=unseen)
        assert found == pytest.approx(clopper_pearson(passed, total, LEVEL_95), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("passed", [0, 1, 7, 40])
def test_mid_p_counts_what_was_seen_by_half(passed: int) -> None:
    """The definition: at either end, P(more or fewer) + P(as many) / 2 is half of the rest."""
    total = 200
    low, high = fraction_interval(Counts(passed, total), LEVEL_95, method="mid-p")
    if passed:
        assert binom.sf(passed, total, low) + 0.5 * binom.pmf(passed, total, low) == pytest.approx(0.025)
    assert binom.cdf(passed - 1, total, high) + 0.5 * binom.pmf(passed, total, high) == pytest.approx(0.025)
    wide = clopper_pearson(passed, total, LEVEL_95)
    assert wide.low <= low <= high <= wide.high


def test_nothing_seen_of_heavy_events_allows_what_a_poisson_variable_of_their_weight_does() -> None:
    # Share 1e-4 an event: P(none) = 0.025 at 3.69 events.
    assert fraction_interval(Counts(0, 1e6), LEVEL_95, unseen=1e-4).high == pytest.approx(3.6889e-4, rel=1e-3)
    assert fraction_interval(Counts(0, 1e6), LEVEL_95).high == pytest.approx(3.6889e-6, rel=1e-3)
    # A heavier unseen event widens upwards only.
    narrow, wide = (fraction_interval(Counts(30, 1e6), LEVEL_68, unseen=u) for u in (None, 4e-6))
    assert wide.low == narrow.low
    assert wide.high > narrow.high


@pytest.mark.parametrize(("method", "fewest"), [("clopper-pearson", 38), ("mid-p", 10)])
def test_from_how_many_events_on_the_68_percent_interval_covers_66_to_72(method: IntervalMethod, fewest: int) -> None:
    """Closed form: without ties the true share at the threshold below k of n scores is Beta(k + 1, n - k)."""
    n = 100_000

    def coverage(k: int) -> float:
        low, high = fraction_interval(Counts(k, n), LEVEL_68, method=method)
        return float(np.diff(beta(k + 1, n - k).cdf([low, high]))[0])

    covered = {k: coverage(k) for k in (*range(10, 60), 100, 300, 1000)}
    assert min(k for k, value in covered.items() if value <= 0.72) == fewest
    assert min(covered.values()) >= LEVEL_68 - 1e-9
    assert list(covered.values()) == sorted(covered.values(), reverse=True)


def test_methods_that_do_not_exist() -> None:
    with pytest.raises(InputError, match="found wilson, expected clopper-pearson or mid-p"):
        check_interval_method("wilson")
