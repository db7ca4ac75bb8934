"""From a histogram of scores to integer thresholds with rates and intervals.

The firmware fires if ``score >= threshold``, so a threshold is an integer and its rate is that of ``>=``, ties and all.
`find_threshold` takes the smallest integer whose rate does not exceed the target; the integer below it is quoted beside
it, with the rate that did exceed. `find_thresholds` gives the same from scores that lie in memory, and reads them once.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.rates import counting
from l1ad.rates.exact import FloatArray, IntArray
from l1ad.rates.extrapolate import extrapolated_intervals, fit_tail
from l1ad.rates.histogram import N_SCORES, Kind, ScoreHistogram, Tails, at_all_scores, check_kind
from l1ad.rates.intervals import (
    INTERVAL_METHODS,
    LEVEL_68,
    LEVEL_95,
    Counts,
    Interval,
    IntervalMethod,
    check_interval_method,
    effective_counts,
    fraction_interval,
)
from l1ad.rates.rates import BaseRate

#: A threshold with fewer events at or above it is not quoted without extrapolation.
MIN_EVENTS = 10
#: A rate that is above its target by no more than the rounding of two float64 operations does not exceed it.
_ROUNDING = 1e-15 * 4


class TooFewEvents(InputError):
    """A target that so few events pass that no threshold can be quoted for it."""


@dataclass(frozen=True)
class RateEstimate:
    """A rate of zero bias and how well it is known.

    Attributes
    ----------
    hz : rate, Hz.
    interval_68, interval_95 : central confidence intervals, Hz.
    events : events behind it, whatever their weight.
    effective_events : equal events with the same relative error.
    method : where the interval comes from.
    """

    hz: float
    interval_68: Interval
    interval_95: Interval
    events: int
    effective_events: float
    method: str

    def to_json(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "hz": self.hz,
            "interval_68_hz": list(self.interval_68),
            "interval_95_hz": list(self.interval_95),
            "events": self.events,
            "effective_events": self.effective_events,
            "method": self.method,
        }


@dataclass(frozen=True)
class Threshold:
    """An integer threshold for a target rate.

    Attributes
    ----------
    name : of the seed or working point.
    kind : which rate the target is one of.
    target_hz : rate that was asked for, Hz.
    threshold : fires at and above this integer (LSB 1/16 of the score).
    rates : rate of each kind at `threshold`.
    next_threshold, next_rate : the integer on the other side, whose rate exceeds the target; None at threshold 0.
    interval_68, interval_95 : lowest and highest integer whose rate has the target in its interval: how far the
        threshold of another sample of the same crossings may lie. None if extrapolated.
    extrapolation : parameters and goodness of the tail fit, None if the threshold lies within the data.
    """

    name: str
    kind: Kind
    target_hz: float
    threshold: int
    rates: Mapping[Kind, RateEstimate]
    next_threshold: int | None
    next_rate: RateEstimate | None
    interval_68: tuple[int, int] | None = None
    interval_95: tuple[int, int] | None = None
    extrapolation: Mapping[str, float] | None = None

    @property
    def rate(self) -> RateEstimate:
        """Rate of the kind that was asked for."""
        return self.rates[self.kind]

    def to_json(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "name": self.name,
            "kind": self.kind,
            "target_hz": self.target_hz,
            "threshold": self.threshold,
            "rates": {kind: rate.to_json() for kind, rate in self.rates.items()},
            "next_threshold": self.next_threshold,
            "next_rate": None if self.next_rate is None else self.next_rate.to_json(),
            "threshold_68": None if self.interval_68 is None else list(self.interval_68),
            "threshold_95": None if self.interval_95 is None else list(self.interval_95),
            "extrapolation": None if self.extrapolation is None else dict(self.extrapolation),
        }


class ZeroBias:
    """Zero bias that has been scored: the histogram, the base rate and the tails of each kind.

    `interval` says how intervals are made (`l1ad.rates.intervals.fraction_interval`). `block_counts_at` may give
    effective counts for (kind, threshold) from lumi sections; it is asked for weighted samples only, and None means
    that it cannot tell.
    """

    def __init__(
        self,
        histogram: ScoreHistogram,
        base: BaseRate,
        *,
        interval: str = "clopper-pearson",
        block_counts_at: Callable[[Kind, int], Counts | None] | None = None,
        where: str = "zero bias",
    ) -> None:
        if histogram.n_events == 0:
            raise InputError(where, "events", "none", "at least one")
        self.histogram, self.base = histogram, base
        self.interval: IntervalMethod = check_interval_method(interval)
        self.tails: dict[Kind, Tails] = {kind: histogram.tails(kind) for kind in histogram.kinds}
        self._block_counts_at = block_counts_at
        self._rates_hz: dict[Kind, FloatArray] = {}
        self._rates: dict[int, dict[Kind, RateEstimate]] = {}
        self.all_w = float(self.tails["total"].sum_w[0])
        self.all_w2 = float(self.tails["total"].sum_w2[0])
        if self.all_w <= 0.0:
            raise InputError(where, "weight", f"0 for all {histogram.n_events} events", "a sum above 0")

    def tails_of(self, kind: str) -> Tails:
        """Tails of one kind.

        Raises
        ------
        InputError
            If that kind needs a menu and there was none.
        """
        name = check_kind(kind)
        return self.tails[name] if name in self.tails else self.histogram.tails(name)

    def rates_hz(self, kind: str) -> FloatArray:
        """Rate at each threshold 0 ... 2^18, Hz, never rising."""
        name = check_kind(kind)
        if name not in self._rates_hz:
            # Beyond the capacity of the histogram nothing passes.
            sums = self.tails_of(name).sum_w[: self.histogram.capacity]
            self._rates_hz[name] = at_all_scores(sums / self.all_w * self.base.hz)
            self._rates_hz[name].setflags(write=False)
        return self._rates_hz[name]

    def effective_counts_at(self, threshold: int, kind: str = "total") -> Counts:
        """Counts of equal events with the relative error of the rate of ``score >= threshold``."""
        tails = self.tails_of(kind)
        if not (tails.weighted or self.histogram.is_weighted):
            return Counts(float(tails.counts[threshold]), float(self.histogram.n_events))
        return effective_counts(float(tails.sum_w[threshold]), float(tails.sum_w2[threshold]), self.all_w, self.all_w2)

    def rate_at(self, threshold: int, kind: str = "total") -> RateEstimate:
        """Rate of ``score >= threshold`` with its intervals, which respect those of the other kinds (`ordered`)."""
        self.tails_of(kind)
        return self.rates_at(threshold)[check_kind(kind)]

    def rates_at(self, threshold: int) -> dict[Kind, RateEstimate]:
        """The rate of each kind at a threshold, with intervals that agree with one another (`ordered`)."""
        # Searches for the ends of an interval ask for the same thresholds again.
        if threshold not in self._rates:
            self._rates[threshold] = self._estimate(threshold)
        return dict(self._rates[threshold])

    def _estimate(self, threshold: int) -> dict[Kind, RateEstimate]:
        everything = self.effective_counts_at(threshold)
        found: dict[Kind, RateEstimate] = {}
        for kind, tails in self.tails.items():
            counts, method = self.effective_counts_at(threshold, kind), INTERVAL_METHODS[self.interval]
            if tails.weighted or self.histogram.is_weighted:
                blocks = self._block_counts_at(kind, threshold) if self._block_counts_at else None
                source = "effective counts" if blocks is None else "effective counts from lumi sections"
                counts = counts if blocks is None else blocks
                method = source if self.interval == "clopper-pearson" else f"{source}, {method}"
            # Pure events are some of all that pass: the next one may be as heavy as those are, and nothing else says so
            # where there is none.
            if not counts.passed and everything.passed:
                counts = Counts(0.0, everything.total)
            unseen = max(1.0 / counts.total, 1.0 / everything.total)
            hz = float(tails.sum_w[threshold]) / self.all_w * self.base.hz
            # Rounding does not put a rate outside of its interval.
            inner, outer = (
                Interval(min(low * self.base.hz, hz), max(high * self.base.hz, hz))
                for low, high in (
                    fraction_interval(counts, level, method=self.interval, unseen=unseen)
                    for level in (LEVEL_68, LEVEL_95)
                )
            )
            found[kind] = RateEstimate(hz, inner, outer, int(tails.counts[threshold]), counts.passed, method)
        return ordered(found)

    def threshold_interval(
        self, threshold: int, target_hz: float, kind: str, *, level_95: bool = False
    ) -> tuple[int, int]:
        """Lowest and highest integer around `threshold` whose rate has `target_hz` in its 68 % (or 95 %) interval."""

        def ends(at: int) -> Interval:
            rate = self.rate_at(at, kind)
            return rate.interval_95 if level_95 else rate.interval_68

        first = _last_that_holds(lambda steps: ends(threshold - steps).low <= target_hz, threshold)
        last = _last_that_holds(lambda steps: ends(threshold + steps).high >= target_hz, N_SCORES - 1 - threshold)
        return threshold - first, threshold + last


def _last_that_holds(holds: Callable[[int], bool], most: int) -> int:
    """The last of 0, 1, ... `most` steps before a statement fails; 0 if it never holds.

    Steps are doubled until it fails, and the place is then halved: what happens far away, where few and heavy events
    make an interval wide again, is not looked at.
    """
    good, step = 0, 1
    while good + step <= most and holds(good + step):
        good += step
        step *= 2
    while step > 1:
        step //= 2
        if good + step <= most and holds(good + step):
            good += step
    return good


def ordered(rates: Mapping[Kind, RateEstimate]) -> dict[Kind, RateEstimate]:
    """The same rates with intervals that keep to pure <= proportional <= total.

    That order is a theorem of the true rates: where all three lie in their intervals, they also lie in what is left of
    those when each upper end is brought down to the upper ends of the larger rates, and each lower end up to the lower
    ends of the smaller ones. So the chance that all intervals hold is what it was. Counts keep the order by themselves;
    weights do not, since few light events look better known than all events.
    """
    names = [kind for kind in _RISING if kind in rates]
    if len(names) < 2:
        return dict(rates)
    inner = _nested([rates[kind].interval_68 for kind in names])
    outer = _nested([rates[kind].interval_95 for kind in names])
    ends = dict(zip(names, zip(inner, outer, strict=True), strict=True))
    return {kind: replace(rate, interval_68=ends[kind][0], interval_95=ends[kind][1]) for kind, rate in rates.items()}


def _nested(ends: Sequence[Interval]) -> list[Interval]:
    """Intervals of rising numbers cut to what that order leaves of them."""
    low = np.maximum.accumulate([one.low for one in ends])
    high = np.minimum.accumulate([one.high for one in reversed(ends)])[::-1]
    return [Interval(*pair) for pair in zip(low.tolist(), high.tolist(), strict=True)]


#: Kinds of rate from the smallest to the largest.
_RISING: tuple[Kind, ...] = ("pure", "proportional", "total")


def find_threshold(
    sample: ZeroBias,
    target_hz: float,
    *,
    name: str = "",
    kind: str = "total",
    extrapolate: bool = False,
    rng: np.random.Generator | None = None,
) -> Threshold:
    """The smallest integer threshold whose rate of `kind` does not exceed `target_hz`.

    Parameters
    ----------
    extrapolate : where fewer than `MIN_EVENTS` events pass, fit the tail in place of refusing.
    rng : for the interval of an extrapolation; a generator with seed 0 without it.

    Raises
    ------
    TooFewEvents
        If fewer than `MIN_EVENTS` events pass and `extrapolate` is false.
    InputError
        If the target cannot be, or the kind of rate needs a menu that is missing.
    """
    sample.base.check_target(target_hz)
    which = check_kind(kind)
    rates = sample.rates_hz(which)
    threshold = int(np.argmax(rates <= target_hz * (1.0 + _ROUNDING)))
    events = int(sample.tails_of(which).counts[threshold])
    label = name or rate_label(target_hz)
    if events < MIN_EVENTS:
        if not extrapolate:
            found = f"{events} events at or above {threshold}" if threshold < N_SCORES else "no threshold low enough"
            expected = f"at least {MIN_EVENTS}, more zero bias or --extrapolate"
            raise TooFewEvents("zero bias", f"{which} rate of {target_hz / 1e3:g} kHz", found, expected)
        return _extrapolated(sample, which, target_hz, label, rng or np.random.default_rng(0))
    below = threshold - 1 if threshold else None
    return Threshold(
        label,
        which,
        target_hz,
        threshold,
        sample.rates_at(threshold),
        below,
        None if below is None else sample.rate_at(below, which),
        interval_68=sample.threshold_interval(threshold, target_hz, which),
        interval_95=sample.threshold_interval(threshold, target_hz, which, level_95=True),
    )


#: Scores that are looked at to guess where the tail begins, in so many runs spread over all of them.
_LOOKED_AT, _RUNS = 1 << 17, 1 << 9
#: Events that the tail should hold for each that the highest rate takes.
_MARGIN = 2.0


def find_thresholds(
    scores: npt.NDArray[np.integer[Any]],
    base: BaseRate,
    targets_hz: Sequence[float],
    *,
    interval: str = "clopper-pearson",
    extrapolate: bool = False,
    threads: int = 1,
) -> list[Threshold]:
    """Thresholds for total rates of unweighted scores: those of `find_threshold`, read once at the speed of memory.

    A low rate asks for the highest scores only. So the tail that can hold all answers is guessed from a part of the
    scores, everything is compared with where it begins, and only the tail is counted. If an answer, the integer below
    it or an end of its interval does not lie in the tail, everything is counted.

    Parameters
    ----------
    scores : integers (N,) in [0, 2^18), no copy is made.
    targets_hz : rates, Hz.
    interval, extrapolate : as in `ZeroBias` and `find_threshold`.
    threads : of this process; the result does not depend on it.

    Raises
    ------
    InputError, TooFewEvents
        As `ScoreHistogram.fill` and `find_threshold`.

    >>> found = find_thresholds(np.arange(1000) // 2, BaseRate(1000.0), [21.0, 42.0])
    >>> [one.threshold for one in found]
    [490, 479]
    """
    for target in targets_hz:
        base.check_target(target)
    histogram, floor = ScoreHistogram(), _tail_floor(scores, max(targets_hz, default=0.0) / base.hz)
    counts = counting.count_from(scores, floor, threads=threads) if floor else None
    if counts is not None:
        histogram.add_counts(counts)
        with contextlib.suppress(TooFewEvents):
            sample = ZeroBias(histogram, base, interval=interval)
            found = [find_threshold(sample, target) for target in targets_hz]
            if all(one.interval_95 is not None and min(one.interval_95[0], one.threshold - 1) > floor for one in found):
                return found
        histogram = ScoreHistogram()
    histogram.fill(scores, where="scores", threads=threads)
    sample = ZeroBias(histogram, base, interval=interval)
    return [find_threshold(sample, target, extrapolate=extrapolate) for target in targets_hz]


def _tail_floor(scores: npt.NDArray[np.integer[Any]], fraction: float) -> int:
    """A score that about `_MARGIN` times this fraction reach, by a look at some of them; 0 if that saves nothing."""
    if len(scores) < 8 * _LOOKED_AT or not np.issubdtype(scores.dtype, np.integer):
        return 0
    length = _LOOKED_AT // _RUNS
    starts = np.linspace(0, len(scores) - length, _RUNS).astype(np.intp)
    seen = np.concatenate([scores[start : start + length] for start in starts])
    rank = _MARGIN * fraction * seen.size
    # Three standard deviations more, so that the tail is seldom too short.
    rank = int(rank + 3.0 * math.sqrt(rank)) + 3
    if rank >= seen.size // 8:
        return 0
    floor = int(np.partition(seen, seen.size - rank)[seen.size - rank])
    return floor if 0 < floor < N_SCORES else 0


def _extrapolated(sample: ZeroBias, kind: Kind, target_hz: float, name: str, rng: np.random.Generator) -> Threshold:
    tails = sample.tails_of(kind)
    fit = fit_tail(tails)
    threshold = fit.smallest_threshold(target_hz / sample.base.hz * sample.all_w / float(tails.sum_w[0]))
    if threshold >= N_SCORES:
        raise TooFewEvents("extrapolation", f"{target_hz / 1e3:g} kHz", "a threshold above the score word", "2^18 - 1")
    rates: dict[Kind, RateEstimate] = {}
    for other, its_tails in sample.tails.items():
        if its_tails.counts[threshold] >= MIN_EVENTS:
            rates[other] = sample.rate_at(threshold, other)
        else:
            rates[other] = _extrapolated_rate(sample, other, threshold, rng)
    return Threshold(
        name,
        kind,
        target_hz,
        threshold,
        _in_order(rates, kind),
        threshold - 1,
        _extrapolated_rate(sample, kind, threshold - 1, rng),
        extrapolation={
            "from_score": fit.start,
            "events": fit.events,
            "shape": fit.shape,
            "scale": fit.scale,
            "goodness_p_value": None if math.isnan(fit.p_value) else fit.p_value,  # type: ignore[dict-item]
        },
    )


def _extrapolated_rate(sample: ZeroBias, kind: Kind, threshold: int, rng: np.random.Generator) -> RateEstimate:
    tails = sample.tails_of(kind)
    share = float(tails.sum_w[0]) / sample.all_w * sample.base.hz
    fit = fit_tail(tails)
    hz = fit.fraction_above(threshold) * share if threshold >= fit.start else sample.rate_at(threshold, kind).hz
    ends = extrapolated_intervals(tails, threshold, (LEVEL_68, LEVEL_95), rng)
    scaled = [Interval(min(low * share, hz), max(high * share, hz)) for low, high in ends]
    events = int(tails.counts[threshold])
    return RateEstimate(hz, scaled[0], scaled[1], events, fit.effective, "generalised Pareto tail")


def _in_order(rates: Mapping[Kind, RateEstimate], asked: Kind) -> dict[Kind, RateEstimate]:
    """Rates of separate fits brought into the order that they have in truth; that of the kind asked for stays."""
    result = dict(rates)
    position = _RISING.index(asked)
    for names, bound in ((_RISING[position:], max), (_RISING[position::-1], min)):
        hz = result[asked].hz
        for kind in (name for name in names if name in result):
            rate = result[kind]
            hz = bound(hz, rate.hz)
            inner, outer = (Interval(min(low, hz), max(high, hz)) for low, high in (rate.interval_68, rate.interval_95))
            result[kind] = replace(rate, hz=hz, interval_68=inner, interval_95=outer)
    return ordered(result)


def rate_label(target_hz: float) -> str:
    """Name of a working point by its rate, such as ``1kHz`` or ``0p25kHz``.

    >>> rate_label(250.0)
    '0p25kHz'
    """
    return f"{target_hz / 1e3:g}kHz".replace(".", "p")


@dataclass(frozen=True, eq=False)
class RateCurve:
    """Rate against threshold at the thresholds where it changes most, for plots.

    Attributes
    ----------
    kind : of the rate.
    threshold : int64 (P,).
    hz, low_hz, high_hz : (P,) rate and its 68 % interval, Hz.
    """

    kind: str
    threshold: IntArray
    hz: FloatArray
    low_hz: FloatArray
    high_hz: FloatArray

    def to_json(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "kind": self.kind,
            "threshold": self.threshold.tolist(),
            "hz": self.hz.tolist(),
            "low_hz": self.low_hz.tolist(),
            "high_hz": self.high_hz.tolist(),
        }


def rate_curve(sample: ZeroBias, kind: str = "total", *, points: int = 200, must: Sequence[int] = ()) -> RateCurve:
    """About `points` thresholds, evenly spread in the logarithm of the rate, and those of `must`."""
    rates = sample.rates_hz(kind)
    last = int(np.argmax(rates <= 0)) if (rates <= 0).any() else N_SCORES
    wanted = np.geomspace(rates[0], rates[max(last - 1, 0)], points) if last else np.array([rates[0]])
    found = np.searchsorted(-rates[: last + 1], -wanted)
    chosen = np.unique(np.concatenate([found, np.array(must, dtype=np.int64)]))
    chosen = chosen[(chosen >= 0) & (chosen < max(last, 1))]
    estimates = [sample.rate_at(int(threshold), kind) for threshold in chosen]
    return RateCurve(
        kind,
        chosen.astype(np.int64),
        np.array([estimate.hz for estimate in estimates]),
        np.array([estimate.interval_68.low for estimate in estimates]),
        np.array([estimate.interval_68.high for estimate in estimates]),
    )
