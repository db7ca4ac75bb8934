"""BumpHunter: the most significant window of a histogram, and how often background alone does as well.

`scan` for the data, `pseudo_experiments` for the distribution of the statistic, `hunt` for both and the global p-value.
One or two dimensions, the same code: a window is a box of bins, its count a difference of summed-area tables.

Source: G. Choudalakis, arXiv:1101.0390. The local p-value of a window with n events on m expected is
``P(N >= n | m)``, the statistic is ``t = -ln(min p)``, the global p-value the fraction of background-only
pseudo-experiments with a statistic at least as large.

The pseudo-experiments are quick because only the smallest p-value of each is needed. The deviance root
``r = sqrt(2 (n ln(n/m) - n + m))`` bounds the tail, ``p > 1 - Phi(r)`` (Zubkov and Serov; doi:10.1155/2013/412958), and
r is concave in n, so a tangent s(n), one multiplication a window, bounds r. A window whose s is small cannot hold the
minimum and its incomplete gamma function is never computed. The result is the full scan's number, not an estimate.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.search.stats.significance import (
    LARGE_COUNT,
    check_histogram,
    clopper_pearson,
    log_large_tail,
    poisson_tail,
    z_from_p,
)

FloatArray = npt.NDArray[np.float64]
Mode = Literal["excess", "deficit"]

#: Significance at which the screen of the pseudo-experiments is sharpest: about that of a typical best window.
_REFERENCE_Z = 2.5
#: Up to so many bins a matrix product is the quickest way to all windows.
_MATRIX_BINS = 128
#: Cells of the guide to a tabulated Poisson distribution.
_GUIDE = 4096
#: Size of the screen's buffer (windows x experiments): small enough to stay in a cache.
_BLOCK_ELEMENTS = 400_000
#: Bins x pseudo-experiments that are drawn at once.
_SAMPLED_AT_ONCE = 2_000_000
#: Smallest p-value that a floating-point number should have to hold; also the floor that pyBumpHunter uses.
_SMALLEST_P = 1e-300


@dataclass(frozen=True)
class Windows:
    """Which boxes of bins are scanned.

    Attributes
    ----------
    width_min : smallest width in bins, one number or one for each axis.
    width_max : largest width in bins; half of the axis if None.
    width_step : increase of the width.
    scan_step : shift between windows of one width, in bins.
    sideband : rescale the expectation by data over expectation outside of the window.
    sideband_bins : bins at each end of an axis that only serve the rescaling.
    mode : "excess" or "deficit".
    """

    width_min: int | tuple[int, ...] = 1
    width_max: int | tuple[int, ...] | None = None
    width_step: int = 1
    scan_step: int = 1
    sideband: bool = False
    sideband_bins: int = 0
    mode: Mode = "excess"

    def __post_init__(self) -> None:
        if self.mode not in ("excess", "deficit"):
            raise InputError("bump hunt", "mode", self.mode, "excess or deficit")
        if not isinstance(self.sideband_bins, (int, np.integer)) or self.sideband_bins < 0:
            raise InputError("bump hunt", "sideband_bins", self.sideband_bins, "a whole number of at least 0")
        for name in ("width_min", "width_max", "width_step", "scan_step"):
            value = getattr(self, name)
            several = value if isinstance(value, tuple) and name.startswith("width_m") else (value,)
            good = all(isinstance(v, (int, np.integer)) and v > 0 for v in several)
            if not good and not (value is None and name == "width_max"):
                expected = "a positive whole number" + (", or a tuple of them" if name.startswith("width_m") else "")
                raise InputError("bump hunt", name, value, expected)


@dataclass(frozen=True)
class Bump:
    """The most significant window.

    Attributes
    ----------
    p_local : its p-value (0 if it is below 1e-308: `statistic` still holds it).
    statistic : -ln(p_local).
    low, high : first bin and one past the last bin, one entry an axis.
    observed, expected : events in the window; the expectation includes `scale`.
    scale : sideband normalisation, 1 without.
    n_windows : windows that were tested.
    """

    p_local: float
    statistic: float
    low: tuple[int, ...]
    high: tuple[int, ...]
    observed: float
    expected: float
    scale: float
    n_windows: int


@dataclass(frozen=True)
class Hunt:
    """Result of `hunt`.

    Attributes
    ----------
    bump : the window.
    p_global : fraction of the pseudo-experiments with at least the statistic of the data.
    p_interval : 68 % Clopper-Pearson interval of `p_global`; its upper end is the honest figure if no pseudo-experiment
        reached the data.
    z_global : one-sided Gaussian significance of `p_global`; of the upper end of the interval if `p_global` is 0.
    statistics : statistic of each pseudo-experiment, shape (n,).
    """

    bump: Bump
    p_global: float
    p_interval: tuple[float, float]
    z_global: float
    statistics: FloatArray


def scan(data: npt.ArrayLike, expected: npt.ArrayLike, windows: Windows | None = None) -> Bump:
    """The window with the smallest local p-value.

    Parameters
    ----------
    data, expected : histograms of the same shape, one or two dimensions; counts may have fractions.

    Raises
    ------
    InputError
        Negative or undefined bins, shapes that differ, an expectation of zero everywhere, widths that do not fit.

    Notes
    -----
    A window without expectation is not tested (its p-value counts as 1), as in pyBumpHunter; a one-dimensional scan
    starts and ends at the outermost bins with expectation.
    """
    chosen = windows or Windows()
    n, m = _checked(data, expected)
    best: tuple[float, tuple[int, ...], tuple[int, ...], float, float, float] | None = None
    tested = 0
    for low, width, observed, reference, scale, p in _local_p(n, m, chosen):
        tested += p.size
        i = int(np.argmin(p))
        if best is None or p[i] < best[0]:
            start = tuple(int(v) for v in low[i])
            best = (float(p[i]), start, width, float(observed[i]), float(reference[i]), float(scale[i]))
    if best is None:
        raise InputError("bump hunt", "windows", "none fits the histogram", "at least one")
    p_local, start, width, observed_, reference_, scale_ = best
    statistic = -np.log(p_local) if p_local >= _SMALLEST_P else -_log_tail(observed_, reference_, chosen.mode)
    return Bump(
        p_local=p_local,
        statistic=float(statistic) + 0.0,
        low=start,
        high=tuple(a + b for a, b in zip(start, width)),
        observed=observed_,
        expected=reference_,
        scale=scale_,
        n_windows=tested,
    )


def local_p_values(
    data: npt.ArrayLike, expected: npt.ArrayLike, windows: Windows | None = None
) -> dict[tuple[int, ...], FloatArray]:
    """Every local p-value, by width of the window; windows in the order of their first bin (rows first)."""
    n, m = _checked(data, expected)
    return {width: p for _, width, _, _, _, p in _local_p(n, m, windows or Windows())}


def pseudo_experiments(
    expected: npt.ArrayLike,
    n_experiments: int,
    rng: np.random.Generator,
    windows: Windows | None = None,
) -> FloatArray:
    """Statistic ``-ln(min p)`` of Poisson fluctuations of `expected`, shape (n_experiments,)."""
    _, m = _checked(expected, expected)
    if n_experiments < 1:
        raise InputError("bump hunt", "pseudo-experiments", n_experiments, "at least 1")
    out = np.empty(n_experiments)
    block = max(1, _SAMPLED_AT_ONCE // m.size)
    for start in range(0, n_experiments, block):
        size = min(block, n_experiments - start)
        out[start : start + size] = statistics_of(_poisson(m, size, rng), m, windows)
    return out


def statistics_of(counts: npt.ArrayLike, expected: npt.ArrayLike, windows: Windows | None = None) -> FloatArray:
    """Statistic ``-ln(min p)`` of many histograms of integer counts against one expectation.

    Parameters
    ----------
    counts : shape (*bins, n); the experiments are the last axis.
    expected : shape (*bins,).

    Raises
    ------
    InputError
        Negative or undefined bins, shapes that differ.
    """
    chosen = windows or Windows()
    m = check_histogram("bump hunt: expected", expected)
    n = np.asarray(counts)
    if n.shape[:-1] != m.shape:
        raise InputError("bump hunt", "counts", n.shape, f"{m.shape} and the experiments as the last axis")
    if n.shape[-1] < 1:
        raise InputError("bump hunt", "experiments", n.shape[-1], "at least 1")
    if n.dtype.kind not in "iufb" or not np.all(np.isfinite(n)) or n.min() < 0:
        raise InputError("bump hunt", "counts", "a negative or undefined bin", "finite counts >= 0")
    whole = np.issubdtype(n.dtype, np.integer) or bool(np.all(n == np.rint(n)))
    if chosen.mode == "deficit" or chosen.sideband or not whole:
        return _statistics_plain(n, m, chosen)
    return _statistics_screened(n, m, chosen)


def hunt(
    data: npt.ArrayLike,
    expected: npt.ArrayLike,
    rng: np.random.Generator,
    *,
    n_experiments: int = 10_000,
    windows: Windows | None = None,
) -> Hunt:
    """Scan the data and as many background-only pseudo-experiments as asked for.

    With sideband normalisation the experiments have as many events as the data, whatever the expectation is scaled to.
    """
    bump = scan(data, expected, windows)
    mean = np.asarray(expected, np.float64)
    if windows is not None and windows.sideband:
        n_total, m_total = _totals(np.asarray(data, np.float64), mean)
        mean = mean * (max(float(n_total), 1.0) / m_total)
    statistics = pseudo_experiments(mean, n_experiments, rng, windows)
    reached = int(np.count_nonzero(statistics >= bump.statistic))
    p_global = reached / n_experiments
    interval = clopper_pearson(reached, n_experiments)
    z = float(z_from_p(p_global if reached else interval[1]))
    return Hunt(bump=bump, p_global=p_global, p_interval=interval, z_global=z, statistics=statistics)


def _checked(data: npt.ArrayLike, expected: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    m = check_histogram("bump hunt: expected", expected)
    raw = np.asarray(data, np.float64)
    if raw.shape != m.shape:
        raise InputError("bump hunt", "data", f"shape {raw.shape}", f"shape {m.shape}, as expected has")
    if m.ndim not in (1, 2):
        raise InputError("bump hunt", "dimensions", m.ndim, "1 or 2")
    # No events at all in the data is a valid, if dull, outcome: only the expectation has to have some.
    n = check_histogram("bump hunt: data", raw) if raw.any() else raw
    return n, m


def _range(m: FloatArray, windows: Windows) -> list[tuple[int, int]]:
    """First and one past the last bin that windows may use, an axis at a time."""
    if m.ndim == 1:
        filled = np.flatnonzero(m)
        bounds = [(int(filled[0]), int(filled[-1]) + 1)]
    else:
        bounds = [(0, size) for size in m.shape]
    margin = windows.sideband_bins if windows.sideband else 0
    return [(low + margin, high - margin) for low, high in bounds]


def _widths(shape: Sequence[int], windows: Windows) -> list[tuple[int, ...]]:
    def each(value: int | tuple[int, ...]) -> tuple[int, ...]:
        values = tuple(value) if isinstance(value, tuple) else (value,) * len(shape)
        if len(values) != len(shape):
            raise InputError("bump hunt", "width", values, f"one number or {len(shape)}")
        return values

    least = each(windows.width_min)
    most = each(windows.width_max) if windows.width_max is not None else tuple(size // 2 for size in shape)
    if any(a > b for a, b in zip(least, most)):
        raise InputError("bump hunt", "widths", f"{least} to {most}", "width_min <= width_max")
    axes = [range(a, b + 1, windows.width_step) for a, b in zip(least, most)]
    return list(itertools.product(*axes))


def _table(values: npt.NDArray[Any], axes: int) -> FloatArray:
    """Summed-area table over the first `axes` axes, with a leading zero on each."""
    padded = np.zeros(tuple(s + 1 if i < axes else s for i, s in enumerate(values.shape)))
    inner = tuple(slice(1, None) for _ in range(axes))
    padded[inner] = values
    for axis in range(axes):
        np.cumsum(padded, axis=axis, out=padded)
    return padded


def _boxes(table: FloatArray, bounds: Sequence[tuple[int, int]], width: Sequence[int], step: int) -> FloatArray | None:
    """Counts in all boxes of one width, shape (positions on axis 0, [on axis 1,] ...); None if none fits."""
    if any(high - low < w for (low, high), w in zip(bounds, width)):
        return None
    ends = [(slice(low, high - w + 1, step), slice(low + w, high + 1, step)) for (low, high), w in zip(bounds, width)]
    if len(ends) == 1:
        ((low0, high0),) = ends
        return np.asarray(table[high0] - table[low0])
    (low0, high0), (low1, high1) = ends
    return np.asarray(table[high0, high1] - table[low0, high1] - table[high0, low1] + table[low0, low1])


def _expectation(
    table: FloatArray, bounds: Sequence[tuple[int, int]], width: Sequence[int], step: int
) -> FloatArray | None:
    """`_boxes` of an expectation: what the rounding of the sums leaves in an empty window is set to 0."""
    boxes = _boxes(table, bounds, width, step)
    return None if boxes is None else np.where(boxes > 1e-13 * table.max(), boxes, 0.0)


def _p_values(n: FloatArray, m: FloatArray, mode: Mode) -> FloatArray:
    """Local p-values where the count is on the tested side of a positive expectation, 1 elsewhere."""
    p = np.ones(n.shape)
    if mode == "excess":
        inside = (n > m) & (m > 0)
        p[inside] = poisson_tail(n[inside], m[inside])
    else:
        inside = n < m
        p[inside] = poisson_tail(n[inside] + 1.0, m[inside], upper=False)
    return p


def _scaled(
    n: FloatArray, m: FloatArray, n_total: FloatArray | float, m_total: float, windows: Windows
) -> tuple[FloatArray, FloatArray]:
    """Expectation after the sideband normalisation, and the scale; `m` broadcasts against `n`."""
    if not windows.sideband:
        return np.broadcast_to(m, n.shape), np.ones(n.shape)
    outside = m_total - m
    scale = np.where(outside > 0, (n_total - n) / np.where(outside > 0, outside, 1.0), 0.0)
    return np.asarray(m * scale), np.asarray(scale)


def _totals(n: npt.NDArray[Any], m: FloatArray) -> tuple[Any, float]:
    """Events of data and expectation in the range that the sideband normalisation uses."""
    if m.ndim == 1:
        filled = np.flatnonzero(m)
        inside = slice(int(filled[0]), int(filled[-1]) + 1)
        return n[inside].sum(axis=0), float(m[inside].sum())
    return n.sum(axis=tuple(range(m.ndim))), float(m.sum())


def _local_p(
    n: FloatArray, m: FloatArray, windows: Windows
) -> Iterator[tuple[npt.NDArray[np.int64], tuple[int, ...], FloatArray, FloatArray, FloatArray, FloatArray]]:
    """For each width: first bins (k, axes), width, observed, expected, scale and p-value (k,)."""
    bounds = _range(m, windows)
    n_table, m_table = _table(n, n.ndim), _table(m, m.ndim)
    n_total, m_total = _totals(n, m)
    for width in _widths(m.shape, windows):
        observed = _boxes(n_table, bounds, width, windows.scan_step)
        reference = _expectation(m_table, bounds, width, windows.scan_step)
        if observed is None or reference is None:
            continue
        starts = [np.arange(low, high - w + 1, windows.scan_step) for (low, high), w in zip(bounds, width)]
        first = np.stack([g.ravel() for g in np.meshgrid(*starts, indexing="ij")], axis=1)
        observed, reference = observed.ravel(), reference.ravel()
        reference, scale = _scaled(observed, reference, float(n_total), m_total, windows)
        p = _p_values(observed, reference, windows.mode)
        if windows.sideband:
            p = np.maximum(p, _SMALLEST_P)
        yield first, width, observed, reference, scale, p


def _log_tail(n: float, m: float, mode: Mode) -> float:
    """Logarithm of the Poisson tail where the tail itself underflows: leading term times a convergent series."""
    from scipy.special import gammaln

    if m <= 0:
        return -np.inf
    if n > LARGE_COUNT:
        return float(log_large_tail(n, m) if mode == "excess" else log_large_tail(n + 1.0, m, upper=False))
    leading = n * np.log(m) - m - float(gammaln(n + 1.0))
    k = np.arange(1.0, 2000.0)
    ratios = m / (n + k) if mode == "excess" else np.maximum(n + 1.0 - k, 0.0) / m
    return float(leading + np.log1p(np.cumprod(ratios).sum()))


def _statistics_plain(n: npt.NDArray[Any], m: FloatArray, windows: Windows) -> FloatArray:
    """Every window of every experiment: the reference, and the way for deficits and sideband normalisation."""
    bounds = _range(m, windows)
    n_table, m_table = _table(n, m.ndim), _table(m, m.ndim)
    n_total, m_total = _totals(np.asarray(n, np.float64), m)
    least = np.ones(n.shape[-1])
    for width in _widths(m.shape, windows):
        observed = _boxes(n_table, bounds, width, windows.scan_step)
        reference = _expectation(m_table, bounds, width, windows.scan_step)
        if observed is None or reference is None:
            continue
        reference, _ = _scaled(observed, reference[..., None], n_total, m_total, windows)
        p = _p_values(observed, reference, windows.mode).reshape(-1, n.shape[-1])
        np.minimum(least, p.min(axis=0), out=least)
    return np.asarray(-np.log(np.maximum(least, _SMALLEST_P)) + 0.0)


def _poisson(mean: FloatArray, size: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Poisson numbers, shape (*mean.shape, size): by inversion of a tabulated distribution where that is quicker.

    The table spans nine standard deviations and more (it leaves out less than 1e-18) and a guide to it finds most
    numbers without a search; large means and small samples go to numpy's generator.
    """
    from scipy.special import gammaln

    flat = mean.ravel()
    out = np.empty((flat.size, size), np.int64)
    for row, m in zip(out, flat):
        if size < 2000 or not 0.5 < m < 2e3:
            row[:] = rng.poisson(m, size)
            continue
        spread = 9.0 * np.sqrt(m)
        first = max(int(m - spread - 9.0), 0)
        k = np.arange(first, int(m + spread + 30.0))
        cumulative = np.cumsum(np.exp(k * np.log(m) - m - gammaln(k + 1.0)))
        cumulative /= cumulative[-1]
        guide = np.searchsorted(cumulative, np.arange(_GUIDE) / _GUIDE, side="right")
        u = rng.random(size)
        found = guide[(u * _GUIDE).astype(np.intp)]
        late = np.flatnonzero(u >= cumulative[found])
        found[late] = np.searchsorted(cumulative, u[late], side="right")
        np.add(found, first, out=row)
    return out.reshape(*mean.shape, size)


def _fill_boxes(
    table: npt.NDArray[np.float32],
    bounds: Sequence[tuple[int, int]],
    width: Sequence[int],
    step: int,
    out: npt.NDArray[np.float32],
) -> None:
    """`_boxes` into an array that exists already."""
    (low0, high0), *rest = [
        (slice(low, high - w + 1, step), slice(low + w, high + 1, step)) for (low, high), w in zip(bounds, width)
    ]
    if not rest:
        np.subtract(table[high0], table[low0], out=out)
        return
    ((low1, high1),) = rest
    np.subtract(table[high0, high1], table[low0, high1], out=out)
    out -= table[high0, low1]
    out += table[low0, low1]


def _corners(
    shape: Sequence[int], bounds: Sequence[tuple[int, int]], widths: Sequence[tuple[int, ...]], step: int
) -> list[tuple[float, npt.NDArray[np.intp]]]:
    """For each corner of a window: its sign in the count, and its flat index in the summed-area table."""
    padded = [size + 1 for size in shape]
    signs = list(itertools.product((1, 0), repeat=len(shape)))
    indices: list[list[npt.NDArray[np.intp]]] = [[] for _ in signs]
    for width in widths:
        starts = [np.arange(low, high - w + 1, step) for (low, high), w in zip(bounds, width)]
        grid = np.meshgrid(*starts, indexing="ij")
        for where, ends in zip(indices, signs):
            corner = tuple(g.ravel() + end * w for g, end, w in zip(grid, ends, width))
            where.append(np.asarray(np.ravel_multi_index(corner, padded), np.intp))
    return [((-1.0) ** (len(shape) - sum(ends)), np.concatenate(x)) for ends, x in zip(signs, indices)]


def _matrix(
    bins: int, corners: list[tuple[float, npt.NDArray[np.intp]]], slope: FloatArray, offset: FloatArray
) -> npt.NDArray[np.float32]:
    """Matrix (windows, bins + 1) that turns the differences of all bins, and a 1, into s."""
    (_, high), (_, low) = corners
    bin_number = np.arange(bins)
    inside = (bin_number >= low[:, None]) & (bin_number < high[:, None])
    # A window without expectation must never be looked at; -inf would turn into nan in a product with 0.
    return np.concatenate([inside * slope[:, None], np.maximum(offset, -50.0)[:, None]], axis=1).astype(np.float32)


def _tangent(m: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Slope and offset, in ``n - m``, of the tangent to the deviance root r(n) at r = `_REFERENCE_Z`.

    r is concave in n above m, so the tangent lies above it everywhere (a test checks both).
    """
    # Starting from the Gaussian point, Newton's method on a concave function stays on one side and converges quickly.
    n = m + _REFERENCE_Z * np.sqrt(m)
    for _ in range(40):
        log_ratio = np.log(n / m)
        r = np.sqrt(np.maximum(2.0 * (n * log_ratio - n + m), 1e-300))
        n = np.maximum(n + (_REFERENCE_Z - r) * r / log_ratio, m * (1.0 + 1e-12))
    log_ratio = np.log(n / m)
    r = np.sqrt(2.0 * (n * log_ratio - n + m))
    slope = log_ratio / r
    return slope, r - slope * (n - m)


def _statistics_screened(n: npt.NDArray[Any], m: FloatArray, windows: Windows) -> FloatArray:
    """The same numbers as `_statistics_plain` for excesses without sideband normalisation, most windows unseen.

    s(n) is linear in the count of a window and never below the normal quantile of its p-value. The window with the
    largest s gives a first p-value for each experiment, exactly; only windows with s above its quantile can beat it.
    """
    from scipy.special import ndtri

    bounds, step, experiments = _range(m, windows), windows.scan_step, n.shape[-1]
    m_table = _table(m, m.ndim)
    widths, means = [], []
    every = _widths(m.shape, windows)
    # Every fourth width first: among those the first guess is made.
    for width in every[1::4] + every[0::4] + every[2::4] + every[3::4]:
        reference = _expectation(m_table, bounds, width, step)
        if reference is not None:
            widths.append(width)
            means.append(reference)
    guess = sum(x.size for x in means[: max(1, (len(every) + 2) // 4)])
    mean = np.concatenate([x.ravel() for x in means]) if means else np.empty(0)
    if not mean.size:
        raise InputError("bump hunt", "windows", "none fits the histogram", "at least one")
    filled = mean > 0
    slope, offset = np.zeros(mean.size), np.full(mean.size, -np.inf)
    slope[filled], offset[filled] = _tangent(mean[filled])
    corners = _corners(m.shape, bounds, widths, step)
    out = np.empty(experiments)
    block = max(1, _BLOCK_ELEMENTS // mean.size)
    buffer = np.empty((mean.size, min(block, experiments)), np.float32)
    slope32, offset32 = slope.astype(np.float32)[:, None], offset.astype(np.float32)[:, None]
    # With few bins one matrix product makes all windows at once; with many, differences of sums are less work.
    matrix = _matrix(m.size, corners, slope, offset) if m.ndim == 1 and m.size <= _MATRIX_BINS else None
    for begin in range(0, experiments, block):
        counts = n[..., begin : begin + block]
        size = counts.shape[-1]
        # Differences from the expectation stay small, so that single precision is enough to screen with.
        difference = counts - m[..., None]
        table = _table(difference, m.ndim)
        s = buffer[:, :size] if size == buffer.shape[1] else np.empty((mean.size, size), np.float32)
        eps = float(np.finfo(np.float32).eps)
        if matrix is not None:
            single = np.ones((m.size + 1, size), np.float32)
            single[:-1] = difference
            np.matmul(matrix, single, out=s)
            error = 2.0 * eps * m.size * float((np.abs(matrix) @ np.abs(single).max(axis=1)).max())
        else:
            single = table.astype(np.float32)
            row = 0
            for width, reference in zip(widths, means):
                _fill_boxes(single, bounds, width, step, s[row : row + reference.size].reshape(*reference.shape, size))
                row += reference.size
            s *= slope32
            s += offset32
            error = 8.0 * eps * (float(np.abs(single).max()) * float(slope.max()) + 40.0)
        table = table.reshape(-1, size)
        least = np.ones(size)
        first, p = _exact(np.flatnonzero(s[:guess] == s[:guess].max(axis=0)), table, mean, corners)
        np.minimum.at(least, first, p)
        bound = np.maximum(-ndtri(least), 0.0) - error
        again, p = _exact(np.flatnonzero(s > bound.astype(np.float32)), table, mean, corners)
        np.minimum.at(least, again, p)
        out[begin : begin + size] = least
    return np.asarray(-np.log(np.maximum(out, _SMALLEST_P)) + 0.0)


def _exact(
    flat: npt.NDArray[np.intp],
    table: FloatArray,
    mean: FloatArray,
    corners: list[tuple[float, npt.NDArray[np.intp]]],
) -> tuple[npt.NDArray[np.intp], FloatArray]:
    """Experiment and exact p-value of the windows `flat` (window x experiment), from tables of ``n - m``."""
    window, experiment = np.divmod(flat, table.shape[1])
    mu = mean[window]
    excess = mu.copy()
    for sign, corner in corners:
        excess += sign * table[corner[window], experiment]
    # Counts are whole numbers: rounding removes what the table's sums lost.
    count = np.rint(excess)
    return experiment, np.where(count > mu, poisson_tail(np.maximum(count, 1.0), mu), 1.0)
