"""The emulation without a compiler: numpy, exact, several times faster than the golden program.

A dense layer is one floating-point matrix product where the proof says that no partial sum, in whatever order, leaves
the integers that float32 (24 bits) or float64 (53 bits) hold exactly; otherwise it is the golden integer product.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.trigger.fixed import FixedType
from l1ad.trigger.graph import Program
from l1ad.trigger.nodes import Dense, Input, Node, Quantize, Relu, Scale

#: Largest table of scaled input words; wider words are scaled by arithmetic.
MAX_TABLE = 1 << 20


class ExactProgram:
    """A program prepared for numpy, up to one of its nodes: the score, unless `node` names another."""

    def __init__(self, program: Program, node: str | None = None) -> None:
        self.program = program
        self.node = program.score if node is None else node
        wanted = {self.node}
        for earlier in reversed(program.nodes):
            wanted.update(earlier.inputs if earlier.name in wanted else ())
        self._nodes = [n for n in program.nodes if n.name in wanted and not isinstance(n, Input)]
        inputs = program.intervals[program.nodes[0].name]
        self._low, self._high = inputs.low, inputs.high
        self._tables = {n.name: _word_table(n, program) for n in self._nodes if isinstance(n, Scale)}
        self._products = {n.name: _float_product(n, program) for n in self._nodes if isinstance(n, Dense)}

    def codes(self, inputs: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
        """Codes (N, size) of the node for network inputs (N, inputs) in hardware codes.

        Words that their bits cannot hold are evaluated golden.
        """
        program = self.program
        outside = np.any((inputs < self._low) | (inputs > self._high), axis=1)
        words = np.where(outside[:, None], 0, inputs) if outside.any() else inputs
        values: dict[str, npt.NDArray[Any]] = {program.nodes[0].name: words}
        for node in self._nodes:
            values[node.name] = self._evaluate(node, values)
        result = values[self.node].astype(np.int64)
        if outside.any():
            result[outside] = program.evaluate(inputs[outside])[self.node]
        return result

    def _evaluate(self, node: Node, values: dict[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
        program = self.program
        sources = [values[name] for name in node.inputs]
        fractions = tuple(program.node(name).type.fraction for name in node.inputs)
        if isinstance(node, Scale) and (table := self._tables[node.name]) is not None:
            first, codes = table
            return codes[sources[0] + first]
        if isinstance(node, Dense) and (product := self._products[node.name]) is not None:
            weights, bias, total = product
            exact = sources[0].astype(weights.dtype, copy=False) @ weights + bias
            result = _float_cast(node.type, exact, total)
            return node.type.cast(exact.astype(np.int64), total) if result is None else result
        if isinstance(node, (Relu, Quantize)) and sources[0].dtype.kind == "f":
            exact = np.maximum(sources[0], 0) if isinstance(node, Relu) else sources[0]
            result = _float_cast(node.type, exact, fractions[0])
            if result is not None:
                return result
        return node.evaluate(*(s.astype(np.int64, copy=False) for s in sources), fractions=fractions)


def _word_table(node: Scale, program: Program) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]] | None:
    """The scaled code of every word of every input in one table, and what to add to a word to find it there.

    Only for a scaling of the inputs themselves, whose codes float32 holds; None otherwise.
    """
    source = program.nodes[0].name
    low, high = program.intervals[source].low, program.intervals[source].high
    sizes = high - low + 1
    if node.inputs != (source,) or int(sizes.sum()) > MAX_TABLE or node.type.width > 24:
        return None
    table = np.empty(int(sizes.sum()), dtype=np.float32)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    longest = int(sizes.max())
    words = np.minimum(low[None, :] + np.arange(longest)[:, None], high[None, :])
    codes = node.evaluate(words, fractions=(0,))
    for i, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        table[start : start + size] = codes[:size, i]
    return starts - low, table


def _float_product(node: Dense, program: Program) -> tuple[npt.NDArray[Any], npt.NDArray[Any], int] | None:
    source = program.intervals[node.inputs[0]]
    weights, bias, total = node.aligned(source.fraction)
    reach = np.maximum(np.abs(source.low.astype(np.float64)), np.abs(source.high.astype(np.float64)))
    most = float((reach @ np.abs(weights.astype(np.float64)) + np.abs(bias)).max())
    # One bit stays free, so that halves and ties are exact in the cast that follows.
    for dtype, bits in ((np.float32, 23), (np.float64, 52)):
        if most < 2.0**bits and float(reach.max()) < 2.0**bits:
            return weights.astype(dtype), bias.astype(dtype), total
    return None


def _float_cast(kind: FixedType, values: npt.NDArray[Any], fraction: int) -> npt.NDArray[Any] | None:
    """`FixedType.cast` on integers that are held as floats; None for modes that floats do not have."""
    shift = fraction - kind.fraction
    holds_bits = 23 if values.dtype == np.float32 else 52
    if shift < 0 or shift > 60 or kind.width > holds_bits:
        return None
    if shift and kind.rounding not in ("TRN", "RND_CONV"):
        return None
    result = values
    if shift:
        scaled = values * values.dtype.type(2.0**-shift)
        result = np.floor(scaled) if kind.rounding == "TRN" else np.rint(scaled)
    if kind.overflow == "SAT":
        clipped: npt.NDArray[Any] = np.clip(result, kind.min_code, kind.max_code)
        return clipped
    if not result.size or (result.min() >= kind.min_code and result.max() <= kind.max_code):
        return result if kind.overflow in ("WRAP", "SAT_ZERO") else None
    return None
