"""Programs of dense layers from plain arrays: how the deployed triggers are written down.

`dense_program` is what `Trigger.from_layers` calls; `Scaling` and `LayerTypes` say what the integers mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import TriggerError
from l1ad.events.layout import ObjectLayout, get_layout
from l1ad.scores import SCORES
from l1ad.trigger.build import DEPLOYED_SCORE_TYPE, NodeOps, ProgramBuilder, Ref
from l1ad.trigger.fixed import Codes, FixedType
from l1ad.trigger.graph import Program

#: The word of an input before scaling: pt in GeV on a 1/32 grid, eta and phi in hardware codes.
UGT_WORD = FixedType(18, 13)
#: Offsets without fraction bits, as from AXOL1TL v4 on.
OFFSET_TYPE = FixedType(10, 10)


@dataclass(frozen=True)
class Scaling:
    """Offset and power-of-two shift of each input.

    Attributes
    ----------
    offset : (inputs,) real numbers, pt in GeV, eta and phi in hardware codes, as emulators list them.
    shift : (inputs,) bits to the right; negative to the left.
    offset_type : the type that stores the offsets: what it cannot hold is truncated, as in the hardware
        (``ap_fixed<10,9>`` in v1 and v3, ``ap_fixed<10,10>`` from v4 on).
    word : the type of the inputs before the subtraction.
    """

    offset: npt.NDArray[np.float64]
    shift: npt.NDArray[np.int64]
    offset_type: FixedType = OFFSET_TYPE
    word: FixedType = UGT_WORD

    @classmethod
    def of(cls, value: Scaling | Mapping[str, Any]) -> Scaling:
        """A `Scaling` of a mapping with the same fields; types may be in ap_fixed notation.

        Raises
        ------
        TriggerError
            If a field is unknown or missing.
        """
        if isinstance(value, Scaling):
            return value
        known = {f.name for f in fields(cls)}
        if not {"offset", "shift"} <= set(value) <= known:
            raise TriggerError("scaling", "fields", sorted(value), f"offset and shift, perhaps {sorted(known)}")
        types = {k: FixedType.parse(v) for k, v in value.items() if k in ("offset_type", "word")}
        return cls(np.asarray(value["offset"], dtype=np.float64), np.asarray(value["shift"], dtype=np.int64), **types)

    def stored_offset(self) -> npt.NDArray[np.float64]:
        """The offsets as `offset_type` holds them."""
        return self.offset_type.to_float(self.offset_type.quantize(self.offset))

    def truncated(self) -> npt.NDArray[np.int64]:
        """Positions of the offsets that `offset_type` changes."""
        return np.flatnonzero(self.stored_offset() != self.offset)

    def check(self, n_inputs: int) -> None:
        """Check lengths and ranges.

        Raises
        ------
        TriggerError
            If there is not one offset and one shift an input, an offset overflows its type, or a shift exceeds the
            word.
        """
        for what, values in (("offset", self.offset), ("shift", self.shift)):
            if values.shape != (n_inputs,):
                raise TriggerError("scaling", what, f"shape {values.shape}", f"({n_inputs},)")
        codes = np.floor(np.ldexp(self.offset, self.offset_type.fraction))
        bad = np.flatnonzero((codes < self.offset_type.min_code) | (codes > self.offset_type.max_code))
        if len(bad):
            raise TriggerError("scaling", f"offset {bad[0]}", self.offset[bad[0]], f"a value of {self.offset_type}")
        bad = np.flatnonzero(np.abs(self.shift) >= self.word.width)
        if len(bad):
            raise TriggerError(
                "scaling", f"shift {bad[0]}", self.shift[bad[0]], f"less than the {self.word.width} bits"
            )


@dataclass(frozen=True)
class LayerTypes:
    """Fixed-point types of a dense network; a list gives one entry a layer.

    Attributes
    ----------
    input : of the scaled inputs.
    weight, bias : of the integers in the arrays.
    relu : of the hidden activations (one entry a hidden layer if a list); an entry None makes that layer linear, with
        its type in `result`.
    result : of the last layer and of the linear ones before it (one entry a layer if a list; those of layers with an
        activation are not used).
    term : of each square before the sum.
    score : of the sum; 4 bits of fraction.
    """

    input: FixedType
    weight: tuple[FixedType, ...]
    bias: tuple[FixedType, ...]
    result: tuple[FixedType, ...]
    relu: tuple[FixedType | None, ...] = ()
    term: FixedType = DEPLOYED_SCORE_TYPE
    score: FixedType = DEPLOYED_SCORE_TYPE

    @classmethod
    def of(cls, value: LayerTypes | Mapping[str, Any], n_layers: int) -> LayerTypes:
        """`LayerTypes` of a mapping, types in ap_fixed notation, single entries repeated for each layer.

        Raises
        ------
        TriggerError
            If a field is unknown or missing, or a list has the wrong length.
        """
        if isinstance(value, LayerTypes):
            return value
        unknown = set(value) - {f.name for f in fields(cls)}
        missing = {"input", "weight", "bias", "result"} - set(value)
        if unknown or missing:
            raise TriggerError("types", "fields", sorted(unknown or missing), "input, weight, bias, relu, result, ...")

        def several(name: str, n: int) -> tuple[Any, ...]:
            given = value.get(name)
            if given is None or isinstance(given, (str, FixedType)):
                return (None if given is None else FixedType.parse(given),) * n
            if len(given) != n:
                raise TriggerError("types", name, f"{len(given)} entries", f"1 or {n}")
            return tuple(None if entry is None else FixedType.parse(entry) for entry in given)

        single = {k: FixedType.parse(value[k]) for k in ("input", "term", "score") if k in value}
        return cls(
            weight=several("weight", n_layers),
            bias=several("bias", n_layers),
            result=several("result", n_layers),
            relu=several("relu", n_layers - 1),
            **single,
        )


def input_multiplier(layout: ObjectLayout, word: FixedType) -> Codes:
    """Codes of `word` for one hardware code of each input: pt in GeV, eta and phi in hardware codes (l1-facts 2).

    Only LSBs that are powers of two can be applied without rounding; other magnitudes stay in hardware codes too.
    """
    result = []
    for w in layout.input_words:
        gev = w.kind == "magnitude" and float(np.log2(w.lsb)).is_integer()
        result.append(round((w.lsb if gev else 1.0) * 2**word.fraction))
    return np.array(result, dtype=np.int64)


def add_scaling(builder: ProgramBuilder, scaling: Scaling, input_type: FixedType) -> Ref:
    """Add the scaling of all inputs."""
    scaling.check(builder.layout.n_inputs)
    return builder.scale(
        builder.input,
        multiplier=input_multiplier(builder.layout, scaling.word),
        offset=scaling.word.quantize(scaling.stored_offset()),
        shift=scaling.shift,
        word=scaling.word,
        type=input_type,
        name="scale",
    )


def dense_program(
    weights: Sequence[npt.ArrayLike],
    biases: Sequence[npt.ArrayLike],
    types: LayerTypes | Mapping[str, Any],
    scaling: Scaling | Mapping[str, Any],
    score: str = "mu2",
    *,
    layout: str | ObjectLayout = "cms_ugt",
    embedding: int | None = None,
) -> Program:
    """A chain of dense layers with its scaling and score.

    Parameters
    ----------
    weights : one (inputs, outputs) integer array a layer, codes of ``types["weight"]``.
    biases : one (outputs,) integer array a layer, codes of ``types["bias"]``.
    types : see `LayerTypes`; a mapping may use the ap_fixed notation.
    scaling : see `Scaling`.
    score : ``mu2`` (of the last layer), ``student`` (the last layer is the score), or ``embedding_mse`` (of the last
        layer against layer number `embedding`).
    layout : of the inputs.
    embedding : for ``embedding_mse``: how many layers make the backbone, 2 for a 57-29-10 one.

    Raises
    ------
    TriggerError
        If shapes, types or the score do not fit together.
    """
    layout = get_layout(layout)
    n = len(weights)
    if not n or len(biases) != n:
        raise TriggerError("layers", "weights and biases", f"{n} and {len(biases)}", "as many of each, one at least")
    kinds = LayerTypes.of(types, n)
    builder = ProgramBuilder(layout)
    value = add_scaling(builder, Scaling.of(scaling), kinds.input)
    outputs: list[Ref] = []
    for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
        dense = builder.dense(value, w, b, weight_type=kinds.weight[i], bias_type=kinds.bias[i], name=f"dense_{i + 1}")
        hidden = kinds.relu[i] if i < n - 1 else None
        if hidden is not None:
            value = builder.relu(dense, hidden, name=f"relu_{i + 1}")
        else:
            value = builder.quantize(dense, kinds.result[i], name="result" if i == n - 1 else f"linear_{i + 1}")
        outputs.append(value)
    ops = NodeOps(builder, term=kinds.term, result=kinds.score)
    latents = outputs[-1]
    if score in ("mu2", "student"):
        result = SCORES[score].function(latents, ops=ops)
    elif score == "embedding_mse" and embedding is not None and 0 < embedding < n:
        result = SCORES[score].function(outputs[-1], outputs[embedding - 1], ops=ops)
        latents = outputs[embedding - 1]
    else:
        expected = "mu2, student, or embedding_mse with the number of backbone layers in embedding"
        raise TriggerError("layers", "score", f"{score} (embedding={embedding})", expected)
    return builder.program(score=result, latents=latents)
