"""From a `Program` to C: one function a node, weights as constants, integer types as narrow as the proof allows.

`generate(program, ...)` gives the source of a kernel. A kernel works on blocks of B events; between nodes the codes lie
*planar*, one array of B codes an element, so that every operation is a loop over B that a compiler turns into vector
instructions. Two things are written with vector instructions by hand (csrc/simd.h): bringing rows of hardware words
into planar form, and dense layers whose inputs and weights fit the 8-bit or 16-bit dot products of the machine.

The integer types come from intervals: each value is followed in exact Python integers through every intermediate step,
and the narrowest of int16, int32 and int64 that holds all of them is taken. `Unsupported` says that none does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from l1ad.trigger.fixed import FixedType, Rounding
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
    Subtract,
    Take,
)
from l1ad.trigger.program import Program

Level = Literal["portable", "avx2", "avx512", "avx512vnni"]
#: Instruction-set levels, slowest first. ``avx512`` is AVX-512BW, ``avx512vnni`` adds the dot-product instructions.
LEVELS: tuple[Level, ...] = ("portable", "avx2", "avx512", "avx512vnni")

#: The score of an event with a word that its bits cannot hold: such events are left to the golden program.
NO_SCORE = -(1 << 31)

#: Products in one dense layer up to which its sums are written out; beyond, tables and loops keep the code small.
UNROLLED_PRODUCTS = 24576

_BLOCK: dict[Level, int] = {"portable": 32, "avx2": 16, "avx512": 32, "avx512vnni": 32}


class Unsupported(Exception):
    """The program has a value that int64 cannot hold, or words that int16 cannot: no kernel can be written."""


# ---------------------------------------------------------------------------------------------- one value, step by step


def _round_int(value: int, bits: int, rounding: Rounding) -> int:
    """`l1ad.trigger.fixed.shift_round` for one Python integer, which cannot overflow."""
    half, rest, floor = 1 << (bits - 1), value & ((1 << bits) - 1), value >> bits
    up = {
        "TRN": False,
        "TRN_ZERO": value < 0 and rest != 0,
        "RND": rest >= half,
        "RND_MIN_INF": rest > half,
        "RND_ZERO": rest > half or (rest == half and value < 0),
        "RND_INF": rest > half or (rest == half and value >= 0),
        "RND_CONV": rest > half or (rest == half and bool(floor & 1)),
    }[rounding]
    return floor + up


@dataclass
class Chain:
    """C statements on one value ``t``, with the interval it has after each and the extremes on the way.

    Attributes
    ----------
    low, high : the interval of the codes now.
    lines : statements; ``T`` stands for the type, which `bits` tells at the end.
    """

    low: int
    high: int
    lines: list[str] = field(default_factory=list)
    extremes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.see(self.low, self.high)

    def see(self, *values: int) -> None:
        """Values that the type must hold too."""
        self.extremes += values

    def _put(self, expression: str) -> None:
        self.lines.append(f"t = (T)({expression});")

    @property
    def bits(self) -> int:
        """16, 32 or 64: the narrowest type for every intermediate value.

        Raises
        ------
        Unsupported
            If int64 is too narrow.
        """
        return bits_for(min(self.extremes), max(self.extremes))

    def add(self, constant: int) -> None:
        """``t + constant``."""
        self.see(constant)
        self._set(self.low + constant, self.high + constant)
        if constant:
            self._put(f"t + {_literal(constant)}")

    def multiply(self, constant: int) -> None:
        """``t * constant``."""
        self.see(constant)
        self._set(*sorted((self.low * constant, self.high * constant)))
        if constant != 1:
            self._put(f"t * {_literal(constant)}")

    def _set(self, low: int, high: int) -> None:
        self.low, self.high = low, high
        self.see(low, high)

    def floor_shift(self, bits: int) -> None:
        """``t >> bits``."""
        if bits:
            self._set(self.low >> bits, self.high >> bits)
            # A shift by more than the type has is undefined in C, and by then only the sign is left.
            self.lines.append(f"t = (T)(t >> SHIFT({bits}));")

    def round(self, bits: int, rounding: Rounding) -> None:
        """``t * 2**-bits`` rounded; the extra term before the shift makes the floor what each mode asks for."""
        if bits <= 0:
            self.multiply(1 << -bits)
            return
        bits = min(bits, 62)
        half = 1 << (bits - 1)
        extra = {
            "TRN": "",
            "TRN_ZERO": f"(t < 0 ? {_literal(2 * half - 1)} : 0)",
            "RND": _literal(half),
            "RND_MIN_INF": _literal(half - 1),
            "RND_ZERO": f"{_literal(half - 1)} + (t < 0)",
            "RND_INF": f"{_literal(half)} - (t < 0)",
            "RND_CONV": f"{_literal(half - 1)} + ((t >> {bits}) & 1)",
        }[rounding]
        if extra:
            self.see(2 * half, self.high + 2 * half)
            self._put(f"t + {extra}")
        low, high = _round_int(self.low, bits, rounding), _round_int(self.high, bits, rounding)
        self.lines.append(f"t = (T)(t >> SHIFT({bits}));")
        self._set(low, high)

    def clip(self, low: int | None, high: int | None) -> None:
        """Limit to low and high; a limit that nothing exceeds costs nothing."""
        if low is not None and self.low < low:
            self.see(low)
            self.lines.append(f"t = t < {_literal(low)} ? {_literal(low)} : t;")
            self.low, self.high = low, max(self.high, low)
        if high is not None and self.high > high:
            self.see(high)
            self.lines.append(f"t = t > {_literal(high)} ? {_literal(high)} : t;")
            self.low, self.high = min(self.low, high), high

    def fit(self, kind: FixedType) -> None:
        """The overflow mode of `kind`, as `FixedType.fit`."""
        if kind.overflow in ("SAT", "SAT_SYM"):
            symmetric = kind.overflow == "SAT_SYM" and kind.signed
            self.clip(-kind.max_code if symmetric else kind.min_code, kind.max_code)
            return
        if kind.holds(self.low, self.high) or (kind.overflow == "WRAP" and kind.width >= 62):
            return
        if kind.overflow == "SAT_ZERO":
            low, high = _literal(kind.min_code), _literal(kind.max_code)
            self.see(kind.min_code, kind.max_code)
            self.lines.append(f"t = (t < {low} || t > {high}) ? 0 : t;")
        else:
            mask = _literal((1 << kind.width) - 1)
            self.see((1 << kind.width) - 1)
            if kind.signed:
                half = 1 << (kind.width - 1)
                self.see(self.low + half, self.high + half)
                self._put(f"((t + {_literal(half)}) & {mask}) - {_literal(half)}")
            else:
                self._put(f"t & {mask}")
        self._set(kind.min_code, kind.max_code)

    def cast(self, kind: FixedType, fraction: int) -> None:
        """From the grid ``2**-fraction`` into `kind`, as `FixedType.cast`."""
        self.round(fraction - kind.fraction, kind.rounding)
        self.fit(kind)

    def code(self, bits: int) -> str:
        """The statements for a type of `bits` bits."""
        text = " ".join(self.lines).replace("(T)", f"(int{bits}_t)")
        return text.replace("SHIFT(", f"SHIFT{bits}(")


def bits_for(low: int, high: int) -> int:
    """16, 32 or 64: the narrowest signed type that holds low to high.

    Raises
    ------
    Unsupported
        If none does.
    """
    for bits in (16, 32, 64):
        if -(1 << (bits - 1)) <= low and high < 1 << (bits - 1):
            return bits
    raise Unsupported(f"a value from {low} to {high} does not fit 64 bits")


def _literal(value: int) -> str:
    if -(1 << 31) < value < 1 << 31:
        return str(value)
    return f"(-INT64_C({-value}))" if value < 0 else f"INT64_C({value})"


# ---------------------------------------------------------------------------------------------------------- the program


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
class _Generator:
    """Collects the pieces of the source; see `generate`."""

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

    # ------------------------------------------------------------------ small helpers

    def buffer(self, name: str, rows: int, bits: int) -> str:
        self.buffers.append(f"int{bits}_t {name}[{max(rows, 1)}][B];")
        return name

    def function(self, name: str, body: Sequence[str], argument: str = "", parameter: str = "") -> None:
        lines = "\n".join("    " + line for line in body)
        self.functions.append(f"static ALONE void {name}(struct values *s{parameter})\n{{\n{lines}\n}}\n")
        self.calls.append(f"{name}(s{argument});")

    def source(self, name: str) -> list[Element | None]:
        # A node that the score does not depend on was not written at all.
        return self.values.get(name) or [None] * self.program.node(name).size

    def fraction(self, name: str) -> int:
        return self.program.node(name).type.fraction

    def span(self, node: Node, index: int) -> tuple[int, int]:
        interval = self.intervals[node.name][0]
        return int(interval.low[index]), int(interval.high[index])

    def elementwise(
        self, name: str, outputs: Sequence[tuple[int, Sequence[Element], Chain, str] | None]
    ) -> list[Element | None]:
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

    # ------------------------------------------------------------------ nodes

    def emit(self, node: Node, position: int) -> None:
        """Emit one node; its name in C is its position."""
        name = f"{node.op}{position}"
        handlers: dict[type[Node], Callable[[Any, str], list[Element | None]]] = {
            Input: self.emit_input,
            Scale: self.emit_scale,
            Dense: self.emit_dense,
            Relu: self.emit_cast,
            Quantize: self.emit_cast,
            Lut: self.emit_lut,
            Multiply: self.emit_pairwise,
            Subtract: self.emit_pairwise,
            Concat: self.emit_concat,
            Take: self.emit_take,
            Maximum: self.emit_maximum,
        }
        self.values[node.name] = handlers[type(node)](node, name)

    def emit_input(self, node: Input, name: str) -> list[Element | None]:
        """Rows to planar form, and the check that every word is one its bits can hold."""
        used = [i for i in range(node.size) if self.live[node.name][i]]
        kind = node.type
        # Up to 16 bits that wrap: what a conversion of the words to int16 does too.
        if kind.overflow != "WRAP" or kind.fraction or kind.width > 16:
            raise Unsupported("an input node that is no integer of up to 16 bits")
        if not all(kind.holds(*self.span(node, i)) for i in used):
            raise Unsupported("an input node that casts")
        buffer = self.buffer(f"v_{name}", len(used), 16)
        row_of = {i: row for row, i in enumerate(used)}
        result: list[Element | None] = [None] * node.size
        for i in used:
            low, high = self.span(node, i)
            if bits_for(low, high) > 16:
                raise Unsupported("hardware words wider than 16 bits")
            result[i] = Element(buffer, row_of[i], 16, low, high)
        word_row = {int(self.columns[i]): row_of[i] for i in used}
        body = []
        if self.simd and self.row_words >= 8:
            body.append("V w[8];")
            done: set[int] = set()
            for start in range(0, self.row_words, 8):
                first = min(start, self.row_words - 8)
                words = [w for w in range(first, first + 8) if w in word_row and w not in done]
                done.update(words)
                if words:
                    body.append(f"transpose_words(rows + {first}, stride, w);")
                    body += [f"STORE(s->{buffer}[{word_row[w]}], w[{w - first}]);" for w in words]
        else:
            body.append("for (int e = 0; e < B; e++, rows += stride) {")
            body += [f"    s->{buffer}[{row}][e] = rows[{word}];" for word, row in word_row.items()]
            body.append("}")
        self.function(f"f_{name}", body, ", rows, stride", ", const int16_t *rows, int64_t stride")
        tests = []
        for i in used:
            low, high = self.span(node, i)
            size = high - low + 1
            x = f"s->{buffer}[{row_of[i]}][e]"
            if size & (size - 1):
                tests.append(f"(uint16_t)(({x} < {low}) | ({x} > {high}))")
            elif size < 1 << 16:
                tests.append(f"(uint16_t)((uint16_t)({x} - {low}) & {(1 << 16) - size})")
        body = ["uint16_t any = 0;"]
        for start in range(0, max(len(tests), 1), 32):
            group = " | ".join(tests[start : start + 32]) or "0"
            before = "s->bad[e] | " if start else ""
            body.append(f"for (int e = 0; e < B; e++) s->bad[e] = (uint16_t)({before}{group});")
        body += [
            "for (int e = 0; e < B; e++) any |= s->bad[e];",
            "if (any)",
            f"    for (int i = 0; i < {len(used)}; i++)",
            f"        for (int e = 0; e < B; e++) if (s->bad[e]) s->{buffer}[i][e] = 0;",
        ]
        # Zero is a word that every layout has; should one not, its events would not be scored here either.
        if any(not e.low <= 0 <= e.high for e in result if e is not None):
            raise Unsupported("a hardware word that cannot be zero")
        self.function(f"f_{name}_check", body)
        return result

    def emit_scale(self, node: Scale, name: str) -> list[Element | None]:
        outputs: list[tuple[int, Sequence[Element], Chain, str] | None] = []
        for i, source in enumerate(self.source(node.inputs[0])):
            if source is None or not self.live[node.name][i]:
                outputs.append(None)
                continue
            outputs.append((i, (source,), _scale_chain(node, i, source), "x"))
        return self.elementwise(name, outputs)

    def emit_cast(self, node: Relu | Quantize, name: str) -> list[Element | None]:
        outputs: list[tuple[int, Sequence[Element], Chain, str] | None] = []
        fraction = self.fraction(node.inputs[0])
        for i, source in enumerate(self.source(node.inputs[0])):
            if source is None or not self.live[node.name][i]:
                outputs.append(None)
                continue
            chain = Chain(source.low, source.high)
            if isinstance(node, Relu):
                chain.clip(0, None)
            chain.cast(node.type, fraction)
            outputs.append((i, (source,), chain, "x"))
        return self.elementwise(name, outputs)

    def emit_pairwise(self, node: Multiply | Subtract, name: str) -> list[Element | None]:
        a, b = (self.source(n) for n in node.inputs)
        fa, fb = (self.fraction(n) for n in node.inputs)
        exact = self.intervals[node.name][1]
        grid = fa + fb if isinstance(node, Multiply) else max(fa, fb)
        outputs: list[tuple[int, Sequence[Element], Chain, str] | None] = []
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            if x is None or y is None or not self.live[node.name][i]:
                outputs.append(None)
                continue
            chain = Chain(int(exact.low[i]), int(exact.high[i]))
            if isinstance(node, Multiply):
                start = "x * y"
            else:
                up, vp = 1 << (grid - fa), 1 << (grid - fb)
                chain.see(x.low * up, x.high * up, y.low * vp, y.high * vp, up, vp)
                start = f"x * {_literal(up)} - y * {_literal(vp)}"
            chain.cast(node.type, grid)
            outputs.append((i, (x, y), chain, start))
        return self.elementwise(name, outputs)

    def emit_concat(self, node: Concat, name: str) -> list[Element | None]:
        grid = max(self.fraction(n) for n in node.inputs)
        moved: list[tuple[int, Sequence[Element], Chain, str] | None] = []
        plain: dict[int, Element | None] = {}
        index = 0
        for source in node.inputs:
            for element in self.source(source):
                moved.append(None)
                if element is not None and self.live[node.name][index]:
                    chain = Chain(element.low, element.high)
                    chain.multiply(1 << (grid - self.fraction(source)))
                    chain.cast(node.type, grid)
                    if chain.lines:
                        moved[index] = (index, (element,), chain, "x")
                    else:
                        plain[index] = element
                index += 1
        return self._renamed(name, moved, plain)

    def emit_take(self, node: Take, name: str) -> list[Element | None]:
        source, fraction = self.source(node.inputs[0]), self.fraction(node.inputs[0])
        moved: list[tuple[int, Sequence[Element], Chain, str] | None] = [None] * node.size
        plain: dict[int, Element | None] = {}
        for index, position in enumerate(node.index):
            element = source[int(position)]
            if element is not None and self.live[node.name][index]:
                chain = Chain(element.low, element.high)
                chain.cast(node.type, fraction)
                if chain.lines:
                    moved[index] = (index, (element,), chain, "x")
                else:
                    plain[index] = element
        return self._renamed(name, moved, plain)

    def _renamed(
        self,
        name: str,
        moved: Sequence[tuple[int, Sequence[Element], Chain, str] | None],
        plain: dict[int, Element | None],
    ) -> list[Element | None]:
        """Elements that need arithmetic, and those that are merely somewhere else."""
        result: list[Element | None] = [None] * len(moved)
        if any(entry is not None for entry in moved):
            result = self.elementwise(name, moved)
        for index, element in plain.items():
            result[index] = element
        return result

    def emit_maximum(self, node: Maximum, name: str) -> list[Element | None]:
        source, fraction = self.source(node.inputs[0]), self.fraction(node.inputs[0])
        exact = self.intervals[node.name][1]
        chosen: list[tuple[int, list[Element], Chain]] = []
        for i in range(node.size):
            if self.live[node.name][i]:
                members = [e for e in (source[int(p)] for p in node.groups[i]) if e is not None]
                chain = Chain(int(exact.low[i]), int(exact.high[i]))
                chain.see(*(e.low for e in members), *(e.high for e in members))
                chain.cast(node.type, fraction)
                chosen.append((i, members, chain))
        stored = max((bits_for(c.low, c.high) for _, _, c in chosen), default=16)
        buffer = self.buffer(f"v_{name}", len(chosen), stored)
        result: list[Element | None] = [None] * node.size
        body = []
        for row, (i, members, chain) in enumerate(chosen):
            bits = max(chain.bits, *(e.bits for e in members))
            loads = f"int{bits}_t t = {members[0].lvalue}[e];"
            for element in members[1:]:
                loads += f" {{ int{bits}_t x = {element.lvalue}[e]; t = x > t ? x : t; }}"
            store = f"s->{buffer}[{row}][e] = (int{stored}_t)t;"
            body.append(f"for (int e = 0; e < B; e++) {{ {loads} {chain.code(bits)} {store} }}")
            result[i] = Element(buffer, row, stored, chain.low, chain.high)
        self.function(f"f_{name}", body)
        return result

    def emit_lut(self, node: Lut, name: str) -> list[Element | None]:
        source = self.source(node.inputs[0])
        used = [i for i, e in enumerate(source) if e is not None and self.live[node.name][i]]
        entries = [int(v) for v in np.unique(node.tables)]
        bits = bits_for(entries[0], entries[-1])
        tables = sorted({i if len(node.tables) > 1 else 0 for i in used})
        text = ",\n".join("    {" + ", ".join(_literal(int(v)) for v in node.tables[t]) + "}" for t in tables)
        self.functions.append(
            f"static const int{bits}_t t_{name}[{max(len(tables), 1)}][{node.tables.shape[1]}] = {{\n{text}\n}};\n"
        )
        outputs: list[tuple[int, Sequence[Element], Chain, str] | None] = [None] * node.size
        for i in used:
            element = source[i]
            assert element is not None
            row = node.tables[i if len(node.tables) > 1 else 0]
            part = row[element.low - node.first : element.high - node.first + 1]
            chain = Chain(int(part.min()), int(part.max()))
            chain.see(node.first, element.low - node.first, element.high - node.first)
            chain.fit(node.type)
            table = tables.index(i) if len(node.tables) > 1 else 0
            outputs[i] = (i, (element,), chain, f"t_{name}[{table}][x - {_literal(node.first)}]")
        return self.elementwise(name, outputs)

    # ------------------------------------------------------------------ dense layers

    def emit_dense(self, node: Dense, name: str) -> list[Element | None]:
        weights, bias, total = self._aligned(node)
        source = self.source(node.inputs[0])
        outputs = [j for j in range(node.size) if self.live[node.name][j]]
        inputs = [i for i, e in enumerate(source) if e is not None and any(weights[i, j] for j in outputs)]
        elements = [source[i] for i in inputs]
        assert all(e is not None for e in elements)
        layer = _Layer(
            [e for e in elements if e is not None],
            weights[np.ix_(inputs, outputs)].reshape(len(inputs), len(outputs)),
            bias[outputs],
            self.intervals[node.name][1].low[outputs],
            self.intervals[node.name][1].high[outputs],
        )
        products = int(np.count_nonzero(layer.weights))
        clamps = [self._clamp(node, j) for j in outputs]
        sums: list[Element] | None = None
        if self.simd and products <= self.unrolled_products:
            sums = self._simd_dense(name, layer, clamps)
        if sums is None:
            if products <= self.unrolled_products:
                sums = self._written_dense(name, layer)
            else:
                sums = self._looped_dense(name, layer)
        casts: list[tuple[int, Sequence[Element], Chain, str] | None] = [None] * node.size
        plain: dict[int, Element | None] = {}
        for j, element in zip(outputs, sums, strict=True):
            chain = Chain(element.low, element.high)
            chain.cast(node.type, total)
            if chain.lines:
                casts[j] = (j, (element,), chain, "x")
            else:
                plain[j] = element
        return self._renamed(f"{name}_cast", casts, plain)

    def _aligned(self, node: Dense) -> tuple[npt.NDArray[Any], npt.NDArray[Any], int]:
        """`Dense.aligned` in Python integers."""
        product = self.fraction(node.inputs[0]) + node.weight_type.fraction
        total = max(product, node.bias_type.fraction)
        weights = node.weights.astype(object) * (1 << (total - product))
        return weights, node.bias.astype(object) * (1 << (total - node.bias_type.fraction)), total

    def _clamp(self, node: Dense, output: int) -> bool:
        """Whether limiting this output to int16 changes nothing, because all that reads it saturates earlier.

        The readers keep order (rounding and saturation do), so it is enough that the ends of int16 give the same
        codes as the ends of the exact interval.
        """
        low, high = (int(v[output]) for v in (self.intervals[node.name][1].low, self.intervals[node.name][1].high))
        product = self.fraction(node.inputs[0]) + node.weight_type.fraction
        if node.type.fraction != max(product, node.bias_type.fraction) or not node.type.holds(low, high):
            return False
        readers = [n for n in self.program.nodes if node.name in n.inputs and self.live[n.name].any()]
        if node.name == self.program.score or not readers:
            return False
        for reader in readers:
            if not isinstance(reader, (Relu, Quantize)) or reader.type.overflow not in ("SAT", "SAT_SYM"):
                return False
            for end, limit in ((low, max(low, -(1 << 15))), (high, min(high, (1 << 15) - 1))):
                codes = reader.evaluate(np.array([end, limit]), fractions=(node.type.fraction,))
                if codes[0] != codes[1]:
                    return False
        return True

    def _written_dense(self, name: str, layer: _Layer) -> list[Element]:
        """Sums written out, a loop over events each: what compilers vectorise best."""
        buffer, bits = self._sum_buffer(name, layer)
        body = []
        for j in range(layer.n_outputs):
            kind, start, cast = self._accumulator(layer, j, bits)
            terms = []
            for i, element in enumerate(layer.elements):
                if weight := int(layer.weights[i, j]):
                    x = f"{element.lvalue}[e]"
                    terms.append(f"({kind}){x} * ({kind}){_literal(weight)}" if weight != 1 else f"({kind}){x}")
            text = " + ".join([start, *terms])
            body.append(f"for (int e = 0; e < B; e++) s->{buffer}[{j}][e] = {cast}({text});")
        self.function(f"f_{name}", body)
        return layer.sums(buffer, bits)

    def _looped_dense(self, name: str, layer: _Layer) -> list[Element]:
        """Sums from tables of the non-zero weights: for layers whose code would be too large."""
        buffer, bits = self._sum_buffer(name, layer)
        kinds = {self._accumulator(layer, j, bits)[0] for j in range(layer.n_outputs)}
        # One type for all: the widest, unsigned if one of them has to be.
        width = 64 if any("64" in k for k in kinds) else 32
        kind = f"uint{width}_t" if any(k.startswith("u") for k in kinds) else f"int{width}_t"
        groups: dict[str, list[int]] = {}
        for i, element in enumerate(layer.elements):
            groups.setdefault(element.buffer, []).append(i)
        body = [f"static const {kind} start[] = {{{', '.join(_literal(int(b)) for b in layer.bias)}}};"]
        weight_bits = bits_for(int(layer.weights.min()), int(layer.weights.max()))
        loops: list[str] = []
        for number, (source, members) in enumerate(groups.items()):
            values, rows, ends = [], [], [0]
            for j in range(layer.n_outputs):
                for i in members:
                    if layer.weights[i, j]:
                        values.append(int(layer.weights[i, j]))
                        rows.append(layer.elements[i].row)
                ends.append(len(values))
            body += [
                f"static const int{weight_bits}_t w{number}[] = {{{', '.join(map(_literal, values)) or '0'}}};",
                f"static const int32_t r{number}[] = {{{', '.join(map(str, rows)) or '0'}}};",
                f"static const int32_t n{number}[] = {{{', '.join(map(str, ends))}}};",
            ]
            loops += [
                f"    for (int n = n{number}[j]; n < n{number}[j + 1]; n++)",
                f"        for (int e = 0; e < B; e++) "
                f"sum[e] += ({kind})w{number}[n] * ({kind})s->{source}[r{number}[n]][e];",
            ]
        body += [
            f"for (int j = 0; j < {layer.n_outputs}; j++) {{",
            f"    {kind} sum[B];",
            "    for (int e = 0; e < B; e++) sum[e] = start[j];",
            *loops,
            f"    for (int e = 0; e < B; e++) s->{buffer}[j][e] = (int{bits}_t)sum[e];",
            "}",
        ]
        self.function(f"f_{name}", body)
        return layer.sums(buffer, bits)

    def _sum_buffer(self, name: str, layer: _Layer) -> tuple[str, int]:
        bits = max((bits_for(int(a), int(b)) for a, b in zip(layer.low, layer.high, strict=True)), default=16)
        return self.buffer(f"v_{name}", layer.n_outputs, bits), bits

    @staticmethod
    def _accumulator(layer: _Layer, j: int, bits: int) -> tuple[str, str, str]:
        """(type of the sum, its start, cast of the result).

        Signed where no order of summation can overflow; else unsigned, which wraps by the rules of C and ends at the
        right value, since the exact sum is proven to fit.
        """
        most = abs(int(layer.bias[j]))
        for i, element in enumerate(layer.elements):
            most += abs(int(layer.weights[i, j])) * max(abs(element.low), abs(element.high))
        width = 32 if bits <= 32 and bits_for(int(layer.low[j]), int(layer.high[j])) <= 32 else 64
        signed = most < 1 << (width - 1)
        kind = f"int{width}_t" if signed else f"uint{width}_t"
        return kind, f"({kind}){_literal(int(layer.bias[j]))}", f"(int{bits}_t)"

    def _simd_dense(self, name: str, layer: _Layer, clamps: Sequence[bool]) -> list[Element] | None:
        """Dot products of pairs or quads; None if the layer does not fit them."""
        if not layer.elements or any(e.bits > 16 for e in layer.elements):
            return None
        if any(not -(1 << 31) <= int(v) < 1 << 31 for v in (*layer.low, *layer.high, *layer.bias)):
            return None
        pairs = match([layer.weights[i] != 0 for i in range(layer.n_inputs)])
        small = [e.high - e.low <= 255 for e in layer.elements]
        weights8 = all(-128 <= int(w) <= 127 for w in layer.weights.flat)
        narrow = all(bits_for(int(a), int(b)) == 16 for a, b in zip(layer.low, layer.high, strict=True))
        if all(small) and weights8:
            if self.level == "avx512vnni":
                return self._dot(name, layer, clamps, _quads(pairs, layer.weights), "quads")
            if narrow and self._pairs_fit_int16(layer, pairs):
                return self._dot(name, layer, clamps, pairs, "bytes")
        if all(-(1 << 15) <= int(w) < 1 << 15 for w in layer.weights.flat):
            return self._dot(name, layer, clamps, pairs, "words")
        return None

    @staticmethod
    def _pairs_fit_int16(layer: _Layer, pairs: Sequence[tuple[int, ...]]) -> bool:
        """Whether no sum of two byte products can saturate, which the instruction would do silently."""
        for group in pairs:
            reach = sum(np.abs(layer.weights[i]) * (layer.elements[i].high - layer.elements[i].low) for i in group)
            if max(np.atleast_1d(reach)) > (1 << 15) - 1:
                return False
        return True

    def _dot(
        self,
        name: str,
        layer: _Layer,
        clamps: Sequence[bool],
        groups: Sequence[tuple[int, ...]],
        form: Literal["quads", "bytes", "words"],
    ) -> list[Element]:
        """A dense layer of dot products.

        ``words``: two int16 products into 32 bits. ``quads``: four products of an unsigned and a signed byte into
        32 bits. ``bytes``: two of these into 16 bits. Bytes carry ``code - low``; what that takes from the sum is
        added to the bias.
        """
        fits = [c or bits_for(int(a), int(b)) == 16 for c, a, b in zip(clamps, layer.low, layer.high, strict=True)]
        bits = 16 if all(fits) else 32
        buffer = self.buffer(f"v_{name}", layer.n_outputs, bits)
        halves = 1 if form == "bytes" else 2
        body = [f"V x[{len(groups)}][{halves}];"]
        for g, group in enumerate(groups):
            body.append(self._operand(g, [layer.elements[i] for i in group], form))
        constants: list[int] = []

        def constant(value: int) -> str:
            constants.append(value)
            return f"SET32(w[{len(constants) - 1}])"

        registers = 24 if self.block == 32 else 12
        per_group = registers // halves
        n_groups = -(-layer.n_outputs // per_group)
        bounds = [round(k * layer.n_outputs / n_groups) for k in range(n_groups + 1)]
        for first, last in pairwise(bounds):
            body.append("{")
            for j in range(first, last):
                start = int(layer.bias[j])
                if form != "words":
                    start += sum(int(layer.weights[i, j]) * e.low for i, e in enumerate(layer.elements))
                if form == "bytes":
                    start = _pack([start, start], 16)
                second = f", b{j} = a{j}" if halves == 2 else ""
                body.append(f"    V a{j} = {constant(_signed(start, 32))}{second};")
            for g, group in enumerate(groups):
                touched = [j for j in range(first, last) if any(layer.weights[i, j] for i in group)]
                if not touched:
                    continue
                body.append(f"    {{ const V p = x[{g}][0]" + (f", q = x[{g}][1]; V c;" if halves == 2 else "; V c;"))
                for j in touched:
                    codes = [int(layer.weights[i, j]) for i in group]
                    if form == "quads":
                        word = _pack(codes + [0] * (4 - len(codes)), 8)
                        step = f"STEP(a{j}, DOT8(a{j}, p, c)); STEP(b{j}, DOT8(b{j}, q, c));"
                    elif form == "bytes":
                        word = _pack((codes + [0] * (2 - len(codes))) * 2, 8)
                        step = f"STEP(a{j}, ADD16(a{j}, MADD8(p, c)));"
                    else:
                        word = _pack(codes + [0] * (2 - len(codes)), 16)
                        step = f"STEP(a{j}, DOT16(a{j}, p, c)); STEP(b{j}, DOT16(b{j}, q, c));"
                    body.append(f"      c = {constant(word)}; {step}")
                body.append("    }")
            for j in range(first, last):
                if form == "bytes":
                    body.append(f"    STORE(s->{buffer}[{j}], a{j});")
                elif bits == 16:
                    body.append(f"    STORE(s->{buffer}[{j}], PACK32(a{j}, b{j}));")
                else:
                    body.append(f"    store_sums(s->{buffer}[{j}], a{j}, b{j});")
            body.append("}")
        table = ", ".join(_literal(c) if c != -(1 << 31) else "INT32_MIN" for c in constants)
        self.functions.append(f"static const int32_t w_{name}[] = {{{table}}};\n")
        self.function(f"f_{name}", ["HIDE(w);", *body], f", w_{name}", ", const int32_t *w")
        sums = layer.sums(buffer, bits)
        if bits == 16:
            limit = 1 << 15
            sums = [
                Element(e.buffer, e.row, 16, min(max(e.low, -limit), limit - 1), max(min(e.high, limit - 1), -limit))
                for e in sums
            ]
        return sums

    @staticmethod
    def _operand(g: int, group: Sequence[Element], form: str) -> str:
        """Statements that interleave the planar codes of a group into ``x[g]``."""

        def planar(k: int) -> str:
            return f"LOAD({group[k].lvalue})" if k < len(group) else "ZERO()"

        if form == "words":
            return (
                f"{{ const V a = {planar(0)}, b = {planar(1)}; "
                f"x[{g}][0] = UNPACKLO16(a, b); x[{g}][1] = UNPACKHI16(a, b); }}"
            )

        def byte_pair(k: int) -> str:
            shift = [-e.low for e in group[k : k + 2]]
            if not shift:
                return "ZERO()"
            text = planar(k) if len(shift) == 1 else f"ADD16({planar(k)}, SHIFT_BYTE({planar(k + 1)}))"
            offset = _pack([shift[0] + 256 * (shift[1] if len(shift) > 1 else 0)] * 2, 16)
            return text if not any(shift) else f"ADD16({text}, SET32({_literal(offset)}))"

        if form == "bytes":
            return f"x[{g}][0] = {byte_pair(0)};"
        return (
            f"{{ const V a = {byte_pair(0)}, b = {byte_pair(2)}; "
            f"x[{g}][0] = UNPACKLO16(a, b); x[{g}][1] = UNPACKHI16(a, b); }}"
        )


@dataclass(frozen=True)
class _Layer:
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


def _scale_chain(node: Scale, index: int, source: Element) -> Chain:
    """The statements of one scaled input, in the fewest steps that give the same codes.

    Where nothing can wrap, offset and word share a power of two that the shifts can do without, which keeps the
    difference in 16 bits: ``((16 x - 288) >> 3)`` is ``(x - 18) << 1``.
    """
    multiplier, offset, shift = (int(v[index]) for v in (node.multiplier, node.offset, node.shift))
    rounding, word = node.type.rounding, node.word
    ends = sorted((source.low * multiplier, source.high * multiplier))
    left = max(-shift, 0)
    ranges = [ends, [e - offset for e in ends], [(e - offset) << left for e in ends]]
    down = word.fraction - node.type.fraction
    chain = Chain(source.low, source.high)
    keeps = word.overflow != "SAT_SYM" and all(word.holds(*r) for r in ranges)
    if not keeps:
        chain.multiply(multiplier)
        chain.fit(word)
        chain.add(-offset)
        chain.fit(word)
        if shift >= 0:
            chain.floor_shift(shift)
        else:
            chain.multiply(1 << left)
            chain.fit(word)
        chain.cast(node.type, word.fraction)
        return chain
    common = 0
    while (multiplier or offset) and not (multiplier >> common) & 1 and not (offset >> common) & 1:
        common += 1
    chain.multiply(multiplier >> common)
    chain.add(-(offset >> common))
    zeros = common - shift
    if zeros < 0:
        chain.floor_shift(-zeros)
        zeros = 0
    chain.round(down - zeros, rounding)
    chain.fit(node.type)
    return chain


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


def match(supports: Sequence[npt.NDArray[np.bool_]]) -> list[tuple[int, ...]]:
    """Group inputs in twos so that few outputs are touched by a pair: greedy by the outputs that two share.

    A product of two costs as much as a product of one, so inputs that feed the same outputs belong together.
    """
    table = np.array(supports, dtype=np.int64)
    shared = table @ table.T
    order = np.argsort(-shared[np.triu_indices(len(table), 1)], kind="stable")
    rows, columns = (axis[order] for axis in np.triu_indices(len(table), 1))
    free = np.ones(len(table), dtype=bool)
    pairs: list[tuple[int, ...]] = []
    for a, b in zip(rows.tolist(), columns.tolist(), strict=True):
        if free[a] and free[b]:
            free[a] = free[b] = False
            pairs.append((a, b))
    pairs += [(int(i),) for i in np.flatnonzero(free)]
    return sorted(pairs)


def _quads(pairs: Sequence[tuple[int, ...]], weights: npt.NDArray[Any]) -> list[tuple[int, ...]]:
    joined = match([(weights[list(pair)] != 0).any(axis=0) for pair in pairs])
    # The shorter group last: a group is filled up with zeros at its end.
    return [sum(sorted((pairs[k] for k in group), key=lambda p: -len(p)), ()) for group in joined]


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def _pack(values: Sequence[int], bits: int) -> int:
    """Little-endian fields of `bits` bits in a signed 32-bit integer."""
    word = 0
    for k, value in enumerate(values):
        word |= (value & ((1 << bits) - 1)) << (bits * k)
    return _signed(word, 32)


_HEADER = """/* Generated by l1ad: program {hash}, {level}. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define B {block}
#define WORDS {words}
/* Each function is compiled on its own: gcc 12 otherwise takes some of them for free of effects and drops the calls. */
#if defined(__GNUC__) && !defined(__clang__)
#define ALONE __attribute__((noipa))
#else
#define ALONE __attribute__((noinline))
#endif
#define SHIFT16(n) ((n) > 15 ? 15 : (n))
#define SHIFT32(n) ((n) > 31 ? 31 : (n))
#define SHIFT64(n) (n)
"""

_FOOTER = """
static ALONE void block(struct values *s, const int16_t *rows, int64_t stride)
{{
{calls}
}}

/* Scores of n rows of WORDS int16 words, `stride` words apart; returns how many rows hold a word that its bits cannot
 * hold: these get the score {no_score}. -1 if there is no memory. */
#define ENTRY(name, type)                                                                              \\
    int64_t name(const int16_t *rows, int64_t n, int64_t stride, type *scores)                         \\
    {{                                                                                                  \\
        struct values *s = aligned_alloc(64, (sizeof(struct values) + 63) / 64 * 64);                  \\
        int64_t bad = 0;                                                                               \\
        if (!s)                                                                                        \\
            return -1;                                                                                 \\
        for (int64_t start = 0; start < n; start += B) {{                                               \\
            const int64_t count = n - start < B ? n - start : B;                                       \\
            if (count == B) {{                                                                          \\
                block(s, rows + start * stride, stride);                                               \\
            }} else {{                                                                                   \\
                memset(s->last, 0, sizeof s->last);                                                    \\
                for (int64_t e = 0; e < count; e++)                                                    \\
                    memcpy(s->last[e], rows + (start + e) * stride, WORDS * sizeof(int16_t));          \\
                block(s, s->last[0], WORDS);                                                           \\
            }}                                                                                          \\
            for (int64_t e = 0; e < count; e++) {{                                                      \\
                scores[start + e] = s->bad[e] ? (type){no_score} : (type){score}[e];       \\
                bad += s->bad[e] != 0;                                                                 \\
            }}                                                                                          \\
        }}                                                                                              \\
        free(s);                                                                                       \\
        return bad;                                                                                    \\
    }}

ENTRY(l1ad_score32, int32_t)
ENTRY(l1ad_score64, int64_t)
"""


def generate(
    program: Program,
    *,
    level: Level,
    columns: npt.NDArray[np.int64] | None = None,
    row_words: int | None = None,
    unrolled_products: int = UNROLLED_PRODUCTS,
) -> str:
    """The C source of a kernel.

    Parameters
    ----------
    program : what to compute.
    level : the instruction set to write for.
    columns : (inputs,) position of each network input in a row of words; by default the row is the inputs.
    row_words : words in a row, by default the number of inputs.
    unrolled_products : products of one layer up to which its sums are written out.

    Raises
    ------
    Unsupported
        If a value of the program does not fit 64 bits.
    """
    n_inputs = program.nodes[0].size
    chosen = np.arange(n_inputs) if columns is None else np.asarray(columns, dtype=np.int64)
    words = n_inputs if row_words is None else row_words
    generator = _Generator(program, chosen, words, level, unrolled_products)
    for position, node in enumerate(program.nodes):
        if generator.live[node.name].any() or isinstance(node, Input):
            generator.emit(node, position)
    score = generator.values[program.score][0]
    assert score is not None
    pieces = [_HEADER.format(hash=program.hash, level=level, block=generator.block, words=words)]
    if generator.simd:
        header = resources.files("l1ad.trigger").joinpath("csrc", "simd.h")
        pieces.append(header.read_text(encoding="utf-8"))
    fields = "\n".join(f"    {line}" for line in generator.buffers)
    pieces.append(f"struct values {{\n{fields}\n    uint16_t bad[B];\n    int16_t last[B][WORDS];\n}};\n")
    pieces += generator.functions
    calls = "\n".join(f"    {call}" for call in generator.calls)
    pieces.append(_FOOTER.format(calls=calls, no_score="INT32_MIN", score=score.lvalue))
    return "\n".join(pieces)
