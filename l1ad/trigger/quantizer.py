"""Quantisers in the notation of QKeras, and what they are in hardware.

A configuration says ``quantized_bits(8,5)`` or ``quantized_relu(10,6)``, always with alpha = 1 and rounding half to
even; `Quantizer.type` is the same as a `FixedType`. QKeras does not count the sign in its integer bits, ap_fixed does:
``quantized_bits(6,2)`` is ``ap_fixed<6,3>`` and ``quantized_relu(10,6)`` is ``ap_ufixed<10,6>`` (l1-facts, section 3).
The QKeras objects themselves are made in `l1ad.model.quantizers`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from l1ad.errors import TriggerError
from l1ad.trigger.fixed import FixedType

_NOTATION = re.compile(r"^quantized_(bits|relu)\(\s*(\d+)\s*,\s*(\d+)\s*(?:,\s*alpha\s*=\s*1(?:\.0*)?\s*)?\)$")


@dataclass(frozen=True)
class Quantizer:
    """A quantiser with one meaning in training and in hardware.

    Attributes
    ----------
    kind : ``bits`` (signed) or ``relu`` (max(x, 0), unsigned).
    bits : width of the word.
    integer : bits before the point, without the sign; 0 or more, as QKeras has it.
    """

    kind: Literal["bits", "relu"]
    bits: int
    integer: int

    @classmethod
    def parse(cls, text: str) -> Quantizer:
        """Read ``quantized_bits(bits,integer)`` or ``quantized_relu(bits,integer)``; ``alpha=1`` may be written.

        Raises
        ------
        TriggerError
            If it is anything else, or has no hardware counterpart.

        >>> str(Quantizer.parse("quantized_bits(6,2)").type)
        'ap_fixed<6,3,RND_CONV,SAT>'
        """
        match = _NOTATION.match(text.strip())
        expected = "quantized_bits(bits,integer) or quantized_relu(bits,integer) with alpha=1"
        if not match:
            raise TriggerError("quantizer", "notation", repr(text), expected)
        result = cls(match[1], int(match[2]), int(match[3]))  # type: ignore[arg-type]
        if not 2 <= result.bits <= 24:
            raise TriggerError("quantizer", text, f"{result.bits} bits", "2 to 24")
        return result

    def __str__(self) -> str:
        return f"quantized_{self.kind}({self.bits},{self.integer})"

    @property
    def type(self) -> FixedType:
        """The type whose cast is this quantiser."""
        signed = self.kind == "bits"
        return FixedType(self.bits, self.integer + signed, signed, "RND_CONV", "SAT")

    def __call__(self, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Values on the grid of this quantiser, float64, exactly as the type has them.

        >>> Quantizer.parse("quantized_bits(8,5)")([0.375, -40.0])
        array([  0.5, -32. ])
        """
        kind = self.type
        codes = np.rint(np.ldexp(np.asarray(values, dtype=np.float64), kind.fraction))
        return np.asarray(np.ldexp(np.clip(codes, kind.min_code, kind.max_code), -kind.fraction))
