"""The figures for slides hold the data of the page's figures and are files that open."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from l1ad.report.figures import figure_of, single
from l1ad.report.plots import PALETTE, PLOTS, ZERO_BIAS_COLOUR, rate_plot
from l1ad.report.slides import save_figure, slide_of, slide_style, write_figures

NAMES = ["clusters", "efficiency", "history", "inputs", "latent", "rate", "roc", "score", "stability"]


def drawn_points(figure) -> dict[str, list[np.ndarray]]:
    """Points (n, 2) of every line and cloud of a matplotlib figure by its label."""
    found: dict[str, list[np.ndarray]] = {}
    for axes in figure.axes:
        for line in axes.lines:
            found.setdefault(line.get_label(), []).append(line.get_xydata())
        for cloud in axes.collections:
            found.setdefault(cloud.get_label(), []).append(np.asarray(cloud.get_offsets()))
        for bars in axes.containers:
            found.setdefault(bars.get_label(), []).append(bars.lines[0].get_xydata())
    return found


@pytest.mark.parametrize("make", PLOTS, ids=lambda make: make.__name__)
def test_both_renderings_show_the_same_numbers(reported, make):
    """Each curve that is drawn at first lies in the plotly figure and in the matplotlib figure with the same points."""
    plot = make(reported.content)
    with slide_style():
        drawn = drawn_points(slide_of(plot))
    traces = [trace for part in single(plot) for trace in figure_of(part).data if trace.name is not None]
    curves = [curve for panel in plot.panels for curve in panel.curves]
    assert len(curves) >= 1
    for curve, trace in zip(curves, traces, strict=True):
        expected = np.column_stack([curve.x, curve.y])
        assert trace.name == curve.name
        assert np.array_equal(np.column_stack([trace.x, trace.y]), expected, equal_nan=True)
        if curve.shown:
            assert any(
                points.shape == expected.shape and np.allclose(points, expected, rtol=0, atol=0, equal_nan=True)
                for points in drawn[curve.name]
            ), curve.name


def test_every_plot_and_event_is_written_as_png_and_pdf(reported, tmp_path):
    (tmp_path / "event_007.png").write_text("of an earlier run")
    (tmp_path / "mine.png").write_text("not ours")
    written = write_figures(reported.content, tmp_path)
    stems = [*NAMES, "event_001", "event_002"]
    assert sorted(p.name for p in written) == sorted(f"{s}.{x}" for s in stems for x in ("png", "pdf"))
    assert {p.name for p in tmp_path.iterdir()} == {*(p.name for p in written), "mine.png"}
    for path in written:
        if path.suffix == ".pdf":
            assert path.read_bytes().startswith(b"%PDF-")
            assert path.stat().st_size > 5000
        else:
            with Image.open(path) as picture:
                picture.load()
                assert min(picture.size) > 600
                # A picture of one colour would be an empty figure.
                assert len(set(picture.convert("L").resize((40, 40)).tobytes())) > 5


def test_the_same_content_gives_the_same_bytes(reported, tmp_path):
    for name in ("a", "b"):
        with slide_style():
            save_figure(slide_of(rate_plot(reported.content)), tmp_path / name)
    for suffix in ("png", "pdf"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_colours_differ_and_none_is_that_of_zero_bias():
    assert len({*PALETTE, ZERO_BIAS_COLOUR}) == len(PALETTE) + 1


def test_nothing_stays_set():
    import matplotlib

    before = dict(matplotlib.rcParams)
    with slide_style():
        assert dict(matplotlib.rcParams) != before
    assert dict(matplotlib.rcParams) == before
