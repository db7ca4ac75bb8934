"""What the generator cuts lose, against the dijet mass."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.search.simulate.recipe import FloatArray

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Closure:
    """Which fraction of the selected events tighter generator cuts keep, against m_jj.

    Attributes
    ----------
    edges : of the bins in GeV, shape (b + 1,).
    n, kept : events in each bin with the loose cuts, and of them inside the tight ones.
    ratio : kept / n; NaN in a bin without events.
    low, high : 68.3 % Clopper-Pearson interval of the ratio.
    lost_at_most : upper end of the 95 % interval on the largest loss of any bin, corrected for the number of bins.
    flat_p : probability that a kept fraction that is the same in all bins fluctuates as much (chi2 of the counts).
    """

    edges: FloatArray
    n: IntArray
    kept: IntArray
    ratio: FloatArray
    low: FloatArray
    high: FloatArray
    lost_at_most: float
    flat_p: float


def closure(m_jj: npt.ArrayLike, inside: npt.ArrayLike, edges: Sequence[float] | FloatArray) -> Closure:
    """Ratio of tight to loose generator cuts in bins of m_jj.

    Both spectra come from the same events, generated with the loose cuts: the ratio is an efficiency, with binomial
    errors, and much more precise than that of two samples.

    Parameters
    ----------
    m_jj : of the selected events of a loose sample, shape (n,).
    inside : whether their parton pair passes the tight cuts (`GeneratorCuts.passes`), shape (n,).

    Raises
    ------
    InputError
        If no event lies in the bins.
    """
    from scipy import stats

    m, passed, bins = np.asarray(m_jj), np.asarray(inside, bool), np.asarray(edges, np.float64)
    n = np.histogram(m, bins)[0].astype(np.int64)
    kept = np.histogram(m[passed], bins)[0].astype(np.int64)
    filled = n > 0
    if not filled.any():
        raise InputError("closure", "events", 0, f"some between {bins[0]:g} and {bins[-1]:g} GeV")
    low, high = _interval(kept, n, 0.6827)
    # Sidak: all bins cover together.
    joint = 0.95 ** (1.0 / int(filled.sum()))
    upper_loss = np.where(kept > 0, stats.beta.ppf(1.0 - joint, np.maximum(kept, 1), n - kept + 1), 0.0)
    largest = int(np.argmin(np.where(filled, kept / np.maximum(n, 1), np.inf)))
    overall = kept.sum() / n.sum()
    if 0.0 < overall < 1.0 and filled.sum() > 1:
        chi2 = float(np.sum((kept - overall * n)[filled] ** 2 / (n[filled] * overall * (1.0 - overall))))
        flat_p = float(stats.chi2.sf(chi2, int(filled.sum()) - 1))
    else:
        flat_p = 1.0
    ratio = np.where(filled, kept / np.maximum(n, 1), np.nan)
    return Closure(bins, n, kept, ratio, low, high, float(1.0 - upper_loss[largest]), flat_p)


def _interval(k: IntArray, n: IntArray, level: float) -> tuple[FloatArray, FloatArray]:
    """Clopper-Pearson interval of k out of n."""
    from scipy import stats

    tail = 0.5 * (1.0 - level)
    low = np.where(k > 0, stats.beta.ppf(tail, np.maximum(k, 1), n - k + 1), 0.0)
    high = np.where(k < n, stats.beta.ppf(1.0 - tail, k + 1, np.maximum(n - k, 1)), 1.0)
    return low, high


def draw_closure(result: Closure, path: str | os.PathLike[str]) -> None:
    """A figure (PNG) of the kept fraction against m_jj."""
    from matplotlib.figure import Figure

    centre, half = 0.5 * (result.edges[1:] + result.edges[:-1]), 0.5 * np.diff(result.edges)
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    errors = np.stack([result.ratio - result.low, result.high - result.ratio])
    axes.errorbar(centre, result.ratio, np.maximum(errors, 0.0), half, fmt="ko", ms=4)
    axes.axhline(1.0, color="0.6", lw=0.8)
    axes.set_ylim(min(0.9, 0.99 * float(np.nanmin(result.low))), 1.01)
    axes.set_xscale("log")
    ticks = np.unique(np.round(result.edges[[0, len(result.edges) // 2, -1]]))
    axes.set_xticks(ticks, [f"{t:.0f}" for t in ticks], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_xlabel("dijet mass [GeV]")
    axes.set_ylabel("usual / looser generator cuts")
    figure.savefig(path, format="png", dpi=110)
