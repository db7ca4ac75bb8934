"""The smooth dijet spectrum: binned likelihood fits with 2, 3 or 4 shape parameters, and a peak on top.

`fit_background` for one order, `choose_order` for the F-test over the orders, `fit_peak` for signal plus background
(the local p-value of a mass hypothesis), `scan_masses` for many.

The density is ``dN/dm = p0 (1-x)^p1 / x^(p2 + p3 ln x + p4 ln^2 x)`` with ``x = m / sqrt(s)`` (CMS-EXO-22-026,
arXiv:2412.03747; an order k uses p1 ... pk). A bin's expectation is the integral of the density over the bin, by
Gauss-Legendre quadrature, not its value at the centre.

The logarithm of the density is linear in ``ln p0, p1 ... pk``. The fit runs in coordinates that are orthonormal on the
spectrum, because p1 ... pk are correlated above 99 % and no minimiser likes that, and is turned back exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.search.errors import FitError
from l1ad.search.stats.significance import check_histogram, p_from_z

FloatArray = npt.NDArray[np.float64]

#: Bin edges in GeV on which the published search computes chi2 (arXiv:2412.03747).
PUBLISHED_EDGES: tuple[float, ...] = (
    1460, 1530, 1607, 1687, 1770, 1856, 1945, 2037, 2132, 2231, 2332, 2438, 2546, 2659, 2775, 2895, 3019, 3147, 3279,
    3416, 3558, 3704, 3854, 4010, 4171, 4337, 4509, 4700, 4900, 5100, 5300, 5500, 5800, 6100, 6400, 6800,
)  # fmt: skip
#: Centre-of-mass energy in GeV that scales the masses in the published function, also at 13.6 TeV.
SQRT_S = 13_000.0
#: Width in GeV of the bins of the likelihood fit.
BIN_WIDTH = 4.0
#: Expected events below which neighbouring chi2 bins are merged, from the high end down.
_MIN_EXPECTED = 5.0
#: Fractional uncertainty of the background at the signal mass above which the F-test rule treats a fit as poor.
_POOR_FRACTION = 0.5


@dataclass(frozen=True)
class BackgroundFit:
    """A converged background-only fit.

    Attributes
    ----------
    order : number of shape parameters k, 2 to 4.
    parameters : (ln p0, p1 ... pk); p0 in events/GeV. A steep fit of few events has a p0 beyond floating point.
    covariance : of `parameters`, from the inverse of the exact second derivatives, shape (k+1, k+1).
    edges, counts, expected : bins of the fit, in GeV and events.
    deviance : 2 ln(likelihood of the saturated model / likelihood of the fit).
    chi2, ndof : on the published binning snapped to the bins of the fit, bins merged until 5 are expected.
    edm : estimated distance of the deviance/2 to its minimum.
    attempts : starting points that were needed.
    sqrt_s : energy in GeV that makes x out of a mass.
    """

    order: int
    parameters: FloatArray
    covariance: FloatArray
    edges: FloatArray
    counts: FloatArray
    expected: FloatArray
    deviance: float
    chi2: float
    ndof: int
    edm: float
    attempts: int
    sqrt_s: float

    def density(self, mass: npt.ArrayLike) -> FloatArray:
        """Events/GeV at `mass` in GeV."""
        basis = _basis(np.asarray(mass, np.float64) / self.sqrt_s, self.order)
        return np.asarray(np.exp(self.parameters[0] + basis @ self.parameters[1:]))

    def fractional_error(self, mass: npt.ArrayLike) -> FloatArray:
        """Standard deviation of the fitted density at `mass`, divided by the density."""
        basis = _basis(np.asarray(mass, np.float64) / self.sqrt_s, self.order)
        gradient = np.concatenate([np.ones((*basis.shape[:-1], 1)), basis], axis=-1)
        return np.asarray(np.sqrt(np.einsum("...i,ij,...j->...", gradient, self.covariance, gradient)))

    @cached_property
    def chi2_p(self) -> float:
        """Probability of a chi2 at least as large; nan without a degree of freedom."""
        from scipy.stats import chi2

        return float(chi2.sf(self.chi2, self.ndof)) if self.ndof > 0 else float("nan")


@dataclass(frozen=True)
class PeakFit:
    """A peak of free yield on a background whose parameters float.

    Attributes
    ----------
    signal, signal_error : fitted events of the whole peak, in the range of the fit or not (may be negative), and their
        standard error.
    z : signed root of the likelihood ratio against no signal, ``sign(signal) sqrt(2 ln(L/L0))``.
    p0 : local p-value 1 - Phi(z). Not capped: a deficit has p0 above 0.5, so that p0 is uniform without signal.
    background : expected background in each bin, from the fit with signal.
    deviance : of the fit with signal; `deviance_background` of the one without.
    at_limit : the signal stands at the most negative value that keeps every expectation positive: a deficit in bins
        without events. `signal_error` is then that of the unconstrained curvature, infinite if there is none.
    """

    signal: float
    signal_error: float
    z: float
    p0: float
    background: FloatArray
    deviance: float
    deviance_background: float
    at_limit: bool


@dataclass(frozen=True)
class MassScan:
    """`fit_peak` at several masses: arrays of shape (n,); masses in GeV, signal in events.

    `failed` lists the masses whose fit did not converge; their entries are nan in all arrays, never a guess.
    """

    masses: FloatArray
    signal: FloatArray
    signal_error: FloatArray
    z: FloatArray
    p0: FloatArray
    failed: tuple[float, ...]


@dataclass(frozen=True)
class OrderChoice:
    """What the F-test rule decided.

    Attributes
    ----------
    order : the chosen number of shape parameters.
    fits : one background fit for each order that has one.
    failed : for each order without a fit, why: it did not converge, or has too few filled bins; it is not chosen.
    steps : for each comparison (order before, order tried, F, p, fractional error before, tried, accepted).
    """

    order: int
    fits: dict[int, BackgroundFit]
    failed: dict[int, str]
    steps: tuple[tuple[int, int, float, float, float, float, bool], ...]

    @property
    def fit(self) -> BackgroundFit:
        """The fit of the chosen order."""
        return self.fits[self.order]


def histogram(
    masses: npt.ArrayLike, low: float, high: float, *, width: float = BIN_WIDTH
) -> tuple[FloatArray, FloatArray]:
    """Counts and edges in bins of `width` GeV from `low`, up to the last whole bin at or below `high`.

    Raises
    ------
    InputError
        If no event or no whole bin lies in the range, or a mass or an end of the range is not finite.
    """
    values = np.asarray(masses, np.float64)
    if not (np.isfinite(low) and np.isfinite(high) and 0 < width < np.inf):
        raise InputError("dijet spectrum", "low, high, width", f"{low:g}, {high:g}, {width:g}", "finite, width above 0")
    if not np.all(np.isfinite(values)):
        raise InputError("dijet spectrum", "masses", "a value that is not finite", "finite masses in GeV")
    bins = int(np.floor((high - low) / width + 1e-9))
    if bins < 1:
        raise InputError("dijet spectrum", "range", f"{low:g} to {high:g} GeV", f"at least one bin of {width:g} GeV")
    edges = low + width * np.arange(bins + 1)
    counts = np.histogram(values, edges)[0].astype(np.float64)
    if not counts.any():
        raise InputError("dijet spectrum", f"{low:g} to {high:g} GeV", "no event", "at least one")
    return counts, np.asarray(edges, np.float64)


def check_falling(counts: npt.ArrayLike, edges: npt.ArrayLike) -> None:
    """Refuse a spectrum that has not begun to fall where the range starts: no function here describes a turn-on.

    The first of the published bins must not have fewer events per GeV than a later one, by five standard deviations.

    Raises
    ------
    InputError
        Naming the bin that has more.
    """
    e = np.asarray(edges, np.float64)
    n = check_histogram("dijet spectrum", counts, e)
    inside = [edge for edge in PUBLISHED_EDGES if e[0] < edge < e[-1]]
    first = np.array(sorted({0, *(int(np.argmin(np.abs(e - edge))) for edge in inside)} - {n.size}))
    ends = np.append(e[first], e[-1])
    events, width = np.add.reduceat(n, first), np.diff(ends)
    density, variance = events / width, np.maximum(events, 1.0) / width**2
    excess = (density - density[0]) / np.sqrt(variance + variance[0])
    worst = int(np.argmax(excess))
    if excess[worst] > 5.0:
        found = f"{events[0]:.0f} events below {ends[1]:.0f} GeV, {events[worst]:.0f} from {ends[worst]:.0f} GeV on"
        raise InputError("dijet spectrum", f"low end at {e[0]:g} GeV", found, "a range that starts where it falls")


def fit_background(
    counts: npt.ArrayLike, edges: npt.ArrayLike, order: int = 3, *, sqrt_s: float = SQRT_S
) -> BackgroundFit:
    """Binned Poisson likelihood fit of the dijet function with `order` shape parameters.

    Parameters
    ----------
    counts : events, shape (n,); empty bins are fine and count.
    edges : bin edges in GeV, shape (n + 1,).

    Raises
    ------
    InputError
        Bad counts or edges, an order that is not 2, 3 or 4, fewer filled bins than parameters, masses beyond `sqrt_s`.
    FitError
        If no starting point converged.
    """
    n, e = _checked(counts, edges, order, sqrt_s)
    space = Space.build(n, e, order, sqrt_s)
    solution = _minimise(space, n, None)
    return _background_result(space, solution, n, e, sqrt_s)


def f_test(chi2_a: float, ndof_a: int, chi2_b: float, ndof_b: int) -> tuple[float, float]:
    """Fisher's F and p-value that the richer fit b is better than fit a by chance.

    ``F = (max(chi2_a - chi2_b, 0)/(ndof_a - ndof_b)) / (chi2_b/ndof_b)``.

    Raises
    ------
    InputError
        If b has no more parameters than a, or no degree of freedom.
    """
    from scipy.stats import f

    extra = ndof_a - ndof_b
    if extra < 1 or ndof_b < 1:
        raise InputError("F-test", "degrees of freedom", f"{ndof_a} and {ndof_b}", "ndof_a > ndof_b >= 1")
    if chi2_b <= 0.0:
        return (0.0, 1.0) if chi2_a <= 0.0 else (float("inf"), 0.0)
    value = (max(chi2_a - chi2_b, 0.0) / extra) / (chi2_b / ndof_b)
    return value, float(f.sf(value, extra, ndof_b))


def prefers_next(p_value: float, error_before: float, error_next: float) -> bool:
    """The rule of the published search for one more parameter.

    Accepted if the F-test is significant (p < 0.05) and the fractional uncertainty of the background at the signal mass
    is below 0.5 or smaller than before; or if it is not significant but that uncertainty falls from above 0.5 to below.
    """
    if p_value < 0.05:
        return error_next < _POOR_FRACTION or error_next < error_before
    return error_before > _POOR_FRACTION > error_next


def choose_order(
    counts: npt.ArrayLike,
    edges: npt.ArrayLike,
    mass: float,
    *,
    orders: Sequence[int] = (2, 3, 4),
    sqrt_s: float = SQRT_S,
) -> OrderChoice:
    """Fit the orders in turn and keep the one that the F-test rule prefers at a signal `mass` in GeV.

    The chi2 of all orders is taken in the same bins, merged until every fit expects 5 events in each. Each order is
    compared with the best one so far, so that a fourth parameter may be accepted where a third was not. A richer order
    without a fit, as happens with few events, is listed with the reason and not chosen.

    Raises
    ------
    InputError
        As `fit_background`; or a mass outside of the fit's range.
    FitError
        If the fit of the first order does not converge.
    """
    e = np.asarray(edges, np.float64)
    check_histogram("dijet fit", counts, e)
    if not e[0] <= mass <= e[-1]:
        raise InputError("dijet fit", "signal mass", f"{mass:g} GeV", f"{e[0]:g} to {e[-1]:g} GeV, the fit's range")
    if not orders or sorted(set(orders)) != list(orders):
        raise InputError("dijet fit", "orders", list(orders), "increasing numbers of parameters")
    fits, failed = {orders[0]: fit_background(counts, edges, orders[0], sqrt_s=sqrt_s)}, {}
    for k in orders[1:]:
        try:
            fits[k] = fit_background(counts, edges, k, sqrt_s=sqrt_s)
        except (FitError, InputError) as error:
            failed[k] = str(error)
    # Bins merge by what is expected: only in common bins do the degrees of freedom differ by the parameters alone.
    first = chi2_bins(e, np.min([f.expected for f in fits.values()], axis=0))
    fits = {k: _with_chi2(f, first) for k, f in fits.items()}
    best = orders[0]
    steps = []
    for k in list(fits)[1:]:
        a, b = fits[best], fits[k]
        # With too few events for a chi2 of the richer fit there is nothing to test, and nothing significant.
        value, p = f_test(a.chi2, a.ndof, b.chi2, b.ndof) if b.ndof > 0 else (0.0, 1.0)
        before, after = float(a.fractional_error(mass)), float(b.fractional_error(mass))
        accepted = prefers_next(p, before, after)
        steps.append((best, k, value, p, before, after, accepted))
        if accepted:
            best = k
    return OrderChoice(order=best, fits=fits, failed=failed, steps=tuple(steps))


def fit_peak(
    counts: npt.ArrayLike,
    edges: npt.ArrayLike,
    shape: npt.ArrayLike,
    order: int = 3,
    *,
    background: BackgroundFit | None = None,
    sqrt_s: float = SQRT_S,
) -> PeakFit:
    """Fit a peak of fixed shape and free yield together with the background.

    Parameters
    ----------
    shape : probability of the peak in each bin, shape (n,), sum at most 1.
    background : the background-only fit of the same counts and order, if it exists already.

    Raises
    ------
    InputError
        As `fit_background`; or a shape that is not a probability or has less than 1 % in the range of the fit.
    FitError
        If a fit does not converge.
    """
    n, e = _checked(counts, edges, order, sqrt_s)
    s = check_shape(shape, n.size)
    plain = background or fit_background(n, e, order, sqrt_s=sqrt_s)
    same = np.array_equal(plain.counts, n) and np.array_equal(plain.edges, e)
    if plain.order != order or plain.sqrt_s != sqrt_s or not same:
        raise InputError("dijet fit", "background", "a fit of another spectrum or order", "the same")
    space = Space.build(n, e, order, sqrt_s)
    under = peaked(s)
    lower = -0.9 * float(np.min(plain.expected[under] / s[under]))
    solution = _minimise(space, n, s, start=space.to_local(plain.parameters), lower=lower)
    signal, information = float(solution.values[-1]), solution.hessian
    error = float(np.sqrt(np.linalg.inv(information)[-1, -1])) if _positive(information) else float("inf")
    # Never below: the fit with signal contains the one without, what is left is the minimiser's tolerance.
    gain = max(plain.deviance - solution.deviance, 0.0)
    z = float(np.sign(signal) * np.sqrt(gain))
    return PeakFit(
        signal=signal,
        signal_error=error,
        z=z,
        p0=float(p_from_z(z)),
        background=space.expected(solution.values[:-1]),
        deviance=solution.deviance,
        deviance_background=plain.deviance,
        at_limit=solution.at_limit,
    )


def goodness(
    counts: npt.ArrayLike,
    edges: npt.ArrayLike,
    shape: npt.ArrayLike,
    order: int,
    *,
    background: BackgroundFit | None = None,
    sqrt_s: float = SQRT_S,
) -> float:
    """Probability of a chi2 at least as large as that of background and peak together, in the bins of `chi2_bins`.

    nan without a degree of freedom. Arguments and errors as for `fit_peak`.
    """
    from scipy.stats import chi2

    found = fit_peak(counts, edges, shape, order, background=background, sqrt_s=sqrt_s)
    expected = np.maximum(found.background + found.signal * np.asarray(shape, np.float64), 0.0)
    first = chi2_bins(edges, expected)
    observed, predicted = np.add.reduceat(np.asarray(counts, np.float64), first), np.add.reduceat(expected, first)
    ndof = int(first.size) - order - 2
    if ndof < 1 or not np.all(predicted > 0):
        return float("nan")
    return float(chi2.sf(np.sum((observed - predicted) ** 2 / predicted), ndof))


def check_shape(shape: npt.ArrayLike, n_bins: int) -> FloatArray:
    """A peak's bin probabilities as float64, if they are such.

    Raises
    ------
    InputError
        Another number of bins, a sum above 1, or less than 1 % in the range of the fit.
    """
    s = np.asarray(shape, np.float64)
    if s.shape != (n_bins,) or not np.all(np.isfinite(s)) or np.any(s < 0) or s.sum() > 1 + 1e-9:
        raise InputError("dijet fit", "signal shape", f"shape {s.shape}", f"probabilities of {n_bins} bins, sum <= 1")
    if s.sum() < 0.01:
        raise InputError("dijet fit", "signal shape", f"{s.sum():.2g} of the signal in range", "at least 0.01")
    return s


def fit_held(
    counts: npt.ArrayLike, edges: npt.ArrayLike, signal: npt.ArrayLike, order: int = 3, *, sqrt_s: float = SQRT_S
) -> tuple[FloatArray, float]:
    """Fit the background with `signal` events held in each bin; returns (ln p0, p1 ... pk) and the deviance."""
    n, e = _checked(counts, edges, order, sqrt_s)
    space = Space.build(n, e, order, sqrt_s)
    solution = _minimise(space, n, None, constant=np.asarray(signal, np.float64))
    return np.asarray(space.transform @ solution.values), solution.deviance


def integrate(parameters: npt.ArrayLike, edges: npt.ArrayLike, *, sqrt_s: float = SQRT_S) -> FloatArray:
    """Events in each bin for the parameters (ln p0, p1 ... pk)."""
    p, e = np.asarray(parameters, np.float64), np.asarray(edges, np.float64)
    points, weights = np.polynomial.legendre.leggauss(8)
    half = np.diff(e)[:, None] / 2.0
    nodes = e[:-1, None] + half * (1.0 + points)
    return np.asarray((half * weights * np.exp(p[0] + _basis(nodes / sqrt_s, p.size - 1) @ p[1:])).sum(axis=1))


def scan_masses(
    counts: npt.ArrayLike,
    edges: npt.ArrayLike,
    masses: Sequence[float],
    shape: Callable[[float, FloatArray], FloatArray],
    order: int = 3,
    *,
    sqrt_s: float = SQRT_S,
) -> MassScan:
    """Local p-value at each mass; `shape(mass, edges)` gives the peak's bin probabilities.

    A mass whose fit does not converge is listed in `failed`; if the background alone does not converge, FitError.
    """
    e = np.asarray(edges, np.float64)
    background = fit_background(counts, e, order, sqrt_s=sqrt_s)
    values = np.full((4, len(masses)), np.nan)
    failed = []
    for i, mass in enumerate(masses):
        if not e[0] <= mass <= e[-1]:
            raise InputError("mass scan", "mass", f"{mass:g} GeV", f"{e[0]:g} to {e[-1]:g} GeV, the fit's range")
        try:
            fit = fit_peak(counts, e, shape(mass, e), order, background=background, sqrt_s=sqrt_s)
        except FitError:
            failed.append(float(mass))
            continue
        values[:, i] = fit.signal, fit.signal_error, fit.z, fit.p0
    signal, error, z, p0 = values
    return MassScan(np.asarray(masses, np.float64), signal, error, z, p0, tuple(failed))


def chi2_bins(edges: npt.ArrayLike, expected: npt.ArrayLike) -> npt.NDArray[np.intp]:
    """First fine bin of each chi2 bin: the published edges snapped to the bins of the fit, sparse bins merged.

    The published edges are not multiples of 4 GeV: each goes to the nearest edge of the fit. Neighbours merge, from the
    high end down, until each holds at least 5 expected events.
    """
    e, mu = np.asarray(edges, np.float64), np.asarray(expected, np.float64)
    inside = [edge for edge in PUBLISHED_EDGES if e[0] < edge < e[-1]]
    starts = sorted({0, *(int(np.argmin(np.abs(e - edge))) for edge in inside)} - {mu.size})
    cumulative = np.concatenate([[0.0], np.cumsum(mu)])
    kept: list[int] = []
    end = mu.size
    for start in reversed(starts):
        if cumulative[end] - cumulative[start] >= _MIN_EXPECTED:
            kept.append(start)
            end = start
    if not kept:
        return np.array([0], np.intp)
    # What is left at the low end is too sparse to stand alone: it joins its neighbour.
    kept[-1] = 0
    return np.asarray(kept[::-1], np.intp)


def _checked(counts: npt.ArrayLike, edges: npt.ArrayLike, order: int, sqrt_s: float) -> tuple[FloatArray, FloatArray]:
    e = np.asarray(edges, np.float64)
    n = check_histogram("dijet fit", counts, e)
    if order not in (2, 3, 4):
        raise InputError("dijet fit", "order", order, "2, 3 or 4 shape parameters")
    if not (e[0] > 0 and e[-1] < sqrt_s):
        raise InputError("dijet fit", "edges", f"{e[0]:g} to {e[-1]:g} GeV", f"masses between 0 and {sqrt_s:g} GeV")
    filled = int(np.count_nonzero(n))
    if filled < order + 2:
        raise InputError("dijet fit", "filled bins", filled, f"at least {order + 2} for {order} shape parameters")
    return n, e


def _basis(x: FloatArray, order: int) -> FloatArray:
    """d ln f / d (p1 ... pk) at ``x = m/sqrt(s)``, shape (*x.shape, order)."""
    log = np.log(x)
    return np.stack([np.log1p(-x), *(-(log ** (i + 1)) for i in range(order - 1))], axis=-1)


@dataclass(frozen=True)
class Space:
    """The fit's coordinates: ``ln f = a + B q`` with B orthonormal on the spectrum.

    `basis` (n_bins, n_nodes, 1 + order) holds (1, B) at the nodes, `weights` (n_bins, n_nodes) in GeV, and
    ``(ln p0, p) = transform @ (a, q)``.
    """

    basis: FloatArray
    weights: FloatArray
    transform: FloatArray

    @classmethod
    def build(cls, counts: FloatArray, edges: FloatArray, order: int, sqrt_s: float) -> Space:
        # ln f varies by a few per cent over 4 GeV: three points integrate it to 1e-12; coarse bins get more.
        widest = float(np.max(np.diff(np.log(edges))))
        points, weights = np.polynomial.legendre.leggauss(3 if widest < 0.01 else 8)
        half = np.diff(edges)[:, None] / 2.0
        nodes = edges[:-1, None] + half * (1.0 + points)
        basis = _basis(nodes / sqrt_s, order)
        importance = np.broadcast_to((counts[:, None] + 1e-3 * counts.sum() / counts.size) * weights / 2, nodes.shape)
        flat = basis.reshape(-1, order)
        share = (importance / importance.sum()).ravel()
        mean = share @ flat
        r = np.linalg.qr((flat - mean) * np.sqrt(share)[:, None], mode="r")
        inverse = np.linalg.inv(r)
        white = (flat - mean) @ inverse
        transform = np.zeros((order + 1, order + 1))
        transform[0, 0] = 1.0
        transform[1:, 1:] = inverse
        transform[0, 1:] = -mean @ inverse
        full = np.concatenate([np.ones((flat.shape[0], 1)), white], axis=1).reshape(*nodes.shape, order + 1)
        return cls(basis=full, weights=half * weights, transform=transform)

    def to_local(self, parameters: FloatArray) -> FloatArray:
        """(a, q) of the published (ln p0, p1 ... pk)."""
        return np.asarray(np.linalg.solve(self.transform, parameters))

    def densities(self, local: FloatArray) -> FloatArray:
        """Quadrature weight times density at each node, (n_bins, n_nodes)."""
        # A line search may try absurd points: they get an enormous but finite likelihood.
        logarithm = self.basis.reshape(-1, local.size) @ local
        np.clip(logarithm, -300.0, 300.0, out=logarithm)
        return np.asarray(self.weights * np.exp(logarithm, out=logarithm).reshape(self.weights.shape))

    def expected(self, local: FloatArray) -> FloatArray:
        """Events in each bin."""
        return np.asarray(self.densities(local).sum(axis=1))

    def expected_and_jacobian(self, local: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Events in each bin, and their derivatives by (a, q), shape (n_bins, order + 1)."""
        f = self.densities(local)
        return np.asarray(f.sum(axis=1)), np.asarray(np.matmul(f[:, None, :], self.basis)[:, 0, :])


@dataclass(frozen=True)
class _Solution:
    values: FloatArray
    hessian: FloatArray
    deviance: float
    edm: float
    attempts: int
    at_limit: bool


def _deviance_terms(n: FloatArray, mu: FloatArray) -> float:
    """Half the Poisson deviance, sum of ``mu - n + n ln(n/mu)``."""
    from scipy.special import xlogy

    return float(np.sum(mu - n + xlogy(n, n / mu)))


def _minimise(
    space: Space,
    n: FloatArray,
    shape: FloatArray | None,
    *,
    start: FloatArray | None = None,
    lower: float = 0.0,
    constant: FloatArray | float = 0.0,
) -> _Solution:
    """MIGRAD with exact gradients from one start after the other until one converges.

    The signal stays above `lower`; `constant` events are added to each bin, for a signal that is held fixed.

    Raises
    ------
    FitError
        With the last reason if none does.
    """
    from iminuit import Minuit

    k = space.basis.shape[2]
    # Without events the likelihood of a bin is a straight line, below nothing too. In the far tail of a peak, which
    # falls less steeply than the background, an expectation may go there; under the peak and where events are, never.
    guarded = n > 0 if shape is None else (n > 0) | peaked(shape)

    def rates(p: FloatArray) -> tuple[FloatArray, FloatArray]:
        mu, jacobian = space.expected_and_jacobian(p[:k])
        mu = mu + constant
        if shape is not None:
            mu = mu + p[-1] * shape
            jacobian = np.concatenate([jacobian, shape[:, None]], axis=1)
        return mu, jacobian

    def half_deviance(p: FloatArray) -> float:
        mu = space.expected(p[:k]) + constant
        if shape is not None:
            mu = mu + p[-1] * shape
        # A negative signal must not make an expectation negative; the slope below the floor still points back up.
        low = guarded & (mu < _FLOOR)
        if low.any():
            return _deviance_terms(n, np.where(low, _FLOOR, mu)) + float(np.sum((_FLOOR - mu[low]) * 1e3))
        return _deviance_terms(n, mu)

    def gradient(p: FloatArray) -> FloatArray:
        mu, jacobian = rates(p)
        slope = np.where(guarded & (mu < _FLOOR), -1e3, 1.0 - n / np.maximum(mu, _FLOOR))
        return np.asarray(slope @ jacobian)

    reason = "no starting point"
    for attempt, point in enumerate(_starts(space, n, shape, start), 1):
        minuit = Minuit(half_deviance, point, grad=gradient)
        minuit.errordef = Minuit.LIKELIHOOD
        minuit.strategy = 0
        minuit.tol = 0.01
        information = _information(space, n, shape, point, constant)
        variance = np.diag(np.linalg.pinv(information))
        minuit.errors = np.sqrt(np.where(variance > 0, variance, 1.0))
        if shape is not None:
            minuit.limits[k] = (lower, None)
        minuit.migrad(ncall=2000)
        values = np.array(minuit.values)
        information = _information(space, n, shape, values, constant)
        slope = gradient(values)
        at_limit = shape is not None and bool(values[-1] < 0.999 * lower) and bool(slope[-1] > 0)
        # A signal at its limit stands on bins without events, where the likelihood is a straight line in it.
        free = slice(0, k) if at_limit else slice(None)
        if not _positive(information[free, free]):
            reason = "second derivatives that are not positive"
            continue
        # One Newton step with the exact second derivatives takes off what MIGRAD's tolerance left.
        polished = values.copy()
        polished[free] -= np.linalg.solve(information[free, free], slope[free])
        again = _information(space, n, shape, polished, constant)
        if half_deviance(polished) <= half_deviance(values) and _positive(again[free, free]):
            values, information, slope = polished, again, gradient(polished)
        edm = float(0.5 * slope[free] @ np.linalg.solve(information[free, free], slope[free]))
        if edm < _EDM_MAX:
            return _Solution(values, information, 2.0 * half_deviance(values), edm, attempt, at_limit)
        reason = f"distance to the minimum {edm:.2g} after {minuit.nfcn} calls"
    raise FitError(f"dijet fit with {k - 1} shape parameters did not converge: {attempt} starting points, {reason}")


def peaked(shape: FloatArray) -> npt.NDArray[np.bool_]:
    """Bins that hold what counts of a peak, for its probabilities `shape` (n,)."""
    return np.asarray(shape > 1e-3 * shape.max())


def _positive(matrix: FloatArray) -> bool:
    """Is it finite and positive definite?"""
    return bool(np.all(np.isfinite(matrix)) and np.linalg.eigvalsh(matrix)[0] > 0)


#: Smallest expectation of a bin that the likelihood accepts, in events.
_FLOOR = 1e-12
#: Largest distance to the minimum, in units of the log likelihood, that counts as converged.
_EDM_MAX = 1e-4


def _information(
    space: Space, n: FloatArray, shape: FloatArray | None, p: FloatArray, constant: FloatArray | float
) -> FloatArray:
    """Exact second derivatives of half the deviance by (a, q[, signal])."""
    k = space.basis.shape[2]
    f = space.densities(p[:k])
    mu, jacobian = f.sum(axis=1) + constant, np.matmul(f[:, None, :], space.basis)[:, 0, :]
    if shape is not None:
        mu = mu + p[-1] * shape
        jacobian = np.concatenate([jacobian, shape[:, None]], axis=1)
    mu = np.maximum(mu, _FLOOR)
    out: FloatArray = (jacobian * (n / mu**2)[:, None]).T @ jacobian
    flat = space.basis.reshape(-1, k)
    out[:k, :k] += (flat * (f * (1.0 - n / mu)[:, None]).reshape(-1, 1)).T @ flat
    return out


def _starts(space: Space, n: FloatArray, shape: FloatArray | None, start: FloatArray | None) -> list[FloatArray]:
    """Starting points, the most promising first; fixed, so that a fit is reproducible."""
    regression = _regression(space, n)
    level = np.zeros_like(regression)
    level[0] = np.log(n.sum() / space.weights.sum())
    falling = regression.copy()
    falling[2:] = 0.0
    points = [p for p in (start, regression, falling, level) if p is not None]
    rng = np.random.default_rng(20250101)
    points += [regression + rng.normal(0.0, 0.3, regression.size) for _ in range(4)]
    if shape is None:
        return points
    return [np.concatenate([p, [0.0]]) for p in points]


def _regression(space: Space, n: FloatArray) -> FloatArray:
    """Weighted least squares of ln(counts/width) over groups of bins with at least 10 events each."""
    # A new group starts with the bin after each further ten events.
    full = np.floor(np.cumsum(n) / 10.0)
    groups = np.concatenate([[0], np.flatnonzero(np.diff(full)) + 1])
    counts = np.add.reduceat(n, groups)
    width = np.add.reduceat(space.weights.sum(axis=1), groups)
    basis = np.add.reduceat(np.einsum("ij,ijk->ik", space.weights, space.basis), groups, axis=0) / width[:, None]
    filled = counts > 0
    weight = np.sqrt(counts[filled])
    solution = np.linalg.lstsq(basis[filled] * weight[:, None], np.log(counts[filled] / width[filled]) * weight)[0]
    return np.asarray(solution)


def _background_result(
    space: Space, solution: _Solution, n: FloatArray, edges: FloatArray, sqrt_s: float
) -> BackgroundFit:
    published = space.transform @ solution.values
    covariance = space.transform @ np.linalg.inv(solution.hessian) @ space.transform.T
    expected = space.expected(solution.values)
    order = published.size - 1
    fit = BackgroundFit(
        order=order,
        parameters=np.asarray(published),
        covariance=np.asarray(covariance),
        edges=edges,
        counts=n,
        expected=expected,
        deviance=solution.deviance,
        chi2=0.0,
        ndof=0,
        edm=solution.edm,
        attempts=solution.attempts,
        sqrt_s=sqrt_s,
    )
    return _with_chi2(fit, chi2_bins(edges, expected))


def _with_chi2(fit: BackgroundFit, first: npt.NDArray[np.intp]) -> BackgroundFit:
    """The fit with Pearson's chi2 in the bins that start at the fine bins `first`."""
    observed, predicted = np.add.reduceat(fit.counts, first), np.add.reduceat(fit.expected, first)
    chi2 = float(np.sum((observed - predicted) ** 2 / predicted))
    return replace(fit, chi2=chi2, ndof=int(first.size - fit.order - 1))
