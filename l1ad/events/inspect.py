"""What is in a set of events: counts, occupancies, ranges, saturation and menu rates, as numbers and as a picture.

`summarise(chunks)` goes through any number of events in one pass with constant memory and exact medians (histograms of
hardware codes); `format_summary` and `plot_summary` show the result.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError, LayoutError
from l1ad.events.layout import ObjectLayout
from l1ad.events.policy import add_counts
from l1ad.events.store import Events, MenuBits
from l1ad.io import atomic_path

#: Revolutions of the LHC in a second: a bunch crosses once in each.
REVOLUTIONS_HZ = 11245.6
DEFAULT_BUNCHES = 2544

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FeatureSummary:
    """One feature of the non-empty objects of one slot.

    Attributes
    ----------
    name, unit : feature and unit.
    low, median, high : smallest, (weighted) middle and largest value, in `unit`; None if the slot is always empty.
    low_code, high_code : the same as hardware codes.
    """

    name: str
    unit: str
    low: float | None
    median: float | None
    high: float | None
    low_code: int | None
    high_code: int | None


@dataclass(frozen=True)
class SlotSummary:
    """One slot of the layout.

    Attributes
    ----------
    name : such as ``jet3``.
    occupancy : (weighted) fraction of events in which it is not empty.
    saturated : (weighted) fraction of events in which it carries the saturation code.
    features : of the non-empty objects.
    """

    name: str
    occupancy: float
    saturated: float
    features: tuple[FeatureSummary, ...]


@dataclass(frozen=True)
class GroupSummary:
    """One object type.

    Attributes
    ----------
    name : such as ``jet``.
    mean_count : (weighted) mean number of non-empty objects an event.
    occupancy : (weighted) fraction of events with at least one.
    saturated : (weighted) fraction of events with at least one saturated object.
    """

    name: str
    mean_count: float
    occupancy: float
    saturated: float


@dataclass(frozen=True)
class ColumnSummary:
    """One per-event number: smallest, (weighted) mean and largest value."""

    name: str
    low: float
    mean: float
    high: float


@dataclass(frozen=True)
class SeedRate:
    """Rate of one seed, as if every event were a zero-bias crossing.

    Attributes
    ----------
    name : the seed.
    events : events in which it fired, not weighted.
    fraction : (weighted) fraction of crossings.
    khz, khz_error : rate at the given number of bunches and its statistical error, sqrt(sum of squared weights).
    """

    name: str
    events: int
    fraction: float
    khz: float
    khz_error: float


@dataclass(frozen=True)
class Histograms:
    """Weighted histograms of codes, kept for the picture.

    Attributes
    ----------
    codes : for each slot and feature, sum of weights by code, from the smallest legal code on.
    multiplicity : for each object type, sum of weights by number of non-empty objects.
    n_pv : sum of weights by rounded pile-up, 0 to 199.
    """

    codes: tuple[tuple[FloatArray, ...], ...]
    multiplicity: tuple[FloatArray, ...]
    n_pv: FloatArray


@dataclass(frozen=True)
class EventsSummary:
    """What is in a set of events.

    Attributes
    ----------
    layout : name of the layout.
    n_events : number of events.
    sum_weights, effective_events : sum of weights, and (sum w)^2 / sum w^2.
    saturation : the policy that was applied.
    counts : what readers and policies changed.
    sources, notes : where the events come from, and what to know about them.
    groups, slots, columns : the numbers.
    seeds, any_seed : menu rates, highest first, and the rate of their OR; empty and None without menu bits.
    menu_origin : where the menu decisions come from.
    bunches : colliding bunches that the rates stand for.
    histograms : for the picture.
    """

    layout: str
    n_events: int
    sum_weights: float
    effective_events: float
    saturation: str
    counts: Mapping[str, int]
    sources: tuple[str, ...]
    notes: tuple[str, ...]
    groups: tuple[GroupSummary, ...]
    slots: tuple[SlotSummary, ...]
    columns: tuple[ColumnSummary, ...]
    seeds: tuple[SeedRate, ...]
    any_seed: SeedRate | None
    menu_origin: str
    bunches: int
    histograms: Histograms

    def to_json(self) -> dict[str, Any]:
        """Everything but the histograms, as JSON types."""
        table = asdict(self)
        del table["histograms"]
        return table


@dataclass(frozen=True)
class Decisions:
    """Menu decisions that do not come with the events.

    Attributes
    ----------
    bits : decision of each seed before its prescale.
    factors : 1 / prescale by seed name, 0 for a seed that is off.
    any_chance : (N,) chance that at least one seed fires.
    """

    bits: MenuBits
    factors: Mapping[str, float]
    any_chance: FloatArray


def summarise(
    chunks: Iterable[Events],
    *,
    bunches: int = DEFAULT_BUNCHES,
    decide: Callable[[Events], Decisions] | None = None,
    menu_origin: str | None = None,
) -> EventsSummary:
    """Go through events once and count.

    Parameters
    ----------
    chunks : pieces of the same events; `n_events` of all of them together may be anything.
    bunches : colliding bunches; a crossing rate of ``bunches * 11245.6`` Hz.
    decide : menu decisions for a piece, instead of those in the data.
    menu_origin : what to call their origin.

    Raises
    ------
    LayoutError
        If pieces differ in layout, or there is none.
    """
    if bunches < 1:
        raise InputError("option", "bunches", bunches, "1 or more")
    totals: _Totals | None = None
    for events in chunks:
        if totals is None:
            totals = _Totals(events.layout)
        totals.add(events, decide(events) if decide is not None else None)
    if totals is None:
        raise LayoutError("summary", "events", "no pieces", "one at least")
    return totals.result(bunches, menu_origin)


class _Totals:
    """Running sums over pieces."""

    def __init__(self, layout: ObjectLayout) -> None:
        self.layout = layout
        self.n_events = 0
        self.weight = self.weight2 = 0.0
        sizes = [[word.code_max - word.code_min + 1 for word in words] for words in layout.words]
        self.codes = [[np.zeros(size) for size in row] for row in sizes]
        self.seen = [[np.zeros(size, dtype=bool) for size in row] for row in sizes]
        self.multiplicity = [np.zeros(group.count + 1) for group in layout.groups]
        self.group_saturated = np.zeros(len(layout.groups))
        self.slot_saturated = np.zeros(layout.n_objects)
        self.n_pv = np.zeros(200)
        self.columns: dict[str, list[float]] = {}
        self.seed_names: tuple[str, ...] | None = None
        self.seed_events = self.seed_weight = self.seed_weight2 = np.zeros(0)
        self.any_events, self.any_weight, self.any_weight2 = 0, 0.0, 0.0
        self.meta: list[Mapping[str, Any]] = []

    def add(self, events: Events, decisions: Decisions | None) -> None:
        if events.layout.name != self.layout.name:
            raise LayoutError("summary", "layout", events.layout.name, self.layout.name)
        weight = events.weight
        if len(weight) and weight.min() < 0:
            # An event stands for so many crossings: no rate or median has a meaning with less than none.
            where = ", ".join(events.meta.get("sources", ())) or "summary"
            raise InputError(where, "column weight", f"{weight.min():g}", "0 or more")
        self.meta.append(events.meta)
        self.n_events += len(events)
        self.weight += float(weight.sum())
        self.weight2 += float((weight**2).sum())
        filled = events.hw[:, :, 0] > 0
        saturated = events.layout.saturated(events.hw) & filled
        for slot, words in enumerate(self.layout.words):
            chosen = np.flatnonzero(filled[:, slot])
            for feature, word in enumerate(words):
                codes = events.hw[chosen, slot, feature].astype(np.int64) - word.code_min
                size = len(self.codes[slot][feature])
                self.codes[slot][feature] += np.bincount(codes, weights=weight[chosen], minlength=size)
                self.seen[slot][feature] |= np.bincount(codes, minlength=size) > 0
        self.slot_saturated += weight @ saturated
        for i, group in enumerate(self.layout.groups):
            rows = self.layout.slices[group.name]
            counts = filled[:, rows].sum(axis=1)
            self.multiplicity[i] += np.bincount(counts, weights=weight, minlength=group.count + 1)
            self.group_saturated[i] += float(weight @ saturated[:, rows].any(axis=1))
        if events.n_pv is not None:
            pile_up = np.clip(np.rint(events.n_pv), 0, len(self.n_pv) - 1).astype(np.int64)
            self.n_pv += np.bincount(pile_up, weights=weight, minlength=len(self.n_pv))
        for name, values in events.columns.items():
            if len(values):
                low, total, high = self.columns.setdefault(name, [math.inf, 0.0, -math.inf])
                total += float(weight @ values.astype(np.float64))
                self.columns[name] = [min(low, float(values.min())), total, max(high, float(values.max()))]
        self._add_menu(events, weight, decisions)

    def _add_menu(self, events: Events, weight: FloatArray, decisions: Decisions | None) -> None:
        bits = events.menu_bits if decisions is None else decisions.bits
        if self.seed_names is None:
            self.seed_names = bits.names
            self.seed_events, self.seed_weight, self.seed_weight2 = (np.zeros(len(bits)) for _ in range(3))
        elif bits.names != self.seed_names:
            raise LayoutError("summary", "menu bits", f"{len(bits)} seeds", f"the same {len(self.seed_names)}")
        if not bits.names or not len(events):
            return
        factors = np.ones(len(bits))
        if decisions is not None:
            factors = np.array([decisions.factors[name] for name in bits.names])
        # In pieces, since the decisions are unpacked to one number a seed.
        for start in range(0, len(events), 8192):
            part = slice(start, start + 8192)
            table = np.unpackbits(bits.packed[part], axis=1, count=len(bits), bitorder="little").astype(np.float32)
            self.seed_events += table.sum(axis=0, dtype=np.float64)
            self.seed_weight += (weight[part] @ table) * factors
            self.seed_weight2 += (weight[part] ** 2 @ table) * factors**2
        fired = bits.any_of().astype(np.float64) if decisions is None else decisions.any_chance
        self.any_events += int((fired > 0).sum())
        self.any_weight += float(weight @ fired)
        self.any_weight2 += float(weight**2 @ fired**2)

    def result(self, bunches: int, menu_origin: str | None) -> EventsSummary:
        norm = self.weight or 1.0
        khz = bunches * REVOLUTIONS_HZ / 1e3

        def rate(name: str, events: float, weight: float, weight2: float) -> SeedRate:
            return SeedRate(name, int(events), weight / norm, khz * weight / norm, khz * math.sqrt(weight2) / norm)

        names = self.seed_names or ()
        seeds = [
            rate(name, *numbers)
            for name, *numbers in zip(
                names, self.seed_events.tolist(), self.seed_weight.tolist(), self.seed_weight2.tolist()
            )
        ]
        any_seed = rate("any seed", self.any_events, self.any_weight, self.any_weight2) if names else None
        groups = tuple(
            GroupSummary(
                group.name,
                float(np.arange(group.count + 1) @ numbers) / norm,
                float(numbers[1:].sum()) / norm,
                float(saturated) / norm,
            )
            for group, numbers, saturated in zip(self.layout.groups, self.multiplicity, self.group_saturated)
        )
        metas = self.meta
        counts = add_counts(*(meta.get("counts", {}) for meta in metas))
        listed = {
            name: tuple(dict.fromkeys(str(text) for meta in metas for text in meta.get(name, ())))
            for name in ("sources", "notes")
        }
        origin = menu_origin or str(metas[0].get("menu_origin", "the data" if names else "none"))
        return EventsSummary(
            layout=self.layout.name,
            n_events=self.n_events,
            sum_weights=self.weight,
            effective_events=self.weight**2 / self.weight2 if self.weight2 else 0.0,
            saturation=str(metas[0].get("saturation", "keep")),
            counts=counts,
            sources=listed["sources"],
            notes=listed["notes"],
            groups=groups,
            slots=tuple(self._slot(slot, norm) for slot in range(self.layout.n_objects)),
            columns=tuple(
                ColumnSummary(name, low, total / norm, high) for name, (low, total, high) in self.columns.items()
            ),
            seeds=tuple(sorted(seeds, key=lambda seed: -seed.khz)),
            any_seed=any_seed,
            menu_origin=origin,
            bunches=bunches,
            histograms=Histograms(tuple(tuple(row) for row in self.codes), tuple(self.multiplicity), self.n_pv),
        )

    def _slot(self, slot: int, norm: float) -> SlotSummary:
        features = []
        for word, sums, seen in zip(self.layout.words[slot], self.codes[slot], self.seen[slot]):
            if not word.bits:
                continue
            there = np.flatnonzero(seen)
            if not len(there):
                features.append(FeatureSummary(word.name, word.unit, None, None, None, None, None))
                continue
            low, high = int(there[0]) + word.code_min, int(there[-1]) + word.code_min
            middle = weighted_median(np.arange(len(sums)) + word.code_min, sums)
            features.append(
                FeatureSummary(word.name, word.unit, low * word.lsb, middle * word.lsb, high * word.lsb, low, high)
            )
        occupancy = float(self.codes[slot][0].sum()) / norm
        return SlotSummary(
            self.layout.slot_names[slot], occupancy, float(self.slot_saturated[slot]) / norm, tuple(features)
        )


def weighted_median(values: npt.ArrayLike, weights: npt.ArrayLike) -> float:
    """Middle of ascending `values`: half of the weight below it and half above, the mean of two where it falls between.

    With unit weights this is `numpy.median`.

    >>> weighted_median([1, 2, 3, 10], [1, 1, 1, 1])
    2.5
    >>> weighted_median([1, 2, 3], [1, 1, 5])
    3.0
    """
    numbers, sums = np.asarray(values, dtype=np.float64), np.cumsum(np.asarray(weights, dtype=np.float64))
    half = sums[-1] / 2
    lower = int(np.searchsorted(sums, half, side="left"))
    upper = int(np.searchsorted(sums, half, side="right"))
    return float(numbers[lower] + numbers[min(upper, len(numbers) - 1)]) / 2


def format_summary(summary: EventsSummary, *, max_seeds: int = 30) -> str:
    """The summary as text, one line a slot and a seed."""
    lines = [
        f"{summary.n_events} events, layout {summary.layout}, saturated objects: {summary.saturation}",
        f"sum of weights {summary.sum_weights:.6g}, effective events {summary.effective_events:.6g}",
    ]
    if summary.sources:
        more = f" and {len(summary.sources) - 5} more" if len(summary.sources) > 5 else ""
        lines.append(f"from {', '.join(summary.sources[:5])}{more}")
    changed = [f"{name.replace('_', ' ')} {value}" for name, value in summary.counts.items() if value]
    lines.append(f"changed on reading: {', '.join(changed) or 'nothing'}")
    lines += [f"note: {note}" for note in summary.notes]
    lines += ["", f"{'object':8s} {'mean count':>11s} {'any':>9s} {'saturated':>10s}"]
    for group in summary.groups:
        lines.append(f"{group.name:8s} {group.mean_count:11.3f} {group.occupancy:9.4f} {group.saturated:10.2e}")
    if len(summary.slots) <= 64:
        heading = f"{'slot':8s} {'occupied':>9s} {'saturated':>10s}"
        lines += ["", f"{heading}   pt: low, median, high (GeV)   eta: low to high     phi: low to high (rad)"]
        lines += [_slot_line(slot) for slot in summary.slots]
    if summary.columns:
        lines += ["", f"{'column':14s} {'low':>14s} {'mean':>14s} {'high':>14s}"]
        lines += [f"{c.name:14s} {c.low:14.6g} {c.mean:14.6g} {c.high:14.6g}" for c in summary.columns]
    lines.append("")
    if summary.any_seed is None:
        lines.append("no menu bits")
        return "\n".join(lines)
    lines.append(
        f"menu rates at {summary.bunches} bunches, as if every event were zero bias ({len(summary.seeds)} seeds, "
        f"decisions from {summary.menu_origin})"
    )
    width = max(len(seed.name) for seed in (*summary.seeds[:max_seeds], summary.any_seed))
    for seed in (summary.any_seed, *summary.seeds[:max_seeds]):
        lines.append(f"{seed.name:{width}s} {seed.khz:12.3f} +- {seed.khz_error:8.3f} kHz {seed.events:10d} events")
    if len(summary.seeds) > max_seeds:
        lines.append(f"... and {len(summary.seeds) - max_seeds} seeds of lower rate (--json has all)")
    return "\n".join(lines)


def _slot_line(slot: SlotSummary) -> str:
    by_name = {feature.name: feature for feature in slot.features}
    text = f"{slot.name:8s} {slot.occupancy:9.4f} {slot.saturated:10.2e}"
    magnitude = slot.features[0]
    if magnitude.low is None or magnitude.median is None or magnitude.high is None:
        return f"{text}   always empty"
    text += f"   {magnitude.low:8.1f} {magnitude.median:9.2f} {magnitude.high:9.1f}  "
    for name in ("eta", "phi"):
        feature = by_name.get(name)
        if feature is None or feature.low is None or feature.high is None:
            text += f" {'':18s}"
        else:
            text += f" {feature.low:7.2f} to {feature.high:6.2f}  "
    return text.rstrip()


def plot_summary(summary: EventsSummary, layout: ObjectLayout, path: str | os.PathLike[str]) -> None:
    """Write a picture of the summary: spectra, angles, multiplicities, pile-up and the highest menu rates.

    Raises
    ------
    InputError
        If the file cannot be written or its suffix is none that matplotlib knows.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kind = os.path.splitext(os.fspath(path))[1].lstrip(".").lower()
    figure = Figure(figsize=(15, 8.5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    if kind not in canvas.get_supported_filetypes():
        raise InputError(os.fspath(path), "suffix", f".{kind}", ".png, .pdf or .svg")
    if not summary.sum_weights:
        figure.text(0.5, 0.5, "no events", ha="center", va="center", fontsize="xx-large")
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=110)
        return
    axes = figure.subplots(2, 3)
    colours = dict(zip((group.name for group in layout.groups), ("C0", "C1", "C2", "C3", "C4", "C5")))
    _plot_spectra(axes[0, 0], summary, layout, colours)
    _plot_angle(axes[0, 1], summary, layout, colours, "eta", r"pseudorapidity $\eta$", 0.174)
    _plot_angle(axes[0, 2], summary, layout, colours, "phi", r"azimuth $\varphi$ (rad)", 2 * math.pi / 36)
    _plot_multiplicity(axes[1, 0], summary, layout, colours)
    _plot_pile_up(axes[1, 1], summary)
    _plot_rates(axes[1, 2], summary)
    names = ", ".join(summary.sources[:3]) + (", ..." if len(summary.sources) > 3 else "")
    weighted = "" if math.isclose(summary.sum_weights, summary.n_events) else ", weighted"
    figure.suptitle(
        f"{summary.n_events:,} crossings, layout {summary.layout}{weighted}" + (f" ({names})" if names else "")
    )
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=110)


def _plot_spectra(axis: Any, summary: EventsSummary, layout: ObjectLayout, colours: Mapping[str, str]) -> None:
    for group in layout.groups:
        word = group.words[0]
        sums = summary.histograms.codes[layout.slices[group.name].start][0]
        # Edges between codes, so that no bin is narrower than a code.
        edges = np.unique(np.rint(np.geomspace(1, word.code_max + 1, 45))) - 0.5
        counts, _ = np.histogram(np.arange(len(sums)), bins=edges, weights=sums)
        density = counts / (np.diff(edges) * word.lsb) / summary.sum_weights
        label = group.name if group.count == 1 else f"leading {group.name}"
        axis.stairs(density, edges * word.lsb, color=colours.get(group.name), label=label, linewidth=1.5, baseline=None)
    unit = layout.groups[0].words[0].unit
    filled = any(patch.get_data().values.any() for patch in axis.patches)
    axis.set(
        xscale="log",
        yscale="log" if filled else "linear",
        xlabel=f"$p_T$ or $E_T$ ({unit})",
        ylabel=f"fraction of crossings per {unit}",
    )
    axis.legend(frameon=False)
    axis.set_title("spectrum of the leading object", fontsize="medium")


def _plot_angle(
    axis: Any,
    summary: EventsSummary,
    layout: ObjectLayout,
    colours: Mapping[str, str],
    name: str,
    label: str,
    width: float,
) -> None:
    drawn = False
    for group in layout.groups:
        found = [i for i, word in enumerate(group.words) if word.name == name and word.bits]
        if not found:
            continue
        word, rows = group.words[found[0]], layout.slices[group.name]
        sums = np.sum([summary.histograms.codes[slot][found[0]] for slot in range(rows.start, rows.stop)], axis=0)
        step = max(round(width / word.lsb), 1)
        edges = np.arange(word.code_min, word.code_max + step + 1, step) - 0.5
        counts, _ = np.histogram(np.arange(len(sums)) + word.code_min, bins=edges, weights=sums)
        density = counts / (step * word.lsb) / summary.sum_weights
        axis.stairs(
            density, edges * word.lsb, color=colours.get(group.name), label=group.name, linewidth=1.5, baseline=None
        )
        drawn = True
    per = "unit" if name == "eta" else "rad"
    axis.set(xlabel=label, ylabel=f"objects per crossing and {per}")
    if drawn:
        _room_for_legend(axis)
    axis.set_title("all objects" if drawn else f"the layout has no {name}", fontsize="medium")


def _room_for_legend(axis: Any) -> None:
    """Logarithmic, since muons are a hundred times rarer than jets, with a decade above the lines for the legend."""
    if axis.get_ylim()[1] > 0 and any(patch.get_data().values.any() for patch in axis.patches):
        axis.set_yscale("log")
        low, high = axis.get_ylim()
        axis.set_ylim(max(low, high * 1e-6), high * 10)
    axis.legend(frameon=False, ncols=4, loc="upper center", columnspacing=1.2, handlelength=1.4)


def _plot_multiplicity(axis: Any, summary: EventsSummary, layout: ObjectLayout, colours: Mapping[str, str]) -> None:
    for group, sums in zip(layout.groups, summary.histograms.multiplicity):
        fraction = sums / summary.sum_weights
        edges = np.arange(len(sums) + 1) - 0.5
        axis.stairs(fraction, edges, color=colours.get(group.name), label=group.name, linewidth=1.5, baseline=None)
    axis.set(xlabel="objects in a crossing", ylabel="fraction of crossings")
    _room_for_legend(axis)
    axis.set_title("how many slots are filled", fontsize="medium")


def _plot_pile_up(axis: Any, summary: EventsSummary) -> None:
    sums = summary.histograms.n_pv
    filled = np.flatnonzero(sums)
    if not len(filled):
        axis.set_axis_off()
        axis.text(0.5, 0.5, "no pile-up in the data", ha="center", va="center", transform=axis.transAxes)
        return
    axis.stairs(sums / summary.sum_weights, np.arange(len(sums) + 1) - 0.5, color="C7", fill=True)
    axis.set_xlim(max(filled[0] - 5, -0.5), filled[-1] + 5)
    axis.set(xlabel="primary vertices or average pile-up", ylabel="fraction of crossings")
    axis.set_title("pile-up (n_pv)", fontsize="medium")


def _plot_rates(axis: Any, summary: EventsSummary) -> None:
    fired = [seed for seed in summary.seeds if seed.khz > 0][:15]
    if summary.any_seed is None or not fired:
        axis.set_axis_off()
        text = "no menu bits in the data" if summary.any_seed is None else "no seed fired"
        axis.text(0.5, 0.5, text, ha="center", va="center", transform=axis.transAxes)
        return
    shown = [summary.any_seed, *fired]
    places = np.arange(len(shown))
    axis.barh(
        places,
        [seed.khz for seed in shown],
        xerr=[seed.khz_error for seed in shown],
        color=["C7", *["C0"] * len(fired)],
        ecolor="black",
        capsize=2,
    )
    names = [seed.name.removeprefix("L1_") for seed in shown]
    axis.set_yticks(places, [name if len(name) <= 26 else f"{name[:25]}…" for name in names], fontsize="small")
    axis.invert_yaxis()
    low = min(seed.khz for seed in shown)
    axis.set(xscale="log", xlabel=f"rate at {summary.bunches} bunches (kHz)")
    axis.set_xlim(left=low / 3)
    axis.set_title(f"highest menu rates ({len(summary.seeds)} seeds)", fontsize="medium")
