"""Plots of a calibration: rate against threshold, efficiency against rate, stability against pile-up.

Each function takes results and a path, writes one picture and keeps no state: figures are made without pyplot, so that
nothing stays open and no display is needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from l1ad.io import atomic_path
from l1ad.rates.calibrate import Calibration
from l1ad.rates.stability import DriftTest, Stability
from l1ad.rates.thresholds import RateCurve, Threshold

#: Colours that people with a colour vision deficiency can tell apart (Petroff, arXiv:2107.02270, ten colours).
COLOURS = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"),
)
_AXES = {"total": "total rate", "pure": "pure rate", "proportional": "proportional rate"}


@contextmanager
def _figure(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Axes of a new figure, written to `path` when the block ends."""
    import matplotlib
    import mplhep
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style = {**mplhep.style.CMS, "font.size": 15, "axes.labelsize": 17, "legend.fontsize": 12, "figure.dpi": 100}
    with matplotlib.rc_context():
        matplotlib.rcParams.update({key: value for key, value in style.items() if key in matplotlib.rcParams})
        figure = Figure(figsize=(8.5, 6.0), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        yield axes
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=Path(path).suffix.lstrip(".") or "png", dpi=110)


def plot_rates(curves: Mapping[str, RateCurve], thresholds: Sequence[Threshold], path: str | os.PathLike[str]) -> None:
    """Rate against threshold with its 68 % band, the targets as lines and the thresholds as points."""
    with _figure(path) as axes:
        for colour, (kind, curve) in zip(COLOURS, curves.items()):
            shown = curve.hz > 0
            x = curve.threshold[shown]
            axes.fill_between(x, curve.low_hz[shown] / 1e3, curve.high_hz[shown] / 1e3, color=colour, alpha=0.25, lw=0)
            axes.plot(x, curve.hz[shown] / 1e3, color=colour, label=f"{_AXES[kind]}, 68 % band")
        for item in thresholds:
            axes.axhline(item.target_hz / 1e3, color="0.5", lw=1, ls="--")
            axes.annotate(
                f"{item.name}: {item.kind} rate at {item.threshold} and above",
                (1.0, item.target_hz / 1e3),
                xycoords=("axes fraction", "data"),
                xytext=(-4, 2),
                textcoords="offset points",
                ha="right",
                va="bottom",
                fontsize=11,
            )
            axes.plot([item.threshold], [item.rate.hz / 1e3], "o", color="black", ms=5, zorder=5)
        axes.set_yscale("log")
        # Two decades below the lowest target are enough: the last events of a long tail say nothing about it.
        floor = 0.05 * min(item.target_hz for item in thresholds)
        highest = max(float(curve.hz.max()) for curve in curves.values())
        axes.set_ylim(floor / 1e3, 4.0 * highest / 1e3)
        # As far as the kind of rate that was asked for goes: another one's long tail would push it into a corner.
        asked = {str(item.kind) for item in thresholds}
        last = max(
            int(curve.threshold[curve.hz > floor].max(initial=1)) for curve in curves.values() if curve.kind in asked
        )
        axes.set_xlim(0, 1.35 * max([last, *(item.threshold for item in thresholds)]))
        axes.set_xlabel("threshold (integer, LSB 1/16)")
        axes.set_ylabel("rate (kHz)")
        axes.legend(loc="upper center", frameon=False)


def plot_efficiencies(
    signals: Mapping[str, Mapping[str, Any]], path: str | os.PathLike[str], *, kind: str = "total"
) -> None:
    """Efficiency of each signal against the rate, and the points of the thresholds with their 68 % intervals.

    `signals` are the entries of ``signals`` in ``thresholds.json``.
    """
    with _figure(path) as axes:
        axis_kind = ""
        drawn: list[tuple[Any, Any]] = []
        for colour, (name, content) in zip(COLOURS * (1 + len(signals) // len(COLOURS)), signals.items()):
            curve = content["efficiency_curve"]
            axis_kind = curve["kind"]
            rate, efficiency = np.array(curve["rate_hz"]) / 1e3, np.array(curve["efficiency"][kind]) * 100
            shown = (rate > 0) & (efficiency > 0)
            axes.plot(rate[shown], efficiency[shown], color=colour, label=name)
            if shown.any():
                drawn.append((rate[shown], efficiency[shown]))
            for point, entries in content["thresholds"].items():
                entry = entries[kind]
                at = curve["thresholds_hz"][point] / 1e3
                if at <= 0 or entry["value"] <= 0:
                    continue
                low, high = (100 * end for end in entry["interval_68"])
                value = 100 * entry["value"]
                axes.errorbar(
                    [at], [value], yerr=[[max(value - low, 0)], [max(high - value, 0)]], fmt="o", ms=4, color=colour
                )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(0.05, 300)
        for point, hz in _targets(signals).items():
            axes.axvline(hz / 1e3, color="0.7", lw=1, ls="--", zorder=0)
            axes.annotate(
                point, (hz / 1e3, 0.0), xycoords=("data", "axes fraction"), xytext=(3, 6),
                textcoords="offset points", ha="left", va="bottom", rotation=90, fontsize=10, color="0.4",
            )  # fmt: skip
        seen = [np.interp(-0.05, -x, y) for x, y in drawn]
        axes.set_ylim(0.5 * max(min(seen, default=1.0), 1e-3), 130)
        axes.set_xlabel(f"{_AXES.get(axis_kind, 'rate')} (kHz)")
        axes.set_ylabel("efficiency (%)" if kind == "total" else f"{kind} efficiency (%)")
        # Beside the axes: curves reach every corner of them.
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)


def _targets(signals: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Rate of each working point by its name, Hz."""
    return {
        str(point): float(hz)
        for content in signals.values()
        for point, hz in content["efficiency_curve"]["thresholds_hz"].items()
        if hz > 0
    }


def plot_stability(
    table: Stability,
    test: DriftTest | None,
    hz: float,
    path: str | os.PathLike[str],
    *,
    title: str = "",
    max_groups: int = 40,
) -> None:
    """Rate in groups of events, with the common rate and the tests of its constancy.

    Parameters
    ----------
    hz : base rate, Hz.
    max_groups : neighbouring groups are joined to about this many points.
    """
    with _figure(path) as axes:
        groups = table.joined(max_groups=max_groups)
        full = groups.all_w > 0
        rate = groups.tail_w[full] / groups.all_w[full] * hz / 1e3
        # A group in which nothing passes still has the error of one event.
        unit = float(table.tail_w2.sum() / table.tail_w.sum()) if table.tail_w.any() else 1.0
        error = np.sqrt(np.maximum(groups.tail_w2[full], unit**2)) / groups.all_w[full] * hz / 1e3
        first = groups.keys.astype(np.float64)
        last = np.append(first[1:] - 1.0, float(table.keys[-1]))
        if table.variable not in ("pileup", "bx"):
            first = last = np.arange(len(groups.keys), dtype=np.float64)
        x, half = 0.5 * (first + last)[full], 0.5 * (last - first)[full]
        common = table.fraction * hz / 1e3
        axes.axhline(common, color="0.5", lw=1, ls="--")
        axes.errorbar(x, rate, yerr=error, xerr=half, fmt="o", ms=5, color=COLOURS[0])
        text = f"mean {common:.3g} kHz"
        if test is not None:
            text += (
                f"\n$\\chi^2$/ndf = {test.chi2:.1f}/{test.ndf}, p = {test.chi2_p_value:.2g}"
                f"\nCUSUM {test.cusum:.2f}, p = {test.cusum_p_value:.2g}"
            )
        axes.text(0.02, 0.97, text, transform=axes.transAxes, va="top", fontsize=13)
        axes.set_ylim(0, 1.45 * max(float((rate + error).max()), 1e-9))
        axes.set_xlabel(_GROUPS[table.variable])
        axes.set_ylabel("rate (kHz)")
        axes.set_title(title, fontsize=14, loc="left")


_GROUPS = {
    "pileup": "pile-up (neighbours joined)",
    "run": "run (in order)",
    "lumi": "group of lumi sections (in order)",
    "bx": "bunch position (neighbours joined)",
}


def write_plots(calibration: Calibration, folder: str | os.PathLike[str]) -> list[Path]:
    """All plots of a calibration: ``rates.png``, ``efficiencies.png`` and ``stability_NAME_VARIABLE.png``."""
    folder = Path(folder)
    written = [folder / "rates.png"]
    plot_rates(calibration.curves, calibration.thresholds, written[0])
    if calibration.signals:
        content = {name: result.content for name, result in calibration.signals.items()}
        written.append(folder / "efficiencies.png")
        plot_efficiencies(content, written[-1])
        if calibration.zero_bias.histogram.has_menu:
            written.append(folder / "efficiencies_pure.png")
            plot_efficiencies(content, written[-1], kind="pure")
    for item in calibration.thresholds:
        for variable, table in calibration.stability[item.name].items():
            written.append(folder / f"stability_{item.name}_{variable}.png")
            plot_stability(
                table,
                calibration.drift[item.name].get(variable),
                calibration.zero_bias.base.hz,
                written[-1],
                title=f"{item.name}: {item.kind} rate at threshold {item.threshold}",
            )
    return written
