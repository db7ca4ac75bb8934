"""The page of a dijet search, in the style of the trigger's: one HTML file, and its figures as PNG and PDF.

`plots_of(result)` is what is drawn, `render` the page, `write_search_report` writes both.
"""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad import __version__
from l1ad.io import write_text
from l1ad.report.page import Html, document, html_table, place_plots
from l1ad.report.plots import PALETTE, ZERO_BIAS_COLOUR, Axis, Curve, Mark, Panel, Plot
from l1ad.report.slides import SUFFIXES, save_figure, slide_of, slide_style
from l1ad.search import methods, outputs
from l1ad.search.dijet_search import Result
from l1ad.search.errors import FitError
from l1ad.search.stats import dijet, limits
from l1ad.search.stats.significance import p_from_z, z_from_p

FloatArray = npt.NDArray[np.float64]

#: Names of methods in words.
METHODS = {
    "cwola": "CWoLa hunting, each jet by itself",
    "cwola_pair": "CWoLa on the two jets together",
    "vae_qr": "jet autoencoder with quantile regression (VAE-QR)",
    "trigger": "the trigger's own score with quantile regression",
    "inclusive": "inclusive, no selection",
}
#: The same in a word.
_SHORT = {
    "cwola": "CWoLa",
    "cwola_pair": "CWoLa, both jets",
    "vae_qr": "VAE-QR",
    "trigger": "trigger score",
    "inclusive": "inclusive",
}
#: Names of all plots that a page may have.
PLOTS = ("fit", "pulls", "p_values", "limits", "flatness", "sic", "features")
#: Features with their units, for axes.
_LABELS = {"m": "jet mass [GeV]", "pt": "jet pt [GeV]", "m_sd": "soft-drop mass [GeV]", "msd": "soft-drop mass [GeV]"}


def plots_of(result: Result) -> dict[str, list[Plot]]:
    """Plots by section of the page."""
    out: dict[str, list[Plot | None]] = {
        "fit": [_fit_plot(result), _pull_plot(result)],
        "scan": [_scan_plot(result)],
        "limits": [_limit_plot(result)],
        "selection": [_flat_plot(result), _sic_plot(result)],
        "features": [_feature_plot(result)],
    }
    return {section: [p for p in plots if p is not None] for section, plots in out.items()}


def render(result: Result, *, sample: str) -> str:
    """The whole page as text; `sample` says where the events come from."""
    made: dict[str, Any] = {}
    placed = {section: place_plots(plots, made) for section, plots in plots_of(result).items()}
    window = result.config.mass_window
    sections = [
        ("result", "Result", _summary(result)),
        ("fit", "Background fit", placed["fit"] + _orders(result)),
        ("scan", "Local p-values", placed["scan"] + _points(result)),
        ("limits", "Limits", placed["limits"] + _limit_notes(result)),
        ("selection", "Selection", _selection(result) + placed["selection"]),
        ("features", "Selected events", placed["features"]),
        ("perturbation", "What the score depends on", _perturbation(result)),
        ("taggers", "Agreement of scores", _correlation(result)),
    ]
    name = html.escape(_SHORT[result.config.method])
    about = (
        f"Window {window.name}, {window.low:g} to {window.high:g} GeV, sidebands from {window.below:g} to "
        f"{window.above:g} GeV. {html.escape(_method(result))}. {html.escape(sample)} l1ad {__version__}."
    )
    return document(f"Dijet search: {name}", f"Dijet search: {name}", about, sections, {"figures": made})


def write_search_report(result: Result, folder: str | os.PathLike[str], *, sample: str = "") -> tuple[Path, ...]:
    """``report.html``, and every plot below ``figures/`` as PNG and PDF; returns their paths.

    A figure that an earlier search has left in the folder, and this one does not have, is removed.

    Raises
    ------
    InputError
        If the folder cannot be written.
    """
    base = Path(folder)
    write_text(base / "report.html", render(result, sample=sample))
    written = [base / "report.html"]
    right = f"window {result.config.mass_window.name}"
    with slide_style():
        for plots in plots_of(result).values():
            for plot in plots:
                written += save_figure(
                    slide_of(plot, left=_SHORT[result.config.method], right=right), base / "figures" / plot.name
                )
    possible = [base / "figures" / f"{name}.{suffix}" for name in PLOTS for suffix in SUFFIXES]
    outputs.remove(path for path in possible if path not in written)
    return tuple(written)


def _method(result: Result) -> str:
    """The method in words."""
    text = METHODS[result.config.method]
    if result.config.method == "cwola":
        both = {"max": "the larger of the two scores", "sum": "the sum of the two scores"}
        return f"{text}, {both[result.config.combine]}"
    return text


def _chi2_points(fit: dijet.BackgroundFit) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Masses, widths, observed and expected events of the chi2 bins.

    A wide bin's events do not lie around its middle: its point stands where the fitted density is the bin's mean
    (G. D. Lafferty and T. R. Wyatt, doi:10.1016/0168-9002(94)01112-5).
    """
    first = dijet.chi2_bins(fit.edges, fit.expected)
    ends = np.append(fit.edges[first], fit.edges[-1])
    observed, expected = np.add.reduceat(fit.counts, first), np.add.reduceat(fit.expected, first)
    width = np.diff(ends)
    at = []
    for low, high, mean in zip(ends[:-1], ends[1:], expected / width):
        inside = np.linspace(low, high, 200)
        at.append(float(inside[np.argmin(np.abs(fit.density(inside) - mean))]))
    return np.array(at), width, observed, expected


def _with_peak(result: Result, grid: FloatArray) -> FloatArray:
    """Events a GeV of the fit with the peak at its most significant mass: its background is lower than that of the fit
    without."""
    fit, shape = result.choice.fit, result.config.peak.at(result.mass)
    found = dijet.fit_peak(fit.counts, fit.edges, shape.probabilities(fit.edges), fit.order, background=fit)
    centre = 0.5 * (fit.edges[1:] + fit.edges[:-1])
    logarithm = np.log(np.maximum(found.background / np.diff(fit.edges), 1e-300))
    return np.asarray(np.exp(np.interp(grid, centre, logarithm)) + found.signal * shape.density(grid))


def _fit_plot(result: Result) -> Plot:
    fit = result.choice.fit
    at, width, observed, expected = _chi2_points(fit)
    filled = observed > 0
    grid = np.linspace(fit.edges[0], fit.edges[-1], 200)
    density = fit.density(grid)
    relative = np.minimum(fit.fractional_error(grid), 0.95)
    curves = [
        Curve(at[filled], (observed / width)[filled], "selected events", "#000000", "points",
              error=(np.sqrt(observed) / width)[filled]),
        Curve(grid, density, f"fit with {fit.order} parameters", PALETTE[0],
              band=(density * (1 - relative), density * (1 + relative))),
    ]  # fmt: skip
    if result.z_local > 0:
        label = f"fit with a peak at {result.mass:.0f} GeV"
        curves.append(Curve(grid, _with_peak(result, grid), label, PALETTE[1], dash="dash"))
    low = float(np.min((expected / width)[expected > 0])) / 5.0
    spectrum = Panel(
        Axis("dijet mass [GeV]"),
        Axis("events / GeV", log=True, low=low, high=3.0 * float(np.max(observed / width))),
        tuple(curves),
    )
    caption = (
        "Selected events in the published chi2 bins, each at the mass where the fitted density is the bin's mean, and "
        f"the background fit with its 68 % band; chi2/ndof = {fit.chi2:.1f}/{fit.ndof}."
    )
    return Plot("fit", caption, (spectrum,))


def _pull_plot(result: Result) -> Plot:
    fit, window = result.choice.fit, result.config.mass_window
    at, _, observed, expected = _chi2_points(fit)
    pull = (observed - expected) / np.sqrt(np.maximum(expected, 1e-9))
    reach = max(3.5, 1.2 + float(np.max(np.abs(pull))))
    pulls = Panel(
        Axis("dijet mass [GeV]"),
        Axis("(selected - fit) / sqrt(fit)", low=-reach, high=reach),
        (Curve(at, pull, "pull of the background fit", PALETTE[0], "points", error=np.ones_like(pull)),),
        (Mark("y", 0.0, "", solid=True), Mark("x", window.low, "window from"), Mark("x", window.high, "to")),
    )
    caption = "Difference of the selected events and the background fit in each chi2 bin, in standard deviations."
    return Plot("pulls", caption, (pulls,))


def _scan_plot(result: Result) -> Plot:
    p0 = result.scan.p0
    lowest = max(float(np.nanmin(p0)) / 100.0, 1e-300)
    # Where the axis is long, labels of all of them would stand on each other.
    highest = int(z_from_p(lowest))
    levels = range(1, highest + 1) if highest <= 6 else range(highest % 2 + 2, highest + 1, 2)
    marks = tuple(Mark("y", float(p_from_z(z)), f"{z} sigma") for z in levels)
    curve = Curve(result.scan.masses, p0, "local p-value", PALETTE[0])
    panel = Panel(Axis("resonance mass [GeV]"), Axis("local p-value", log=True, low=lowest, high=2.0), (curve,), marks)
    return Plot("p_values", "Local p-value at each tested mass; a mass without a point did not converge.", (panel,))


def _limit_plot(result: Result) -> Plot | None:
    pairs = [(m, v) for m, v in zip(result.scan.masses, result.upper) if isinstance(v, limits.Limit)]
    if not pairs:
        return None
    mass = np.array([m for m, _ in pairs])
    band = np.array([v.expected for _, v in pairs]).T
    curves = (
        Curve(mass, band[2], "expected, 95 % of experiments", PALETTE[4], dash="dot", band=(band[0], band[4])),
        Curve(mass, band[2], "expected, 68 % of experiments", PALETTE[2], dash="dash", band=(band[1], band[3])),
        Curve(mass, np.array([v.observed for _, v in pairs]), "observed", "#000000"),
    )
    top = 1.3 * float(max(band[4].max(), max(v.observed for _, v in pairs)))
    panel = Panel(Axis("resonance mass [GeV]"), Axis("limit on selected signal events", low=0.0, high=top), curves)
    level = 100.0 * pairs[0][1].level
    return Plot("limits", f"CLs upper limits at {level:g} % confidence on the selected signal events.", (panel,))


def _flat_plot(result: Result) -> Plot | None:
    flat = result.tagged.flat
    if flat is None:
        return None
    centre = 0.5 * (flat.edges[:-1] + flat.edges[1:])
    share = float(np.mean(flat.fraction))
    where = "outside of the window" if result.tagged.category is not None else "of the sidebands"
    panel = Panel(
        Axis("dijet mass [GeV]"),
        Axis("selected fraction", low=0.0, high=1.4 * float(np.max(flat.fraction + flat.error))),
        (Curve(centre, flat.fraction, f"events {where}", PALETTE[0], "points", error=flat.error),),
        (Mark("y", share, "mean", solid=True),),
    )
    caption = f"Selected fraction against the dijet mass {where}; probability that it is flat: {flat.p:.2g}."
    return Plot("flatness", caption, (panel,))


def _sic_plot(result: Result) -> Plot | None:
    if result.study is None or not result.study.sic:
        return None
    curves = []
    for i, (name, curve) in enumerate(result.study.sic.items()):
        keep = np.unique(np.searchsorted(curve.background_efficiency, np.geomspace(1e-5, 1.0, 300)))
        keep = keep[keep < curve.sic.size]
        x, y = curve.background_efficiency[keep], curve.sic[keep]
        curves.append(Curve(x, y, f"{_SHORT.get(name, name)} ({curve.maximum:.1f})", PALETTE[i % len(PALETTE)]))
    panel = Panel(Axis("background efficiency", log=True), Axis("significance improvement"), tuple(curves))
    caption = (
        "Signal efficiency over the square root of the background efficiency in the window, from the true labels; "
        "in brackets the maximum. Thresholds with fewer than 25 background events are left out."
    )
    return Plot("sic", caption, (panel,))


def _feature_plot(result: Result) -> Plot | None:
    if result.study is None or not result.study.features:
        return None
    panels = []
    for shape in result.study.features:
        centre = 0.5 * (shape.edges[:-1] + shape.edges[1:])
        panels.append(
            Panel(
                Axis(_LABELS.get(shape.name, shape.name)),
                Axis("share of jets", low=0.0, high=1.1 * float(max(shape.ordinary.max(), shape.anomalous.max()))),
                (
                    Curve(centre, shape.ordinary, "ordinary events", ZERO_BIAS_COLOUR, "steps", filled=True),
                    Curve(centre, shape.anomalous, "anomalous events", PALETTE[1], "steps"),
                ),
            )
        )
    caption = (
        f"Both jets of the {result.study.n_anomalous:,} selected and the {result.study.n_ordinary:,} other events of "
        "the window."
    )
    return Plot("features", caption, tuple(panels), height=300)


def _summary(result: Result) -> str:
    rows: list[Sequence[Any]] = [["selected events in the fit", f"{result.n_selected:,} of {result.n_events:,}"]]
    if result.badly_described:
        text = f"do not describe the spectrum: probability of the chi2 {result.described:.2g}"
        rows.append(["background and peak together", Html(f'<span class="bad">{text}</span>')])
    elif np.isfinite(result.described):
        rows.append(["background and peak together", f"probability of the chi2 {result.described:.2g}"])
    rows += [
        ["most significant mass", f"{result.mass:.0f} GeV"],
        ["local p-value", f"{result.p_local:.3g} ({result.z_local:.2f} sigma)"],
    ]
    if result.p_window is not None and result.p_global is not None:
        low, high = result.p_window.interval
        text = f"{result.p_window.p:.3g} ({low:.2g} to {high:.2g})" if result.p_window.p else f"none, below {high:.2g}"
        rows += [
            [f"p-value in the window: share of {result.p_window.n_toys} toys as significant", text],
            ["p-value in the window, extrapolated from a low level", f"{result.p_window_gross_vitells:.3g}"],
            [f"p-value in the search ({_windows(result)})", f"{result.p_global:.3g}"],
        ]
    proof = result.tagged.proof
    if proof is not None:
        text = f"{proof.n_events:,} events, {proof.n_models} models, {proof.n_comparisons:,} comparisons"
        rows.append(["no event scored by a model that saw it", Html(f'<span class="good">{text}</span>')])
    if result.scan.failed:
        text = ", ".join(f"{m:.0f}" for m in result.scan.failed) + " GeV"
        rows.append(["fits that did not converge", Html(f'<span class="bad">{text}</span>')])
    return html_table(["", ""], rows)


def _windows(result: Result) -> str:
    n = result.config.n_windows
    return f"{n} windows" if n > 1 else "this window alone"


def _orders(result: Result) -> str:
    rows = [
        [
            f"{k} parameters",
            f"{f.chi2:.1f} / {f.ndof}",
            f"{f.chi2_p:.2g}",
            "chosen" if k == result.choice.order else "",
        ]
        for k, f in result.choice.fits.items()
    ]
    rows += [[f"{k} parameters", reason, "", ""] for k, reason in result.choice.failed.items()]
    return html_table(["background function", "chi2 / ndof", "p", ""], rows)


def _points(result: Result) -> str:
    scan = result.scan
    rows = []
    for i, mass in enumerate(scan.masses):
        if np.isfinite(scan.p0[i]):
            fitted = f"{scan.signal[i]:.1f} ± {scan.signal_error[i]:.1f}"
            if not np.isfinite(scan.signal_error[i]):
                fitted = f"{scan.signal[i]:.1f}, the least that the empty bins allow"
            rows.append([f"{mass:.0f}", fitted, f"{scan.z[i]:.2f}", f"{scan.p0[i]:.3g}"])
        else:
            rows.append([f"{mass:.0f}", "did not converge", "", ""])
    return html_table(["mass [GeV]", "fitted signal events", "local significance", "local p-value"], rows)


def _limit_notes(result: Result) -> str:
    if not result.upper:
        return ""
    s = result.config.systematics
    unknown = "not known" if s is not None and s.background_function else ""
    rows = []
    for mass, found, feigned in zip(result.scan.masses, result.upper, result.spurious):
        extra = unknown if feigned is None else f"{feigned:.1f}"
        if isinstance(found, FitError):
            rows.append([f"{mass:.0f}", "did not converge", "", extra])
        else:
            spread = f"{found.expected[2]:.1f} ({found.expected[1]:.1f} to {found.expected[3]:.1f})"
            rows.append([f"{mass:.0f}", f"{found.observed:.1f}", spread, extra])
    text = "<p>No systematic uncertainties.</p>"
    if s is not None:
        text = (
            f"<p>With uncertainties of {100 * s.scale:g} % on the mass scale, {100 * s.resolution:g} % on the width, "
            f"{100 * s.luminosity:g} % on the luminosity"
            + (
                ", and the signal that the fit finds in a spectrum of the function with one more parameter (not known "
                "if there is none, or if its fit did not converge)."
                if s.background_function
                else "."
            )
            + "</p>"
        )
    return text + html_table(["mass [GeV]", "observed", "expected (68 %)", "spurious signal"], rows)


def _selection(result: Result) -> str:
    tagged = result.tagged
    if tagged.category is not None:
        names = ("90-100 % (ordinary)", "5-10 %", "1-5 %", "0-1 %")
        counts = np.bincount(tagged.category, minlength=len(names))
        rows = [[n, f"{c:,}", f"{100 * c / counts.sum():.2f} %"] for n, c in zip(names, counts)]
        return html_table(["category", "events", "share"], rows)
    if tagged.scores is None:
        return "<p>Every event of the signal region is used.</p>"
    fraction = methods.selected_fraction(result.config)
    return (
        f"<p>The {100 * fraction:g} % most anomalous events; the threshold is set in the sidebands, fold by fold.</p>"
    )


def _perturbation(result: Result) -> str:
    if result.study is None or not result.study.perturbation:
        return ""
    values = result.study.perturbation
    largest = max(values.values()) or 1.0
    rows = []
    for name, value in sorted(values.items(), key=lambda item: -item[1]):
        bar = f'<svg width="200" height="12" aria-hidden="true"><rect width="{200 * value / largest:.0f}" height="12" '
        rows.append([name, f"{value:.3f}", Html(bar + f'fill="{PALETTE[0]}"/></svg>')])
    text = (
        "<p>Mean change of the score of the 0.5 % most anomalous events when a feature is taken from another event "
        "(100 for each), on events that the model has not seen.</p>"
    )
    return text + html_table(["feature", "mean change", ""], rows)


def _correlation(result: Result) -> str:
    if result.study is None or len(result.study.taggers) < 2:
        return ""
    rows = []
    names = [_SHORT.get(name, name) for name in result.study.taggers]
    for i in range(len(names)):
        cells: list[Any] = [names[i]]
        for value in result.study.correlation[i]:
            colour = "0,114,178" if value >= 0 else "213,94,0"
            cells.append(
                Html(f'<span style="display:block;padding:0 .4rem;background:rgba({colour},{0.6 * abs(value):.2f})">'
                     f"{value:+.2f}</span>")
            )  # fmt: skip
        rows.append(cells)
    text = "<p>Spearman rank correlation in the window and its sidebands.</p>"
    return text + html_table(["", *names], rows)
