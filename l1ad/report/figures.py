"""The interactive figures of the page (plotly): each function takes the `Content` and returns one figure."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.report.content import SCATTER_EVENTS, Content, Sample
from l1ad.scores import SCORE_LSB

#: Okabe and Ito's palette: apart for the colour blind, on white and on black.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#7F7F7F", "#B2182B")
ZERO_BIAS_COLOUR = "#7F7F7F"


def _figure(x: str, y: str, *, log_x: bool = False, log_y: bool = False, height: int = 380) -> Any:
    import plotly.graph_objects as go

    figure = go.Figure()
    # Transparent, so that the page's own background shows in light and in dark mode.
    figure.update_layout(
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 64, "r": 16, "t": 24, "b": 52},
        height=height,
        legend={"orientation": "h", "yanchor": "top", "y": -0.2, "x": 0},
        font={"family": "system-ui, sans-serif", "size": 13},
        hovermode="closest",
    )
    grid = "rgba(128,128,128,0.25)"
    exponent = {"exponentformat": "power", "dtick": 1}
    figure.update_xaxes(title=x, gridcolor=grid, zeroline=False, showline=True, linecolor="gray", automargin=True)
    figure.update_yaxes(title=y, gridcolor=grid, zeroline=False, showline=True, linecolor="gray", automargin=True)
    if log_x:
        figure.update_xaxes(type="log", **exponent)
    if log_y:
        figure.update_yaxes(type="log", **exponent)
    return figure


def _mark(figure: Any, axis: str, value: float, label: str = "", *, log: bool, solid: bool = False) -> None:
    """A thin line at a value of one axis with its label; plotly wants the logarithm for labels but not for lines."""
    line = {"color": "gray", "width": 1, "dash": "solid" if solid else "dot"}
    at = float(np.log10(value)) if log else value
    style: dict[str, Any] = {"text": label, "showarrow": False, "font": {"size": 11}}
    if axis == "x":
        figure.add_shape(type="line", x0=value, x1=value, y0=0, y1=1, yref="paper", line=line)
        if label:
            figure.add_annotation(x=at, y=1, yref="paper", textangle=-90, xanchor="right", yanchor="top", **style)
    else:
        figure.add_shape(type="line", y0=value, y1=value, x0=0, x1=1, xref="paper", line=line)
        if label:
            figure.add_annotation(y=at, x=1, xref="paper", xanchor="right", yanchor="bottom", **style)


def rate_figure(content: Content) -> Any:
    """Rate against threshold with its 68 % band, and the working points."""
    figure = _figure("threshold (integer, LSB 1/16)", "rate [kHz]", log_x=True, log_y=True, height=420)
    slider = content.slider
    for kind, colour in (("total", PALETTE[0]), ("pure", PALETTE[1])):
        if kind not in slider.rates:
            continue
        low, high = slider.intervals[kind]
        shown = (slider.rates[kind] > 0) & (slider.thresholds > 0)
        x = slider.thresholds[shown]
        floor = np.maximum(low[shown], slider.rates[kind][shown] * 1e-3)
        figure.add_scatter(
            x=np.concatenate([x, x[::-1]]),
            y=np.concatenate([high[shown], floor[::-1]]) / 1e3,
            fill="toself",
            mode="lines",
            line={"width": 0},
            fillcolor=_faint(colour),
            hoverinfo="skip",
            showlegend=False,
        )
        figure.add_scatter(
            x=x,
            y=slider.rates[kind][shown] / 1e3,
            mode="lines",
            name=f"{kind} rate",
            line={"color": colour, "width": 2},
        )
    for entry in content.thresholds["thresholds"]:
        _mark(figure, "y", entry["target_hz"] / 1e3, entry["name"], log=True)
    return figure


def efficiency_figure(content: Content) -> Any:
    """Efficiency of each signal against the total rate."""
    figure = _figure("total rate [kHz]", "signal efficiency", log_x=True, log_y=True, height=420)
    rates = content.slider.rates["total"]
    for i, sample in enumerate(content.signals):
        values = content.slider.efficiencies[sample.name]["total"]
        shown = (rates > 0) & (values > 0)
        figure.add_scatter(
            x=rates[shown] / 1e3,
            y=values[shown],
            mode="lines",
            name=sample.name,
            line={"color": PALETTE[i % len(PALETTE)], "width": 2},
        )
    for entry in content.thresholds["thresholds"]:
        _mark(figure, "x", entry["target_hz"] / 1e3, entry["name"], log=True)
    figure.update_xaxes(range=[-1, 4])
    figure.update_yaxes(range=[-4, 0.05])
    return figure


def roc_figure(content: Content) -> Any:
    """ROC curves with marks at a false positive rate of 1e-5 and at the working points."""
    figure = _figure("zero-bias efficiency (FPR)", "signal efficiency (TPR)", log_x=True, log_y=True, height=420)
    for i, (name, (fpr, tpr)) in enumerate(content.roc.items()):
        # A point where anything changes is enough: 2^18 points are not.
        keep = np.flatnonzero((np.diff(fpr, prepend=2.0) != 0) | (np.diff(tpr, prepend=2.0) != 0))
        keep = keep[(fpr[keep] > 0) & (tpr[keep] > 0)]
        if len(keep) > 400:
            steps = np.searchsorted(-np.log(fpr[keep]), np.linspace(0, -np.log(fpr[keep[-1]]), 400))
            keep = keep[np.unique(np.minimum(steps, len(keep) - 1))]
        figure.add_scatter(
            x=fpr[keep], y=tpr[keep], mode="lines", name=name, line={"color": PALETTE[i % len(PALETTE)], "width": 2}
        )
    diagonal = np.geomspace(1e-7, 1, 20)
    figure.add_scatter(
        x=diagonal, y=diagonal, mode="lines", name="no discrimination", line={"color": "gray", "dash": "dash"}
    )
    _mark(figure, "x", 1e-5, "FPR 1e-5", log=True, solid=True)
    for entry in content.thresholds["thresholds"]:
        _mark(figure, "x", entry["target_hz"] / content.crossing_hz, entry["name"], log=True)
    figure.update_xaxes(range=[-6.5, 0])
    figure.update_yaxes(range=[-4, 0.05])
    return figure


def score_figure(content: Content) -> Any:
    """Distributions of the score, normalised to 1, on a logarithmic axis."""
    figure = _figure("score", "share of events per bin", log_x=True, log_y=True, height=420)
    largest = max(float(s.scores.max(initial=1)) for s in (content.zero_bias, *content.signals)) * SCORE_LSB
    edges = np.concatenate([[SCORE_LSB / 2], np.geomspace(SCORE_LSB * 1.5, max(largest, 1.0) * 1.1, 60)])
    centres = np.sqrt(edges[:-1] * edges[1:])
    for i, sample in enumerate((content.zero_bias, *content.signals)):
        values = np.maximum(sample.scores * SCORE_LSB, edges[0] * 1.01)
        height, _ = np.histogram(values, edges, weights=sample.events.weight)
        height = height / max(sample.events.weight.sum(), 1e-300)
        colour = ZERO_BIAS_COLOUR if i == 0 else PALETTE[(i - 1) % len(PALETTE)]
        line: dict[str, Any] = {"color": colour, "shape": "hvh", "width": 2}
        shown = np.where(height > 0, height, np.nan)
        figure.add_scatter(x=centres, y=shown, mode="lines", name=sample.name, line=line,
                           fill="tozeroy" if i == 0 else None, fillcolor=_faint(colour))  # fmt: skip
    for entry in content.thresholds["thresholds"]:
        if entry["threshold"] > 0:
            _mark(figure, "x", entry["threshold"] * SCORE_LSB, entry["name"], log=True)
    return figure


def latent_figure(content: Content) -> Any | None:
    """The latent vectors on the two axes along which zero bias spreads most; None without latents."""
    if content.zero_bias.latents.shape[1] < 2:
        return None
    reference = content.zero_bias.latents
    mean = np.average(reference, axis=0, weights=content.zero_bias.events.weight)
    covariance = np.cov(reference.T, aweights=content.zero_bias.events.weight)
    axes = np.linalg.eigh(covariance)[1][:, ::-1][:, :2]
    figure = _figure("first principal axis of zero bias", "second principal axis", height=460)
    for i, sample in enumerate((content.zero_bias, *content.signals)):
        points = (_thin(sample) - mean) @ axes
        colour = ZERO_BIAS_COLOUR if i == 0 else PALETTE[(i - 1) % len(PALETTE)]
        figure.add_scatter(
            x=np.round(points[:, 0], 3),
            y=np.round(points[:, 1], 3),
            mode="markers",
            name=sample.name,
            marker={"color": colour, "size": 4 if i else 3, "opacity": 0.6},
            visible=True if i < 4 else "legendonly",
        )
    return figure


def _thin(sample: Sample) -> npt.NDArray[np.float64]:
    """At most `SCATTER_EVENTS` latent vectors, drawn with the events' weights and a fixed seed."""
    n = len(sample.latents)
    if n <= SCATTER_EVENTS:
        return sample.latents
    p = sample.events.weight / sample.events.weight.sum()
    chosen = np.random.default_rng(1).choice(n, SCATTER_EVENTS, replace=True, p=p)
    return np.asarray(sample.latents[np.unique(chosen)])


def input_figure(content: Content) -> Any:
    """Leading pt of each object type in zero bias and signals."""
    from plotly.subplots import make_subplots

    groups = content.trigger.layout.groups
    columns = 2
    rows = -(-len(groups) // columns)
    titles = [f"{g.name} {g.words[0].name}" + (" (leading)" if g.count > 1 else "") for g in groups]
    figure = make_subplots(rows=rows, cols=columns, subplot_titles=titles, vertical_spacing=0.16)
    base = _figure("", "", height=300 * rows)
    figure.update_layout(base.layout)
    figure.update_layout(legend={"y": -0.08})
    for k, group in enumerate(groups):
        where = {"row": k // columns + 1, "col": k % columns + 1}
        lsb = group.words[0].lsb
        top = max(float(s.events.objects(group.name)[:, 0, 0].max(initial=1)) for s in (content.zero_bias,)) * lsb
        edges = np.linspace(0, max(top, lsb * 10), 50)
        for i, sample in enumerate((content.zero_bias, *content.signals)):
            values = sample.events.objects(group.name)[:, 0, 0] * lsb
            height, _ = np.histogram(values, edges, weights=sample.events.weight)
            height = height / max(sample.events.weight.sum(), 1e-300)
            colour = ZERO_BIAS_COLOUR if i == 0 else PALETTE[(i - 1) % len(PALETTE)]
            figure.add_scatter(
                x=0.5 * (edges[1:] + edges[:-1]), y=np.where(height > 0, height, np.nan), mode="lines",
                name=sample.name, legendgroup=sample.name, showlegend=k == 0,
                visible=True if i < 4 else "legendonly",
                line={"color": colour, "shape": "hvh", "width": 1.5}, **where,
            )  # fmt: skip
        figure.update_xaxes(title_text=f"{group.words[0].name} [{group.words[0].unit}]", **where)
        figure.update_yaxes(title_text="share per bin", type="log", exponentformat="power", dtick=1, **where)
    grid = "rgba(128,128,128,0.25)"
    figure.update_xaxes(gridcolor=grid, zeroline=False, showline=True, linecolor="gray")
    figure.update_yaxes(gridcolor=grid, zeroline=False, showline=True, linecolor="gray")
    return figure


def history_figure(content: Content) -> Any | None:
    """Loss of training and validation, and the sparsity, by epoch; None without a history."""
    history = content.history
    losses = [name for name in history if name == "loss" or name.startswith("val_loss")]
    if not losses:
        return None
    figure = _figure("epoch", "loss")
    epochs = np.arange(1, len(history[losses[0]]) + 1)
    for i, name in enumerate(losses):
        label = "validation" if name.startswith("val") else "training"
        figure.add_scatter(x=epochs, y=history[name], mode="lines", name=label, line={"color": PALETTE[i]})
    if "sparsity" in history:
        figure.add_scatter(
            x=epochs, y=history["sparsity"], mode="lines", name="sparsity (right axis)", yaxis="y2",
            line={"color": PALETTE[2], "dash": "dot"},
        )  # fmt: skip
        figure.update_layout(
            yaxis2={"title": "share of zero weights", "overlaying": "y", "side": "right", "range": [0, 1]},
            margin={"r": 64},
        )
    return figure


def stability_figure(content: Content, variable: str = "pileup") -> Any | None:
    """Rate of each working point against pile-up; None if the data does not know it."""
    tables = {
        name: table[variable] for name, table in content.thresholds.get("stability", {}).items() if variable in table
    }
    if not tables:
        return None
    figure = _figure("pile-up", "rate [kHz]", log_y=True)
    for i, (name, table) in enumerate(tables.items()):
        scale = content.crossing_hz / 1e3
        figure.add_scatter(
            x=table["groups"],
            y=np.array(table["share"]) * scale,
            mode="markers+lines",
            name=name,
            line={"color": PALETTE[i % len(PALETTE)]},
            error_y={"type": "data", "array": np.array(table["share_error"]) * scale},
        )
    return figure if figure.data else None


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.22)"
