"""A check that cannot fail is no check: programs with one thing changed, and whether the events catch each.

`mutations` lists them; `run` scores each on the events that the validation uses. One that no event catches must be
proven to change nothing, or the check has a hole. A width that is narrowed by one bit where no crossing is known to use
it is narrowed further, until one does: what is asked is whether the check sees a word that is too small.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from l1ad.errors import TriggerError
from l1ad.trigger.fixed import Codes, FixedType, Overflow, Rounding
from l1ad.trigger.graph import Program
from l1ad.trigger.nodes import (
    Concat,
    Dense,
    Input,
    Interval,
    Lut,
    Maximum,
    Multiply,
    Node,
    Quantize,
    Relu,
    Scale,
    Take,
)
from l1ad.validate.adversarial import words
from l1ad.validate.ascent import exact_values
from l1ad.validate.bounds import Bounds, out_of_reach, tighten

#: Exact codes of an interval that are cast one by one to prove two types alike.
ENUMERATED = 1 << 22
_CHUNK = 16384


@dataclass(frozen=True)
class Mutation:
    """One change.

    Attributes
    ----------
    kind : ``weight``, ``bias``, ``shift``, ``offset``, ``rounding``, ``overflow``, ``width`` or ``table``.
    what : in words.
    node : that was changed, and `element` of it, or -1 for all.
    program : with the change.
    """

    kind: str
    what: str
    node: str
    element: int
    program: Program


@dataclass(frozen=True)
class Outcome:
    """What became of a mutation.

    Attributes
    ----------
    kind, what, node : of the mutation.
    caught : whether an event saw it.
    event : the first that did.
    events : with another score, among those compared.
    equivalent : proven to change no score for any input.
    undecided : neither: no event known changes a code of the node itself, and no proof ended in its time.
    reason : the proof, or how it was caught.
    """

    kind: str
    what: str
    node: str
    caught: bool
    event: int | None = None
    events: int = 0
    equivalent: bool = False
    undecided: bool = False
    reason: str = ""

    @property
    def missed(self) -> bool:
        """Whether the check has a hole: codes differ, and no score shows it."""
        return not (self.caught or self.equivalent or self.undecided)


def mutations(program: Program, rng: np.random.Generator, *, per_node: int = 2) -> Iterator[Mutation]:
    """Changes of every kind in every node: `per_node` of each kind."""
    for node in program.nodes[1:]:
        yield from _parameters(program, node, rng, per_node)
        yield from _types(program, node)


def _mutation(program: Program, kind: str, what: str, node: Node, changed: Node, element: int) -> Mutation:
    nodes = tuple(changed if other.name == node.name else other for other in program.nodes)
    text = f"{node.name}{'' if element < 0 else f'[{element}]'}: {what}"
    return Mutation(kind, text, node.name, element, replace(program, nodes=nodes))


def _parameters(program: Program, node: Node, rng: np.random.Generator, n: int) -> Iterator[Mutation]:
    if isinstance(node, Dense):
        # One weight of those that are used, one anywhere: also those that pruning made zero.
        used = np.argwhere(node.weights != 0)
        places = [used[rng.integers(len(used))] for _ in range(n - n // 2) if len(used)]
        places += [np.array([rng.integers(size) for size in node.weights.shape]) for _ in range(n // 2)]
        for i, j in (tuple(int(k) for k in place) for place in places):
            weights = node.weights.copy()
            weights[i, j] ^= 1
            what = f"weight of input {i}: {node.weights[i, j]} to {weights[i, j]}"
            yield _mutation(program, "weight", what, node, replace(node, weights=weights), j)
        j = int(rng.integers(node.size))
        bias = node.bias.copy()
        bias[j] ^= 1
        what = f"bias: {node.bias[j]} to {bias[j]}"
        yield _mutation(program, "bias", what, node, replace(node, bias=bias), j)
    if isinstance(node, Scale):
        for _ in range(n):
            j = int(rng.integers(node.size))
            for kind in ("shift", "offset"):
                codes: Codes = getattr(node, kind).copy()
                step = 1 if kind == "shift" else 1 << max(node.word.fraction, 0)
                codes[j] += step if codes[j] <= 0 or kind == "offset" else -step
                what = f"{kind}: {getattr(node, kind)[j]} to {codes[j]}"
                changed = replace(node, shift=codes) if kind == "shift" else replace(node, offset=codes)
                yield _mutation(program, kind, what, node, changed, j)
    if isinstance(node, Lut):
        low, high = program.intervals[node.inputs[0]].span
        for _ in range(n):
            row = int(rng.integers(len(node.tables)))
            entry = int(rng.integers(low - node.first, high - node.first + 1))
            tables = node.tables.copy()
            tables[row, entry] ^= 1
            what = f"entry of code {entry + node.first}: {node.tables[row, entry]} to {tables[row, entry]}"
            element = row if len(tables) > 1 else -1
            yield _mutation(program, "table", what, node, replace(node, tables=tables), element)


def _types(program: Program, node: Node) -> Iterator[Mutation]:
    kind = node.type
    if isinstance(node, (Take, Concat, Input)):
        return
    rounding: Sequence[Rounding] = [r for r in ("TRN", "RND") if r != kind.rounding]
    other: Overflow = "SAT" if kind.overflow == "WRAP" else "WRAP"
    changes: list[tuple[str, FixedType]] = [("rounding", replace(kind, rounding=r)) for r in rounding]
    changes.append(("overflow", replace(kind, overflow=other)))
    if kind.width > 2:
        changes.append(("width", replace(kind, width=kind.width - 1, integer=kind.integer - 1)))
        if node.name != program.score:
            changes.append(("width", replace(kind, width=kind.width - 1)))
    assert set(rounding) <= set(get_args(Rounding))
    for what, changed in changes:
        try:
            mutation = _mutation(program, what, f"{kind} to {changed}", node, replace(node, type=changed), -1)
            _ = mutation.program.intervals
        except TriggerError:
            # The interval proof refuses it already, such as codes beyond the end of a table: it is no program.
            continue
        yield mutation


def run(
    program: Program,
    inputs: npt.NDArray[np.integer[Any]],
    golden: Codes,
    changes: Sequence[Mutation],
    *,
    seconds: float = 180.0,
) -> list[Outcome]:
    """Whether the events see each mutation; those they do not see are proven equivalent, or reported as missed.

    Parameters
    ----------
    inputs, golden : events (N, inputs) of the validation and their scores (N,).
    seconds : that all proofs by integer programming may take together; a slower machine may leave more undecided.
    """
    open_ = dict(enumerate(changes))
    outcomes: dict[int, Outcome] = {}
    differs: set[int] = set()
    for begin in range(0, len(inputs), _CHUNK):
        if not open_:
            break
        values = program.evaluate(np.asarray(inputs[begin : begin + _CHUNK]))
        for i, change in list(open_.items()):
            fresh = _changed(change, values)
            wrong = np.flatnonzero(
                fresh.get(program.score, values[program.score])[:, 0] != golden[begin : begin + _CHUNK]
            )
            if (fresh[change.node] != values[change.node]).any():
                differs.add(i)
            if len(wrong):
                outcomes[i] = Outcome(change.kind, change.what, change.node, True, begin + int(wrong[0]), len(wrong))
                del open_[i]
    prover = Prover(program, seconds=seconds)
    for i, change in open_.items():
        outcomes[i] = _settle(prover, change, np.asarray(inputs[:_CHUNK]), differs=i in differs)
    return [outcomes[i] for i in sorted(outcomes)]


def _settle(prover: Prover, change: Mutation, inputs: npt.NDArray[np.integer[Any]], *, differs: bool) -> Outcome:
    """What a mutation is that the events did not see: cheap proofs first, then a search, then proofs that take long.

    Parameters
    ----------
    differs : whether an event changed a code of the node itself.
    """
    result = Outcome(change.kind, change.what, change.node, caught=False)
    reason = prover.reason(change, levels=("", "linear programming"))
    if reason:
        return replace(result, equivalent=True, reason=reason)
    if hunt(prover.program, change, inputs) is not None:
        return replace(result, caught=True, events=1, reason="caught by an event made for it")
    if change.kind == "width":
        values = prover.program.evaluate(inputs)
        score = values[prover.program.score]
        for narrower in _narrower(prover.program, change):
            wrong = np.flatnonzero((_changed(narrower, values).get(prover.program.score, score) != score)[:, 0])
            if len(wrong):
                reason = "one bit less is not told apart by any crossing known"
                return replace(
                    result, what=narrower.what, caught=True, event=int(wrong[0]), events=len(wrong), reason=reason
                )
    reason = prover.reason(change, levels=("integer programming",))
    if reason:
        return replace(result, equivalent=True, reason=reason)
    reason = "" if differs else "no crossing known changes a code of this node, and no proof ended in its time"
    return replace(result, undecided=not differs, reason=reason)


def _narrower(program: Program, change: Mutation) -> Iterator[Mutation]:
    """The node with ever fewer integer bits, from two less than it has."""
    node = program.node(change.node)
    if change.program.node(change.node).type.fraction != node.type.fraction:
        return
    for less in range(2, node.type.width - 1):
        kind = replace(node.type, width=node.type.width - less, integer=node.type.integer - less)
        narrower = _mutation(program, "width", f"{node.type} to {kind}", node, replace(node, type=kind), -1)
        try:
            _ = narrower.program.intervals
        except TriggerError:
            return
        yield narrower


def hunt(
    program: Program, change: Mutation, events: npt.NDArray[np.integer[Any]], *, starts: int = 4, steps: int = 40
) -> Codes | None:
    """An event that tells a mutant from its program, (inputs,), or None.

    Coordinate ascent and descent on the element that was changed, among events at which it differs: where it is driven
    to an end, the rectifiers behind it are open.
    """
    choices = words(program)
    column = np.concatenate([np.full(len(codes), j) for j, codes in enumerate(choices)])
    value = np.concatenate(choices)
    node = program.node(change.node)
    elements = [change.element] if change.element >= 0 else list(range(min(node.size, 16)))

    def look(trial: Codes) -> tuple[Codes, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        values = program.evaluate(trial)
        fresh = _changed(change, values)
        differs = (fresh[change.node] != values[change.node])[:, elements].any(axis=1)
        scores = fresh.get(program.score, values[program.score])
        return exact_values(program, node, values)[0], differs, (scores != values[program.score])[:, 0]

    exact, differs, caught = look(np.asarray(events))
    if caught.any():
        return np.asarray(events[int(caught.argmax())], dtype=np.int64)
    for element in elements:
        for upward in (True, False):
            rank = np.argsort(exact[:, element] if not upward else -exact[:, element], kind="stable")
            # Where nothing differs yet, such as beyond a saturation, the ends are where it will.
            seeds = [row for row in rank if differs[row]][:starts] or list(rank[:starts])
            for row in seeds:
                event = np.asarray(events[row], dtype=np.int64)
                best, alive = int(exact[row, element]), bool(differs[row])
                for _ in range(steps):
                    trial = np.tile(event, (len(column), 1))
                    trial[np.arange(len(column)), column] = value
                    found, parted, seen = look(trial)
                    if seen.any():
                        return np.asarray(trial[int(seen.argmax())])
                    allowed = np.flatnonzero(parted) if alive or parted.any() else np.arange(len(trial))
                    if not len(allowed):
                        break
                    ends = found[allowed, element]
                    top = int(ends.argmax() if upward else ends.argmin())
                    if alive and ((int(ends[top]) > best) != upward or int(ends[top]) == best):
                        break
                    if not alive and not parted.any() and ((int(ends[top]) > best) != upward or int(ends[top]) == best):
                        break
                    best, event, alive = int(ends[top]), trial[allowed[top]], bool(parted[allowed[top]])
    return None


def _changed(change: Mutation, values: Mapping[str, Codes]) -> dict[str, Codes]:
    """Codes of the nodes of a mutant from the changed one on, from those of the program."""
    program = change.program
    fresh: dict[str, Codes] = {}
    for node in program.nodes[1:]:
        if node.name == change.node or any(name in fresh for name in node.inputs):
            sources = [fresh.get(name, values[name]) for name in node.inputs]
            fractions = tuple(program.node(name).type.fraction for name in node.inputs)
            fresh[node.name] = node.evaluate(*sources, fractions=fractions)
    return fresh


class Prover:
    """Proofs of equivalence for the mutations of one program; its bounds are made once, and only as tight as needed."""

    def __init__(self, program: Program, *, seconds: float = 900.0) -> None:
        self.program = program
        self._left = seconds
        self._known: dict[str, Bounds] = {}

    def _bounds(self, level: str) -> Bounds:
        if level not in self._known:
            if level == "integer programming":
                begin = time.monotonic()
                self._known[level] = tighten(self.program, integer=True, seconds=self._left / 2)
                self._left = max(0.0, self._left - (time.monotonic() - begin))
            else:
                self._known[level] = _LEVELS[level](self.program)
        return self._known[level]

    def _never(self, bounds: Bounds, node: str, element: int, code: int, *, upward: bool) -> bool:
        begin = time.monotonic()
        proven = out_of_reach(self.program, bounds, node, element, code, upward=upward, seconds=self._left / 2)
        self._left = max(0.0, self._left - (time.monotonic() - begin))
        return proven

    def reason(
        self, change: Mutation, *, levels: Sequence[str] = ("", "linear programming", "integer programming")
    ) -> str:
        """The proof that a mutation changes no score for any input, or an empty string."""
        for level in levels:
            how = f" (bounds by {level})" if level else ""
            if level == "integer programming":
                # Tight bounds of all layers take minutes; often the looser ones are enough to decide one code.
                loose = self._bounds("linear programming")
                ends = self._out_of_reach(change, loose, _affected(self.program, change, loose))
                if ends:
                    return ends
            before = self._bounds(level)
            affected = _affected(self.program, change, before)
            if not affected.any():
                return _local_reason(self.program, change, before) + how
            if level == "integer programming":
                # Minutes for a second program: a path that is dead only by these bounds is left to the search.
                ends = self._out_of_reach(change, before, affected)
                if ends:
                    return ends
                continue
            after = _LEVELS[level](change.program)
            if self.program.score not in _spread(self.program, change, affected, before, after):
                return f"nothing that depends on it reaches the score: every path is constant or has weight 0{how}"
        return ""

    def _out_of_reach(self, change: Mutation, bounds: Bounds, affected: npt.NDArray[np.bool_]) -> str:
        """The proof that no input reaches the codes that two types of a node cast differently at their ends."""
        before, after = self.program.node(change.node), change.program.node(change.node)
        a, b = before.type, after.type
        if change.kind not in ("overflow", "width") or (a.fraction, a.rounding) != (b.fraction, b.rounding):
            return ""
        drop = bounds.exact[before.name].fraction - a.fraction
        if drop < 0:
            return ""
        # On the grid itself nothing is rounded: up to here, and not a code further, both types hold the same.
        low, high = max(a.min_code, b.min_code) << drop, min(a.max_code, b.max_code) << drop
        summed = self.program.node(before.inputs[0]) if isinstance(before, (Quantize, Relu)) else before
        exact = bounds.exact[summed.name]
        # The sum that a quantiser reads must come to it as it is.
        if summed is not before and not (exact.fraction == summed.type.fraction and summed.type.holds(*exact.span)):
            return ""
        for i in np.flatnonzero(affected):
            for beyond, end, upward in ((exact.high[i] > high, high + 1, True), (exact.low[i] < low, low - 1, False)):
                # What is below zero a rectifier does not see.
                seen = upward or not isinstance(before, Relu)
                if beyond and seen and not self._never(bounds, summed.name, int(i), end, upward=upward):
                    return ""
        return f"no input drives it beyond {low} to {high}, where both cast alike (infeasible by integer programming)"


def _plain(program: Program) -> Bounds:
    cast = program.intervals
    exact = {node.name: node.exact_interval(*(cast[name] for name in node.inputs)) for node in program.nodes}
    return Bounds(exact, cast)


_LEVELS: dict[str, Callable[[Program], Bounds]] = {
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
    return f"every exact code from {low} to {high} that can be is cast alike"


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
        strides = _strides(program, before)
        return np.array([not _alike(before, after, bounds, sources, strides, i) for i in range(before.size)])
    return one if change.element >= 0 else everything


def _alike(before: Node, after: Node, bounds: Bounds, sources: Sequence[Interval], strides: Codes, i: int) -> bool:
    """Whether two types of a node cast every code alike that its element i can have."""
    exact = bounds.exact[before.name]
    low, high = int(exact.low[i]), int(exact.high[i])
    if isinstance(before, Multiply) and before.inputs[0] == before.inputs[1]:
        squares = np.arange(int(sources[0].low[i]), int(sources[0].high[i]) + 1) ** 2
        return _same_values(before.type, after.type, squares, exact.fraction)
    return _cast_alike(before.type, after.type, low, high, exact.fraction, int(strides[i]))


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


def _cast_alike(a: FixedType, b: FixedType, low: int, high: int, fraction: int, stride: int = 1) -> bool:
    """Whether two types cast every multiple of `stride` from `low` to `high` to the same values."""
    first = -(-low // stride) * stride
    if (high - first) // stride >= ENUMERATED:
        drops = fraction > min(a.fraction, b.fraction) and (a.rounding, a.fraction) != (b.rounding, b.fraction)
        return not drops and all(
            kind.holds(int(kind.round(np.array([low]), fraction)[0]), int(kind.round(np.array([high]), fraction)[0]))
            for kind in (a, b)
        )
    codes = np.arange(first, high + 1, stride)
    return _same_values(a, b, codes, fraction)


def _same_values(a: FixedType, b: FixedType, codes: Codes, fraction: int) -> bool:
    grid = max(a.fraction, b.fraction)
    left, right = (kind.cast(codes, fraction) << (grid - kind.fraction) for kind in (a, b))
    return bool((left == right).all())


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
