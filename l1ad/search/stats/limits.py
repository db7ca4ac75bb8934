"""CLs upper limits on a signal strength, from asymptotic formulas or from toys.

`counting_limit` for one bin without uncertainties (exact); `HistogramModel` for templates with uncertainties, as
HistFactory has them; `DijetModel` for a peak on a fitted falling spectrum; `asymptotic_limit`, `toy_cls` and
`toy_limit` work on the last two.

The test statistic is q-tilde (arXiv:1007.1727, equation 16), the criterion ``CLs = p(s+b)/(1 - p(b)) < 1 - level``
(A. Read, J. Phys. G 28 (2002) 2693). The signal is strength times a fixed template: where the yield is not proportional
to the strength, as after a training on the data, these limits are on the yield (see `injection`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.search.errors import FitError
from l1ad.search.stats import dijet
from l1ad.search.stats.significance import check_histogram, p_from_z, poisson_tail

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FitPoint:
    """A maximum of a likelihood.

    Attributes
    ----------
    strength : signal strength, fitted or held.
    nuisance : the other parameters, in the model's own order.
    nll2 : -2 ln L up to a constant that depends on the data only.
    """

    strength: float
    nuisance: FloatArray
    nll2: float


class Model(Protocol):
    """What a limit needs to know of a likelihood; `data` is the model's own vector, auxiliary measurements included."""

    def fit(self, data: FloatArray, strength: float | None = None) -> FitPoint:
        """Best fit with a strength >= 0, or with the strength held; FitError if it does not converge."""
        ...

    def expected(self, strength: float, nuisance: FloatArray) -> FloatArray:
        """The Asimov data of these parameters."""
        ...

    def sample(self, strength: float, nuisance: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Fluctuated data of these parameters."""
        ...

    def strength_scale(self, data: FloatArray) -> float:
        """A strength of the order of its uncertainty, to start a search for the limit from."""
        ...


@dataclass(frozen=True)
class Limit:
    """Upper limits on the strength.

    Attributes
    ----------
    observed : with the given data.
    expected : for background-only data at -2, -1, 0, +1, +2 standard deviations; index 2 is the median.
    level : confidence level, 0.95 for example.
    """

    observed: float
    expected: tuple[float, float, float, float, float]
    level: float


@dataclass(frozen=True)
class ToyCls:
    """CLs of one strength from toys.

    Attributes
    ----------
    cls, error : the ratio and its binomial standard error.
    clsb, clb : probability of a statistic at least as large as the data's, with signal and without.
    failed : toys whose fit did not converge; they are left out of the fractions and counted here.
    """

    cls: float
    error: float
    clsb: float
    clb: float
    failed: int


def counting_limit(observed: int, background: float, *, signal: float = 1.0, level: float = 0.95) -> float:
    """Exact CLs limit on the strength of `signal` expected events, one bin, no uncertainties.

    Solves ``P(N <= n | mu s + b) = (1 - level) P(N <= n | b)``. Without observed events the background cancels:

    >>> round(counting_limit(0, 7.3), 6)
    2.995732

    Raises
    ------
    InputError
        Counts that are negative or not whole, a background or a signal that is not finite, a level outside (0.5, 1).
    """
    from scipy.optimize import brentq

    _check_level(level)
    good = np.isfinite(observed) and 0 <= observed < 1e9 and observed == int(observed)
    if not (good and 0 <= background < np.inf and 0 < signal < np.inf):
        expected = "n, b >= 0 and s > 0, finite, n whole"
        raise InputError("counting limit", "n, b, s", f"{observed:g}, {background:g}, {signal:g}", expected)
    target = np.log(1.0 - level) + _log_below(int(observed), background)

    def excess(total: float) -> float:
        return float(_log_below(int(observed), total) - target)

    top = background + observed + 10.0
    while excess(top) > 0.0:
        top *= 2.0
    found = brentq(excess, background, top, xtol=1e-12)
    return float((found - background) / signal)


def _log_below(n: int, mean: float) -> float:
    """ln P(N <= n | mean), where the probability itself underflows too."""
    from scipy.special import gammaln, logsumexp

    plain = float(poisson_tail(n + 1.0, mean, upper=False))
    if plain > 1e-200:
        return float(np.log(plain))
    # So far below the mean each term is a fraction of the one above it.
    k = np.arange(max(0, n - 20_000), n + 1.0)
    return float(logsumexp(k * np.log(mean) - mean - gammaln(k + 1.0)))


def asymptotic_cls(model: Model, data: npt.ArrayLike, strength: float) -> tuple[float, FloatArray]:
    """Observed CLs, and expected CLs at -2 ... +2 standard deviations, of one strength > 0 (arXiv:1007.1727, 59-66)."""
    if not strength > 0:
        raise InputError("CLs", "strength", strength, "a positive number")
    return _Asymptotic(model, np.asarray(data, np.float64)).cls(strength)


def asymptotic_limit(model: Model, data: npt.ArrayLike, *, level: float = 0.95) -> Limit:
    """Observed and expected CLs limits with the asymptotic distributions of q-tilde.

    Raises
    ------
    FitError
        If a fit does not converge, or CLs never falls to ``1 - level``.
    """
    _check_level(level)
    problem = _Asymptotic(model, np.asarray(data, np.float64))
    alpha = 1.0 - level
    known: dict[float, tuple[float, FloatArray]] = {}

    def curve(which: int) -> Callable[[float], float]:
        def value(strength: float) -> float:
            if strength not in known:
                known[strength] = problem.cls(strength)
            observed, expected = known[strength]
            return float(np.log(max(observed if which < 0 else expected[which], 1e-300) / alpha))

        return value

    scale = model.strength_scale(problem.data)
    found = [_crossing(curve(which), scale) for which in (0, 1, 2, 3, 4, -1)]
    return Limit(found[5], (found[0], found[1], found[2], found[3], found[4]), level)


def toy_cls(
    model: Model, data: npt.ArrayLike, strength: float, rng: np.random.Generator, *, n_toys: int = 1000
) -> ToyCls:
    """CLs of one strength from `n_toys` toys with signal and as many without.

    The nuisance parameters of either hypothesis are those fitted to the data; auxiliary measurements fluctuate with
    each toy.

    Raises
    ------
    InputError
        If the strength or the number of toys is not positive.
    FitError
        If a fit to the data or more than 5 % of those to the toys do not converge.
    """
    if not strength > 0 or n_toys < 1:
        raise InputError("toys", "strength, toys", f"{strength:g}, {n_toys}", "both positive")
    d = np.asarray(data, np.float64)
    observed = _q_tilde(model, d, strength)
    counted = []
    failed = 0
    for hypothesis in (strength, 0.0):
        point = model.fit(d, hypothesis)
        above = total = 0
        for _ in range(n_toys):
            try:
                q = _q_tilde(model, model.sample(hypothesis, point.nuisance, rng), strength)
            except (FitError, InputError):  # the latter: a toy with too few filled bins for its parameters
                failed += 1
                continue
            total += 1
            # Equal counts give equal statistics up to the minimiser's precision.
            above += q >= observed - 1e-6
        counted.append((above, total))
    if failed > 0.1 * n_toys:
        raise FitError(f"toys: {failed} of {2 * n_toys} fits did not converge")
    (a, n), (b, m) = counted
    clsb, clb = a / n, b / m
    if b == 0:
        raise FitError(f"toys: none of {m} background toys reaches the data's statistic; more toys are needed")
    cls = clsb / clb
    relative = np.sqrt((1.0 - clsb) / max(a, 1) + (1.0 - clb) / b)
    return ToyCls(cls, float(max(cls, 1.0 / n) * relative), clsb, clb, failed)


def toy_limit(
    model: Model,
    data: npt.ArrayLike,
    rng: np.random.Generator,
    *,
    n_toys: int = 1000,
    level: float = 0.95,
    points: int = 7,
) -> tuple[float, float]:
    """Observed CLs limit from toys and its statistical error.

    ln CLs at `points` strengths around the asymptotic limit is fitted with a parabola; the limit is where it crosses.
    The fit scores the toys' fractions against those that the parabola predicts, errors included: the errors of the
    fractions themselves would favour those that came out high.

    Raises
    ------
    FitError
        If the fitted curve does not cross ``ln(1 - level)`` within the scanned strengths.
    """
    _check_level(level)
    d = np.asarray(data, np.float64)
    centre = asymptotic_limit(model, d, level=level).observed
    strengths = centre * np.linspace(0.6, 1.6, points)
    results = [toy_cls(model, d, float(s), rng, n_toys=n_toys) for s in strengths]
    usable = np.array([r.cls > 0 for r in results])
    if np.count_nonzero(usable) < 3:
        raise FitError("toy limit: CLs vanishes at most of the strengths; more toys are needed")
    x = strengths[usable] / centre
    y = np.log([r.cls for r, u in zip(results, usable) if u]) - np.log(1.0 - level)
    sigma = np.array([r.error / r.cls for r, u in zip(results, usable) if u])
    coefficients = np.polyfit(x, y, 2, w=1.0 / np.maximum(sigma, 1e-6))
    x, clsb, clb = strengths / centre, np.array([r.clsb for r in results]), np.array([r.clb for r in results])
    below = float(clb.mean())
    for _ in range(5):
        ratio = (1.0 - level) * np.exp(np.polyval(coefficients, x))
        p = np.clip(ratio * below, 1e-6, 1.0 - 1e-6)
        sigma = np.sqrt((1.0 - p) / (p * n_toys) + (1.0 - below) / (below * n_toys))
        y = np.log(p / below / (1.0 - level)) + (clsb - p) / p - (clb - below) / below
        coefficients, covariance = np.polyfit(x, y, 2, w=1.0 / sigma, cov="unscaled")
    roots = np.roots(coefficients)
    real = roots[np.isreal(roots)].real
    inside = real[(real >= x[0]) & (real <= x[-1]) & (np.polyval(np.polyder(coefficients), real) < 0)]
    if inside.size == 0:
        raise FitError("toy limit: the fitted CLs does not cross the level within 0.6 to 1.6 of the asymptotic limit")
    root = float(inside[0])
    gradient = np.array([root**2, root, 1.0])
    slope = float(np.polyval(np.polyder(coefficients), root))
    return root * centre, float(np.sqrt(gradient @ covariance @ gradient) / abs(slope) * centre)


@dataclass(frozen=True)
class Sample:
    """One contribution to a histogram.

    Attributes
    ----------
    name : its name; contributions of one name must be unique in a model.
    yields : expected events in each bin.
    signal : true if the strength multiplies it.
    normalisation : name of the nuisance parameter -> factors on the yields at -1 and +1 standard deviation.
    shape : name of the nuisance parameter -> yields at -1 and +1 standard deviation.
    uncorrelated : standard deviation of each bin's yield in events, one free factor a bin with a Poisson constraint;
        None for none. Bins with 0 have none.
    """

    name: str
    yields: FloatArray
    signal: bool = False
    normalisation: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    shape: Mapping[str, tuple[FloatArray, FloatArray]] = field(default_factory=dict)
    uncorrelated: FloatArray | None = None


@dataclass(frozen=True)
class HistogramModel:
    """Templates with uncertainties: the part of HistFactory that a bump hunt needs.

    Parameters are the strength, one Gaussian-constrained parameter for each name in `normalisation` or `shape`
    (interpolated with codes 4 and 4p of CERN-OPEN-2012-016 as pyhf does by default), and one Poisson-constrained factor
    for each uncorrelated bin. Data are the bin counts, then the Gaussian auxiliary values (0), then the Poisson ones.
    """

    samples: tuple[Sample, ...]

    def __post_init__(self) -> None:
        if not any(s.signal for s in self.samples):
            raise InputError("histogram model", "samples", "none that is a signal", "at least one")
        names = [s.name for s in self.samples]
        if len(set(names)) != len(names):
            raise InputError("histogram model", "samples", names, "names that differ")
        shape = np.shape(self.samples[0].yields)
        for s in self.samples:
            where = f"histogram model: {s.name}"
            arrays = [s.yields, *(a for pair in s.shape.values() for a in pair)]
            arrays += [s.uncorrelated] if s.uncorrelated is not None else []
            for a in arrays:
                if np.shape(a) != shape or len(shape) != 1:
                    raise InputError(where, "bins", np.shape(a), f"{shape}, one dimension")
                if not np.all(np.isfinite(a)) or np.any(np.asarray(a) < 0):
                    raise InputError(where, "yields", "negative or not finite", "finite values >= 0")
            for key, (low, high) in s.normalisation.items():
                if not (low > 0 and high > 0):
                    raise InputError(where, key, (low, high), "positive factors")
        if not np.any([np.any(np.asarray(s.yields) > 0) for s in self.samples if s.signal]):
            raise InputError("histogram model", "signal", "no expected event", "a positive yield")

    @property
    def n_bins(self) -> int:
        """Number of bins."""
        return len(self.samples[0].yields)

    @cached_property
    def gaussian_names(self) -> tuple[str, ...]:
        """Names of the Gaussian-constrained parameters, sorted."""
        return tuple(sorted({k for s in self.samples for k in (*s.normalisation, *s.shape)}))

    @cached_property
    def _gammas(self) -> tuple[tuple[int, int, float], ...]:
        """For each Poisson-constrained factor: sample, bin, and the auxiliary count (yield/sigma)^2."""
        out = []
        for i, s in enumerate(self.samples):
            if s.uncorrelated is None:
                continue
            for j, (value, sigma) in enumerate(zip(s.yields, s.uncorrelated)):
                if value > 0 and sigma > 0:
                    out.append((i, j, float((value / sigma) ** 2)))
        return tuple(out)

    def data(self, counts: npt.ArrayLike) -> FloatArray:
        """The model's data vector for observed `counts`, auxiliary measurements at their nominal values."""
        n = np.asarray(counts, np.float64)
        if n.any():
            check_histogram("histogram model: data", n)
        if n.shape != (self.n_bins,):
            raise InputError("histogram model", "data", n.shape, f"({self.n_bins},)")
        return np.concatenate([n, np.zeros(len(self.gaussian_names)), [tau for _, _, tau in self._gammas]])

    def expected(self, strength: float, nuisance: FloatArray) -> FloatArray:
        """Asimov data."""
        a = len(self.gaussian_names)
        tau = np.array([t for _, _, t in self._gammas])
        return np.concatenate([self._rates(strength, nuisance)[0], nuisance[:a], nuisance[a:] * tau])

    def sample(self, strength: float, nuisance: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Poisson counts, Gaussian and Poisson auxiliary measurements."""
        mean = self.expected(strength, nuisance)
        a = self.n_bins + len(self.gaussian_names)
        parts = rng.poisson(mean[: self.n_bins]), rng.normal(mean[self.n_bins : a]), rng.poisson(mean[a:])
        return np.concatenate(parts).astype(np.float64)

    def strength_scale(self, data: FloatArray) -> float:
        """Strength that makes one standard deviation of the background, bins combined."""
        nominal = np.concatenate([np.zeros(len(self.gaussian_names)), np.ones(len(self._gammas))])
        background, _ = self._rates(0.0, nominal)
        signal = self._rates(1.0, nominal)[0] - background
        variance = np.maximum(np.maximum(background, data[: self.n_bins]), 1.0)
        return float(1.0 / np.sqrt(np.sum(signal**2 / variance)))

    def fit(self, data: FloatArray, strength: float | None = None) -> FitPoint:
        """MIGRAD with exact gradients, retried from other starting points."""
        from iminuit import Minuit
        from scipy.special import xlogy

        bins, a = self.n_bins, len(self.gaussian_names)
        if data.shape != (bins + a + len(self._gammas),):
            found, expected = data.shape, f"({bins + a + len(self._gammas)},), as data() makes it"
            raise InputError("histogram model", "data", found, expected)
        n, centre, counts = data[:bins], data[bins : bins + a], data[bins + a :]
        tau = np.array([t for _, _, t in self._gammas])
        unit = self.strength_scale(data)

        def unpack(p: FloatArray) -> tuple[float, FloatArray]:
            return (p[0] * unit, p[1:]) if strength is None else (strength, p)

        def nll2(p: FloatArray) -> float:
            mu, nuisance = unpack(p)
            rate = np.maximum(self._rates(mu, nuisance)[0], _TINY)
            aux = np.maximum(nuisance[a:] * tau, _TINY)
            total = np.sum(rate - n + xlogy(n, n / rate)) + np.sum(aux - counts + xlogy(counts, counts / aux))
            return float(2.0 * total + np.sum((nuisance[:a] - centre) ** 2))

        def gradient(p: FloatArray) -> FloatArray:
            mu, nuisance = unpack(p)
            rate, jacobian = self._rates(mu, nuisance)
            slope = 2.0 * (1.0 - n / np.maximum(rate, _TINY)) @ jacobian
            slope[1 : 1 + a] += 2.0 * (nuisance[:a] - centre)
            slope[1 + a :] += 2.0 * (tau - counts / np.maximum(nuisance[a:], _TINY))
            slope[0] *= unit
            return np.asarray(slope if strength is None else slope[1:])

        nominal = np.concatenate([np.zeros(a), np.ones(len(tau))])
        if strength is not None and not nominal.size:
            return FitPoint(strength, nominal, nll2(nominal))
        first = max((n.sum() - self._rates(0.0, nominal)[0].sum()) / self._signal_sum, 0.0) / unit
        reason = ""
        for start in (first, 1.0, 0.0, 10.0):
            point = nominal if strength is not None else np.concatenate([[start], nominal])
            minuit = Minuit(nll2, point, grad=gradient)
            minuit.errordef = Minuit.LEAST_SQUARES
            minuit.strategy = 1
            minuit.tol = 1e-3
            head = [] if strength is not None else [(0.0, None)]
            minuit.limits = [*head, *[(-8.0, 8.0)] * a, *[(1e-10, 10.0)] * len(tau)]
            errors = [] if strength is not None else [1.0]
            minuit.errors = [*errors, *[1.0] * a, *(1.0 / np.sqrt(tau))]
            minuit.migrad(ncall=10_000)
            if minuit.valid:
                mu, nuisance = unpack(np.array(minuit.values))
                return FitPoint(float(mu), np.asarray(nuisance), float(minuit.fval))
            reason = f"distance to the minimum {minuit.fmin.edm:.2g} after {minuit.nfcn} calls"
        raise FitError(f"histogram model: fit did not converge from 4 starting points, {reason}")

    @cached_property
    def _signal_sum(self) -> float:
        return float(sum(np.sum(s.yields) for s in self.samples if s.signal))

    def _rates(self, strength: float, nuisance: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Events in each bin, and their derivatives by (strength, nuisance), shape (bins, 1 + nuisance)."""
        names = {name: i for i, name in enumerate(self.gaussian_names)}
        a = len(names)
        factors: list[dict[int, tuple[int, float]]] = [{} for _ in self.samples]
        for k, (i, j, _) in enumerate(self._gammas):
            factors[i][j] = (a + k, float(nuisance[a + k]))
        total = np.zeros(self.n_bins)
        jacobian = np.zeros((self.n_bins, 1 + nuisance.size))
        for s, own in zip(self.samples, factors):
            base = np.array(s.yields, np.float64)
            slopes: list[tuple[int, FloatArray]] = []
            for key, (low, high) in s.shape.items():
                change, derivative = additive_shift(float(nuisance[names[key]]), np.asarray(s.yields), low, high)
                base = base + change
                slopes.append((names[key], derivative))
            norm = 1.0
            logs: list[tuple[int, float]] = []
            for key, (low_f, high_f) in s.normalisation.items():
                value, derivative_f = _multiplicative(float(nuisance[names[key]]), low_f, high_f)
                norm *= value
                logs.append((names[key], derivative_f / value))
            gamma = np.ones(self.n_bins)
            for j, (_, value) in own.items():
                gamma[j] = value
            scale = strength if s.signal else 1.0
            rate = base * norm * gamma
            total += scale * rate
            if s.signal:
                jacobian[:, 0] += rate
            for i, d in slopes:
                jacobian[:, 1 + i] += scale * d * norm * gamma
            for i, d_log in logs:
                jacobian[:, 1 + i] += scale * rate * d_log
            for j, (i, _) in own.items():
                jacobian[j, 1 + i] += scale * base[j] * norm
        return total, jacobian

    def histfactory(self, counts: npt.ArrayLike, *, name: str = "selection") -> dict[str, Any]:
        """The model and its data as a HistFactory workspace (version 1.0.0) that pyhf reads."""
        samples = []
        for s in self.samples:
            modifiers: list[dict[str, Any]] = (
                [{"name": "strength", "type": "normfactor", "data": None}] if s.signal else []
            )
            for key, (low, high) in s.normalisation.items():
                modifiers.append({"name": key, "type": "normsys", "data": {"lo": float(low), "hi": float(high)}})
            for key, (low_a, high_a) in s.shape.items():
                data = {"lo_data": [float(v) for v in low_a], "hi_data": [float(v) for v in high_a]}
                modifiers.append({"name": key, "type": "histosys", "data": data})
            if s.uncorrelated is not None:
                values = [float(v) for v in s.uncorrelated]
                modifiers.append({"name": f"uncorrelated_{s.name}", "type": "shapesys", "data": values})
            samples.append({"name": s.name, "data": [float(v) for v in s.yields], "modifiers": modifiers})
        return {
            "version": "1.0.0",
            "channels": [{"name": name, "samples": samples}],
            "observations": [{"name": name, "data": [float(v) for v in np.asarray(counts)]}],
            "measurements": [{"name": "limit", "config": {"poi": "strength", "parameters": []}}],
        }


@dataclass(frozen=True)
class DijetModel:
    """A peak of `shape` (bin probabilities) on a dijet background of `order` shape parameters, which float freely.

    The strength is in events that the peak has, in the range of the fit or not. Data are the bin counts.
    """

    edges: FloatArray
    shape: FloatArray
    order: int = 3
    sqrt_s: float = dijet.SQRT_S

    def fit(self, data: FloatArray, strength: float | None = None) -> FitPoint:
        """Best fit of the background with the strength free (>= 0) or held; the nuisance values are (ln p0, p1 ...)."""
        if strength is None:
            free = dijet.fit_peak(data, self.edges, self.shape, self.order, sqrt_s=self.sqrt_s)
            if free.signal > 0:
                # Held at its best value, so that the parameters come from the same minimum.
                held = dijet.fit_held(data, self.edges, self.shape * free.signal, self.order, sqrt_s=self.sqrt_s)
                return FitPoint(free.signal, held[0], held[1])
            strength = 0.0
        parameters, deviance = dijet.fit_held(data, self.edges, self.shape * strength, self.order, sqrt_s=self.sqrt_s)
        return FitPoint(strength, parameters, deviance)

    def expected(self, strength: float, nuisance: FloatArray) -> FloatArray:
        """Events in each bin."""
        return dijet.integrate(nuisance, self.edges, sqrt_s=self.sqrt_s) + strength * self.shape

    def sample(self, strength: float, nuisance: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Poisson counts."""
        return np.asarray(rng.poisson(self.expected(strength, nuisance)), np.float64)

    def strength_scale(self, data: FloatArray) -> float:
        """Standard deviation of the yield for a known background, or one event if that is more."""
        background = np.maximum(self.expected(0.0, self.fit(data, 0.0).nuisance), 1e-3)
        return float(max(1.0 / np.sqrt(np.sum(self.shape**2 / background)), 1.0))


_TINY = 1e-12


def _check_level(level: float) -> None:
    if not 0.5 < level < 1.0:
        raise InputError("limit", "level", level, "between 0.5 and 1")


def _q_tilde(model: Model, data: FloatArray, strength: float, free: FitPoint | None = None) -> float:
    best = free or model.fit(data)
    if best.strength > strength:
        return 0.0
    return max(model.fit(data, strength).nll2 - best.nll2, 0.0)


class _Asymptotic:
    """The fits that do not depend on the tested strength, done once."""

    def __init__(self, model: Model, data: FloatArray) -> None:
        if data.ndim != 1 or not np.all(np.isfinite(data)):
            raise InputError("limit", "data", f"shape {data.shape}", "finite values in one dimension")
        self.model, self.data = model, data
        self.free = model.fit(data)
        self.asimov = model.expected(0.0, model.fit(data, 0.0).nuisance)
        self.asimov_free = model.fit(self.asimov)

    def cls(self, strength: float) -> tuple[float, FloatArray]:
        from scipy.special import log_ndtr, ndtr

        root = np.sqrt(_q_tilde(self.model, self.data, strength, self.free))
        root_a = np.sqrt(_q_tilde(self.model, self.asimov, strength, self.asimov_free))
        if root <= root_a or root_a == 0.0:
            z = root, root - root_a
        else:
            # Beyond the Asimov value the best strength would be negative and q-tilde has the other branch.
            z = (root**2 + root_a**2) / (2.0 * root_a), (root**2 - root_a**2) / (2.0 * root_a)
        # As logarithms: a deficit so deep that both vanish still has a ratio.
        clsb, clb = (log_ndtr(-v) for v in z)
        band = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
        expected = p_from_z(root_a - band) / ndtr(band)
        return float(np.exp(clsb - clb)), np.asarray(expected)


def _crossing(value: Callable[[float], float], scale: float) -> float:
    """Where a falling function of the strength crosses 0."""
    from scipy.optimize import brentq

    low, high = 0.1 * scale, 2.0 * scale
    for _ in range(60):
        if value(high) < 0:
            break
        low, high = high, 2.0 * high
    else:
        raise FitError("limit: CLs stays above the level up to an enormous strength")
    for _ in range(60):
        if value(low) > 0:
            break
        high, low = low, low / 2.0
    else:
        raise FitError("limit: CLs stays below the level down to a vanishing strength")
    return float(brentq(value, low, high, xtol=1e-6 * scale, rtol=1e-6))


def _multiplicative(alpha: float, low: float, high: float) -> tuple[float, float]:
    """Interpolation code 4 of HistFactory and its derivative: exponential outside of +-1, a sextic inside."""
    if alpha >= 1.0:
        value = high**alpha
        return value, value * float(np.log(high))
    if alpha <= -1.0:
        value = low ** (-alpha)
        return value, -value * float(np.log(low))
    log_low, log_high = np.log(low), np.log(high)
    # Value, first and second derivative agree with the exponentials at +1 and -1.
    target = np.array([high - 1.0, low - 1.0, high * log_high, -low * log_low, high * log_high**2, low * log_low**2])
    coefficients = _SEXTIC @ target
    powers = alpha ** np.arange(7)
    k = np.arange(1, 7)
    return float(1.0 + coefficients @ powers[1:]), float(coefficients @ (k * powers[:6]))


def _sextic() -> FloatArray:
    """Coefficients of a ... a^6 from value, slope and curvature at +1 and -1."""
    k = np.arange(1, 7)
    sign = (-1.0) ** k
    rows = [np.ones(6), sign, k, -k * sign, k * (k - 1), k * (k - 1) * sign]
    return np.asarray(np.linalg.inv(np.array(rows, np.float64)))


_SEXTIC = _sextic()


def additive_shift(
    alpha: float, nominal: FloatArray, low: npt.ArrayLike, high: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Interpolation code 4p of HistFactory: linear outside of +-1, a sextic inside; the change and its derivative."""
    up, down = np.asarray(high) - nominal, nominal - np.asarray(low)
    if alpha > 1.0:
        return np.asarray(alpha * up), np.asarray(up)
    if alpha < -1.0:
        return np.asarray(alpha * down), np.asarray(down)
    mean, bend = (up + down) / 2.0, (up - down) / 16.0
    a2 = alpha * alpha
    change = alpha * mean + bend * a2 * (15.0 + a2 * (3.0 * a2 - 10.0))
    derivative = mean + bend * alpha * (30.0 + a2 * (18.0 * a2 - 40.0))
    return np.asarray(change), np.asarray(derivative)


def upper_limits(
    models: Sequence[Model], data: Sequence[npt.ArrayLike], *, level: float = 0.95
) -> list[Limit | FitError]:
    """`asymptotic_limit` of several hypotheses; one that fails is reported in its place, the others go on."""
    out: list[Limit | FitError] = []
    for model, values in zip(models, data, strict=True):
        try:
            out.append(asymptotic_limit(model, values, level=level))
        except FitError as error:
            out.append(error)
    return out
