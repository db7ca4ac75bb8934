"""Event displays: what is in an anomalous crossing, and why the trigger finds it anomalous.

`explain` asks the trigger itself: how the score changes if an object is taken away or a feature is moved; `neighbours`
finds the most similar zero-bias crossings; `draw` makes the figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.events.layout import ObjectLayout
from l1ad.events.store import Events
from l1ad.scores import SCORE_LSB
from l1ad.trigger.program import Trigger

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: pt is moved by this fraction, pseudorapidity and azimuth by this many codes, to see what the score depends on.
PT_STEP, ANGLE_STEP = 0.1, 4


@dataclass(frozen=True)
class ObjectView:
    """One object of a crossing.

    Attributes
    ----------
    slot, kind : its name, such as ``jet2``, and its type.
    pt, eta, phi : GeV, pseudorapidity and radians in (-pi, pi].
    saturated : whether its pt carries the saturation code.
    removal : change of the score (units of 1, not of 1/16) if it is taken away.
    sensitivity : largest change of the score by each feature: pt by 10 %, eta and phi by four codes.
    """

    slot: str
    kind: str
    pt: float
    eta: float
    phi: float
    saturated: bool
    removal: float
    sensitivity: dict[str, float]


@dataclass(frozen=True)
class EventView:
    """A crossing with its score and objects in slot order; `neighbours` are (index, score, distance) in zero bias."""

    index: int
    score: int
    objects: tuple[ObjectView, ...]
    columns: dict[str, float]
    fired: tuple[str, ...]
    neighbours: tuple[tuple[int, int, float], ...] = ()

    @property
    def value(self) -> float:
        """The score as a number."""
        return self.score * SCORE_LSB


def remove_object(hw: npt.NDArray[np.int16], layout: ObjectLayout, slot: int) -> npt.NDArray[np.int16]:
    """A crossing (slots, features) without one object: the softer ones of its type move up, as in the hardware."""
    result = hw.copy()
    part = next(s for s in layout.slices.values() if s.start <= slot < s.stop)
    result[slot : part.stop - 1] = hw[slot + 1 : part.stop]
    result[part.stop - 1] = 0
    return result


def explain(trigger: Trigger, events: Events, index: int) -> EventView:
    """Score a crossing and ask why.

    Raises
    ------
    InputError
        If there is no such crossing.
    """
    if not 0 <= index < len(events):
        raise InputError("event display", "index", index, f"0 to {len(events) - 1}")
    layout, hw = events.layout, events.hw[index]
    variants = [hw]
    slots = [slot for slot in range(layout.n_objects) if hw[slot, 0] > 0]
    moves: list[tuple[int, str, slice]] = []
    for slot in slots:
        start = len(variants)
        variants.append(remove_object(hw, layout, slot))
        moves.append((slot, "removal", slice(start, start + 1)))
        for feature, word in enumerate(layout.words[slot]):
            if not word.bits:
                continue
            start = len(variants)
            variants += [_moved(hw, layout, slot, feature, sign) for sign in (-1, 1)]
            moves.append((slot, word.name, slice(start, start + 2)))
    scores = trigger.score(np.stack(variants)).astype(np.int64)
    change = (scores - scores[0]) * SCORE_LSB
    removal = {slot: float(change[where][0]) for slot, what, where in moves if what == "removal"}
    features: dict[int, dict[str, float]] = {slot: {} for slot in slots}
    for slot, what, where in moves:
        if what != "removal":
            part = change[where]
            features[slot][what] = float(part[np.argmax(np.abs(part))])
    physical = hw * layout.lsb
    kinds = [group.name for group in layout.groups for _ in range(group.count)]
    saturated = layout.saturated(events.hw[index : index + 1])[0]
    objects = tuple(
        ObjectView(
            layout.slot_names[slot],
            kinds[slot],
            float(physical[slot, 0]),
            float(physical[slot, 1]) if layout.n_features > 1 else 0.0,
            float((physical[slot, 2] + np.pi) % (2 * np.pi) - np.pi) if layout.n_features > 2 else 0.0,
            bool(saturated[slot]),
            removal[slot],
            features[slot],
        )
        for slot in slots
    )
    columns = {name: float(values[index]) for name, values in events.columns.items()}
    fired = tuple(name for name in events.menu_bits if events.menu_bits[name][index])
    return EventView(index, int(scores[0]), objects, columns, fired)


def _moved(hw: npt.NDArray[np.int16], layout: ObjectLayout, slot: int, feature: int, sign: int) -> npt.NDArray[Any]:
    word = layout.words[slot][feature]
    code = int(hw[slot, feature])
    step = max(round(code * PT_STEP), 1) if word.kind == "magnitude" else ANGLE_STEP
    moved = code + sign * step
    moved = moved % word.period if word.period else min(max(moved, word.code_min), word.code_max)
    result = hw.copy()
    result[slot, feature] = moved
    return result


def neighbours(
    trigger: Trigger, events: Events, index: int, zero_bias: Events, *, k: int = 3
) -> tuple[tuple[int, int, float], ...]:
    """The `k` zero-bias crossings nearest in the scaled inputs: (index, score, Euclidean distance)."""
    node = next((n for n in trigger.program.nodes if n.op == "scale"), trigger.program.nodes[0])
    own = trigger.trace(events[index])[node.name][0]
    distance = np.empty(len(zero_bias))
    for start in range(0, len(zero_bias), 16384):
        codes = trigger.trace(zero_bias[start : start + 16384])[node.name]
        distance[start : start + len(codes)] = np.sqrt(((codes - own) ** 2).sum(axis=1)) * node.type.lsb
    nearest = np.argsort(distance, kind="stable")[:k]
    scores = trigger.score(zero_bias[nearest])
    return tuple((int(i), int(s), float(distance[i])) for i, s in zip(nearest, scores, strict=True))


def most_anomalous(trigger: Trigger, events: Events, top: int) -> npt.NDArray[np.int64]:
    """Indices of the `top` crossings by score, highest first; equal scores keep their order."""
    return np.argsort(-trigger.score(events), kind="stable")[:top]


#: Colours by object type that stay apart for the colour blind (Okabe and Ito).
COLOURS = {"met": "#CC79A7", "eg": "#009E73", "mu": "#D55E00", "jet": "#0072B2", "tau": "#E69F00"}
LABELS = {"met": "ETmiss", "eg": "e/gamma", "mu": "muon", "jet": "jet", "tau": "tau"}


def draw(view: EventView, *, title: str = "") -> Figure:
    """An eta-phi map (marker area follows pt), a transverse view, and what each object adds to the score."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(12, 4.2), layout="constrained")
    grid = figure.add_gridspec(1, 3, width_ratios=(1.25, 1.0, 1.0))
    plane, bars = figure.add_subplot(grid[0]), figure.add_subplot(grid[2])
    ring: Any = figure.add_subplot(grid[1], projection="polar")
    largest = max((o.pt for o in view.objects), default=1.0)
    labelled: list[tuple[float, float]] = []
    for o in sorted(view.objects, key=lambda o: -o.pt):
        colour = COLOURS.get(o.kind, "#666666")
        ring.plot([o.phi, o.phi], [0, o.pt], "--" if o.kind == "met" else "-", color=colour, linewidth=2.5)
        if o.kind == "met":
            plane.axhline(o.phi, color=colour, linestyle="--")
            continue
        plane.scatter(o.eta, o.phi, s=20 + 500 * o.pt / largest, color=colour, alpha=0.55)
        # Two objects on one spot (an electron is a jet too) would print one number over the other.
        clear = all(np.hypot(o.eta - eta, o.phi - phi) > 0.5 for eta, phi in labelled)
        if o.pt >= 0.15 * largest and clear:
            plane.annotate(f"{o.pt:g}", (o.eta, o.phi), ha="center", va="center", fontsize=7)
            labelled.append((o.eta, o.phi))
    plane.set(xlim=(-5.2, 5.2), ylim=(-np.pi, np.pi), xlabel=r"$\eta$", ylabel=r"$\phi$ [rad]")
    plane.set_title("objects, labels: $p_T$ [GeV]", fontsize=9)
    handles = [
        Line2D([], [], color=COLOURS.get(kind, "#666666"), label=LABELS.get(kind, kind), markersize=7,
               linestyle="--" if kind == "met" else "", marker="" if kind == "met" else "o")
        for kind in dict.fromkeys(o.kind for o in view.objects)
    ]  # fmt: skip
    if handles:
        plane.legend(
            handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=5, fontsize=8, frameon=False
        )
    ring.set_title("transverse plane, length: $p_T$ [GeV]", fontsize=9, pad=16)
    ring.set_rlabel_position(100)
    ring.tick_params(labelsize=7)
    strongest = sorted(view.objects, key=lambda o: -abs(o.removal))[:10][::-1]
    bars.barh([o.slot for o in strongest], [-o.removal for o in strongest],
              color=[COLOURS.get(o.kind, "#666666") for o in strongest])  # fmt: skip
    bars.axvline(0, color="black", linewidth=0.8)
    bars.set_xlabel("score lost if the object is removed")
    bars.set_title("why", fontsize=9)
    figure.suptitle(title or f"event {view.index}: score {view.value:g} ({view.score})", fontsize=11)
    return figure
