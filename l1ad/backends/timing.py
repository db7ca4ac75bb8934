"""How long the logic of a program takes, before any tool has seen it.

`estimate` counts the levels of logic on the longest path and multiplies them with typical delays of the part. It is
good enough to say that a clock is out of reach, and for nothing else: it is an estimate, never a placed figure.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from l1ad.errors import InputError
from l1ad.trigger.fixed import Codes, FixedType
from l1ad.trigger.graph import Program
from l1ad.trigger.nodes import Concat, Dense, Input, Lut, Maximum, Multiply, Node, Scale, Subtract, Take

#: Delays in ns at speed grade 2, after the switching tables of the families' data sheets (DS183, DS892, DS923, DS957)
#: and the usual share of routing: a LUT with its net, and one bit of carry.
#: The first pattern that fits counts: UltraScale+ and UltraScale differ by one letter.
_FAMILIES: tuple[tuple[str, str, float, float], ...] = (
    (r"xc7[akvz]", "7 series", 0.62, 0.028),
    (r"xc[kv]u\d+p|xczu|xcu\d|xck2[46]", "UltraScale+", 0.36, 0.012),
    (r"xc[kv]u\d+", "UltraScale", 0.48, 0.016),
    (r"xcv[cehmp]", "Versal", 0.34, 0.010),
)
#: Estimates are trusted to this factor in either direction.
TOLERANCE = 1.25


@dataclass(frozen=True)
class LatencyEstimate:
    """What `estimate` found.

    Attributes
    ----------
    logic_ns : delay of the longest path.
    levels : of logic on that path.
    budget_ns : clocks times period, or 0 if none was asked.
    part, family : for which.
    provenance : always ``estimate``.
    """

    logic_ns: float
    levels: int
    budget_ns: float
    part: str
    family: str
    provenance: Literal["estimate"] = "estimate"

    @property
    def verdict(self) -> Literal["fits", "tight", "out of reach"]:
        """Against the budget, within the tolerance of an estimate."""
        if self.logic_ns > self.budget_ns * TOLERANCE:
            return "out of reach"
        return "tight" if self.logic_ns * TOLERANCE > self.budget_ns else "fits"

    def __str__(self) -> str:
        return (
            f"{self.levels} levels of logic, about {self.logic_ns:.0f} ns on {self.part} ({self.family}), "
            f"budget {self.budget_ns:g} ns: {self.verdict} (estimate)"
        )


def part_family(part: str) -> tuple[str, float, float]:
    """Family, delay of a LUT with its net and of a bit of carry, both in ns for the part's speed grade.

    Raises
    ------
    InputError
        If the part is of no family that is known here.

    >>> part_family("xc7vx690tffg1927-2")[0], part_family("xcvu9p-flga2104-2L-e")[0]
    ('7 series', 'UltraScale+')
    """
    name = part.lower()
    for pattern, family, lut, carry in _FAMILIES:
        if re.match(pattern, name):
            grades = re.findall(r"-(\d)(?:[a-z]*)(?=-|$)", name)
            factor = {"1": 1.15, "2": 1.0, "3": 0.9}.get(grades[0] if grades else "2", 1.0)
            return family, lut * factor, carry * factor
    raise InputError("part", part, "an unknown family", "a 7-series, UltraScale, UltraScale+ or Versal part")


def estimate(program: Program, part: str, *, clock_ns: float, clocks: int) -> LatencyEstimate:
    """The longest path of a program on a part, against ``clocks`` periods of ``clock_ns``.

    No clock at all means logic without registers, which has the period in which it is used.

    Raises
    ------
    InputError
        If the part is unknown, or the clock or the number of clocks is not positive.
    """
    if not clock_ns > 0:
        raise InputError("clock", "period", f"{clock_ns:g} ns", "more than 0")
    if clocks < 0:
        raise InputError("latency", "clocks", clocks, "0 or more")
    family, lut_ns, carry_ns = part_family(part)
    arrival: dict[str, tuple[float, int]] = {}
    for node in program.nodes:
        start, before = max((arrival[name] for name in node.inputs), default=(0.0, 0))
        levels, bits = _levels(node, program)
        arrival[node.name] = (start + levels * lut_ns + bits * carry_ns, before + levels)
    logic, levels = arrival[program.score]
    return LatencyEstimate(logic, levels, max(clocks, 1) * clock_ns, part, family)


def _levels(node: Node, program: Program) -> tuple[int, int]:
    """Levels of logic of a node and the bits of carry on its path."""
    if isinstance(node, (Input, Take, Concat)):
        return 0, 0
    sources = [program.intervals[name] for name in node.inputs]
    exact = node.exact_interval(*sources).type
    levels, bits = _cast(exact, node.type)
    if isinstance(node, Scale):
        return levels + 1, bits + node.word.width
    if isinstance(node, Dense):
        # One addition for each signed digit of the weights; a tree of carry chains. The bits of a later chain settle
        # while those of the one before still run: only the last one counts in full, and one bit of each other.
        digits = _digits(node.weights).sum(axis=0) + (node.bias != 0)
        depth = math.ceil(math.log2(max(int(digits.max(initial=1)), 1)))
        return levels + depth, bits + (exact.width + depth if depth else 0)
    if isinstance(node, Multiply):
        narrow = min(source.type.width for source in sources)
        depth = max(math.ceil(math.log2(narrow)), 1)
        return levels + depth, bits + exact.width + depth
    if isinstance(node, Subtract):
        return levels + 1, bits + exact.width
    if isinstance(node, Lut):
        # Six address bits a LUT, two more for each level of multiplexers.
        address = (node.tables.shape[1] - 1).bit_length()
        return levels + 1 + max(math.ceil((address - 6) / 2), 0), bits
    if isinstance(node, Maximum):
        depth = math.ceil(math.log2(max(node.groups.shape[1], 1)))
        return levels + 2 * depth, bits + depth * exact.width
    return levels + (1 if node.op == "relu" else 0), bits


def _cast(exact: FixedType, target: FixedType) -> tuple[int, int]:
    """A rounding that adds takes a carry chain, a saturation a level."""
    rounds = target.rounding not in ("TRN",) and exact.fraction > target.fraction
    clips = target.overflow != "WRAP" and not target.holds(
        int(target.round(exact.min_code, exact.fraction)), int(target.round(exact.max_code, exact.fraction))
    )
    return int(rounds) + int(clips), target.width if rounds else 0


def _digits(weights: Codes) -> Codes:
    """Non-zero signed digits of each weight: the fewest additions that a product with it takes.

    >>> _digits(np.array([0, 1, 7, 11, -8]))
    array([0, 1, 2, 3, 1])
    """
    # The non-adjacent form of w has a digit wherever 3w and w differ (G. W. Reitwiesner, 1960).
    magnitude = np.abs(weights)
    differ = (3 * magnitude) ^ magnitude
    return np.array([int(value).bit_count() for value in differ.ravel()]).reshape(weights.shape)
