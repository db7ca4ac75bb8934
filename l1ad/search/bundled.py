"""The dijets that come with the package (made by ``scripts/make_dijets.py``), and the compact file that holds them.

`bundled_dijets` reads them, `read_any` these and every other file of dijets. In the compact file every feature is a
16-bit integer times a step, so that 70,000 events with 13 features of each jet fit in a few megabytes; constituents are
kept of events above `CONSTITUENTS_FROM` only, as pt relative to the jet's, on a logarithmic scale, and distances in eta
and phi from its axis, a byte each.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.events.bundled import FOLDER, bundled
from l1ad.io import atomic_hdf5
from l1ad.search import readers
from l1ad.search.jets import Dijets, concatenate, invariant_mass

FORMAT = "l1ad-dijets-compact"
FORMAT_VERSION = 1

#: Constituents are bundled for events with m_jj above this, in GeV.
CONSTITUENTS_FROM = 1800.0
#: How many a jet, the hardest first.
N_CONSTITUENTS = 20

#: Least step of each feature: what differs by less than half of it is the same after `write_compact`.
STEPS: dict[str, float] = {
    "pt": 0.25,
    "eta": 5e-4,
    "phi": 5e-4,
    "m": 0.1,
    "m_sd": 0.1,
    **{f"tau{i}": 5e-5 for i in range(1, 5)},
    "n_const": 1.0,
    "n_charged": 1.0,
    "lepton_fraction": 5e-3,
    "b_tag": 1.0,
}
#: Softest constituent that can be told from none, as a fraction of the jet's pt, and the step of ln(pt).
_SOFTEST, _LOG_STEP = 2e-4, 0.034
#: Step in eta and in phi of a constituent.
_ANGLE_STEP = 0.007


def write_compact(
    events: Dijets,
    path: str | os.PathLike[str],
    *,
    constituents_from: float = CONSTITUENTS_FROM,
    n_constituents: int = N_CONSTITUENTS,
    attributes: Mapping[str, str | float] | None = None,
) -> None:
    """Write dijets with features among `STEPS` in the compact form; weights are not kept.

    Raises
    ------
    InputError
        If a feature has no step or does not fit in 16 bits.
    """
    unknown = [name for name in events.names if name not in STEPS]
    if unknown:
        raise InputError("compact dijets", "features", ", ".join(unknown), f"some of {', '.join(STEPS)}")
    options = {"compression": "gzip", "compression_opts": 9, "shuffle": True, "chunks": True}
    with atomic_hdf5(path) as file:
        file.attrs["format"], file.attrs["format_version"] = FORMAT, FORMAT_VERSION
        file.attrs["features"] = list(events.names)
        file.attrs["steps"] = [STEPS[name] for name in events.names]
        for key, value in (attributes or {}).items():
            file.attrs[key] = value
        for i, name in enumerate(events.names):
            codes = np.rint(events.jets[:, :, i].astype(np.float64) / STEPS[name])
            if np.abs(codes).max(initial=0) > np.iinfo(np.int16).max:
                largest = float(np.abs(events.jets[:, :, i]).max())
                raise InputError("compact dijets", name, f"{largest:g}", f"at most {STEPS[name] * 32767:g}")
            file.create_dataset(f"jets/{name}", data=codes.astype(np.int16), **options)
        file.create_dataset("label", data=events.label, **options)
        if events.constituents is not None:
            rows = np.flatnonzero(events.m_jj >= constituents_from)
            codes8 = _encode(events[rows], n_constituents)
            file.create_dataset("constituents/rows", data=rows.astype(np.int32), **options)
            for i, part in enumerate(("pt", "eta", "phi")):
                file.create_dataset(f"constituents/{part}", data=codes8[i], **options)


def read_compact(path: str | os.PathLike[str], *, constituents: bool = False) -> Dijets:
    """Read what `write_compact` wrote; with `constituents`, only the events that have them.

    Raises
    ------
    InputError
        If the file cannot be read, is not of this format or is damaged, or has no constituents.
    """
    import h5py

    name = os.fspath(path)
    try:
        with h5py.File(name, "r") as file:
            return _read_compact(file, name, constituents)
    except InputError as error:
        if error.where != "dijets":
            raise
        raise InputError(name, error.field, error.found, error.expected) from error
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, IndexError) as error:
        # Something is missing or of another shape: h5py and numpy raise all of these.
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error).strip("\"'")
        raise InputError(name, "file", (reason.splitlines() or [""])[0], f"a whole {FORMAT} file") from error


def _read_compact(file: Any, name: str, constituents: bool) -> Dijets:
    if file.attrs.get("format") != FORMAT or file.attrs.get("format_version") != FORMAT_VERSION:
        found = f"{file.attrs.get('format')} {file.attrs.get('format_version')}"
        raise InputError(name, "format", found, f"{FORMAT} {FORMAT_VERSION}")
    names = tuple(str(v) for v in file.attrs["features"])
    columns = [file[f"jets/{n}"][:] * float(step) for n, step in zip(names, file.attrs["steps"])]
    jets = np.stack(columns, axis=2).astype(np.float32)
    kinematics = [names.index(n) for n in ("pt", "eta", "phi", "m")]
    events = Dijets(
        jets=jets,
        names=names,
        m_jj=invariant_mass(jets[:, :, kinematics]),
        label=file["label"][:].astype(np.int8),
        weight=np.ones(len(jets)),
    )
    if not constituents:
        return events
    if "constituents" not in file:
        raise InputError(name, "constituents", "none", "a file with constituents")
    events = events[file["constituents/rows"][:]]
    codes = [file[f"constituents/{part}"][:] for part in ("pt", "eta", "phi")]
    return replace(events, constituents=_decode(codes, events))


def read_any(path: str | os.PathLike[str], *, constituents: bool = False) -> Dijets:
    """Dijets of any file: a compact one as `read_compact` does, every other one as `l1ad.search.readers.read` does.

    Parameters
    ----------
    constituents : of a compact file, only the events that have constituents, with them; other files always give theirs.

    Raises
    ------
    InputError
        As the two do.
    """
    return read_compact(path, constituents=constituents) if _is_compact(path) else readers.read(path)


def _is_compact(path: str | os.PathLike[str]) -> bool:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return bool(file.attrs.get("format") == FORMAT)
    except OSError:
        # Parquet, or a file that the reader will complain about.
        return False


def bundled_dijets(*names: str, constituents: bool = False) -> Dijets:
    """The bundled dijets: ``qcd`` (in the signal region and in the sideband in delta eta) and three signals.

    Parameters
    ----------
    names : of `bundled_dijet_names`; ``qcd`` if none is given. Several are put together.
    constituents : with up to 20 constituents of each jet; then only events with m_jj above 1800 GeV.

    Returns
    -------
    Dijets with the features of `l1ad.search.simulate.FEATURES`, m_jj from 1300 GeV (the sideband: from 2500 GeV), label
    0 for QCD and 1 for signals.

    Raises
    ------
    InputError
        If there is no sample of a name.
    """
    known = bundled_dijet_names()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError("bundled dijets", "sample", unknown[0], f"one of {', '.join(known)}")
    return concatenate(
        [read_compact(bundled(f"dijets_{name}"), constituents=constituents) for name in names or ("qcd",)]
    )


def bundled_dijet_names() -> tuple[str, ...]:
    """Names for `bundled_dijets`."""
    return tuple(p.stem.removeprefix("dijets_") for p in sorted(Path(FOLDER).glob("dijets_*.h5")))


def _axes(events: Dijets) -> list[npt.NDArray[np.float64]]:
    """pt, eta, phi of the jets, shape (n, 2, 1) each."""
    return [events.feature(name)[:, :, None] for name in ("pt", "eta", "phi")]


def _encode(events: Dijets, n_constituents: int) -> list[npt.NDArray[Any]]:
    """Codes of pt (0 for none), eta and phi, shape (n, 2, n_constituents) each."""
    if events.constituents is None:
        raise InputError("compact dijets", "constituents", "none", "constituents")
    jet_pt, jet_eta, jet_phi = _axes(events)
    px, py, pz = np.moveaxis(events.constituents[:, :, :n_constituents].astype(np.float64), 3, 0)
    pt = np.hypot(px, py)
    there = pt > 0
    safe = np.where(there, pt, 1.0)
    log_pt = np.log(np.maximum(safe / jet_pt, _SOFTEST) / _SOFTEST) / _LOG_STEP
    code = np.where(there, 1.0 + np.rint(log_pt), 0.0)
    eta = np.where(there, np.arcsinh(pz / safe) - jet_eta, 0.0)
    phi = np.where(there, (np.arctan2(py, px) - jet_phi + np.pi) % (2.0 * np.pi) - np.pi, 0.0)
    angles = [np.clip(np.rint(v / _ANGLE_STEP), -127, 127).astype(np.int8) for v in (eta, phi)]
    return [np.minimum(code, 255.0).astype(np.uint8), *angles]


def _decode(codes: list[npt.NDArray[Any]], events: Dijets) -> npt.NDArray[np.float32]:
    jet_pt, jet_eta, jet_phi = _axes(events)
    code, eta, phi = (c.astype(np.float64) for c in codes)
    pt = np.where(code > 0, jet_pt * _SOFTEST * np.exp((code - 1.0) * _LOG_STEP), 0.0)
    eta, phi = jet_eta + eta * _ANGLE_STEP, jet_phi + phi * _ANGLE_STEP
    return np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], axis=3).astype(np.float32)
