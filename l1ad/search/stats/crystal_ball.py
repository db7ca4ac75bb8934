"""The double-sided Crystal Ball: a Gaussian core with a power law on each side, the shape of a dijet resonance.

`CrystalBall` holds one shape (density, exact cumulative, bin probabilities), `fit` gets it from simulated masses, and
`Interpolation` gives it at the masses between the simulated ones.

With ``t = (m - mean)/sigma`` the density is proportional to ``exp(-t^2/2)`` for ``-a_low <= t <= a_high`` and, on the
low side, to ``exp(-a^2/2) (1 + a (-t - a)/n)^-n`` (on the high side with t), continuous with its first derivative
(J. Gaiser, SLAC-R-255; here on both sides).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.io import read_json, write_json
from l1ad.search.errors import FitError

FloatArray = npt.NDArray[np.float64]

FORMAT = "l1ad-peak-shapes"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class CrystalBall:
    """One peak, normalised to 1 over all masses.

    Attributes
    ----------
    mean, sigma : of the core, in GeV.
    alpha_low, n_low : where the low power law starts, in sigma below the mean, and its power (above 1).
    alpha_high, n_high : the same above the mean.
    """

    mean: float
    sigma: float
    alpha_low: float
    n_low: float
    alpha_high: float
    n_high: float

    def __post_init__(self) -> None:
        for name in ("sigma", "alpha_low", "alpha_high"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise InputError("Crystal Ball", name, value, "a positive number")
        for name in ("n_low", "n_high"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 1):
                raise InputError("Crystal Ball", name, value, "more than 1, or the tail has no finite integral")
        if not np.isfinite(self.mean):
            raise InputError("Crystal Ball", "mean", self.mean, "a finite mass in GeV")

    def _areas(self) -> tuple[float, float, float]:
        """Integrals over t of the low tail, the core and the high tail, before normalisation."""
        from scipy.special import ndtr

        # The integral of (1 + a u/n)^-n over u > 0 is n/(a (n - 1)).
        low = np.exp(-0.5 * self.alpha_low**2) * self.n_low / (self.alpha_low * (self.n_low - 1.0))
        high = np.exp(-0.5 * self.alpha_high**2) * self.n_high / (self.alpha_high * (self.n_high - 1.0))
        core = np.sqrt(2.0 * np.pi) * (ndtr(self.alpha_high) - ndtr(-self.alpha_low))
        return float(low), float(core), float(high)

    def density(self, mass: npt.ArrayLike) -> FloatArray:
        """Probability per GeV at `mass`.

        >>> peak = CrystalBall(3000.0, 90.0, 30.0, 5.0, 30.0, 5.0)
        >>> round(float(peak.density(3000.0)) * 90.0 * (2 * np.pi) ** 0.5, 9)
        1.0
        """
        t = (np.asarray(mass, np.float64) - self.mean) / self.sigma
        below, above = np.maximum(-t - self.alpha_low, 0.0), np.maximum(t - self.alpha_high, 0.0)
        core = np.exp(-0.5 * np.clip(t, -self.alpha_low, self.alpha_high) ** 2)
        tails = (1.0 + self.alpha_low * below / self.n_low) ** -self.n_low
        tails = tails * (1.0 + self.alpha_high * above / self.n_high) ** -self.n_high
        return np.asarray(core * tails / (self.sigma * sum(self._areas())))

    def cumulative(self, mass: npt.ArrayLike) -> FloatArray:
        """Probability below `mass`, in closed form."""
        from scipy.special import ndtr

        t = (np.asarray(mass, np.float64) - self.mean) / self.sigma
        low, core, high = self._areas()
        below, above = np.maximum(-t - self.alpha_low, 0.0), np.maximum(t - self.alpha_high, 0.0)
        from_low = low * (1.0 + self.alpha_low * below / self.n_low) ** (1.0 - self.n_low)
        inside = np.clip(t, -self.alpha_low, self.alpha_high)
        from_core = np.sqrt(2.0 * np.pi) * (ndtr(inside) - ndtr(-self.alpha_low))
        from_high = high * (1.0 - (1.0 + self.alpha_high * above / self.n_high) ** (1.0 - self.n_high))
        return np.asarray((from_low + from_core + from_high) / (low + core + high))

    def probabilities(self, edges: npt.ArrayLike) -> FloatArray:
        """Probability of each bin, shape (n_bins,); their sum is what lies in the range, not 1."""
        return np.asarray(np.diff(self.cumulative(edges)))

    def shifted(self, *, scale: float = 0.0, resolution: float = 0.0) -> CrystalBall:
        """The peak after relative changes of scale and resolution (0.01 and 0.035 are the published ones)."""
        return replace(self, mean=self.mean * (1.0 + scale), sigma=self.sigma * (1.0 + scale) * (1.0 + resolution))


@dataclass(frozen=True)
class PeakShapeFit:
    """Result of `fit`.

    Attributes
    ----------
    peak : the fitted shape.
    errors : standard errors in the order of the peak's fields; nan for a parameter at a limit of the fit.
    chi2, ndof : of the histogram that was fitted, bins with at least 5 effective events.
    """

    peak: CrystalBall
    errors: tuple[float, ...]
    chi2: float
    ndof: int


#: Limits of the fit: (alpha, n). Beyond n of 100 a power law is an exponential and the likelihood is flat.
_ALPHA_RANGE = (0.2, 5.0)
_N_RANGE = (1.05, 100.0)


def fit(masses: npt.ArrayLike, *, weights: npt.ArrayLike | None = None, bins: int = 120) -> PeakShapeFit:
    """Fit simulated masses of one signal, in GeV.

    A binned likelihood with exact bin integrals: `bins` in the range of the central 99 % of the events, and one bin for
    all that is below and one for all that is above, so that the tails hold what the sample has there. Weighted events
    count with their effective number.

    Raises
    ------
    InputError
        Fewer than 100 events, equal masses, values that are not finite, weights that do not sum to more than 0.
    FitError
        If no starting point converges. Masses without such a peak have a fit too: its chi2 tells.
    """
    from iminuit import Minuit
    from scipy.special import xlogy

    m = np.asarray(masses, np.float64)
    w = np.ones(m.shape) if weights is None else np.asarray(weights, np.float64)
    if m.ndim != 1 or m.size < 100:
        raise InputError("Crystal Ball fit", "masses", m.size, "at least 100 in one dimension")
    if w.shape != m.shape or not (np.all(np.isfinite(m)) and np.all(np.isfinite(w))) or w.sum() <= 0:
        raise InputError("Crystal Ball fit", "masses and weights", "not finite or of unequal length", "finite values")
    low, high = np.quantile(m, [0.005, 0.995])
    if not high > low:
        raise InputError("Crystal Ball fit", "masses", "all equal", "a distribution")
    edges = np.linspace(low, high, bins + 1)
    edges = np.concatenate([[-np.inf], edges, [np.inf]])
    sums = np.histogram(m, edges, weights=w)[0]
    squares = np.histogram(m, edges, weights=w**2)[0]
    if np.any(sums < 0):
        raise InputError("Crystal Ball fit", "weights", "a bin with a negative sum", "bins >= 0")
    effective = sums * sums.sum() / squares.sum()
    total = float(effective.sum())

    def half_deviance(*p: float) -> float:
        mu = total * np.maximum(CrystalBall(*p).probabilities(edges), 1e-300)
        return float(np.sum(mu - effective + xlogy(effective, effective / mu)))

    quarter, centre, three = np.quantile(m, [0.25, 0.5, 0.75])
    spread = float(three - quarter) / 1.349
    reason = ""
    for alpha, n in ((1.5, 5.0), (1.0, 3.0), (2.0, 10.0), (0.7, 20.0)):
        minuit = Minuit(
            half_deviance, float(centre), spread, alpha, n, alpha, n, name=[f.name for f in fields(CrystalBall)]
        )
        minuit.errordef = Minuit.LIKELIHOOD
        minuit.limits = [(low, high), (spread / 20, spread * 5), _ALPHA_RANGE, _N_RANGE, _ALPHA_RANGE, _N_RANGE]
        minuit.strategy = 1
        minuit.migrad(ncall=20_000)
        if minuit.valid:
            break
        reason = f"distance to the minimum {minuit.fmin.edm:.2g} after {minuit.nfcn} calls"
    else:
        raise FitError(f"Crystal Ball fit did not converge: 4 starting points, {reason}")
    peak = CrystalBall(*(float(v) for v in minuit.values))
    at_limit = [min(v - a, b - v) < 1e-3 * (b - a) for v, (a, b) in zip(minuit.values, minuit.limits)]
    mu = total * peak.probabilities(edges)
    used = mu >= 5.0
    chi2 = float(np.sum((effective[used] - mu[used]) ** 2 / mu[used]))
    errors = tuple(float("nan") if at else float(v) for v, at in zip(minuit.errors, at_limit))
    return PeakShapeFit(peak, errors, chi2, int(used.sum()) - 7)


@dataclass(frozen=True)
class Interpolation:
    """Peaks at simulated masses, and between them; a single one is scaled with the mass.

    Attributes
    ----------
    masses : nominal masses in GeV, increasing.
    peaks : the shape at each.
    efficiency : fraction of the signal that is selected at each mass; 1 if not given.
    """

    masses: tuple[float, ...]
    peaks: tuple[CrystalBall, ...]
    efficiency: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.masses) != len(self.peaks) or not self.masses:
            raise InputError("signal interpolation", "peaks", len(self.peaks), f"{len(self.masses)}, one a mass")
        if any(a >= b for a, b in zip(self.masses, self.masses[1:])):
            raise InputError("signal interpolation", "masses", list(self.masses), "increasing masses")
        if self.efficiency and len(self.efficiency) != len(self.masses):
            raise InputError("signal interpolation", "efficiency", len(self.efficiency), f"{len(self.masses)}")

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Interpolation:
        """Read what `write` wrote.

        Raises
        ------
        InputError
            If the file cannot be read or is something else.
        """
        name = os.fspath(path)
        content = read_json(name)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            found = content.get("format") if isinstance(content, dict) else type(content).__name__
            raise InputError(name, "format", found, FORMAT)
        if content.get("format_version") != FORMAT_VERSION:
            raise InputError(name, "format_version", content.get("format_version"), FORMAT_VERSION)
        try:
            rows = [{k: float(v) for k, v in row.items()} for row in content["shapes"]]
            masses = tuple(row.pop("mass") for row in rows)
            return cls(masses, tuple(CrystalBall(**row) for row in rows))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            names = ", ".join(f.name for f in fields(CrystalBall))
            raise InputError(name, "shapes", f"{type(error).__name__}: {error}", f"mass, {names} of each") from error

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write masses and peaks as JSON; efficiencies are not kept."""
        shapes = [{"mass": m, **asdict(p)} for m, p in zip(self.masses, self.peaks)]
        write_json(path, {"format": FORMAT, "format_version": FORMAT_VERSION, "shapes": shapes})

    def at(self, mass: float) -> CrystalBall:
        """The peak at `mass`: mean/mass, sigma/mass and the tails follow a monotone cubic (PCHIP) in the mass.

        Raises
        ------
        InputError
            Outside of the simulated masses if there are several: the shape is not extrapolated.
        """
        self._check(mass)
        names = [f.name for f in fields(CrystalBall)]
        table = np.array([[getattr(p, name) for name in names] for p in self.peaks])
        table[:, :2] /= np.asarray(self.masses)[:, None]
        values = _interpolate(self.masses, table, mass)
        values[:2] *= mass
        return CrystalBall(*(float(v) for v in values))

    def efficiency_at(self, mass: float) -> float:
        """Selected fraction of the signal at `mass`."""
        self._check(mass)
        if not self.efficiency:
            return 1.0
        return float(_interpolate(self.masses, np.asarray(self.efficiency)[:, None], mass)[0])

    def grid(self, step: float = 100.0) -> tuple[float, ...]:
        """Masses every `step` GeV within the simulated range (the published search uses 100 GeV)."""
        first, last = self.masses[0], self.masses[-1]
        return tuple(float(v) for v in first + step * np.arange(int(np.floor((last - first) / step + 1e-9)) + 1))

    def _check(self, mass: float) -> None:
        if len(self.masses) > 1 and not self.masses[0] <= mass <= self.masses[-1]:
            expected = f"{self.masses[0]:g} to {self.masses[-1]:g} GeV"
            raise InputError("signal interpolation", "mass", f"{mass:g} GeV", expected)


def _interpolate(x: Sequence[float], y: FloatArray, at: float) -> FloatArray:
    from scipy.interpolate import PchipInterpolator

    if len(x) == 1:
        return np.array(y[0], np.float64)
    return np.array(PchipInterpolator(np.asarray(x), y, axis=0)(at), np.float64)
