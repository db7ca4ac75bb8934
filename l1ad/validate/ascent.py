"""Inputs that drive chosen elements of a program as far as they go, found by following slopes back to the words.

`ascend(program, targets, rng)` starts from many random crossings for each target, asks each input's slope which way
lies up, and moves a random part of the inputs to that end of what the scaling makes of them. What rounding hides from a
slope, `l1ad.validate.adversarial` climbs afterwards, one word at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.trigger.fixed import Codes
from l1ad.trigger.graph import Program
from l1ad.trigger.nodes import Concat, Dense, Input, Lut, Maximum, Multiply, Node, Relu, Scale, Subtract, Take

FloatArray = npt.NDArray[np.float64]

#: How much of a slope passes an element that is saturated or a rectifier that is shut: none, a little, or all of it.
_LEAKS = (0.0, 0.1, 1.0)
#: Parts of the inputs that move in one step.
_PARTS = (0.1, 0.3, 1.0)


@dataclass(frozen=True)
class Target:
    """An element of a node, and whether it is driven upwards."""

    node: str
    element: int
    upward: bool


def ascend(
    program: Program,
    targets: Sequence[Target],
    rng: np.random.Generator,
    *,
    starts: int = 96,
    steps: int = 24,
) -> Codes:
    """The best event of each target, (targets, inputs).

    Parameters
    ----------
    starts : random crossings for each target: half with every word at an end, half with random words.
    steps : moves from each of them.
    """
    first = program.nodes[0]
    assert isinstance(first, Input)
    low, high = word_ends(program)
    rows: list[Codes] = []
    for name, group in groupby(targets, key=lambda target: target.node):
        members = list(group)
        n, size = len(members) * starts, program.node(name).size
        seeds = np.zeros((n, size))
        element = np.repeat([target.element for target in members], starts)
        seeds[np.arange(n), element] = np.repeat([1.0 if target.upward else -1.0 for target in members], starts)
        event = np.where(rng.random((n, first.size)) < 0.5, low, high)
        anywhere = rng.integers(first.low, first.high + 1, size=event.shape)
        event = np.where(np.arange(n)[:, None] % 2 == 0, event, anywhere)
        leak, part = rng.choice(_LEAKS, size=(n, 1)), rng.choice(_PARTS, size=(n, 1))
        best = np.full(n, np.iinfo(np.int64).min)
        kept = event.copy()
        for step in range(steps + 1):
            values = program.evaluate(event)
            exact = exact_values(program, program.node(name), values)[0][np.arange(n), element]
            signed = np.where(seeds[np.arange(n), element] > 0, exact, -exact)
            better = signed > best
            best, kept = np.where(better, signed, best), np.where(better[:, None], event, kept)
            if step < steps:
                slope = slopes(program, values, name, seeds, leak)
                moved = (rng.random(event.shape) < part) & (slope != 0)
                event = np.where(moved, np.where(slope > 0, high, low), event)
        rows += [kept[i * starts + int(best[i * starts : (i + 1) * starts].argmax())] for i in range(len(members))]
    return np.array(rows, dtype=np.int64).reshape(-1, first.size)


def word_ends(program: Program) -> tuple[Codes, Codes]:
    """The word of each input that scales to the least, and the one that scales to the most, (inputs,) each."""
    first = program.nodes[0]
    assert isinstance(first, Input)
    low, high = first.low.copy(), first.high.copy()
    scales = [node for node in program.nodes if isinstance(node, Scale) and node.inputs == (first.name,)]
    if scales:
        span = int((high - low).max()) + 1
        # Inputs of fewer words repeat their last one.
        words = np.minimum(low + np.arange(min(span, 1 << 14))[:, None], high)
        words = np.concatenate([words, high[None, :]])
        scaled = scales[0].evaluate(words, fractions=(0,))
        columns = np.arange(first.size)
        low, high = words[scaled.argmin(axis=0), columns], words[scaled.argmax(axis=0), columns]
    return low, high


def slopes(
    program: Program, values: Mapping[str, Codes], target: str, seeds: FloatArray, leak: float | FloatArray = 0.0
) -> FloatArray:
    """Slope (N, inputs) of ``sum(seeds * target)`` with respect to what the scaling makes of the inputs.

    Without a scaling with respect to the input codes. Rounding is left out; a cast that saturates or wraps and a
    rectifier that is shut pass the fraction `leak` of the slope.

    Parameters
    ----------
    values : codes of every node, from `Program.evaluate`.
    seeds : (N, size of the target) its weight in the sum.
    """
    total: dict[str, FloatArray] = {target: seeds}
    for node in reversed(program.nodes):
        if isinstance(node, Input) or node.name not in total:
            continue
        slope = total[node.name]
        if isinstance(node, Scale):
            # The ends of each input were taken from its scaled values: no need to go further back.
            total[node.inputs[0]] = total.get(node.inputs[0], 0.0) + slope
            continue
        if node.name != target:
            rounded = node.type.round(*exact_values(program, node, values))
            slope = np.where((rounded > node.type.max_code) | (rounded < node.type.min_code), leak * slope, slope)
        for name, part in zip(node.inputs, _back(program, node, values, slope, leak), strict=True):
            total[name] = total.get(name, 0.0) + part
    first = program.nodes[0]
    return np.broadcast_to(total.get(first.name, 0.0), (len(seeds), first.size)).astype(np.float64)


def _back(
    program: Program, node: Node, values: Mapping[str, Codes], slope: FloatArray, leak: float | FloatArray
) -> list[FloatArray]:
    """The slope with respect to each source of a node."""
    source: list[Any] = [
        np.ldexp(values[name].astype(float), -program.node(name).type.fraction) for name in node.inputs
    ]
    if isinstance(node, Dense):
        return [slope @ np.ldexp(node.weights.astype(float), -node.weight_type.fraction).T]
    if isinstance(node, Relu):
        return [np.where(source[0] > 0, slope, leak * slope)]
    if isinstance(node, Multiply):
        return [slope * source[1], slope * source[0]]
    if isinstance(node, Subtract):
        return [slope, -slope]
    if isinstance(node, Concat):
        return np.split(slope, np.cumsum(node.sizes)[:-1], axis=1)
    if isinstance(node, (Take, Maximum)):
        back = np.zeros_like(source[0])
        if isinstance(node, Take):
            np.add.at(back.T, node.index, slope.T)
        else:
            chosen = values[node.inputs[0]][:, node.groups].argmax(axis=2)
            column = node.groups[np.arange(node.size), chosen]
            np.add.at(back, (np.arange(len(slope))[:, None], column), slope)
        return [back]
    if isinstance(node, Lut):
        rows = np.broadcast_to(node.tables, (node.n, node.tables.shape[1])).astype(float)
        steps = np.gradient(rows, axis=1) if rows.shape[1] > 1 else np.zeros_like(rows)
        scale = 2.0 ** (program.node(node.inputs[0]).type.fraction - node.type.fraction)
        return [slope * scale * steps[np.arange(node.n), values[node.inputs[0]] - node.first]]
    return [slope for _ in node.inputs]


def exact_values(program: Program, node: Node, values: Mapping[str, Codes]) -> tuple[Codes, int]:
    """Codes of a node before its cast, and their grid."""
    fractions = tuple(program.node(name).type.fraction for name in node.inputs)
    return node.exact(*(values[name] for name in node.inputs), fractions=fractions)
