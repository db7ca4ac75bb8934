"""Files of a dijet search: results, a HistFactory workspace, HEPData tables, the scores of the events.

`write` writes ``results.json``, ``workspace.json`` (pyhf reads it), ``hepdata/`` (a submission: tables in YAML) and
``events.h5`` (scores and selection). The page and the figures are written by `l1ad.report.search_page`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from l1ad.io import atomic_hdf5, write_json, write_text
from l1ad.search.dijet_search import Result
from l1ad.search.errors import FitError
from l1ad.search.stats import dijet, limits
from l1ad.search.understand import Study

FORMAT_VERSION = 2


def write(result: Result, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Write all files of a result; returns their paths.

    Raises
    ------
    InputError
        If the folder cannot be written.
    FitError
        If the background fit is too uncertain for a workspace; then nothing is written.
    """
    base = Path(folder)
    content, model, tables = to_json(result), workspace(result, result.mass), hepdata(result)
    write_json(base / "results.json", content)
    write_json(base / "workspace.json", model)
    paths = [base / "results.json", base / "workspace.json"]
    for name, text in tables.items():
        write_text(base / "hepdata" / name, text)
        paths.append(base / "hepdata" / name)
    _write_events(result, base / "events.h5")
    return (*paths, base / "events.h5")


def workspace(result: Result, mass: float) -> dict[str, Any]:
    """HistFactory workspace of the selected spectrum in the chi2 bins, for a peak at `mass`.

    The background is the fit, its uncertainty one Gaussian parameter for each eigenvector of the covariance. The
    signal's scale, resolution and luminosity are those of the configuration. Strength 1 is one signal event.
    """
    fit = result.choice.fit
    first = dijet.chi2_bins(fit.edges, fit.expected)
    peak = np.maximum(np.add.reduceat(result.config.peak.at(mass).probabilities(fit.edges), first), 0.0)
    nominal = np.add.reduceat(fit.expected, first)
    values, vectors = np.linalg.eigh(fit.covariance)
    shape = {}
    for i, (value, vector) in enumerate(zip(values, vectors.T)):
        shift = np.sqrt(max(float(value), 0.0)) * vector
        with np.errstate(over="ignore", invalid="ignore"):
            low, high = (
                np.add.reduceat(dijet.integrate(fit.parameters + sign * shift, fit.edges, sqrt_s=fit.sqrt_s), first)
                for sign in (-1.0, 1.0)
            )
        if not (np.all(np.isfinite(low)) and np.all(np.isfinite(high))):
            raise FitError("workspace: the background fit has an uncertainty beyond any number: too few filled bins")
        shape[f"background_{i}"] = (low, high)
    systematics = result.config.systematics
    moved: dict[str, tuple[Any, Any]] = {}
    normalisation: dict[str, tuple[float, float]] = {}
    if systematics is not None:

        def peak_at(**factors: float) -> Any:
            return np.maximum(
                np.add.reduceat(result.config.peak.at(mass, **factors).probabilities(fit.edges), first), 0.0
            )

        for name, size in (("scale", systematics.scale), ("resolution", systematics.resolution)):
            if size:
                moved[f"signal_{name}"] = (peak_at(**{name: 1 - size}), peak_at(**{name: 1 + size}))
        if systematics.luminosity:
            normalisation["luminosity"] = (1.0 / (1 + systematics.luminosity), 1 + systematics.luminosity)
    model = limits.HistogramModel(
        (
            limits.Sample("signal", peak, signal=True, shape=moved, normalisation=normalisation),
            limits.Sample("background", nominal, shape=shape),
        )
    )
    return model.histfactory(np.add.reduceat(fit.counts, first))


def to_json(result: Result) -> dict[str, Any]:
    """The figures of a result, with nulls where a fit did not converge."""
    fit, tagged = result.choice.fit, result.tagged

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
                point["spurious_signal"] = result.spurious[i]
        points.append(point)
    return {
        "format": "l1ad-dijet-search",
        "format_version": FORMAT_VERSION,
        "config": result.config.model_dump(),
        "n_events": result.n_events,
        "n_selected": result.n_selected,
        "folds": None if tagged.proof is None else dict(vars(tagged.proof)),
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
            "orders_without_a_fit": {str(k): reason for k, reason in result.choice.failed.items()},
        },
        "flatness_p": None if tagged.flat is None else tagged.flat.p,
        "scan": points,
        "best": {"mass_gev": result.mass, "z": result.z_local, "p_local": result.p_local},
        "p_window": None
        if result.p_window is None
        else {"p": result.p_window.p, "interval": list(result.p_window.interval), "toys": result.p_window.n_toys},
        "p_window_gross_vitells": result.p_window_gross_vitells,
        "p_global": result.p_global,
        "failed_masses": list(result.scan.failed),
        "categories": None if tagged.category is None else np.bincount(tagged.category, minlength=4).tolist(),
        "study": None if result.study is None else _study(result.study),
    }


def _study(found: Study) -> dict[str, Any]:
    return {
        "anomalous": found.n_anomalous,
        "ordinary": found.n_ordinary,
        "perturbation": found.perturbation,
        "taggers": list(found.taggers),
        "correlation": found.correlation.tolist(),
        "sic_maximum": {name: curve.maximum for name, curve in found.sic.items()},
    }


def _write_events(result: Result, path: Path) -> None:
    """Mass, scores and selection of the events of the signal region."""
    tagged = result.tagged
    columns = {"mjj": result.events.m_jj, "selected": tagged.selected}
    columns |= {} if tagged.scores is None else {"score": tagged.scores}
    columns |= {} if tagged.category is None else {"category": tagged.category}
    with atomic_hdf5(path) as file:
        file.attrs["format"], file.attrs["format_version"] = "l1ad-dijet-scores", 1
        file.attrs["method"] = tagged.method
        for name, values in columns.items():
            file.create_dataset(name, data=values, compression="gzip", shuffle=True)


def hepdata(result: Result) -> dict[str, str]:
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
    documents: list[dict[str, Any]] = [{"comment": "Dijet search: " + result.config.method, "additional_resources": []}]
    names = {"spectrum": "Selected events", "p_values": "Local p-values", "limits": "Limits"}
    for file in tables:
        stem = file.removesuffix(".yaml")
        documents.append(
            {
                "name": names[stem],
                "description": f"{names[stem]} in window {result.config.mass_window.name}.",
                "keywords": [{"name": "cmenergies", "values": [13600.0]}, {"name": "phrases", "values": ["dijet"]}],
                "data_file": file,
            }
        )
    tables["submission.yaml"] = str(yaml.safe_dump_all(documents, sort_keys=False))
    return tables
