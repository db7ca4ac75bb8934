"""Passes over alkaid's programs (ALIR): what makes the printed adders smaller without changing a single code.

`unsigned_adders` rewrites additions and subtractions of signed numbers to additions of unsigned ones, with one constant
at the end; `l1ad.backends.rtl` calls it after tracing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

# Opcodes of ALIR that the passes look at (alkaid's documentation, "ALIR specification", version 4).
NEGATE, READ, ADD, SUBTRACT, WRAP, ADD_CONSTANT, CONSTANT, UNARY = -2, -1, 0, 1, 3, 4, 5, 9
NOT = 0


@dataclass(frozen=True)
class _Offset:
    """A value written as ``sign * u * 2**scale + constant`` with u an unsigned buffer element."""

    index: int
    sign: int
    scale: int
    constant: float


class _Rewriter:
    """Builds the new list of operations; `done` maps an old index to the new one that holds the same value."""

    def __init__(self, comb: Any) -> None:
        self.ops: list[Any] = []
        self.old = comb.ops
        self.done: dict[int, int] = {}
        self.offsets: dict[int, _Offset] = {}
        self._known: dict[tuple[Any, ...], int] = {}

    def emit(self, addr: tuple[int, ...], opcode: int, data: tuple[int, ...], qint: Any) -> int:
        """Index of an operation, made once."""
        from alkaid.types import Op, QInterval

        interval = QInterval(*qint)
        key = (addr, opcode, data, interval)
        if key not in self._known:
            self._known[key] = len(self.ops)
            self.ops.append(Op(addr, opcode, data, interval, 0.0, 0.0))
        return self._known[key]

    def add_constant(self, index: int, constant: float, qint: Any) -> int:
        """``buffer[index] + constant``."""
        if constant == 0:
            return index
        fraction = 0
        while constant != int(constant):
            constant *= 2
            fraction += 1
        value = int(constant)
        while value % 2 == 0:
            value //= 2
            fraction -= 1
        return self.emit((index,), ADD_CONSTANT, (value, fraction), qint)

    def complement(self, index: int) -> tuple[int, float]:
        """The bitwise complement of an unsigned element and its largest value M: the complement is ``M - u``."""
        _, integers, fraction = self.ops[index].qint.kif
        top = 2.0**integers - 2.0**-fraction
        return self.emit((index,), UNARY, (NOT,), (0.0, top, 2.0**-fraction)), top

    def offset(self, i: int) -> _Offset:
        """An old value as an offset one; a signed leaf gets its sign bit flipped."""
        if i not in self.offsets:
            low, high, step = self.old[i].qint
            base = 0.0 if low >= 0 else -(2.0 ** self.old[i].qint.kif.integers)
            index = self.add_constant(self.done[i], -base, (low - base, high - base, step))
            self.offsets[i] = _Offset(index, 1, 0, base)
        return self.offsets[i]

    def top(self, value: _Offset) -> int:
        """The bit above the highest one of an offset value."""
        return int(self.ops[value.index].qint.kif.integers) + value.scale

    def materialise(self, i: int, qint: Any) -> int:
        """The element that holds the plain value of an offset one."""
        value = self.offsets[i]
        index = value.index
        if value.scale:
            # Only the binary point moves: no hardware.
            low, high, step = (end * 2.0**value.scale for end in self.ops[index].qint)
            index = self.emit((index,), WRAP, (value.scale,), (low, high, step))
        if value.sign > 0:
            return self.add_constant(index, value.constant, qint)
        # constant - u, with the constant on the carry chain: it needs no inverter there.
        return self.emit((self.constant(value.constant), index), SUBTRACT, (0,), qint)

    def constant(self, value: float) -> int:
        """An element that is a constant."""
        fraction = 0
        while value != int(value):
            value *= 2
            fraction += 1
        unit = 2.0**-fraction
        return self.emit((), CONSTANT, (int(value),), (value * unit, value * unit, unit))


def unsigned_adders(comb: Any) -> Any:
    """The same program with every chain of additions on unsigned numbers.

    A value v of the chain is kept as ``sign * u + c``: u an unsigned buffer element, c a constant that costs nothing
    until the chain ends. A subtraction becomes the addition of a bitwise complement, whose inverters vanish in the
    look-up tables of the adder. Where a narrow number meets a wide one, no sign has to be carried through the upper
    bits, so that an adder costs as many look-up tables as its operands overlap.

    Parameters
    ----------
    comb : `alkaid.types.CombLogic`.

    Returns
    -------
    An equivalent `CombLogic`, with costs and latencies estimated anew.
    """
    from alkaid.trace.passes import add_surrogate, dead_code_elimin
    from alkaid.trace.passes.order import canonical_sort

    out = _Rewriter(comb)
    pending: set[int] = set()

    def plain(i: int) -> int:
        if i in pending:
            pending.discard(i)
            out.done[i] = out.materialise(i, comb.ops[i].qint)
        return out.done[i]

    for i, op in enumerate(comb.ops):
        if op.opcode in (ADD, SUBTRACT) and not (_disjoint(comb, op) and not pending.intersection(op.addr)):
            a, b = (out.offset(j) for j in op.addr)
            (shift,) = op.data
            out.offsets[i] = _sum(out, a, b, shift, -1 if op.opcode == SUBTRACT else 1, op.qint)
            pending.add(i)
        elif op.opcode == ADD_CONSTANT and (op.addr[0] in pending or comb.ops[op.addr[0]].qint.min >= 0):
            value, fraction = op.data
            before = out.offset(op.addr[0])
            out.offsets[i] = replace(before, constant=before.constant + value * 2.0**-fraction)
            pending.add(i)
        else:
            addr = tuple(plain(j) for j in op.addr)
            # Inputs stay where they are: an index for each is made even if two of them look alike.
            out.done[i] = out.emit(addr, op.opcode, tuple(op.data), op.qint)
    outputs = [plain(i) if i >= 0 else -1 for i in comb.out_idxs]
    result = comb._replace(ops=out.ops, out_idxs=outputs)
    return canonical_sort(add_surrogate(dead_code_elimin(result, keep_dead_inputs=True)))


def adder_bits(comb: Any) -> int:
    """Look-up tables in the adders: the bits on which operands overlap, or all of them where a sign is carried."""
    total = 0
    for op in comb.ops:
        if op.opcode in (ADD, SUBTRACT):
            a, b = (comb.ops[j].qint.kif for j in op.addr)
            (shift,) = op.data
            tops, lows = (a[0] + a[1], shift + b[0] + b[1]), (-a[2], shift - b[2])
            signed = a[0] or b[0]
            total += max(tops) - max(lows) if signed else max(min(tops) - max(lows), 0)
    return total


def _disjoint(comb: Any, op: Any) -> bool:
    """Whether an addition only puts the bits of two operands side by side: there is nothing to gain."""
    a, b = (comb.ops[j].qint for j in op.addr)
    (shift,) = op.data
    if a.min >= 0 and a.kif.integers <= shift - b.kif.fractional:
        return True
    return bool(b.min >= 0 and shift + b.kif.integers <= -a.kif.fractional)


def _sum(out: _Rewriter, a: _Offset, b: _Offset, shift: int, sign: int, qint: Any) -> _Offset:
    """``a + sign * b * 2**shift`` as an offset value.

    Where the signs differ, the operand that ends lower is complemented, and it comes second: the first one feeds the
    carry chain itself, where an inverter would take a look-up table.
    """
    low, high, step = qint
    b = _Offset(b.index, sign * b.sign, b.scale + shift, sign * b.constant * 2.0**shift)
    constant = a.constant + b.constant
    if a.sign != b.sign:
        if out.top(a) < out.top(b):
            a, b = b, a
        index, top = out.complement(b.index)
        constant += b.sign * top * 2.0**b.scale
        b = replace(b, index=index)
    # v = sign * 2**scale * u + constant, so the interval of u follows from that of v.
    ends = (low - constant, high - constant) if a.sign > 0 else (constant - high, constant - low)
    unit = 2.0**-a.scale
    interval = (ends[0] * unit, ends[1] * unit, step * unit)
    return _Offset(out.emit((a.index, b.index), ADD, (b.scale - a.scale,), interval), a.sign, a.scale, constant)
