"""Layouts: every legal code of every word, and the shapes that published triggers see."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l1ad.errors import LayoutError
from l1ad.events.layout import LAYOUTS, ObjectGroup, ObjectLayout, Word, get_layout

WORDS = sorted(
    {(layout.name, group.name, word) for layout in LAYOUTS.values() for group in layout.groups for word in group.words},
    key=str,
)


@pytest.mark.parametrize(("layout", "group", "word"), WORDS, ids=[f"{a}-{b}-{c.name}" for a, b, c in WORDS])
def test_every_code_survives_the_way_to_physical_and_back(layout: str, group: str, word: Word) -> None:
    codes = np.arange(word.code_min, word.code_max + 1)
    assert np.array_equal(word.to_hardware(word.to_physical(codes)), codes)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_code_of_every_slot_survives_in_a_crossing(name: str) -> None:
    layout = get_layout(name)
    n = int((layout.code_max.astype(int) - layout.code_min).max()) + 1
    # Event i carries code i of each word, held at the word's last code where the word is narrower.
    codes = np.minimum(layout.code_min + np.arange(n)[:, None, None], layout.code_max).astype(np.int16)
    assert np.array_equal(layout.to_hardware(layout.to_physical(codes)), codes)


@pytest.mark.parametrize(
    ("name", "slots", "inputs"),
    [("cms_ugt", 19, 57), ("adc2021", 19, 57), ("cms_calo_regions", 252, 252), ("atlas_l1topo", 15, 44)],
)
def test_shapes_are_those_of_the_published_triggers(name: str, slots: int, inputs: int) -> None:
    layout = get_layout(name)
    assert (layout.n_objects, layout.n_inputs) == (slots, inputs)
    assert len(layout.input_names) == len(set(layout.input_names)) == inputs


@pytest.mark.parametrize(
    ("group", "feature", "low", "high", "saturation", "lsb"),
    [
        ("met", 0, 0, 4095, 4095, 0.5),
        ("met", 2, 0, 143, None, 2 * math.pi / 144),
        ("eg", 0, 0, 511, 511, 0.5),
        ("eg", 1, -128, 127, None, 0.0435),
        ("mu", 0, 0, 511, 511, 0.5),
        ("mu", 1, -256, 255, None, 0.010875),
        ("mu", 2, 0, 575, None, 2 * math.pi / 576),
        ("jet", 0, 0, 2047, 2047, 0.5),
        ("jet", 1, -128, 127, None, 0.0435),
        ("jet", 2, 0, 143, None, 2 * math.pi / 144),
    ],
)
def test_words_are_those_of_the_global_trigger(
    group: str, feature: int, low: int, high: int, saturation: int | None, lsb: float
) -> None:
    word = get_layout("cms_ugt").group(group).words[feature]
    assert (word.code_min, word.code_max, word.saturation) == (low, high, saturation)
    assert word.lsb == pytest.approx(lsb, rel=1e-15)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(WORDS), st.floats(-1e4, 1e4, allow_nan=False))
def test_a_physical_value_is_off_by_half_a_code_at_most(entry: tuple[str, str, Word], value: float) -> None:
    word = entry[2]
    if not word.bits:
        assert int(word.to_hardware(value)) == 0
        return
    if word.kind == "magnitude" and value < 0:
        with pytest.raises(LayoutError, match="0 or more"):
            word.to_hardware(value)
        return
    inside = word.word_min <= round(value / word.lsb) <= word.word_max
    if word.kind == "linear" and not inside:
        with pytest.raises(LayoutError, match="expected"):
            word.to_hardware(value)
        return
    code = int(word.to_hardware(value))
    assert word.code_min <= code <= word.code_max
    if word.kind == "angle":
        turn = word.period * word.lsb
        off = abs((value - code * word.lsb + turn / 2) % turn - turn / 2)
    elif inside:
        off = abs(value - code * word.lsb)
    else:
        assert code == word.saturation
        return
    assert off <= word.lsb / 2 * (1 + 1e-9)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_has_no_code(bad: float) -> None:
    word = get_layout("cms_ugt").group("jet").words[0]
    with pytest.raises(LayoutError, match="NaN or infinity"):
        word.to_hardware([1.0, bad])


@pytest.mark.parametrize(
    ("slot", "feature", "code", "message"),
    [
        (1, 0, 512, "eg1_pt: found 512, expected 0 to 511"),
        (0, 1, 1, "met_eta: found 1, expected 0 to 0"),
        (5, 2, 576, "mu1_phi: found 576, expected 0 to 575"),
        (18, 1, 128, "jet10_eta: found 128, expected -128 to 127"),
        (18, 0, -1, "jet10_pt: found -1, expected 0 to 2047"),
    ],
)
def test_a_code_outside_its_word_is_named(slot: int, feature: int, code: int, message: str) -> None:
    hw = np.zeros((3, 19, 3), dtype=np.int64)
    hw[1, slot, feature] = code
    with pytest.raises(LayoutError, match=f"^here: {message}$"):
        get_layout("cms_ugt").check(hw, where="here")


def test_the_shape_and_the_type_are_checked() -> None:
    layout = get_layout("cms_ugt")
    with pytest.raises(LayoutError, match=r"shape: found \(2, 18, 3\)"):
        layout.check(np.zeros((2, 18, 3), dtype=np.int16), where="here")
    with pytest.raises(LayoutError, match="type: found float64, expected integers"):
        layout.check(np.zeros((2, 19, 3)), where="here")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(1, 4))
def test_slots_of_any_layout_tile_the_crossing(counts: list[int], features: int) -> None:
    words = tuple(Word(f"f{i}", 8) for i in range(features))
    layout = ObjectLayout("made", tuple(ObjectGroup(f"g{i}", count, words) for i, count in enumerate(counts)))
    covered = np.concatenate([np.arange(layout.n_objects)[rows] for rows in layout.slices.values()])
    assert np.array_equal(covered, np.arange(sum(counts)))
    assert len(layout.slot_names) == len(set(layout.slot_names)) == layout.n_objects
    assert layout.n_inputs == layout.n_objects * features


def test_an_unknown_layout_lists_the_known_ones() -> None:
    with pytest.raises(LayoutError, match="cms_ugt, adc2021, cms_calo_regions, atlas_l1topo"):
        get_layout("cms")


@pytest.mark.parametrize("n", [1, 63, 64, 65, 200])
def test_a_word_that_is_not_legal_is_found_wherever_it_is(n: int) -> None:
    layout = get_layout("cms_ugt")
    for event in {0, n // 2, n - 1}:
        for slot, feature, code in ((0, 1, 1), (18, 2, 144), (5, 0, -1), (8, 1, 256)):
            hw = np.zeros((n, *layout.shape), np.int16)
            layout.check(hw, where="words")
            hw[event, slot, feature] = code
            for words in (hw, np.asfortranarray(hw)):
                with pytest.raises(LayoutError, match=f"found {code}, expected"):
                    layout.check(words, where="words")
