"""What a kernel is written with: where each value lies, what of it is needed, and the loops over a block of events.

Between nodes the codes of a block of B events lie *planar*, one array of B codes an element, so that every operation is
a loop over B that a compiler turns into vector instructions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from l1ad.trigger.emulate.ranges import Chain, Unsupported, bits_for
from l1ad.trigger.graph import Program
from l1ad.trigger.nodes import Concat, Dense, Interval, Lut, Maximum, Node, Scale, Take

Level = Literal["portable", "avx2", "avx512", "avx512vnni"]
#: Instruction-set levels, slowest first. ``avx512`` is AVX-512BW, ``avx512vnni`` adds the dot-product instructions.
LEVELS: tuple[Level, ...] = ("portable", "avx2", "avx512", "avx512vnni")

_BLOCK: dict[Level, int] = {"portable": 32, "avx2": 16, "avx512": 32, "avx512vnni": 32}


@dataclass(frozen=True)
class Element:
    """Where the codes of one element of a node lie, and their interval."""

    buffer: str
    row: int
    bits: int
    low: int
    high: int

    @property
    def lvalue(self) -> str:
        """The array of B codes in C."""
        return f"s->{self.buffer}[{self.row}]"


#: One element that a loop makes: its index, the elements it reads, the statements, the expression of ``t`` in x and y.
Output = tuple[int, Sequence[Element], Chain, str]


@dataclass(frozen=True)
class Layer:
    """The part of a dense layer that matters: inputs that are read, outputs that are wanted, in Python integers."""

    elements: list[Element]
    weights: npt.NDArray[Any]
    bias: npt.NDArray[Any]
    low: npt.NDArray[Any]
    high: npt.NDArray[Any]

    @property
    def n_inputs(self) -> int:
        return len(self.elements)

    @property
    def n_outputs(self) -> int:
        return len(self.bias)

    def sums(self, buffer: str, bits: int) -> list[Element]:
        """The elements of the result."""
        return [
            Element(buffer, j, bits, int(low), int(high))
            for j, (low, high) in enumerate(zip(self.low, self.high, strict=True))
        ]


@dataclass(frozen=True)
class Exact:
    """`Interval` in Python integers, which cannot overflow: low and high are object arrays."""

    low: npt.NDArray[Any]
    high: npt.NDArray[Any]


def exact_intervals(program: Program) -> dict[str, tuple[Interval, Exact]]:
    """For each node its proven interval and the exact interval of its result before the cast.

    Raises
    ------
    Unsupported
        If the exact result of a node does not fit 63 bits, so that the golden program itself might overflow.
    """
    result: dict[str, tuple[Interval, Exact]] = {}
    for node in program.nodes:
        sources = []
        for name in node.inputs:
            known = result[name][0]
            sources.append(Interval(known.low.astype(object), known.high.astype(object), known.fraction))
        if isinstance(node, (Scale, Lut)):
            # These two follow the hardware's words, which are narrow; the golden arithmetic is their definition.
            exact = node.exact_interval(*(result[name][0] for name in node.inputs))
        else:
            exact = node.exact_interval(*sources)
        low, high = exact.low.astype(object), exact.high.astype(object)
        if len(low) and (min(low) <= -(1 << 62) or max(high) >= 1 << 62):
            raise Unsupported(f"{node.name}: an exact result does not fit 63 bits")
        result[node.name] = (program.intervals[node.name], Exact(low, high))
    return result


def live_elements(program: Program) -> dict[str, npt.NDArray[np.bool_]]:
    """Which elements of each node the score depends on; a zero weight is no dependence."""
    live = {node.name: np.zeros(node.size, dtype=bool) for node in program.nodes}
    live[program.score][:] = True
    for node in reversed(program.nodes):
        wanted = live[node.name]
        if not wanted.any() or not node.inputs:
            continue
        if isinstance(node, Dense):
            live[node.inputs[0]] |= (node.weights[:, wanted] != 0).any(axis=1)
        elif isinstance(node, Concat):
            start = 0
            for name in node.inputs:
                part = live[name]
                part |= wanted[start : start + len(part)]
                start += len(part)
        elif isinstance(node, Take):
            live[node.inputs[0]][node.index[wanted]] = True
        elif isinstance(node, Maximum):
            live[node.inputs[0]][node.groups[wanted].reshape(-1)] = True
        else:
            for name in node.inputs:
                live[name] |= wanted
    return live


@dataclass
class _Run:
    """Successive elements with the same statements: `text` on ``t`` of `bits` bits, rows from `rows` on."""

    bits: int
    text: str
    buffers: tuple[str, ...]
    rows: tuple[int, ...]
    count: int = 1

    def goes_on_with(self, other: _Run) -> bool:
        """Whether `other` is the next element of this run."""
        here, there = (self.text, self.buffers), (other.text, other.buffers)
        return here == there and other.rows == tuple(row + self.count for row in self.rows)

    @property
    def loads(self) -> str:
        """Declarations of x (and y)."""
        return " ".join(
            f"int{self.bits}_t {letter} = s->{buffer}[{row} + i][e];"
            for letter, buffer, row in zip("xy", self.buffers, self.rows, strict=False)
        )


@dataclass
class Writer:
    """Collects the pieces of the source of one kernel; the emitters of nodes fill it in."""

    program: Program
    columns: npt.NDArray[np.int64]
    row_words: int
    level: Level
    unrolled_products: int

    def __post_init__(self) -> None:
        self.block = _BLOCK[self.level]
        self.simd = self.level != "portable"
        self.buffers: list[str] = []
        self.functions: list[str] = []
        self.calls: list[str] = []
        self.values: dict[str, list[Element | None]] = {}
        self.intervals = exact_intervals(self.program)
        self.live = live_elements(self.program)

    def buffer(self, name: str, rows: int, bits: int) -> str:
        """A planar array of `rows` elements; its name."""
        self.buffers.append(f"int{bits}_t {name}[{max(rows, 1)}][B];")
        return name

    def function(self, name: str, body: Sequence[str], argument: str = "", parameter: str = "") -> None:
        """A function of the kernel and its call."""
        lines = "\n".join("    " + line for line in body)
        self.functions.append(f"static ALONE void {name}(struct values *s{parameter})\n{{\n{lines}\n}}\n")
        self.calls.append(f"{name}(s{argument});")

    def source(self, name: str) -> list[Element | None]:
        """The elements of a node; None for those that are not needed."""
        # A node that the score does not depend on was not written at all.
        return self.values.get(name) or [None] * self.program.node(name).size

    def fraction(self, name: str) -> int:
        """Fraction bits of a node."""
        return self.program.node(name).type.fraction

    def span(self, node: Node, index: int) -> tuple[int, int]:
        """Proven interval of one element."""
        interval = self.intervals[node.name][0]
        return int(interval.low[index]), int(interval.high[index])

    def elementwise(self, name: str, outputs: Sequence[Output | None]) -> list[Element | None]:
        """Emit one loop over events an element.

        Each output is (its index, the elements it reads, the statements, the expression of ``t`` in x and y); the
        bits of ``t`` come from the statements. Runs of elements with the same statements share an outer loop.
        """
        chosen = [entry for entry in outputs if entry is not None]
        stored = max((bits_for(c.low, c.high) for _, _, c, _ in chosen), default=16)
        buffer = self.buffer(f"v_{name}", len(chosen), stored)
        result: list[Element | None] = [None] * len(outputs)
        runs: list[_Run] = []
        for row, (index, reads, chain, start) in enumerate(chosen):
            bits = max(chain.bits, *(e.bits for e in reads))
            result[index] = Element(buffer, row, stored, chain.low, chain.high)
            run = _Run(
                bits,
                f"int{bits}_t t = (int{bits}_t)({start}); {chain.code(bits)}",
                tuple(e.buffer for e in reads),
                tuple(e.row for e in reads),
            )
            if runs and runs[-1].goes_on_with(run):
                runs[-1].count += 1
            else:
                runs.append(run)
        body, row = [], 0
        for run in runs:
            store = f"s->{buffer}[{row} + i][e] = (int{stored}_t)t;"
            body.append(f"for (int i = 0; i < {run.count}; i++)")
            body.append(f"    for (int e = 0; e < B; e++) {{ {run.loads} {run.text} {store} }}")
            row += run.count
        self.function(f"f_{name}", body)
        return result

    def renamed(
        self,
        name: str,
        moved: Sequence[Output | None],
        plain: dict[int, Element | None],
    ) -> list[Element | None]:
        """Elements that need arithmetic, and those that are merely somewhere else."""
        result: list[Element | None] = [None] * len(moved)
        if any(entry is not None for entry in moved):
            result = self.elementwise(name, moved)
        for index, element in plain.items():
            result[index] = element
        return result
