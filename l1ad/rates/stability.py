"""Does a threshold give the same rate everywhere in the data?

`GroupSums` gathers weights by run, lumi section, bunch position or pile-up, exactly and in any order; `Stability` is
the table that follows from it and `drift_test` asks whether the rate is the same in all groups.
"""

from __future__ import annotations

import math
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
    """Exact sums by group: weights and squared weights of all events, and of those that pass each threshold.

    Attributes
    ----------
    keys : int64 (G,), rising.
    sums : 2 + 2 T of them, of G bins: weight and squared weight of all, then of what passes each of T thresholds.
    """

    def __init__(self, n_thresholds: int) -> None:
        self.n_thresholds = n_thresholds
        self.keys: IntArray = np.zeros(0, dtype=np.int64)
        self.sums = [ExactSums(0) for _ in range(2 + 2 * n_thresholds)]

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
        everything = np.arange(len(keys))
        for i, (index, counted) in enumerate([(everything, weight), *passing]):
            part.sums[2 * i].add(inverse[index], counted)
            part.sums[2 * i + 1].add(inverse[index], counted * counted)
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
        parts = [self.sums[i].to_float() for i in (0, 1, 2 + 2 * threshold, 3 + 2 * threshold)]
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
            for i in range(2 + 2 * n_thresholds)
        ]
        return result


@dataclass(frozen=True, eq=False)
class Stability:
    """The passing share of each group of events.

    Attributes
    ----------
    variable : a key of `VARIABLES`.
    keys : int64 (G,), rising.
    all_w, all_w2 : (G,) weight and squared weight of all events.
    tail_w, tail_w2 : (G,) weight and squared weight of those that pass.
    """

    variable: str
    keys: IntArray
    all_w: FloatArray
    all_w2: FloatArray
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
        columns = (self.all_w, self.all_w2, self.tail_w, self.tail_w2)
        sums = [np.bincount(label, column).astype(np.float64) for column in columns]
        return Stability(self.variable, self.keys[first], *sums)

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
        the whole sum, and the chance of one as large if the rate is constant.
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

    With p the common fraction, the sum T - p W of a group (T the weight that passes, W that of all) has expectation 0
    and, to first order, the variance (1 - 2p) V + p^2 U: U is the sum of all squared weights of the group, and V the
    sum of the squared weights that pass, taken as its share W / sum W of all groups', since a group's own V is large
    where T happens to be. For counts that is p (1 - p) W. The running sum of the differences, over the root of the
    summed variances, is a Brownian bridge if the rate is constant (Brown, Durbin and Evans, J. R. Stat. Soc. B 37
    (1975) 149); `bridge_p_value` says how often it goes as far.
    """
    from scipy.stats import chi2 as chi2_distribution

    groups = table.joined()
    if len(groups.keys) < 2 or not groups.tail_w.any():
        return None
    fraction = groups.fraction
    difference = groups.tail_w - fraction * groups.all_w
    share = groups.all_w / groups.all_w.sum()
    variance = (1.0 - 2.0 * fraction) * groups.tail_w2.sum() * share + fraction**2 * groups.all_w2
    if not (variance > 0).all():
        return None
    chi2 = float((difference**2 / variance).sum())
    ndf = len(difference) - 1
    running = np.cumsum(difference) / np.sqrt(variance.sum())
    worst = int(np.argmax(np.abs(running)))
    cusum = float(abs(running[worst]))
    return DriftTest(
        table.variable,
        len(difference),
        chi2,
        ndf,
        float(chi2_distribution.sf(chi2, ndf)),
        cusum,
        bridge_p_value(cusum, variance / variance.sum()),
        groups.labels()[worst],
    )


def bridge_p_value(level: float, steps: FloatArray) -> float:
    """Chance that a Brownian bridge, looked at between `steps` only, is somewhere `level` or more away from 0.

    Looked at everywhere, the largest distance follows the distribution of Kolmogorov; between two looks it goes further
    than at them, so that this would be too large a chance. Where all steps are short, `level` moves out by the mean
    overshoot 0.5826 times the root-mean-square step (Siegmund, Sequential Analysis (1985), chapter X.2); otherwise the
    density of the paths that have stayed inside is integrated from look to look.

    Parameters
    ----------
    level : in standard deviations of the whole sum.
    steps : (G,) variances of the steps, summing to 1.
    """
    from scipy.special import kolmogorov

    if level <= 0.0:
        return 1.0
    if level > _FAR:
        return float(kolmogorov(level))
    if steps.max() <= _SHORT_STEP:
        return float(kolmogorov(level + 0.5826 * math.sqrt(float(np.square(steps).sum()))))
    width = 2.0 * level / _NODES
    nodes: FloatArray = np.asarray((np.arange(_NODES) + 0.5) * width - level, dtype=np.float64)
    # A step shorter than the nodes are apart is made together with the next one.
    looks, gathered = [], 0.0
    for step in steps[:-1].tolist():
        gathered += step
        if gathered >= (2.0 * width) ** 2:
            looks.append(gathered)
            gathered = 0.0
    last = gathered + float(steps[-1])
    if not looks:
        return float(kolmogorov(level))
    inside = _normal(nodes, looks[0])
    for step in looks[1:]:
        inside = _normal(nodes[:, None] - nodes[None, :], step) @ inside * width
    back = float(_normal(nodes, last) @ inside) * width / float(_normal(np.zeros(1), 1.0)[0])
    return min(max(1.0 - back, 0.0), 1.0)


#: A bridge of no step longer than this share of its variance is handled by the continuity correction.
_SHORT_STEP = 0.03
#: Beyond this the chance is below 1e-5 and the one of Kolmogorov, which is too large, does.
_FAR = 2.5
_NODES = 200


def _normal(x: FloatArray, variance: float) -> FloatArray:
    return np.asarray(np.exp(-0.5 * x * x / variance) / math.sqrt(2.0 * math.pi * variance))
