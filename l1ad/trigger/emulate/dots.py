"""Dense layers whose inputs and weights fit the 8-bit or 16-bit dot products of the machine.

Written with vector instructions by hand (``csrc/simd.h``): compilers do not find them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from l1ad.trigger.emulate.ranges import bits_for, literal
from l1ad.trigger.emulate.writer import Element, Layer, Writer


def dot_products(w: Writer, name: str, layer: Layer, clamps: Sequence[bool]) -> list[Element] | None:
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
        if w.level == "avx512vnni":
            return _dot(w, name, layer, clamps, _quads(pairs, layer.weights), "quads")
        if narrow and _pairs_fit_int16(layer, pairs):
            return _dot(w, name, layer, clamps, pairs, "bytes")
    if all(-(1 << 15) <= int(w) < 1 << 15 for w in layer.weights.flat):
        return _dot(w, name, layer, clamps, pairs, "words")
    return None


def _pairs_fit_int16(layer: Layer, pairs: Sequence[tuple[int, ...]]) -> bool:
    """Whether no sum of two byte products can saturate, which the instruction would do silently."""
    for group in pairs:
        reach = sum(np.abs(layer.weights[i]) * (layer.elements[i].high - layer.elements[i].low) for i in group)
        if max(np.atleast_1d(reach)) > (1 << 15) - 1:
            return False
    return True


def _dot(
    w: Writer,
    name: str,
    layer: Layer,
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
    buffer = w.buffer(f"v_{name}", layer.n_outputs, bits)
    halves = 1 if form == "bytes" else 2
    body = [f"V x[{len(groups)}][{halves}];"]
    for g, group in enumerate(groups):
        body.append(_operand(g, [layer.elements[i] for i in group], form))
    constants: list[int] = []

    def constant(value: int) -> str:
        constants.append(value)
        return f"SET32(w[{len(constants) - 1}])"

    registers = 24 if w.block == 32 else 12
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
    table = ", ".join(literal(c) if c != -(1 << 31) else "INT32_MIN" for c in constants)
    w.functions.append(f"static const int32_t w_{name}[] = {{{table}}};\n")
    w.function(f"f_{name}", ["HIDE(w);", *body], f", w_{name}", ", const int32_t *w")
    sums = layer.sums(buffer, bits)
    if bits == 16:
        limit = 1 << 15
        sums = [
            Element(e.buffer, e.row, 16, min(max(e.low, -limit), limit - 1), max(min(e.high, limit - 1), -limit))
            for e in sums
        ]
    return sums


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
        return text if not any(shift) else f"ADD16({text}, SET32({literal(offset)}))"

    if form == "bytes":
        return f"x[{g}][0] = {byte_pair(0)};"
    return (
        f"{{ const V a = {byte_pair(0)}, b = {byte_pair(2)}; "
        f"x[{g}][0] = UNPACKLO16(a, b); x[{g}][1] = UNPACKHI16(a, b); }}"
    )


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
