"""Confidence intervals of a fraction from counts, weights or lumi sections.

What to use when: `clopper_pearson` for counts; `effective_counts` turns weighted sums into the counts that carry the
same relative error, and `block_counts` does so from the scatter between blocks (lumi sections), after which
`clopper_pearson` applies again.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from l1ad.rates.exact import FloatArray

#: The two levels that every rate is quoted with: one standard deviation of a normal distribution, and 95 %.
LEVEL_68 = math.erf(math.sqrt(0.5))
LEVEL_95 = 0.95


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

    >>> [round(end, 4) for end in clopper_pearson(0, 10, 0.95)]
    [0.0, 0.3085]
    """
    from scipy.special import betaincinv

    if total <= 0:
        return Interval(0.0, 1.0)
    tail = 0.5 * (1.0 - level)
    low = float(betaincinv(passed, total - passed + 1.0, tail)) if passed > 0 else 0.0
    high = float(betaincinv(passed + 1.0, total - passed, 1.0 - tail)) if passed < total else 1.0
    return Interval(low, high)


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
