"""Programs with one thing changed: `mutations` lists them, `changed_values` evaluates one from the change on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from l1ad.errors import TriggerError
from l1ad.trigger.fixed import Codes, FixedType, Overflow, Rounding
from l1ad.trigger.graph import Program
from l1ad.trigger.nodes import Concat, Dense, Input, Lut, Node, Scale, Take


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


def mutations(program: Program, rng: np.random.Generator, *, per_node: int = 2) -> Iterator[Mutation]:
    """Changes of every kind in every node: `per_node` of each kind."""
    for node in program.nodes[1:]:
        yield from _parameters(program, node, rng, per_node)
        yield from _types(program, node)


def narrower(program: Program, change: Mutation) -> Iterator[Mutation]:
    """After a width with one integer bit less: the same node with ever fewer of them."""
    node = program.node(change.node)
    if change.kind != "width" or change.program.node(change.node).type.fraction != node.type.fraction:
        return
    for less in range(2, node.type.width - 1):
        kind = replace(node.type, width=node.type.width - less, integer=node.type.integer - less)
        result = _mutation(program, "width", f"{node.type} to {kind}", node, replace(node, type=kind), -1)
        try:
            _ = result.program.intervals
        except TriggerError:
            return
        yield result


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


def changed_values(change: Mutation, values: Mapping[str, Codes]) -> dict[str, Codes]:
    """Codes of the nodes of a mutant from the changed one on, from those of the program."""
    program = change.program
    fresh: dict[str, Codes] = {}
    for node in program.nodes[1:]:
        if node.name == change.node or any(name in fresh for name in node.inputs):
            sources = [fresh.get(name, values[name]) for name in node.inputs]
            fractions = tuple(program.node(name).type.fraction for name in node.inputs)
            fresh[node.name] = node.evaluate(*sources, fractions=fractions)
    return fresh
