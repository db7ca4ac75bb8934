"""`ScoreHistogram`: how many events, and with what weight, have each integer score.

A score is a word of 18 bits, so that a histogram with one bin an integer loses nothing: any threshold, its rate and its
interval follow from it, in memory that does not grow with the number of events. Histograms of chunks, files and workers
are merged, and the result does not depend on how the events were divided: counts are integers and sums of weights are
exact (`l1ad.rates.exact`).
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar, get_args

import h5py
import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.rates import counting
from l1ad.rates.exact import ExactSums, FloatArray, IntArray
from l1ad.scores import SCORE_BITS

Kind = Literal["total", "pure", "proportional"]
Number = TypeVar("Number", np.int64, np.float64)
KINDS: tuple[Kind, ...] = get_args(Kind)

N_SCORES = 1 << SCORE_BITS
_SMALLEST_CAPACITY = 1 << 12
_SMALLEST_BLOCK = 1 << 16
_WEIGHTED_BLOCK = 1 << 18


def check_kind(kind: str) -> Kind:
    """The kind of rate itself.

    Raises
    ------
    InputError
        If it is none of total, pure and proportional.
    """
    for known in KINDS:
        if kind == known:
            return known
    raise InputError("rate", "kind", kind, f"one of {', '.join(KINDS)}")


class ScoreHistogram:
    """Counts, sums of weights and sums of squared weights by integer score, for each kind of rate.

    In ``total`` every event has its weight w; in ``pure`` w times the chance that no seed of the menu fires; in
    ``proportional`` w times the mean of 1 / (1 + number of fired seeds of the menu). The last two exist if the
    histogram was filled with a menu.

    Attributes
    ----------
    has_menu : whether pure and proportional were filled.
    capacity : number of bins held, a power of two above the largest score so far.
    counts : int64 (capacity,) events by score with a weight above 0, by kind.
    """

    def __init__(self, *, has_menu: bool = False) -> None:
        self.has_menu = has_menu
        self.capacity = _SMALLEST_CAPACITY
        self.counts: dict[Kind, IntArray] = {kind: np.zeros(self.capacity, dtype=np.int64) for kind in self.kinds}
        # Events of weight exactly 1 are only counted; the rest goes into exact sums.
        self._ones: dict[Kind, IntArray] = {kind: np.zeros(self.capacity, dtype=np.int64) for kind in self.kinds}
        self._sums: dict[Kind, tuple[ExactSums, ExactSums]] = {}
        self._n_events = 0

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of rate that this histogram can give."""
        return KINDS if self.has_menu else ("total",)

    @property
    def n_events(self) -> int:
        """Number of events filled, those of weight 0 among them."""
        return self._n_events

    @property
    def is_weighted(self) -> bool:
        """Whether any event had a weight other than 1."""
        return "total" in self._sums

    def fill(
        self,
        scores: npt.NDArray[np.integer[Any]],
        weight: FloatArray | None = None,
        *,
        chance_none: FloatArray | None = None,
        mean_share: FloatArray | None = None,
        where: str = "events",
        threads: int = 1,
    ) -> None:
        """Add events.

        Parameters
        ----------
        scores : integers (N,) in [0, 2^18).
        weight : (N,) not negative; 1 each without it.
        chance_none, mean_share : (N,) of `l1ad.menu.MenuDecision`; both or neither, as `has_menu` says.
        where : what error messages call the input.
        threads : of this process, used where nothing but the scores is counted.

        Raises
        ------
        InputError
            If scores are no integers or out of range, or weights are negative, NaN or infinite (with their number).
        """
        if not np.issubdtype(scores.dtype, np.integer):
            raise InputError(where, "scores", scores.dtype, "integers")
        if (chance_none is not None and mean_share is not None) != self.has_menu:
            raise InputError(where, "menu decisions", "none" if self.has_menu else "some", "the same in every chunk")
        if weight is not None:
            check_weights(weight, where=where)
            if bool((weight == 1.0).all()):
                weight = None
        plain = weight is None and not self.has_menu
        counts = counting.count(scores, threads=threads) if plain else None
        if counts is not None:
            self.add_counts(counts)
            return
        start = 0
        while start < len(scores):
            # A block outweighs a pass over all bins, and otherwise stays in the cache.
            stop = start + (max(_SMALLEST_BLOCK, 8 * self.capacity) if plain else _WEIGHTED_BLOCK)
            part = slice(start, stop)
            start = stop
            self._fill_block(
                scores[part],
                None if weight is None else weight[part],
                None if chance_none is None else chance_none[part],
                None if mean_share is None else mean_share[part],
                where,
            )

    def add_counts(self, counts: IntArray) -> None:
        """Add events of weight 1 that have been counted: `counts` (B,) by score, of a histogram without a menu."""
        self._grow(len(counts))
        self._n_events += int(counts.sum())
        self.counts["total"][: len(counts)] += counts
        self._ones["total"][: len(counts)] += counts

    def _fill_block(
        self,
        scores: npt.NDArray[np.integer[Any]],
        weight: FloatArray | None,
        chance_none: FloatArray | None,
        mean_share: FloatArray | None,
        where: str,
    ) -> None:
        if not len(scores):
            return
        low, high = int(scores.min()), int(scores.max())
        if low < 0 or high >= N_SCORES:
            raise InputError(where, "scores", low if low < 0 else high, f"0 to {N_SCORES - 1}")
        self._grow(high + 1)
        scores = scores.astype(np.intp, copy=False)
        self._n_events += len(scores)
        if weight is None:
            counts = np.bincount(scores, minlength=self.capacity)
            self.counts["total"] += counts
            self._ones["total"] += counts
        else:
            self._add("total", scores, weight)
        if chance_none is not None and mean_share is not None:
            self._add("pure", scores, chance_none if weight is None else weight * chance_none)
            self._add("proportional", scores, mean_share if weight is None else weight * mean_share)

    def _add(self, kind: Kind, scores: npt.NDArray[np.integer[Any]], weight: FloatArray) -> None:
        ones = weight == 1.0
        counts = np.bincount(scores[ones], minlength=self.capacity)
        self.counts[kind] += counts
        self._ones[kind] += counts
        rest = np.flatnonzero(~ones & (weight > 0))
        if not len(rest):
            return
        scores, weight = scores[rest], weight[rest]
        self.counts[kind] += np.bincount(scores, minlength=self.capacity)
        sum_w, sum_w2 = self._sums_of(kind)
        sum_w.add(scores, weight)
        sum_w2.add(scores, weight * weight)

    def _sums_of(self, kind: Kind) -> tuple[ExactSums, ExactSums]:
        if kind not in self._sums:
            self._sums[kind] = (ExactSums(self.capacity), ExactSums(self.capacity))
        return self._sums[kind]

    def _grow(self, n_bins: int) -> None:
        if n_bins <= self.capacity:
            return
        capacity = self.capacity
        while capacity < n_bins:
            capacity *= 2
        for table in (self.counts, self._ones):
            for kind, array in table.items():
                table[kind] = np.pad(array, (0, capacity - self.capacity))
        for sums in self._sums.values():
            for exact in sums:
                exact.grow(capacity)
        self.capacity = capacity

    def merge(self, other: ScoreHistogram) -> None:
        """Add the events of another histogram.

        Raises
        ------
        InputError
            If one was filled with a menu and the other without.
        """
        if other.has_menu != self.has_menu:
            raise InputError("histograms", "menu decisions", other.has_menu, self.has_menu)
        self._grow(other.capacity)
        other._grow(self.capacity)
        self._n_events += other._n_events
        for kind, counts in other.counts.items():
            self.counts[kind] += counts
            self._ones[kind] += other._ones[kind]
        for kind, theirs in other._sums.items():
            for mine, sums in zip(self._sums_of(kind), theirs):
                mine.merge(sums)

    def tails(self, kind: str = "total") -> Tails:
        """Counts and sums at or above each threshold.

        Raises
        ------
        InputError
            If the histogram was filled without a menu and `kind` needs one.
        """
        name = check_kind(kind)
        if name not in self.kinds:
            raise InputError("histogram", f"{name} rate", "no menu decisions", "events with menu bits, or a menu")
        sums = []
        for i in range(2):
            exact = self._sums[name][i].tail() if name in self._sums else ExactSums(self.capacity)
            exact.add_counts(_tail(self._ones[name]))
            sums.append(at_all_scores(exact.to_float()))
        return Tails(at_all_scores(_tail(self.counts[name])), *sums, weighted=name in self._sums)

    # ------------------------------------------------------------------ files

    def write(self, group: h5py.Group) -> None:
        """Write the filled bins to an HDF5 group."""
        filled = np.flatnonzero(self.counts["total"])
        group.attrs["has_menu"] = self.has_menu
        group.attrs["n_events"] = self._n_events
        group["scores"] = filled
        for kind in self.kinds:
            group[f"{kind}/counts"] = self.counts[kind][filled]
            group[f"{kind}/ones"] = self._ones[kind][filled]
        for kind, sums in self._sums.items():
            for name, exact in zip(("sum_w", "sum_w2"), sums):
                exact.carry()
                for power, limb in exact.limbs.items():
                    group[f"{kind}/{name}/{power}"] = limb[filled]

    @classmethod
    def read(cls, group: h5py.Group) -> ScoreHistogram:
        """Read what `write` wrote."""
        result = cls(has_menu=bool(group.attrs["has_menu"]))
        result._n_events = int(group.attrs["n_events"])
        filled = group["scores"][:]
        if len(filled):
            result._grow(int(filled[-1]) + 1)

        def spread(dataset: h5py.Dataset) -> IntArray:
            full = np.zeros(result.capacity, dtype=np.int64)
            full[filled] = dataset[:]
            return full

        for kind in result.kinds:
            result.counts[kind] = spread(group[f"{kind}/counts"])
            result._ones[kind] = spread(group[f"{kind}/ones"])
            if f"{kind}/sum_w" in group:
                limbs = [
                    {int(power): spread(dataset) for power, dataset in group[f"{kind}/{name}"].items()}
                    for name in ("sum_w", "sum_w2")
                ]
                result._sums[kind] = (ExactSums(result.capacity, limbs[0]), ExactSums(result.capacity, limbs[1]))
        return result


class Tails:
    """Counts and sums at or above each threshold 0 ... 2^18 (the last one is passed by nothing).

    Attributes
    ----------
    counts : int64 (2^18 + 1,).
    sum_w, sum_w2 : float64 (2^18 + 1,), never rising with the threshold.
    weighted : whether any event had a weight other than 1.
    """

    def __init__(self, counts: IntArray, sum_w: FloatArray, sum_w2: FloatArray, *, weighted: bool) -> None:
        self.counts, self.sum_w, self.sum_w2, self.weighted = counts, sum_w, sum_w2, weighted


def at_all_scores(values: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """`values` of the first thresholds, and 0 for the others: shape (2^18 + 1,)."""
    # Memory that the system hands out is zero: where nothing is written, none is touched.
    result = np.zeros(N_SCORES + 1, dtype=values.dtype)
    result[: len(values)] = values
    return result


def check_weights(weight: FloatArray, *, where: str) -> None:
    """Check that weights are finite and not negative.

    Raises
    ------
    InputError
        With the number of weights that are not. A negative weight is refused, not averaged away: with it a rate could
        rise with the threshold, and no threshold would be the smallest.
    """
    if not np.isfinite(weight).all():
        raise InputError(where, "weight", f"{int((~np.isfinite(weight)).sum())} NaN or infinite", "finite numbers")
    negative = int((weight < 0).sum())
    if negative:
        raise InputError(where, "weight", f"{negative} of {len(weight)} negative", "0 or more")


def _tail(counts: IntArray) -> IntArray:
    return np.asarray(np.cumsum(counts[::-1])[::-1], dtype=np.int64)
