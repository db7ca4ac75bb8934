"""Collisions at the calorimeter face, and the HDF5 files that hold them.

A library holds the visible particles of many collisions of one process as flat arrays with offsets, so that a crossing
is a few slices. Layout of a file (format version 1)::

    /offset          (n + 1) int64    first calorimeter particle of each collision
    /eta /phi /et    (k) float16      at the calorimeter face, et in GeV
    /kind            (k) uint8        0 electron or photon, 1 hadron, 2 muon
    /mu_offset       (n + 1) int64    first muon of each collision
    /mu_pt /mu_eta /mu_phi  (m) float32, /mu_charge (m) int8    at the vertex, pt in GeV
    /jet_offset      (n + 1) int64    first generator jet (anti-kt 0.4); all zero where jets were not made
    /jet_pt /jet_eta /jet_phi (j) float32
    /pthat /gen_met  (n) float32      GeV
    attributes       format_version, process, settings (JSON), tune, seed, n, n_tried, sigma_mb
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l1ad.errors import InputError
from l1ad.io import atomic_hdf5

__all__ = [
    "EM",
    "FORMAT_VERSION",
    "HADRON",
    "MUON",
    "Library",
    "concatenate",
    "describe_library",
    "read_library",
    "write_library",
]

FORMAT_VERSION = 1
EM, HADRON, MUON = 0, 1, 2

Array = NDArray[Any]


@dataclass(frozen=True)
class Library:
    """Collisions of one process; see the module docstring for shapes, types and units.

    ``sigma_mb`` is the cross section of what the library holds, after any veto, in millibarn; ``n_tried`` counts the
    collisions before the veto.
    """

    process: str
    settings: tuple[str, ...]
    tune: str
    seed: int
    n_tried: int
    sigma_mb: float
    offset: Array
    eta: Array
    phi: Array
    et: Array
    kind: Array
    mu_offset: Array
    mu_pt: Array
    mu_eta: Array
    mu_phi: Array
    mu_charge: Array
    jet_offset: Array
    jet_pt: Array
    jet_eta: Array
    jet_phi: Array
    pthat: Array
    gen_met: Array

    def __len__(self) -> int:
        return len(self.offset) - 1

    def head(self, n: int) -> Library:
        """The first ``n`` collisions (all of them if there are fewer), with the same cross section."""
        n = min(n, len(self))
        values: dict[str, Any] = {}
        for name in _ARRAYS:
            values[name] = getattr(self, name)[: _rows(self, name, n)]
        meta = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _ARRAYS}
        return Library(**meta, **values)


_DTYPES: dict[str, str] = {
    "offset": "i8",
    "eta": "f2",
    "phi": "f2",
    "et": "f2",
    "kind": "u1",
    "mu_offset": "i8",
    "mu_pt": "f4",
    "mu_eta": "f4",
    "mu_phi": "f4",
    "mu_charge": "i1",
    "jet_offset": "i8",
    "jet_pt": "f4",
    "jet_eta": "f4",
    "jet_phi": "f4",
    "pthat": "f4",
    "gen_met": "f4",
}
_ARRAYS = tuple(_DTYPES)


def _offset_of(name: str) -> str:
    """Name of the offsets that delimit an array of particles, or '' for one value a collision."""
    if name in ("eta", "phi", "et", "kind"):
        return "offset"
    for prefix in ("mu_", "jet_"):
        if name.startswith(prefix) and not name.endswith("offset"):
            return prefix + "offset"
    return ""


def _rows(lib: Library, name: str, n: int) -> int:
    if name.endswith("offset"):
        return n + 1
    offsets = _offset_of(name)
    return int(getattr(lib, offsets)[n]) if offsets else n


def concatenate(parts: list[Library]) -> Library:
    """Join blocks of one process; the cross section is the mean weighted by the collisions tried."""
    first = parts[0]
    tried = np.array([p.n_tried for p in parts], np.float64)
    values: dict[str, Any] = {}
    for name in _ARRAYS:
        pieces = [getattr(p, name) for p in parts]
        if name.endswith("offset"):
            ends = np.cumsum([0] + [int(piece[-1]) for piece in pieces])
            pieces = [pieces[0][:1], *(piece[1:] + end for piece, end in zip(pieces, ends, strict=False))]
        values[name] = np.concatenate(pieces).astype(_DTYPES[name])
    return Library(
        process=first.process,
        settings=first.settings,
        tune=first.tune,
        seed=first.seed,
        n_tried=int(tried.sum()),
        sigma_mb=float((tried * [p.sigma_mb for p in parts]).sum() / tried.sum()),
        **values,
    )


def write_library(path: str | Path, lib: Library) -> None:
    """Write a library, under a temporary name first."""
    with atomic_hdf5(path) as file:
        for name, dtype in _DTYPES.items():
            data = np.asarray(getattr(lib, name), dtype)
            options = {"compression": "lzf", "shuffle": True} if data.size else {}
            file.create_dataset(name, data=data, **options)
        file.attrs["format"] = "l1ad-library"
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["process"] = lib.process
        file.attrs["settings"] = json.dumps(list(lib.settings))
        file.attrs["tune"] = lib.tune
        file.attrs["seed"] = lib.seed
        file.attrs["n"] = len(lib)
        file.attrs["n_tried"] = lib.n_tried
        file.attrs["sigma_mb"] = lib.sigma_mb


def _open(path: Path) -> Any:
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(str(path), "file", str(error).splitlines()[0], "a generator library (HDF5)") from error
    version = file.attrs.get("format_version")
    if file.attrs.get("format") != "l1ad-library" or version != FORMAT_VERSION:
        found = f"format {file.attrs.get('format')!r} version {version}"
        file.close()
        raise InputError(str(path), "format", found, f"'l1ad-library' version {FORMAT_VERSION}")
    missing = [name for name in _ARRAYS if name not in file]
    if missing:
        file.close()
        raise InputError(str(path), missing[0], "no such dataset", "a complete generator library")
    return file


def describe_library(path: str | Path) -> dict[str, Any]:
    """Process, cross section, size, seed and tune of a library file, without reading it whole.

    Raises
    ------
    InputError
        As :func:`read_library`.
    """
    with _open(Path(path)) as file:
        attributes = file.attrs
        return {
            "process": str(attributes["process"]),
            "sigma_mb": float(attributes["sigma_mb"]),
            "n": int(attributes["n"]),
            "seed": int(attributes["seed"]),
            "tune": str(attributes["tune"]),
        }


def read_library(path: str | Path) -> Library:
    """Read a library file.

    Raises
    ------
    InputError
        For a file that is missing, is not HDF5, or is not a library of this format version.
    """
    with _open(Path(path)) as file:
        return Library(
            process=str(file.attrs["process"]),
            settings=tuple(json.loads(file.attrs["settings"])),
            tune=str(file.attrs["tune"]),
            seed=int(file.attrs["seed"]),
            n_tried=int(file.attrs["n_tried"]),
            sigma_mb=float(file.attrs["sigma_mb"]),
            **{name: file[name][:] for name in _ARRAYS},
        )
