"""Building programs node by node, with exact types where none is given.

`ProgramBuilder` keeps the interval of every node, so that the type of a sum or a product is the narrowest one that can
never overflow; `NodeOps` lets the definitions in `l1ad.scores` emit nodes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from l1ad.errors import TriggerError
from l1ad.events.layout import ObjectLayout
from l1ad.scores import SCORE_BITS, SCORE_FRACTION
from l1ad.trigger.fixed import Codes, FixedType
from l1ad.trigger.graph import Program
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

NodeT = TypeVar("NodeT", bound=Node)

#: The word of every score: 18 bits, 4 of them fraction; saturating, so that a huge score stays huge.
SCORE_TYPE = FixedType(SCORE_BITS, SCORE_BITS - SCORE_FRACTION, False, "TRN", "SAT")
#: As the deployed AXOL1TL v1-v4 have it: a huge score wraps (l1-facts, section 3).
DEPLOYED_SCORE_TYPE = SCORE_TYPE.with_modes("TRN", "WRAP")

#: Entries of exp tables: 8 bits of fraction, so that they round at 1/512, an eighth of half a score's LSB.
EXPONENTIAL_TYPE = FixedType(18, 10, False, "RND_CONV", "SAT")


@dataclass(frozen=True)
class Ref:
    """A node that was added: its name, size and interval."""

    name: str
    interval: Interval

    @property
    def size(self) -> int:
        """Number of elements."""
        return len(self.interval)

    @property
    def fraction(self) -> int:
        """Grid of its codes."""
        return self.interval.fraction


class ProgramBuilder:
    """Adds nodes in order; each method returns a `Ref` for the next. `name` defaults to the operation and a number."""

    def __init__(self, layout: ObjectLayout) -> None:
        self.layout = layout
        self._nodes: list[Node] = []
        self._counts: dict[str, int] = {}
        words = layout.input_words
        self.input = self._add(
            Input(
                "input",
                (),
                FixedType.holding(min(w.word_min for w in words), max(w.word_max for w in words), 0),
                np.array([w.word_min for w in words]),
                np.array([w.word_max for w in words]),
            )
        )

    def copy(self) -> ProgramBuilder:
        """A builder with the same nodes, for a trial that leaves this one as it is."""
        result = copy.copy(self)
        result._nodes, result._counts = list(self._nodes), dict(self._counts)
        return result

    def _name(self, name: str | None, op: str) -> str:
        if name:
            return name
        self._counts[op] = self._counts.get(op, 0) + 1
        return f"{op}_{self._counts[op]}"

    def _add(self, node: Node, *sources: Ref) -> Ref:
        self._nodes.append(node)
        return Ref(node.name, node.interval(*(source.interval for source in sources)))

    def _exact(self, make: type[NodeT], sources: tuple[Ref, ...], type: FixedType | None, name: str, *rest: Any) -> Ref:
        """Add a node whose type, where none is given, holds its exact result."""
        inputs = tuple(source.name for source in sources)
        if type is None:
            probe = make(name, inputs, FixedType(62, 62), *rest)
            type = probe.exact_interval(*(source.interval for source in sources)).type
        return self._add(make(name, inputs, type, *rest), *sources)

    def scale(
        self,
        x: Ref,
        *,
        multiplier: npt.ArrayLike,
        offset: npt.ArrayLike,
        shift: npt.ArrayLike,
        word: FixedType,
        type: FixedType,
        name: str | None = None,
    ) -> Ref:
        """See `l1ad.trigger.nodes.Scale`; `offset` in codes of `word`."""
        return self._add(
            Scale(
                self._name(name, "scale"),
                (x.name,),
                type,
                np.asarray(multiplier, dtype=np.int64),
                np.asarray(offset, dtype=np.int64),
                np.asarray(shift, dtype=np.int64),
                word,
            ),
            x,
        )

    def dense(
        self,
        x: Ref,
        weights: npt.ArrayLike,
        bias: npt.ArrayLike | None = None,
        *,
        weight_type: FixedType,
        bias_type: FixedType | None = None,
        type: FixedType | None = None,
        name: str | None = None,
    ) -> Ref:
        """``x @ weights + bias``, exact unless `type` says otherwise.

        Raises
        ------
        TriggerError
            If a shape does not match or a code does not fit its type.
        """
        label = self._name(name, "dense")
        w = np.asarray(weights, dtype=np.int64)
        b = np.zeros(w.shape[-1], dtype=np.int64) if bias is None else np.asarray(bias, dtype=np.int64)
        b_type = bias_type or weight_type
        if w.ndim != 2 or w.shape[0] != x.size:
            raise TriggerError(label, "weights", w.shape, f"({x.size}, outputs)")
        if b.shape != w.shape[1:]:
            raise TriggerError(label, "bias", b.shape, w.shape[1:])
        for what, codes, kind in (("weight", w, weight_type), ("bias", b, b_type)):
            if codes.size and not kind.holds(int(codes.min()), int(codes.max())):
                found = f"codes {int(codes.min())} to {int(codes.max())}"
                raise TriggerError(label, what, found, f"{kind.min_code} to {kind.max_code} of {kind}")
        return self._exact(Dense, (x,), type, label, w, b, weight_type, b_type)

    def relu(self, x: Ref, type: FixedType, *, name: str | None = None) -> Ref:
        """``max(x, 0)`` cast into `type`."""
        return self._add(Relu(self._name(name, "relu"), (x.name,), type, x.size), x)

    def quantize(self, x: Ref, type: FixedType, *, name: str | None = None) -> Ref:
        """A cast into `type`."""
        return self._add(Quantize(self._name(name, "quantize"), (x.name,), type, x.size), x)

    def lut(self, x: Ref, tables: npt.ArrayLike, *, first: int, type: FixedType, name: str | None = None) -> Ref:
        """Look-up tables (n, entries) or (1, entries) of codes of `type`, addressed by ``code - first``."""
        codes = np.asarray(tables, dtype=np.int64)
        label = self._name(name, "lut")
        if codes.ndim != 2 or len(codes) not in (1, x.size):
            raise TriggerError(label, "tables", codes.shape, f"(1 or {x.size}, entries)")
        if not type.holds(int(codes.min()), int(codes.max())):
            raise TriggerError(label, "entries", f"{codes.min()} to {codes.max()}", f"codes of {type}")
        return self._add(Lut(label, (x.name,), type, codes, first, x.size), x)

    def multiply(self, x: Ref, y: Ref, type: FixedType | None = None, *, name: str | None = None) -> Ref:
        """Product, exact unless `type` says otherwise."""
        self._same_size("multiply", x, y)
        return self._exact(Multiply, (x, y), type, self._name(name, "multiply"), x.size)

    def subtract(self, x: Ref, y: Ref, type: FixedType | None = None, *, name: str | None = None) -> Ref:
        """Difference, exact unless `type` says otherwise."""
        self._same_size("subtract", x, y)
        return self._exact(Subtract, (x, y), type, self._name(name, "subtract"), x.size)

    def concat(self, *parts: Ref, name: str | None = None) -> Ref:
        """Nodes side by side, exact."""
        if len(parts) == 1:
            return parts[0]
        sizes = np.array([part.size for part in parts])
        return self._exact(Concat, parts, None, self._name(name, "concat"), sizes)

    def take(self, x: Ref, index: npt.ArrayLike, *, name: str | None = None) -> Ref:
        """Elements by index, exact."""
        return self._exact(Take, (x,), None, self._name(name, "take"), np.asarray(index, dtype=np.int64))

    def maximum(self, x: Ref, groups: npt.ArrayLike, *, name: str | None = None) -> Ref:
        """Largest of each group of positions (size, members), exact."""
        return self._exact(Maximum, (x,), None, self._name(name, "maximum"), np.asarray(groups, dtype=np.int64))

    @staticmethod
    def _same_size(what: str, x: Ref, y: Ref) -> None:
        if x.size != y.size:
            raise TriggerError(what, f"{x.name}, {y.name}", f"{x.size} and {y.size} elements", "equal numbers")

    def program(self, *, score: Ref, latents: Ref | None = None) -> Program:
        """The finished program."""
        return Program(self.layout, tuple(self._nodes), score.name, latents.name if latents else None)


@dataclass(frozen=True)
class NodeOps:
    """`l1ad.scores.Ops` that emits nodes.

    Attributes
    ----------
    builder : where the nodes go.
    term : type of each square or product before it is summed, times ``2**-shift`` (a square is cut to 1/16 in AXOL1TL
        v1-v4); None keeps products exact.
    result : type of the score.
    exponential : type of the entries of exp tables; its rounding is the rounding of the tables.
    shift : the score is ``2**-shift`` of its definition. It costs nothing: terms and factors of the sum have their
        binary point that much further to the right or left.
    """

    builder: ProgramBuilder
    term: FixedType | None = DEPLOYED_SCORE_TYPE
    result: FixedType = SCORE_TYPE
    exponential: FixedType = EXPONENTIAL_TYPE
    shift: int = 0

    def product(self, *factors: Ref) -> Ref:
        result = factors[0]
        for factor in factors[1:-1]:
            result = self.builder.multiply(result, factor)
        term = None if self.term is None else replace(self.term, integer=self.term.integer + self.shift)
        return self.builder.multiply(result, factors[-1], term)

    def subtract(self, x: Ref, y: Ref) -> Ref:
        return self.builder.subtract(x, y)

    def exp(self, x: Ref, *, sign: int = 1) -> Ref:
        """exp as a table with an entry for each code of x.

        Raises
        ------
        TriggerError
            If x has more than 16 bits: quantise it first.
        """
        low, high = x.interval.span
        if high - low >= 1 << 16:
            raise TriggerError("exp", x.name, f"{high - low + 1} codes", "65536 at most")
        values = np.exp(sign * np.ldexp(np.arange(low, high + 1, dtype=np.float64), -x.fraction))
        table: Codes = self.exponential.quantize(values)
        return self.builder.lut(x, table[None, :], first=low, type=self.exponential)

    def total(self, terms: Sequence[tuple[float, Ref]], constant: float = 0.0) -> Ref:
        plain, factor_type = FixedType(4, 2), FixedType(4, 2 - self.shift)
        column = np.concatenate([np.full((x.size, 1), plain.quantize(factor), dtype=np.int64) for factor, x in terms])
        for factor, x in terms:
            if plain.to_float(plain.quantize(factor)) != factor:
                raise TriggerError("score", f"factor of {x.name}", factor, f"a value of {plain}")
        constant_type = FixedType(16, 12 - self.shift if constant else 12)
        bias = constant_type.quantize([constant * 2.0**-self.shift])
        joined = self.builder.concat(*(x for _, x in terms))
        exact = self.builder.dense(joined, column, bias, weight_type=factor_type, bias_type=constant_type, name="sum")
        return self.builder.quantize(exact, self.result, name="score")

    def size(self, x: Ref) -> int:
        return x.size
