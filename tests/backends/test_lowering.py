"""Every rounding and overflow mode in alkaid's arithmetic, against `FixedType.cast`, on every code of an interval."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

pytest.importorskip("alkaid", reason="alkaid is not installed: pip install 'l1ad[rtl]'")

from l1ad.backends import alir, lowering
from l1ad.trigger.fixed import FixedType, Overflow, Rounding


def _codes(variables, inputs: np.ndarray, fraction: int, results) -> np.ndarray:
    """Evaluate with the rewritten program, and check it against the one before the rewriting."""
    from alkaid.trace import trace

    comb = trace(variables, results, keep_dead_inputs=True)
    values = comb.predict(inputs, n_threads=1)
    np.testing.assert_array_equal(alir.unsigned_adders(comb).predict(inputs, n_threads=1), values)
    return np.rint(np.ldexp(values, fraction)).astype(np.int64)


def _variable(low: int, high: int, fraction: int):
    from alkaid.trace import FVArray, HWConfig

    ends = [np.array([np.ldexp(float(end), -fraction)]) for end in (low, high)]
    return FVArray.from_lhs(*ends, np.array([2.0**-fraction]), hwconf=HWConfig(1, 1, -1))


@pytest.mark.parametrize("rounding", get_args(Rounding))
@pytest.mark.parametrize("overflow", get_args(Overflow))
def test_cast_of_every_code(rounding: Rounding, overflow: Overflow) -> None:
    rng = np.random.default_rng([len(rounding), len(overflow), sum(map(ord, rounding + overflow))])
    for _ in range(14):
        fraction = int(rng.integers(0, 7))
        low, high = sorted(int(end) for end in rng.integers(-300, 300, 2))
        if rng.random() < 0.3:
            low = max(low, 0)
            high = max(high, low + 1)
        width = int(rng.integers(2, 9))
        target = FixedType(width, int(rng.integers(0, 7)), bool(rng.integers(2)), rounding, overflow)
        relu = bool(rng.integers(2))
        codes = np.arange(low, high + 1)
        x = _variable(low, high, fraction)
        result = lowering.cast(np.asarray(x)[0], target, relu=relu)
        found = _codes(x, np.ldexp(codes[:, None].astype(float), -fraction), target.fraction, [result])
        expected = target.cast(np.maximum(codes, 0) if relu else codes, fraction)
        what = f"{low}..{high} / 2**{fraction} -> {target} {relu}"
        np.testing.assert_array_equal(found[:, 0], expected, err_msg=what)


@pytest.mark.parametrize(("low", "high"), [(-512, 511), (0, 1023), (-8, 7), (-100, 3), (5, 700), (-300, -4)])
def test_square_of_every_code(low: int, high: int) -> None:
    codes = np.arange(low, high + 1)
    x = _variable(low, high, 3)
    found = _codes(x, codes[:, None] / 8.0, 6, [lowering.square(np.asarray(x)[0])])
    np.testing.assert_array_equal(found[:, 0], codes**2)


def test_sums_of_signed_numbers_survive_the_rewriting() -> None:
    from alkaid.trace import FVArray, HWConfig

    rng = np.random.default_rng(5)
    low, high = -rng.integers(0, 60, 12), rng.integers(1, 60, 12)
    step = 2.0 ** -rng.integers(0, 4, 12)
    x = FVArray.from_lhs(low * step, high * step, step, hwconf=HWConfig(1, 1, -1))
    matrix = rng.integers(-9, 10, (12, 6)).astype(float)
    inputs = rng.integers(low, high + 1, (500, 12)) * step
    found = _codes(x, inputs, 3, list(np.asarray(x @ matrix)))
    np.testing.assert_array_equal(found, np.rint(inputs @ matrix * 8).astype(int))


def test_an_input_type_finer_than_the_word_keeps_the_cut_of_the_shift() -> None:
    """AXOL1TL v5: ap_fixed<14,6> has 8 bits of fraction, the word 5: the shift floors to 1/32 whatever comes after."""
    from l1ad import Trigger
    from l1ad.backends import rtl

    rng = np.random.default_rng(7)
    types = {
        "input": "ap_fixed<14,6,RND_CONV,SAT>",
        "weight": "ap_fixed<6,3>",
        "bias": "ap_fixed<10,7>",
        "result": "ap_fixed<18,14,RND_CONV,SAT>",
    }
    scaling = {"offset": rng.integers(0, 60, 57).astype(float), "shift": rng.integers(-1, 7, 57)}
    trigger = Trigger.from_layers([rng.integers(-8, 8, (57, 3))], [np.zeros(3, int)], types, scaling)
    first = trigger.program.nodes[0]
    inputs = rng.integers(first.low, first.high + 1, (500, 57))
    traced = rtl.Interpreter(trigger)
    np.testing.assert_array_equal(traced.trace(inputs)["scale"], trigger.program.evaluate(inputs)["scale"])
    np.testing.assert_array_equal(traced.score(inputs), trigger.score(inputs, golden=True))
