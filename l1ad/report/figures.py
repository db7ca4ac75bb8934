"""Plots as interactive figures of the page (plotly)."""

from __future__ import annotations

from typing import Any

import numpy as np

from l1ad.report.plots import PALETTE, Axis, Curve, Mark, Plot

__all__ = ["PALETTE", "figure_of", "new_figure"]

_GRID = "rgba(128,128,128,0.25)"
_MODES = {"line": "lines", "steps": "lines", "points": "markers"}


def new_figure(height: int = 380, **layout: Any) -> Any:
    """An empty figure in the style of the page: transparent, so that light and dark both show through."""
    import plotly.graph_objects as go

    figure = go.Figure()
    figure.update_layout(
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 64, "r": 16, "t": 24, "b": 52},
        height=height,
        legend={
            "orientation": "h",
            "yref": "container",
            "yanchor": "bottom",
            "y": 0.0,
            "x": 0,
            "itemsizing": "constant",
        },
        font={"family": "system-ui, sans-serif", "size": 13},
        hovermode="closest",
        dragmode=False,
        **layout,
    )
    return figure


def figure_of(plot: Plot) -> Any:
    """The plotly figure of a plot with one panel.

    Raises
    ------
    ValueError
        If there are several panels: see `single`.
    """
    (panel,) = plot.panels
    figure = new_figure(plot.height)
    figure.update_xaxes(**_axis(panel.x))
    figure.update_yaxes(**_axis(panel.y))
    for curve in panel.curves:
        _add(figure, curve)
    for mark in panel.marks:
        _mark(figure, mark, log=(panel.x if mark.axis == "x" else panel.y).log)
    if panel.right is not None:
        # Ticks of its own, where plotly would put them beside those on the left.
        right = {"overlaying": "y", "side": "right", "showgrid": False, "tickmode": "auto", "nticks": 6}
        figure.update_layout(yaxis2={**_axis(panel.right), **right}, margin={"r": 64})
    return figure


def single(plot: Plot) -> list[Plot]:
    """A plot for each panel: on a page they stand side by side or, on a phone, below each other."""
    if len(plot.panels) == 1:
        return [plot]
    return [
        Plot(
            f"{plot.name}-{k}", f"{panel.title}. {plot.caption}" if panel.title else plot.caption, (panel,), plot.height
        )
        for k, panel in enumerate(plot.panels, start=1)
    ]


def _axis(axis: Axis) -> dict[str, Any]:
    style: dict[str, Any] = {
        "title": axis.label, "gridcolor": _GRID, "zeroline": False, "showline": True, "linecolor": "gray",
        "automargin": True,
    }  # fmt: skip
    if axis.log:
        # Over many decades the labels of all of them would stand on each other.
        decades = 0.0 if axis.low is None or axis.high is None else float(np.log10(axis.high / axis.low))
        style |= {"type": "log", "exponentformat": "power", "dtick": 1 + int(decades // 10)}
    if axis.low is not None and axis.high is not None:
        style["range"] = [float(np.log10(v)) if axis.log else v for v in (axis.low, axis.high)]
    return style


def _add(figure: Any, curve: Curve) -> None:
    if curve.band is not None:
        low, high = curve.band
        figure.add_scatter(
            x=np.concatenate([curve.x, curve.x[::-1]]), y=np.concatenate([high, low[::-1]]), fill="toself",
            mode="lines", line={"width": 0}, fillcolor=_faint(curve.colour), hoverinfo="skip", showlegend=False,
        )  # fmt: skip
    options: dict[str, Any] = {}
    if curve.kind == "points":
        few = curve.error is not None
        options["marker"] = {"color": curve.colour, "size": 7 if few else 4, "opacity": 1.0 if few else 0.6}
    else:
        options["line"] = {"color": curve.colour, "width": 2, "dash": curve.dash}
        if curve.kind == "steps":
            options["line"]["shape"] = "hvh"
    if curve.filled:
        options |= {"fill": "tozeroy", "fillcolor": _faint(curve.colour)}
    if curve.error is not None:
        options["error_y"] = {"type": "data", "array": curve.error, "thickness": 1.2, "width": 0}
    if curve.right:
        options["yaxis"] = "y2"
    figure.add_scatter(
        x=curve.x, y=curve.y, mode=_MODES[curve.kind], name=curve.name, showlegend=True,
        visible=True if curve.shown else "legendonly", **options,
    )  # fmt: skip


def _mark(figure: Any, mark: Mark, *, log: bool) -> None:
    """A thin line with its label; plotly wants the logarithm of a value for labels but not for lines."""
    line = {"color": "gray", "width": 1, "dash": "solid" if mark.solid else "dot"}
    at = float(np.log10(mark.value)) if log else mark.value
    style: dict[str, Any] = {"text": mark.label, "showarrow": False, "font": {"size": 11}}
    value = mark.value
    if mark.axis == "x":
        figure.add_shape(type="line", x0=value, x1=value, y0=0, y1=1, yref="paper", line=line)
        figure.add_annotation(x=at, y=0.02, yref="paper", textangle=-90, xanchor="right", yanchor="bottom", **style)
    else:
        figure.add_shape(type="line", y0=value, y1=value, x0=0, x1=1, xref="paper", line=line)
        figure.add_annotation(y=at, x=1, xref="paper", xanchor="right", yanchor="bottom", **style)


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.22)"
