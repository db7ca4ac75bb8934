"""The interval proof: no input word whatever can overflow a width, or the report names the one that does.

`prove(program)` propagates the interval of every input word through the program. A cast that saturates is what its
type says; a cast that can wrap is listed with an input that makes it wrap and the width that would not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from l1ad.trigger.fixed import Codes, FixedType
from l1ad.trigger.graph import Program
from l1ad.trigger.nodes import Dense, Interval

Verdict = Literal["proven", "saturates", "wraps"]


@dataclass(frozen=True)
class WidthRow:
    """The proof of one node.

    Attributes
    ----------
    node, op : the node.
    type : its type.
    low, high : smallest and largest exact value before the cast, as real numbers.
    needed : the narrowest type on the node's grid that holds every value after rounding.
    verdict : ``proven`` (no overflow for any input), ``saturates`` (clipped, as the type says) or ``wraps``.
    element : for ``wraps``, the element that goes furthest outside.
    source, worst_input : for ``wraps`` in a dense layer, the node it reads and codes of it that overflow.
    """

    node: str
    op: str
    type: FixedType
    low: float
    high: float
    needed: FixedType
    verdict: Verdict
    element: int | None = None
    source: str | None = None
    worst_input: Codes | None = None

    def __str__(self) -> str:
        text = f"{self.node}: {self.type} holds {self.low:g} to {self.high:g}: {self.verdict}"
        if self.verdict == "wraps":
            text += f" (element {self.element}); {self.needed.width} bits would not"
        return text


@dataclass(frozen=True)
class WidthReport:
    """All rows, in program order."""

    rows: tuple[WidthRow, ...]

    @property
    def wraps(self) -> tuple[WidthRow, ...]:
        """Nodes that can wrap."""
        return tuple(row for row in self.rows if row.verdict == "wraps")

    @property
    def proven(self) -> bool:
        """Whether no node can wrap."""
        return not self.wraps


def prove(program: Program) -> WidthReport:
    """Derive every width from the input words."""
    rows = []
    for node in program.nodes:
        sources = [program.intervals[name] for name in node.inputs]
        exact = node.exact_interval(*sources)
        rounded = Interval(
            node.type.round(exact.low, exact.fraction), node.type.round(exact.high, exact.fraction), node.type.fraction
        )
        low, high = rounded.span
        excess = np.maximum(node.type.min_code - rounded.low, rounded.high - node.type.max_code)
        verdict: Verdict = "proven"
        if not node.type.holds(low, high):
            verdict = "saturates" if node.type.overflow.startswith("SAT") else "wraps"
        element = int(np.argmax(excess)) if verdict == "wraps" else None
        source = worst = None
        if element is not None and isinstance(node, Dense):
            source = node.inputs[0]
            upward = rounded.high[element] - node.type.max_code >= node.type.min_code - rounded.low[element]
            worst = node.worst_input(sources[0], element, high=bool(upward))
        scale = 2.0**-exact.fraction
        rows.append(
            WidthRow(
                node.name,
                node.op,
                node.type,
                float(exact.low.min()) * scale,
                float(exact.high.max()) * scale,
                rounded.type,
                verdict,
                element,
                source,
                worst,
            )
        )
    return WidthReport(tuple(rows))
