"""Dijets from particles (extra ``[jets]``).

`cluster` makes dijets of particles in memory, `cluster_file` of a file of the LHC Olympics, chunk by chunk.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError, require
from l1ad.io import atomic_hdf5_checked
from l1ad.search.jets import FORMAT, FORMAT_VERSION, Dijets, invariant_mass
from l1ad.search.readers import read_particles


def cluster(
    particles: npt.ArrayLike,
    labels: npt.ArrayLike | None = None,
    *,
    radius: float = 1.0,
    pt_min: float = 100.0,
    max_constituents: int = 100,
) -> Dijets:
    """Anti-kt dijets with N-subjettiness from massless particles (needs fastjet).

    Parameters
    ----------
    particles : (pt, eta, phi), shape (n, p, 3), pt 0 where there is none.
    radius : 1.0 for the LHC Olympics, 0.8 for CMS.
    pt_min : events without two jets above this are dropped.

    Returns
    -------
    The two leading jets of each event: pt, eta, phi, m, tau1 ... tau4, n_const. tau_N is the normalised measure with
    one-pass kt axes and beta 1.

    Raises
    ------
    MissingToolError
        Without fastjet.
    InputError
        For another shape, or if no event has two such jets.
    """
    found = _cluster(particles, labels, radius, pt_min, max_constituents)
    if not len(found):
        raise _no_dijets("jet clustering", pt_min)
    return found


def _no_dijets(where: str, pt_min: float) -> InputError:
    return InputError(where, "jets", f"no event with two jets above {pt_min:g} GeV", "at least one")


def cluster_file(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    radius: float = 1.0,
    pt_min: float = 100.0,
    max_constituents: int = 100,
    max_events: int | None = None,
    chunk: int = 5_000,
    progress: Callable[[int], None] | None = None,
) -> tuple[int, int]:
    """`cluster` the particles of a file and write our HDF5, `chunk` events in memory at a time.

    Parameters
    ----------
    path, out : an LHC Olympics particle file, and the file to write, which gets its name when all of it is there.
    radius, pt_min, max_constituents : as for `cluster`; pt_min in GeV.
    max_events : how many are read, all if None.
    progress : called with the number of events read.

    Returns
    -------
    How many events were read, and how many of them have two jets.

    Raises
    ------
    MissingToolError
        Without fastjet.
    InputError
        If the file is not one of particles, no event has two jets, or `out` cannot be written.
    """
    _fastjet()
    if not (0 < radius < np.inf and 0 <= pt_min < np.inf):
        raise InputError("jet clustering", "radius, pt_min", f"{radius:g}, {pt_min:g} GeV", "finite, radius above 0")
    if os.path.exists(out) and os.path.exists(path) and os.path.samefile(path, out):
        raise InputError(os.fspath(out), "out", "the file of particles itself", "another name")
    n_read = n_kept = 0
    with atomic_hdf5_checked(out) as (file, check):
        file.attrs["format"], file.attrs["format_version"] = FORMAT, FORMAT_VERSION
        file.attrs["source"] = os.path.basename(path)
        file.attrs["radius"], file.attrs["pt_min"] = radius, pt_min
        for particles, labels in read_particles(path, stop=max_events, chunk=chunk):
            found = _cluster(particles, labels, radius, pt_min, max_constituents)
            file.attrs["features"] = list(found.names)
            _append(file, found)
            check()
            n_read, n_kept = n_read + len(particles), n_kept + len(found)
            if progress is not None:
                progress(n_read)
        if n_kept == 0:
            raise _no_dijets(os.fspath(path), pt_min)
    return n_read, n_kept


def _append(file: Any, events: Dijets) -> None:
    columns: dict[str, npt.NDArray[Any]] = {
        "jets": events.jets,
        "mjj": events.m_jj,
        "label": events.label,
        "weight": events.weight,
    }
    if events.constituents is not None:
        columns["constituents"] = events.constituents
    for key, values in columns.items():
        if key not in file:
            of_one = values.shape[1:]
            options = {"compression": "gzip", "shuffle": True, "chunks": (1000, *of_one)}
            file.create_dataset(key, (0, *of_one), values.dtype, maxshape=(None, *of_one), **options)
        if len(values):
            file[key].resize(len(file[key]) + len(values), axis=0)
            file[key][-len(values) :] = values


def _fastjet() -> Any:
    require("vector", "jets")
    return require("fastjet", "jets")


def _cluster(
    particles: npt.ArrayLike, labels: npt.ArrayLike | None, radius: float, pt_min: float, max_constituents: int
) -> Dijets:
    """`cluster` that may find nothing."""
    fastjet = _fastjet()
    import awkward as ak
    import vector

    vector.register_awkward()
    p = np.asarray(particles, np.float64)
    if p.ndim != 3 or p.shape[2] != 3 or p.shape[0] == 0:
        raise InputError("jet clustering", "particles", p.shape, "(n, particles, 3), n at least 1")
    y = np.full(len(p), -1, np.int8) if labels is None else np.asarray(labels, np.int8)
    filled = p[:, :, 0] > 0
    counts = filled.sum(axis=1)
    pt, eta, phi = (p[:, :, i][filled] for i in range(3))
    flat = {"px": pt * np.cos(phi), "py": pt * np.sin(phi), "pz": pt * np.sinh(eta), "E": pt * np.cosh(eta)}
    # fastjet does not take events without particles.
    used = np.flatnonzero(counts > 1)
    names = ("pt", "eta", "phi", "m", "tau1", "tau2", "tau3", "tau4", "n_const")
    if not used.size:
        return _no_events(names, max_constituents)
    arrays = {k: ak.unflatten(v, counts)[used] for k, v in flat.items()}
    events = ak.to_packed(ak.zip(arrays, with_name="Momentum4D"))
    definition = fastjet.JetDefinition(fastjet.antikt_algorithm, radius)
    sequence = fastjet.ClusterSequence(events, definition)
    jets, parts = sequence.inclusive_jets(min_pt=pt_min), sequence.constituents(min_pt=pt_min)
    two = np.asarray(ak.num(jets) >= 2)
    if not two.any():
        return _no_events(names, max_constituents)
    order = ak.argsort(jets[two].pt, ascending=False)[:, :2]
    jets, parts = jets[two][order], parts[two][order]
    out = np.zeros((int(two.sum()), 2, len(names)), np.float32)
    kept = np.zeros((len(out), 2, max_constituents, 3), np.float32)
    for j in range(2):
        one, inside = jets[:, j], parts[:, j]
        mass2 = ak.to_numpy(one.E) ** 2 - sum(ak.to_numpy(one[c]) ** 2 for c in ("px", "py", "pz"))
        out[:, j, 0], out[:, j, 1], out[:, j, 2] = (ak.to_numpy(v) for v in (one.pt, one.eta, one.phi))
        out[:, j, 3] = np.sqrt(np.maximum(mass2, 0.0))
        packed = ak.to_packed(ak.zip({c: inside[c] for c in ("px", "py", "pz", "E")}, with_name="Momentum4D"))
        again = fastjet.ClusterSequence(packed, fastjet.JetDefinition(fastjet.antikt_algorithm, 10.0 * radius))
        out[:, j, 4:8] = ak.to_numpy(again.njettiness(njets=[1, 2, 3, 4], beta=1.0, R0=radius))
        out[:, j, 8] = ak.to_numpy(ak.num(packed))
        ranked = packed[ak.argsort(packed.pt, ascending=False)][:, :max_constituents]
        padded = ak.fill_none(
            ak.pad_none(ranked, max_constituents, clip=True), dict.fromkeys(("px", "py", "pz", "E"), 0.0)
        )
        for i, c in enumerate(("px", "py", "pz")):
            kept[:, j, :, i] = ak.to_numpy(padded[c])
    return Dijets(
        jets=out,
        names=names,
        m_jj=invariant_mass(out[:, :, :4]),
        label=y[used][two],
        weight=np.ones(len(out)),
        constituents=kept,
    )


def _no_events(names: tuple[str, ...], max_constituents: int) -> Dijets:
    return Dijets(
        jets=np.zeros((0, 2, len(names)), np.float32),
        names=names,
        m_jj=np.zeros(0),
        label=np.zeros(0, np.int8),
        weight=np.zeros(0),
        constituents=np.zeros((0, 2, max_constituents, 3), np.float32),
    )
