"""The tail of the score beyond the data: a generalised Pareto distribution.

Above a high enough threshold u, the excess of any distribution of a wide class tends to
P(X - u > y) = (1 + xi y / sigma)^(-1/xi) (Pickands, Ann. Statist. 3 (1975) 119). Scores are integers, so that the
likelihood uses P(X = u + k) = S(k) - S(k + 1) and not a density.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from l1ad.errors import InputError
from l1ad.rates.exact import FloatArray
from l1ad.rates.histogram import N_SCORES, Tails
from l1ad.rates.intervals import Interval, effective_counts

#: Events that the fit of a tail starts with, and the least it works with.
FIT_EVENTS = 500
MIN_FIT_EVENTS = 30
#: Maximum likelihood is regular, and its errors mean what they say, for shapes above this (Smith, Biometrika 72, 67).
MIN_SHAPE = -0.5
_DRAWS = 4000


@dataclass(frozen=True, eq=False)
class TailFit:
    """A fitted tail.

    Attributes
    ----------
    start : score u from which the fit describes the tail.
    events : events at or above it.
    effective : the number of equal events with the same relative error.
    fraction : their share of all weight.
    shape, scale : xi and sigma (in score units).
    covariance : of (ln sigma, xi), (2, 2).
    p_value : chi-square probability of the fit, NaN if too few bins to tell.
    """

    start: int
    events: int
    effective: float
    fraction: float
    shape: float
    scale: float
    covariance: FloatArray
    p_value: float

    def fraction_above(self, threshold: float) -> float:
        """Share of all weight at or above an integer threshold not below `start`."""
        excess = np.array([float(threshold - self.start)])
        return self.fraction * float(_survival(excess, math.log(self.scale), self.shape)[0])

    def smallest_threshold(self, fraction: float) -> int:
        """Smallest integer threshold at or above which the share does not exceed `fraction` (2^18 if none does)."""
        low, high = self.start, N_SCORES
        while low < high:
            middle = (low + high) // 2
            if self.fraction_above(middle) <= fraction:
                high = middle
            else:
                low = middle + 1
        return low

    def draws(self, threshold: int, rng: np.random.Generator) -> FloatArray:
        """Shares at or above `threshold` for parameters and tail counts drawn within their errors, sorted."""
        parameters = rng.multivariate_normal([math.log(self.scale), self.shape], self.covariance, size=_DRAWS)
        survival = _survival(np.full(_DRAWS, float(threshold - self.start)), parameters[:, 0], parameters[:, 1])
        counts = rng.gamma(self.effective + 0.5, size=_DRAWS) / self.effective
        return np.sort(self.fraction * counts * survival)


def fit_tail(tails: Tails, *, events: int = FIT_EVENTS) -> TailFit:
    """Fit the `events` highest scores.

    Raises
    ------
    InputError
        If there are too few of them, or too few different scores, to fit two parameters.
    """
    from scipy.optimize import minimize

    enough = np.flatnonzero(tails.counts >= events)
    start = int(enough[-1]) if len(enough) else 0
    number = int(tails.counts[start])
    weight = -np.diff(tails.sum_w[start:])
    filled = np.flatnonzero(weight)
    if number < MIN_FIT_EVENTS or len(filled) < 3:
        found = f"{number} events with {len(filled)} different scores"
        raise InputError("extrapolation", "tail", found, f"at least {MIN_FIT_EVENTS} events and 3 scores")
    tail_w = float(tails.sum_w[start])
    all_w, all_w2 = float(tails.sum_w[0]), float(tails.sum_w2[0])
    effective = effective_counts(tail_w, float(tails.sum_w2[start]), all_w, all_w2).passed
    excess = filled.astype(np.float64)
    share = weight[filled] / tail_w

    def loss(parameters: FloatArray) -> float:
        if parameters[1] <= MIN_SHAPE:
            return 1e10
        probability = _survival(excess, *parameters) - _survival(excess + 1.0, *parameters)
        if not (probability > 0).all():
            return 1e10
        return -float(share @ np.log(probability))

    mean = float(share @ excess) + 0.5
    best = min(
        (minimize(loss, [math.log(mean), shape], method="Nelder-Mead", options=_TIGHT) for shape in (0.05, 0.5, -0.1)),
        key=lambda result: float(result.fun),
    )
    parameters = np.asarray(best.x)
    information = _hessian(loss, parameters) * effective
    values, vectors = np.linalg.eigh(information)
    covariance = (vectors / np.maximum(values, 1e-3)) @ vectors.T
    p_value = _chi_square(parameters, excess, share, effective)
    return TailFit(
        start, number, effective, tail_w / all_w, float(parameters[1]), math.exp(parameters[0]), covariance, p_value
    )


def extrapolated_intervals(
    tails: Tails, threshold: int, levels: tuple[float, ...], rng: np.random.Generator
) -> tuple[Interval, ...]:
    """Central intervals of the share at or above `threshold`.

    The draws of three fits, with 1, 1/2 and 2 times `FIT_EVENTS` events, are thrown together: where the tail starts is
    a choice, and the interval is wide enough to say so.
    """
    drawn = []
    for events in (FIT_EVENTS, FIT_EVENTS // 2, FIT_EVENTS * 2):
        fit = fit_tail(tails, events=min(events, int(tails.counts[0])))
        if fit.start <= threshold:
            drawn.append(fit.draws(threshold, rng))
    values = np.concatenate(drawn)
    return tuple(Interval(*(float(q) for q in np.quantile(values, [(1 - x) / 2, (1 + x) / 2]))) for x in levels)


_TIGHT = {"xatol": 1e-7, "fatol": 1e-12, "maxiter": 4000}


def _survival(excess: FloatArray, log_scale: float | FloatArray, shape: float | FloatArray) -> FloatArray:
    """S(excess) of the distribution; parameters may be arrays of the shape of `excess`."""
    scaled = excess / np.exp(log_scale)
    # A shape of 0 is the exponential; next to it the power would lose all its digits.
    bounded = np.where(np.abs(shape) < 1e-9, 1.0, shape)
    base = 1.0 + bounded * scaled
    power = np.where(base > 0, np.maximum(base, 1e-300) ** (-1.0 / bounded), 0.0)
    return np.asarray(np.where(np.abs(shape) < 1e-9, np.exp(-scaled), power))


def _hessian(function: object, point: FloatArray, step: float = 1e-3) -> FloatArray:
    assert callable(function)
    result = np.zeros((2, 2))
    steps = np.eye(2) * step
    for i in range(2):
        for j in range(2):
            a, b = steps[i], steps[j]
            outer = function(point + a + b) - function(point + a - b) - function(point - a + b)
            result[i, j] = (outer + function(point - a - b)) / (4 * step * step)
    return 0.5 * (result + result.T)


def _chi_square(parameters: FloatArray, excess: FloatArray, share: FloatArray, effective: float) -> float:
    """Probability of the chi-square between data and fit in bins of at least 8 effective events."""
    from scipy.stats import chi2

    bins = max(4, min(20, int(effective // 8)))
    quantiles = np.linspace(0, 1, bins + 1)[1:-1]
    cumulative = np.cumsum(share)
    edges = np.unique(excess[np.minimum(np.searchsorted(cumulative, quantiles), len(excess) - 1)] + 1)
    observed = np.array([part.sum() for part in np.split(share, np.searchsorted(excess, edges))]) * effective
    survival = np.concatenate(([1.0], _survival(edges, *parameters), [0.0]))
    expected = -np.diff(survival) * effective
    if len(expected) < 4 or not (expected > 0).all():
        return math.nan
    return float(chi2.sf(float(((observed - expected) ** 2 / expected).sum()), len(expected) - 3))
