"""From local to global p-values.

`scan_toys` repeats a whole mass scan on background-only toys, `global_p` counts how many do as well as the data,
`gross_vitells` needs few toys because it extrapolates from a low level, `trial_factor` and `over_windows` turn the
result of one window into that of the search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.search.errors import FitError
from l1ad.search.stats import dijet
from l1ad.search.stats.significance import clopper_pearson, p_from_z

FloatArray = npt.NDArray[np.float64]

#: Mass windows of the published search: its global p-value multiplies by this number.
PUBLISHED_WINDOWS = 12


@dataclass(frozen=True)
class GlobalP:
    """A global p-value from toys.

    Attributes
    ----------
    p : fraction of the toys that reach the data.
    interval : 68 % Clopper-Pearson interval.
    n_toys : toys that were used.
    """

    p: float
    interval: tuple[float, float]
    n_toys: int


@dataclass(frozen=True)
class ToyScans:
    """Mass scans of background-only toys.

    Attributes
    ----------
    masses : GeV, shape (n_masses,).
    z : signed significance, shape (n_toys, n_masses); toys with a fit that failed are left out.
    failed : number of toys that were left out.
    """

    masses: FloatArray
    z: FloatArray
    failed: int

    @property
    def z_max(self) -> FloatArray:
        """Largest local significance of each toy, shape (n_toys,)."""
        return np.asarray(self.z.max(axis=1))


def scan_toys(
    background: dijet.BackgroundFit,
    masses: Sequence[float],
    shape: Callable[[float, FloatArray], FloatArray],
    n_toys: int,
    rng: np.random.Generator,
) -> ToyScans:
    """Fluctuate a fitted background and repeat the mass scan on each toy.

    Parameters
    ----------
    background : fit of the data without signal; its order is kept.
    shape : `shape(mass, edges)` gives the peak's bin probabilities.

    Raises
    ------
    FitError
        If more than one toy in twenty has a fit that does not converge.
    """
    if n_toys < 1 or not len(masses):
        raise InputError("look-elsewhere toys", "toys x masses", f"{n_toys} x {len(masses)}", "at least 1 x 1")
    low, high = background.edges[[0, -1]]
    outside = [m for m in masses if not low <= m <= high]
    if outside:
        raise InputError("look-elsewhere toys", "mass", f"{outside[0]:g} GeV", f"{low:g} to {high:g} GeV")
    shapes = {float(m): shape(m, background.edges) for m in masses}
    # What is wrong with a shape is wrong in every toy: it must not look like toys that failed.
    for s in shapes.values():
        dijet.check_shape(s, background.counts.size)
    rows = []
    failed = 0
    for _ in range(n_toys):
        counts = rng.poisson(background.expected)
        try:
            scan = dijet.scan_masses(
                counts,
                background.edges,
                masses,
                lambda m, _edges: shapes[float(m)],
                background.order,
                sqrt_s=background.sqrt_s,
            )
        except (FitError, InputError):  # the latter: too few filled bins for so many parameters
            failed += 1
            continue
        if scan.failed:
            failed += 1
            continue
        rows.append(scan.z)
    if failed > n_toys / 20:
        raise FitError(f"look-elsewhere toys: {failed} of {n_toys} have a fit that did not converge")
    return ToyScans(np.asarray(masses, np.float64), np.array(rows), failed)


def global_p(statistic: float, toys: npt.ArrayLike) -> GlobalP:
    """Fraction of the toys whose statistic (largest significance, or -ln p) is at least the data's."""
    values = np.asarray(toys, np.float64)
    if not np.isfinite(statistic):
        raise InputError("global p-value", "statistic", statistic, "a finite number")
    if values.ndim != 1 or values.size == 0 or not np.all(np.isfinite(values)):
        raise InputError("global p-value", "toys", f"shape {values.shape}", "finite values in one dimension")
    reached = int(np.count_nonzero(values >= statistic))
    return GlobalP(reached / values.size, clopper_pearson(reached, values.size), values.size)


def upcrossings(z: npt.ArrayLike, level: float) -> npt.NDArray[np.int64]:
    """How often each curve rises through `level`; curves are the last axis, and one that starts above it counts once.

    >>> int(upcrossings([0.0, 2.0, 0.5, 3.0, 3.5], 1.0))
    2
    """
    above = np.asarray(z, np.float64) > level
    return np.asarray(np.count_nonzero(above[..., 1:] & ~above[..., :-1], axis=-1) + above[..., 0], np.int64)


def gross_vitells(z: float, mean_upcrossings: float, reference_z: float) -> float:
    """Global p-value of a local significance, equation 3 of arXiv:1005.1891 for one degree of freedom.

    ``p_global = p_local + <N(u0)> exp(-(z^2 - u0^2)/2)`` with the mean number of upcrossings of a low level u0. It is
    an upper bound, close for small p-values; at most 1 is returned.

    Parameters
    ----------
    mean_upcrossings : of z through `reference_z`, in background-only scans, without those that start above it.
    reference_z : the low level, 0 to `z`.

    >>> gross_vitells(3.0, 0.0, 0.0) == float(p_from_z(3.0))
    True
    """
    if not (0.0 <= reference_z <= z and mean_upcrossings >= 0):
        found = f"z = {z:g}, reference {reference_z:g}, {mean_upcrossings:g} upcrossings"
        raise InputError("Gross-Vitells", "", found, "0 <= reference <= z and upcrossings >= 0")
    return float(min(p_from_z(z) + mean_upcrossings * np.exp(-(z**2 - reference_z**2) / 2.0), 1.0))


def mean_upcrossings(scans: ToyScans, reference_z: float = 0.5) -> tuple[float, float]:
    """Mean number of rises through `reference_z` in toy scans, and its standard error."""
    rises = upcrossings(scans.z, reference_z) - (scans.z[:, 0] > reference_z)
    error = float(np.std(rises) / np.sqrt(rises.size))
    return float(np.mean(rises)), error


def trial_factor(p_global: float, p_local: float) -> float:
    """By how much the search over masses makes a local p-value less remarkable: their ratio, at least 1."""
    if not 0.0 < p_local <= 1.0 or not 0.0 <= p_global <= 1.0:
        raise InputError("trial factor", "p-values", f"{p_global:g}, {p_local:g}", "in (0, 1]")
    return max(p_global / p_local, 1.0)


def over_windows(p_local: float, window_trial_factor: float, *, n_windows: int = PUBLISHED_WINDOWS) -> float:
    """Global p-value of the search: local x trial factor of the window x number of windows, at most 1.

    The rule of CMS-EXO-22-026. Overlapping windows are correlated: the product is conservative.
    """
    if not (0.0 <= p_local <= 1.0 and window_trial_factor >= 1.0 and n_windows >= 1):
        found = f"p = {p_local:g}, factor {window_trial_factor:g}, {n_windows} windows"
        raise InputError("global p-value", "", found, "0 <= p <= 1, factor >= 1, windows >= 1")
    return min(p_local * window_trial_factor * n_windows, 1.0)
