"""Lists into slots, against a plain loop."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l1ad.errors import InputError
from l1ad.events import get_layout
from l1ad.events.readers._jagged import Jagged, SumLists, check_codes, fill_group, one_per_event, same_lengths, select

LAYOUT = get_layout("cms_ugt")
OBJECT = st.tuples(st.integers(0, 20), st.integers(-128, 127), st.integers(0, 143))


def lists_of(rows: list[list[int]]) -> Jagged:
    offsets = np.concatenate(([0], np.cumsum([len(row) for row in rows]))).astype(np.int64)
    return Jagged(offsets, np.array([value for row in rows for value in row], dtype=np.int64))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(OBJECT, max_size=13), max_size=6), st.sampled_from(["eg", "jet"]))
def test_filling_is_sort_then_cut(events: list[list[tuple[int, int, int]]], group: str) -> None:
    hw = np.zeros((len(events), *LAYOUT.shape), dtype=np.int16)
    lists = [lists_of([[entry[i] for entry in event] for event in events]) for i in range(3)]
    counts = fill_group(
        hw, LAYOUT, group, lists[0].offsets, [part.values for part in lists], where="here", fields=("a", "b", "c")
    )
    slots = LAYOUT.slices[group]
    room = slots.stop - slots.start
    expected = np.zeros_like(hw)
    for i, event in enumerate(events):
        for k, entry in enumerate(sorted(event, key=lambda entry: -entry[0])[:room]):
            expected[i, slots.start + k] = entry
    assert np.array_equal(hw, expected)
    assert counts.surplus == sum(max(len(event) - room, 0) for event in events)
    in_order = [all(a[0] >= b[0] for a, b in itertools.pairwise(event)) for event in events]
    assert counts.unsorted.tolist() == [not ok for ok in in_order]
    assert counts.clipped == 0


@given(st.lists(st.lists(st.integers(-5, 5), max_size=4), max_size=6), st.data())
def test_selecting_keeps_the_event_of_each_object(rows: list[list[int]], data: st.DataObject) -> None:
    lists = lists_of(rows)
    mask = np.array(
        data.draw(st.lists(st.booleans(), min_size=len(lists.values), max_size=len(lists.values))), dtype=bool
    )
    (kept,) = select([lists], mask)
    flags = iter(mask.tolist())
    expected = [[value for value in row if next(flags)] for row in rows]
    assert [kept.values[a:b].tolist() for a, b in itertools.pairwise(kept.offsets)] == expected


def test_magnitudes_above_the_word_saturate_and_are_counted() -> None:
    word = LAYOUT.group("eg").words[0]
    codes, clipped = check_codes(np.array([511, 512, 40000]), word, where="f", field="egIEt")
    assert codes.tolist() == [511, 511, 511]
    assert clipped == 2


@pytest.mark.parametrize(
    ("feature", "values", "message"),
    [
        (0, [5, -1], "f: egIEt: found -1, expected 0 to 511"),
        (1, [5, 128], "f: egIEt: found 128, expected -128 to 127"),
        (2, [144], "f: egIEt: found 144, expected 0 to 143"),
        (0, [1.5], "f: egIEt: found values of type float64, expected integers"),
    ],
)
def test_codes_that_cannot_be_are_named(feature: int, values: list[float], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}$"):
        check_codes(np.array(values), LAYOUT.group("eg").words[feature], where="f", field="egIEt")


def test_one_an_event_may_lack_but_not_repeat() -> None:
    values, present = one_per_event(lists_of([[7], [], [9]]), where="f", field="MET_Et")
    assert (values.tolist(), present.tolist()) == ([7, 0, 9], [True, False, True])
    with pytest.raises(InputError, match="MET_Et: found 2 entries in one event, expected one entry an event"):
        one_per_event(lists_of([[7], [8, 9]]), where="f", field="MET_Et")


def test_lists_of_the_same_objects_have_the_same_lengths() -> None:
    with pytest.raises(InputError, match="b: found 1 entries, expected the same lists as a"):
        same_lengths([lists_of([[1], [2]]), lists_of([[1], []])], ("a", "b"), "f")


SUM = st.tuples(st.sampled_from([0, 1, 2]), st.sampled_from([-1, 0, 1]), st.integers(0, 9))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(SUM, max_size=5, unique_by=lambda entry: entry[:2]), max_size=5))
def test_sums_are_found_wherever_they_are(events: list[list[tuple[int, int, int]]]) -> None:
    kinds, crossing, values = (lists_of([[entry[i] for entry in event] for event in events]) for i in range(3))
    sums = SumLists(kinds, crossing, ("a", "b", "c"), where="f")
    for code, name in enumerate("abc"):
        (found,), present = sums.pick(name, values)
        for i, event in enumerate(events):
            wanted = [value for kind, bx, value in event if (kind, bx) == (code, 0)]
            assert present[i] == bool(wanted)
            assert found[i] == (wanted[0] if wanted else 0)


def test_the_same_sums_in_another_order() -> None:
    # Two of each event, but not at the same place: no column of a table is the answer.
    kinds, crossing = lists_of([[0, 1], [1, 0]]), lists_of([[0, 0], [0, 0]])
    sums = SumLists(kinds, crossing, ("a", "b"), where="f")
    (found,), present = sums.pick("a", lists_of([[5, 6], [7, 8]]))
    assert (found.tolist(), present.tolist()) == ([5, 8], [True, True])
    # The same types, but another crossing in each event.
    sums = SumLists(lists_of([[0, 0], [0, 0]]), lists_of([[0, 1], [1, 0]]), ("a", "b"), where="f")
    (found,), present = sums.pick("a", lists_of([[5, 6], [7, 8]]))
    assert (found.tolist(), present.tolist()) == ([5, 8], [True, True])


@pytest.mark.parametrize("irregular", [False, True])
def test_a_sum_that_is_there_twice_is_refused(irregular: bool) -> None:
    rows = [[2, 2], [2, 2]] if not irregular else [[2], [2, 2]]
    kinds = lists_of(rows)
    sums = SumLists(kinds, None, ("a", "b", "kMissingEt"), where="f")
    with pytest.raises(InputError, match=r"sum of type 2 \(kMissingEt\): found twice in one event"):
        sums.pick("kMissingEt", kinds)
