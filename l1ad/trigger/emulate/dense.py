"""Dense layers in C: sums written out, sums from tables where the code would be too large.

Layers that fit the dot products of the machine are `l1ad.trigger.emulate.dots`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.trigger.emulate.dots import dot_products
from l1ad.trigger.emulate.ranges import Chain, bits_for, literal
from l1ad.trigger.emulate.writer import Element, Layer, Output, Writer
from l1ad.trigger.nodes import Dense, Quantize, Relu


def emit_dense(w: Writer, node: Dense, name: str) -> list[Element | None]:
    """One dense layer, by the fastest way that fits it, and the cast of its sums."""
    weights, bias, total = _aligned(w, node)
    source = w.source(node.inputs[0])
    outputs = [j for j in range(node.size) if w.live[node.name][j]]
    inputs = [i for i, e in enumerate(source) if e is not None and any(weights[i, j] for j in outputs)]
    elements = [source[i] for i in inputs]
    assert all(e is not None for e in elements)
    layer = Layer(
        [e for e in elements if e is not None],
        weights[np.ix_(inputs, outputs)].reshape(len(inputs), len(outputs)),
        bias[outputs],
        w.intervals[node.name][1].low[outputs],
        w.intervals[node.name][1].high[outputs],
    )
    products = int(np.count_nonzero(layer.weights))
    clamps = [_clamp(w, node, j) for j in outputs]
    sums: list[Element] | None = None
    if w.simd and products <= w.unrolled_products:
        sums = dot_products(w, name, layer, clamps)
    if sums is None:
        if products <= w.unrolled_products:
            sums = _written(w, name, layer)
        else:
            sums = _looped(w, name, layer)
    casts: list[Output | None] = [None] * node.size
    plain: dict[int, Element | None] = {}
    for j, element in zip(outputs, sums, strict=True):
        chain = Chain(element.low, element.high)
        chain.cast(node.type, total)
        if chain.lines:
            casts[j] = (j, (element,), chain, "x")
        else:
            plain[j] = element
    return w.renamed(f"{name}_cast", casts, plain)


def _aligned(w: Writer, node: Dense) -> tuple[npt.NDArray[Any], npt.NDArray[Any], int]:
    """`Dense.aligned` in Python integers."""
    product = w.fraction(node.inputs[0]) + node.weight_type.fraction
    total = max(product, node.bias_type.fraction)
    weights = node.weights.astype(object) * (1 << (total - product))
    return weights, node.bias.astype(object) * (1 << (total - node.bias_type.fraction)), total


def _clamp(w: Writer, node: Dense, output: int) -> bool:
    """Whether limiting this output to int16 changes nothing, because all that reads it saturates earlier.

    The readers keep order (rounding and saturation do), so it is enough that the ends of int16 give the same
    codes as the ends of the exact interval.
    """
    low, high = (int(v[output]) for v in (w.intervals[node.name][1].low, w.intervals[node.name][1].high))
    product = w.fraction(node.inputs[0]) + node.weight_type.fraction
    if node.type.fraction != max(product, node.bias_type.fraction) or not node.type.holds(low, high):
        return False
    readers = [n for n in w.program.nodes if node.name in n.inputs and w.live[n.name].any()]
    if node.name == w.program.score or not readers:
        return False
    for reader in readers:
        if not isinstance(reader, (Relu, Quantize)) or reader.type.overflow not in ("SAT", "SAT_SYM"):
            return False
        for end, limit in ((low, max(low, -(1 << 15))), (high, min(high, (1 << 15) - 1))):
            codes = reader.evaluate(np.array([end, limit]), fractions=(node.type.fraction,))
            if codes[0] != codes[1]:
                return False
    return True


def _written(w: Writer, name: str, layer: Layer) -> list[Element]:
    """Sums written out, a loop over events each: what compilers vectorise best."""
    buffer, bits = _sum_buffer(w, name, layer)
    body = []
    for j in range(layer.n_outputs):
        kind, start, cast = _accumulator(layer, j, bits)
        terms = []
        for i, element in enumerate(layer.elements):
            if weight := int(layer.weights[i, j]):
                x = f"{element.lvalue}[e]"
                terms.append(f"({kind}){x} * ({kind}){literal(weight)}" if weight != 1 else f"({kind}){x}")
        text = " + ".join([start, *terms])
        body.append(f"for (int e = 0; e < B; e++) s->{buffer}[{j}][e] = {cast}({text});")
    w.function(f"f_{name}", body)
    return layer.sums(buffer, bits)


def _looped(w: Writer, name: str, layer: Layer) -> list[Element]:
    """Sums from tables of the non-zero weights: for layers whose code would be too large."""
    buffer, bits = _sum_buffer(w, name, layer)
    kinds = {_accumulator(layer, j, bits)[0] for j in range(layer.n_outputs)}
    # One type for all: the widest, unsigned if one of them has to be.
    width = 64 if any("64" in k for k in kinds) else 32
    kind = f"uint{width}_t" if any(k.startswith("u") for k in kinds) else f"int{width}_t"
    groups: dict[str, list[int]] = {}
    for i, element in enumerate(layer.elements):
        groups.setdefault(element.buffer, []).append(i)
    body = [f"static const {kind} start[] = {{{', '.join(literal(int(b)) for b in layer.bias)}}};"]
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
            f"static const int{weight_bits}_t w{number}[] = {{{', '.join(map(literal, values)) or '0'}}};",
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
    w.function(f"f_{name}", body)
    return layer.sums(buffer, bits)


def _sum_buffer(w: Writer, name: str, layer: Layer) -> tuple[str, int]:
    bits = max((bits_for(int(a), int(b)) for a, b in zip(layer.low, layer.high, strict=True)), default=16)
    return w.buffer(f"v_{name}", layer.n_outputs, bits), bits


def _accumulator(layer: Layer, j: int, bits: int) -> tuple[str, str, str]:
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
    return kind, f"({kind}){literal(int(layer.bias[j]))}", f"(int{bits}_t)"
