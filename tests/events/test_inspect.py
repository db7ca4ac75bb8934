"""The summary against plain numpy, whatever the pieces and the weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l1ad.errors import InputError, LayoutError
from l1ad.events import Events, get_layout
from l1ad.events.inspect import Decisions, format_summary, plot_summary, summarise, weighted_median

CROSSINGS_KHZ = 2544 * 11245.6 / 1e3


def made(n: int = 2000, *, weighted: bool = True, layout: str = "cms_ugt") -> Events:
    rng = np.random.default_rng(11)
    words = get_layout(layout)
    hw = np.zeros((n, *words.shape), dtype=np.int16)
    for group in words.groups:
        rows = words.slices[group.name]
        for feature, word in enumerate(group.words):
            low, high = word.code_min, word.code_max + 1
            values = rng.integers(low, high, (n, group.count))
            if not feature:
                values = np.minimum(rng.geometric(0.02, (n, group.count)), word.code_max)
                values = -np.sort(-np.where(rng.random((n, group.count)) < 0.4, 0, values), axis=1)
            hw[:, rows, feature] = values
    hw[:, :, 1:] *= hw[:, :, :1] > 0
    bits = {"L1_A": rng.random(n) < 0.1, "L1_B": rng.random(n) < 0.02, "L1_Never": np.zeros(n, dtype=bool)}
    weight = rng.exponential(1, n) if weighted else None
    return Events.from_arrays(
        hw, layout, weight=weight, n_pv=rng.normal(50, 5, n), columns={"ht": rng.integers(0, 4096, n)}, menu_bits=bits,
        meta={"sources": ["made"], "notes": ["made up"], "counts": {"surplus_objects": 3}},
    )  # fmt: skip


@pytest.mark.parametrize("weighted", [False, True])
def test_numbers_are_those_of_numpy(weighted: bool) -> None:
    events = made(weighted=weighted)
    summary = summarise([events])
    w = events.weight
    assert summary.n_events == 2000
    assert summary.sum_weights == pytest.approx(w.sum())
    assert summary.effective_events == pytest.approx(w.sum() ** 2 / (w**2).sum())
    filled = events.hw[:, :, 0] > 0
    for slot, row in enumerate(summary.slots):
        there = filled[:, slot]
        assert row.occupancy == pytest.approx(w[there].sum() / w.sum())
        codes = events.hw[there, slot]
        for feature in row.features:
            column = [word.name for word in events.layout.words[slot]].index(feature.name)
            assert (feature.low_code, feature.high_code) == (codes[:, column].min(), codes[:, column].max())
            if not weighted:
                lsb = events.layout.words[slot][column].lsb
                assert feature.median == pytest.approx(np.median(codes[:, column]) * lsb)
    for group in summary.groups:
        rows = filled[:, events.layout.slices[group.name]]
        assert group.mean_count == pytest.approx((w @ rows.sum(axis=1)) / w.sum())
        assert group.occupancy == pytest.approx((w @ rows.any(axis=1)) / w.sum())
    (ht,) = [column for column in summary.columns if column.name == "ht"]
    values = events.columns["ht"]
    assert (ht.low, ht.high) == (values.min(), values.max())
    assert ht.mean == pytest.approx((w @ values) / w.sum())


@pytest.mark.parametrize("weighted", [False, True])
def test_rates_and_their_errors(weighted: bool) -> None:
    events = made(weighted=weighted)
    summary = summarise([events])
    w = events.weight
    for seed in summary.seeds:
        fired = events.menu_bits[seed.name]
        assert seed.events == fired.sum()
        assert seed.khz == pytest.approx(CROSSINGS_KHZ * w[fired].sum() / w.sum())
        assert seed.khz_error == pytest.approx(CROSSINGS_KHZ * np.sqrt((w[fired] ** 2).sum()) / w.sum())
    fired = events.menu_bits.any_of()
    assert summary.any_seed is not None
    assert summary.any_seed.khz == pytest.approx(CROSSINGS_KHZ * w[fired].sum() / w.sum())
    assert [seed.name for seed in summary.seeds] == ["L1_A", "L1_B", "L1_Never"]
    half = summarise([events], bunches=1272)
    assert half.seeds[0].khz == pytest.approx(summary.seeds[0].khz / 2)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 700))
def test_the_pieces_do_not_matter(size: int) -> None:
    events = made(600)
    whole, pieces = summarise([events]).to_json(), summarise(events.chunks(size)).to_json()
    for name in ("n_events", "counts", "sources", "notes", "saturation"):
        assert pieces[name] == whole[name]
    for a, b in zip(pieces["slots"], whole["slots"]):
        assert a["features"] == b["features"]
        assert a["occupancy"] == pytest.approx(b["occupancy"])
    for a, b in zip(pieces["seeds"], whole["seeds"]):
        assert a["events"] == b["events"]
        assert a["khz_error"] == pytest.approx(b["khz_error"])


def test_saturation_fractions() -> None:
    hw = np.zeros((10, 19, 3), dtype=np.int16)
    hw[:3, 9, 0], hw[3:, 9, 0], hw[0, 10, 0] = 2047, 100, 2047
    summary = summarise([Events.from_arrays(hw)])
    by_name = {slot.name: slot for slot in summary.slots}
    assert by_name["jet1"].saturated == pytest.approx(0.3)
    assert by_name["jet2"].saturated == pytest.approx(0.1)
    assert {group.name: group.saturated for group in summary.groups}["jet"] == pytest.approx(0.3)
    assert by_name["jet3"].features[0].median is None
    assert summary.counts["saturated_objects"] == 4


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60))
def test_the_median_of_unit_weights_is_the_median(values: list[int]) -> None:
    histogram = np.bincount(values, minlength=51)
    assert weighted_median(np.arange(51), histogram) == np.median(values)


def test_decisions_from_a_menu_with_prescales() -> None:
    events = made(500)
    before = events.menu_bits
    chance = 1 - np.where(before["L1_A"], 0.5, 1.0) * np.where(before["L1_B"], 0.0, 1.0)
    factors = {"L1_A": 0.5, "L1_B": 1.0, "L1_Never": 0.0}
    summary = summarise([events], decide=lambda _: Decisions(before, factors, chance), menu_origin="a menu")
    w = events.weight
    rates = {seed.name: seed.khz for seed in summary.seeds}
    assert rates["L1_A"] == pytest.approx(CROSSINGS_KHZ * 0.5 * w[before["L1_A"]].sum() / w.sum())
    assert summary.any_seed is not None
    assert summary.any_seed.khz == pytest.approx(CROSSINGS_KHZ * (w @ chance) / w.sum())
    assert summary.menu_origin == "a menu"


def test_no_events_and_no_menu_are_no_error() -> None:
    summary = summarise([Events.from_arrays(np.zeros((0, 19, 3), dtype=np.int16))])
    assert summary.any_seed is None
    assert "always empty" in format_summary(summary)
    assert "no menu bits" in format_summary(summary)
    json.dumps(summary.to_json(), allow_nan=False)


def test_pieces_must_go_together() -> None:
    with pytest.raises(LayoutError, match="no pieces"):
        summarise([])
    with pytest.raises(LayoutError, match="found adc2021, expected cms_ugt"):
        summarise([made(5), made(5, layout="adc2021")])
    with pytest.raises(InputError, match="bunches: found 0"):
        summarise([made(5)], bunches=0)


@pytest.mark.parametrize("layout", ["cms_ugt", "cms_calo_regions", "atlas_l1topo"])
@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_picture_is_drawn_for_every_layout(tmp_path: Path, layout: str, suffix: str) -> None:
    events = made(300, layout=layout)
    path = tmp_path / f"plot.{suffix}"
    plot_summary(summarise([events]), events.layout, path)
    head = path.read_bytes()[:200]
    assert head.startswith(b"\x89PNG") if suffix == "png" else b"<?xml" in head
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("n", [0, 5])
def test_a_picture_of_nothing_is_still_a_picture(tmp_path: Path, n: int) -> None:
    events = Events.from_arrays(np.zeros((n, 19, 3), dtype=np.int16))
    plot_summary(summarise([events]), events.layout, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_an_unknown_kind_of_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"suffix: found \.doc, expected \.png, \.pdf or \.svg"):
        plot_summary(summarise([made(5)]), get_layout("cms_ugt"), tmp_path / "plot.doc")


def test_a_negative_weight_is_refused() -> None:
    events = Events.from_arrays(np.zeros((2, 19, 3), dtype=int), weight=[1.0, -0.5], meta={"sources": ["zb.h5"]})
    with pytest.raises(InputError, match=r"zb\.h5: column weight: found -0\.5, expected 0 or more"):
        summarise([events])
