"""Integers that cannot overflow: one value followed through its statements, and the narrowest type that holds it.

Intervals are exact Python integers through every intermediate step; `Chain` writes the statements in C on the way.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from l1ad.trigger.fixed import FixedType, Rounding


class Unsupported(Exception):
    """The program has a value that int64 cannot hold, or words that int16 cannot: no kernel can be written."""


def bits_for(low: int, high: int) -> int:
    """16, 32 or 64: the narrowest signed type that holds low to high.

    Raises
    ------
    Unsupported
        If none does.
    """
    for bits in (16, 32, 64):
        if -(1 << (bits - 1)) <= low and high < 1 << (bits - 1):
            return bits
    raise Unsupported(f"a value from {low} to {high} does not fit 64 bits")


def literal(value: int) -> str:
    """An integer in C."""
    if -(1 << 31) < value < 1 << 31:
        return str(value)
    return f"(-INT64_C({-value}))" if value < 0 else f"INT64_C({value})"


def _round_int(value: int, bits: int, rounding: Rounding) -> int:
    """`l1ad.trigger.fixed.shift_round` for one Python integer, which cannot overflow."""
    half, rest, floor = 1 << (bits - 1), value & ((1 << bits) - 1), value >> bits
    up = {
        "TRN": False,
        "TRN_ZERO": value < 0 and rest != 0,
        "RND": rest >= half,
        "RND_MIN_INF": rest > half,
        "RND_ZERO": rest > half or (rest == half and value < 0),
        "RND_INF": rest > half or (rest == half and value >= 0),
        "RND_CONV": rest > half or (rest == half and bool(floor & 1)),
    }[rounding]
    return floor + up


@dataclass
class Chain:
    """C statements on one value ``t``, with the interval it has after each and the extremes on the way.

    Attributes
    ----------
    low, high : the interval of the codes now.
    lines : statements; ``T`` stands for the type, which `bits` tells at the end.
    """

    low: int
    high: int
    lines: list[str] = field(default_factory=list)
    extremes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.see(self.low, self.high)

    def see(self, *values: int) -> None:
        """Values that the type must hold too."""
        self.extremes += values

    def _put(self, expression: str) -> None:
        self.lines.append(f"t = (T)({expression});")

    @property
    def bits(self) -> int:
        """16, 32 or 64: the narrowest type for every intermediate value.

        Raises
        ------
        Unsupported
            If int64 is too narrow.
        """
        return bits_for(min(self.extremes), max(self.extremes))

    def add(self, constant: int) -> None:
        """``t + constant``."""
        self.see(constant)
        self._set(self.low + constant, self.high + constant)
        if constant:
            self._put(f"t + {literal(constant)}")

    def multiply(self, constant: int) -> None:
        """``t * constant``."""
        self.see(constant)
        self._set(*sorted((self.low * constant, self.high * constant)))
        if constant != 1:
            self._put(f"t * {literal(constant)}")

    def _set(self, low: int, high: int) -> None:
        self.low, self.high = low, high
        self.see(low, high)

    def floor_shift(self, bits: int) -> None:
        """``t >> bits``."""
        if bits:
            self._set(self.low >> bits, self.high >> bits)
            # A shift by more than the type has is undefined in C, and by then only the sign is left.
            self.lines.append(f"t = (T)(t >> SHIFT({bits}));")

    def round(self, bits: int, rounding: Rounding) -> None:
        """``t * 2**-bits`` rounded; the extra term before the shift makes the floor what each mode asks for."""
        if bits <= 0:
            self.multiply(1 << -bits)
            return
        bits = min(bits, 62)
        half = 1 << (bits - 1)
        extra = {
            "TRN": "",
            "TRN_ZERO": f"(t < 0 ? {literal(2 * half - 1)} : 0)",
            "RND": literal(half),
            "RND_MIN_INF": literal(half - 1),
            "RND_ZERO": f"{literal(half - 1)} + (t < 0)",
            "RND_INF": f"{literal(half)} - (t < 0)",
            "RND_CONV": f"{literal(half - 1)} + ((t >> {bits}) & 1)",
        }[rounding]
        if extra:
            self.see(2 * half, self.high + 2 * half)
            self._put(f"t + {extra}")
        low, high = _round_int(self.low, bits, rounding), _round_int(self.high, bits, rounding)
        self.lines.append(f"t = (T)(t >> SHIFT({bits}));")
        self._set(low, high)

    def clip(self, low: int | None, high: int | None) -> None:
        """Limit to low and high; a limit that nothing exceeds costs nothing."""
        if low is not None and self.low < low:
            self.see(low)
            self.lines.append(f"t = t < {literal(low)} ? {literal(low)} : t;")
            self.low, self.high = low, max(self.high, low)
        if high is not None and self.high > high:
            self.see(high)
            self.lines.append(f"t = t > {literal(high)} ? {literal(high)} : t;")
            self.low, self.high = min(self.low, high), high

    def fit(self, kind: FixedType) -> None:
        """The overflow mode of `kind`, as `FixedType.fit`."""
        if kind.overflow in ("SAT", "SAT_SYM"):
            symmetric = kind.overflow == "SAT_SYM" and kind.signed
            self.clip(-kind.max_code if symmetric else kind.min_code, kind.max_code)
            return
        if kind.holds(self.low, self.high) or (kind.overflow == "WRAP" and kind.width >= 62):
            return
        if kind.overflow == "SAT_ZERO":
            low, high = literal(kind.min_code), literal(kind.max_code)
            self.see(kind.min_code, kind.max_code)
            self.lines.append(f"t = (t < {low} || t > {high}) ? 0 : t;")
        else:
            mask = literal((1 << kind.width) - 1)
            self.see((1 << kind.width) - 1)
            if kind.signed:
                half = 1 << (kind.width - 1)
                self.see(self.low + half, self.high + half)
                self._put(f"((t + {literal(half)}) & {mask}) - {literal(half)}")
            else:
                self._put(f"t & {mask}")
        self._set(kind.min_code, kind.max_code)

    def cast(self, kind: FixedType, fraction: int) -> None:
        """From the grid ``2**-fraction`` into `kind`, as `FixedType.cast`."""
        self.round(fraction - kind.fraction, kind.rounding)
        self.fit(kind)

    def code(self, bits: int) -> str:
        """The statements for a type of `bits` bits."""
        text = " ".join(self.lines).replace("(T)", f"(int{bits}_t)")
        return text.replace("SHIFT(", f"SHIFT{bits}(")
