"""Nodes of a program as alkaid's symbolic arithmetic: what `l1ad.backends.rtl` traces.

`lower` goes through a program; `cast`, `square` and `scale` are the pieces. Each gives the same codes as the node's
`evaluate`, in a form that costs few look-up tables: a rounding constant joins the bias before it, a saturation is a
few gates on the bits above the type and no comparison, and a square has half the partial products of a multiplier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.backends import alir
from l1ad.errors import TriggerError
from l1ad.trigger.fixed import FixedType
from l1ad.trigger.graph import Program
from l1ad.trigger.nodes import Concat, Dense, Input, Lut, Maximum, Multiply, Node, Quantize, Relu, Scale, Subtract, Take

#: Constants that alkaid holds: additions in 32 bits, matrices in float32, tables in int32 that float32 must hold too.
CONSTANT_BITS, MATRIX_BITS, TABLE_BITS = 31, 24, 24
#: Numbers of at most this many bits are squared by a table: one look-up table a bit of the result.
TABLE_SQUARE_BITS = 6
#: Address bits that a table of the fabric may have.
ADDRESS_BITS = 14
#: What the other back ends are called in messages.
OTHERS = "hls4ml and cmssw can"

Variables = npt.NDArray[np.object_]


def check_expressible(program: Program) -> None:
    """Raises
    ------
    TriggerError
        If a node cannot be traced: names it, and the back ends that can express it.
    """
    for node in program.nodes:
        if type(node) not in _LOWER and not isinstance(node, (Input, Dense, Lut)):
            raise _cannot(
                node, f"operation {node.op}", ", ".join(sorted([*(kind.op for kind in _LOWER), Dense.op, Lut.op]))
            )
        if isinstance(node, Dense):
            if np.abs(node.weights).max(initial=0) >= 1 << MATRIX_BITS:
                raise _cannot(node, "weights of more than 24 bits", "24 bits")
            _, bias, _ = node.aligned(program.node(node.inputs[0]).type.fraction)
            if np.abs(bias).max(initial=0) >= 1 << (CONSTANT_BITS - 1):
                raise _cannot(node, "a bias of more than 30 bits", "30 bits on the grid of the sum")
        if isinstance(node, Lut):
            if np.abs(node.tables).max(initial=0) >= 1 << TABLE_BITS:
                raise _cannot(node, "table entries of more than 24 bits", "24 bits")
            low, high = program.intervals[node.inputs[0]].span
            if high - low >= 1 << ADDRESS_BITS:
                found = f"a table of {high - low + 1} entries"
                raise _cannot(node, found, f"{1 << ADDRESS_BITS} at most in the fabric: narrow its input")
        widest = max(node.exact_interval(*(program.intervals[name] for name in node.inputs)).type.width, 1)
        if widest > 52:
            raise _cannot(node, f"{widest} bits", "52 at most: alkaid's intervals are doubles")


def _cannot(node: Node, found: str, expected: str) -> TriggerError:
    return TriggerError("back end alkaid", f"node {node.name}", found, f"{expected}; {OTHERS}")


def lower(program: Program, outputs: Sequence[str], *, effort: int = 0) -> tuple[Any, list[Any]]:
    """The inputs as an `FVArray` and the elements of the nodes `outputs`, one after the other.

    Parameters
    ----------
    effort : orders of the inputs and outputs of each layer that are tried for the cheapest adders.

    Raises
    ------
    TriggerError
        If a node cannot be expressed.
    """
    from alkaid.trace import FVArray, HWConfig

    check_expressible(program)
    first = program.nodes[0]
    assert isinstance(first, Input)
    inputs = FVArray.from_lhs(
        first.low.astype(np.float64), first.high.astype(np.float64), np.ones(first.size), hwconf=HWConfig(1, 1, -1)
    )
    values: dict[str, Variables] = {first.name: np.asarray(inputs)}
    needed = _needed(program, outputs)
    for node in program.nodes[1:]:
        if node.name in needed:
            sources = [values[name] for name in node.inputs]
            if isinstance(node, Lut):
                values[node.name] = _lut(node, sources[0], program.node(node.inputs[0]).type.fraction)
            elif isinstance(node, Dense):
                values[node.name] = _dense(node, sources[0], effort)
            else:
                values[node.name] = _LOWER[type(node)](node, *sources)
    return inputs, [variable for name in outputs for variable in values[name]]


def _needed(program: Program, outputs: Iterable[str]) -> set[str]:
    needed = set(outputs)
    for node in reversed(program.nodes):
        if node.name in needed:
            needed.update(node.inputs)
    return needed


def _array(variables: Iterable[Any]) -> Variables:
    items = list(variables)
    result = np.empty(len(items), dtype=object)
    result[:] = items
    return result


# ---------------------------------------------------------------------- pieces


def _constant(value: float, like: Any) -> Any:
    from alkaid.trace.fixed_variable import FVariable

    return FVariable.from_const(value, hwconf=like.hwconf)


def _is_constant(v: Any) -> bool:
    return bool(v.low == v.high)


def _code(value: float, fraction: int) -> int:
    return round(value * 2.0**fraction)


def _mask(bit: Any, step: float) -> Any:
    """All ones from `step` up if the bit is 1, else 0."""
    return (-bit) * step


def _floor(v: Any, fraction: int) -> Any:
    """v rounded down to the grid ``2**-fraction``, its range untouched."""
    signed, integers, have = v.kif
    if have <= fraction:
        return v
    if _is_constant(v):
        return _constant(float(np.floor(v.low * 2.0**fraction)) * 2.0**-fraction, v)
    return v.quantize(signed, max(integers, 1 - fraction), fraction)


def _bits(v: Any, integers: int, fraction: int) -> Any:
    """The bits of v below ``2**integers`` and from ``2**-fraction`` on, unsigned."""
    return v.quantize(0, integers, fraction)


def _round(v: Any, target: FixedType, cut: int) -> Any:
    """v, first cut down to the grid ``2**-cut``, rounded to the grid of `target`."""
    grid = target.fraction
    cut = min(cut, int(v.kif[2]))
    if cut <= grid or target.rounding == "TRN":
        return _floor(v, min(cut, grid))
    half, unit = 2.0 ** -(grid + 1), 2.0**-cut
    if target.rounding == "RND":
        return _floor(v + half, grid)
    if target.rounding == "RND_CONV":
        shifted = v + half
        rounded = _floor(shifted, grid)
        # A tie is where nothing is left below the grid once half has been added: an odd result then steps back.
        rest = _bits(shifted, -grid, cut).unary_bit_op("any")
        last = _bits(rounded, 1 - grid, grid) & (rest * 2.0**-grid)
        return _floor(rounded, grid - 1) + last
    v = _floor(v, cut)
    negative = v.is_negative()
    if target.rounding == "TRN_ZERO":
        return _floor(v + negative * (2.0**-grid - unit), grid)
    if target.rounding == "RND_INF":
        return _floor(v + half - negative * unit, grid)
    v = v + (half - unit)
    return _floor(v if target.rounding == "RND_MIN_INF" else v + negative * unit, grid)


def _fit(v: Any, target: FixedType) -> Any:
    """v, on the grid of `target` or a coarser one, brought into its range."""
    fraction, integers = target.fraction, target.integer - int(target.signed)
    low, high = _code(v.low, fraction), _code(v.high, fraction)
    if target.holds(low, high) and not (target.overflow == "SAT_SYM" and target.signed and low == target.min_code):
        return v
    if target.overflow == "WRAP":
        return v.quantize(int(target.signed), integers, fraction)
    if target.overflow == "SAT_ZERO":
        if high > target.max_code:
            v = (-v + target.max_code * target.lsb).msb_mux(0.0, v)
        if low < target.min_code:
            v = (v - target.min_code * target.lsb).msb_mux(0.0, v)
        return v.quantize(int(target.signed), integers, fraction)
    bottom = -target.max_code if target.overflow == "SAT_SYM" and target.signed else target.min_code
    if low >= target.max_code or high <= bottom:
        return _constant((target.max_code if low >= target.max_code else bottom) * target.lsb, v)
    if target.signed and (high < 0 or target.overflow == "SAT_SYM") and low < bottom:
        v = v.max_of(bottom * target.lsb)
    if not target.signed and low < 0:
        v = v.relu()
    if _code(v.high, fraction) <= target.max_code and _code(v.low, fraction) >= target.min_code:
        return v
    if v.low >= 0:
        return _clip_bits(v, integers, fraction)
    # One's complement makes both ends look alike: clip the bits of v or of ~v, and complement again.
    sign = _mask(v.is_negative(), 2.0**-fraction)
    magnitude = _bits(v ^ sign, int(v.kif[1]), fraction)
    return (_clip_bits(magnitude, integers, fraction) ^ sign).quantize(1, integers, fraction)


def _clip_bits(v: Any, integers: int, fraction: int) -> Any:
    """An unsigned v clipped to ``2**integers - 2**-fraction``: all bits set where one above them is."""
    have = int(v.kif[1])
    if have <= integers:
        return v
    above = _bits(v, have, -integers).unary_bit_op("any")
    if integers + fraction <= 0:
        return _constant(0.0, v)
    return _bits(_bits(v, integers, fraction) | _mask(above, 2.0**-fraction), integers, fraction)


def _whole(v: Any) -> Any:
    """v with the interval of all its bits: alkaid's later passes may forget a narrower one that a table relied on."""
    from alkaid.trace.fixed_variable import FVariable

    signed, integers, fraction = v.kif
    top = 2.0**integers
    low, high, step = -top if signed else 0.0, top - 2.0**-fraction, 2.0**-fraction
    if (v.low, v.high) == (low, high):
        return v
    return FVariable(low, high, step, _from=(v,), _factor=1.0, opr="wrap", hwconf=v.hwconf)


def _values(v: Any) -> npt.NDArray[np.float64]:
    """Every value of a variable's interval, in order."""
    return np.asarray(v.low + v.step * np.arange(round((v.high - v.low) / v.step) + 1))


def cast(v: Any, target: FixedType, *, relu: bool = False, cut: int = 62) -> Any:
    """A variable cast into `target`, as `FixedType.cast` does.

    Parameters
    ----------
    relu : take ``max(v, 0)`` first; it commutes with every rounding, since they keep order and zero.
    cut : first cut the value down to the grid ``2**-cut``.
    """
    fraction = min(int(v.kif[2]), cut)
    if _is_constant(v):
        code = int(np.floor(np.ldexp(v.low, fraction)))
        result = target.cast(np.array([max(code, 0) if relu else code]), fraction)[0]
        return _constant(float(result) * target.lsb, v)
    v = _round(v, target, cut)
    if relu and v.low < 0:
        v = v.relu() if v.high > 0 else _constant(0.0, v)
    if _is_constant(v):
        return cast(v, target)
    return _fit(v, target)


def square(v: Any) -> Any:
    """v times v, exact, from halves: ``(h + l)**2 = h**2 + l**2 + 2 h l``."""
    signed, integers, fraction = (int(part) for part in v.kif)
    width = signed + integers + fraction
    if _is_constant(v):
        return _constant(float(v.low) ** 2, v)
    if width <= TABLE_SQUARE_BITS:
        v = _whole(v)
        return v.lookup(_values(v) ** 2)
    n_low = width // 2
    low = _bits(v, n_low - fraction, fraction)
    high = _floor(v, fraction - n_low)
    total = square(high) + square(low)
    for j in range(n_low):
        weight = 2.0 ** (j - fraction)
        bit = _bits(low, j + 1 - fraction, fraction - j) * (1.0 / weight)
        total = total + (_mask(bit, high.step) & high) * (2.0 * weight)
    return total


# ---------------------------------------------------------------------- nodes


def _scale(node: Node, x: Variables) -> Variables:
    assert isinstance(node, Scale)
    return _array(_scaled(node, j, v) for j, v in enumerate(x))


def _scaled(node: Scale, j: int, v: Any) -> Any:
    word, unit = node.word, node.word.lsb
    multiplier, offset, shift = (int(part[j]) for part in (node.multiplier, node.offset, node.shift))
    if _is_constant(v):
        here = slice(j, j + 1)
        parts = node.multiplier[here], node.offset[here], node.shift[here]
        one = Scale(node.name, node.inputs, node.type, *parts, word)
        return _constant(float(one.evaluate(np.array([[int(v.low)]]), fractions=(0,))[0, 0]) * node.type.lsb, v)
    ends = np.array([int(v.low), int(v.high)]) * multiplier
    moved = ends - offset
    left = moved << max(-shift, 0)
    if all(word.holds(int(part.min()), int(part.max())) for part in (ends, moved, left)):
        # Nothing can overflow: subtract, move the binary point, and let the cast do both roundings in one addition.
        return _from_zero((v * (multiplier * unit) - offset * unit) * 2.0**-shift, node.type, word.fraction)
    difference = _fit(_fit(v * (multiplier * unit), word) - offset * unit, word)
    if shift < 0:
        return cast(_fit(difference * 2.0**-shift, word), node.type)
    return cast(difference * 2.0**-shift, node.type, cut=word.fraction)


def _from_zero(v: Any, target: FixedType, cut: int) -> Any:
    """The cast of v as an unsigned number plus a constant, where it can be: sums then start from fewer bits.

    Roundings do not mind a shift by an even number of steps, so the constant joins the offset before the cast; nor does
    the cut, if the steps are even on its grid too, which is coarser than that of the inputs of AXOL1TL v5.
    """
    unit = target.lsb
    low, high = (int(target.round(np.array([_code(end, v.kif[2])]), int(v.kif[2]))[0]) for end in (v.low, v.high))
    if low >= 0 or not target.holds(low, high) or target.rounding not in ("TRN", "RND", "RND_CONV"):
        return cast(v, target, cut=cut)
    base = low - low % (2 << max(target.fraction - cut, 0))
    wide = FixedType.holding(0, high - base + 1, target.fraction).with_modes(target.rounding, "WRAP")
    return cast(v - base * unit, wide, cut=cut) + base * unit


def _dense(node: Dense, x: Variables, effort: int) -> Variables:
    """Sums of products, without multipliers."""
    matrix = np.ldexp(node.weights.astype(np.float64), -node.weight_type.fraction)
    bias = np.ldexp(node.bias.astype(np.float64), -node.bias_type.fraction)
    live = np.array([not _is_constant(v) for v in x]) & (node.weights != 0).any(axis=1)
    fixed = np.array([v.low if _is_constant(v) else 0.0 for v in x]) @ matrix
    if live.any():
        sums = _product(x[live], matrix[live], effort)
    else:
        sums = _array(_constant(0.0, x[0]) for _ in bias)
    return _array(cast(s + float(c), node.type) for s, c in zip(sums, fixed + bias, strict=True))


def _product(x: Variables, matrix: npt.NDArray[np.float64], effort: int) -> Variables:
    """``x @ matrix``, with the order of rows and columns that gives the cheapest adders of those tried.

    alkaid shares sub-expressions greedily, so that the order decides ties.
    """
    from alkaid.trace import FVArray, trace

    rng = np.random.default_rng(0)
    n_in, n_out = matrix.shape
    orders = [(np.arange(n_in), np.arange(n_out), "wmc")]
    orders += [(rng.permutation(n_in), rng.permutation(n_out), ("wmc", "mc")[i % 2]) for i in range(effort)]

    def solve(variables: Variables, rows: Any, columns: Any, method: str) -> Variables:
        array = FVArray(variables[rows], solver_options={"method0": method}, hwconf=x[0].hwconf)
        result = np.empty(n_out, dtype=object)
        result[columns] = np.asarray(array @ matrix[rows][:, columns])
        return result

    def cost(order: tuple[Any, Any, str]) -> int:
        ends = (np.array([getattr(v, end) for v in x]) for end in ("low", "high", "step"))
        fresh = FVArray.from_lhs(*ends, hwconf=x[0].hwconf)
        return alir.adder_bits(
            alir.unsigned_adders(trace(fresh, list(solve(np.asarray(fresh), *order)), keep_dead_inputs=True))
        )

    best = min(orders, key=cost) if effort else orders[0]
    return solve(x, *best)


def _lut(node: Lut, x: Variables, fraction: int) -> Variables:
    """Tables, addressed by codes on the grid ``2**-fraction``."""
    rows = np.broadcast_to(node.tables, (node.n, node.tables.shape[1]))
    return _array(_looked_up(node, row, v, fraction) for row, v in zip(rows, x, strict=True))


def _looked_up(node: Lut, row: npt.NDArray[np.int64], v: Any, fraction: int) -> Any:
    v = v if _is_constant(v) else _whole(v)
    values = np.array([v.low]) if _is_constant(v) else _values(v)
    codes = np.rint(np.ldexp(values, fraction)).astype(np.int64)
    # Addresses that the traced interval allows and the program's does not are never seen: any entry will do there.
    entries = row[np.clip(codes - node.first, 0, len(row) - 1)] * node.type.lsb
    return _constant(float(entries[0]), v) if (entries == entries[0]).all() else v.lookup(entries)


def _multiply(node: Node, x: Variables, y: Variables) -> Variables:
    same = node.inputs[0] == node.inputs[1]
    return _array(cast(square(a) if same else a * b, node.type) for a, b in zip(x, y, strict=True))


def _subtract(node: Node, x: Variables, y: Variables) -> Variables:
    return _array(cast(a - b, node.type) for a, b in zip(x, y, strict=True))


def _maximum(node: Node, x: Variables) -> Variables:
    assert isinstance(node, Maximum)
    return _array(cast(_tree([x[i] for i in group], lambda a, b: a.max_of(b)), node.type) for group in node.groups)


def _tree(values: list[Any], combine: Callable[[Any, Any], Any]) -> Any:
    while len(values) > 1:
        pairs = [combine(a, b) for a, b in zip(values[::2], values[1::2])]
        values = pairs + values[len(pairs) * 2 :]
    return values[0]


def _relu(node: Node, x: Variables) -> Variables:
    return _array(cast(v, node.type, relu=True) for v in x)


def _quantize(node: Node, x: Variables) -> Variables:
    return _array(cast(v, node.type) for v in x)


def _concat(node: Node, *parts: Variables) -> Variables:
    return _array(cast(v, node.type) for part in parts for v in part)


def _take(node: Node, x: Variables) -> Variables:
    assert isinstance(node, Take)
    return _array(cast(x[i], node.type) for i in node.index)


_LOWER: dict[type[Node], Callable[..., Variables]] = {
    Scale: _scale,
    Relu: _relu,
    Quantize: _quantize,
    Multiply: _multiply,
    Subtract: _subtract,
    Concat: _concat,
    Take: _take,
    Maximum: _maximum,
}
