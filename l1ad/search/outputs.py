"""Files of a dijet search: results, a HistFactory workspace, HEPData tables, the scores of the events.

`write` writes ``results.json``, ``workspace.json`` (pyhf reads it), ``hepdata/`` (a submission: tables in YAML) and
``events.h5`` (scores and selection). The page and the figures are written by `l1ad.report.search_page`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.io import atomic_hdf5, write_json, write_text
from l1ad.search import dijet_search
from l1ad.search.dijet_search import Result
from l1ad.search.errors import FitError
from l1ad.search.stats import dijet, limits
from l1ad.search.stats.peak_model import PeakModel
from l1ad.search.understand import Study

FloatArray = npt.NDArray[np.float64]

FORMAT_VERSION = 2
#: Files that a submission may have, in ``hepdata/``.
TABLES = ("spectrum.yaml", "p_values.yaml", "limits.yaml", "submission.yaml")

#: Statistical errors of a background parameter that are one standard deviation of its constraint in the workspace: the
#: constraint adds a hundredth to what the data know.
_FLOAT = 10.0
#: Value of a background parameter at the nominal background. HistFactory's factors are exponentials, as the dijet
#: function wants them, above 1 only; between -1 and +1 they are polynomials, which for large factors are far from one.
_CENTRE = 3.0
#: Largest logarithm of a bin's factors for one standard deviation of all background parameters.
_LARGEST = 100.0
#: Spurious signals in either of the two samples whose difference is the spurious signal.
_OFFSET = 1000.0


def write(result: Result, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Write all files of a result; returns their paths.

    A table that an earlier search has left in the folder, and this one does not have, is removed.

    Raises
    ------
    InputError
        If the folder cannot be written.
    FitError
        If the fit of the workspace does not converge; then nothing is written.
    """
    base = Path(folder)
    content, model, tables = to_json(result), workspace(result, result.mass), hepdata(result)
    write_json(base / "results.json", content)
    write_json(base / "workspace.json", model)
    paths = [base / "results.json", base / "workspace.json"]
    for name, text in tables.items():
        write_text(base / "hepdata" / name, text)
        paths.append(base / "hepdata" / name)
    remove(base / "hepdata" / name for name in TABLES if name not in tables)
    _write_events(result, base / "events.h5")
    return (*paths, base / "events.h5")


def remove(paths: Iterable[Path]) -> None:
    """Remove the files that exist.

    Raises
    ------
    InputError
        If one cannot be removed.
    """
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(
                str(path), "remove", error.strerror, "a file of an earlier search, to be removed"
            ) from error


def workspace(result: Result, mass: float) -> dict[str, Any]:
    """The likelihood of the limits at `mass` in GeV as a HistFactory workspace, for pyhf.

    It is the `PeakModel` of `l1ad.search.dijet_search.limit_model`, in bins of at least 20 GeV, one channel a bin. The
    strength is in selected signal events. The parameters ``background_0``, ``background_1`` ... move the logarithm of
    the dijet function in orthonormal directions; the constraint that HistFactory wants of each is ten times as wide as
    the data's, so that they float. The spurious signal is the difference of two samples, because HistFactory has no
    yield that is proportional to a constrained parameter and moves with others.

    Without systematic uncertainties in the configuration there are none here.

    Raises
    ------
    InputError
        If the signal has less than 1 % in the range of the fit.
    FitError
        If the fit of background and peak does not converge.
    """
    config, order = result.config, result.choice.order
    width = max(config.fit.bin_width, dijet_search.LIMIT_BIN_WIDTH)
    selected = result.events.m_jj[result.tagged.selected]
    counts, edges = dijet.histogram(selected, config.fit.low, config.fit.high, width=width)
    if config.systematics is None:
        model = PeakModel((edges,), (config.peak.at(mass).probabilities(edges),), (order,), ({},))
    else:
        model, _ = dijet_search.limit_model(counts, edges, config, order, mass, signal_at=result.mass)
    return _histfactory(model, counts)


def _histfactory(model: PeakModel, counts: FloatArray) -> dict[str, Any]:
    """The workspace of a model with one category and its `counts`, shape (n_bins,)."""
    (edges,), (shape,), (order,), (shifts,) = model.edges, model.shapes, model.orders, model.shifts
    # With the peak free: what fits the data, so that a program starts next to the best fit.
    best = limits.DijetModel(edges, shape, order).fit(counts)
    space = dijet.Space.build(counts, edges, order, dijet.SQRT_S)
    background, jacobian = space.expected_and_jacobian(space.to_local(best.nuisance))
    # The coordinates are orthonormal on the spectrum: each is known to 1/sqrt(events).
    slopes = _FLOAT * jacobian / (np.maximum(background, 1e-300)[:, None] * np.sqrt(counts.sum()))
    # Where nothing is expected, the logarithm may change by hundreds: beyond floating point.
    slopes *= np.minimum(1.0, _LARGEST / np.maximum(np.abs(slopes).sum(axis=1), 1e-300))[:, None]
    floating = [f"background_{i}" for i in range(order + 1)]
    feigned = model.spurious[0] if model.spurious else 0.0

    channels, observations = [], []
    for j, (n, yields, signal) in enumerate(zip(counts, background, shape)):
        name = f"mjj_{edges[j]:g}_{edges[j + 1]:g}"
        moving = [(f"signal_{k}", low[j], high[j]) for k, (low, high) in shifts.items()]
        strength = {"name": "strength", "type": "normfactor", "data": None}
        scales = [_normsys(k, 1.0 / (1.0 + v), 1.0 + v) for k, v in model.normalisation.items()]
        nominal = yields * np.exp(-_CENTRE * slopes[j].sum())
        factors = [_normsys(k, np.exp(-slope), np.exp(slope)) for k, slope in zip(floating, slopes[j])]
        samples = [_peak("signal", signal, moving, 1.0, [strength, *scales]), _sample("background", nominal, factors)]
        if feigned:
            change = _normsys("spurious_signal", 1.0 - 1.0 / _OFFSET, 1.0 + 1.0 / _OFFSET)
            samples.append(_peak("spurious", signal, moving, _OFFSET * feigned, [change]))
            samples.append(_peak("spurious_offset", signal, moving, -_OFFSET * feigned, []))
        channels.append({"name": name, "samples": samples})
        observations.append({"name": name, "data": [float(n)]})

    # Far beyond any limit, also with a background that is less well known than this.
    error = max(1.0, 1.0 / np.sqrt(np.sum(shape**2 / np.maximum(background, 1e-3)))) + feigned
    top = float(2.0 * best.strength + 20.0 * error)
    span = [[1.0, 2.0 * _CENTRE - 1.0]]
    parameters: list[dict[str, Any]] = [{"name": "strength", "inits": [float(best.strength)], "bounds": [[0.0, top]]}]
    parameters += [{"name": k, "inits": [_CENTRE], "auxdata": [_CENTRE], "bounds": span} for k in floating]
    return {
        "version": "1.0.0",
        "channels": channels,
        "observations": observations,
        "measurements": [{"name": "limit", "config": {"poi": "strength", "parameters": parameters}}],
    }


def _normsys(name: str, low: float, high: float) -> dict[str, Any]:
    """A parameter whose value -1 or +1 multiplies the yield by `low` or `high`."""
    return {"name": name, "type": "normsys", "data": {"lo": float(low), "hi": float(high)}}


def _sample(name: str, yields: float, modifiers: list[dict[str, Any]]) -> dict[str, Any]:
    return {"name": name, "data": [float(yields)], "modifiers": modifiers}


def _peak(
    name: str, share: float, moving: list[tuple[str, float, float]], events: float, modifiers: list[dict[str, Any]]
) -> dict[str, Any]:
    """`events` of which this `share` lies in the bin; parameters in `moving` make it ``low`` at -1, ``high`` at +1."""
    for key, low, high in moving:
        data = {"lo_data": [float(events * low)], "hi_data": [float(events * high)]}
        modifiers = [*modifiers, {"name": key, "type": "histosys", "data": data}]
    return _sample(name, events * share, modifiers)


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
            "chi2_p_with_peak": number(result.described),
            "bad": result.badly_described,
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
    energy = result.config.collision_energy
    names = {"spectrum": "Selected events", "p_values": "Local p-values", "limits": "Limits"}
    for file in tables:
        stem = file.removesuffix(".yaml")
        documents.append(
            {
                "name": names[stem],
                "description": f"{names[stem]} in window {result.config.mass_window.name}.",
                "keywords": [{"name": "cmenergies", "values": [energy]}, {"name": "phrases", "values": ["dijet"]}],
                "data_file": file,
            }
        )
    tables["submission.yaml"] = str(yaml.safe_dump_all(documents, sort_keys=False))
    return tables
