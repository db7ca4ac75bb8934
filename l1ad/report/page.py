"""The page of a run: one HTML file that needs no network.

`render(content)` makes the text, `write_report(content, path)` writes it. The figures for slides are written by
`l1ad.report.slides`.
"""

from __future__ import annotations

import base64
import html
import io
import itertools
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from l1ad import __version__
from l1ad.io import write_text
from l1ad.report import plots
from l1ad.report.content import Content
from l1ad.report.display import display_title, draw
from l1ad.report.figures import figure_of, single
from l1ad.report.plots import Plot
from l1ad.scores import SCORE_LSB

STATIC = Path(__file__).resolve().parent / "static"


def render(content: Content) -> str:
    """The whole page as text."""
    made: dict[str, Any] = {}

    def place(*makers: Callable[[Content], Plot | None]) -> str:
        return place_plots([plot for plot in (make(content) for make in makers) if plot is not None], made)

    sections = [
        ("working-points", "Working points", _working_points(content)),
        ("slider", "Move the threshold", _slider(content)),
        (
            "rates",
            "Rates and efficiencies",
            place(plots.rate_plot, plots.efficiency_plot, plots.roc_plot, plots.score_plot),
        ),
        ("signals", "Signals", _signals(content)),
        ("stability", "Stability", place(plots.stability_plot) + _drift(content)),
        ("inside", "Inside the network", place(plots.latent_plot, plots.history_plot) + _layers(content)),
        ("inputs", "Inputs", place(plots.inputs_plot)),
        ("proof", "Proof", _validation(content) + _widths(content)),
        ("resources", "Resources and latency", _resources(content)),
        ("kinds", "Kinds of selected crossings", place(plots.clusters_plot) + _kinds(content)),
        ("events", "The most anomalous crossings", _events(content)),
    ]
    trigger = content.trigger
    name = html.escape(trigger.name)
    sample = content.thresholds["sample"]
    about = f"""Score <b>{html.escape(trigger.kind)}</b> on {html.escape(trigger.layout.name)}
({trigger.layout.n_inputs} inputs), program <span class="mono">{trigger.hash[:16]}</span>.
Zero bias: {sample["events"]:,} events ({sample["effective_events"]:,.0f} effective)
at {content.crossing_hz / 1e6:.2f} MHz. l1ad {__version__}."""
    return document(
        f"{name}: trigger report", name, about, sections, {"figures": made, "slider": _slider_data(content)}
    )


def place_plots(chosen: Sequence[Plot], made: dict[str, Any]) -> str:
    """The places of plots in a page, two a row if there are several; their figures are added to `made`."""
    parts = []
    for plot in itertools.chain.from_iterable(map(single, chosen)):
        made[f"figure-{plot.name}"] = json.loads(figure_of(plot).to_json())
        caption = html.escape(plot.caption)
        # Room for a figure that is not drawn yet: the page does not move under the reader.
        place = f'<div id="figure-{plot.name}" style="min-height:{plot.height}px"></div>'
        parts.append(f"<figure>{place}<figcaption>{caption}</figcaption></figure>")
    return f'<div class="grid">{"".join(parts)}</div>' if len(parts) > 1 else "".join(parts)


def document(
    title: str, heading: str, about: str, sections: Sequence[tuple[str, str, str]], data: Mapping[str, Any]
) -> str:
    """A page that needs no network.

    Parameters
    ----------
    title, heading, about : of the page, HTML; `about` stands below the heading.
    sections : (anchor, title, HTML); those without a text are left out.
    data : what the page's script reads: ``figures`` by the identifier of their place.
    """
    from plotly.offline import get_plotlyjs

    shown = [(anchor, name, body) for anchor, name, body in sections if body]
    navigation = "".join(f'<a href="#{anchor}">{name}</a>' for anchor, name, _ in shown)
    body = "".join(f'<section id="{anchor}"><h2>{name}</h2>{text}</section>' for anchor, name, text in shown)
    content = json.dumps(data, allow_nan=False).replace("</", "<\\/")
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><title>{title}</title><style>{static_text("page.css")}</style></head><body>
<h1>{heading}</h1>
<p class="soft">{about}</p>
<nav>{navigation}</nav>{body}
<script>{get_plotlyjs()}</script>
<script id="data" type="application/json">{content}</script>
<script>{static_text("page.js")}</script></body></html>
"""


def static_text(name: str) -> str:
    """A file of the page's style or script."""
    return (STATIC / name).read_text(encoding="utf-8")


def html_table(head: Sequence[str], rows: Iterable[Sequence[Any]], *, attributes: Sequence[str] = ()) -> str:
    """An HTML table; cells are escaped unless they are `Html`."""
    top = "".join(f"<th>{html.escape(h)}</th>" for h in head)
    lines = []
    for i, row in enumerate(rows):
        cells = "".join(f"<td>{c if isinstance(c, Html) else html.escape(str(c))}</td>" for c in row)
        lines.append(f"<tr {attributes[i] if attributes else ''}>{cells}</tr>")
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def _khz(hz: float) -> str:
    return f"{hz / 1e3:.3g}"


def _working_points(content: Content) -> str:
    rows: list[list[Any]] = []
    for entry in content.thresholds["thresholds"]:
        title = [entry["name"], entry["threshold"], f"{entry['threshold'] * SCORE_LSB:g}"]
        for kind in ("total", "pure"):
            if kind not in entry["rates"]:
                continue
            rate = entry["rates"][kind]
            spans = [" to ".join(_khz(end) for end in rate[f"interval_{level}_hz"]) for level in (68, 95)]
            behind = f"{rate['events']} ({rate['effective_events']:.0f})"
            rows.append([*title, kind, _khz(rate["hz"]), *spans, behind])
            title = ["", "", ""]
    head = ["seed", "integer", "score", "rate", "kHz", "68 %", "95 %", "events (effective)"]
    kind = html.escape(str(content.thresholds["kind"]))
    menu = content.thresholds.get("menu")
    against = f" Pure of <b>{html.escape(str(menu['name']))}</b> ({_khz(menu['rate_hz'])} kHz)." if menu else ""
    notes = "".join(f"<li>{html.escape(str(note))}</li>" for note in content.thresholds.get("notes", []))
    text = f"<p>An event fires if score &ge; integer. Targets are of the {kind} rate.{against}</p>"
    return text + html_table(head, rows) + (f'<ul class="soft">{notes}</ul>' if notes else "")


def _slider_data(content: Content) -> dict[str, Any]:
    slider = content.slider

    def plain(values: Any) -> list[float | None]:
        return [float(f"{v:.6g}") if np.isfinite(v) else None for v in values]

    return {
        "thresholds": slider.thresholds.tolist(),
        "names": {str(i): name for i, name in slider.names.items()},
        "rates": {kind: plain(v) for kind, v in slider.rates.items()},
        "low": {kind: plain(v[0]) for kind, v in slider.intervals.items()},
        "high": {kind: plain(v[1]) for kind, v in slider.intervals.items()},
        "efficiencies": {s: {kind: plain(v) for kind, v in rows.items()} for s, rows in slider.efficiencies.items()},
        "gains": {s: plain(v) for s, v in slider.gains.items()},
    }


def _slider(content: Content) -> str:
    slider = content.slider
    start = min(slider.names, default=len(slider.thresholds) // 2)
    buttons = "".join(
        f'<button type="button" data-index="{i}">{html.escape(name)}</button>' for i, name in slider.names.items()
    )
    numbers = (
        '<div>threshold<b id="now-threshold"></b><span class="soft">score <span id="now-score"></span></span></div>'
    )
    for kind in slider.rates:
        numbers += f'<div>{kind} rate<b id="now-{kind}"></b><span class="soft" id="now-{kind}-interval"></span></div>'
    pure = "pure" in slider.rates
    head = ["signal", "efficiency"] + (["pure efficiency", "gain over the menu"] if pure else [])
    names = [s.name for s in content.signals]
    rows = [[name, ""] + (["", ""] if pure else []) for name in names]
    table = html_table(head, rows, attributes=[f'data-signal="{html.escape(name)}"' for name in names]) if names else ""
    return f"""<div class="slider"><div class="buttons">{buttons}<span class="soft" id="now-name"></span></div>
<input id="threshold" type="range" min="0" max="{len(slider.thresholds) - 1}" value="{start}" step="1"
aria-label="threshold"><div class="numbers">{numbers}</div>{table}</div>"""


def _signals(content: Content) -> str:
    if not content.signals:
        return ""
    points = content.thresholds["thresholds"]
    given = content.thresholds["signals"]
    head = ["signal", "events", "menu", *(e["name"] for e in points), "AUC", "TPR at FPR 1e-5"]
    rows = []
    for sample in content.signals:
        own = given.get(sample.name)
        if own is None:
            continue
        cells: list[Any] = [sample.name, own["events"]]
        cells.append("" if own["menu_efficiency"] is None else f"{100 * own['menu_efficiency']:.1f} %")
        for entry in points:
            value = own["thresholds"][entry["name"]]["total"]
            low, high = (100 * end for end in value["interval_68"])
            middle = 100 * value["value"]
            cells.append(f"{middle:.2f} +{high - middle:.2f} −{middle - low:.2f} %")
        cells += [f"{own['area_under_curve']:.4f}", f"{100 * own['at_fpr']['tpr']:.2f} %"]
        rows.append(cells)
    table = html_table(head, rows)
    scalars = _baselines(content)
    return "<p>Efficiency of score &ge; integer, with the ends of its 68 % interval.</p>" + table + scalars


def _baselines(content: Content) -> str:
    if not content.baselines:
        return ""
    rows = []
    for name, values in content.baselines.items():
        matrix = np.array(list(values.values()))
        if not matrix.size:
            continue
        cells = [f"{100 * np.mean(matrix[:, k]):.2f} / {100 * np.median(matrix[:, k]):.2f}" for k in range(3)]
        rows.append([name, *cells])
    if not rows:
        return ""
    own = []
    for target in (1e3, 5e3, 10e3):
        reach = np.flatnonzero(content.slider.rates["total"] <= target * (1 + 1e-9))
        found = [values["total"][reach[0]] for values in content.slider.efficiencies.values()] if len(reach) else []
        own.append(f"{100 * np.mean(found):.2f} / {100 * np.median(found):.2f}" if found else "")
    rows.insert(0, [Html(f"<b>{html.escape(content.trigger.name)}</b>"), *own])
    head = ["score", "1 kHz", "5 kHz", "10 kHz"]
    return "<p>Mean / median efficiency over the signals in %, total rate, beside simple scalars:</p>" + html_table(
        head, rows
    )


def _drift(content: Content) -> str:
    rows = []
    tables = content.thresholds.get("stability", {})
    for entry in content.thresholds["thresholds"]:
        for variable, value in tables.get(entry["name"], {}).items():
            test = value.get("test")
            if test:
                chi2 = f"{test['chi2']:.1f} / {test['ndf']}"
                cells = [chi2, f"{test['chi2_p_value']:.2g}", f"{test['cusum']:.2f}", f"{test['cusum_p_value']:.2g}"]
                rows.append([entry["name"], variable, test["groups"], *cells])
    head = ["seed", "against", "groups", "chi2 / ndf", "p", "CUSUM", "p"]
    text = "<p>Is the rate the same in all groups? Small p: no.</p>"
    return text + html_table(head, rows) if rows else ""


def _layers(content: Content) -> str:
    if not content.layers:
        return ""
    head = ["layer", "shape", "non-zero", "sparsity", "weights", "biases", "accumulator", "output"]
    rows = [
        [
            row.name,
            f"{row.shape[0]} x {row.shape[1]}",
            f"{row.nonzero} of {row.shape[0] * row.shape[1]}",
            f"{100 * row.sparsity:.1f} %",
            row.weight_type,
            row.bias_type,
            row.accumulator,
            row.output,
        ]
        for row in content.layers
    ]
    return html_table(head, rows)


def _widths(content: Content) -> str:
    report = content.widths
    state = (
        '<span class="good">No sum can overflow, whatever the input words.</span>'
        if report.proven
        else f'<span class="bad">{len(report.wraps)} nodes can wrap.</span>'
    )
    rows = [[r.node, r.op, r.type, f"{r.low:g} to {r.high:g}", r.verdict] for r in report.rows]
    detail = html_table(["node", "operation", "type", "exact values", "verdict"], rows)
    return f"<p>Interval proof: {state}</p><details><summary>every node</summary>{detail}</details>"


def _validation(content: Content) -> str:
    value = content.validation
    if value is None:
        return '<p class="soft">Not validated yet: <span class="mono">l1ad validate</span> fills this in.</p>'
    rows = []
    for row in value.get("realisations", []):
        mismatches = row.get("mismatches")
        verdict = row.get("reason", "not run") if mismatches is None else ("equal" if mismatches == 0 else "DIFFERENT")
        css = "good" if mismatches == 0 else "soft" if mismatches is None else "bad"
        events = f"{row['events']:,}" if row.get("events") is not None else ""
        shown = Html(f'<span class="{css}">{html.escape(verdict)}</span>')
        rows.append([row["name"], events, "" if mismatches is None else mismatches, shown])
    text = "<p>Every realisation against the golden integer program:</p>"
    text += html_table(["realisation", "events", "mismatches", "verdict"], rows)
    mutations = value.get("mutations")
    if mutations:
        text += _mutations(mutations)
    return text


def _mutations(value: Mapping[str, Any]) -> str:
    rows = value.get("rows", [])
    caught = sum(1 for row in rows if row.get("caught"))
    equivalent = sum(1 for row in rows if row.get("equivalent"))
    undecided = sum(1 for row in rows if row.get("undecided"))
    total = len(rows) - equivalent - undecided
    css = "good" if caught >= total else "bad"
    return (
        f'<p>The check itself: <span class="{css}">{caught} of {total} deliberate mutations caught</span>'
        f"{f', {equivalent} proven to change nothing' if equivalent else ''}"
        f"{f', {undecided} that no crossing known tells apart' if undecided else ''}.</p>"
    )


def is_placed(row: Mapping[str, Any]) -> bool:
    """Whether figures come from a vendor tool after place and route; anything that does not say so is an estimate."""
    return str(row.get("provenance", "")).lower().startswith(("placed", "after place and route"))


def _resources(content: Content) -> str:
    """Placed figures and estimates in tables of their own: the two are not comparable."""
    keys = ("name", "lut", "ff", "dsp", "bram", "latency", "ii", "provenance")
    head = ["source", "LUT", "FF", "DSP", "BRAM", "latency [clocks]", "II", "provenance"]
    parts = []
    for placed, title in ((True, "Placed"), (False, "Estimates, not placed")):
        chosen = [row for row in content.resources if is_placed(row) == placed]
        rows = [["" if row.get(key) is None else row[key] for key in keys] for row in chosen]
        if rows:
            parts.append(f"<h3>{title}</h3>{html_table(head, rows)}")
    if parts:
        parts.append(
            '<p class="soft">LUT counts of estimates, of HLS reports and of open synthesis are not to be compared with '
            "placed ones.</p>"
        )
    return "".join(parts)


def _kinds(content: Content) -> str:
    found = content.catalogue
    if isinstance(found, str):
        return f'<p class="soft">No catalogue: {html.escape(found)}</p>'
    types = list(found.clusters[0].occupancy) if found.clusters else []
    rows = []
    for c in found.clusters:
        apart = "; ".join(f"{name} {here:.3g} ({there:.3g})" for name, here, there, _ in c.distinguishing[:3])
        seeds = ", ".join(f"{name} {100 * share:.0f} %" for name, share in c.seeds) or "none"
        objects = [f"{c.occupancy[name]:.1f}" for name in types]
        rate = _khz(c.share * content.crossing_hz)
        score = f"{c.mean_score * SCORE_LSB:.4g}"
        rows.append([plots.cluster_name(c.number), c.size, rate, score, *objects, apart, seeds])
    head = ["kind", "crossings", "kHz", "mean score", *types, "what sets it apart: mean here (in zero bias)", "seeds"]
    where = "latent space" if found.space == "latent" else "scaled inputs"
    return (
        f"<p>Crossings at or above {found.threshold}, clustered in the {where} (HDBSCAN); columns of objects: mean "
        "number a crossing. The table of all of them is catalogue.parquet.</p>" + html_table(head, rows)
    )


def _events(content: Content) -> str:
    if not content.displays:
        return ""
    parts = []
    for rank, view in enumerate(content.displays, start=1):
        buffer = io.BytesIO()
        draw(view, title=display_title(view, rank)).savefig(buffer, format="png", dpi=72)
        picture = base64.b64encode(buffer.getvalue()).decode()
        near = ", ".join(f"{score * SCORE_LSB:g} (distance {d:.2f})" for _, score, d in view.neighbours)
        fired = ", ".join(view.fired) or "none"
        caption = f"Seeds that fired: {fired}. Scores of the zero-bias crossings nearest in the scaled inputs: {near}."
        alternative = f"event display of crossing {view.index}"
        parts.append(
            f'<figure class="event"><img loading="lazy" alt="{alternative}" src="data:image/png;base64,{picture}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )
    return "".join(parts)


def write_report(content: Content, path: str | os.PathLike[str]) -> None:
    """Write the page.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    write_text(path, render(content))
