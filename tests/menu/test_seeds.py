"""Menu files: what is accepted, and what each mistake says."""

from __future__ import annotations

from pathlib import Path

import pytest

from l1ad.errors import ConfigError
from l1ad.menu import Menu, load_menu

#: The eleven seeds whose zero-bias rates the simulation is compared with.
REFERENCE_SEEDS = (
    *("SingleMu22", "DoubleMu_15_7", "TripleMu_5_3_3", "SingleEG36er2p5", "SingleEG60", "DoubleEG_25_14"),
    *("SingleJet180", "DoubleJet150er2p5", "HTT360er", "QuadJet60er2p5", "ETMHF100"),
)


def write_menu(folder: Path, seeds: str, head: str = "name: test\n") -> Path:
    path = folder / "menu.yaml"
    path.write_text(f"{head}seeds:\n{seeds}")
    return path


def test_run3_lite_is_what_it_says() -> None:
    menu = load_menu("run3_lite")
    names = [seed.short_name for seed in menu.seeds]
    assert len(names) == 20
    assert set(REFERENCE_SEEDS) <= set(names)
    assert all(seed.prescale == 1 for seed in menu.seeds)


def test_thresholds_of_run3_lite_are_those_in_the_names() -> None:
    for seed in load_menu("run3_lite").seeds:
        numbers = {int(leg.pt) for condition in seed.all_conditions for leg in condition.legs}
        for number in numbers:
            assert str(number) in seed.name, (seed.name, number)
        limits = {leg.eta_max for condition in seed.all_conditions for leg in condition.legs} - {None}
        assert all(f"er{limit:g}".replace(".", "p") in seed.name for limit in limits)


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ("  - {name: A, legs: [{object: photon, pt: 3}]}", "A: object: found photon, expected one of .*eg.*"),
        ("  - {name: A, legs: [{object: eg, pT: 3}]}", "pT: found an unknown key"),
        ("  - {name: A, legs: [{object: eg, pt: -3}]}", "pt: found -3"),
        ("  - {name: A, legs: [{object: eg, pt: .nan}]}", "pt: found nan"),
        ("  - {name: A, legs: [{object: eg, count: 0}]}", "count: found 0"),
        ("  - {name: A, prescale: -1}", "prescale: found -1"),
        ("  - {name: A, prescale: 1.5}", "prescale: found 1.5"),
        ("  - {name: A}\n  - {name: L1_A}", "each seed once"),
        ("  - {name: A, legs: [{object: eg}], pairs: [{legs: [0, 1], d_r: {max: 1}}]}", "pairs of legs 0 to 0"),
        ("  - {name: A, legs: [{object: eg, count: 2}], pairs: [{legs: [0, 1]}]}", "at least one of d_r"),
        ("  - {name: A, legs: [{object: eg, count: 2}], pairs: [{legs: [1, 1], d_r: {max: 1}}]}", "two different legs"),
        (
            "  - {name: A, legs: [{object: eg}, {object: met}], pairs: [{legs: [0, 1], mass: {min: 1}}]}",
            "only d_phi in a pair with met",
        ),
        (
            "  - {name: A, legs: [{object: eg, count: 2}], pairs: [{legs: [0, 1], d_r: {min: 2, max: 1}}]}",
            "min not above",
        ),
        ("  - {name: A, pairs: [{legs: [0, 1], d_r: {max: 1}}]}", "legs beside pairs"),
        (
            "  - {name: A, legs: [{object: jet, count: 6}], pairs: [{legs: [0, 1], d_r: {max: 1}}]}",
            "151200 combinations",
        ),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, seeds: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_menu(write_menu(tmp_path, seeds + "\n"))
    assert "\n" not in str(caught.value)
    assert "menu.yaml" in str(caught.value)


def test_an_unknown_layout_and_an_empty_menu(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="seeds"):
        load_menu(write_menu(tmp_path, "  []\n"))
    from l1ad.errors import InputError

    with pytest.raises(InputError, match="one of cms_ugt"):
        load_menu(write_menu(tmp_path, "  - {name: A}\n", "name: test\nlayout: cms\n"))


def test_scaling_thresholds_leaves_the_rest() -> None:
    menu = load_menu("run3_lite")
    looser = menu.scaled(0.8)
    assert [s.name for s in looser.seeds] == [s.name for s in menu.seeds]
    first = menu.seeds[0].all_conditions[0].legs[0]
    assert looser.seeds[0].all_conditions[0].legs[0].pt == pytest.approx(0.8 * first.pt)
    assert looser.seeds[11].all_conditions[0].pairs == menu.seeds[11].all_conditions[0].pairs


def test_a_menu_of_names_only() -> None:
    menu = Menu.from_names(["L1_A", "L1_B"])
    assert [seed.all_conditions for seed in menu.seeds] == [(), ()]
