"""A peak on dijet backgrounds in one or several categories, with systematic uncertainties: a `Model` for CLs limits.

The yield of category c in a bin is ``B(p_c) + (mu f_c k^theta + theta_c u_c) (s + shifts)``: a dijet function whose
parameters float freely, a signal of strength mu (events in all categories) of which a share f_c goes here, whose
position and width move with Gaussian parameters (templates interpolated as in HistFactory, code 4p, and not below 0),
whose yield moves with log-normal ones (the luminosity), and a spurious signal: what the fit would find in a spectrum
that follows another function. Categories share the strength and all parameters except those of the background and the
spurious signal.

`spurious_signal` measures u_c.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.search.errors import FitError
from l1ad.search.stats import dijet
from l1ad.search.stats.limits import FitPoint, additive_shift

FloatArray = npt.NDArray[np.float64]
_FLOOR = 1e-10


@dataclass(frozen=True)
class PeakModel:
    """See the module. Data are the counts of all categories, then the Gaussian auxiliary values (0).

    Attributes
    ----------
    edges : of each category's bins, in GeV.
    shapes : probability of the peak in each bin.
    orders : shape parameters of each background.
    shifts : for each category, parameter -> probabilities at -1 and +1 standard deviation.
    normalisation : parameter -> relative uncertainty of the yield.
    spurious : events of the spurious signal in each category, 0 for none.
    shares : fraction of the signal in each category, 1 in all if empty.
    """

    edges: tuple[FloatArray, ...]
    shapes: tuple[FloatArray, ...]
    orders: tuple[int, ...]
    shifts: tuple[Mapping[str, tuple[FloatArray, FloatArray]], ...]
    normalisation: Mapping[str, float] = field(default_factory=dict)
    spurious: tuple[float, ...] = ()
    shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.edges)
        for name in ("shapes", "orders", "shifts"):
            if len(getattr(self, name)) != n or not n:
                raise InputError("peak model", name, len(getattr(self, name)), f"{n}, one a category, at least one")
        for name in ("spurious", "shares"):
            values = getattr(self, name)
            if values and (len(values) != n or not all(np.isfinite(v) and v >= 0 for v in values)):
                raise InputError("peak model", name, values, f"{n} numbers, not negative")
        for e, s in zip(self.edges, self.shapes):
            if s.shape != (e.size - 1,) or not s.sum() >= 0.01:
                raise InputError(
                    "peak model", "signal shape", f"{s.shape}, sum {s.sum():.2g}", "1 % of the peak inside"
                )
        twice = set(self.normalisation) & {k for shift in self.shifts for k in shift}
        if twice:
            raise InputError("peak model", "parameters", f"{sorted(twice)} twice", "one name a parameter")
        if self.shares and not any(self.shares):
            raise InputError("peak model", "shares", self.shares, "signal in some category")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the constrained parameters."""
        moving = sorted({k for shift in self.shifts for k in shift})
        own = [f"spurious_{c}" for c, u in enumerate(self.spurious) if u > 0]
        return (*moving, *sorted(self.normalisation), *own)

    @cached_property
    def _ends(self) -> tuple[int, ...]:
        return tuple(np.cumsum([e.size - 1 for e in self.edges]).tolist())

    def data(self, *counts: npt.ArrayLike) -> FloatArray:
        """The data vector of observed counts, one array a category."""
        parts = [np.asarray(c, np.float64) for c in counts]
        if [p.shape for p in parts] != [s.shape for s in self.shapes]:
            raise InputError("peak model", "data", [p.shape for p in parts], f"{[s.shape for s in self.shapes]}")
        return np.concatenate([*parts, np.zeros(len(self.names))])

    def expected(self, strength: float, nuisance: FloatArray) -> FloatArray:
        """Asimov data; the nuisance values are the constrained ones, then (ln p0, p1 ...) of each category."""
        theta, rest = nuisance[: len(self.names)], nuisance[len(self.names) :]
        parts = []
        for c, e in enumerate(self.edges):
            own, rest = rest[: self.orders[c] + 1], rest[self.orders[c] + 1 :]
            signal, _, _ = self._signal(c, strength, theta)
            parts.append(np.maximum(dijet.integrate(own, e) + signal, 0.0))
        return np.concatenate([*parts, theta])

    def sample(self, strength: float, nuisance: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Poisson counts and Gaussian auxiliary values."""
        mean, n = self.expected(strength, nuisance), self._ends[-1]
        return np.concatenate([rng.poisson(mean[:n]), rng.normal(mean[n:])]).astype(np.float64)

    def strength_scale(self, data: FloatArray) -> float:
        """Standard deviation of the strength for known backgrounds, or one event if that is more."""
        nuisance = self.fit(data, 0.0).nuisance
        nominal = np.concatenate([np.zeros(len(self.names)), nuisance[len(self.names) :]])
        mean = np.maximum(self.expected(0.0, nominal)[: self._ends[-1]], 1e-3)
        unit = np.concatenate([self._share(c) * s for c, s in enumerate(self.shapes)])
        return float(max(1.0 / np.sqrt(np.sum(unit**2 / mean)), 1.0))

    def fit(self, data: FloatArray, strength: float | None = None) -> FitPoint:
        """Best fit with a strength >= 0, or with the strength held: MIGRAD with exact gradients from several starts.

        Raises
        ------
        FitError
            If no start converges.
        """
        from iminuit import Minuit

        if data.shape != (self._ends[-1] + len(self.names),):
            expected = f"({self._ends[-1] + len(self.names)},), as data() makes it"
            raise InputError("peak model", "data", data.shape, expected)
        n = np.split(data[: self._ends[-1]], self._ends[:-1])
        aux = data[self._ends[-1] :]
        free = strength is None
        k = len(self.names)
        spaces, starts = [], []
        for c, e in enumerate(self.edges):
            # Asimov data need no whole counts, but some bins must be filled for the coordinates.
            plain = dijet.fit_background(n[c], e, self.orders[c])
            space = dijet.Space.build(n[c], e, self.orders[c], plain.sqrt_s)
            spaces.append(space)
            starts.append(space.to_local(plain.parameters))
        guarded = [(v > 0) | dijet.peaked(s) for v, s in zip(n, self.shapes)]
        unit = max(1.0, float(np.sqrt(sum(np.sum(v) for v in n))) / 10.0)
        held = 0.0 if strength is None else strength

        def both(p: FloatArray) -> tuple[float, FloatArray]:
            mu, rest = (p[0] * unit, p[1:]) if free else (held, p)
            theta, q = rest[:k], rest[k:]
            total = float(0.5 * np.sum((theta - aux) ** 2))
            slope = np.zeros(p.size)
            shift = 1 if free else 0
            slope[shift : shift + k] = theta - aux
            at = 0
            for c, space in enumerate(spaces):
                size = self.orders[c] + 1
                background, jacobian = space.expected_and_jacobian(q[at : at + size])
                signal, by_mu, by_theta = self._signal(c, mu, theta)
                rate = background + signal
                low = guarded[c] & (rate < _FLOOR)
                safe = np.where(low, _FLOOR, rate)
                total += float(np.sum(safe - n[c])) + _n_log(n[c], safe) + 1e3 * float(np.sum((_FLOOR - rate)[low]))
                weight = np.where(low, -1e3, 1.0 - n[c] / safe)
                slope[shift + k + at : shift + k + at + size] = weight @ jacobian
                slope[shift : shift + k] += by_theta @ weight
                if free:
                    slope[0] += unit * float(by_mu @ weight)
                at += size
            return total, slope

        nuisance = np.concatenate([aux, *starts])
        excess = max(sum(float(np.sum(a)) - float(np.sum(s.expected(q))) for a, s, q in zip(n, spaces, starts)), 0.0)
        # The coordinates are orthonormal on the spectrum: all have the error of the total.
        errors = [float(1.0 / np.sqrt(max(v.sum(), 1.0))) for v, s in zip(n, starts) for _ in s]
        reason = ""
        first = [np.concatenate([[v], nuisance]) for v in (excess / unit, 1.0, 10.0)] if free else [nuisance] * 2
        for attempt, point in enumerate(first):
            minuit = Minuit(lambda p: both(p)[0], point, grad=lambda p: both(p)[1])
            minuit.errordef = Minuit.LIKELIHOOD
            minuit.strategy = attempt
            minuit.tol = 1e-3
            head: list[tuple[float | None, float | None]] = [(0.0, None)] if free else []
            minuit.limits = [*head, *[(-6.0, 6.0)] * k, *[(None, None)] * (nuisance.size - k)]
            minuit.errors = [*([1.0] if free else []), *[1.0] * k, *errors]
            minuit.migrad(ncall=5000)
            if minuit.valid:
                values = np.array(minuit.values)
                rest = values[1:] if free else values
                mu = float(values[0] * unit) if free else held
                return FitPoint(mu, self._published(rest, spaces), 2.0 * float(minuit.fval))
            reason = f"distance to the minimum {minuit.fmin.edm:.2g} after {minuit.nfcn} calls"
        raise FitError(f"peak with systematic uncertainties: fit did not converge from {len(first)} starts, {reason}")

    def _published(self, rest: FloatArray, spaces: list[dijet.Space]) -> FloatArray:
        k = len(self.names)
        parts, at = [rest[:k]], k
        for c, space in enumerate(spaces):
            size = self.orders[c] + 1
            parts.append(space.transform @ rest[at : at + size])
            at += size
        return np.concatenate(parts)

    def _share(self, c: int) -> float:
        return self.shares[c] if self.shares else 1.0

    def _signal(self, c: int, strength: float, theta: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Signal in each bin of a category, its derivative by the strength, and by the constrained parameters."""
        value = dict(zip(self.names, theta))
        shape = self.shapes[c].copy()
        slopes: dict[str, FloatArray] = {}
        for name, (down, up) in self.shifts[c].items():
            change, derivative = additive_shift(float(value[name]), self.shapes[c], down, up)
            shape = shape + change
            slopes[name] = derivative
        # Beyond +-1 the templates are extrapolated: in the tails of a peak, to below nothing.
        inside = shape > 0.0
        shape = np.where(inside, shape, 0.0)
        factor = self._share(c)
        for name, relative in self.normalisation.items():
            factor *= (1.0 + relative) ** float(value[name])
        # What is feigned moves with the peak: left behind, a negative spurious signal would make expectations negative.
        own = f"spurious_{c}"
        feigned = self.spurious[c] if own in value else 0.0
        events = strength * factor + float(value.get(own, 0.0)) * feigned
        by_mu = factor * shape
        by_theta = np.zeros((len(self.names), shape.size))
        for i, name in enumerate(self.names):
            if name in slopes:
                by_theta[i] = events * np.where(inside, slopes[name], 0.0)
            elif name in self.normalisation:
                by_theta[i] = strength * by_mu * np.log1p(self.normalisation[name])
            elif name == own:
                by_theta[i] = feigned * shape
        return events * shape, by_mu, by_theta


def spurious_signal(
    counts: npt.ArrayLike,
    edges: npt.ArrayLike,
    shape: npt.ArrayLike,
    order: int,
    other: int,
    *,
    signal: npt.ArrayLike | None = None,
) -> float:
    """Signal events that a fit of `order` finds in the smooth spectrum that a fit of order `other` makes of the data.

    Positive or negative; the size is an uncertainty of the signal yield from the choice of the function. The other
    function is fitted together with a peak, that of the shape or of the `signal` that the data may hold elsewhere: a
    signal in the data is none of the function's doing.
    """
    smooth = dijet.fit_peak(counts, edges, shape if signal is None else signal, other).background
    return dijet.fit_peak(np.maximum(smooth, 0.0), edges, shape, order).signal


def _n_log(n: FloatArray, rate: FloatArray) -> float:
    from scipy.special import xlogy

    return float(np.sum(xlogy(n, n / rate)))
