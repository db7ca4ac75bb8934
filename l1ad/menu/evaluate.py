"""Decisions of a menu on `Events`.

A condition holds if different objects can be found for all its legs at once. Without cuts between legs this is a
matching of legs to objects, and Hall's theorem answers it without trying combinations: every subset of legs must have
at least as many objects that pass one of them. With cuts between legs the combinations are tried one by one.

Comparisons of pt and pseudorapidity are made on hardware integers. dR, dEta, dPhi and masses use the physical values of
the codes in float64; the uGT takes rounded tables there, so that the last step of such a cut may differ from hardware.
An object is present if its pt code is above 0: a padded slot (or an HT of 0) passes no leg, not even one with a
threshold of 0 GeV.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import ConfigError
from l1ad.events.layout import ObjectLayout
from l1ad.events.store import Events, MenuBits
from l1ad.events.sums import code_at_least, code_at_most, ht_codes
from l1ad.menu.seeds import Condition, Leg, Menu, Pair, Range, Seed

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]

#: Combinations of slots that a condition with cuts between legs may try.
MAX_COMBINATIONS = 20_000
#: Events whose tables of pairs are held in memory at the same time.
PAIR_BLOCK_EVENTS = 8192
#: Room for the rounding of a decimal threshold such as 2.5 / 0.0435.
EPSILON = 1e-9


@dataclass(frozen=True, eq=False)
class MenuDecision:
    """What a menu says about N events.

    Attributes
    ----------
    before : decision of each seed before its prescale.
    after : decision after the prescale counters: of n decisions with prescale p the p-th, 2p-th, ... remain.
    prescales : prescale of each seed; 0 means off.
    origin : ``data`` or ``evaluated`` for each seed: where its decision was taken from.
    counters : decisions that each prescale counter has seen, to go on with in the next chunk of events.
    notes : what a user should know about these decisions, in words.
    """

    before: MenuBits
    after: MenuBits
    prescales: Mapping[str, int]
    origin: Mapping[str, str]
    counters: Mapping[str, int]
    notes: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Seed names in the order of the menu."""
        return self.before.names

    @property
    def fired(self) -> BoolArray:
        """OR of all seeds after their prescales, (N,)."""
        return self.after.any_of()

    def chance_none(self) -> FloatArray:
        """Chance that no seed of the menu fires, (N,): product over the fired seeds of 1 - 1/prescale.

        This is what a rate must use: the counters of `after` keep one arbitrary event in p, and a rate from them has p
        times the variance. Without prescales it is 1 or 0.
        """
        chance = np.ones(self.before.n_events)
        for name in self.names:
            prescale = self.prescales[name]
            if prescale:
                chance[self.before[name]] *= 1.0 - 1.0 / prescale
        return chance

    def mean_share(self) -> FloatArray:
        """Mean of 1 / (1 + K), (N,), with K the number of seeds of the menu that fire after their prescales.

        This is the share of an event that one more seed is charged with in a proportional rate. K is a sum of
        independent draws with chances 1/prescale, and its distribution is built seed by seed.
        """
        n = self.before.n_events
        fixed = np.zeros(n, dtype=np.int64)
        drawn: list[tuple[BoolArray, float]] = []
        for name in self.names:
            prescale = self.prescales[name]
            if prescale == 1:
                fixed += self.before[name]
            elif prescale > 1:
                drawn.append((self.before[name], 1.0 / prescale))
        share: FloatArray = np.asarray(1.0 / (1.0 + fixed), dtype=np.float64)
        rows = np.flatnonzero(np.any([bits for bits, _ in drawn], axis=0)) if drawn else np.zeros(0, dtype=np.int64)
        if len(rows):
            chances = np.zeros((len(rows), len(drawn) + 1))
            chances[:, 0] = 1.0
            for bits, chance in drawn:
                hit = np.where(bits[rows], chance, 0.0)[:, None]
                shifted = np.zeros_like(chances)
                shifted[:, 1:] = chances[:, :-1]
                chances = chances * (1.0 - hit) + shifted * hit
            charge = 1.0 / (1.0 + fixed[rows, None] + np.arange(len(drawn) + 1))
            share[rows] = (chances * charge).sum(axis=1)
        return share


def evaluate(
    menu: Menu,
    events: Events,
    *,
    counters: Mapping[str, int] | None = None,
    use_data_bits: bool = True,
) -> MenuDecision:
    """Decision of each seed of `menu` on `events`.

    Parameters
    ----------
    counters : prescale counters of an earlier chunk (`MenuDecision.counters`); zeros without them.
    use_data_bits : take a decision that the data carries under the seed's name (with or without ``L1_``) in place of
        evaluating its cuts. The data's decision counts as the one before the prescale.

    Raises
    ------
    ConfigError
        If a seed names an object that the events do not have, or has no cuts and no decision in the data.
    """
    view = _EventView(events)
    known = {name.removeprefix("L1_"): name for name in events.menu_bits.names} if use_data_bits else {}
    bits: dict[str, BoolArray] = {}
    origin: dict[str, str] = {}
    evaluated: list[Seed] = []
    for seed in menu.seeds:
        if seed.short_name in known:
            bits[seed.name] = events.menu_bits[known[seed.short_name]]
            origin[seed.name] = "data"
        elif seed.all_conditions:
            bits[seed.name] = _seed_fires(seed, view, where=f"menu {menu.name}: {seed.name}")
            origin[seed.name] = "evaluated"
            evaluated.append(seed)
        else:
            raise ConfigError(f"menu {menu.name}", seed.name, "no cuts and no decision in the data", "one of the two")
    notes = (*_origin_notes(origin), *_ignored(evaluated), *view.notes)
    if evaluated and _has_no_objects(events):
        names = ", ".join(seed.name for seed in evaluated)
        notes = (*notes, f"the data has no L1 objects, so that cuts are never met and this says nothing of {names}")
    count = {name: int((counters or {}).get(name, 0)) for name in bits}
    after: dict[str, BoolArray] = {}
    prescales = {seed.name: seed.prescale for seed in menu.seeds}
    for name, fires in bits.items():
        after[name] = _prescaled(fires, prescales[name], count[name])
        count[name] += int(fires.sum())
    n = len(events)
    return MenuDecision(MenuBits.from_bools(bits, n), MenuBits.from_bools(after, n), prescales, origin, count, notes)


def add_decisions(menu: Menu, events: Events) -> tuple[Events, tuple[str, ...]]:
    """The same events with a decision of each seed of `menu`, and what a user should know about them, in words.

    Where the data has bits but no objects, only the data's own decisions are kept.

    Seeds that the data carries keep the data's decisions, whether they are in the menu or not; the others are evaluated
    from their cuts, before any prescale. ``meta["menu_origin"]`` says which is which.

    Raises
    ------
    ConfigError
        As `evaluate`.
    """
    decision = evaluate(menu, events)
    bits = {name: events.menu_bits[name] for name in events.menu_bits}
    added = [name for name, origin in decision.origin.items() if origin == "evaluated"]
    notes = decision.notes
    if added and _has_no_objects(events):
        notes = (*notes, f"not written: {', '.join(added)}")
        added = []
    bits.update({name: decision.before[name] for name in added})
    parts = [f"the data ({len(events.menu_bits)} seeds)"] if len(events.menu_bits) else []
    parts += [f"the menu {menu.name} ({len(added)} seeds evaluated: {', '.join(added)})"] if added else []
    return events.with_menu_bits(bits, origin=" and ".join(parts) or "none"), notes


def _has_no_objects(events: Events) -> bool:
    """Whether the reader found no L1 objects at all, as in central NanoAOD."""
    return events.meta.get("l1_objects") == []


def check_combinations(condition: Condition, layout: ObjectLayout, *, where: str) -> None:
    """Check that a condition with cuts between its legs does not ask for too many combinations.

    Raises
    ------
    ConfigError
        If it does.
    """
    if condition.pairs:
        counts = {group.name: group.count for group in layout.groups}
        total = 1
        for name, legs in _by_object(condition.expanded).items():
            total *= math.perm(counts.get(name, 1), len(legs))
        if total > MAX_COMBINATIONS:
            raise ConfigError(where, "legs", f"{total} combinations of objects", f"at most {MAX_COMBINATIONS}")


def _prescaled(fires: BoolArray, prescale: int, seen: int) -> BoolArray:
    if prescale == 0:
        return np.zeros_like(fires)
    if prescale == 1:
        return fires
    return np.asarray(fires & ((seen + np.cumsum(fires)) % prescale == 0))


def _origin_notes(origin: Mapping[str, str]) -> list[str]:
    from_data = [name for name, source in origin.items() if source == "data"]
    if not from_data:
        return [f"{len(origin)} seeds evaluated from their cuts, none found in the data"]
    if len(from_data) == len(origin):
        return [f"{len(origin)} seeds taken from the decisions in the data"]
    rest = [name for name, source in origin.items() if source != "data"]
    return [
        f"{len(from_data)} seeds taken from the decisions in the data, {len(rest)} evaluated from their cuts: "
        + ", ".join(rest)
    ]


def _ignored(seeds: list[Seed]) -> list[str]:
    def with_leg(wanted: Callable[[Leg], bool]) -> list[str]:
        return [s.name for s in seeds if any(wanted(leg) for c in s.all_conditions for leg in c.legs)]

    notes = []
    for what, names in (
        ("quality", with_leg(lambda leg: leg.quality is not None)),
        ("isolation", with_leg(lambda leg: leg.isolation is not None)),
    ):
        if names:
            notes.append(f"{what} is not in the data and was not asked for: {', '.join(names)}")
    return notes


class _EventView:
    """What several seeds need of the same events, computed once."""

    def __init__(self, events: Events) -> None:
        self.events = events
        self.notes: list[str] = []
        self._passes: dict[Any, BoolArray] = {}
        self._ht: npt.NDArray[np.int64] | None = None

    def ht(self) -> npt.NDArray[np.int64]:
        """HT in codes of the jet pt, (N,)."""
        if self._ht is None:
            self._ht, note = ht_codes(self.events)
            self.notes.append(note)
        return self._ht

    def passes(self, leg: Leg, *, where: str) -> BoolArray:
        """Slots that pass the cuts of a leg, (N, slots of the object); one slot for ``ht``."""
        key = (leg.object, leg.pt, leg.eta_min, leg.eta_max)
        if key not in self._passes:
            self._passes[key] = self._compute(leg, where)
        return self._passes[key]

    def _say_met(self, with_hf: bool) -> None:
        text = (
            "etmhf is the column met_hf of the data"
            if with_hf
            else "etmhf is evaluated on the met slot of the layout, whatever detectors that sums"
        )
        if text not in self.notes:
            self.notes.append(text)

    def _compute(self, leg: Leg, where: str) -> BoolArray:
        layout = self.events.layout
        if leg.slot_object == "ht" and "jet" in layout.slices:
            lsb = layout.group("jet").words[0].lsb
            return np.asarray(self.ht()[:, None] >= max(1, code_at_least(leg.pt, lsb)))
        if leg.slot_object not in layout.slices:
            known = ", ".join(layout.slices)
            raise ConfigError(where, "object", leg.object, f"one of {known} (layout {layout.name})")
        words = layout.group(leg.slot_object).words
        if leg.object == "etmhf":
            self._say_met("met_hf" in self.events.columns)
        if leg.object == "etmhf" and "met_hf" in self.events.columns:
            sums = np.asarray(self.events.columns["met_hf"], dtype=np.int64)
            return np.asarray(sums[:, None] >= max(1, code_at_least(leg.pt, words[0].lsb)))
        codes = self.events.objects(leg.slot_object)
        passed = codes[:, :, 0] >= max(1, code_at_least(leg.pt, words[0].lsb))
        if leg.eta_min is not None or leg.eta_max is not None:
            if len(words) < 2 or not words[1].bits:
                raise ConfigError(where, "eta range", leg.object, "an object with a pseudorapidity")
            eta = np.abs(codes[:, :, 1].astype(np.int32))
            if leg.eta_max is not None:
                passed &= eta <= code_at_most(leg.eta_max, words[1].lsb)
            if leg.eta_min is not None:
                passed &= eta >= code_at_least(leg.eta_min, words[1].lsb)
        return np.asarray(passed)


def _by_object(legs: tuple[Leg, ...]) -> dict[str, list[int]]:
    table: dict[str, list[int]] = {}
    for i, leg in enumerate(legs):
        table.setdefault(leg.slot_object, []).append(i)
    return table


def _seed_fires(seed: Seed, view: _EventView, *, where: str) -> BoolArray:
    result = np.ones(len(view.events), dtype=bool)
    for condition in seed.all_conditions:
        result &= _condition_holds(condition, view, where=where)
    return result


def _condition_holds(condition: Condition, view: _EventView, *, where: str) -> BoolArray:
    possible = np.ones(len(view.events), dtype=bool)
    for indices in _by_object(condition.expanded).values():
        legs = [condition.expanded[i] for i in indices]
        possible &= _matching_exists(legs, view, where=where)
    if not condition.pairs or not possible.any():
        return possible
    candidates = np.flatnonzero(possible)
    for start in range(0, len(candidates), PAIR_BLOCK_EVENTS):
        rows = candidates[start : start + PAIR_BLOCK_EVENTS]
        possible[rows] = _combination_exists(condition, _EventView(view.events[rows]), where=where)
    return possible


def _matching_exists(legs: list[Leg], view: _EventView, *, where: str) -> BoolArray:
    """Hall's theorem for legs on one object type: (N,) whether different objects can be given to all of them."""
    copies: dict[Any, int] = {}
    masks: dict[Any, BoolArray] = {}
    for leg in legs:
        key = (leg.pt, leg.eta_min, leg.eta_max)
        copies[key] = copies.get(key, 0) + 1
        masks[key] = view.passes(leg, where=where)
    result = np.ones(len(view.events), dtype=bool)
    for size in range(1, len(masks) + 1):
        for subset in itertools.combinations(masks, size):
            union = masks[subset[0]]
            for key in subset[1:]:
                union = union | masks[key]
            result &= union.sum(axis=1) >= sum(copies[key] for key in subset)
    return result


def _combination_exists(condition: Condition, view: _EventView, *, where: str) -> BoolArray:
    """(N,) whether one choice of different objects passes all legs and all pairs of `condition`."""
    legs = condition.expanded
    layout = view.events.layout
    check_combinations(condition, layout, where=where)
    passes = [view.passes(leg, where=where) for leg in legs]
    allowed = {pair: _pair_table(pair, legs, view) for pair in condition.pairs}
    result = np.zeros(len(view.events), dtype=bool)
    per_object = list(_by_object(legs).values())
    choices = [itertools.permutations(range(passes[indices[0]].shape[1]), len(indices)) for indices in per_object]
    order = [i for indices in per_object for i in indices]
    for choice in itertools.product(*choices):
        slots = dict(zip(order, (slot for part in choice for slot in part)))
        good = ~result
        for i, slot in slots.items():
            good &= passes[i][:, slot]
        for pair, table in allowed.items():
            good &= table[:, slots[pair.legs[0]], slots[pair.legs[1]]]
        result |= good
    return result


def _pair_table(pair: Pair, legs: tuple[Leg, ...], view: _EventView) -> BoolArray:
    """Which slots of the two legs go together, (N, slots of the first, slots of the second)."""
    first, second = (_kinematics(view.events, legs[i].slot_object) for i in pair.legs)
    d_eta = np.abs(first[1][:, :, None] - second[1][:, None, :])
    d_phi = np.abs(first[2][:, :, None] - second[2][:, None, :])
    d_phi = np.minimum(d_phi, 2.0 * math.pi - d_phi)
    good = np.ones(d_eta.shape, dtype=bool)
    for limits, value in ((pair.d_eta, d_eta), (pair.d_phi, d_phi)):
        if limits is not None:
            good &= _inside(value, limits)
    if pair.d_r is not None:
        good &= _inside(np.hypot(d_eta, d_phi), pair.d_r)
    if pair.mass is not None:
        product = 2.0 * first[0][:, :, None] * second[0][:, None, :]
        good &= _inside(np.sqrt(np.maximum(product * (np.cosh(d_eta) - np.cos(d_phi)), 0.0)), pair.mass)
    return good


def _kinematics(events: Events, name: str) -> tuple[FloatArray, FloatArray, FloatArray]:
    codes = events.objects(name)
    words = events.layout.group(name).words
    pt, eta, phi = (codes[:, :, i].astype(np.float64) * words[i].lsb for i in range(3))
    return pt, eta, phi


def _inside(value: FloatArray, limits: Range) -> BoolArray:
    good = np.ones(value.shape, dtype=bool)
    if limits.min is not None:
        good &= value >= limits.min - EPSILON
    if limits.max is not None:
        good &= value <= limits.max + EPSILON
    return good
