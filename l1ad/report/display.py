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


#: How each feature is moved and drawn: marker, colour, label.
_FEATURES = {
    "pt": ("o", "#000000", r"$p_T$ by 10 %"),
    "eta": ("^", "#7B3294", r"$\eta$ by 4 codes"),
    "phi": ("s", "#8C6D31", r"$\phi$ by 4 codes"),
}
#: Objects with a bar each: those whose removal changes the score most.
_BARS = 10


def display_title(view: EventView, rank: int) -> str:
    """Title of the display of the crossing with the `rank`-th highest score."""
    return f"#{rank}: crossing {view.index}, score {view.value:g} (integer {view.score})"


def draw(view: EventView, *, title: str = "") -> Figure:
    """Four panels: eta-phi map, transverse view, and what removing an object or moving a feature does to the score."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7.6), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2, width_ratios=(1.1, 1.0), height_ratios=(1.15, 1.0))
    plane, ring = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1], projection="polar")
    removed = figure.add_subplot(grid[1, 0])
    moved = figure.add_subplot(grid[1, 1], sharey=removed)
    _draw_map(plane, view)
    _draw_ring(ring, view)
    _draw_reasons(removed, moved, view)
    handles = _kind_handles(view)
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.suptitle(title or f"crossing {view.index}: score {view.value:g} (integer {view.score})", fontsize=13)
    return figure


def _kind_handles(view: EventView) -> list[Any]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=COLOURS.get(kind, "#666666"), label=LABELS.get(kind, kind), markersize=8,
               linestyle="--" if kind == "met" else "", marker="" if kind == "met" else "o")
        for kind in dict.fromkeys(o.kind for o in view.objects)
    ]  # fmt: skip


def _draw_map(plane: Any, view: EventView) -> None:
    """Markers at (eta, phi) whose area follows pt, ETmiss as a line; the hardest carry their pt."""
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2.5, foreground="white")]
    largest = max((o.pt for o in view.objects if o.kind != "met"), default=1.0)
    labelled: list[tuple[float, float]] = []
    for o in sorted(view.objects, key=lambda o: -o.pt):
        colour = COLOURS.get(o.kind, "#666666")
        if o.kind == "met":
            plane.axhline(o.phi, color=colour, linestyle="--")
            below = o.phi > 2.7
            plane.annotate(f"{o.pt:g}", (0.01, o.phi), xycoords=("axes fraction", "data"), fontsize=9, color=colour,
                           xytext=(0, -2 if below else 2), textcoords="offset points", ha="left",
                           va="top" if below else "bottom", path_effects=halo)  # fmt: skip
            continue
        area = 25 + 420 * o.pt / largest
        plane.scatter(o.eta, o.phi, s=area, color=colour, alpha=0.5, clip_on=False, linewidths=0)
        # Two objects on one spot (an electron is a jet too) would print one number over the other.
        clear = all(abs(o.eta - eta) > 1.1 or abs(o.phi - phi) > 0.42 for eta, phi in labelled)
        if o.pt >= 0.1 * largest and clear:
            up = -1 if o.phi > 2.6 else 1
            plane.annotate(f"{o.pt:g}", (o.eta, o.phi), xytext=(0, up * (0.5 * area**0.5 + 1)), fontsize=9,
                           textcoords="offset points", ha="center", va="bottom" if up > 0 else "top",
                           path_effects=halo)  # fmt: skip
            labelled.append((o.eta, o.phi))
    plane.set(xlim=(-5.2, 5.2), ylim=(-np.pi, np.pi), xlabel=r"$\eta$", ylabel=r"$\phi$ [rad]")
    plane.set_title("objects; area and number: $p_T$ [GeV]", fontsize=10)


def _draw_ring(ring: Any, view: EventView) -> None:
    """Lines along phi as long as pt; the scale is written where no object is in the way."""
    # Jets first and wide: an electron or a muon inside one stays visible.
    for o in sorted(view.objects, key=lambda o: o.kind != "jet"):
        style, width = "--" if o.kind == "met" else "-", 4.0 if o.kind == "jet" else 2.0
        colour = COLOURS.get(o.kind, "#666666")
        ring.plot([o.phi, o.phi], [0, o.pt], style, color=colour, linewidth=width, solid_capstyle="butt")
    directions = np.sort([o.phi for o in view.objects]) if view.objects else np.zeros(1)
    gaps = np.diff(np.append(directions, directions[0] + 2 * np.pi))
    widest = int(np.argmax(gaps))
    ring.set_rlabel_position(float(np.degrees(directions[widest] + gaps[widest] / 2)))
    ring.yaxis.get_major_locator().base.set_params(nbins=4)
    ring.tick_params(labelsize=8)
    ring.set_ylim(bottom=0)
    ring.set_title("transverse plane; length: $p_T$ [GeV]", fontsize=10)


def _draw_reasons(removed: Any, moved: Any, view: EventView) -> None:
    """How much of the score goes with each object, and how far it moves with each of its features."""
    strongest = sorted(view.objects, key=lambda o: -abs(o.removal))[:_BARS][::-1]
    names = [f"{o.slot}  {o.pt:g} GeV{' (saturated)' if o.saturated else ''}" for o in strongest]
    colours = [COLOURS.get(o.kind, "#666666") for o in strongest]
    removed.barh(names, [-o.removal for o in strongest], color=colours)
    removed.axvline(0, color="black", linewidth=0.8)
    removed.set_xlabel("score lost if the object is removed")
    for feature, (marker, colour, label) in _FEATURES.items():
        rows = [(o.sensitivity[feature], i) for i, o in enumerate(strongest) if feature in o.sensitivity]
        if rows:
            moved.plot(*zip(*rows), marker, ms=6, mfc="none", color=colour, label=label)
    moved.axvline(0, color="black", linewidth=0.8)
    moved.tick_params(labelleft=False)
    moved.grid(axis="y", alpha=0.3)
    moved.set_xlabel("change of the score if a feature is moved")
    if moved.get_legend_handles_labels()[0]:
        moved.legend(loc="best", fontsize=8)
