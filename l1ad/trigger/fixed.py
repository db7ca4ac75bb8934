"""Fixed-point types as the hardware has them.

`FixedType` describes a type, `FixedType.cast` brings integer codes of one grid into it, `FixedType.parse` reads the
notation of ap_types. A value is always an integer *code*; its physical value is ``code * 2**-fraction``.

The rules of rounding and overflow are those of the AMD ap_fixed library (Vitis HLS user guide UG1399, "Arbitrary
precision fixed-point data types").
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from l1ad.errors import TriggerError

Rounding = Literal["TRN", "TRN_ZERO", "RND", "RND_ZERO", "RND_INF", "RND_MIN_INF", "RND_CONV"]
Overflow = Literal["WRAP", "SAT", "SAT_ZERO", "SAT_SYM"]
Codes = npt.NDArray[np.int64]

_NOTATION = re.compile(r"^ap_(u?)(fixed|int)\s*<\s*(\d+)\s*(?:,\s*(-?\d+)\s*)?(?:,\s*(\w+)\s*)?(?:,\s*(\w+)\s*)?>$")


@dataclass(frozen=True)
class FixedType:
    """``ap_fixed<width, integer, rounding, overflow>``, or ``ap_ufixed`` if not signed.

    Attributes
    ----------
    width : bits in all, 1 to 62.
    integer : bits before the binary point, with the sign; may be negative or larger than `width`.
    signed : two's complement if true.
    rounding : what happens to bits below the grid (``RND_CONV`` is half to even, as QKeras rounds).
    overflow : what happens to values beyond the range.
    """

    width: int
    integer: int
    signed: bool = True
    rounding: Rounding = "TRN"
    overflow: Overflow = "WRAP"

    def __post_init__(self) -> None:
        if not 1 <= self.width <= 62:
            raise TriggerError("fixed-point type", "width", self.width, "1 to 62 bits")
        if self.rounding not in get_args(Rounding):
            raise TriggerError("fixed-point type", "rounding", self.rounding, ", ".join(get_args(Rounding)))
        if self.overflow not in get_args(Overflow):
            raise TriggerError("fixed-point type", "overflow", self.overflow, ", ".join(get_args(Overflow)))

    @property
    def fraction(self) -> int:
        """Bits after the binary point; negative for a grid coarser than 1."""
        return self.width - self.integer

    @property
    def min_code(self) -> int:
        """Smallest code."""
        return -(1 << (self.width - 1)) if self.signed else 0

    @property
    def max_code(self) -> int:
        """Largest code."""
        return (1 << (self.width - 1)) - 1 if self.signed else (1 << self.width) - 1

    @property
    def lsb(self) -> float:
        """Value of one code."""
        return float(2.0**-self.fraction)

    def __str__(self) -> str:
        return self._notation("")

    def cpp(self) -> str:
        """The type in C++ with ap_types."""
        return self._notation("AP_")

    def _notation(self, prefix: str) -> str:
        name = "ap_fixed" if self.signed else "ap_ufixed"
        modes = ""
        if self.rounding != "TRN" or self.overflow != "WRAP":
            modes = f",{prefix}{self.rounding},{prefix}{self.overflow}"
        return f"{name}<{self.width},{self.integer}{modes}>"

    @classmethod
    def parse(cls, text: str | FixedType) -> FixedType:
        """Read ``ap_fixed<W,I,rounding,overflow>``, ``ap_ufixed``, ``ap_int<W>`` or ``ap_uint<W>``.

        The modes may carry the prefix ``AP_``. A type is passed through.

        Raises
        ------
        TriggerError
            If the text is none of these.

        >>> FixedType.parse("ap_ufixed<10,6,AP_RND_CONV,AP_SAT>").lsb
        0.0625
        """
        if isinstance(text, FixedType):
            return text
        match = _NOTATION.match(text.strip())
        if not match or (match[2] == "fixed") != (match[4] is not None):
            raise TriggerError("fixed-point type", "notation", repr(text), "ap_[u]fixed<W,I[,rounding,overflow]>")
        width = int(match[3])
        integer = int(match[4]) if match[4] is not None else width
        rounding = (match[5] or "TRN").removeprefix("AP_")
        overflow = (match[6] or "WRAP").removeprefix("AP_")
        return cls(width, integer, not match[1], rounding, overflow)  # type: ignore[arg-type]

    @classmethod
    def holding(cls, low: int, high: int, fraction: int) -> FixedType:
        """The narrowest type on the grid ``2**-fraction`` that holds every code from `low` to `high`.

        Raises
        ------
        TriggerError
            If that takes more than 62 bits.
        """
        signed = low < 0
        bits = max(max(high, 0).bit_length(), (-low - 1).bit_length() if signed else 0, 0 if signed else 1) + signed
        return cls(bits, bits - fraction, signed)

    def holds(self, low: int, high: int) -> bool:
        """Whether every code from `low` to `high` is in range."""
        return self.min_code <= low and high <= self.max_code

    def with_modes(self, rounding: Rounding, overflow: Overflow) -> FixedType:
        """The same grid with other modes."""
        return replace(self, rounding=rounding, overflow=overflow)

    def round(self, codes: npt.ArrayLike, fraction: int) -> Codes:
        """Codes on the grid ``2**-fraction`` to codes on this grid, without regard to the range."""
        return shift_round(np.asarray(codes, dtype=np.int64), fraction - self.fraction, self.rounding)

    def cast(self, codes: npt.ArrayLike, fraction: int) -> Codes:
        """Codes on the grid ``2**-fraction`` to codes of this type: rounding first, then overflow."""
        return self.fit(self.round(codes, fraction))

    def fit(self, codes: Codes) -> Codes:
        """Apply the overflow mode to codes on this grid."""
        if self.overflow == "WRAP":
            if self.width >= 62:
                return codes
            wrapped = codes & ((1 << self.width) - 1)
            if self.signed:
                wrapped = np.where(wrapped > self.max_code, wrapped - (1 << self.width), wrapped)
            return np.asarray(wrapped, dtype=np.int64)
        if self.overflow == "SAT_ZERO":
            return np.where((codes < self.min_code) | (codes > self.max_code), 0, codes)
        low = -self.max_code if self.overflow == "SAT_SYM" and self.signed else self.min_code
        return np.clip(codes, low, self.max_code)

    def quantize(self, values: npt.ArrayLike) -> Codes:
        """Real values to codes of this type, with its rounding and overflow; exact for float64 input.

        Raises
        ------
        TriggerError
            If a value is NaN or infinite.
        """
        array = np.asarray(values, dtype=np.float64)
        if not np.isfinite(array).all():
            raise TriggerError(str(self), "value", "NaN or infinity", "a finite number")
        # Scaling by a power of two is exact; beyond 2**61 only saturation or wrapping of huge values is at stake.
        scaled = np.clip(np.ldexp(array, self.fraction), -(2.0**61), 2.0**61)
        # modf is exact where `scaled - floor(scaled)` is not: a tiny negative number is not the integer it is next to.
        part, whole = np.modf(scaled)
        # Three guard bits carry all that rounding depends on: nothing, less than a half, a half or more than a half.
        size = np.abs(part)
        guard = np.select([size == 0, size < 0.5, size == 0.5], [0, 1, 4], 7)
        # From 2**53 on a float64 is an integer: there is nothing to round, and no room for guard bits either.
        large = np.abs(whole) >= 2.0**53
        guarded = np.where(large, 0, whole).astype(np.int64) * 8 + np.where(part < 0, -guard, guard)
        return self.fit(np.where(large, whole.astype(np.int64), shift_round(guarded, 3, self.rounding)))

    def to_float(self, codes: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Values of codes, float64."""
        return np.ldexp(np.asarray(codes, dtype=np.float64), -self.fraction)


def shift_round(codes: Codes, bits: int, rounding: Rounding) -> Codes:
    """``codes * 2**-bits`` rounded to integers; a negative `bits` shifts left, exactly.

    >>> shift_round(np.array([-3, -1, 1, 3]), 1, "RND_CONV")
    array([-2,  0,  0,  2])
    """
    if bits <= 0:
        return np.left_shift(codes, -bits)
    if bits > 62:
        bits = 62
    floor = codes >> bits
    if rounding == "TRN":
        return floor
    rest = codes & ((1 << bits) - 1)
    half = 1 << (bits - 1)
    up: npt.NDArray[Any]
    if rounding == "TRN_ZERO":
        up = (codes < 0) & (rest != 0)
    elif rounding == "RND":
        up = rest >= half
    elif rounding == "RND_MIN_INF":
        up = rest > half
    elif rounding == "RND_ZERO":
        up = (rest > half) | ((rest == half) & (codes < 0))
    elif rounding == "RND_INF":
        up = (rest > half) | ((rest == half) & (codes >= 0))
    else:
        up = (rest > half) | ((rest == half) & ((floor & 1) == 1))
    return floor + up
