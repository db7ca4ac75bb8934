"""The operations that a frozen program is made of.

Each node knows four things: its parameters, the codes it computes (`evaluate`), the interval of codes it can produce
for given intervals of its inputs (`interval`), and how it is written to JSON. A back end prints these nodes and nothing
else, so that a new realisation of every trigger is one function for each of them.

Values are flat: a node of size n holds codes (N, n) on the grid ``2**-type.fraction``. A convolution is a `Dense` whose
matrix is mostly zero.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from l1ad.errors import TriggerError
from l1ad.trigger.fixed import Codes, FixedType


@dataclass(frozen=True)
class Interval:
    """Smallest and largest code of each element of a node, (n,) each, and the grid they are on."""

    low: Codes
    high: Codes
    fraction: int

    def __len__(self) -> int:
        return len(self.low)

    @property
    def span(self) -> tuple[int, int]:
        """Smallest and largest code of all elements."""
        return int(self.low.min()), int(self.high.max())

    @property
    def type(self) -> FixedType:
        """The narrowest type that holds every code."""
        return FixedType.holding(*self.span, self.fraction)


@dataclass(frozen=True, eq=False)
class Node(ABC):
    """One operation.

    Attributes
    ----------
    name : unique in the program.
    inputs : names of the nodes it reads.
    type : type of its codes.
    """

    name: str
    inputs: tuple[str, ...]
    type: FixedType

    op: ClassVar[str] = ""

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of elements."""

    def evaluate(self, *values: Codes, fractions: tuple[int, ...]) -> Codes:
        """Codes (N, size) of this node from codes (N, n) of its inputs, which lie on the grids `fractions`."""
        exact, fraction = self.exact(*values, fractions=fractions)
        return self.type.cast(exact, fraction)

    @abstractmethod
    def exact(self, *values: Codes, fractions: tuple[int, ...]) -> tuple[Codes, int]:
        """The result before it is cast into `type`, and its grid."""

    @abstractmethod
    def exact_interval(self, *inputs: Interval) -> Interval:
        """Interval of the result before it is cast into `type`."""

    def interval(self, *inputs: Interval) -> Interval:
        """Interval of the codes after the cast: what rounding and saturation leave, or the whole type on a wrap."""
        return cast_interval(self.type, self.exact_interval(*inputs))

    def parameters(self) -> dict[str, Any]:
        """Parameters in JSON types."""
        skip = {"name", "inputs", "type"}
        return {f.name: _to_json(getattr(self, f.name)) for f in fields(self) if f.name not in skip}

    def to_json(self) -> dict[str, Any]:
        """The node in JSON types."""
        return {
            "name": self.name,
            "op": self.op,
            "inputs": list(self.inputs),
            "type": str(self.type),
            **self.parameters(),
        }


def cast_interval(target: FixedType, exact: Interval) -> Interval:
    """What casting an interval into `target` leaves of it.

    Rounding keeps order, so the ends round to the ends; under WRAP (and SAT_ZERO) an element that leaves the range can
    take any code of the type.
    """
    low = target.round(exact.low, exact.fraction)
    high = target.round(exact.high, exact.fraction)
    if target.overflow in ("SAT", "SAT_SYM"):
        low, high = target.fit(low), target.fit(high)
    else:
        outside = (low < target.min_code) | (high > target.max_code)
        low = np.where(outside, target.min_code, low)
        high = np.where(outside, target.max_code, high)
    return Interval(low, high, target.fraction)


@dataclass(frozen=True, eq=False)
class Input(Node):
    """The hardware codes of the network inputs, as they come: `low` and `high` are the ends of each word, (n,)."""

    low: Codes
    high: Codes
    op: ClassVar[str] = "input"

    @property
    def size(self) -> int:
        return len(self.low)

    def exact(self, *values: Codes, fractions: tuple[int, ...]) -> tuple[Codes, int]:
        return values[0], 0

    def exact_interval(self, *inputs: Interval) -> Interval:
        return Interval(self.low, self.high, 0)


@dataclass(frozen=True, eq=False)
class Scale(Node):
    """Offset and power-of-two shift of each input, with the two roundings of the uGT (l1-facts, section 2).

    The word ``code * multiplier`` lies on the grid of `word`; ``word - offset`` is stored in `word`; the shift stays on
    that grid (floor; a negative one shifts left and wraps), and the result is then cast into `type`.

    Attributes
    ----------
    multiplier : (n,) codes of `word` for one hardware code: 16 for pt (0.5 GeV on a 1/32 grid), 32 for eta and phi.
    offset : (n,) codes of `word`.
    shift : (n,) bits to the right.
    word : the type in which the difference is stored and shifted.
    """

    multiplier: Codes
    offset: Codes
    shift: Codes
    word: FixedType
    op: ClassVar[str] = "scale"

    @property
    def size(self) -> int:
        return len(self.shift)

    def exact(self, *values: Codes, fractions: tuple[int, ...]) -> tuple[Codes, int]:
        difference = self.word.fit(self.word.fit(values[0] * self.multiplier) - self.offset)
        return self._shifted(difference), self.word.fraction

    def _shifted(self, codes: Codes) -> Codes:
        right = codes >> np.maximum(self.shift, 0)
        left = self.word.fit(codes << np.maximum(-self.shift, 0))
        return np.where(self.shift >= 0, right, left)

    def exact_interval(self, *inputs: Interval) -> Interval:
        (source,) = inputs
        word = cast_interval(
            self.word, Interval(source.low * self.multiplier, source.high * self.multiplier, self.word.fraction)
        )
        low, high = word.low - self.offset, word.high - self.offset
        difference = cast_interval(self.word, Interval(low, high, self.word.fraction))
        left = np.maximum(-self.shift, 0)
        shifted = Interval(difference.low << left, difference.high << left, self.word.fraction)
        low, high = cast_interval(self.word, shifted).low, cast_interval(self.word, shifted).high
        right = np.maximum(self.shift, 0)
        return Interval(low >> right, high >> right, self.word.fraction)


@dataclass(frozen=True, eq=False)
class Dense(Node):
    """``x @ weights + bias``, summed exactly and then cast into `type`.

    Attributes
    ----------
    weights : (inputs, outputs) codes on the grid ``2**-weight_type.fraction``.
    bias : (outputs,) codes of `bias_type`.
    weight_type, bias_type : types of the codes.
    """

    weights: Codes
    bias: Codes
    weight_type: FixedType
    bias_type: FixedType
    op: ClassVar[str] = "dense"

    @property
    def size(self) -> int:
        return int(self.weights.shape[1])

    @property
    def n_nonzero(self) -> int:
        """Number of weights that are not zero."""
        return int(np.count_nonzero(self.weights))

    def aligned(self, fraction: int) -> tuple[Codes, Codes, int]:
        """Weights and bias on the common grid of the sum for inputs on the grid `fraction`, and that grid."""
        product = fraction + self.weight_type.fraction
        total = max(product, self.bias_type.fraction)
        return self.weights << (total - product), self.bias << (total - self.bias_type.fraction), total

    def exact(self, *values: Codes, fractions: tuple[int, ...]) -> tuple[Codes, int]:
        weights, bias, total = self.aligned(fractions[0])
        return values[0] @ weights + bias, total

    def exact_interval(self, *inputs: Interval) -> Interval:
        (source,) = inputs
        weights, bias, total = self.aligned(source.fraction)
        positive, negative = np.maximum(weights, 0), np.minimum(weights, 0)
        low = source.low @ positive + source.high @ negative + bias
        high = source.high @ positive + source.low @ negative + bias
        return Interval(low, high, total)

    def worst_input(self, source: Interval, output: int, *, high: bool) -> Codes:
        """Input codes (n,) that drive one output to the end of its interval."""
        up = (self.weights[:, output] > 0) == high
        return np.where(up, source.high, source.low)


@dataclass(frozen=True, eq=False)
class Relu(Node):
    """``max(x, 0)``, then cast into `type`."""

    n: int
    op: ClassVar[str] = "relu"

    @property
    def size(self) -> int:
        return self.n

    def exact(self, *values: Codes, fractions: tuple[int, ...]) -> tuple[Codes, int]:
        return np.maximum(values[0], 0), fractions[0]

    def exact_interval(self, *inputs: Interval) -> Interval:
        (source,) = inputs
        return Interval(np.maximum(source.low, 0), np.maximum(source.high, 0), source.fraction)


@dataclass(frozen=True, eq=False)
class Quantize(Node):
    """A cast into `type` and nothing else."""

    n: int
    op: ClassVar[str] = "quantize"

    @property
    def size(self) -> int:
        return self.n

    def exact(self, *values: Codes, fractions: tuple[int, ...]) -> tuple[Codes, int]:
        return values[0], fractions[0]

    def exact_interval(self, *inputs: Interval) -> Interval:
        return inputs[0]


@dataclass(frozen=True, eq=False)
class Lut(Node):
    """A look-up table for each element, addressed by the code of its input.

    Attributes
    ----------
    tables : (n, entries) or, shared by all elements, (1, entries) codes of `type`.
    first : the input code of the first entry; codes beyond the table are an error of the program, not of the input.
    n : number of elements.
    """

    tables: Codes
    first: int
    n: int
    op: ClassVar[str] = "lut"

    @property
    def size(self) -> int:
        return self.n

    def exact(self, *values: Codes, fractions: tuple[int, ...]) -> tuple[Codes, int]:
        address = values[0] - self.first
        if len(self.tables) == 1:
            return self.tables[0][address], self.type.fraction
        return self.tables[np.arange(self.n), address], self.type.fraction

    def exact_interval(self, *inputs: Interval) -> Interval:
        (source,) = inputs
        last = self.first + self.tables.shape[1] - 1
        low, high = source.span
        if low < self.first or high > last:
            raise TriggerError(self.name, "address", f"{low} to {high}", f"{self.first} to {last}, the table's entries")
        rows = np.broadcast_to(self.tables, (self.n, self.tables.shape[1]))
        ends = [
            (row[a : b + 1].min(), row[a : b + 1].max())
            for row, a, b in zip(rows, source.low - self.first, source.high - self.first, strict=True)
        ]
        return Interval(np.array([e[0] for e in ends]), np.array([e[1] for e in ends]), self.type.fraction)


@dataclass(frozen=True, eq=False)
class Multiply(Node):
    """Product of two nodes, element by element, cast into `type`; a node with itself is the square."""

    n: int
    op: ClassVar[str] = "multiply"

    @property
    def size(self) -> int:
        return self.n

    def exact(self, *values: Codes, fractions: tuple[int, ...]) -> tuple[Codes, int]:
        return values[0] * values[1], fractions[0] + fractions[1]

    def exact_interval(self, *inputs: Interval) -> Interval:
        a, b = inputs
        corners = np.stack([a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high])
        low, high = corners.min(axis=0), corners.max(axis=0)
        if self.inputs[0] == self.inputs[1]:
            # A square is never negative, and zero if its interval contains zero.
            inside = (a.low <= 0) & (a.high >= 0)
            low = np.where(inside, 0, np.minimum(a.low**2, a.high**2))
        return Interval(low, high, a.fraction + b.fraction)


@dataclass(frozen=True, eq=False)
class Subtract(Node):
    """First node minus second, element by element, cast into `type`."""

    n: int
    op: ClassVar[str] = "subtract"

    @property
    def size(self) -> int:
        return self.n

    def exact(self, *values: Codes, fractions: tuple[int, ...]) -> tuple[Codes, int]:
        grid = max(fractions)
        return (values[0] << (grid - fractions[0])) - (values[1] << (grid - fractions[1])), grid

    def exact_interval(self, *inputs: Interval) -> Interval:
        a, b = inputs
        grid = max(a.fraction, b.fraction)
        up, vp = grid - a.fraction, grid - b.fraction
        return Interval((a.low << up) - (b.high << vp), (a.high << up) - (b.low << vp), grid)


@dataclass(frozen=True, eq=False)
class Concat(Node):
    """Nodes side by side, each brought onto the grid of `type`."""

    sizes: Codes
    op: ClassVar[str] = "concat"

    @property
    def size(self) -> int:
        return int(self.sizes.sum())

    def exact(self, *values: Codes, fractions: tuple[int, ...]) -> tuple[Codes, int]:
        grid = max(fractions)
        return np.concatenate([v << (grid - f) for v, f in zip(values, fractions, strict=True)], axis=-1), grid

    def exact_interval(self, *inputs: Interval) -> Interval:
        grid = max(i.fraction for i in inputs)
        low = np.concatenate([i.low << (grid - i.fraction) for i in inputs])
        high = np.concatenate([i.high << (grid - i.fraction) for i in inputs])
        return Interval(low, high, grid)


@dataclass(frozen=True, eq=False)
class Take(Node):
    """Elements of a node by index, (size,)."""

    index: Codes
    op: ClassVar[str] = "take"

    @property
    def size(self) -> int:
        return len(self.index)

    def exact(self, *values: Codes, fractions: tuple[int, ...]) -> tuple[Codes, int]:
        return values[0][..., self.index], fractions[0]

    def exact_interval(self, *inputs: Interval) -> Interval:
        (source,) = inputs
        return Interval(source.low[self.index], source.high[self.index], source.fraction)


@dataclass(frozen=True, eq=False)
class Maximum(Node):
    """Largest of a group of elements: `groups` (size, members) are positions in the input (a max pooling)."""

    groups: Codes
    op: ClassVar[str] = "maximum"

    @property
    def size(self) -> int:
        return len(self.groups)

    def exact(self, *values: Codes, fractions: tuple[int, ...]) -> tuple[Codes, int]:
        return values[0][..., self.groups].max(axis=-1), fractions[0]

    def exact_interval(self, *inputs: Interval) -> Interval:
        (source,) = inputs
        return Interval(source.low[self.groups].max(axis=1), source.high[self.groups].max(axis=1), source.fraction)


NODE_TYPES: dict[str, type[Node]] = {
    node.op: node for node in (Input, Scale, Dense, Relu, Quantize, Lut, Multiply, Subtract, Concat, Take, Maximum)
}


def node_from_json(value: dict[str, Any], *, where: str) -> Node:
    """A node from its JSON.

    Raises
    ------
    TriggerError
        If a field is missing, unknown or of the wrong type.
    """
    data = dict(value)
    op = data.pop("op", None)
    if op not in NODE_TYPES:
        raise TriggerError(where, f"node {data.get('name')}: op", op, ", ".join(NODE_TYPES))
    cls = NODE_TYPES[op]
    expected = {f.name for f in fields(cls)}
    if set(data) != expected:
        odd = sorted(set(data) ^ expected)
        raise TriggerError(where, f"node {data.get('name')}: fields", odd, f"exactly {sorted(expected)}")
    arguments: dict[str, Any] = {}
    for f in fields(cls):
        raw = data[f.name]
        if f.type == "FixedType":
            arguments[f.name] = FixedType.parse(raw)
        elif f.type == "Codes":
            array = np.asarray(raw)
            if array.size and not np.issubdtype(array.dtype, np.integer):
                raise TriggerError(where, f"node {data['name']}: {f.name}", array.dtype, "integers")
            arguments[f.name] = array.astype(np.int64)
        else:
            arguments[f.name] = tuple(raw) if f.name == "inputs" else raw
    return cls(**arguments)


def _to_json(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return str(value) if isinstance(value, FixedType) else value
