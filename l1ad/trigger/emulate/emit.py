"""The nodes of a program in C, dense layers excepted (see `l1ad.trigger.emulate.dense`).

Each emitter takes the writer, a node and the node's name in C, and gives the node's elements.
"""

from __future__ import annotations

import numpy as np

from l1ad.trigger.emulate.ranges import Chain, Unsupported, bits_for, literal
from l1ad.trigger.emulate.writer import Element, Output, Writer
from l1ad.trigger.nodes import Concat, Input, Lut, Maximum, Multiply, Quantize, Relu, Scale, Subtract, Take


def emit_input(w: Writer, node: Input, name: str) -> list[Element | None]:
    """Rows to planar form, and the check that every word is one its bits can hold."""
    used = [i for i in range(node.size) if w.live[node.name][i]]
    kind = node.type
    # Up to 16 bits that wrap: what a conversion of the words to int16 does too.
    if kind.overflow != "WRAP" or kind.fraction or kind.width > 16:
        raise Unsupported("an input node that is no integer of up to 16 bits")
    if not all(kind.holds(*w.span(node, i)) for i in used):
        raise Unsupported("an input node that casts")
    buffer = w.buffer(f"v_{name}", len(used), 16)
    row_of = {i: row for row, i in enumerate(used)}
    result: list[Element | None] = [None] * node.size
    for i in used:
        low, high = w.span(node, i)
        if bits_for(low, high) > 16:
            raise Unsupported("hardware words wider than 16 bits")
        result[i] = Element(buffer, row_of[i], 16, low, high)
    word_row = {int(w.columns[i]): row_of[i] for i in used}
    body = []
    if w.simd and w.row_words >= 8:
        body.append("V w[8];")
        done: set[int] = set()
        for start in range(0, w.row_words, 8):
            first = min(start, w.row_words - 8)
            words = [w for w in range(first, first + 8) if w in word_row and w not in done]
            done.update(words)
            if words:
                body.append(f"transpose_words(rows + {first}, stride, w);")
                body += [f"STORE(s->{buffer}[{word_row[w]}], w[{w - first}]);" for w in words]
    else:
        body.append("for (int e = 0; e < B; e++, rows += stride) {")
        body += [f"    s->{buffer}[{row}][e] = rows[{word}];" for word, row in word_row.items()]
        body.append("}")
    w.function(f"f_{name}", body, ", rows, stride", ", const int16_t *rows, int64_t stride")
    tests = []
    for i in used:
        low, high = w.span(node, i)
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
    w.function(f"f_{name}_check", body)
    return result


def emit_scale(w: Writer, node: Scale, name: str) -> list[Element | None]:
    """Scaled inputs."""
    outputs: list[Output | None] = []
    for i, source in enumerate(w.source(node.inputs[0])):
        if source is None or not w.live[node.name][i]:
            outputs.append(None)
            continue
        outputs.append((i, (source,), _scale_chain(node, i, source), "x"))
    return w.elementwise(name, outputs)


def emit_cast(w: Writer, node: Relu | Quantize, name: str) -> list[Element | None]:
    """Casts, after the clip at zero of a ReLU."""
    outputs: list[Output | None] = []
    fraction = w.fraction(node.inputs[0])
    for i, source in enumerate(w.source(node.inputs[0])):
        if source is None or not w.live[node.name][i]:
            outputs.append(None)
            continue
        chain = Chain(source.low, source.high)
        if isinstance(node, Relu):
            chain.clip(0, None)
        chain.cast(node.type, fraction)
        outputs.append((i, (source,), chain, "x"))
    return w.elementwise(name, outputs)


def emit_pairwise(w: Writer, node: Multiply | Subtract, name: str) -> list[Element | None]:
    """Products and differences, element by element."""
    a, b = (w.source(n) for n in node.inputs)
    fa, fb = (w.fraction(n) for n in node.inputs)
    exact = w.intervals[node.name][1]
    grid = fa + fb if isinstance(node, Multiply) else max(fa, fb)
    outputs: list[Output | None] = []
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        if x is None or y is None or not w.live[node.name][i]:
            outputs.append(None)
            continue
        chain = Chain(int(exact.low[i]), int(exact.high[i]))
        if isinstance(node, Multiply):
            start = "x * y"
        else:
            up, vp = 1 << (grid - fa), 1 << (grid - fb)
            chain.see(x.low * up, x.high * up, y.low * vp, y.high * vp, up, vp)
            start = f"x * {literal(up)} - y * {literal(vp)}"
        chain.cast(node.type, grid)
        outputs.append((i, (x, y), chain, start))
    return w.elementwise(name, outputs)


def emit_concat(w: Writer, node: Concat, name: str) -> list[Element | None]:
    """Several nodes as one, on a common grid."""
    grid = max(w.fraction(n) for n in node.inputs)
    moved: list[Output | None] = []
    plain: dict[int, Element | None] = {}
    index = 0
    for source in node.inputs:
        for element in w.source(source):
            moved.append(None)
            if element is not None and w.live[node.name][index]:
                chain = Chain(element.low, element.high)
                chain.multiply(1 << (grid - w.fraction(source)))
                chain.cast(node.type, grid)
                if chain.lines:
                    moved[index] = (index, (element,), chain, "x")
                else:
                    plain[index] = element
            index += 1
    return w.renamed(name, moved, plain)


def emit_take(w: Writer, node: Take, name: str) -> list[Element | None]:
    """Chosen elements."""
    source, fraction = w.source(node.inputs[0]), w.fraction(node.inputs[0])
    moved: list[Output | None] = [None] * node.size
    plain: dict[int, Element | None] = {}
    for index, position in enumerate(node.index):
        element = source[int(position)]
        if element is not None and w.live[node.name][index]:
            chain = Chain(element.low, element.high)
            chain.cast(node.type, fraction)
            if chain.lines:
                moved[index] = (index, (element,), chain, "x")
            else:
                plain[index] = element
    return w.renamed(name, moved, plain)


def emit_maximum(w: Writer, node: Maximum, name: str) -> list[Element | None]:
    """The largest of each group."""
    source, fraction = w.source(node.inputs[0]), w.fraction(node.inputs[0])
    exact = w.intervals[node.name][1]
    chosen: list[tuple[int, list[Element], Chain]] = []
    for i in range(node.size):
        if w.live[node.name][i]:
            members = [e for e in (source[int(p)] for p in node.groups[i]) if e is not None]
            chain = Chain(int(exact.low[i]), int(exact.high[i]))
            chain.see(*(e.low for e in members), *(e.high for e in members))
            chain.cast(node.type, fraction)
            chosen.append((i, members, chain))
    stored = max((bits_for(c.low, c.high) for _, _, c in chosen), default=16)
    buffer = w.buffer(f"v_{name}", len(chosen), stored)
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
    w.function(f"f_{name}", body)
    return result


def emit_lut(w: Writer, node: Lut, name: str) -> list[Element | None]:
    """Tables, of which only the part that can be reached is looked at."""
    source = w.source(node.inputs[0])
    used = [i for i, e in enumerate(source) if e is not None and w.live[node.name][i]]
    entries = [int(v) for v in np.unique(node.tables)]
    bits = bits_for(entries[0], entries[-1])
    tables = sorted({i if len(node.tables) > 1 else 0 for i in used})
    text = ",\n".join("    {" + ", ".join(literal(int(v)) for v in node.tables[t]) + "}" for t in tables)
    w.functions.append(
        f"static const int{bits}_t t_{name}[{max(len(tables), 1)}][{node.tables.shape[1]}] = {{\n{text}\n}};\n"
    )
    outputs: list[Output | None] = [None] * node.size
    for i in used:
        element = source[i]
        assert element is not None
        row = node.tables[i if len(node.tables) > 1 else 0]
        part = row[element.low - node.first : element.high - node.first + 1]
        chain = Chain(int(part.min()), int(part.max()))
        chain.see(node.first, element.low - node.first, element.high - node.first)
        chain.fit(node.type)
        table = tables.index(i) if len(node.tables) > 1 else 0
        outputs[i] = (i, (element,), chain, f"t_{name}[{table}][x - {literal(node.first)}]")
    return w.elementwise(name, outputs)


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
