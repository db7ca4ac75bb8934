"""What a seed is: the YAML of a menu and its models.

A menu file::

    name: my_menu
    layout: cms_ugt                 # whose objects the legs name
    source: where the thresholds come from
    seeds:
      - name: L1_DoubleEG_25_14
        prescale: 1                 # 0 switches a seed off
        legs:                       # different objects of the same event, all in one condition
          - {object: eg, pt: 25}
          - {object: eg, pt: 14, eta_max: 2.5}
      - name: L1_DoubleJet_110_35_DoubleJet35_Mass_Min800
        conditions:                 # all of them, each on its own: they may share objects
          - legs: [{object: jet, pt: 110}, {object: jet, pt: 35}]
          - legs: [{object: jet, pt: 35, count: 2}]
            pairs: [{legs: [0, 1], mass: {min: 800}}]

Thresholds are in GeV and compared as integers with ``>=``. ``count: 2`` stands for two equal legs, and ``pairs``
number the legs after that, from 0. ``ht`` is the scalar sum of jets, ``met`` the missing transverse energy; ``htt``,
``etm`` and ``etmhf`` are other names of these two. A seed without legs has no cuts here: its decision must come with
the data.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from l1ad.configs import check_config, find_config, read_yaml
from l1ad.errors import ConfigError
from l1ad.events.layout import get_layout

if TYPE_CHECKING:
    from l1ad.events.store import Events
    from l1ad.menu.evaluate import MenuDecision

#: Other names of the sums. The layouts carry one missing-energy slot; which detectors it sums is the data's affair.
ALIASES = {"htt": "ht", "etm": "met", "etmhf": "met"}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Range(_Strict):
    """A closed interval; an end that is None is open."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.min is None and self.max is None:
            raise ValueError("a range with min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min not above max")
        return self


class Leg(_Strict):
    """One object (or `count` equal ones) that a condition asks for.

    Attributes
    ----------
    object : name of the object in the layout, or ``ht``.
    pt : threshold in GeV; the object passes at it and above.
    count : how many different objects.
    eta_min, eta_max : closed range of the absolute pseudorapidity.
    quality, isolation : read and not applied, because the layouts carry neither; `MenuDecision.notes` says so.
    """

    object: str
    pt: float = Field(default=0.0, ge=0.0, allow_inf_nan=False)
    count: int = Field(default=1, ge=1, le=12)
    eta_min: float | None = Field(default=None, ge=0.0)
    eta_max: float | None = Field(default=None, ge=0.0)
    quality: str | None = None
    isolation: str | None = None

    @property
    def slot_object(self) -> str:
        """Name of the object in the layout, or ``ht``."""
        return ALIASES.get(self.object, self.object)


class Pair(_Strict):
    """Cuts on two legs of a condition.

    ``d_r``, ``d_eta`` and ``d_phi`` are absolute differences (radians for phi); ``mass`` is in GeV, of massless
    objects: m^2 = 2 pt1 pt2 (cosh(eta1 - eta2) - cos(phi1 - phi2)).
    """

    legs: tuple[int, int] = Field(strict=False)
    d_r: Range | None = None
    d_eta: Range | None = None
    d_phi: Range | None = None
    mass: Range | None = None

    @model_validator(mode="after")
    def _something(self) -> Pair:
        if self.legs[0] == self.legs[1] or min(self.legs) < 0:
            raise ValueError("two different legs, numbered from 0")
        if not (self.d_r or self.d_eta or self.d_phi or self.mass):
            raise ValueError("at least one of d_r, d_eta, d_phi, mass")
        return self


class Condition(_Strict):
    """Different objects that pass their legs at the same time, with the cuts of `pairs` between them."""

    legs: tuple[Leg, ...] = Field(strict=False, min_length=1)
    pairs: tuple[Pair, ...] = Field(strict=False, default=())

    @property
    def expanded(self) -> tuple[Leg, ...]:
        """One leg an object: ``count`` written out."""
        return tuple(leg for leg in self.legs for _ in range(leg.count))

    @model_validator(mode="after")
    def _pairs_exist(self) -> Condition:
        legs = self.expanded
        for pair in self.pairs:
            if max(pair.legs) >= len(legs):
                raise ValueError(f"pairs of legs 0 to {len(legs) - 1}")
            objects = [legs[i].slot_object for i in pair.legs]
            if "ht" in objects:
                raise ValueError("pairs of objects with a direction (ht has none)")
            if "met" in objects and (pair.d_r or pair.d_eta or pair.mass):
                raise ValueError("only d_phi in a pair with met, which has no pseudorapidity")
        return self


class Seed(_Strict):
    """One line of a menu: all `conditions` (or the one made of `legs` and `pairs`) must hold."""

    name: str = Field(min_length=1)
    prescale: int = Field(default=1, ge=0)
    legs: tuple[Leg, ...] = Field(strict=False, default=())
    pairs: tuple[Pair, ...] = Field(strict=False, default=())
    conditions: tuple[Condition, ...] = Field(strict=False, default=())
    note: str = ""

    @model_validator(mode="after")
    def _one_form(self) -> Seed:
        if self.conditions and self.legs:
            raise ValueError("either legs or conditions")
        if self.pairs and not self.legs:
            raise ValueError("legs beside pairs")
        if self.legs:
            Condition(legs=self.legs, pairs=self.pairs)
        return self

    @property
    def all_conditions(self) -> tuple[Condition, ...]:
        """The conditions, whichever way they were written."""
        return (Condition(legs=self.legs, pairs=self.pairs),) if self.legs else self.conditions

    @property
    def short_name(self) -> str:
        """The name without a leading ``L1_``."""
        return self.name.removeprefix("L1_")


class Menu(_Strict):
    """A list of seeds on the objects of one layout."""

    name: str = Field(min_length=1)
    layout: str = "cms_ugt"
    source: str = ""
    seeds: tuple[Seed, ...] = Field(strict=False, min_length=1)

    @model_validator(mode="after")
    def _names_differ(self) -> Menu:
        names = [seed.short_name for seed in self.seeds]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"each seed once ({', '.join(twice)} repeats)")
        return self

    @classmethod
    def from_names(cls, names: Iterable[str], *, layout: str = "cms_ugt", name: str = "data") -> Menu:
        """A menu of unprescaled seeds without cuts, whose decisions must come with the data."""
        return cls(name=name, layout=layout, seeds=tuple(Seed(name=seed) for seed in names))

    def check_objects(self, *, where: str) -> None:
        """Check that each leg names an object of the layout and that its combinations can be counted.

        Raises
        ------
        ConfigError
            Naming `where`, the seed, the object found and those that exist.
        """
        from l1ad.menu.evaluate import check_combinations

        layout = get_layout(self.layout)
        known = {group.name for group in layout.groups}
        if "jet" in known:
            known.add("ht")
        for seed in self.seeds:
            for condition in seed.all_conditions:
                for leg in condition.legs:
                    if leg.slot_object not in known:
                        names = sorted(known | {alias for alias, target in ALIASES.items() if target in known})
                        raise ConfigError(where, f"{seed.name}: object", leg.object, f"one of {', '.join(names)}")
                check_combinations(condition, layout, where=f"{where}: {seed.name}")

    def scaled(self, factor: float) -> Menu:
        """The same menu with every pt, HT and MET threshold multiplied by `factor`: to see which seeds almost fired."""

        def loosen(condition: Condition) -> Condition:
            legs = tuple(leg.model_copy(update={"pt": leg.pt * factor}) for leg in condition.legs)
            return condition.model_copy(update={"legs": legs})

        seeds = tuple(
            seed.model_copy(
                update={"legs": (), "pairs": (), "conditions": tuple(loosen(c) for c in seed.all_conditions)}
            )
            for seed in self.seeds
        )
        return self.model_copy(update={"seeds": seeds})

    def evaluate(self, events: Events, **options: Any) -> MenuDecision:
        """Decision of each seed: see `l1ad.menu.evaluate.evaluate`."""
        from l1ad.menu.evaluate import evaluate

        return evaluate(self, events, **options)


def load_menu(name_or_path: str | os.PathLike[str]) -> Menu:
    """A menu from a YAML file, or a shipped one by name (``configs/menus``).

    Raises
    ------
    ConfigError
        If there is no such menu, or a key, object or value in it cannot work.
    """
    path = find_config(name_or_path, "menus")
    menu = check_config(Menu, read_yaml(path), where=str(path))
    menu.check_objects(where=str(path))
    return menu
