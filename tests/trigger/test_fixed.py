"""Fixed-point types against exact rational arithmetic."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l1ad.errors import TriggerError
from l1ad.trigger.fixed import FixedType, shift_round

ROUNDINGS = ["TRN", "TRN_ZERO", "RND", "RND_ZERO", "RND_INF", "RND_MIN_INF", "RND_CONV"]
OVERFLOWS = ["WRAP", "SAT", "SAT_ZERO", "SAT_SYM"]


def rational_round(x: Fraction, mode: str) -> int:
    """The rounding modes as UG1399 words them, on rational numbers."""
    down, up = floor(x), ceil(x)
    tie = x - down == Fraction(1, 2)
    nearest = down if x - down < Fraction(1, 2) else up
    if mode == "TRN":
        return down
    if mode == "TRN_ZERO":
        return down if x >= 0 else up
    if not tie:
        return nearest
    return {
        "RND": up,
        "RND_MIN_INF": down,
        "RND_ZERO": down if x >= 0 else up,
        "RND_INF": up if x >= 0 else down,
        "RND_CONV": down if down % 2 == 0 else up,
    }[mode]


def rational_cast(kind: FixedType, x: Fraction) -> int:
    code = rational_round(x * Fraction(2) ** kind.fraction, kind.rounding)
    if kind.min_code <= code <= kind.max_code and not (kind.overflow == "SAT_SYM" and code < -kind.max_code):
        return code
    if kind.overflow == "WRAP":
        code %= 1 << kind.width
        return code - (1 << kind.width) if kind.signed and code > kind.max_code else code
    if kind.overflow == "SAT_ZERO":
        return 0
    if code > kind.max_code:
        return kind.max_code
    return -kind.max_code if kind.overflow == "SAT_SYM" and kind.signed else kind.min_code


types = st.builds(
    FixedType,
    width=st.integers(1, 20),
    integer=st.integers(-4, 24),
    signed=st.booleans(),
    rounding=st.sampled_from(ROUNDINGS),
    overflow=st.sampled_from(OVERFLOWS),
).filter(lambda t: t.width > 1 or not t.signed)


@given(types, st.integers(-(1 << 24), 1 << 24), st.integers(-3, 20))
def test_cast_is_the_rational_cast(kind, code, fraction):
    expected = rational_cast(kind, Fraction(code) / Fraction(2) ** fraction)
    assert int(kind.cast(np.array([code]), fraction)[0]) == expected


@given(types, st.floats(-1e6, 1e6, allow_nan=False))
def test_quantize_is_the_rational_cast(kind, value):
    assert int(kind.quantize([value])[0]) == rational_cast(kind, Fraction(value))


@given(types)
def test_notation_comes_back(kind):
    assert FixedType.parse(str(kind)) == kind
    assert FixedType.parse(kind.cpp()) == kind


@given(st.integers(-(1 << 40), 1 << 40), st.integers(0, 1 << 40), st.integers(-10, 10))
def test_holding_is_the_narrowest(low, span, fraction):
    high = low + span
    kind = FixedType.holding(low, high, fraction)
    assert kind.holds(low, high)
    assert kind.fraction == fraction
    if kind.width > 1 + kind.signed:
        narrower = FixedType(kind.width - 1, kind.integer - 1, kind.signed)
        assert not narrower.holds(low, high)


def test_ties_of_a_half():
    codes = np.array([-5, -3, -1, 1, 3, 5])
    assert shift_round(codes, 1, "RND_CONV").tolist() == [-2, -2, 0, 0, 2, 2]
    assert shift_round(codes, 1, "RND").tolist() == [-2, -1, 0, 1, 2, 3]
    assert shift_round(codes, 1, "TRN").tolist() == [-3, -2, -1, 0, 1, 2]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("ap_fixed<8>", "notation"),
        ("float", "notation"),
        ("ap_fixed<8,6,NEAREST>", "rounding"),
        ("ap_int<70>", "width"),
    ],
)
def test_bad_notation_is_named(text, word):
    with pytest.raises(TriggerError, match=word):
        FixedType.parse(text)


def test_nan_is_refused():
    with pytest.raises(TriggerError, match="NaN"):
        FixedType(8, 6).quantize([np.nan])


def test_huge_values_saturate():
    """exp tables reach 1e30: nothing on the way may overflow 64 bits."""
    kind = FixedType(18, 10, False, "RND_CONV", "SAT")
    assert kind.quantize([1e30, 2.0**61, 2.0**54, 1023.0, -1e30]).tolist() == [262143, 262143, 262143, 261888, 0]
    wide = FixedType(62, 62, True, "RND_CONV", "SAT")
    assert wide.quantize([2.0**53 + 2, -(2.0**53), 2.0**60]).tolist() == [2**53 + 2, -(2**53), 2**60]
