"""What a threshold keeps: efficiencies, gain over the menu, ROC curves, overlap with the seeds.

Everything follows from two histograms of scores, of a signal and of zero bias, at every integer threshold: nothing is
binned beyond the integers themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from l1ad.errors import InputError
from l1ad.rates.exact import FloatArray
from l1ad.rates.histogram import ScoreHistogram, Tails
from l1ad.rates.intervals import LEVEL_68, LEVEL_95, Interval, clopper_pearson, effective_counts
from l1ad.rates.thresholds import ZeroBias


@dataclass(frozen=True)
class Efficiency:
    """A share of events and its intervals.

    Attributes
    ----------
    value : between 0 and 1.
    interval_68, interval_95 : central intervals.
    events : events behind it, whatever their weight.
    """

    value: float
    interval_68: Interval
    interval_95: Interval
    events: int

    def to_json(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "value": self.value,
            "interval_68": list(self.interval_68),
            "interval_95": list(self.interval_95),
            "events": self.events,
        }


class Signal:
    """A signal that has been scored: its histogram and tails.

    Raises
    ------
    InputError
        If there are no events, or none of weight above 0.
    """

    def __init__(self, name: str, histogram: ScoreHistogram) -> None:
        self.name, self.histogram = name, histogram
        if not histogram.n_events:
            raise InputError(f"signal {name}", "events", "none", "at least one")
        self.tails: dict[str, Tails] = {kind: histogram.tails(kind) for kind in histogram.kinds}
        self.all_w = float(self.tails["total"].sum_w[0])
        self.all_w2 = float(self.tails["total"].sum_w2[0])
        if self.all_w <= 0:
            raise InputError(f"signal {name}", "weight", f"0 for all {histogram.n_events} events", "a sum above 0")

    def efficiency(self, threshold: int, kind: str = "total") -> Efficiency:
        """Share of the signal at or above `threshold`; for ``pure`` of it and rejected by the menu."""
        tails = self.tails_of(kind)
        tail_w, tail_w2 = float(tails.sum_w[threshold]), float(tails.sum_w2[threshold])
        events = int(tails.counts[threshold])
        if tails.weighted or self.histogram.is_weighted:
            passed, total = effective_counts(tail_w, tail_w2, self.all_w, self.all_w2)
        else:
            passed, total = float(events), float(self.histogram.n_events)
        inner, outer = (clopper_pearson(passed, total, level) for level in (LEVEL_68, LEVEL_95))
        return Efficiency(tail_w / self.all_w, inner, outer, events)

    def tails_of(self, kind: str) -> Tails:
        """Tails of one kind.

        Raises
        ------
        InputError
            If that kind needs a menu and there was none.
        """
        return self.tails[kind] if kind in self.tails else self.histogram.tails(kind)

    @property
    def menu_efficiency(self) -> float:
        """Share of the signal that the menu accepts."""
        return 1.0 - float(self.tails_of("pure").sum_w[0]) / self.all_w

    def gain(self, threshold: int) -> tuple[float, Interval] | None:
        """(menu OR anomaly) / menu - 1 and its 68 % interval; None if the menu accepts nothing.

        With f the share of pure events among those that menu or anomaly accept, the gain is f / (1 - f): a rising
        function of a binomial fraction, whose interval it therefore carries over.
        """
        pure = self.tails_of("pure")
        menu_w = self.all_w - float(pure.sum_w[0])
        pure_w = float(pure.sum_w[threshold])
        if menu_w <= 0:
            return None
        either = menu_w + pure_w
        # All events of menu or anomaly: their squared weights are those of everything but the pure events below.
        either_w2 = self.all_w2 - float(pure.sum_w2[0]) + float(pure.sum_w2[threshold])
        counts = effective_counts(pure_w, float(pure.sum_w2[threshold]), either, max(either_w2, 1e-300))
        low, high = clopper_pearson(*counts, LEVEL_68)
        top = high / (1.0 - high) if high < 1.0 else float("inf")
        return pure_w / menu_w, Interval(low / (1.0 - low), top)


def roc_curve(signal: Signal, background: ZeroBias) -> tuple[FloatArray, FloatArray]:
    """Shares of background and signal at or above each threshold 0 ... 2^18, weights included."""
    fpr = background.tails["total"].sum_w / background.all_w
    return fpr, signal.tails["total"].sum_w / signal.all_w


def area_under_curve(signal: Signal, background: ZeroBias) -> float:
    """Chance that a signal event scores higher than a background event, equal scores counted half.

    The trapezoids under the ROC curve with a corner at each integer (Hanley and McNeil, Radiology 143 (1982) 29).
    """
    fpr, tpr = roc_curve(signal, background)
    return float(-np.sum(np.diff(fpr) * 0.5 * (tpr[1:] + tpr[:-1])))


def efficiency_at_fpr(signal: Signal, background: ZeroBias, fpr: float) -> tuple[int, float]:
    """The smallest threshold that at most `fpr` of the background passes, and the share of the signal that does."""
    rates, tpr = roc_curve(signal, background)
    threshold = int(np.argmax(rates <= fpr))
    return threshold, float(tpr[threshold])


@dataclass(frozen=True)
class Summary:
    """A figure over several signals.

    Attributes
    ----------
    mean, median : over signals, each counted once.
    cvar25 : mean of the worst quarter of the signals.
    """

    mean: float
    median: float
    cvar25: float


def conditional_value_at_risk(values: Sequence[float], share: float = 0.25) -> float:
    """Mean of the lowest `share` of `values`, the last of them counted in part where `share` times n is not whole.

    >>> conditional_value_at_risk([4.0, 1.0, 2.0, 3.0, 5.0, 6.0])  # 1 and half of 2
    1.3333333333333333

    Raises
    ------
    InputError
        If there are no values or the share is not in (0, 1].
    """
    if not len(values) or not 0.0 < share <= 1.0:
        raise InputError("CVaR", "values", f"{len(values)} values, share {share}", "at least one, share in (0, 1]")
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    amount = share * len(ordered)
    part = np.clip(amount - np.arange(len(ordered)), 0.0, 1.0)
    return float((ordered * part).sum() / amount)


def summarise(values: Sequence[float]) -> Summary:
    """Mean, median and CVaR25 of one figure over signals."""
    return Summary(float(np.mean(values)), float(np.median(values)), conditional_value_at_risk(values))
