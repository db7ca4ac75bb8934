"""Confidence intervals of a fraction from counts, weights or lumi sections.

What to use when: `clopper_pearson` for counts; `effective_counts` turns weighted sums into the counts that carry the
same relative error, and `block_counts` does so from the scatter between blocks (lumi sections), after which
`clopper_pearson` applies again. `fraction_interval` is all of them, with the choice of mid-P and with the weight of an
event that was not seen.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import numpy as np

from l1ad.errors import InputError
from l1ad.rates.exact import FloatArray

#: The two levels that every rate is quoted with: one standard deviation of a normal distribution, and 95 %.
LEVEL_68 = math.erf(math.sqrt(0.5))
LEVEL_95 = 0.95


IntervalMethod = Literal["clopper-pearson", "mid-p"]
#: How intervals are made, and what notes and files call them.
INTERVAL_METHODS: dict[IntervalMethod, str] = {"clopper-pearson": "Clopper-Pearson", "mid-p": "mid-P"}


def check_interval_method(method: str) -> IntervalMethod:
    """The method itself.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    for known in get_args(IntervalMethod):
        if method == known:
            return known  # type: ignore[no-any-return]
    raise InputError("interval", "method", method, " or ".join(INTERVAL_METHODS))


class Interval(NamedTuple):
    """Lower and upper end."""

    low: float
    high: float


class Counts(NamedTuple):
    """Passed and all events, or the numbers of equal events that would have the same error."""

    passed: float
    total: float


def clopper_pearson(passed: float, total: float, level: float = LEVEL_68) -> Interval:
    """Central interval of a binomial fraction, Clopper and Pearson, Biometrika 26 (1934) 404.

    With a = (1 - level) / 2: from the a-quantile of Beta(k, n - k + 1) to the (1 - a)-quantile of Beta(k + 1, n - k).
    It covers at least `level` for counts; counts need not be whole, so that effective counts can be given.

    >>> tuple(round(end, 4) for end in clopper_pearson(0, 10, 0.95))
    (0.0, 0.3085)
    """
    from scipy.special import betaincinv

    if total <= 0:
        return Interval(0.0, 1.0)
    tail = 0.5 * (1.0 - level)
    low = float(betaincinv(passed, total - passed + 1.0, tail)) if passed > 0 else 0.0
    high = float(betaincinv(passed + 1.0, total - passed, 1.0 - tail)) if passed < total else 1.0
    return Interval(low, high)


def fraction_interval(
    counts: Counts, level: float = LEVEL_68, *, method: IntervalMethod = "clopper-pearson", unseen: float | None = None
) -> Interval:
    """Central interval of a fraction whose events may have weights.

    Two distributions of the fraction stand beside each other: one for the k events that were seen, Beta(k, n - k + 1),
    and one for those and one more, Beta(k + 1, n - k). Clopper and Pearson take the lower end from the first and the
    upper end from the second, and so cover at least `level`. Mid-P takes both ends from the mean of the two (Lancaster,
    JASA 56 (1961) 223; for weights Fay and Kim, Biom. J. 59 (2017) 267) and covers `level` on average.

    Parameters
    ----------
    counts : as `effective_counts` gives them.
    unseen : share of all weight that the one event more has: that of an effective event, 1 / n, without it, and at
        least that. The upper limit of no event at all is that of this weight times a Poisson variable: where nothing
        passed, only other events can tell how heavy the first would be. As in Fay and Feuer, Stat. Med. 16 (1997) 791,
        the upper distribution has the mean k/n + u and the variance k/n^2 + u^2 of the seen and the unseen event.

    Examples
    --------
    >>> tuple(round(end, 4) for end in fraction_interval(Counts(0, 10), 0.95))
    (0.0, 0.3085)
    >>> tuple(round(end, 4) for end in fraction_interval(Counts(0, 10), 0.95, unseen=0.2))
    (0.0, 0.5218)
    """
    passed, total = counts
    if total <= 0:
        return Interval(0.0, 1.0)
    seen, more = (passed, total - passed + 1.0), (passed + 1.0, total - passed)
    if unseen is not None and unseen * total > 1.0:
        mean, variance = passed / total + unseen, passed / total**2 + unseen**2
        shape = mean**2 / variance
        more = (shape, mean / variance - shape + 1.0)
    tail = 0.5 * (1.0 - level)
    if method == "clopper-pearson":
        return Interval(_quantile(tail, seen), _quantile(1.0 - tail, more))
    return Interval(_mean_quantile(tail, seen, more), _mean_quantile(1.0 - tail, seen, more))


def _quantile(chance: float, shapes: tuple[float, float]) -> float:
    """Quantile of a Beta distribution; a shape of 0 is all at that end."""
    from scipy.special import betaincinv

    a, b = shapes
    if a <= 0.0 or b <= 0.0:
        return 0.0 if a <= 0.0 else 1.0
    return float(betaincinv(a, b, chance))


def _mean_quantile(chance: float, seen: tuple[float, float], more: tuple[float, float]) -> float:
    """Quantile of the mean of two Beta distributions, of which `more` lies above `seen`."""
    from scipy.optimize import brentq
    from scipy.special import betainc

    def below(x: float) -> float:
        parts = [1.0 if a <= 0.0 else 0.0 if b <= 0.0 else float(betainc(a, b, x)) for a, b in (seen, more)]
        return 0.5 * sum(parts) - chance

    # The quantile of the mean lies between those of the two.
    low, high = sorted((_quantile(chance, seen), _quantile(chance, more)))
    if below(low) >= 0.0:
        return low
    if below(high) <= 0.0:
        return high
    return float(brentq(below, low, high, xtol=1e-300, rtol=1e-12))


def effective_counts(tail_w: float, tail_w2: float, all_w: float, all_w2: float) -> Counts:
    """Counts whose binomial error is that of the weighted fraction p = tail_w / all_w.

    The ratio of two weighted sums has, to first order, var(p) = [(1 - 2p) tail_w2 + p^2 all_w2] / all_w^2, and a
    binomial fraction p (1 - p) / n; so n = p (1 - p) / var(p) and k = n p. Equal weights give back the plain counts.
    Nothing in the tail gives k = 0 and Kish's effective number n = all_w^2 / all_w2.
    """
    fraction = tail_w / all_w
    variance = ((1.0 - 2.0 * fraction) * tail_w2 + fraction**2 * all_w2) / all_w**2
    if tail_w <= 0.0 or fraction >= 1.0 or variance <= 0.0:
        total = all_w**2 / all_w2
        return Counts(total * fraction, total)
    total = fraction * (1.0 - fraction) / variance
    return Counts(total * fraction, total)


def block_counts(tail_w: FloatArray, all_w: FloatArray) -> Counts:
    """Counts whose binomial error is that of p = sum(tail_w) / sum(all_w) over independent blocks (B,).

    The bootstrap over blocks has, as the number of draws grows, the variance B/(B-1) sum_b (T_b - p W_b)^2 / (sum W)^2
    of a ratio (Cochran, Sampling Techniques, section 6); taken in closed form it needs no random numbers.
    """
    total_w = float(all_w.sum())
    fraction = float(tail_w.sum()) / total_w
    blocks = len(all_w)
    variance = blocks / (blocks - 1.0) * float(np.square(tail_w - fraction * all_w).sum()) / total_w**2
    total = fraction * (1.0 - fraction) / variance
    return Counts(total * fraction, total)
