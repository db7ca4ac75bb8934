"""How good a selection is when the truth is known: significance improvement, efficiency at a fraction, flatness.

`sic_curve` and `max_sic` for a tagger, `flatness` for what a selection does to the mass spectrum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SicCurve:
    """Significance improvement characteristic.

    Attributes
    ----------
    threshold : selection is score >= threshold, falling, shape (n,).
    signal_efficiency, background_efficiency : above each threshold.
    sic : ``eps_S / sqrt(eps_B)``; only thresholds with enough background are kept.
    """

    threshold: FloatArray
    signal_efficiency: FloatArray
    background_efficiency: FloatArray
    sic: FloatArray

    @property
    def maximum(self) -> float:
        """Largest improvement."""
        return float(self.sic.max())


def sic_curve(scores: npt.ArrayLike, is_signal: npt.ArrayLike, *, max_relative_error: float = 0.2) -> SicCurve:
    """SIC at every threshold where the background efficiency is known to `max_relative_error`.

    The LHC Olympics papers keep thresholds with at most 20 % statistical error, that is 25 background events or more.

    Raises
    ------
    InputError
        If one of the classes is empty, scores are not finite, or there is too little background for any threshold.
    """
    s, y = np.asarray(scores, np.float64), np.asarray(is_signal, bool)
    if s.ndim != 1 or s.shape != y.shape or not np.all(np.isfinite(s)):
        raise InputError("SIC", "scores", f"shape {s.shape}", f"finite, one for each of {y.shape} labels")
    n_signal, n_background = int(y.sum()), int((~y).sum())
    needed = int(np.ceil(1.0 / max_relative_error**2))
    if n_signal == 0 or n_background < needed:
        found = f"{n_signal} signal and {n_background} background events"
        raise InputError("SIC", "events", found, f"signal, and at least {needed} background events")
    order = np.argsort(-s, kind="stable")
    s, y = s[order], y[order]
    # Events of one score are selected together.
    last = np.append(np.flatnonzero(np.diff(s)), s.size - 1)
    signal, background = np.cumsum(y)[last], np.cumsum(~y)[last]
    keep = background >= needed
    eps_s, eps_b = signal[keep] / n_signal, background[keep] / n_background
    return SicCurve(s[last][keep], eps_s, eps_b, np.asarray(eps_s / np.sqrt(eps_b)))


def efficiency_at(scores: npt.ArrayLike, is_signal: npt.ArrayLike, fraction: float) -> float:
    """Signal efficiency of the selection that keeps `fraction` of the background."""
    s, y = np.asarray(scores, np.float64), np.asarray(is_signal, bool)
    if not 0 < fraction < 1 or y.all() or not y.any():
        raise InputError("efficiency", "fraction or labels", fraction, "0 < fraction < 1, both classes")
    threshold = np.quantile(s[~y], 1.0 - fraction, method="higher")
    return float(np.mean(s[y] >= threshold))


@dataclass(frozen=True)
class Flatness:
    """Selected fraction in bins of mass against a constant.

    Attributes
    ----------
    edges : GeV.
    fraction, error : selected fraction and its binomial error in each bin.
    chi2, ndof, p : test that the fraction is the same in all bins.
    """

    edges: FloatArray
    fraction: FloatArray
    error: FloatArray
    chi2: float
    ndof: int
    p: float


def flatness(mass: npt.ArrayLike, selected: npt.ArrayLike, edges: npt.ArrayLike) -> Flatness:
    """Does a selection sculpt the mass? Pearson's chi2 of selected and rejected events over the bins.

    Raises
    ------
    InputError
        If a bin has no event, or nothing or everything is selected.
    """
    from scipy.stats import chi2 as chi2_distribution

    m, chosen, e = np.asarray(mass, np.float64), np.asarray(selected, bool), np.asarray(edges, np.float64)
    total = np.histogram(m, e)[0].astype(np.float64)
    kept = np.histogram(m[chosen], e)[0].astype(np.float64)
    if np.any(total == 0):
        raise InputError("flatness", f"bin {int(np.flatnonzero(total == 0)[0])}", "no event", "events in every bin")
    share = kept.sum() / total.sum()
    if not 0 < share < 1 or total.size < 2:
        raise InputError("flatness", "selected fraction", share, "between 0 and 1, in at least 2 bins")
    chi2 = float(np.sum((kept - share * total) ** 2 / (total * share * (1.0 - share))))
    fraction = kept / total
    # At least the error of one event, so that an empty bin is not infinitely precise.
    error = np.sqrt(np.maximum(fraction * (1 - fraction), share / total) / total)
    return Flatness(e, fraction, error, chi2, total.size - 1, float(chi2_distribution.sf(chi2, total.size - 1)))
