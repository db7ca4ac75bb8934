"""Tighter intervals than those of the interval proof: what linear programming knows about correlated inputs.

`tighten(program)` bounds every output of every dense layer over a relaxation that contains all crossings: each layer is
linear in the one before, and a rectifier lies in the triangle over its interval (R. Ehlers, arXiv:1705.01320). Bounds
are widened by one code, so that the solver's tolerance cannot make them wrong. They prove that a saturation or a width
is out of reach of any input where plain intervals cannot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from l1ad.trigger.fixed import FixedType
from l1ad.trigger.nodes import Concat, Dense, Interval, Multiply, Node, Quantize, Relu, Take, cast_interval
from l1ad.trigger.program import Program

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bounds:
    """Intervals before (`exact`) and after (`cast`) the cast of every node, by name."""

    exact: dict[str, Interval]
    cast: dict[str, Interval]


#: Branches that the solver may open for one bound of a mixed-integer program; what it has proven by then counts.
_NODES = 400


def tighten(program: Program, *, integer: bool = False) -> Bounds:
    """Bounds of every node over all input words.

    Parameters
    ----------
    integer : decide for each rectifier whether it is open (V. Tjeng et al., arXiv:1711.07356): tighter and slower.
    """
    exact: dict[str, Interval] = {}
    cast: dict[str, Interval] = {}
    relaxation = _Relaxation()
    for node in program.nodes:
        interval = node.exact_interval(*(cast[name] for name in node.inputs))
        if isinstance(node, Dense):
            interval = relaxation.bound_dense(node, interval, integer=integer)
        exact[node.name] = interval
        cast[node.name] = cast_interval(node.type, interval)
        relaxation.add(node, interval, cast[node.name])
    return Bounds(exact, cast)


class _Relaxation:
    """Linear constraints over the real values of the elements added so far."""

    def __init__(self) -> None:
        self.low: list[float] = []
        self.high: list[float] = []
        self.binary: list[bool] = []
        self.columns: dict[str, npt.NDArray[np.int64]] = {}
        # Rows (indices, coefficients, bound): sum <= bound.
        self.rows: list[tuple[list[int], list[float], float]] = []

    def add(self, node: Node, exact: Interval, cast: Interval) -> None:
        """A variable for each element, within its interval, and how it hangs on its sources."""
        unit = 2.0**-cast.fraction
        start = len(self.low)
        self.low += [float(code) * unit for code in cast.low]
        self.high += [float(code) * unit for code in cast.high]
        self.binary += [False] * len(cast)
        mine = np.arange(start, start + len(cast))
        self.columns[node.name] = mine
        below, above = _rounding(node.type, exact.fraction)
        reach = self._reach(node.type, exact)
        if isinstance(node, (Relu, Quantize)):
            of = self.columns[node.inputs[0]]
        elif isinstance(node, Take):
            of = self.columns[node.inputs[0]][node.index]
        elif isinstance(node, Concat):
            of = np.concatenate([self.columns[name] for name in node.inputs])
        elif isinstance(node, Dense):
            self._dense(node, mine, below, above, reach)
            return
        elif isinstance(node, Multiply) and node.inputs[0] == node.inputs[1]:
            self._square(node, mine, above, reach)
            return
        else:
            return
        for i, (y, x) in enumerate(zip(mine.tolist(), of.tolist(), strict=True)):
            over, under, wraps = (bool(flag[i]) for flag in reach)
            if wraps:
                continue
            if isinstance(node, Relu):
                low, high = self.low[x], self.high[x]
                if high > 0 and not over:
                    self._row([x, y], [1.0, -1.0], below)
                if low < 0 < high:
                    # Open (z = 1) or shut: y <= x + low (z - 1) and y <= high z; z between them is the triangle.
                    z = len(self.low)
                    self.low.append(0.0)
                    self.high.append(1.0)
                    self.binary.append(True)
                    self._row([y, x, z], [1.0, -1.0, -low], above - low)
                    self._row([y, z], [1.0, -(high + above)], 0.0)
                elif low >= 0:
                    self._row([y, x], [1.0, -1.0], above)
                continue
            if not over:
                self._row([x, y], [1.0, -1.0], below)
            if not under:
                self._row([y, x], [1.0, -1.0], above)

    def _dense(
        self,
        node: Dense,
        mine: npt.NDArray[np.int64],
        below: float,
        above: float,
        reach: tuple[npt.NDArray[np.bool_], ...],
    ) -> None:
        source = self.columns[node.inputs[0]]
        for j, y in enumerate(mine):
            if any(flag[j] for flag in reach):
                continue
            used, weights, bias = _column(node, j)
            indices = [int(y), *(int(i) for i in source[used])]
            self._row(indices, [1.0, *(-weights)], bias + above)
            self._row(indices, [-1.0, *weights], -bias + below)

    def _square(
        self, node: Node, mine: npt.NDArray[np.int64], above: float, reach: tuple[npt.NDArray[np.bool_], ...]
    ) -> None:
        """A square lies below the chord of its interval."""
        for i, (y, x) in enumerate(zip(mine, self.columns[node.inputs[0]], strict=True)):
            low, high = self.low[x], self.high[x]
            if not reach[2][i]:
                self._row([int(y), int(x)], [1.0, -(low + high)], above - low * high)

    @staticmethod
    def _reach(kind: FixedType, exact: Interval) -> tuple[npt.NDArray[np.bool_], ...]:
        """Elements that can leave the type upwards, downwards, and by wrapping."""
        low, high = kind.round(exact.low, exact.fraction), kind.round(exact.high, exact.fraction)
        bottom = -kind.max_code if kind.overflow == "SAT_SYM" and kind.signed else kind.min_code
        over, under = high > kind.max_code, low < bottom
        wraps = (over | under) & (not kind.overflow.startswith("SAT") or kind.overflow == "SAT_ZERO")
        return over, under, wraps

    def _row(self, indices: list[int], coefficients: list[float], bound: float) -> None:
        self.rows.append((indices, coefficients, bound))

    def bound_dense(self, node: Dense, plain: Interval, *, integer: bool) -> Interval:
        """The exact interval of a dense layer over the relaxation, never wider than the plain one."""
        from scipy.optimize import Bounds as Box
        from scipy.optimize import LinearConstraint, milp
        from scipy.sparse import csr_matrix

        if not self.rows:
            return plain
        pointers = np.cumsum([0, *(len(row[0]) for row in self.rows)])
        indices = np.concatenate([row[0] for row in self.rows])
        data = np.concatenate([row[1] for row in self.rows])
        matrix = csr_matrix((data, indices, pointers), shape=(len(self.rows), len(self.low)))
        limits = np.array([row[2] for row in self.rows])
        constraint = LinearConstraint(matrix, -np.inf, limits)
        box = Box(np.array(self.low), np.array(self.high))
        kinds = np.array(self.binary, dtype=int) if integer else None
        columns = self.columns[node.inputs[0]]
        low, high = plain.low.copy(), plain.high.copy()
        scale = 2.0**plain.fraction
        for j in range(node.size):
            used, weights, bias = _column(node, j)
            if not len(used):
                continue
            cost = np.zeros(len(self.low))
            np.add.at(cost, columns[used], weights)
            for sign in (1.0, -1.0):
                found = milp(
                    sign * cost, integrality=kinds, bounds=box, constraints=constraint, options={"node_limit": _NODES}
                )
                proven = found.mip_dual_bound if integer else found.fun
                if proven is None or not np.isfinite(proven):
                    continue
                value = (sign * proven + bias) * scale
                if sign > 0:
                    low[j] = max(low[j], int(np.floor(value)) - 1)
                else:
                    high[j] = min(high[j], int(np.ceil(value)) + 1)
        return Interval(np.minimum(low, high), np.maximum(low, high), plain.fraction)


def _column(node: Dense, j: int) -> tuple[npt.NDArray[np.int64], FloatArray, float]:
    """Used inputs, real weights and bias of an output."""
    used = np.flatnonzero(node.weights[:, j])
    weights = np.ldexp(node.weights[used, j].astype(np.float64), -node.weight_type.fraction)
    return used, weights, float(np.ldexp(float(node.bias[j]), -node.bias_type.fraction))


def _rounding(kind: FixedType, fraction: int) -> tuple[float, float]:
    """How far a rounding can go down and up."""
    if fraction <= kind.fraction:
        return 0.0, 0.0
    if kind.rounding == "TRN":
        return kind.lsb, 0.0
    if kind.rounding == "TRN_ZERO":
        return kind.lsb, kind.lsb
    return kind.lsb / 2, kind.lsb / 2
