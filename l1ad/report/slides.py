"""Plots as PNG and PDF for slides: matplotlib in the style of CMS figures (mplhep), with the data of the page.

`write_figures(content, folder)` writes all of them and the event displays.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from l1ad.io import atomic_path
from l1ad.report.content import Content
from l1ad.report.display import display_title, draw
from l1ad.report.plots import PLOTS, Axis, Curve, Mark, Panel, Plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Each figure is written as both: one for slides and pages, one for papers.
SUFFIXES = ("png", "pdf")
_DASHES = {"solid": "-", "dash": "--", "dot": ":"}
#: More entries than this go beside the plot.
_LEGEND_INSIDE = 4


@contextmanager
def slide_style() -> Iterator[None]:
    """mplhep's CMS style at the size of a figure that is put on half a slide; nothing stays set afterwards."""
    import matplotlib
    import mplhep

    style = {
        **mplhep.style.CMS,
        **{"font.size": 15, "axes.labelsize": 17, "xtick.labelsize": 14, "ytick.labelsize": 14, "legend.fontsize": 12},
        **{"figure.dpi": 100, "legend.frameon": False, "savefig.bbox": None},
    }
    with matplotlib.rc_context():
        matplotlib.rcParams.update({key: value for key, value in style.items() if key in matplotlib.rcParams})
        yield


def slide_of(plot: Plot, *, left: str = "", right: str = "") -> Figure:
    """The matplotlib figure of a plot, with texts above its corners; call it within `slide_style`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = plot.panels
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    names = list(dict.fromkeys(c.name for p in panels for c in p.curves if c.shown))
    beside = len(names) > _LEGEND_INSIDE
    size = (6.8 * columns + (2.4 if beside else 1.2), 5.4 * rows + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    for spare in grid.ravel()[len(panels) :]:
        spare.set_visible(False)
    for axes, panel in zip(grid.ravel(), panels):
        _draw(axes, panel)
    grid[0, 0].set_title(left, loc="left", fontsize=14, fontweight="bold")
    grid[0, -1].set_title(right, loc="right", fontsize=12)
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels()):
            handles.setdefault(label, handle)
    if len(handles) > 1:
        items = ([handles[n] for n in names], names)
        if beside or columns > 1:
            figure.legend(*items, loc="outside right upper", markerscale=3 if _dotted(panels) else 1)
        else:
            figure.axes[0].legend(*items, loc="best", markerscale=3 if _dotted(panels) else 1)
    return figure


def _dotted(panels: tuple[Panel, ...]) -> bool:
    """Whether the plot has clouds of small points, which a legend must enlarge."""
    return any(c.kind == "points" and c.error is None for p in panels for c in p.curves)


def _draw(axes: Any, panel: Panel) -> None:
    _scale(axes, "x", panel.x)
    _scale(axes, "y", panel.y)
    other = None
    if panel.right is not None:
        other = axes.twinx()
        _scale(other, "y", panel.right)
    for curve in panel.curves:
        if curve.shown:
            _curve(other if curve.right and other is not None else axes, curve)
    for k, mark in enumerate(panel.marks):
        # Two lines may be close: labels of neighbours stand side by side.
        _mark(axes, mark, 0.99 - 0.09 * (k % 2))


def _scale(axes: Any, which: str, axis: Axis) -> None:
    # The CMS style puts labels at the ends of the axes, where two panels' labels would meet.
    setter = axes.set_xlabel if which == "x" else axes.set_ylabel
    setter(axis.label, **{"loc": "center"})
    if axis.log:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    if axis.low is not None and axis.high is not None:
        (axes.set_xlim if which == "x" else axes.set_ylim)(axis.low, axis.high)


def _curve(axes: Any, curve: Curve) -> None:
    if curve.band is not None:
        axes.fill_between(curve.x, *curve.band, color=curve.colour, alpha=0.22, linewidth=0)
    if curve.error is not None:
        axes.errorbar(curve.x, curve.y, yerr=curve.error, fmt="o", ms=5, elinewidth=1.2, color=curve.colour,
                      label=curve.name)  # fmt: skip
        return
    if curve.kind == "points":
        axes.scatter(curve.x, curve.y, s=6, color=curve.colour, alpha=0.6, linewidths=0, label=curve.name)
        return
    if curve.kind == "steps":
        axes.plot(curve.x, curve.y, drawstyle="steps-mid", color=curve.colour, lw=1.8, label=curve.name)
        if curve.filled:
            floor = np.nanmin(curve.y) / 2 if np.isfinite(curve.y).any() else 0.0
            axes.fill_between(curve.x, floor, np.nan_to_num(curve.y, nan=floor), step="mid", color=curve.colour,
                              alpha=0.22, linewidth=0)  # fmt: skip
        return
    axes.plot(curve.x, curve.y, color=curve.colour, lw=1.8, linestyle=_DASHES[curve.dash], label=curve.name)


def _mark(axes: Any, mark: Mark, right: float) -> None:
    line = {"color": "0.45", "lw": 1, "ls": "-" if mark.solid else ":", "zorder": 1}
    text = {"textcoords": "offset points", "fontsize": 10, "color": "0.3"}
    if mark.axis == "x":
        axes.axvline(mark.value, **line)
        axes.annotate(mark.label, (mark.value, 0.02), xycoords=("data", "axes fraction"), xytext=(-2, 0), rotation=90,
                      ha="right", va="bottom", **text)  # fmt: skip
    else:
        axes.axhline(mark.value, **line)
        axes.annotate(mark.label, (right, mark.value), xycoords=("axes fraction", "data"), xytext=(0, 2), ha="right",
                      va="bottom", **text)  # fmt: skip


def write_figures(
    content: Content, folder: str | os.PathLike[str], *, note: Callable[[str], None] = lambda _: None
) -> tuple[Path, ...]:
    """Every plot and event display of a report as PNG and PDF; files of ours that are no longer made are removed.

    Returns
    -------
    The files, sorted by name. The same content gives the same bytes.

    Raises
    ------
    InputError
        If the folder cannot be written.
    """
    where = Path(folder)
    written: list[Path] = []
    left, right = content.trigger.name, f"zero bias at {content.crossing_hz / 1e6:.2f} MHz"
    with slide_style():
        for make in PLOTS:
            plot = make(content)
            if plot is not None:
                note(plot.name)
                written += save_figure(slide_of(plot, left=left, right=right), where / plot.name)
    for rank, view in enumerate(content.displays, start=1):
        note(f"event {rank}")
        written += save_figure(draw(view, title=display_title(view, rank)), where / event_name(rank))
    for old in {*where.glob("event_*.*"), *(where / f"{name}.{s}" for name in _names() for s in SUFFIXES)}:
        if old not in written:
            old.unlink(missing_ok=True)
    return tuple(sorted(written))


def _names() -> tuple[str, ...]:
    """Names of all plots that a report may have."""
    return tuple(make.__name__.removesuffix("_plot") for make in PLOTS)


def event_name(rank: int) -> str:
    """File name of the display of the crossing with the `rank`-th highest score."""
    return f"event_{rank:03d}"


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write ``stem.png`` and ``stem.pdf``."""
    paths = []
    for suffix in SUFFIXES:
        path = stem.with_name(f"{stem.name}.{suffix}")
        with atomic_path(path) as temporary:
            # Without a date the same figure gives the same file.
            metadata = {"CreationDate": None} if suffix == "pdf" else {}
            figure.savefig(temporary, format=suffix, dpi=150, metadata=metadata)
        # What has been laid out once need not be again.
        figure.set_layout_engine("none")
        paths.append(path)
    return paths
