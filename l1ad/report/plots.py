"""What each plot of a report shows: curves, axes and marks as plain data, drawn twice.

A function here takes the `Content` of a report and returns a `Plot`, or None if there is nothing to show;
`l1ad.report.figures` draws it for the page, `l1ad.report.slides` as PNG and PDF. The two therefore cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from l1ad.report.content import SCATTER_EVENTS, Content, Sample
from l1ad.scores import SCORE_LSB

FloatArray = npt.NDArray[np.float64]

#: Okabe and Ito's palette: apart for the colour blind, on white and on black.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#7B3294", "#B2182B")
ZERO_BIAS_COLOUR = "#7F7F7F"
#: Signals that are drawn at first where all of them would hide each other; the legend brings the others.
SHOWN_AT_FIRST = 3
#: Points of a curve that a screen can tell apart.
CURVE_POINTS = 400
#: Names of the groups of objects on axes.
GROUP_LABELS = {
    "met": "ETmiss",
    "eg": "leading e/gamma",
    "mu": "leading muon",
    "jet": "leading jet",
    "tau": "leading tau",
}


@dataclass(frozen=True)
class Axis:
    """An axis: its label with the unit in brackets, whether it is logarithmic, and its ends (None: from the data)."""

    label: str
    log: bool = False
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, eq=False)
class Curve:
    """One series.

    Attributes
    ----------
    x, y : (n,) values; NaN breaks a line.
    name : for the legend.
    colour : ``#rrggbb``.
    kind : ``line``, ``steps`` (y is constant around each x) or ``points``.
    dash : ``solid``, ``dash`` or ``dot``.
    band : lower and upper ends of an interval, (n,) each.
    error : (n,) half of a vertical error bar.
    filled : filled down to the axis.
    shown : drawn at first; a curve that is not can be switched on in the page and is left out of slides.
    right : belongs to the axis on the right.
    """

    x: FloatArray
    y: FloatArray
    name: str
    colour: str
    kind: Literal["line", "steps", "points"] = "line"
    dash: Literal["solid", "dash", "dot"] = "solid"
    band: tuple[FloatArray, FloatArray] | None = None
    error: FloatArray | None = None
    filled: bool = False
    shown: bool = True
    right: bool = False


@dataclass(frozen=True)
class Mark:
    """A thin line across the plot at a value of one axis, with its label."""

    axis: Literal["x", "y"]
    value: float
    label: str
    solid: bool = False


@dataclass(frozen=True, eq=False)
class Panel:
    """One pair of axes with what is in it; `right` is the axis of curves that say so."""

    x: Axis
    y: Axis
    curves: tuple[Curve, ...]
    marks: tuple[Mark, ...] = ()
    title: str = ""
    right: Axis | None = None


@dataclass(frozen=True, eq=False)
class Plot:
    """A plot of one or more panels with a common legend.

    Attributes
    ----------
    name : of its file.
    caption : one or two sentences.
    panels : in reading order, two a row if there are several.
    height : of a panel on the page, pixels.
    """

    name: str
    caption: str
    panels: tuple[Panel, ...]
    height: int = 420


def _samples(content: Content) -> list[tuple[Sample, str]]:
    """Zero bias and the signals with their colours."""
    colours = [ZERO_BIAS_COLOUR, *(PALETTE[i % len(PALETTE)] for i in range(len(content.signals)))]
    return list(zip((content.zero_bias, *content.signals), colours, strict=True))


def _targets(content: Content, axis: Literal["x", "y"], scale: float) -> tuple[Mark, ...]:
    """The target rates, multiplied by `scale`."""
    return tuple(Mark(axis, e["target_hz"] * scale, str(e["name"])) for e in content.thresholds["thresholds"])


def rate_plot(content: Content) -> Plot:
    """Rate against threshold with its 68 % band, and the target rates."""
    slider = content.slider
    curves = []
    for kind, colour in (("total", PALETTE[0]), ("pure", PALETTE[1])):
        if kind not in slider.rates:
            continue
        rate = slider.rates[kind]
        low, high = slider.intervals[kind]
        shown = (rate > 0) & (slider.thresholds > 0)
        # A band that reaches down to 0 would leave a logarithmic axis.
        floor = np.maximum(low[shown], rate[shown] * 1e-3)
        curves.append(
            Curve(
                slider.thresholds[shown].astype(np.float64),
                rate[shown] / 1e3,
                f"{kind} rate",
                colour,
                band=(floor / 1e3, high[shown] / 1e3),
            )
        )
    # Two decades below the lowest target are enough: what is beyond says nothing about a trigger.
    lowest = 1e-5 * min(float(e["target_hz"]) for e in content.thresholds["thresholds"])
    total = curves[0]
    inside = total.x[total.y >= lowest]
    left, right = (float(inside.min()), float(inside.max())) if len(inside) else (1.0, 10.0)
    x = Axis("threshold (integer, LSB 1/16)", log=True, low=0.8 * left, high=1.3 * right)
    y = Axis("rate [kHz]", log=True, low=lowest, high=2 * max(float(total.y.max(initial=0.0)), 10 * lowest))
    panel = Panel(x, y, tuple(curves), _targets(content, "y", 1e-3))
    return Plot("rate", "Rate of score ≥ threshold in zero bias, with its 68 % band; dotted: the targets.", (panel,))


def efficiency_plot(content: Content) -> Plot | None:
    """Efficiency of each signal against the total rate; None without signals."""
    if not content.signals:
        return None
    rates = content.slider.rates["total"]
    curves = []
    for sample, colour in _samples(content)[1:]:
        values = content.slider.efficiencies[sample.name]["total"]
        shown = (rates > 0) & (values > 0)
        curves.append(Curve(rates[shown] / 1e3, values[shown], sample.name, colour))
    x = Axis("total rate [kHz]", log=True, low=0.1, high=1e4)
    y = Axis("signal efficiency", log=True, low=1e-4, high=1.1)
    panel = Panel(x, y, tuple(curves), _targets(content, "x", 1e-3))
    return Plot("efficiency", "Signal efficiency against the total rate; dotted: the targets.", (panel,))


def roc_plot(content: Content) -> Plot | None:
    """ROC curves with marks at a false positive rate of 1e-5 and at the target rates; None without signals."""
    if not content.signals:
        return None
    curves = []
    for sample, colour in _samples(content)[1:]:
        fpr, tpr = content.roc[sample.name]
        keep = np.flatnonzero((np.diff(fpr, prepend=2.0) != 0) | (np.diff(tpr, prepend=2.0) != 0))
        keep = keep[(fpr[keep] > 0) & (tpr[keep] > 0)]
        if len(keep) > CURVE_POINTS:
            steps = np.searchsorted(-np.log(fpr[keep]), np.linspace(0, -np.log(fpr[keep[-1]]), CURVE_POINTS))
            keep = keep[np.unique(np.minimum(steps, len(keep) - 1))]
        curves.append(Curve(fpr[keep], tpr[keep], sample.name, colour))
    diagonal = np.geomspace(1e-7, 1, 20)
    curves.append(Curve(diagonal, diagonal, "no discrimination", ZERO_BIAS_COLOUR, dash="dash"))
    marks = (Mark("x", 1e-5, "FPR 1e-5", solid=True), *_targets(content, "x", 1 / content.crossing_hz))
    x = Axis("zero-bias efficiency (FPR)", log=True, low=3e-7, high=1.0)
    y = Axis("signal efficiency (TPR)", log=True, low=1e-4, high=1.1)
    caption = "ROC curves; dotted: the target rates; full line: a false positive rate of 1e-5."
    return Plot("roc", caption, (Panel(x, y, tuple(curves), marks),))


def score_plot(content: Content) -> Plot:
    """Distributions of the score, each normalised to 1; a score of 0 is in the first bin."""
    samples = _samples(content)
    largest = max(float(sample.scores.max(initial=1)) for sample, _ in samples) * SCORE_LSB
    edges = np.concatenate([[SCORE_LSB / 2], np.geomspace(SCORE_LSB * 1.5, max(largest, 1.0) * 1.1, 60)])
    centres = np.sqrt(edges[:-1] * edges[1:])
    curves = []
    for i, (sample, colour) in enumerate(samples):
        values = np.maximum(sample.scores * SCORE_LSB, edges[0] * 1.01)
        curves.append(Curve(centres, _share(values, edges, sample), sample.name, colour, kind="steps", filled=i == 0))
    marks = tuple(
        Mark("x", e["threshold"] * SCORE_LSB, str(e["name"]))
        for e in content.thresholds["thresholds"]
        if e["threshold"] > 0
    )
    panel = Panel(Axis("score", log=True), Axis("share of events per bin", log=True), tuple(curves), marks)
    caption = "Distributions of the score (0 is in the first bin); dotted: the thresholds."
    return Plot("score", caption, (panel,))


def _share(values: npt.NDArray[np.float64], edges: FloatArray, sample: Sample) -> FloatArray:
    """Share of the weights in each bin; NaN where there is none, which a logarithmic axis cannot show."""
    height, _ = np.histogram(values, edges, weights=sample.events.weight)
    height = height / max(float(sample.events.weight.sum()), 1e-300)
    return np.where(height > 0, height, np.nan)


def latent_plot(content: Content) -> Plot | None:
    """The latent vectors on the two axes along which zero bias spreads most; None without latents."""
    reference = content.zero_bias.latents
    if reference.shape[1] < 2:
        return None
    weight = content.zero_bias.events.weight
    mean = np.average(reference, axis=0, weights=weight)
    axes = np.linalg.eigh(np.cov(reference.T, aweights=weight))[1][:, ::-1][:, :2]
    curves = []
    for i, (sample, colour) in enumerate(_samples(content)):
        points = np.round((_thin(sample) - mean) @ axes, 3)
        shown = i <= SHOWN_AT_FIRST
        curves.append(Curve(points[:, 0], points[:, 1], sample.name, colour, kind="points", shown=shown))
    panel = Panel(Axis("first principal axis of zero bias"), Axis("second principal axis"), tuple(curves))
    caption = f"Latent vectors, at most {SCATTER_EVENTS} events of a kind, on the principal axes of zero bias."
    return Plot("latent", caption, (panel,), height=460)


def _thin(sample: Sample) -> FloatArray:
    """At most `SCATTER_EVENTS` latent vectors, drawn with the events' weights and a fixed seed."""
    n = len(sample.latents)
    if n <= SCATTER_EVENTS:
        return sample.latents
    p = sample.events.weight / sample.events.weight.sum()
    chosen = np.random.default_rng(1).choice(n, SCATTER_EVENTS, replace=True, p=p)
    return np.asarray(sample.latents[np.unique(chosen)])


def clusters_plot(content: Content) -> Plot | None:
    """The selected crossings by cluster on the axes along which they spread most; None without a catalogue."""
    found, latents = content.catalogue, content.zero_bias.latents
    if isinstance(found, str) or latents.shape[1] < 2:
        return None
    points = latents[found.index] - latents[found.index].mean(axis=0)
    points = np.round(points @ np.linalg.eigh(np.cov(points.T))[1][:, ::-1][:, :2], 3)
    curves = []
    colours = dict(zip([c.number for c in found.clusters if c.number >= 0], PALETTE))
    for cluster in sorted(found.clusters, key=lambda c: c.number >= 0):
        chosen = np.flatnonzero(found.labels == cluster.number)[:SCATTER_EVENTS]
        colour = colours.get(cluster.number, ZERO_BIAS_COLOUR)
        name = cluster_name(cluster.number)
        curves.append(Curve(points[chosen, 0], points[chosen, 1], name, colour, kind="points"))
    panel = Panel(Axis("first principal axis of selected crossings"), Axis("second principal axis"), tuple(curves))
    caption = (
        f"Latent vectors of the crossings at or above {found.threshold}, by cluster; at most {SCATTER_EVENTS} each."
    )
    return Plot("clusters", caption, (panel,), height=460)


def cluster_name(number: int) -> str:
    """What a cluster is called."""
    return "no cluster" if number < 0 else f"cluster {number}"


def inputs_plot(content: Content) -> Plot:
    """Leading momentum of each object type in zero bias and signals."""
    panels = []
    for group in content.trigger.layout.groups:
        word = group.words[0]
        highest = float(content.zero_bias.events.objects(group.name)[:, 0, 0].max(initial=1)) * word.lsb
        edges = np.linspace(0, max(highest, word.lsb * 10), 50)
        centres = 0.5 * (edges[1:] + edges[:-1])
        curves = []
        for i, (sample, colour) in enumerate(_samples(content)):
            values = np.asarray(sample.events.objects(group.name)[:, 0, 0] * word.lsb, dtype=np.float64)
            shown = i <= SHOWN_AT_FIRST
            height = _share(values, edges, sample)
            curves.append(Curve(centres, height, sample.name, colour, kind="steps", shown=shown))
        label = f"{GROUP_LABELS.get(group.name, group.name)} {word.name}"
        x = Axis(f"{label} [{word.unit}]" if word.unit else label)
        panels.append(Panel(x, Axis("share of events per bin", log=True), tuple(curves), title=label))
    return Plot("inputs", "Crossings without such an object are in the first bin.", tuple(panels), height=360)


def history_plot(content: Content) -> Plot | None:
    """Loss of training and validation, and the sparsity, by epoch; None without a history."""
    history = content.history
    losses = [name for name in ("loss", "val_loss") if name in history]
    if not losses:
        return None
    epochs = np.arange(1, len(history[losses[0]]) + 1, dtype=np.float64)
    curves = [
        Curve(epochs, history[name], "validation" if name == "val_loss" else "training", PALETTE[i])
        for i, name in enumerate(losses)
    ]
    right = None
    if "sparsity" in history:
        curves.append(Curve(epochs, history["sparsity"], "sparsity (right)", PALETTE[2], dash="dot", right=True))
        right = Axis("share of zero weights", low=0.0, high=1.0)
    return Plot("history", "Training.", (Panel(Axis("epoch"), Axis("loss"), tuple(curves), right=right),))


def stability_plot(content: Content, variable: str = "pileup") -> Plot | None:
    """Rate of each working point against pile-up; None if the data does not know it."""
    tables = content.thresholds.get("stability", {})
    scale = content.crossing_hz / 1e3
    curves = []
    for i, entry in enumerate(content.thresholds["thresholds"]):
        table = tables.get(entry["name"], {}).get(variable)
        if table is None:
            continue
        share, error = (np.array(table[key], dtype=np.float64) * scale for key in ("share", "share_error"))
        full = share > 0
        x = np.array(table["groups"], dtype=np.float64)[full]
        colour = PALETTE[i % len(PALETTE)]
        curves.append(Curve(x, share[full], entry["name"], colour, kind="points", error=error[full]))
    if not any(len(curve.x) for curve in curves):
        return None
    panel = Panel(Axis("pile-up (lower edge of the group)"), Axis("rate [kHz]", log=True), tuple(curves))
    caption = (
        "Rate of each working point against pile-up, neighbours joined; groups in which nothing fires are left out."
    )
    return Plot("stability", caption, (panel,), height=380)


#: Every plot of a report in the order in which it shows them.
PLOTS = (
    *(rate_plot, efficiency_plot, roc_plot, score_plot, stability_plot),
    *(latent_plot, history_plot, inputs_plot, clusters_plot),
)
