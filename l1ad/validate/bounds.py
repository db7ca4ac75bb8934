"""Tighter intervals than those of the interval proof: what linear programming knows about correlated inputs.

`tighten(program)` bounds every output of every dense layer over a relaxation that contains all crossings: each layer is
linear in the one before, a rectifier lies in the triangle over its interval (R. Ehlers, arXiv:1705.01320), a saturation
in the one over its own, and a square below chords. Bounds are widened by one code, for the solver's tolerance must not
make them wrong. They prove that a saturation or a width is out of reach of any input where plain intervals cannot.
`out_of_reach(...)` asks for one code of one element alone, which is decided where a bound of it is not.

Both stop after the time they are given; what is not proven by then is not claimed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.trigger.fixed import FixedType
from l1ad.trigger.graph import Program
from l1ad.trigger.nodes import Concat, Dense, Interval, Lut, Multiply, Node, Quantize, Relu, Take, cast_interval
from l1ad.validate.separable import separable

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bounds:
    """Intervals before (`exact`) and after (`cast`) the cast of every node, by name."""

    exact: dict[str, Interval]
    cast: dict[str, Interval]


#: Branches that the solver may open for one bound of a mixed-integer program; what it has proven by then counts.
_NODES = 400
#: Pieces of each side of a square; the chord over one lies at most a quarter of its squared width above it.
_PIECES = 2
#: Entries of a table are small up to this part of its largest one.
_TABLE_PART = 64


def tighten(program: Program, *, integer: bool = False, seconds: float = 600.0) -> Bounds:
    """Bounds of every node over all input words.

    Parameters
    ----------
    integer : decide for each rectifier whether it is open (V. Tjeng et al., arXiv:1711.07356): tighter and slower.
    seconds : after which the remaining elements keep their plain intervals.
    """
    exact: dict[str, Interval] = {}
    cast: dict[str, Interval] = {}
    relaxation = _Relaxation()
    deadline = time.monotonic() + seconds
    for node in program.nodes:
        interval = node.exact_interval(*(cast[name] for name in node.inputs))
        if isinstance(node, Dense):
            terms = separable(program, node, cast)
            if terms is not None:
                low, high = np.maximum(interval.low, terms.low), np.minimum(interval.high, terms.high)
                interval = Interval(low, high, interval.fraction)
            interval = relaxation.bound_dense(node, interval, integer=integer, deadline=deadline)
        exact[node.name] = interval
        cast[node.name] = cast_interval(node.type, interval)
        relaxation.add(node, interval, cast[node.name])
    return Bounds(exact, cast)


def out_of_reach(
    program: Program, bounds: Bounds, node: str, element: int, code: int, *, upward: bool, seconds: float = 300.0
) -> bool:
    """Whether no input word drives an element of a dense layer to `code` (before its cast) or beyond.

    Parameters
    ----------
    bounds : of the program, by `tighten`.
    upward : beyond means above; below otherwise.
    seconds : after which it stays open, and the answer is no.
    """
    from scipy.optimize import LinearConstraint

    target = program.node(node)
    if not isinstance(target, Dense):
        return False
    relaxation = _Relaxation()
    for other in program.nodes:
        if other.name == node:
            break
        relaxation.add(other, bounds.exact[other.name], bounds.cast[other.name])
    cost, bias = relaxation.cost(target, element)
    # One code less than asked for: the solver's tolerance must not prove what is not so.
    value = (code - (1 if upward else -1)) * 2.0 ** -bounds.exact[node].fraction - bias
    limits = (value, np.inf) if upward else (-np.inf, value)
    found = relaxation.solve(
        np.zeros_like(cost),
        integer=True,
        options={"time_limit": seconds},
        also=LinearConstraint(cost[None, :], *limits),
    )
    # 2: infeasible, in scipy's numbers.
    return bool(found is not None and found.status == 2)


class _Relaxation:
    """Linear constraints over the real values of the elements added so far."""

    def __init__(self) -> None:
        self.low: list[float] = []
        self.high: list[float] = []
        self.binary: list[bool] = []
        self.columns: dict[str, npt.NDArray[np.int64]] = {}
        self.fractions: dict[str, int] = {}
        # Rows (indices, coefficients, bound): sum <= bound.
        self.rows: list[tuple[list[int], list[float], float]] = []
        self._system: tuple[int, Any] | None = None

    def add(self, node: Node, exact: Interval, cast: Interval) -> None:
        """A variable for each element, within its interval, and how it hangs on its sources."""
        unit = 2.0**-cast.fraction
        start = len(self.low)
        self.low += [float(code) * unit for code in cast.low]
        self.high += [float(code) * unit for code in cast.high]
        self.binary += [False] * len(cast)
        mine = np.arange(start, start + len(cast))
        self.columns[node.name] = mine
        self.fractions[node.name] = cast.fraction
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
        elif isinstance(node, Lut):
            self._table(node, mine, self.fractions[node.inputs[0]])
            return
        elif isinstance(node, Multiply):
            if node.inputs[0] == node.inputs[1]:
                self._square(node, mine, above, reach)
            else:
                self._product(node, mine, above, reach)
            return
        else:
            return
        for i, (y, x) in enumerate(zip(mine.tolist(), of.tolist(), strict=True)):
            over, under, wraps = (bool(flag[i]) for flag in reach)
            if wraps:
                continue
            low, high = self.low[x], self.high[x]
            if isinstance(node, Relu):
                if high > 0:
                    self._at_least(y, x, below, over)
                if low < 0 < high:
                    # Open (z = 1) or shut: y <= x + low (z - 1) and y <= high z; z between them is the triangle.
                    z = self._binary()
                    self._row([y, x, z], [1.0, -1.0, -low], above - low)
                    self._row([y, z], [1.0, -(high + above)], 0.0)
                elif low >= 0:
                    self._row([y, x], [1.0, -1.0], above)
                continue
            self._at_least(y, x, below, over)
            if not under:
                self._row([y, x], [1.0, -1.0], above)
            else:
                # At the lower end (z = 1) or above it.
                z, bottom, top = self._binary(), self.low[y], self.high[y]
                self._row([y, x, z], [1.0, -1.0, low + above - bottom], above)
                self._row([y, z], [1.0, top - bottom], top)

    def _at_least(self, y: int, x: int, below: float, over: bool) -> None:
        """``y >= x - below``, unless y has come to its upper end."""
        if not over:
            self._row([x, y], [1.0, -1.0], below)
            return
        # At the upper end (z = 1) or below it: y >= x - (high - top) z and y >= bottom + (top - bottom) z.
        z, bottom, top = self._binary(), self.low[y], self.high[y]
        self._row([x, y, z], [1.0, -1.0, -(self.high[x] - top)], below)
        self._row([y, z], [-1.0, top - bottom], -bottom)

    def _binary(self) -> int:
        """A variable that is 0 or 1."""
        self.low.append(0.0)
        self.high.append(1.0)
        self.binary.append(True)
        return len(self.low) - 1

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
        """A square lies below the chords over pieces of its interval, one of which holds its root."""
        for i, (y, x) in enumerate(zip(mine.tolist(), self.columns[node.inputs[0]].tolist(), strict=True)):
            low, high = self.low[x], self.high[x]
            if reach[2][i] or low == high:
                continue
            # Zero is an edge: from there both sides rise.
            sides = [(low, 0.0), (0.0, high)] if low < 0 < high else [(low, high)]
            edges = np.unique(np.concatenate([np.linspace(*side, _PIECES + 1) for side in sides]))
            widths, slopes = np.diff(edges), edges[:-1] + edges[1:]
            # x = edge + the filled parts of the pieces; a piece is entered (z = 1) when the one before it is full.
            parts = list(range(len(self.low), len(self.low) + len(widths)))
            self.low += [0.0] * len(parts)
            self.high += widths.tolist()
            self.binary += [False] * len(parts)
            self._row([x, *parts], [1.0, *[-1.0] * len(parts)], edges[0])
            self._row([x, *parts], [-1.0, *[1.0] * len(parts)], -edges[0])
            for before, after, full, width in zip(parts, parts[1:], widths.tolist(), widths[1:].tolist(), strict=False):
                z = self._binary()
                self._row([after, z], [1.0, -width], 0.0)
                self._row([before, z], [-1.0, full], 0.0)
            self._row([y, *parts], [1.0, *(-slopes).tolist()], edges[0] ** 2 + above)

    def _table(self, node: Lut, mine: npt.NDArray[np.int64], fraction: int) -> None:
        """A table that only rises, or only falls, is small unless its input is beyond a point."""
        unit, rows = node.type.lsb, np.broadcast_to(node.tables, (node.n, node.tables.shape[1]))
        for y, x, row in zip(mine.tolist(), self.columns[node.inputs[0]].tolist(), rows, strict=True):
            grid = 2.0**-fraction
            begin, end = (round(limit / grid) - node.first for limit in (self.low[x], self.high[x]))
            values, steps = row[begin : end + 1], np.diff(row[begin : end + 1])
            rises = bool((steps >= 0).all())
            if len(values) < 2 or not (rises or (steps <= 0).all()) or values.min() == values.max():
                continue
            large = values > values.min() + (int(values.max()) - int(values.min())) // _TABLE_PART
            # Beyond the point (z = 1) or at most the largest of the small ones.
            z, top, small = self._binary(), float(values.max()) * unit, float(values[~large].max()) * unit
            self._row([y, z], [1.0, small - top], small)
            if rises:
                point = (begin + int(large.argmax()) + node.first) * grid
                self._row([x, z], [-1.0, point - self.low[x]], -self.low[x])
            else:
                point = (begin + int(np.flatnonzero(large)[-1]) + node.first) * grid
                self._row([x, z], [1.0, self.high[x] - point], self.high[x])

    def _product(
        self, node: Node, mine: npt.NDArray[np.int64], above: float, reach: tuple[npt.NDArray[np.bool_], ...]
    ) -> None:
        """A product of two numbers that are never negative is at most one of them times the other's largest value."""
        sources = [self.columns[name].tolist() for name in node.inputs]
        for i, (y, a, b) in enumerate(zip(mine.tolist(), *sources, strict=True)):
            if not reach[2][i] and self.low[a] >= 0 and self.low[b] >= 0:
                self._row([y, a], [1.0, -self.high[b]], above)
                self._row([y, b], [1.0, -self.high[a]], above)

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

    def cost(self, node: Dense, j: int) -> tuple[FloatArray, float]:
        """An output of a dense layer as coefficients of the variables, and its bias."""
        used, weights, bias = _column(node, j)
        coefficients = np.zeros(len(self.low))
        np.add.at(coefficients, self.columns[node.inputs[0]][used], weights)
        return coefficients, bias

    def solve(self, cost: FloatArray, *, integer: bool, options: dict[str, Any], also: Any = None) -> Any:
        """scipy's answer for the least `cost`, or None if nothing is known that could constrain it."""
        from scipy.optimize import Bounds as Box
        from scipy.optimize import LinearConstraint, milp
        from scipy.sparse import csr_matrix

        if not self.rows:
            return None
        if self._system is None or self._system[0] != len(self.rows):
            pointers = np.cumsum([0, *(len(row[0]) for row in self.rows)])
            indices = np.concatenate([row[0] for row in self.rows])
            data = np.concatenate([row[1] for row in self.rows])
            matrix = csr_matrix((data, indices, pointers), shape=(len(self.rows), len(self.low)))
            self._system = len(self.rows), LinearConstraint(matrix, -np.inf, np.array([row[2] for row in self.rows]))
        constraints = [self._system[1], *([] if also is None else [also])]
        kinds = np.array(self.binary, dtype=int) if integer else None
        box = Box(np.array(self.low), np.array(self.high))
        return milp(cost, integrality=kinds, bounds=box, constraints=constraints, options=options)

    def bound_dense(self, node: Dense, plain: Interval, *, integer: bool, deadline: float) -> Interval:
        """The exact interval of a dense layer over the relaxation, never wider than the plain one."""
        low, high = plain.low.copy(), plain.high.copy()
        scale = 2.0**plain.fraction
        for j in range(node.size):
            cost, bias = self.cost(node, j)
            if not cost.any():
                continue
            for sign in (1.0, -1.0):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                found = self.solve(
                    sign * cost, integer=integer, options={"node_limit": _NODES, "time_limit": max(left, 1.0)}
                )
                proven = None if found is None else found.mip_dual_bound if integer else found.fun
                # A linear program that was cut short has no bound that counts.
                if proven is None or not np.isfinite(proven) or (not integer and found.status != 0):
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
