"""Menu decisions against hand cases and against a slow evaluation that tries every choice of objects."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l1ad.errors import ConfigError
from l1ad.events import Events, get_layout
from l1ad.menu import Condition, Leg, Menu, MenuDecision, Pair, Range, Seed, load_menu

LAYOUT = get_layout("cms_ugt")


def make_events(*crossings: dict[str, list[tuple[float, float, float]]], **columns: npt.ArrayLike) -> Events:
    """Events from lists of (pt in GeV, eta, phi) by object name."""
    physical = np.zeros((len(crossings), *LAYOUT.shape))
    for i, crossing in enumerate(crossings):
        for name, objects in crossing.items():
            start = LAYOUT.slices[name].start
            for j, values in enumerate(objects):
                physical[i, start + j] = values
    return Events.from_arrays(LAYOUT.to_hardware(physical), columns=columns)


def random_events(seed: int, n: int) -> Events:
    """Events whose objects crowd around low codes, so that thresholds are met about half of the time."""
    rng = np.random.default_rng(seed)
    hw = np.zeros((n, *LAYOUT.shape), dtype=np.int64)
    for group in LAYOUT.groups:
        part = LAYOUT.slices[group.name]
        hw[:, part, 0] = np.sort(rng.integers(0, 60, (n, group.count)) * (rng.random((n, group.count)) < 0.8))[:, ::-1]
        for feature in (1, 2):
            words = group.words[feature]
            hw[:, part, feature] = rng.integers(words.code_min, words.code_max + 1, (n, group.count))
        hw[:, part, 1:] *= hw[:, part, :1] > 0
    return Events.from_arrays(hw)


def decide(seed: Seed, events: Events) -> npt.NDArray[np.bool_]:
    return Menu(name="test", seeds=(seed,)).evaluate(events).before[seed.name]


# ------------------------------------------------------------------ the slow way: every choice of objects, in floats


def slow_leg(leg: Leg, pt: float, eta: float) -> bool:
    good = pt > 0 and pt >= leg.pt - 1e-9
    if leg.eta_max is not None:
        good = good and abs(eta) <= leg.eta_max + 1e-9
    if leg.eta_min is not None:
        good = good and abs(eta) >= leg.eta_min - 1e-9
    return good


def slow_inside(limits: Range | None, value: float) -> bool:
    if limits is None:
        return True
    low = -math.inf if limits.min is None else limits.min
    high = math.inf if limits.max is None else limits.max
    return low - 1e-9 <= value <= high + 1e-9


def slow_pair(pair: Pair, a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    d_eta = abs(a[1] - b[1])
    d_phi = abs(math.remainder(a[2] - b[2], 2 * math.pi))
    # Through four-vectors, not through the formula of the fast way.
    vectors = [(p * math.cosh(e), p * math.cos(f), p * math.sin(f), p * math.sinh(e)) for p, e, f in (a, b)]
    total = [x + y for x, y in zip(*vectors)]
    mass = math.sqrt(max(0.0, total[0] ** 2 - total[1] ** 2 - total[2] ** 2 - total[3] ** 2))
    return (
        slow_inside(pair.d_eta, d_eta)
        and slow_inside(pair.d_phi, d_phi)
        and slow_inside(pair.d_r, math.sqrt(d_eta**2 + d_phi**2))
        and slow_inside(pair.mass, mass)
    )


def slow_condition(condition: Condition, objects: dict[str, list[tuple[float, ...]]]) -> bool:
    legs = condition.expanded
    slots = [range(len(objects[leg.slot_object])) for leg in legs]
    for choice in itertools.product(*slots):
        taken = {(leg.slot_object, slot) for leg, slot in zip(legs, choice)}
        if len(taken) < len(legs):
            continue
        chosen = [objects[leg.slot_object][slot] for leg, slot in zip(legs, choice)]
        if all(slow_leg(leg, *values[:2]) for leg, values in zip(legs, chosen)) and all(
            slow_pair(pair, chosen[pair.legs[0]], chosen[pair.legs[1]]) for pair in condition.pairs
        ):
            return True
    return False


def slow_seed(seed: Seed, events: Events) -> list[bool]:
    physical = events.physical()
    result = []
    for row in physical:
        objects = {name: [tuple(v) for v in row[part]] for name, part in LAYOUT.slices.items()}
        jets = [pt for pt, eta, _ in objects["jet"] if pt >= 30 and abs(eta) <= 2.5]
        objects["ht"] = [(sum(jets), 0.0, 0.0)]
        result.append(all(slow_condition(condition, objects) for condition in seed.all_conditions))
    return result


thresholds = st.integers(0, 56).map(lambda code: code * 0.5)
eta_limits = st.one_of(st.none(), st.sampled_from([0.5, 1.6, 2.1, 2.5]))


@st.composite
def legs(draw: st.DrawFn, names: tuple[str, ...]) -> Leg:
    name = draw(st.sampled_from(names))
    if name in ("met", "ht"):
        return Leg(object=name, pt=draw(thresholds))
    upper = draw(eta_limits)
    lower = draw(st.one_of(st.none(), st.just(0.4)))
    return Leg(object=name, pt=draw(thresholds), count=draw(st.integers(1, 2)), eta_max=upper, eta_min=lower)


@st.composite
def ranges(draw: st.DrawFn, top: float) -> Range:
    low, high = sorted((draw(st.floats(0, top)), draw(st.floats(0, top))))
    kind = draw(st.sampled_from(["min", "max", "both"]))
    return Range(min=None if kind == "max" else low, max=None if kind == "min" else high)


@given(st.integers(0, 1000), st.lists(legs(("eg", "mu", "met", "ht")), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_legs_alone_agree_with_trying_every_choice(random: int, chosen: list[Leg]) -> None:
    events = random_events(random, 12)
    singles = {"met", "ht"}
    chosen = [
        leg
        for i, leg in enumerate(chosen)
        if not (leg.object in singles and leg.object in {x.object for x in chosen[:i]})
    ]
    seed = Seed(name="S", legs=tuple(chosen))
    assert decide(seed, events).tolist() == slow_seed(seed, events)


@given(st.integers(0, 1000), st.lists(thresholds, min_size=3, max_size=3), st.lists(eta_limits, min_size=3, max_size=3))
@settings(max_examples=40, deadline=None)
def test_overlapping_legs_on_jets_agree(random: int, pt: list[float], eta: list[float | None]) -> None:
    events = random_events(random, 10)
    seed = Seed(name="S", legs=tuple(Leg(object="jet", pt=p, eta_max=e) for p, e in zip(pt, eta)))
    assert decide(seed, events).tolist() == slow_seed(seed, events)


@given(
    st.integers(0, 1000),
    legs(("eg", "mu")),
    legs(("eg", "mu")),
    st.one_of(st.none(), ranges(4.0)),
    st.one_of(st.none(), ranges(3.2)),
    st.one_of(st.none(), ranges(4.0)),
    ranges(80.0),
)
@settings(max_examples=80, deadline=None)
def test_pairs_agree_with_four_vectors(
    random: int, first: Leg, second: Leg, d_eta: Range | None, d_phi: Range | None, d_r: Range | None, mass: Range
) -> None:
    events = random_events(random, 10)
    last = first.count + second.count - 1
    pair = Pair(legs=(0, last), d_eta=d_eta, d_phi=d_phi, d_r=d_r, mass=mass)
    seed = Seed(name="S", legs=(first, second), pairs=(pair,))
    assert decide(seed, events).tolist() == slow_seed(seed, events)


def test_run3_lite_agrees_seed_by_seed() -> None:
    menu = load_menu("run3_lite").scaled(0.25)
    # Four jets out of ten have 5040 orders: the slow way needs few events.
    events = random_events(3, 6)
    decision = menu.evaluate(events)
    for seed in menu.seeds:
        assert decision.before[seed.name].tolist() == slow_seed(seed, events), seed.name


# ------------------------------------------------------------------ hand cases


def test_a_threshold_is_met_at_its_integer_and_not_below() -> None:
    events = make_events({"eg": [(60.0, 0, 0)]}, {"eg": [(59.5, 0, 0)]})
    assert decide(Seed(name="S", legs=(Leg(object="eg", pt=60),)), events).tolist() == [True, False]
    # A threshold between two codes is the next code: 59.6 GeV is 60.
    assert decide(Seed(name="S", legs=(Leg(object="eg", pt=59.6),)), events).tolist() == [True, False]
    assert decide(Seed(name="S", legs=(Leg(object="eg", pt=59.5),)), events).tolist() == [True, True]


def test_eta_restriction_ends_at_code_57() -> None:
    hw = np.zeros((4, *LAYOUT.shape), dtype=int)
    hw[:, 1, 0] = 100
    hw[:, 1, 1] = [57, 58, -57, -58]
    seed = Seed(name="S", legs=(Leg(object="eg", pt=36, eta_max=2.5),))
    assert decide(seed, Events.from_arrays(hw)).tolist() == [True, False, True, False]
    forward = Seed(name="S", legs=(Leg(object="eg", pt=36, eta_min=2.5),))
    assert decide(forward, Events.from_arrays(hw)).tolist() == [False, True, False, True]


def test_one_object_does_not_serve_two_legs() -> None:
    events = make_events({"eg": [(30, 0, 0)]}, {"eg": [(30, 0, 0), (14, 1, 1)]}, {"eg": [(30, 0, 0), (13.5, 1, 1)]})
    seed = Seed(name="S", legs=(Leg(object="eg", pt=25), Leg(object="eg", pt=14)))
    assert decide(seed, events).tolist() == [False, True, False]


def test_the_leading_object_may_be_the_one_outside() -> None:
    # The hard object is forward: it may only serve the leg without a range, and the central one must take the other.
    seed = Seed(name="S", legs=(Leg(object="eg", pt=25), Leg(object="eg", pt=14, eta_max=1.0)))
    swapped = Seed(name="S", legs=(Leg(object="eg", pt=14, eta_max=1.0), Leg(object="eg", pt=25)))
    events = make_events(
        {"eg": [(30, 2.0, 0), (15, 0, 1)]}, {"eg": [(30, 0.0, 0), (15, 2.0, 1)]}, {"eg": [(30, 0, 0), (26, 2.0, 1)]}
    )
    assert decide(seed, events).tolist() == [True, False, True]
    assert decide(swapped, events).tolist() == [True, False, True]


def test_padding_is_no_object() -> None:
    events = make_events({}, {"mu": [(0.5, 0, 0)]}, {"mu": [(0.5, 0, 0), (0.5, 0, 0)]})
    assert decide(Seed(name="S", legs=(Leg(object="mu", pt=0),)), events).tolist() == [False, True, True]
    assert decide(Seed(name="S", legs=(Leg(object="mu", pt=0, count=2),)), events).tolist() == [False, False, True]


def test_mass_of_a_back_to_back_pair() -> None:
    # Back to back at the same eta the mass is 2 sqrt(pt1 pt2) = 80 GeV for 40 and 40.
    events = make_events({"jet": [(40, 0.435, 0.0), (40, 0.435, math.pi)]})

    def seed(minimum: float) -> Seed:
        return Seed(
            name="S", legs=(Leg(object="jet", pt=10, count=2),), pairs=(Pair(legs=(0, 1), mass=Range(min=minimum)),)
        )

    assert decide(seed(80.0), events).tolist() == [True]
    assert decide(seed(80.001), events).tolist() == [False]


def test_phi_wraps_around() -> None:
    step = 2 * math.pi / 144
    events = make_events({"jet": [(40, 0, 0.0), (40, 0, 143 * step)]})
    close = Pair(legs=(0, 1), d_phi=Range(max=step))
    assert decide(Seed(name="S", legs=(Leg(object="jet", pt=10, count=2),), pairs=(close,)), events).tolist() == [True]


def test_met_against_a_jet_in_phi() -> None:
    events = make_events({"met": [(90, 0, 0)], "jet": [(60, 0, math.pi)]}, {"met": [(90, 0, 0)], "jet": [(60, 0, 1.0)]})
    assert load_menu("run3_lite").evaluate(events).before["L1_ETMHF80_SingleJet55er2p5_dPhi_Min2p6"].tolist() == [
        True,
        False,
    ]


def test_conditions_may_share_objects() -> None:
    seed = Seed(
        name="S",
        conditions=(
            Condition(legs=(Leg(object="jet", pt=110), Leg(object="jet", pt=35))),
            Condition(legs=(Leg(object="jet", pt=35, count=2),), pairs=(Pair(legs=(0, 1), d_eta=Range(min=3)),)),
        ),
    )
    events = make_events(
        {"jet": [(120, 0, 0), (40, 3.1, 0)]},
        {"jet": [(120, 0, 0), (40, 1.0, 0)]},
        {"jet": [(120, 0, 0), (40, 1.6, 0), (36, -1.6, 0)]},
        {"jet": [(100, 0, 0), (40, 3.1, 0)]},
    )
    assert decide(seed, events).tolist() == [True, False, True, False]


def test_ht_is_summed_from_jets_or_taken_from_the_column() -> None:
    crossings: list[dict[str, list[tuple[float, float, float]]]] = [
        {"jet": [(200, 0, 0), (160, 1, 0), (29.5, 0, 0)]},
        {"jet": [(200, 0, 0), (160, 3, 0), (29.5, 0, 0)]},
    ]
    menu = load_menu("run3_lite")
    summed = menu.evaluate(make_events(*crossings))
    assert summed.before["L1_HTT360er"].tolist() == [True, False]
    assert any("summed from the jets" in note for note in summed.notes)
    column = menu.evaluate(make_events(*crossings, ht=np.array([719, 720])))
    assert column.before["L1_HTT360er"].tolist() == [False, True]
    assert any("ht is the column" in note for note in column.notes)


def test_what_is_not_applied_is_said() -> None:
    seed = Seed(name="L1_IsoMu", legs=(Leg(object="mu", pt=5, isolation="tight", quality="single"),))
    notes = Menu(name="m", seeds=(seed,)).evaluate(make_events({})).notes
    assert any("isolation is not in the data" in note and "L1_IsoMu" in note for note in notes)
    assert any("quality" in note for note in notes)
    assert any("met slot" in note for note in load_menu("run3_lite").evaluate(make_events({})).notes)


# ------------------------------------------------------------------ data bits, prescales


def test_decisions_of_the_data_come_first() -> None:
    events = make_events({"eg": [(70, 0, 0)]}, {}).with_menu_bits(
        {"SingleEG60": np.array([False, True]), "L1_Other": np.array([True, True])}, origin="test"
    )
    menu = Menu(
        name="m",
        seeds=(
            Seed(name="L1_SingleEG60", legs=(Leg(object="eg", pt=60),)),
            Seed(name="L1_SingleEG36", legs=(Leg(object="eg", pt=36),)),
            Seed(name="Other"),
        ),
    )
    decision = menu.evaluate(events)
    assert decision.before["L1_SingleEG60"].tolist() == [False, True]
    assert decision.before["L1_SingleEG36"].tolist() == [True, False]
    assert decision.before["Other"].tolist() == [True, True]
    assert dict(decision.origin) == {"L1_SingleEG60": "data", "L1_SingleEG36": "evaluated", "Other": "data"}
    assert (
        "2 seeds taken from the decisions in the data, 1 evaluated from their cuts: L1_SingleEG36" in decision.notes[0]
    )
    with pytest.raises(ConfigError, match="Other: found no cuts and no decision in the data"):
        menu.evaluate(events, use_data_bits=False)


def test_objects_that_the_events_lack() -> None:
    regions = Events.from_arrays(np.zeros((2, 252, 1), dtype=int), "cms_calo_regions")
    with pytest.raises(ConfigError, match=r"L1_SingleMu22: object: found mu, expected one of region"):
        load_menu("run3_lite").evaluate(regions)


def prescaled(*prescales: int, fires: list[list[bool]]) -> tuple[Menu, Events]:
    names = [f"S{i}" for i in range(len(prescales))]
    menu = Menu(name="m", seeds=tuple(Seed(name=n, prescale=p) for n, p in zip(names, prescales)))
    events = make_events(*[{} for _ in fires[0]])
    return menu, events.with_menu_bits({n: np.array(f) for n, f in zip(names, fires)}, origin="test")


def test_a_prescale_keeps_every_pth_decision_across_chunks() -> None:
    rng = np.random.default_rng(5)
    fires = [(rng.random(50) < 0.6).tolist() for _ in range(4)]
    menu, events = prescaled(1, 3, 7, 0, fires=fires)
    whole = menu.evaluate(events)
    for index, prescale in enumerate((1, 3, 7, 0)):
        count, expected = 0, []
        for fired in fires[index]:
            count += fired
            expected.append(bool(fired and prescale and count % prescale == 0))
        assert whole.after[f"S{index}"].tolist() == expected
    counters: dict[str, int] = {}
    parts: list[MenuDecision] = []
    for chunk in events.chunks(11):
        parts.append(menu.evaluate(chunk, counters=counters))
        counters = dict(parts[-1].counters)
    assert np.array_equal(np.concatenate([p.after.packed for p in parts]), whole.after.packed)
    assert counters == dict(whole.counters)
    assert np.array_equal(np.concatenate([p.fired for p in parts]), whole.fired)


@given(st.lists(st.sampled_from([0, 1, 2, 5, 10]), min_size=1, max_size=5), st.integers(0, 31))
@settings(max_examples=60, deadline=None)
def test_expected_weights_agree_with_adding_up_every_outcome(prescales: list[int], pattern: int) -> None:
    fires = [[bool(pattern >> i & 1)] for i in range(len(prescales))]
    menu, events = prescaled(*prescales, fires=fires)
    decision = menu.evaluate(events)
    none, share = 0.0, 0.0
    chances = [1.0 / p if p and f[0] else 0.0 for p, f in zip(prescales, fires)]
    for outcome in itertools.product((0, 1), repeat=len(prescales)):
        weight = math.prod(c if o else 1 - c for c, o in zip(chances, outcome))
        none += weight * (sum(outcome) == 0)
        share += weight / (1 + sum(outcome))
    assert decision.chance_none()[0] == pytest.approx(none, abs=1e-12)
    assert decision.mean_share()[0] == pytest.approx(share, abs=1e-12)
    assert decision.chance_none()[0] <= decision.mean_share()[0] + 1e-12 <= 1 + 2e-12


def test_etmhf_is_the_sum_with_the_forward_calorimeter_where_the_data_has_it() -> None:
    hw = np.zeros((3, 19, 3), int)
    hw[:, 0, 0] = [100, 250, 250]
    menu = load_menu("run3_lite")
    slot = menu.evaluate(Events.from_arrays(hw))
    column = menu.evaluate(Events.from_arrays(hw, columns={"met_hf": np.array([250, 100, 250])}))
    assert slot.before["L1_ETMHF100"].tolist() == [False, True, True]
    assert column.before["L1_ETMHF100"].tolist() == [True, False, True]
    assert any("met_hf" in note for note in column.notes)
    assert any("met slot" in note for note in slot.notes)
