"""Policies: what happens to saturated and unsorted objects, and that it is counted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from l1ad.errors import LayoutError
from l1ad.events import Events, get_layout
from l1ad.events.policy import add_counts, apply_saturation, check_saturation_policy, sort_objects

LAYOUT = get_layout("cms_ugt")
CODES = arrays(np.int16, st.tuples(st.integers(0, 6), st.just(19)), elements=st.sampled_from([0, 1, 2, 3, 255, 511]))


def crossings(pt: np.ndarray) -> np.ndarray:
    """Codes (N, 19, 3) with these magnitudes; eta carries the slot number, so that objects can be told apart."""
    hw = np.zeros((len(pt), 19, 3), dtype=np.int16)
    hw[:, :, 0] = pt
    hw[:, 1:, 1] = np.arange(1, 19)
    return hw


@settings(max_examples=100, deadline=None)
@given(CODES)
def test_sorting_is_python_s_stable_sort_of_each_type(pt: np.ndarray) -> None:
    hw = crossings(pt)
    before = hw.copy()
    result, moved = sort_objects(hw, LAYOUT)
    expected = hw.copy()
    for rows in LAYOUT.slices.values():
        for i in range(len(hw)):
            objects = [tuple(entry) for entry in hw[i, rows].tolist()]
            expected[i, rows] = sorted(objects, key=lambda entry: -entry[0])
    assert np.array_equal(result, expected)
    assert moved == int((expected != hw).any(axis=(1, 2)).sum())
    assert np.array_equal(hw, before), "the input must not be changed"


def test_calorimeter_regions_have_places_and_are_not_sorted() -> None:
    layout = get_layout("cms_calo_regions")
    hw = np.arange(252, dtype=np.int16).reshape(1, 252, 1)
    result, moved = sort_objects(hw, layout)
    assert moved == 0
    assert np.array_equal(result, hw)


@settings(max_examples=100, deadline=None)
@given(CODES, st.sampled_from(["keep", "mask", "drop"]), st.booleans())
def test_saturation_policies_do_what_they_say(pt: np.ndarray, policy: str, met: bool) -> None:
    hw = crossings(np.where(np.arange(19) >= 9, pt * 4, pt))
    hw[:, 9:, 0] = np.minimum(hw[:, 9:, 0], 2047)
    if met and len(hw):
        hw[0, 0, 0] = 4095
    saturated = hw[:, :, 0] == np.array([4095] + [511] * 8 + [2047] * 10)
    result, keep, counts = apply_saturation(hw, LAYOUT, check_saturation_policy(policy))
    assert counts["saturated_objects"] == int(saturated.sum())
    assert counts["dropped_events"] == int((~keep).sum())
    if policy == "keep":
        assert keep.all()
        assert np.array_equal(result, hw)
    elif policy == "drop":
        assert np.array_equal(keep, ~saturated.any(axis=1))
        assert np.array_equal(result, hw)
    else:
        assert np.array_equal(keep, ~saturated[:, 0])
        assert not result[saturated].any()
        assert np.array_equal(result[~saturated], hw[~saturated])


def test_masking_closes_the_gap_that_it_leaves() -> None:
    hw = np.zeros((1, 19, 3), dtype=np.int16)
    hw[0, 9:12] = [[2047, 5, 6], [100, 7, 8], [50, 9, 10]]
    events = Events.from_arrays(hw, saturation="mask")
    assert events.hw[0, 9:12].tolist() == [[100, 7, 8], [50, 9, 10], [0, 0, 0]]
    assert events.saturation == "mask"
    assert events.meta["counts"] == {"saturated_objects": 1, "dropped_events": 0, "unsorted_events": 0}


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(LayoutError, match="found clip, expected keep, mask or drop"):
        check_saturation_policy("clip")


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 100)), max_size=5))
def test_counts_add_up_name_by_name(parts: list[dict[str, int]]) -> None:
    total = add_counts(*parts)
    assert total == {name: sum(part.get(name, 0) for part in parts) for part in parts for name in part}
