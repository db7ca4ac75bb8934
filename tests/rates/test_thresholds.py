"""Thresholds from small samples done by hand, properties that hold for all, coverage and extrapolation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l1ad.errors import InputError
from l1ad.events import Events
from l1ad.menu import Menu, Seed
from l1ad.rates import BaseRate, ScoreHistogram, TooFewEvents, ZeroBias, counting, find_threshold, find_thresholds
from l1ad.rates.extrapolate import fit_tail
from l1ad.rates.histogram import KINDS, N_SCORES
from l1ad.rates.intervals import clopper_pearson
from l1ad.rates.thresholds import _LOOKED_AT, _tail_floor, rate_curve, rate_label
from l1ad.trigger.emulate.build import find_compiler


def sample_of(scores: object, weight: object = None, hz: float = 1000.0) -> ZeroBias:
    histogram = ScoreHistogram()
    histogram.fill(np.asarray(scores), None if weight is None else np.asarray(weight, dtype=float))
    return ZeroBias(histogram, BaseRate(hz))


# ------------------------------------------------------------------ by hand


def test_ties_fire_together() -> None:
    # 100 crossings, 1000 Hz: 10 Hz each. Twelve events at 50, eight at 60, the rest at 0.
    sample = sample_of([0] * 80 + [50] * 12 + [60] * 8 + [61] * 0)
    found = find_threshold(sample, 200.0)
    assert (found.threshold, found.rate.hz, found.rate.events) == (1, 200.0, 20)
    assert (found.next_threshold, found.next_rate and found.next_rate.hz) == (0, 1000.0)
    # 199 Hz cannot be had with 20 ties at and above 50: the next rate down is 80 Hz, of 8 events.
    with pytest.raises(TooFewEvents, match="found 8 events at or above 51, expected at least 10"):
        find_threshold(sample, 199.0)


def test_at_least_and_not_above() -> None:
    scores = np.repeat([10, 20, 30, 40], [900, 60, 25, 15])
    found = find_threshold(sample_of(scores), 40.0)
    # >= 30 are 40 events: exactly the target, which they do not exceed. 21 is the smallest integer that gives them.
    assert (found.threshold, found.rate.events, found.rate.hz) == (21, 40, 40.0)
    assert found.next_threshold == 20
    assert found.next_rate is not None
    assert found.next_rate.hz == pytest.approx(100.0)
    assert find_threshold(sample_of(scores), 39.99).rate.events == 15
    low, high = clopper_pearson(40, 1000)
    assert found.rate.interval_68 == pytest.approx((low * 1000, high * 1000))
    assert found.rate.interval_95.low < found.rate.interval_68.low < 40 < found.rate.interval_68.high


def test_a_target_of_every_crossing_is_threshold_zero() -> None:
    found = find_threshold(sample_of(np.arange(100)), 1000.0)
    assert (found.threshold, found.next_threshold, found.next_rate) == (0, None, None)


def test_published_statistics_of_a_kilohertz() -> None:
    # 1 kHz from 6 M zero-bias events at 2544 bunches: 209 events, 7 %.
    scores = np.concatenate([np.zeros(6_000_000 - 300, dtype=np.int64), np.arange(1, 301)])
    histogram = ScoreHistogram()
    histogram.fill(scores)
    found = find_threshold(ZeroBias(histogram, BaseRate.from_bunches(2544)), 1000.0)
    assert found.rate.events == 209
    half = 0.5 * (found.rate.interval_68.high - found.rate.interval_68.low) / found.rate.hz
    assert half == pytest.approx(0.07, abs=0.003)


def test_total_pure_and_proportional_by_hand() -> None:
    """Known joint distribution of score and menu bits, rates written out.

    =====  =======  ==========================  =========
    score  events   seeds that fire             weight
    =====  =======  ==========================  =========
    100    40       none                        1
    100    30       A                           1
    200    20       none                        2
    200    12       A, B                        0.5
    300    11       B                           1
    0      887      none                        1
    =====  =======  ==========================  =========

    All weights: 40 + 30 + 40 + 6 + 11 + 887 = 1014; 1014 crossings a second make each unit of weight 1 Hz.
    """
    rows = [(100, 40, "", 1.0), (100, 30, "A", 1.0), (200, 20, "", 2.0), (200, 12, "AB", 0.5), (300, 11, "B", 1.0)]
    rows.append((0, 887, "", 1.0))
    scores = np.repeat([row[0] for row in rows], [row[1] for row in rows])
    weight = np.repeat([row[3] for row in rows], [row[1] for row in rows])
    bits = {s: np.repeat([s in row[2] for row in rows], [row[1] for row in rows]) for s in "AB"}
    empty = Events.from_arrays(np.zeros((len(scores), 19, 3), dtype=int)).with_menu_bits(bits, origin="test")

    def rates(prescale_b: int, threshold: int) -> dict[str, float]:
        menu = Menu(name="m", seeds=(Seed(name="A"), Seed(name="B", prescale=prescale_b)))
        decision = menu.evaluate(empty)
        histogram = ScoreHistogram(has_menu=True)
        histogram.fill(scores, weight, chance_none=decision.chance_none(), mean_share=decision.mean_share())
        sample = ZeroBias(histogram, BaseRate(1014.0))
        return {kind: sample.rate_at(threshold, kind).hz for kind in KINDS}

    # Unprescaled: pure = 40 + 40; proportional = 40 + 30/2 + 40 + 6/3 + 11/2.
    assert rates(1, 100) == pytest.approx({"total": 127.0, "pure": 80.0, "proportional": 102.5})
    assert rates(1, 101) == pytest.approx({"total": 57.0, "pure": 40.0, "proportional": 47.5})
    assert rates(1, 300) == pytest.approx({"total": 11.0, "pure": 0.0, "proportional": 5.5})
    # B with prescale 4 fires a quarter of the time: pure gains 3/4 of the events that only B has;
    # A and B: 1/2 with chance 3/4, 1/3 with 1/4; B alone: 1 with 3/4, 1/2 with 1/4.
    expected = {"total": 127.0, "pure": 80.0 + 0.75 * 11, "proportional": 95.0 + 6 * (0.375 + 1 / 12) + 11 * 0.875}
    assert rates(4, 100) == pytest.approx(expected)
    # B switched off: it neither vetoes nor shares.
    assert rates(0, 300) == pytest.approx({"total": 11.0, "pure": 11.0, "proportional": 11.0})


def test_weights_change_the_interval_and_not_the_rate_they_sum_to() -> None:
    rng = np.random.default_rng(3)
    scores = rng.integers(0, 1000, 5000)
    plain = find_threshold(sample_of(scores), 20.0)
    double = find_threshold(sample_of(scores, np.full(5000, 2.0)), 20.0)
    assert (double.threshold, double.rate.hz) == (plain.threshold, plain.rate.hz)
    assert double.rate.interval_68 == pytest.approx(plain.rate.interval_68, rel=1e-9)
    assert (plain.rate.method, double.rate.method) == ("Clopper-Pearson", "effective counts")
    spread = sample_of(scores, rng.choice([0.01, 10.0], 5000))
    wide = spread.rate_at(plain.threshold)
    assert wide.effective_events < 0.7 * plain.rate.effective_events


# ------------------------------------------------------------------ for all samples


@given(
    st.lists(st.integers(0, 60), min_size=12, max_size=200),
    st.floats(1.0, 1000.0),
    st.integers(0, 5),
)
@settings(max_examples=50, deadline=None)
def test_the_threshold_is_the_smallest_that_does_not_exceed(scores: list[int], target: float, seed: int) -> None:
    weight = np.random.default_rng(seed).random(len(scores)) if seed else np.ones(len(scores))
    sample = sample_of(scores, weight)
    array = np.array(scores)
    by_hand = next(t for t in range(62) if weight[array >= t].sum() * 1000.0 / weight.sum() <= target * (1 + 1e-12))
    if (array >= by_hand).sum() < 10:
        with pytest.raises(TooFewEvents):
            find_threshold(sample, target)
        return
    found = find_threshold(sample, target)
    assert found.threshold == by_hand
    assert found.rate.hz <= target * (1 + 1e-12)
    if found.next_rate is not None:
        assert found.next_rate.hz > target * (1 - 1e-12)
        assert found.next_threshold == by_hand - 1
    low, high = found.rate.interval_68
    assert low <= found.rate.hz <= high


@given(st.lists(st.integers(0, 500), min_size=30, max_size=200), st.floats(100.0, 900.0), st.floats(1.0, 2.0))
@settings(max_examples=30, deadline=None)
def test_a_higher_target_never_raises_the_threshold(scores: list[int], target: float, more: float) -> None:
    sample = sample_of(scores)
    try:
        first = find_threshold(sample, target)
    except TooFewEvents:
        return
    assert find_threshold(sample, min(target * more, 1000.0)).threshold <= first.threshold


crossings = st.tuples(st.integers(0, 9), st.sampled_from([0.001, 0.3, 1.0, 20.0]), st.integers(0, 3), st.integers(1, 4))


@given(st.lists(crossings, min_size=3, max_size=80), st.booleans(), st.sampled_from(["clopper-pearson", "mid-p"]))
@settings(max_examples=60, deadline=None)
def test_pure_is_at_most_proportional_is_at_most_total(
    rows: list[tuple[int, float, int, int]], weighted: bool, interval: str
) -> None:
    """For rates and both ends of both intervals at every threshold, whatever weights, seeds and prescales."""
    scores, weight, fired, prescale = (np.array(column) for column in zip(*rows, strict=True))
    histogram = ScoreHistogram(has_menu=True)
    chance_none = np.where(fired == 0, 1.0, 1.0 - 1.0 / prescale)
    mean_share = chance_none + (1.0 - chance_none) / (1.0 + fired)
    histogram.fill(scores, weight if weighted else None, chance_none=chance_none, mean_share=mean_share)
    sample = ZeroBias(histogram, BaseRate(1e6), interval=interval)
    above = None
    for threshold in range(11):
        rates = sample.rates_at(threshold)
        chain = [rates[kind] for kind in ("pure", "proportional", "total")]
        for kind in KINDS:
            assert rates[kind] == sample.rate_at(threshold, kind)
            for low, high in (rates[kind].interval_68, rates[kind].interval_95):
                assert 0.0 <= low <= rates[kind].hz * (1 + 1e-12)
                assert rates[kind].hz * (1 - 1e-12) <= high <= 1e6
        for small, large in itertools.pairwise(chain):
            assert small.hz <= large.hz
            for ends in ("interval_68", "interval_95"):
                assert getattr(small, ends).low <= getattr(large, ends).low
                assert getattr(small, ends).high <= getattr(large, ends).high
        # A rate never rises with the threshold.
        if above is not None:
            assert all(rates[kind].hz <= above[kind].hz for kind in KINDS)
        above = rates


@pytest.mark.parametrize(("passing", "crowd"), [(5.0, 0.1), (0.1, 5.0)])
def test_no_pure_event_says_as_little_as_the_events_that_could_have_been_pure(passing: float, crowd: float) -> None:
    """Ten events pass and the menu takes all; how heavy the crowd below is makes pure known no better and no worse."""
    scores = np.repeat([500, 0], [10, 100_000])
    weight = np.repeat([passing, crowd], [10, 100_000])
    histogram = ScoreHistogram(has_menu=True)
    none = (scores == 0).astype(float)
    histogram.fill(scores, weight, chance_none=none, mean_share=0.5 + 0.5 * none)
    rates = ZeroBias(histogram, BaseRate(weight.sum())).rates_at(100)
    assert (rates["pure"].hz, rates["pure"].events, rates["total"].hz) == (0.0, 0, pytest.approx(10 * passing))
    # P(none) = 0.025 at 3.69 events of their weight.
    assert rates["pure"].interval_95.high == pytest.approx(3.69 * passing, rel=0.02)
    assert rates["pure"].interval_95.high < rates["proportional"].interval_95.high < rates["total"].interval_95.high


def test_the_interval_of_a_threshold_holds_the_thresholds_of_other_samples() -> None:
    """It covers the threshold of an infinite sample as often as the interval of a rate covers the true rate."""
    rng = np.random.default_rng(8)
    toys, inside = 300, 0
    true = 200.0 * math.log(6000 / 150)
    for _ in range(toys):
        found = find_threshold(sample_of(np.floor(rng.exponential(200.0, 6000)).astype(int), hz=6000.0), 150.0)
        assert found.interval_68 is not None
        assert found.interval_95 is not None
        assert found.interval_95[0] <= found.interval_68[0] <= found.threshold <= found.interval_68[1]
        assert found.interval_68[1] <= found.interval_95[1]
        inside += found.interval_68[0] <= true <= found.interval_68[1]
    assert 0.62 < inside / toys < 0.78


def test_the_interval_of_a_threshold_stays_near_it() -> None:
    """Beyond the last event nothing bounds a rate but the weight of an event in general, here 5 kHz: not a reason."""
    rng = np.random.default_rng(9)
    scores = np.concatenate([rng.exponential(20.0, 20_000), rng.exponential(300.0, 20_000)]).astype(int)
    weight = np.repeat([10.0, 0.05], 20_000)
    sample = sample_of(scores, weight, hz=1e6)
    found = find_threshold(sample, 50.0)
    assert sample.rate_at(N_SCORES - 1).interval_68.high > 50.0
    assert found.interval_68 is not None
    assert found.interval_68[1] < found.threshold + 200
    low, high = found.interval_68
    ends = {t: sample.rate_at(t).interval_68 for t in (low - 1, low, high, high + 1)}
    assert ends[low].low <= 50.0 < ends[low - 1].low
    assert ends[high].high >= 50.0 > ends[high + 1].high


# ------------------------------------------------------------------ coverage


@pytest.mark.parametrize("weighted", [False, True])
def test_the_68_percent_interval_covers(weighted: bool) -> None:
    """A few hundred toys (the full study is in bench); the true rate of a threshold t is exp(-t/200)."""
    rng = np.random.default_rng(20 + weighted)
    toys, n, expected = 300, 6000, 150
    covered_68 = covered_95 = 0
    for _ in range(toys):
        scores = np.floor(rng.exponential(200.0, n)).astype(np.int64)
        weight = rng.gamma(2.0, 0.5, n) if weighted else None
        found = find_threshold(sample_of(scores, weight, hz=1e6), expected / n * 1e6)
        true = math.exp(-found.threshold / 200.0) * 1e6
        covered_68 += found.rate.interval_68.low <= true <= found.rate.interval_68.high
        covered_95 += found.rate.interval_95.low <= true <= found.rate.interval_95.high
    # 300 toys have a standard error of 2.7 % about the 68 to 71 % that Clopper-Pearson has here.
    assert 0.61 < covered_68 / toys < 0.78
    assert 0.92 < covered_95 / toys < 0.99


# ------------------------------------------------------------------ extrapolation


def test_an_exponential_tail_is_extrapolated_to_the_truth() -> None:
    rng = np.random.default_rng(5)
    inside, thresholds = 0, []
    toys = 8
    for _ in range(toys):
        scores = np.floor(rng.exponential(100.0, 100_000)).astype(np.int64)
        sample = sample_of(scores, hz=1e6)
        with pytest.raises(TooFewEvents, match="--extrapolate"):
            find_threshold(sample, 20.0)
        found = find_threshold(sample, 20.0, extrapolate=True)
        assert found.extrapolation is not None
        true = math.exp(-found.threshold / 100.0) * 1e6
        inside += found.rate.interval_95.low <= true <= found.rate.interval_95.high
        thresholds.append(found.threshold)
        assert found.rate.hz <= 20.0
        assert found.next_rate is not None
        assert found.next_rate.hz > 20.0
    # The truth: exp(-t/100) = 2e-5.
    assert np.mean(thresholds) == pytest.approx(100 * math.log(5e4), rel=0.08)
    assert inside >= toys - 2


def test_the_fit_agrees_with_scipy_and_says_how_good_it_is() -> None:
    from scipy.stats import genpareto

    rng = np.random.default_rng(6)
    scores = np.floor(genpareto.rvs(0.2, scale=800.0, size=50_000, random_state=rng)).astype(np.int64)
    scores = np.minimum(scores, N_SCORES - 1)
    tails = sample_of(scores).tails["total"]
    fit = fit_tail(tails, events=3000)
    # scipy fits a continuous density: half a unit into each integer.
    shape, _, scale = genpareto.fit(scores[scores >= fit.start] - fit.start + 0.5, floc=0.0)
    assert fit.shape == pytest.approx(shape, abs=0.02)
    assert fit.scale == pytest.approx(scale, rel=0.03)
    error = math.sqrt(fit.covariance[1, 1])
    assert error == pytest.approx(1.2 / math.sqrt(3000), rel=0.15)  # (1 + xi) / sqrt(n), the asymptotic error
    assert fit.p_value > 0.01
    # A second population in the tail is no generalised Pareto distribution.
    bump = np.rint(rng.normal(fit.start + 2500, 60.0, 1500)).astype(np.int64)
    bumpy = np.concatenate([scores[scores < fit.start], scores[scores >= fit.start][:1500], bump])
    assert fit_tail(sample_of(bumpy).tails["total"], events=3000).p_value < 1e-3


def test_an_extrapolated_interval_is_wider_than_counts_would_be() -> None:
    rng = np.random.default_rng(7)
    scores = np.floor(rng.exponential(100.0, 100_000)).astype(np.int64)
    found = find_threshold(sample_of(scores, hz=1e6), 20.0, extrapolate=True)
    inside = find_threshold(sample_of(scores, hz=1e6), 5000.0, extrapolate=True)
    assert inside.extrapolation is None
    width = (found.rate.interval_68.high - found.rate.interval_68.low) / found.rate.hz
    assert width > 2 / math.sqrt(500)


def test_too_little_to_fit() -> None:
    with pytest.raises(InputError, match="extrapolation: tail: found 20 events"):
        find_threshold(sample_of(np.arange(20)), 100.0, extrapolate=True)


# ------------------------------------------------------------------ bad input


def test_empty_or_weightless_zero_bias() -> None:
    with pytest.raises(InputError, match="zero bias: events: found none"):
        ZeroBias(ScoreHistogram(), BaseRate(1.0))
    with pytest.raises(InputError, match="weight: found 0 for all 3 events"):
        sample_of([1, 2, 3], [0.0, 0.0, 0.0])


def test_targets_that_cannot_be() -> None:
    sample = sample_of(np.arange(100))
    with pytest.raises(InputError, match="at most the crossing rate"):
        find_threshold(sample, 1001.0)
    with pytest.raises(InputError, match="pure rate: found no menu decisions"):
        find_threshold(sample, 100.0, kind="pure")


def test_labels_and_curves() -> None:
    assert [rate_label(hz) for hz in (250.0, 1000.0, 1e4)] == ["0p25kHz", "1kHz", "10kHz"]
    curve = rate_curve(sample_of(np.arange(1000)), points=50, must=(123,))
    assert 123 in curve.threshold
    assert (np.diff(curve.threshold) > 0).all()
    assert (np.diff(curve.hz) <= 0).all()
    assert (curve.low_hz <= curve.hz).all()
    assert (curve.hz <= curve.high_hz).all()


# ------------------------------------------------------------------ scores in memory, read once

MANY = 10 * _LOOKED_AT
SPECTRA = {
    "falling": lambda rng: np.minimum(rng.exponential(300.0, MANY), 262_143).astype(np.int64),
    "all bits": lambda rng: rng.integers(0, 1 << 18, MANY),
    "ties": lambda rng: rng.choice([0, 40, 41, 9000], MANY, p=[0.9, 0.09949, 0.0005, 0.00001]),
    # What a look at some of the scores does not foresee.
    "in order": lambda rng: np.sort(rng.integers(0, 1 << 18, MANY)),
    "a burst that is not looked at": lambda rng: np.concatenate(
        [rng.integers(0, 1000, MANY - 3000), rng.integers(5000, 6000, 3000)]
    ),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_thresholds_read_once_are_those_of_the_whole_histogram(name: str) -> None:
    scores = SPECTRA[name](np.random.default_rng(8))
    base, targets = BaseRate.from_bunches(2544), [500.0, 1e3, 1e4]
    counting.prepare()
    expected = [find_threshold(sample_of(scores, hz=base.hz), target, extrapolate=True) for target in targets]
    for kind in (np.int64, np.int32):
        assert find_thresholds(scores.astype(kind), base, targets, extrapolate=True, threads=2) == expected
    # Nor does it matter what the floor is guessed to be.
    with pytest.MonkeyPatch.context() as patch:
        for floor in (1, expected[0].threshold, (1 << 18) - 1):
            patch.setattr("l1ad.rates.thresholds._tail_floor", lambda *_, floor=floor: floor)
            assert find_thresholds(scores, base, targets, extrapolate=True) == expected


@pytest.mark.skipif(find_compiler() is None, reason="no C compiler (cc, gcc or clang) on PATH")
def test_a_low_rate_counts_the_tail_only(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = SPECTRA["falling"](np.random.default_rng(9))
    counting.prepare()
    monkeypatch.setattr(counting, "count", lambda *_args, **_options: pytest.fail("everything was counted"))
    base = BaseRate.from_bunches(2544)
    floor = _tail_floor(scores, 1e4 / base.hz)
    assert 1e4 / base.hz < np.mean(scores >= floor) < 4e4 / base.hz
    assert find_thresholds(scores, base, [1e4])[0].threshold > floor


def test_scores_read_once_that_are_none_are_refused() -> None:
    base = BaseRate.from_bunches(2544)
    scores = SPECTRA["falling"](np.random.default_rng(10))
    scores[12345] = -5
    with pytest.raises(InputError, match="scores: found -5, expected 0 to 262143"):
        find_thresholds(scores, base, [1e4])
    with pytest.raises(InputError, match="scores: found float64, expected integers"):
        find_thresholds(np.ones(MANY), base, [1e4])
    with pytest.raises(TooFewEvents, match="events at or above"):
        find_thresholds(np.arange(1000), base, [1e3])
    assert find_thresholds(np.arange(1000), base, []) == []
