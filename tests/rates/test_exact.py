"""Exact sums against fractions of whole numbers, in any order."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from l1ad.rates.exact import ExactSums

numbers = st.floats(min_value=0.0, max_value=1e30, allow_subnormal=False).filter(lambda x: x == 0.0 or x > 1e-30)


def summed(bins: list[int], values: list[float], n_bins: int) -> ExactSums:
    result = ExactSums(n_bins)
    result.add(np.array(bins, dtype=np.int64), np.array(values))
    return result


def as_fractions(sums: ExactSums) -> list[Fraction]:
    sums.carry()
    return [
        sum((int(limb[i]) * Fraction(2) ** (32 * power) for power, limb in sums.limbs.items()), Fraction(0))
        for i in range(sums.n_bins)
    ]


@given(st.lists(st.tuples(st.integers(0, 3), numbers), max_size=40))
@settings(max_examples=150, deadline=None)
def test_nothing_is_rounded(entries: list[tuple[int, float]]) -> None:
    expected = [Fraction(0)] * 4
    for index, value in entries:
        expected[index] += Fraction(value)
    sums = summed([i for i, _ in entries], [v for _, v in entries], 4)
    assert as_fractions(sums) == expected
    tails = [sum(expected[i:], Fraction(0)) for i in range(4)]
    assert as_fractions(sums.tail()) == tails
    for value, exact in zip(sums.tail().to_float().tolist(), tails):
        assert abs(Fraction(value) - exact) <= exact * Fraction(2) ** -51


@given(st.lists(st.tuples(st.integers(0, 3), numbers), min_size=1, max_size=40), st.randoms())
@settings(max_examples=100, deadline=None)
def test_order_and_division_do_not_matter(entries: list[tuple[int, float]], random: object) -> None:
    whole = summed([i for i, _ in entries], [v for _, v in entries], 4)
    shuffled = list(entries)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    cut = len(shuffled) // 3
    parts = ExactSums(4)
    for part in (shuffled[cut:], shuffled[:cut]):
        parts.merge(summed([i for i, _ in part], [v for _, v in part], 4))
    assert parts.to_float().tolist() == whole.to_float().tolist()
    assert parts.total() == whole.total()


def test_a_plain_sum_would_depend_on_the_order() -> None:
    # What this module is for: the same numbers, two orders, two sums.
    rng = np.random.default_rng(1)
    values = rng.random(10_000) * 10.0 ** rng.uniform(-6, 6, 10_000)
    ordered = np.sort(values)
    assert sum(values.tolist()) != sum(ordered.tolist())
    zeros = np.zeros(10_000, dtype=np.int64)
    totals = []
    for array in (values, ordered, ordered[::-1]):
        sums = ExactSums(1)
        sums.add(zeros, array)
        totals.append(sums.total())
    assert totals[0] == totals[1] == totals[2]
    assert totals[0] == float(sum((Fraction(v) for v in values.tolist()), Fraction(0)))


def test_tails_never_rise() -> None:
    rng = np.random.default_rng(2)
    sums = ExactSums(5000)
    sums.add(rng.integers(0, 5000, 20_000), rng.random(20_000) * 10.0 ** rng.integers(-20, 20, 20_000))
    assert (np.diff(sums.tail().to_float()) <= 0).all()


def test_reindexing_growing_and_counts() -> None:
    sums = summed([0, 1], [0.5, 0.25], 2)
    sums.grow(3)
    sums.add_counts(np.array([0, 0, 7]))
    wide = ExactSums(5)
    wide.merge(sums, np.array([4, 0, 4]))
    assert wide.to_float().tolist() == [0.25, 0.0, 0.0, 0.0, 7.5]
