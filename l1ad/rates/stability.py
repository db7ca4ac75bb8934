"""Does a threshold give the same rate everywhere in the data?

`GroupSums` gathers weights by run, lumi section, bunch position or pile-up, exactly and in any order; `Stability` is
the table that follows from it and `drift_test` asks whether the rate is the same in all groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from l1ad.events.store import Events
from l1ad.rates.exact import ExactSums, FloatArray, IntArray
from l1ad.rates.intervals import Counts, block_counts
from l1ad.rates.rates import pileup_bin

#: What the events may be grouped by, and what the keys are.
VARIABLES = {
    "pileup": "average pile-up or number of vertices, to the nearest whole number",
    "run": "run number",
    "lumi": "run number times 2^32 plus lumi section",
    "bx": "bunch position",
}
#: Groups are joined with their neighbours until this many passing events are expected in each.
MIN_EXPECTED = 5.0
#: Fewer blocks than this do not tell a variance.
MIN_BLOCKS = 20
LUMI_BITS = 32


def group_keys(events: Events, variable: str) -> IntArray | None:
    """The group of each event, int64 (N,); None if the data lacks the columns."""
    columns = events.columns
    if variable == "pileup":
        return None if events.n_pv is None else pileup_bin(events.n_pv)
    if variable == "lumi":
        if "lumi" not in columns:
            return None
        run = columns["run"].astype(np.int64) if "run" in columns else np.zeros(len(events), dtype=np.int64)
        return np.asarray((run << LUMI_BITS) + columns["lumi"].astype(np.int64))
    return columns[variable].astype(np.int64) if variable in columns else None


class GroupSums:
    """Exact sums by group: all weights, and for each threshold the weights and squared weights that pass.

    Attributes
    ----------
    keys : int64 (G,), rising.
    sums : 1 + 2 T of them, of G bins: all, then weight and squared weight for each of T thresholds.
    """

    def __init__(self, n_thresholds: int) -> None:
        self.n_thresholds = n_thresholds
        self.keys: IntArray = np.zeros(0, dtype=np.int64)
        self.sums = [ExactSums(0) for _ in range(1 + 2 * n_thresholds)]

    def fill(self, keys: IntArray, weight: FloatArray, passing: Sequence[tuple[IntArray, FloatArray]]) -> None:
        """Add events.

        Parameters
        ----------
        keys, weight : (N,).
        passing : for each threshold the indices of the events that pass and the weight each counts with.
        """
        unique, inverse = np.unique(keys, return_inverse=True)
        part = GroupSums(self.n_thresholds)
        part.keys = unique
        part.sums = [ExactSums(len(unique)) for _ in self.sums]
        part.sums[0].add(inverse, weight)
        for i, (index, counted) in enumerate(passing):
            part.sums[1 + 2 * i].add(inverse[index], counted)
            part.sums[2 + 2 * i].add(inverse[index], counted * counted)
        self.merge(part)

    def merge(self, other: GroupSums) -> None:
        """Add the groups of another one of as many thresholds."""
        keys = np.union1d(self.keys, other.keys)
        merged = [ExactSums(len(keys)) for _ in self.sums]
        for part in (self, other):
            index = np.searchsorted(keys, part.keys)
            for total, exact in zip(merged, part.sums):
                total.merge(exact, index)
        self.keys, self.sums = keys, merged

    def table(self, variable: str, threshold: int) -> Stability:
        """The table of the threshold with index `threshold`."""
        parts = [self.sums[i].to_float() for i in (0, 1 + 2 * threshold, 2 + 2 * threshold)]
        return Stability(variable, self.keys, *parts)

    def write(self, group: h5py.Group) -> None:
        """Write to an HDF5 group."""
        group["keys"] = self.keys
        for i, exact in enumerate(self.sums):
            exact.carry()
            for power, limb in exact.limbs.items():
                group[f"{i}/{power}"] = limb

    @classmethod
    def read(cls, group: h5py.Group, n_thresholds: int) -> GroupSums:
        """Read what `write` wrote."""
        result = cls(n_thresholds)
        result.keys = group["keys"][:]
        n = len(result.keys)
        result.sums = [
            ExactSums(n, {int(power): limb[:] for power, limb in group.get(str(i), {}).items()})
            for i in range(1 + 2 * n_thresholds)
        ]
        return result


@dataclass(frozen=True, eq=False)
class Stability:
    """The passing share of each group of events.

    Attributes
    ----------
    variable : a key of `VARIABLES`.
    keys : int64 (G,), rising.
    all_w : (G,) weight of all events.
    tail_w, tail_w2 : (G,) weight and squared weight of those that pass.
    """

    variable: str
    keys: IntArray
    all_w: FloatArray
    tail_w: FloatArray
    tail_w2: FloatArray

    @property
    def fraction(self) -> float:
        """Share of all weight that passes."""
        return float(self.tail_w.sum() / self.all_w.sum())

    def joined(self, *, min_expected: float = MIN_EXPECTED, max_groups: int | None = None) -> Stability:
        """Neighbouring groups thrown together until each expects enough passing events; the first key names a group."""
        unit = float(self.tail_w2.sum() / self.tail_w.sum()) if self.tail_w.any() else 1.0
        expected = self.fraction * self.all_w / unit
        wanted = max(min_expected, float(expected.sum()) / max_groups) if max_groups else min_expected
        label = np.zeros(len(expected), dtype=np.int64)
        current, gathered = 0, 0.0
        for i, value in enumerate(expected.tolist()):
            if gathered >= wanted:
                current, gathered = current + 1, 0.0
            label[i] = current
            gathered += value
        if gathered < wanted and current:
            label[label == current] = current - 1
        first = np.searchsorted(label, np.arange(label[-1] + 1)) if len(label) else np.zeros(0, dtype=np.int64)
        sums = [np.bincount(label, column) for column in (self.all_w, self.tail_w, self.tail_w2)]
        all_w, tail_w, tail_w2 = (np.asarray(column, dtype=np.float64) for column in sums)
        return Stability(self.variable, self.keys[first], all_w, tail_w, tail_w2)

    def labels(self) -> list[str]:
        """Keys for people: ``run:lumi`` for lumi sections."""
        if self.variable != "lumi":
            return [str(key) for key in self.keys.tolist()]
        return [f"{key >> LUMI_BITS}:{key & ((1 << LUMI_BITS) - 1)}" for key in self.keys.tolist()]

    def effective_counts(self) -> Counts | None:
        """Counts with the error that the scatter between groups shows; None if there are too few groups."""
        if len(self.keys) < MIN_BLOCKS or int((self.tail_w > 0).sum()) < MIN_BLOCKS // 2:
            return None
        return block_counts(self.tail_w, self.all_w)


@dataclass(frozen=True)
class DriftTest:
    """Whether the rate is the same in all groups.

    Attributes
    ----------
    variable : what the groups are.
    groups : number of groups after joining.
    chi2, ndf, chi2_p_value : scatter of the groups about the common rate.
    cusum, cusum_p_value : largest distance of the running sum of (found - expected) from 0, in standard deviations of
        the whole sum, and its probability if the rate is constant.
    cusum_at : label of the group at which it is reached: where a change of rate would lie.
    """

    variable: str
    groups: int
    chi2: float
    ndf: int
    chi2_p_value: float
    cusum: float
    cusum_p_value: float
    cusum_at: str

    def to_json(self) -> dict[str, Any]:
        """JSON types."""
        return dict(vars(self))


def drift_test(table: Stability) -> DriftTest | None:
    """Chi-square and CUSUM test of a constant rate; None if the events make up fewer than two groups.

    With p the common fraction, a group of weight W expects p W with variance p W r, where r is the mean weight of the
    passing events weighted by itself (1 for counts, times 1 - p). The running sum of the differences, over the root of
    the summed variances, is a Brownian bridge if the rate is constant, and its largest modulus follows the distribution
    of Kolmogorov (Brown, Durbin and Evans, J. R. Stat. Soc. B 37 (1975) 149).
    """
    from scipy.special import kolmogorov
    from scipy.stats import chi2 as chi2_distribution

    groups = table.joined()
    if len(groups.keys) < 2 or not groups.tail_w.any():
        return None
    fraction = groups.fraction
    unit = float(groups.tail_w2.sum() / groups.tail_w.sum())
    expected = fraction * groups.all_w
    variance = expected * unit * (1.0 - fraction)
    difference = groups.tail_w - expected
    chi2 = float((difference**2 / variance).sum())
    ndf = len(expected) - 1
    running = np.cumsum(difference) / np.sqrt(variance.sum())
    worst = int(np.argmax(np.abs(running)))
    cusum = float(abs(running[worst]))
    return DriftTest(
        table.variable,
        len(expected),
        chi2,
        ndf,
        float(chi2_distribution.sf(chi2, ndf)),
        cusum,
        float(kolmogorov(cusum)),
        groups.labels()[worst],
    )
