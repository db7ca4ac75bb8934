"""Scaling from percentiles, against numpy's percentiles and against what it must map where."""

from __future__ import annotations

import numpy as np
import pytest

from l1ad.errors import InputError
from l1ad.events import get_layout
from l1ad.trigger.fixed import FixedType
from l1ad.trigger.layers import Scaling
from l1ad.trigger.scaling import (
    CodeCounts,
    fit_scaling,
    read_scaling,
    scale_node,
    scaling_report,
    write_scaling,
)

LAYOUT = get_layout("cms_ugt")
INPUT = FixedType(8, 6, True, "RND_CONV", "SAT")


@pytest.fixture(scope="module")
def events(make_crossings):
    return make_crossings(4000, 11)


@pytest.fixture(scope="module")
def counts(events):
    result = CodeCounts(LAYOUT)
    for piece in events.chunks(700):
        result.add(piece.inputs)
    return result


def test_percentiles_are_those_of_numpy(counts, events):
    for i in range(0, LAYOUT.n_inputs, 5):
        values = events.inputs[:, i].astype(int)
        values = values[values != 0]
        if not len(values):
            continue
        expected = np.percentile(values, [0, 5, 50, 95, 100], method="inverted_cdf")
        assert np.array_equal(counts.percentiles(i, [0, 5, 50, 95, 100]), expected), LAYOUT.input_names[i]


def test_a_weight_counts_like_repeated_events(events):
    weight = np.random.default_rng(2).integers(0, 4, len(events))
    weighted, repeated = CodeCounts(LAYOUT), CodeCounts(LAYOUT)
    weighted.add(events.inputs, weight.astype(float))
    repeated.add(np.repeat(events.inputs, weight, axis=0))
    a, b = fit_scaling(weighted).scaling, fit_scaling(repeated).scaling
    assert np.array_equal(a.offset, b.offset)
    assert np.array_equal(a.shift, b.shift)


def test_the_recipe(counts, events):
    """scale = (p95 - p5) / 4 rounded up to a power of two, offset = round of the middle (l1-facts, section 2)."""
    scaling = fit_scaling(counts).scaling
    unit = np.array([0.5 if word.name == "pt" else 1.0 for word in LAYOUT.input_words])
    for i in np.flatnonzero(counts.entries >= 20):
        values = events.inputs[:, i] * unit[i]
        low, high = np.percentile(values[values != 0], [5, 95], method="inverted_cdf")
        assert scaling.offset[i] == round((low + high) / 2)
        assert 2.0 ** scaling.shift[i] >= (high - low) / 4 > 2.0 ** (scaling.shift[i] - 1)
        assert np.all(np.abs((np.array([low, high]) - scaling.offset[i]) / 2.0 ** scaling.shift[i]) <= 2.5)


def test_rare_slots_borrow_and_dead_features_stop(events):
    hw = events.hw.copy()
    hw[:, 8] = 0  # the fourth muon never occurs
    counts = CodeCounts(LAYOUT)
    counts.add(hw.reshape(len(hw), -1))
    fit = fit_scaling(counts)
    assert ("mu4_pt", "mu3_pt") in fit.borrowed
    assert "met_eta" in fit.constant
    i, j = LAYOUT.input_names.index("mu4_phi"), LAYOUT.input_names.index("mu3_phi")
    assert fit.scaling.shift[i] == fit.scaling.shift[j]
    hw[:, 5:9, 1] = 7  # the pseudorapidity of muons does not vary at all
    dead = CodeCounts(LAYOUT)
    dead.add(hw.reshape(len(hw), -1))
    with pytest.raises(InputError, match=r"mu1_eta.*without variance"):
        fit_scaling(dead)


def test_report_counts_what_is_clipped(counts, events):
    scaling = Scaling(np.full(57, 17.5), np.zeros(57, dtype=np.int64))
    row = scaling_report(scaling, counts, INPUT)[LAYOUT.input_names.index("jet1_pt")]
    assert (row.offset, row.stored_offset) == (17.5, 17.0)
    gev = events.hw[:, 9, 0][events.hw[:, 9, 0] != 0] / 2 - 17.0
    beyond = np.abs(INPUT.to_float(INPUT.quantize(gev)) - gev) > 0.5
    assert row.clipped == pytest.approx(beyond.mean(), abs=0.01)
    assert not row.wraps
    assert scaling_report(Scaling(np.zeros(57), np.full(57, -4)), counts, INPUT)[0].wraps


def test_the_node_has_the_two_roundings(counts):
    """-3.5 >> 6 is floored to -0.0625 before it is rounded: one rounding alone would say -0.0547."""
    scaling = Scaling(np.zeros(57), np.full(57, 6))
    fine = FixedType(18, 8, True, "RND_CONV", "SAT")
    node = scale_node(scaling, LAYOUT, fine)
    shifted = Scaling(np.full(57, 3.5), np.full(57, 6), FixedType(12, 10))
    codes = scale_node(shifted, LAYOUT, fine).evaluate(np.zeros((1, 57), dtype=np.int64), fractions=(0,))
    assert set(fine.to_float(codes).ravel()) == {-0.0625}
    assert not node.evaluate(np.zeros((1, 57), dtype=np.int64), fractions=(0,)).any()


def test_file_round_trip(counts, tmp_path):
    fit = fit_scaling(counts)
    write_scaling(tmp_path / "scaling.json", fit, counts, INPUT)
    scaling, layout = read_scaling(tmp_path / "scaling.json")
    assert layout == "cms_ugt"
    assert np.array_equal(scaling.offset, fit.scaling.offset)
    assert np.array_equal(scaling.shift, fit.scaling.shift)
    assert scaling.offset_type == fit.scaling.offset_type
    text = (tmp_path / "scaling.json").read_text()
    (tmp_path / "scaling.json").write_text(text.replace('"format_version": 1', '"format_version": 9'))
    with pytest.raises(InputError, match="format_version: found 9, expected 1"):
        read_scaling(tmp_path / "scaling.json")


def test_a_scaling_by_hand_is_held_against_its_words():
    with pytest.raises(InputError, match="offset 3"):
        Scaling(np.where(np.arange(57) == 3, 600.0, 0.0), np.zeros(57, dtype=np.int64)).check(57)
    with pytest.raises(InputError, match="shift 0"):
        Scaling(np.zeros(57), np.full(57, 18)).check(57)


def test_an_offset_beyond_its_type_ends_with_the_type(counts):
    """AXOL1TL v1 and v3 store offsets in ap_fixed<10,9>, which ends at 255.5; a muon's phi runs to 575."""
    free, v3 = fit_scaling(counts), fit_scaling(counts, offset_type=FixedType(10, 9))
    assert not free.limited
    names = [name for name, _ in v3.limited]
    assert names
    assert all(name.startswith("mu") and name.endswith("phi") for name in names)
    for i, name in enumerate(LAYOUT.input_names):
        wanted = free.scaling.offset[i]
        assert v3.scaling.offset[i] == (255.0 if name in names else wanted)
        assert (wanted > 255.5) == (name in names)
    assert np.array_equal(v3.scaling.shift, free.scaling.shift)
    report = scaling_report(v3.scaling, counts, INPUT)
    assert not any(row.wraps for row in report)
