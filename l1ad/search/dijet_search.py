"""A whole dijet search: score, select, fit, scan, limits, and the files that say what came out.

`SearchConfig` is the YAML file, `search` runs it on events in memory, `write` stores the result in a folder:
``results.json``, ``workspace.json`` (HistFactory, pyhf reads it), ``hepdata/`` (YAML tables), ``fit.png`` and
``scan.png``.

The events that define window and sidebands train the scores (k-fold, proved without leak); the threshold of the
selection comes from the sidebands alone, so that a signal cannot raise it; the fit goes over the whole spectrum.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from l1ad.configs import check_config, read_yaml
from l1ad.errors import InputError
from l1ad.io import atomic_path, write_json, write_text
from l1ad.search import folds, metrics, weak
from l1ad.search.errors import FitError
from l1ad.search.jets import WINDOWS, Dijets
from l1ad.search.stats import dijet, limits, lookelsewhere
from l1ad.search.stats.crystal_ball import CrystalBall
from l1ad.search.stats.significance import p_from_z

FloatArray = npt.NDArray[np.float64]
FORMAT_VERSION = 1

#: Level in sigma whose upcrossings are counted for the extrapolation of the global p-value.
_REFERENCE_Z = 0.5


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TreesSection(Section):
    """Ensemble of gradient-boosted trees; see `l1ad.search.weak.Trees`."""

    members: Annotated[int, Field(ge=1)] = 5
    max_iterations: Annotated[int, Field(ge=1)] = 100
    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    max_leaf_nodes: Annotated[int, Field(ge=2)] = 31
    min_samples_leaf: Annotated[int, Field(ge=1)] = 20


class FoldSection(Section):
    """Numbers of folds."""

    outer: Annotated[int, Field(ge=2)] = 5
    inner: Annotated[int, Field(ge=2)] = 4


class FitSection(Section):
    """Range in GeV, bin width, and which numbers of shape parameters the F-test chooses from."""

    low: Annotated[float, Field(gt=0)] = 1460.0
    high: Annotated[float, Field(gt=0)] = 6800.0
    bin_width: Annotated[float, Field(gt=0)] = dijet.BIN_WIDTH
    orders: list[int] = [2, 3, 4]


class PeakSection(Section):
    """Shape of the resonance, in units of its mass: a double-sided Crystal Ball."""

    mean: Annotated[float, Field(gt=0)] = 0.99
    sigma: Annotated[float, Field(gt=0)] = 0.035
    alpha_low: Annotated[float, Field(gt=0)] = 1.2
    n_low: Annotated[float, Field(gt=1)] = 4.0
    alpha_high: Annotated[float, Field(gt=0)] = 1.6
    n_high: Annotated[float, Field(gt=1)] = 6.0

    def at(self, mass: float) -> CrystalBall:
        """The peak at `mass` in GeV."""
        return CrystalBall(
            self.mean * mass, self.sigma * mass, self.alpha_low, self.n_low, self.alpha_high, self.n_high
        )


class SearchConfig(Section):
    """One search in one mass window.

    Attributes
    ----------
    window : name of a published window, A1 ... B6.
    method : cwola (each jet, larger of the two), cwola_pair (features of the event), or inclusive (no selection).
    features : of each jet; for cwola_pair both jets' features together, heavier jet first.
    fraction : selected fraction of the sidebands; None for the published one of the window (ignored when inclusive).
    mass_step : GeV between tested masses, which lie in the window.
    toys : background-only toys for the global p-value; 0 for none.
    """

    window: str = "B3"
    method: Literal["cwola", "cwola_pair", "inclusive"] = "cwola"
    features: list[str] = ["m", "tau21", "tau32", "tau43"]
    fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    seed: Annotated[int, Field(ge=0)] = 1
    folds: FoldSection = FoldSection()
    trees: TreesSection = TreesSection()
    fit: FitSection = FitSection()
    peak: PeakSection = PeakSection()
    mass_step: Annotated[float, Field(gt=0)] = 100.0
    toys: Annotated[int, Field(ge=0)] = 100
    limits: bool = True

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> SearchConfig:
        """Read a YAML file; every key is checked."""
        return check_config(cls, read_yaml(path), where=os.fspath(path))


@dataclass(frozen=True)
class Result:
    """What a search found.

    Attributes
    ----------
    config : its settings.
    n_events, n_selected : in the range of the fit.
    proof : that no event was scored by a model that had seen it; None for the inclusive search.
    choice : the background fits and which order was chosen.
    scan : local p-values.
    p_local, z_local, mass : of the most significant mass.
    p_window : global within the window, from toys, None without toys.
    p_window_gross_vitells : the same by extrapolation from a low level, None without toys.
    p_global : times the 12 windows of the search; from the toys if at least ten of them reach the data, else from the
        extrapolation.
    upper : for each mass the limit on the selected signal events, or why there is none.
    flat : selected fraction against mass in the sidebands, None for the inclusive search.
    """

    config: SearchConfig
    n_events: int
    n_selected: int
    proof: folds.Proof | None
    choice: dijet.OrderChoice
    scan: dijet.MassScan
    mass: float
    p_local: float
    z_local: float
    p_window: lookelsewhere.GlobalP | None
    p_window_gross_vitells: float | None
    p_global: float | None
    upper: tuple[limits.Limit | FitError, ...]
    flat: metrics.Flatness | None
    selected: npt.NDArray[np.bool_]
    scores: FloatArray | None


def search(
    events: Dijets,
    config: SearchConfig,
    *,
    executor: Executor | None = None,
    progress: Callable[[str], None] = lambda _text: None,
) -> Result:
    """Run one search on the events of the signal region (|delta eta| < 1.3; others are left out).

    Raises
    ------
    InputError
        An unknown window or feature, an empty window or sideband, too few events for the folds, masses outside of the
        range of the fit.
    FitError
        If the background fit does not converge, or no tested mass has a fit that does.
    LeakError
        If a model scored what it had seen.
    """
    if config.window not in WINDOWS:
        raise InputError("search configuration", "window", config.window, f"one of {', '.join(WINDOWS)}")
    window = WINDOWS[config.window]
    used = events[events.in_signal_region()].heavier_first()
    if not len(used):
        raise InputError("dijet search", "signal region", "no event", "events with |delta eta| < 1.3")
    labels = window.labels(used.m_jj)
    scores: FloatArray | None = None
    proof = None
    flat = None
    if config.method == "inclusive":
        selected = np.ones(len(used), bool)
    else:
        progress(f"scoring {len(used)} events, {config.folds.outer} x {config.folds.inner} trainings")
        scored, plan = _score(used, labels, config, executor)
        scores, proof = scored.scores, scored.proof
        fraction = config.fraction or weak.PUBLISHED_FRACTIONS[config.window]
        selected = folds.select(scores, plan, fraction, within=labels == 0)
        sideband = labels == 0
        edges = np.quantile(used.m_jj[sideband], np.linspace(0, 1, 6))
        flat = metrics.flatness(used.m_jj[sideband], selected[sideband], edges)
    low, high = config.fit.low, config.fit.high
    counts, edges = dijet.histogram(used.m_jj[selected], low, high, width=config.fit.bin_width)
    progress(f"fitting {int(counts.sum())} selected events")
    centre = 0.5 * (window.low + window.high)
    choice = dijet.choose_order(counts, edges, centre, orders=config.fit.orders)
    masses = _masses(window.low, window.high, config.mass_step, edges)

    def shape(mass: float, e: FloatArray) -> FloatArray:
        return config.peak.at(mass).probabilities(e)

    scan = dijet.scan_masses(counts, edges, masses, shape, choice.order)
    if len(scan.failed) == len(masses):
        raise FitError("dijet search: the fit did not converge at any mass")
    best = int(np.nanargmin(scan.p0))
    p_window = p_extrapolated = p_global = None
    if config.toys:
        progress(f"{config.toys} background-only toys for the global p-value")
        rng = np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(1,)))
        toys = lookelsewhere.scan_toys(choice.fit, masses, shape, config.toys, rng)
        p_window = lookelsewhere.global_p(float(scan.z[best]), toys.z_max)
        z_best = float(scan.z[best])
        level = min(_REFERENCE_Z, max(z_best, 0.0))
        rises, _ = lookelsewhere.mean_upcrossings(toys, level)
        p_extrapolated = lookelsewhere.gross_vitells(z_best, rises, level) if z_best > 0 else 1.0
        enough = p_window.p * p_window.n_toys >= 10
        within = p_window.p if enough else p_extrapolated
        p_global = min(within * lookelsewhere.PUBLISHED_WINDOWS, 1.0)
    upper: tuple[limits.Limit | FitError, ...] = ()
    if config.limits:
        progress(f"limits at {len(masses)} masses")
        models = [limits.DijetModel(edges, shape(m, edges), choice.order) for m in masses]
        upper = tuple(limits.upper_limits(models, [counts] * len(models)))
    return Result(
        config=config,
        n_events=int(np.count_nonzero((used.m_jj >= edges[0]) & (used.m_jj < edges[-1]))),
        n_selected=int(counts.sum()),
        proof=proof,
        choice=choice,
        scan=scan,
        mass=float(scan.masses[best]),
        p_local=float(scan.p0[best]),
        z_local=float(scan.z[best]),
        p_window=p_window,
        p_window_gross_vitells=p_extrapolated,
        p_global=p_global,
        upper=upper,
        flat=flat,
        selected=selected,
        scores=scores,
    )


def workspace(result: Result, mass: float) -> dict[str, Any]:
    """HistFactory workspace of the selected spectrum in the chi2 bins, for a peak at `mass`.

    The background is the fit, its uncertainty one Gaussian parameter for each eigenvector of the covariance. Strength 1
    is one signal event.
    """
    fit = result.choice.fit
    first = dijet.chi2_bins(fit.edges, fit.expected)
    peak = np.maximum(np.add.reduceat(result.config.peak.at(mass).probabilities(fit.edges), first), 0.0)
    nominal = np.add.reduceat(fit.expected, first)
    values, vectors = np.linalg.eigh(fit.covariance)
    shape = {}
    for i, (value, vector) in enumerate(zip(values, vectors.T)):
        shift = np.sqrt(max(float(value), 0.0)) * vector
        low, high = (
            np.add.reduceat(dijet.integrate(fit.parameters + sign * shift, fit.edges, sqrt_s=fit.sqrt_s), first)
            for sign in (-1.0, 1.0)
        )
        shape[f"background_{i}"] = (low, high)
    model = limits.HistogramModel(
        (limits.Sample("signal", peak, signal=True), limits.Sample("background", nominal, shape=shape))
    )
    return model.histfactory(np.add.reduceat(fit.counts, first))


def to_json(result: Result) -> dict[str, Any]:
    """The figures of a result, with nulls where a fit did not converge."""
    fit = result.choice.fit

    def number(value: float) -> float | None:
        return float(value) if np.isfinite(value) else None

    points = []
    for i, mass in enumerate(result.scan.masses):
        point: dict[str, Any] = {
            "mass_gev": float(mass),
            "signal_events": number(result.scan.signal[i]),
            "signal_error": number(result.scan.signal_error[i]),
            "z": number(result.scan.z[i]),
            "p0": number(result.scan.p0[i]),
        }
        if result.upper:
            found = result.upper[i]
            if isinstance(found, FitError):
                point["limit"] = {"failed": str(found)}
            else:
                point["limit"] = {"observed": found.observed, "expected": list(found.expected), "level": found.level}
        points.append(point)
    return {
        "format": "l1ad-dijet-search",
        "format_version": FORMAT_VERSION,
        "config": result.config.model_dump(),
        "n_events": result.n_events,
        "n_selected": result.n_selected,
        "folds": None if result.proof is None else dict(vars(result.proof)),
        "background": {
            "order": fit.order,
            "parameters": fit.parameters.tolist(),
            "covariance": fit.covariance.tolist(),
            "chi2": fit.chi2,
            "ndof": fit.ndof,
            "chi2_p": number(fit.chi2_p),
            "f_tests": [
                dict(zip(("from", "to", "f", "p", "error_from", "error_to", "accepted"), s))
                for s in result.choice.steps
            ],
        },
        "flatness_p": None if result.flat is None else result.flat.p,
        "scan": points,
        "best": {"mass_gev": result.mass, "z": result.z_local, "p_local": result.p_local},
        "p_window": None
        if result.p_window is None
        else {"p": result.p_window.p, "interval": list(result.p_window.interval), "toys": result.p_window.n_toys},
        "p_window_gross_vitells": result.p_window_gross_vitells,
        "p_global": result.p_global,
        "failed_masses": list(result.scan.failed),
    }


def write(result: Result, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Write all files of a result; returns their paths."""
    base = Path(folder)
    write_json(base / "results.json", to_json(result))
    write_json(base / "workspace.json", workspace(result, result.mass))
    paths = [base / "results.json", base / "workspace.json"]
    for name, text in _hepdata(result).items():
        write_text(base / "hepdata" / name, text)
        paths.append(base / "hepdata" / name)
    for name, draw in (("fit.png", _draw_fit), ("scan.png", _draw_scan)):
        with atomic_path(base / name) as temporary:
            draw(result, temporary)
        paths.append(base / name)
    return tuple(paths)


def _score(
    events: Dijets, labels: npt.NDArray[np.int8], config: SearchConfig, executor: Executor | None
) -> tuple[folds.CrossScores, folds.FoldPlan]:
    trees = weak.Trees(**config.trees.model_dump())
    features = events.features(tuple(config.features))
    columns: dict[str, npt.NDArray[Any]] = {"label": labels}
    fit: folds.Fit
    if config.method == "cwola":
        columns |= {"jets": features, "plane": events.feature("pt")}
        fit = weak.cwola_hunting(trees)
    else:
        columns["event"] = features.reshape(len(events), -1)
        fit = weak.cwola_pair(trees)
    # Identity from the content: an event that is stored twice must not be trained on and scored.
    ids = folds.content_ids(np.concatenate([events.jets.reshape(len(events), -1), events.m_jj[:, None]], axis=1))
    rng = np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(0,)))
    plan = folds.plan(ids, rng, n_outer=config.folds.outer, n_inner=config.folds.inner)
    return folds.cross_score(columns, plan, fit, seed=config.seed, executor=executor), plan


def _masses(low: float, high: float, step: float, edges: FloatArray) -> list[float]:
    grid = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
    inside = grid[(grid >= edges[0]) & (grid <= edges[-1])]
    if not inside.size:
        found = f"none every {step:g} GeV in {low:g} to {high:g}"
        raise InputError("dijet search", "masses", found, f"at least one within the fit, {edges[0]:g} to {edges[-1]:g}")
    return [float(m) for m in inside]


def _hepdata(result: Result) -> dict[str, str]:
    """HEPData tables: the spectrum with its fit, the p-values and the limits."""
    import yaml

    def column(name: str, units: str, values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        header = {"name": name, "units": units} if units else {"name": name}
        return {"header": header, "values": list(values)}

    def dump(independent: list[dict[str, Any]], dependent: list[dict[str, Any]]) -> str:
        table = {"independent_variables": independent, "dependent_variables": dependent}
        return str(yaml.safe_dump(table, sort_keys=False))

    fit = result.choice.fit
    first = dijet.chi2_bins(fit.edges, fit.expected)
    ends = np.append(fit.edges[first], fit.edges[-1])
    observed, expected = np.add.reduceat(fit.counts, first), np.add.reduceat(fit.expected, first)
    bins = [{"low": float(a), "high": float(b)} for a, b in itertools.pairwise(ends)]
    spectrum = dump(
        [column("dijet mass", "GeV", bins)],
        [
            column("observed events", "", [{"value": int(v)} for v in observed]),
            column("fitted background", "", [{"value": float(v)} for v in expected]),
        ],
    )
    good = [i for i in range(len(result.scan.masses)) if np.isfinite(result.scan.p0[i])]
    mass = [{"value": float(result.scan.masses[i])} for i in good]
    p_values = dump(
        [column("resonance mass", "GeV", mass)],
        [column("local p-value", "", [{"value": float(result.scan.p0[i])} for i in good])],
    )
    tables = {"spectrum.yaml": spectrum, "p_values.yaml": p_values}
    pairs = [(m, v) for m, v in zip(result.scan.masses, result.upper) if isinstance(v, limits.Limit)]
    if pairs:
        columns = [column("observed limit on selected events", "", [{"value": v.observed} for _, v in pairs])]
        for i, label in enumerate(("-2 sigma", "-1 sigma", "median", "+1 sigma", "+2 sigma")):
            name = f"expected limit on selected events, {label}"
            columns.append(column(name, "", [{"value": v.expected[i]} for _, v in pairs]))
        tables["limits.yaml"] = dump(
            [column("resonance mass", "GeV", [{"value": float(m)} for m, _ in pairs])], columns
        )
    return tables


def _draw_fit(result: Result, path: Path) -> None:
    """Spectrum, background fit and pulls in the chi2 bins."""
    from matplotlib.figure import Figure

    fit = result.choice.fit
    first = dijet.chi2_bins(fit.edges, fit.expected)
    ends = np.append(fit.edges[first], fit.edges[-1])
    observed, expected = np.add.reduceat(fit.counts, first), np.add.reduceat(fit.expected, first)
    width, centre = np.diff(ends), 0.5 * (ends[:-1] + ends[1:])
    figure = Figure(figsize=(7, 6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    top.errorbar(
        centre, observed / width, np.sqrt(observed) / width, width / 2, fmt="ko", ms=3, label="selected events"
    )
    grid = np.linspace(fit.edges[0], fit.edges[-1], 500)
    label = f"fit, {fit.order} parameters, chi2/ndof = {fit.chi2:.1f}/{fit.ndof}"
    top.plot(grid, fit.density(grid), "C0-", label=label)
    top.set_yscale("log")
    top.set_ylim(bottom=max(float((expected / width).min()) / 5.0, 1e-7))
    top.set_ylabel("events / GeV")
    top.legend()
    bottom.bar(centre, (observed - expected) / np.sqrt(expected), width, color="C0", alpha=0.6)
    bottom.axhline(0.0, color="k", lw=0.8)
    bottom.set_ylabel("pull")
    bottom.set_xlabel("dijet mass [GeV]")
    figure.savefig(path, format="png", dpi=120)


def _draw_scan(result: Result, path: Path) -> None:
    """Local p-values, and limits if there are any."""
    from matplotlib.figure import Figure

    pairs = [(m, v) for m, v in zip(result.scan.masses, result.upper) if isinstance(v, limits.Limit)]
    figure = Figure(figsize=(7, 6 if pairs else 3.5), layout="constrained")
    axes = figure.subplots(2 if pairs else 1, 1, sharex=True, squeeze=False)[:, 0]
    axes[0].plot(result.scan.masses, result.scan.p0, "ko-", ms=4)
    axes[0].set_yscale("log")
    axes[0].set_ylabel("local p-value")
    for z in (1, 2, 3, 4, 5):
        p = float(p_from_z(z))
        if p > np.nanmin(result.scan.p0) / 50:
            axes[0].axhline(p, color="C3", lw=0.8, ls="--")
            axes[0].annotate(f"{z} sigma", (result.scan.masses[0], p), fontsize=8, color="C3")
    if pairs:
        mass = np.array([m for m, _ in pairs])
        band = np.array([v.expected for _, v in pairs]).T
        axes[1].fill_between(mass, band[0], band[4], color="gold", label="expected, 95 %")
        axes[1].fill_between(mass, band[1], band[3], color="limegreen", label="expected, 68 %")
        axes[1].plot(mass, band[2], "k--", label="expected, median")
        axes[1].plot(mass, [v.observed for _, v in pairs], "ko-", ms=4, label="observed")
        axes[1].set_ylabel("95 % CL limit [selected events]")
        axes[1].legend()
    axes[-1].set_xlabel("resonance mass [GeV]")
    figure.savefig(path, format="png", dpi=120)
