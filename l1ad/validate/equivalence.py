"""Proofs that a mutation changes no score for any input word.

`Prover(program).reason(mutation)` is the proof in words, or nothing. Three kinds, the cheap ones first: casts compared
on every code that can be (together with the cast that reads them), paths that end before the score, and codes that no
input reaches, over bounds of `l1ad.validate.bounds`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from l1ad.trigger.fixed import Codes, FixedType
from l1ad.trigger.graph import Program
from l1ad.trigger.nodes import Concat, Dense, Lut, Maximum, Multiply, Node, Quantize, Relu, Scale, Take
from l1ad.validate.bounds import Bounds, out_of_reach, tighten
from l1ad.validate.mutants import Mutation

#: Exact codes of an interval that are cast one by one to prove two types alike.
ENUMERATED = 1 << 25
_AT_A_TIME = 1 << 20
#: What `Prover.reason` may use, from quick to slow.
LEVELS = ("", "linear programming", "reach", "integer programming")


class Prover:
    """Proofs of equivalence for the mutations of one program; its bounds are made once, and only as tight as needed.

    Parameters
    ----------
    seconds : that integer programming may take for all proofs together; what is not proven by then is not claimed.
    """

    def __init__(self, program: Program, *, seconds: float = 900.0) -> None:
        self.program = program
        self._left = seconds
        self._known: dict[str, Bounds] = {}
        # By node, element and direction: the nearest code that was proven out of reach, and the farthest that was not.
        self._proven: dict[tuple[str, int, bool], int] = {}
        self._open: dict[tuple[str, str, int, bool], int] = {}

    def reason(self, change: Mutation, *, levels: Sequence[str] = LEVELS) -> str:
        """The proof that a mutation changes no score for any input, or an empty string.

        Parameters
        ----------
        levels : of `LEVELS`: plain intervals, those of linear programming, codes out of reach over these, and over the
            bounds of integer programming, which take minutes.
        """
        for level in levels:
            bounds = self._bounds("linear programming" if level == "reach" else level)
            affected = _affected(self.program, change, bounds)
            if not affected.any():
                return _local_reason(self.program, change, bounds) + (f" (bounds by {level})" if level else "")
            if level in ("reach", "integer programming"):
                proof = self._out_of_reach(change, level, bounds, affected)
                if proof:
                    return proof
                # A second program would take as long: a path that is dead only by its bounds is left to the search.
                continue
            after = _BOUNDS[level](change.program)
            if self.program.score not in _spread(self.program, change, affected, bounds, after):
                how = f" (bounds by {level})" if level else ""
                return f"nothing that depends on it reaches the score: every path is constant or has weight 0{how}"
        return ""

    def _bounds(self, level: str) -> Bounds:
        if level not in self._known:
            if level == "integer programming":
                begin = time.monotonic()
                self._known[level] = tighten(self.program, integer=True, seconds=self._left / 2)
                self._left = max(0.0, self._left - (time.monotonic() - begin))
            else:
                self._known[level] = _BOUNDS[level](self.program)
        return self._known[level]

    def _never(self, level: str, bounds: Bounds, node: str, element: int, code: int, *, upward: bool) -> bool:
        """Whether no input drives an element to `code` or beyond, as far as the time that is left allows to say."""
        key, sign = (node, element, upward), 1 if upward else -1
        if key in self._proven and sign * code >= sign * self._proven[key]:
            return True
        asked = (level, *key)
        if asked in self._open and sign * code <= sign * self._open[asked]:
            return False
        begin = time.monotonic()
        proven = out_of_reach(self.program, bounds, node, element, code, upward=upward, seconds=self._left / 2)
        self._left = max(0.0, self._left - (time.monotonic() - begin))
        if proven:
            self._proven[key] = code
        else:
            self._open[asked] = code
        return proven

    def _out_of_reach(self, change: Mutation, level: str, bounds: Bounds, affected: npt.NDArray[np.bool_]) -> str:
        """The proof that no input reaches the codes at which the mutant differs."""
        if change.kind == "table":
            return self._not_addressed(change, level, bounds, affected)
        before, after = self.program.node(change.node), change.program.node(change.node)
        a, b = before.type, after.type
        if change.kind not in ("overflow", "width") or (a.fraction, a.rounding) != (b.fraction, b.rounding):
            return ""
        drop = bounds.exact[before.name].fraction - a.fraction
        if drop < 0:
            return ""
        # On the grid itself nothing is rounded: up to here, and not a code further, both types hold the same.
        low, high = max(a.min_code, b.min_code) << drop, min(a.max_code, b.max_code) << drop
        summed = _sum_of(self.program, before, bounds)
        if summed is None:
            return ""
        exact = bounds.exact[summed.name]
        for i in np.flatnonzero(affected):
            for beyond, end, upward in ((exact.high[i] > high, high + 1, True), (exact.low[i] < low, low - 1, False)):
                # What is below zero a rectifier does not see.
                seen = upward or not isinstance(before, Relu)
                if beyond and seen and not self._never(level, bounds, summed.name, int(i), end, upward=upward):
                    return ""
        return f"no input drives it beyond {low} to {high}, where both cast alike (infeasible by integer programming)"

    def _not_addressed(self, change: Mutation, level: str, bounds: Bounds, affected: npt.NDArray[np.bool_]) -> str:
        """The proof that no input addresses the entry of a table that was changed."""
        before, after = self.program.node(change.node), change.program.node(change.node)
        assert isinstance(before, Lut)
        assert isinstance(after, Lut)
        entry = int(np.flatnonzero((before.tables != after.tables).any(axis=0))[0]) + before.first
        source = self.program.node(before.inputs[0])
        summed = _sum_of(self.program, source, bounds)
        if summed is None or summed is source:
            return ""
        exact = bounds.exact[summed.name]
        for i in np.flatnonzero(affected):
            codes = np.arange(int(exact.low[i]), int(exact.high[i]) + 1)
            hits = codes[source.evaluate(codes[:, None], fractions=(exact.fraction,))[:, 0] == entry]
            if not len(hits):
                continue
            # Casts keep order: beyond the nearer end of what leads to the entry there is the entry and worse.
            upward = bool(hits[0] - codes[0] > codes[-1] - hits[-1])
            end = int(hits[0] if upward else hits[-1])
            if not self._never(level, bounds, summed.name, int(i), end, upward=upward):
                return ""
        return "no input addresses it (infeasible by integer programming)"


def _sum_of(program: Program, node: Node, bounds: Bounds) -> Node | None:
    """The layer that a node is or casts, if its sum comes there as it is; else None."""
    if not isinstance(node, (Quantize, Relu)):
        return node
    summed = program.node(node.inputs[0])
    exact = bounds.exact[summed.name]
    return summed if exact.fraction == summed.type.fraction and summed.type.holds(*exact.span) else None


def _plain(program: Program) -> Bounds:
    cast = program.intervals
    exact = {node.name: node.exact_interval(*(cast[name] for name in node.inputs)) for node in program.nodes}
    return Bounds(exact, cast)


_BOUNDS: dict[str, Callable[[Program], Bounds]] = {
    "": _plain,
    "linear programming": tighten,
}


def _local_reason(program: Program, change: Mutation, bounds: Bounds) -> str:
    if change.kind == "weight":
        return "its input is always 0"
    if change.kind in ("shift", "offset"):
        return f"every word of input {change.element} gives the same code"
    if change.kind == "table":
        return "no code of the interval addresses it"
    node = program.node(change.node)
    if isinstance(node, Multiply) and node.inputs[0] == node.inputs[1]:
        return "every square is cast alike"
    low, high = bounds.exact[change.node].span
    reader = _reader(program, node)
    alone = _unlike(program, node, change.program.node(node.name), bounds, None)
    return f"every exact code from {low} to {high} that can be is cast alike" + (
        f", as {reader.name} reads it" if reader is not None and alone.any() else ""
    )


def _affected(program: Program, change: Mutation, bounds: Bounds) -> npt.NDArray[np.bool_]:
    """Elements of the node that may differ for some input."""
    before, after = program.node(change.node), change.program.node(change.node)
    everything = np.ones(before.size, dtype=bool)
    sources = [bounds.cast[name] for name in before.inputs]
    one = np.zeros(before.size, dtype=bool)
    if change.element >= 0:
        one[change.element] = True
    if isinstance(before, Dense) and isinstance(after, Dense) and change.kind == "weight":
        (source,) = sources
        touched = (before.weights != after.weights) & ((source.low != 0) | (source.high != 0))[:, None]
        return np.asarray(touched.any(axis=0))
    if isinstance(before, Scale) and change.kind in ("shift", "offset"):
        (source,) = sources
        low, high = int(source.low[change.element]), int(source.high[change.element])
        words = np.tile(np.arange(low, high + 1)[:, None], (1, before.size))
        same = [node.evaluate(words, fractions=(0,))[:, change.element] for node in (before, after)]
        return one if (same[0] != same[1]).any() else np.zeros_like(one)
    if isinstance(before, Lut) and isinstance(after, Lut) and change.kind == "table":
        (source,) = sources
        columns = np.flatnonzero((before.tables != after.tables).any(axis=0)) + before.first
        hit = ((source.low[:, None] <= columns) & (columns <= source.high[:, None])).any(axis=1)
        return np.asarray(hit & (one if change.element >= 0 else everything))
    if change.kind in ("rounding", "overflow", "width"):
        return _unlike(program, before, after, bounds, _reader(program, before))
    return one if change.element >= 0 else everything


def _reader(program: Program, node: Node) -> Node | None:
    """The cast that alone reads a node, if there is one: what it does not tell apart nothing does."""
    readers = [other for other in program.nodes if node.name in other.inputs]
    if len(readers) == 1 and isinstance(readers[0], (Quantize, Relu)) and node.name != program.score:
        return readers[0]
    return None


def _unlike(program: Program, before: Node, after: Node, bounds: Bounds, reader: Node | None) -> npt.NDArray[np.bool_]:
    """Elements of a node of which two types cast a code differently that can be, as `reader` sees it."""
    exact, strides = bounds.exact[before.name], _strides(program, before)
    result = np.ones(before.size, dtype=bool)
    for i in range(before.size):
        if isinstance(before, Multiply) and before.inputs[0] == before.inputs[1]:
            source = bounds.cast[before.inputs[0]]
            squares = np.arange(int(source.low[i]), int(source.high[i]) + 1) ** 2
            result[i] = not _same_values(before.type, after.type, squares, exact.fraction, reader)
        else:
            low, high = int(exact.low[i]), int(exact.high[i])
            result[i] = not _cast_alike(before.type, after.type, low, high, exact.fraction, int(strides[i]), reader)
    return result


def _strides(program: Program, node: Node) -> Codes:
    """A number that divides every exact code of each element, by the weights of the layer that it is or quantises."""
    ones = np.ones(node.size, dtype=np.int64)
    source = program.node(node.inputs[0]) if isinstance(node, (Quantize, Relu)) else node
    if not isinstance(source, Dense):
        return ones
    weights, bias, total = source.aligned(program.node(source.inputs[0]).type.fraction)
    if source is not node and (total != source.type.fraction or source.type.overflow != "WRAP"):
        return ones
    # Wrapping keeps what a power of two divides.
    whole = np.gcd.reduce(np.vstack([weights, bias[None, :]]), axis=0)
    return np.where(whole > 0, whole & -whole, 1)


def _cast_alike(
    a: FixedType, b: FixedType, low: int, high: int, fraction: int, stride: int, reader: Node | None
) -> bool:
    """Whether two types cast every multiple of `stride` from `low` to `high` alike, as `reader` sees it."""
    first = -(-low // stride) * stride
    count = (high - first) // stride + 1
    if count > ENUMERATED:
        drops = fraction > min(a.fraction, b.fraction) and (a.rounding, a.fraction) != (b.rounding, b.fraction)
        return not drops and all(
            kind.holds(int(kind.round(np.array([low]), fraction)[0]), int(kind.round(np.array([high]), fraction)[0]))
            for kind in (a, b)
        )
    return all(
        _same_values(a, b, first + stride * np.arange(begin, min(begin + _AT_A_TIME, count)), fraction, reader)
        for begin in range(0, count, _AT_A_TIME)
    )


def _same_values(a: FixedType, b: FixedType, codes: Codes, fraction: int, reader: Node | None) -> bool:
    grid = max(a.fraction, b.fraction)
    left, right = (kind.cast(codes, fraction) << (grid - kind.fraction) for kind in (a, b))
    if reader is None or (left == right).all():
        return bool((left == right).all())
    read = [reader.evaluate(side, fractions=(grid,)) for side in (left, right)]
    return bool((read[0] == read[1]).all())


def _spread(
    program: Program, change: Mutation, affected: npt.NDArray[np.bool_], before: Bounds, after: Bounds
) -> dict[str, npt.NDArray[np.bool_]]:
    """Elements that may differ between the two programs, by node; nodes where none does are left out."""
    # A constant is the same in both programs if both intervals are that one point.
    first, second = before.cast, after.cast

    def constant(name: str) -> npt.NDArray[np.bool_]:
        a, b = first[name], second[name]
        grid = max(a.fraction, b.fraction)
        same = (a.low << (grid - a.fraction)) == (b.low << (grid - b.fraction))
        return np.asarray((a.low == a.high) & (b.low == b.high) & same)

    result: dict[str, npt.NDArray[np.bool_]] = {}
    if (affected & ~constant(change.node)).any():
        result[change.node] = affected & ~constant(change.node)
    for node in program.nodes[1:]:
        if node.name == change.node or not any(name in result for name in node.inputs):
            continue
        sources = [result.get(name, np.zeros(program.node(name).size, dtype=bool)) for name in node.inputs]
        reached = _reach(node, sources) & ~constant(node.name)
        if reached.any():
            result[node.name] = reached
    return result


def _reach(node: Node, sources: Sequence[npt.NDArray[np.bool_]]) -> npt.NDArray[np.bool_]:
    """Elements of a node that read a marked element."""
    if isinstance(node, Dense):
        return np.asarray((node.weights[sources[0]] != 0).any(axis=0))
    if isinstance(node, Take):
        return np.asarray(sources[0][node.index])
    if isinstance(node, Maximum):
        return np.asarray(sources[0][node.groups].any(axis=1))
    if isinstance(node, Concat):
        return np.concatenate(sources)
    return np.asarray(np.logical_or.reduce(sources))
