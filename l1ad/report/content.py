"""What a report shows, gathered from a run folder: numbers only, no pictures.

Zero bias and signals are scored once more with the frozen trigger and put through the same classes that calibrated the
thresholds, so that the page and ``thresholds.json`` cannot disagree.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.baselines import BASELINES
from l1ad.errors import InputError, MissingToolError
from l1ad.events.store import Events
from l1ad.io import read_json
from l1ad.menu import Menu, add_decisions
from l1ad.rates.histogram import ScoreHistogram
from l1ad.rates.physics import Signal, roc_curve
from l1ad.rates.rates import BaseRate
from l1ad.rates.thresholds import ZeroBias, rate_curve
from l1ad.report.catalogue import Catalogue, catalogue
from l1ad.report.display import EventView, explain, most_anomalous, neighbours
from l1ad.trigger.nodes import Dense
from l1ad.trigger.program import Trigger
from l1ad.trigger.widths import WidthReport, prove

FloatArray = npt.NDArray[np.float64]

#: Thresholds on the slider besides the working points.
SLIDER_POINTS = 160
#: Events of a kind that are drawn as points.
SCATTER_EVENTS = 800


@dataclass(frozen=True, eq=False)
class Sample:
    """Events with what the trigger makes of them: scores (N,), latents (N, d) as numbers (d may be 0)."""

    name: str
    events: Events
    scores: npt.NDArray[np.int64]
    latents: FloatArray
    histogram: ScoreHistogram


@dataclass(frozen=True, eq=False)
class Slider:
    """Everything that moves with the threshold, at each of `thresholds`.

    `rates` are Hz by kind, `efficiencies` shares by signal and kind, `gains` by signal (NaN where the menu accepts
    nothing); `names` are the working points by their index in `thresholds`.
    """

    thresholds: npt.NDArray[np.int64]
    rates: Mapping[str, FloatArray]
    intervals: Mapping[str, tuple[FloatArray, FloatArray]]
    efficiencies: Mapping[str, Mapping[str, FloatArray]]
    gains: Mapping[str, FloatArray]
    names: Mapping[int, str]


@dataclass(frozen=True, eq=False)
class LayerRow:
    """One dense layer: shape, weights that are not zero, and the types in and around it."""

    name: str
    shape: tuple[int, int]
    nonzero: int
    weight_type: str
    bias_type: str
    accumulator: str
    output: str

    @property
    def sparsity(self) -> float:
        """Share of the weights that are zero."""
        return 1.0 - self.nonzero / (self.shape[0] * self.shape[1])


@dataclass(frozen=True, eq=False)
class Content:
    """All that the page shows; what a step has not made yet is None or empty.

    `catalogue` is the reason where there is none.
    """

    trigger: Trigger
    thresholds: dict[str, Any]
    zero_bias: Sample
    signals: tuple[Sample, ...]
    slider: Slider
    roc: Mapping[str, tuple[FloatArray, FloatArray]]
    baselines: Mapping[str, Mapping[str, FloatArray]]
    layers: tuple[LayerRow, ...]
    widths: WidthReport
    history: Mapping[str, FloatArray]
    validation: dict[str, Any] | None
    resources: Sequence[Mapping[str, Any]]
    displays: tuple[EventView, ...]
    catalogue: Catalogue | str
    crossing_hz: float


def score_sample(name: str, events: Events, trigger: Trigger, menu: Menu | None) -> Sample:
    """Score events and fill their histogram."""
    scores = trigger.score(events)
    latents = np.zeros((len(events), 0))
    if trigger.program.latents is not None:
        node = trigger.program.node(trigger.program.latents)
        latents = node.type.to_float(trigger.latents(events))
    histogram = ScoreHistogram(has_menu=menu is not None)
    if menu is None:
        histogram.fill(scores, events.weight, where=name)
    else:
        decision = menu.evaluate(events)
        histogram.fill(
            scores, events.weight, chance_none=decision.chance_none(), mean_share=decision.mean_share(), where=name
        )
    return Sample(name, events, scores, latents, histogram)


def gather(
    trigger: Trigger,
    thresholds: dict[str, Any],
    zero_bias: Events,
    signals: Mapping[str, Events],
    *,
    menu: Menu | None,
    run_dir: Path,
    displays: int = 12,
) -> Content:
    """Score the samples and collect what the steps of a run have left.

    Raises
    ------
    InputError
        If the thresholds belong to another trigger.
    """
    owner = thresholds["trigger"]["hash"]
    if owner != trigger.hash:
        raise InputError("thresholds.json", "trigger hash", owner[:12], f"{trigger.hash[:12]} of {trigger.name}")
    base = thresholds["base"]
    rate = BaseRate(base["crossing_hz"], base["luminosity_scale"])
    background = score_sample("zero bias", zero_bias, trigger, menu)
    scored = tuple(score_sample(name, events, trigger, menu) for name, events in signals.items())
    sample = ZeroBias(background.histogram, rate)
    signal_tails = {s.name: Signal(s.name, s.histogram) for s in scored}
    decided = zero_bias if menu is None else add_decisions(menu, zero_bias)[0]
    top = most_anomalous(trigger, zero_bias, displays)
    views = []
    for index in top:
        view = explain(trigger, decided, int(index))
        near = neighbours(trigger, zero_bias, int(index), zero_bias[:20_000], k=4)
        others = tuple(n for n in near if n[0] != int(index))[:3]
        views.append(EventView(view.index, view.score, view.objects, view.columns, view.fired, others))
    return Content(
        trigger,
        thresholds,
        background,
        scored,
        _slider(sample, signal_tails, thresholds, background.histogram.kinds),
        {name: roc_curve(signal, sample) for name, signal in signal_tails.items()},
        _baselines(zero_bias, signals, rate.hz),
        layer_rows(trigger),
        prove(trigger.program),
        read_history(run_dir / "history.csv"),
        read_json(run_dir / "validation.json") if (run_dir / "validation.json").exists() else None,
        read_json(resources) if (resources := run_dir / "firmware" / "alkaid" / "resources.json").exists() else [],
        tuple(views),
        _catalogue(trigger, decided, thresholds),
        rate.hz,
    )


def _catalogue(trigger: Trigger, events: Events, thresholds: dict[str, Any]) -> Catalogue | str:
    """Kinds of crossing above the loosest working point, or why there are none."""
    try:
        return catalogue(trigger, events, min(int(entry["threshold"]) for entry in thresholds["thresholds"]))
    except (MissingToolError, InputError) as error:
        return str(error)


def _slider(
    sample: ZeroBias, signals: Mapping[str, Signal], thresholds: dict[str, Any], kinds: Sequence[str]
) -> Slider:
    named = {int(entry["threshold"]): str(entry["name"]) for entry in thresholds["thresholds"]}
    curve = rate_curve(sample, "total", points=SLIDER_POINTS, must=tuple(named))
    grid = np.unique(np.concatenate([curve.threshold, np.array(list(named), dtype=np.int64)]))
    kinds = [kind for kind in ("total", "pure") if kind in kinds]
    estimates = {kind: [sample.rate_at(int(t), kind) for t in grid] for kind in kinds}
    gains = {}
    for name, signal in signals.items():
        values = [signal.gain(int(t)) if "pure" in kinds else None for t in grid]
        gains[name] = np.array([np.nan if v is None else v[0] for v in values])
    return Slider(
        grid,
        {kind: np.array([e.hz for e in rows]) for kind, rows in estimates.items()},
        {
            kind: (np.array([e.interval_68.low for e in rows]), np.array([e.interval_68.high for e in rows]))
            for kind, rows in estimates.items()
        },
        {
            name: {kind: np.array([signal.efficiency(int(t), kind).value for t in grid]) for kind in kinds}
            for name, signal in signals.items()
        },
        gains,
        {int(np.searchsorted(grid, value)): name for value, name in named.items()},
    )


def _baselines(
    zero_bias: Events, signals: Mapping[str, Events], crossing_hz: float
) -> dict[str, dict[str, FloatArray]]:
    """For each scalar and signal the efficiency at total rates of 1, 5 and 10 kHz."""
    result: dict[str, dict[str, FloatArray]] = {}
    names = {group.name for group in zero_bias.layout.groups}
    weight = zero_bias.weight / zero_bias.weight.sum()
    for name, function in BASELINES.items():
        if not {"jet", "met"} <= names:
            continue
        values = function(zero_bias)
        order = np.argsort(-values, kind="stable")
        above = np.cumsum(weight[order]) * crossing_hz
        result[name] = {}
        for signal, events in signals.items():
            own = function(events)
            row = []
            for target in (1e3, 5e3, 10e3):
                # The lowest cut whose rate, ties included, does not exceed the target.
                passing = values[order][: int(np.searchsorted(above, target, side="right"))]
                cut = np.inf
                if len(passing):
                    cut = float(passing[-1])
                    if weight[values >= cut].sum() * crossing_hz > target:
                        higher = values[values > cut]
                        cut = float(higher.min()) if len(higher) else np.inf
                row.append(float(np.average(own >= cut, weights=events.weight)))
            result[name][signal] = np.array(row)
    return result


def layer_rows(trigger: Trigger) -> tuple[LayerRow, ...]:
    """Size, sparsity and types of each dense layer that carries weights."""
    nodes = trigger.program.nodes
    rows = []
    for i, node in enumerate(nodes):
        if not isinstance(node, Dense) or node.weight_type.width < 2 or node.name == "sum":
            continue
        after = next((n for n in nodes[i + 1 :] if node.name in n.inputs), node)
        rows.append(
            LayerRow(
                node.name,
                (int(node.weights.shape[0]), int(node.weights.shape[1])),
                node.n_nonzero,
                str(node.weight_type),
                str(node.bias_type),
                str(node.type),
                str(after.type),
            )
        )
    return tuple(rows)


def read_history(path: Path) -> dict[str, FloatArray]:
    """Columns of the training history that are numbers, by name; empty without a file."""
    if not path.exists():
        return {}
    with open(path, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    result: dict[str, FloatArray] = {}
    for name in rows[0] if rows else ():
        try:
            result[name] = np.array([float(row[name]) if row[name] else np.nan for row in rows])
        except ValueError:
            continue
    return result
