"""Intervals of sums whose terms hang on the same few numbers, which plain intervals take for independent.

``exp(l) - l - 1`` is never negative, but the intervals of its terms allow it. `separable(program, node, cast)` groups
the terms of a layer by the element that they are functions of, evaluates each group on every code of that element, and
adds the ends of the groups.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from l1ad.trigger.fixed import Codes
from l1ad.trigger.graph import Program
from l1ad.trigger.nodes import Concat, Dense, Interval, Lut, Multiply, Node, Quantize, Relu, Subtract, Take

#: Codes of one element that are tried.
_MOST = 1 << 16
Root = tuple[str, int]


def separable(program: Program, node: Dense, cast: Mapping[str, Interval]) -> Interval | None:
    """The exact interval of a layer, or None where no two of its terms are functions of one element.

    Parameters
    ----------
    cast : intervals of the nodes before it.
    """
    source = program.node(node.inputs[0])
    known: dict[str, list[Root]] = {}
    roots = _roots(program, source.name, known)
    if len(set(roots)) == len(roots):
        return None
    values = _on_every_code(program, source, known, cast)
    if values is None:
        return None
    weights, bias, total = node.aligned(source.type.fraction)
    low, high = bias.copy(), bias.copy()
    for root in sorted(set(roots)):
        columns = [j for j, other in enumerate(roots) if other == root]
        terms = values[:, columns] @ weights[columns]
        low, high = low + terms.min(axis=0), high + terms.max(axis=0)
    return Interval(low, high, total)


def _roots(program: Program, name: str, known: dict[str, list[Root]]) -> list[Root]:
    """For each element of a node the element of an earlier one that it is a function of, perhaps itself."""
    if name in known:
        return known[name]
    node = program.node(name)
    itself = [(name, i) for i in range(node.size)]
    sources = [_roots(program, other, known) for other in node.inputs]
    if isinstance(node, (Quantize, Relu)):
        # A cast has fewer codes than the sum that it casts.
        wide = isinstance(program.node(node.inputs[0]), Dense)
        result = itself if wide else sources[0]
    elif isinstance(node, Lut):
        result = sources[0]
    elif isinstance(node, Concat):
        result = [root for source in sources for root in source]
    elif isinstance(node, Take):
        result = [sources[0][int(i)] for i in node.index]
    elif isinstance(node, (Multiply, Subtract)):
        result = [a if a == b else own for a, b, own in zip(*sources, itself, strict=True)]
    else:
        result = itself
    known[name] = result
    return result


def _on_every_code(
    program: Program, node: Node, roots: Mapping[str, list[Root]], cast: Mapping[str, Interval]
) -> Codes | None:
    """Codes (codes, size) of a node with every root at each of its codes in turn; None if those are too many."""
    used = set(roots[node.name])
    ends = [(int(cast[name].low[i]), int(cast[name].high[i])) for name, i in used]
    count = max(high - low for low, high in ends) + 1
    if count > _MOST:
        return None
    values: dict[str, Codes] = {}
    for other in program.nodes:
        own = [i for i in range(other.size) if (other.name, i) in used]
        if other.inputs and all(name in values for name in other.inputs):
            fractions = tuple(program.node(name).type.fraction for name in other.inputs)
            values[other.name] = other.evaluate(*(values[name] for name in other.inputs), fractions=fractions)
        elif own:
            # What no term reads stays at its lowest code.
            values[other.name] = np.tile(cast[other.name].low, (count, 1))
        if own:
            # Elements of fewer codes repeat their last one.
            low, high = cast[other.name].low[own], cast[other.name].high[own]
            values[other.name][:, own] = np.minimum(low + np.arange(count)[:, None], high)
        if other.name == node.name:
            break
    return values.get(node.name)
