"""Closed forms: p-values to significances and back, the Asimov significance, counting experiments.

`asimov_z` for an expected significance, `counting_p` for an observed one, `z_from_p` and `p_from_z` to convert,
`poisson_tail` for the tails of a Poisson distribution where an incomplete gamma function loses them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError

FloatArray = npt.NDArray[np.float64]


def z_from_p(p_value: npt.ArrayLike) -> FloatArray:
    """One-sided Gaussian significance of a p-value, ``Z = Phi^-1(1 - p)``.

    Parameters
    ----------
    p_value : in [0, 1], any shape. 0 gives infinity, 1 gives minus infinity.

    Raises
    ------
    InputError
        If a value is not in [0, 1] (nan included).

    >>> round(float(z_from_p(0.15865525393145707)), 12)
    1.0
    """
    from scipy.special import ndtri

    p = np.asarray(p_value, np.float64)
    if not np.all((p >= 0.0) & (p <= 1.0)):
        raise InputError("p-value", "", "a value outside [0, 1]", "0 <= p <= 1")
    # The lower tail keeps its precision down to 1e-308; 1 - p would stop at 1e-16. Adding 0 turns -0 into 0.
    return np.asarray(-ndtri(p) + 0.0, np.float64)


def p_from_z(z: npt.ArrayLike) -> FloatArray:
    """One-sided p-value of a Gaussian significance, ``p = 1 - Phi(Z)``, without cancellation for large Z.

    >>> round(float(p_from_z(5.0)) * 1e7, 6)
    2.866516
    """
    from scipy.special import ndtr

    return np.asarray(ndtr(-np.asarray(z, np.float64)), np.float64)


def asimov_z(signal: npt.ArrayLike, background: npt.ArrayLike, background_error: npt.ArrayLike = 0.0) -> FloatArray:
    """Median expected significance of `signal` events on `background` events.

    Without an error on the background, equation 97 of arXiv:1007.1727,
    ``Z = sqrt(2 ((s + b) ln(1 + s/b) - s))``. With one, the background is measured by an auxiliary Poisson count of
    mean ``tau b`` with ``tau = b/error^2``, and Z is the root of the profile likelihood ratio of the Asimov data,
    ``Z^2 = 2 [ (s+b) ln((s+b)(b+v)/(b^2 + (s+b) v)) - b^2/v ln(1 + v s/(b (b+v))) ]`` with ``v = error^2``
    (G. Cowan, "Discovery sensitivity for a counting experiment with background uncertainty", 2012, equation 20).

    Parameters
    ----------
    signal, background : expected events, >= 0; they broadcast. A background of zero with a signal gives infinity.
    background_error : absolute standard deviation of the background, in events.

    Raises
    ------
    InputError
        If an input is negative or not finite.

    >>> round(float(asimov_z(10.0, 100.0)), 6)
    0.983992
    """
    from scipy.special import log1p

    s, b, error = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (signal, background, background_error)))
    for name, values in (("signal", s), ("background", b), ("background_error", error)):
        if not np.all(np.isfinite(values)) or np.any(values < 0):
            raise InputError("Asimov significance", name, "a negative or non-finite value", ">= 0")
    safe_b = np.where(b > 0, b, 1.0)
    x = s / safe_b
    # For s << b the terms cancel to all digits: the series of (1+x) ln(1+x) - x takes over.
    series = x**2 * (1.0 / 2.0 - x / 6.0 + x**2 / 12.0)
    plain = 2.0 * np.where(x < 1e-4, safe_b * series, (s + b) * log1p(x) - s)
    v = error**2
    safe_v = np.where(v > 0, v, 1.0)
    first = (s + b) * (log1p(s / safe_b) - log1p(v * s / (safe_b * (safe_b + safe_v))))
    second = safe_b**2 / safe_v * log1p(safe_v * s / (safe_b * (safe_b + safe_v)))
    with_error = np.where(x < 1e-8, s**2 / (safe_b + safe_v), 2.0 * (first - second))
    squared = np.where(v > 0, with_error, plain)
    z = np.sqrt(np.maximum(squared, 0.0))
    return np.asarray(np.where(b > 0, z, np.where(s > 0, np.inf, 0.0)), np.float64)


def counting_p(observed: npt.ArrayLike, background: npt.ArrayLike) -> FloatArray:
    """Probability to count at least `observed` events when `background` are expected, ``P(N >= n | b)``.

    Equal to the regularised lower incomplete gamma function ``P(n, b)``; 1 where nothing was observed.

    Raises
    ------
    InputError
        If an input is negative or nan.

    >>> round(float(counting_p(3, 1.0)), 6)
    0.080301
    """
    n, b = np.broadcast_arrays(np.asarray(observed, np.float64), np.asarray(background, np.float64))
    if not (np.all(n >= 0) and np.all(b >= 0)):
        raise InputError("counting experiment", "", "a negative or undefined count", ">= 0")
    return np.asarray(np.where(n > 0, poisson_tail(np.where(n > 0, n, 1.0), b), 1.0), np.float64)


#: Counts above which scipy's incomplete gamma function stops too early in the tails (by 2e-3 at 1e7, by 80 % at 1e10),
#: and the distance in sigma from which the expansion takes over: below, scipy uses the same one.
LARGE_COUNT, _FAR = 1e5, 4.0


def poisson_tail(n: npt.ArrayLike, mean: npt.ArrayLike, *, upper: bool = True) -> FloatArray:
    """``P(N >= n | mean)``, or with `upper` false ``P(N <= n - 1 | mean)``; n > 0, which may have a fraction.

    The regularised incomplete gamma functions P(n, mean) and Q(n, mean).
    """
    from scipy.special import gammainc, gammaincc

    a, x = np.broadcast_arrays(np.asarray(n, np.float64), np.asarray(mean, np.float64))
    out = np.array((gammainc if upper else gammaincc)(a, x), np.float64)
    sign = 1.0 if upper else -1.0
    far = (a > LARGE_COUNT) & (sign * (a - x) > _FAR * np.sqrt(a)) & (x > 0)
    if far.any():
        out[far] = np.exp(log_large_tail(a[far], x[far], upper=upper))
    return out


def log_large_tail(n: npt.ArrayLike, mean: npt.ArrayLike, *, upper: bool = True) -> FloatArray:
    """Logarithm of `poisson_tail` for n above 1e5, some sigma into the tail: Temme's uniform expansion.

    DLMF 8.12.3 to 8.12.10 with two terms; what is left out is below 1e-10 of the tail.
    """
    from scipy.special import log_ndtr

    a, x = np.asarray(n, np.float64), np.asarray(mean, np.float64)
    mu = (x - a) / a
    # eta^2/2 = mu - ln(1 + mu), by its series where the difference would cancel.
    powers = sum((-1.0) ** k * mu**k / k for k in range(2, 10))
    half = np.where(np.abs(mu) < 1e-2, powers, mu - np.log1p(mu))
    eta = np.sign(mu) * np.sqrt(2.0 * half)
    first = 1.0 / mu - 1.0 / eta
    second = 1.0 / eta**3 - 1.0 / mu**3 - 1.0 / mu**2 - 1.0 / (12.0 * mu)
    sign = -1.0 if upper else 1.0
    # Q = Phi(-eta sqrt(a)) + R and P = Phi(eta sqrt(a)) - R.
    main = log_ndtr(-sign * eta * np.sqrt(a))
    rest = sign * (first + second / a) * np.exp(-a * half - main) / np.sqrt(2.0 * np.pi * a)
    return np.asarray(main + np.log1p(rest))


def poisson_deviance_z(observed: npt.ArrayLike, background: npt.ArrayLike) -> FloatArray:
    """Signed root of the likelihood ratio of one count, ``sign(n-b) sqrt(2 (n ln(n/b) - n + b))``.

    It brackets the exact tail (Zubkov and Serov; M. Short, doi:10.1155/2013/412958): for n > b,
    ``1 - Phi(z(n)) < P(N >= n | b) < 1 - Phi(z(n-1))``.
    """
    from scipy.special import xlogy

    n, b = np.asarray(observed, np.float64), np.asarray(background, np.float64)
    inside = np.maximum(2.0 * (xlogy(n, n / b) - n + b), 0.0)
    return np.asarray(np.sign(n - b) * np.sqrt(inside), np.float64)


def clopper_pearson(passed: int, total: int, *, level: float = 0.6826894921370859) -> tuple[float, float]:
    """Central interval of a binomial fraction with at least `level` coverage (Clopper and Pearson 1934)."""
    from scipy.stats import beta

    if not 0 <= passed <= total or total < 1:
        raise InputError("binomial interval", "passed/total", f"{passed}/{total}", "0 <= passed <= total, total >= 1")
    tail = (1.0 - level) / 2.0
    low = float(beta.ppf(tail, passed, total - passed + 1)) if passed > 0 else 0.0
    high = float(beta.ppf(1.0 - tail, passed + 1, total - passed)) if passed < total else 1.0
    return low, high


def check_histogram(where: str, counts: npt.ArrayLike, edges: npt.ArrayLike | None = None) -> FloatArray:
    """Counts as float64 after checking that they are finite, not negative and not all zero.

    Raises
    ------
    InputError
        Naming the first bad bin, a wrong number of edges, or edges that do not increase.
    """
    values: npt.NDArray[Any] = np.asarray(counts, np.float64)
    if values.size == 0:
        raise InputError(where, "bins", 0, "at least one")
    bad = np.flatnonzero(~(np.isfinite(values.ravel()) & (values.ravel() >= 0)))
    if bad.size:
        raise InputError(where, f"bin {int(bad[0])}", float(values.ravel()[bad[0]]), "a finite count >= 0")
    if edges is not None:
        e = np.asarray(edges, np.float64)
        if e.ndim != 1 or e.size != values.size + 1:
            raise InputError(where, "edges", e.size, f"{values.size + 1} for {values.size} bins")
        if not (np.all(np.isfinite(e)) and np.all(np.diff(e) > 0)):
            raise InputError(where, "edges", "edges that do not increase", "strictly increasing finite edges")
    if not np.any(values > 0):
        raise InputError(where, "counts", "an empty histogram", "at least one event")
    return values
