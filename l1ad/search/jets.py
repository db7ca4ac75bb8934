"""Dijet events: readers, features, mass windows, clustering of particles.

`read` opens any supported file, `Dijets` holds the events, `WINDOWS` are the published mass windows, `cluster` makes
dijets from particles (extra ``[jets]``), `cluster_file` from a file of them.

Formats: our own HDF5 (`Dijets.write`); the LHC Olympics feature files (HDF5 as pandas writes it, columns ``pxj1 pyj1
pzj1 mj1 tau1j1 ...`` and the same for ``j2``, ``label``); parquet with those columns; the LHC Olympics particle files
(n, 2101), which are 700 particles of (pt, eta, phi) and a label, through `read_particles` and `cluster`. The compact
files that come with the package are for `l1ad.search.bundled`, whose `read_any` reads all of these.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError, require
from l1ad.io import atomic_hdf5, atomic_hdf5_checked

FloatArray = npt.NDArray[np.float64]
Jets = npt.NDArray[np.float32]

FORMAT = "l1ad-dijets"
FORMAT_VERSION = 1

#: Edges in GeV of the published overlapping mass bins A and B (arXiv:2412.03747).
EDGES: dict[str, tuple[float, ...]] = {
    "A": (1350, 1650, 2017, 2465, 3013, 3682, 4500, 5500, 8000),
    "B": (1492, 1824, 2230, 2725, 3331, 4071, 4975, 6081, 8000),
}
#: Compressions of HDF5 that are not in h5py, by their registered numbers.
_FILTERS = {305: "lzo", 307: "bzip2", 32001: "blosc", 32004: "lz4", 32015: "zstd", 32026: "blosc2"}
#: Least mass of a jet in GeV: a massless one may come out below 0 by rounding.
_LEAST_MASS = -1e-3
#: Largest |delta eta| of the signal region.
SIGNAL_DELTA_ETA = 1.3
#: |delta eta| of the sideband.
SIDEBAND_DELTA_ETA = (2.0, 2.5)

#: Ratios of N-subjettiness that `Dijets.feature` makes from the stored values.
_RATIOS = {"tau21": ("tau2", "tau1"), "tau32": ("tau3", "tau2"), "tau43": ("tau4", "tau3"), "tau41": ("tau4", "tau1")}


@dataclass(frozen=True)
class MassWindow:
    """A signal window in m_jj with its two neighbours.

    Attributes
    ----------
    name : ``A1`` ... ``A6``, ``B1`` ... ``B6``.
    low, high : of the window, in GeV; low is inside, high is not.
    below, above : the far ends of the lower and the upper sideband.
    """

    name: str
    low: float
    high: float
    below: float
    above: float

    def labels(self, m_jj: npt.ArrayLike) -> npt.NDArray[np.int8]:
        """1 in the window, 0 in a sideband, -1 elsewhere.

        Raises
        ------
        InputError
            If the window or one of the sidebands has no event.
        """
        m = np.asarray(m_jj)
        out = np.full(m.shape, -1, np.int8)
        out[(m >= self.below) & (m < self.above)] = 0
        out[(m >= self.low) & (m < self.high)] = 1
        parts = {
            "window": (self.low, self.high),
            "lower sideband": (self.below, self.low),
            "upper sideband": (self.high, self.above),
        }
        for part, (a, b) in parts.items():
            if not np.any((m >= a) & (m < b)):
                raise InputError(f"mass window {self.name}", part, "no event", f"events in {a:g} to {b:g} GeV")
        return out


def _windows() -> dict[str, MassWindow]:
    out = {}
    for series, edges in EDGES.items():
        for i in range(1, 7):
            out[f"{series}{i}"] = MassWindow(f"{series}{i}", edges[i], edges[i + 1], edges[i - 1], edges[i + 2])
    return out


#: The 12 published signal windows by name.
WINDOWS: dict[str, MassWindow] = _windows()


@dataclass(frozen=True)
class Dijets:
    """Events with two jets.

    Attributes
    ----------
    jets : features of the two jets, shape (n, 2, k); pt, m in GeV. Ordered as stored, by pt in our own files.
    names : the k features; pt, eta, phi and m are always there.
    m_jj : invariant mass in GeV, shape (n,).
    label : 1 signal, 0 background, -1 unknown, shape (n,).
    weight : of the event, shape (n,).
    constituents : px, py, pz in GeV of up to c particles a jet, largest pt first, zeros after the last, shape
        (n, 2, c, 3); None if not stored.
    l1_hw : what the Level-1 trigger saw of the same crossings, hardware codes of shape (n, objects, features) as in
        `l1ad.Events`; None if not stored.
    """

    jets: Jets
    names: tuple[str, ...]
    m_jj: FloatArray
    label: npt.NDArray[np.int8]
    weight: FloatArray
    constituents: Jets | None = None
    l1_hw: npt.NDArray[np.int16] | None = None

    def __post_init__(self) -> None:
        n = len(self.jets)
        if self.jets.ndim != 3 or self.jets.shape[1:] != (2, len(self.names)):
            raise InputError("dijets", "jets", self.jets.shape, f"(n, 2, {len(self.names)})")
        missing = [name for name in ("pt", "eta", "phi", "m") if name not in self.names]
        if missing:
            raise InputError("dijets", "features", list(self.names), f"{', '.join(missing)} among them")
        for name in ("m_jj", "label", "weight"):
            if np.shape(getattr(self, name)) != (n,):
                raise InputError("dijets", name, np.shape(getattr(self, name)), f"({n},)")
        if self.l1_hw is not None and (self.l1_hw.ndim != 3 or len(self.l1_hw) != n):
            raise InputError("dijets", "l1_hw", self.l1_hw.shape, f"({n}, objects, features)")
        parts = self.constituents
        if parts is not None and (parts.ndim != 4 or parts.shape[:2] != (n, 2) or parts.shape[3] != 3):
            raise InputError("dijets", "constituents", parts.shape, f"({n}, 2, particles, 3)")
        self._check_values()

    def _check_values(self) -> None:
        good = np.isfinite(self.jets).all(axis=(1, 2)) & np.isfinite(self.m_jj)
        if not good.all():
            row = int(np.argmin(good))
            raise InputError("dijets", f"event {row}", "a feature that is not finite", "finite values")
        if np.any(self.m_jj < 0):
            row = int(np.argmax(self.m_jj < 0))
            raise InputError("dijets", f"event {row}, m_jj", f"{self.m_jj[row]:g} GeV", "a mass of at least 0")
        mass = self.jets[:, :, self.names.index("m")]
        if np.any(mass < _LEAST_MASS):
            row, jet = (int(i) for i in np.argwhere(mass < _LEAST_MASS)[0])
            found = f"{mass[row, jet]:g} GeV"
            raise InputError("dijets", f"event {row}, mass of jet {jet + 1}", found, "a mass of at least 0")
        if not np.isfinite(self.weight).all():
            row = int(np.argmin(np.isfinite(self.weight)))
            raise InputError("dijets", f"event {row}, weight", f"{self.weight[row]:g}", "a finite number")
        if self.constituents is not None:
            whole = np.isfinite(self.constituents).all(axis=(1, 2, 3))
            if not whole.all():
                row = int(np.argmin(whole))
                raise InputError("dijets", f"event {row}", "a constituent that is not finite", "finite momenta")

    def __len__(self) -> int:
        return len(self.jets)

    def __getitem__(self, rows: Any) -> Dijets:
        """Some of the events: a slice, a mask or indices."""
        return Dijets(
            jets=self.jets[rows],
            names=self.names,
            m_jj=self.m_jj[rows],
            label=self.label[rows],
            weight=self.weight[rows],
            constituents=None if self.constituents is None else self.constituents[rows],
            l1_hw=None if self.l1_hw is None else self.l1_hw[rows],
        )

    @property
    def delta_eta(self) -> FloatArray:
        """|eta1 - eta2|, shape (n,)."""
        eta = self.jets[:, :, self.names.index("eta")].astype(np.float64)
        return np.asarray(np.abs(eta[:, 0] - eta[:, 1]))

    def feature(self, name: str) -> FloatArray:
        """One feature of both jets, shape (n, 2): a stored one, or tau21, tau32, tau43, tau41.

        A ratio whose denominator is 0 (a jet of so few particles that nothing is left to measure) is 0.

        Raises
        ------
        InputError
            If these events have no such feature: the message lists those that they can give.
        """
        if name in self.names:
            return self.jets[:, :, self.names.index(name)].astype(np.float64)
        ratios = [ratio for ratio, needed in _RATIOS.items() if all(part in self.names for part in needed)]
        if name in ratios:
            top, bottom = (self.jets[:, :, self.names.index(part)].astype(np.float64) for part in _RATIOS[name])
            return np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1.0), 0.0)
        raise InputError("dijets", "feature", name, f"one of {', '.join((*self.names, *ratios))}")

    def features(self, names: tuple[str, ...]) -> FloatArray:
        """Several features, shape (n, 2, len(names))."""
        return np.stack([self.feature(name) for name in names], axis=2)

    def heavier_first(self) -> Dijets:
        """The same events with the heavier jet first."""
        mass = self.jets[:, :, self.names.index("m")]
        order = np.argsort(-mass, axis=1, kind="stable")
        jets = np.take_along_axis(self.jets, order[:, :, None], axis=1)
        constituents = self.constituents
        if constituents is not None:
            constituents = np.take_along_axis(constituents, order[:, :, None, None], axis=1)
        return replace(self, jets=jets, constituents=constituents)

    def in_signal_region(self) -> npt.NDArray[np.bool_]:
        """|delta eta| < 1.3."""
        return np.asarray(self.delta_eta < SIGNAL_DELTA_ETA)

    def in_sideband(self) -> npt.NDArray[np.bool_]:
        """2.0 < |delta eta| < 2.5."""
        low, high = SIDEBAND_DELTA_ETA
        return np.asarray((self.delta_eta > low) & (self.delta_eta < high))

    def write(
        self,
        path: str | os.PathLike[str],
        *,
        attributes: Mapping[str, str | float] | None = None,
        half: bool = False,
        more: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> None:
        """Write our HDF5: ``jets``, ``mjj``, ``label``, ``weight``, the names; ``constituents`` and ``l1_hw`` if any.

        `half` stores constituents as 16-bit floats: half the size, momenta to 0.05 %. `more` are further datasets.

        Raises
        ------
        InputError
            If the folder cannot be written or the disk is full; nothing half-written is left.
        """
        with atomic_hdf5(path) as file:
            file.attrs["format"], file.attrs["format_version"] = FORMAT, FORMAT_VERSION
            file.attrs["features"] = list(self.names)
            for key, value in (attributes or {}).items():
                file.attrs[key] = value
            options = {"compression": "gzip", "shuffle": True, "chunks": True} if len(self) else {}
            file.create_dataset("jets", data=self.jets, **options)
            file.create_dataset("mjj", data=self.m_jj, **options)
            file.create_dataset("label", data=self.label, **options)
            file.create_dataset("weight", data=self.weight, **options)
            if self.constituents is not None:
                kept = self.constituents.astype(np.float16) if half else self.constituents
                file.create_dataset("constituents", data=kept, **options)
            if self.l1_hw is not None:
                file.create_dataset("l1_hw", data=self.l1_hw, **options)
            for key, values in (more or {}).items():
                file.create_dataset(key, data=values)


def require_counts(where: str, events: Dijets) -> None:
    """Refuse weighted events where likelihoods count.

    Raises
    ------
    InputError
        If a weight is not 1.
    """
    other = np.flatnonzero(events.weight != 1.0)
    if other.size:
        found = f"{events.weight[other[0]]:g} for event {int(other[0])}"
        raise InputError(where, "weight", found, "1: the fits count events, weighted ones have to be unweighted first")


def concatenate(parts: Sequence[Dijets]) -> Dijets:
    """Several samples as one; features, constituents and Level-1 words that not all have are left out.

    Raises
    ------
    InputError
        If the Level-1 words are of different layouts.
    """
    if not parts:
        raise InputError("dijets", "samples", 0, "at least one")
    names = tuple(n for n in parts[0].names if all(n in p.names for p in parts))
    jets = [p.jets[:, :, [p.names.index(n) for n in names]] for p in parts]
    constituents = None
    if all(p.constituents is not None for p in parts):
        kept = [p.constituents for p in parts if p.constituents is not None]
        shortest = min(c.shape[2] for c in kept)
        constituents = np.concatenate([c[:, :, :shortest] for c in kept])
    words = [p.l1_hw for p in parts if p.l1_hw is not None]
    shapes = sorted({w.shape[1:] for w in words})
    if len(words) == len(parts) and len(shapes) > 1:
        raise InputError("dijets", "l1_hw", " and ".join(map(str, shapes)), "the same objects and features everywhere")
    return Dijets(
        jets=np.concatenate(jets),
        names=names,
        m_jj=np.concatenate([p.m_jj for p in parts]),
        label=np.concatenate([p.label for p in parts]),
        weight=np.concatenate([p.weight for p in parts]),
        constituents=constituents,
        l1_hw=np.concatenate(words) if len(words) == len(parts) else None,
    )


def invariant_mass(jets: npt.ArrayLike) -> FloatArray:
    """Mass in GeV of the sum of two (pt, eta, phi, m), shape (n, 2, 4) -> (n,).

    >>> float(invariant_mass([[[50.0, 0.0, 0.0, 0.0], [50.0, 0.0, np.pi, 0.0]]])[0])
    100.0
    """
    pt, eta, phi, m = np.moveaxis(np.asarray(jets, np.float64), 2, 0)
    px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
    energy = np.sqrt(px**2 + py**2 + pz**2 + m**2)
    squared = energy.sum(axis=1) ** 2 - px.sum(axis=1) ** 2 - py.sum(axis=1) ** 2 - pz.sum(axis=1) ** 2
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)))


def read(path: str | os.PathLike[str], *, start: int = 0, stop: int | None = None) -> Dijets:
    """Dijets of a file: our HDF5, an LHC Olympics feature file, or parquet with the same columns.

    Parameters
    ----------
    start, stop : which events; the message about a bad one counts from `start`.

    Raises
    ------
    InputError
        If the file cannot be read or its content is none of these: a file of particles says how to cluster it. If
        events are wrong: text where numbers belong, a label that is not 1, 0 or -1, datasets of different lengths, and
        what `Dijets` refuses.
    """
    name = os.fspath(path)
    try:
        return _read(name, start, stop)
    except InputError as error:
        if error.where != "dijets":
            raise
        # What is wrong with the events themselves does not know their file.
        raise InputError(name, error.field, error.found, error.expected) from error


def _read(name: str, start: int, stop: int | None) -> Dijets:
    if name.endswith((".parquet", ".pq")):
        return _from_columns(_parquet(name, start, stop), name)
    with _open(name, "a readable HDF5 file, or one ending in .parquet") as file:
        kind = file.attrs.get("format")
        if kind not in (None, FORMAT) and isinstance(kind, str) and kind.startswith(FORMAT):
            raise InputError(name, "format", kind, f"{FORMAT}; l1ad.search.bundled.read_any reads both")
        if "jets" in file and "features" in file.attrs:
            return _own(file, name, start, stop)
        if _find_particles(file) is not None:
            expected = f"jet features; these are particles: l1ad search cluster {name} --out dijets.h5"
            raise InputError(name, "content", "700 particles an event", expected)
        return _from_columns(_pandas_frame(file, name, start, stop), name)


def _open(name: str, expected: str) -> Any:
    import h5py

    try:
        return h5py.File(name, "r")
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error).splitlines()[0]
        raise InputError(name, "file", reason, expected) from error


def _load(node: Any, rows: slice, name: str) -> npt.NDArray[Any]:
    """Rows of an HDF5 dataset of numbers.

    Raises
    ------
    InputError
        If it is none, or is compressed in a way that only a plugin can read, or damaged.
    """
    field = str(node.name).strip("/")
    if not hasattr(node, "dtype") or node.ndim == 0:
        raise InputError(name, field, "a group" if hasattr(node, "keys") else "a single value", "an array")
    if node.dtype.kind not in "biuf":
        raise InputError(name, field, "text or objects", "numbers")
    return np.asarray(_values(node, rows, name))


def _values(node: Any, rows: Any, name: str) -> Any:
    import h5py

    try:
        return node[rows]
    except (OSError, RuntimeError) as error:
        properties = node.id.get_create_plist()
        filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
        unknown = [
            f"{_FILTERS.get(code, 'unknown')} (filter {code})" for code in filters if not h5py.h5z.filter_avail(code)
        ]
        if unknown:
            found = f"the compression {', '.join(unknown)}"
            expected = "none or gzip; a frame of pandas can be written again with complib='zlib'"
        else:
            found, expected = str(error).splitlines()[0], "a file that is whole"
        raise InputError(name, str(node.name).strip("/"), found, expected) from error


def _labels(values: npt.NDArray[Any], name: str, first: int = 0) -> npt.NDArray[np.int8]:
    """Labels as they are kept; `first` is the number of the first event."""
    bad = ~np.isin(values, (-1, 0, 1))
    if bad.any():
        row = int(np.argmax(bad))
        expected = "1 for signal, 0 for background, -1 for unknown"
        raise InputError(name, f"event {first + row}, label", f"{values[row]:g}", expected)
    return values.astype(np.int8)


def read_particles(
    path: str | os.PathLike[str], *, start: int = 0, stop: int | None = None, chunk: int = 10_000
) -> Iterator[tuple[FloatArray, npt.NDArray[np.int8]]]:
    """Particles of an LHC Olympics file: (pt, eta, phi) of shape (m, 700, 3), zeros after the last, and labels (m,).

    Labels are -1 where the file has none (2100 columns: the black boxes).

    Raises
    ------
    InputError
        If the file cannot be read, is not one of particles, or has values that are not finite or labels other than 1, 0
        and -1.
    """
    name = os.fspath(path)
    with _open(name, "a readable HDF5 file") as file:
        dataset = _find_particles(file)
        if dataset is None:
            expected = "a table of 2100 or 2101 columns, 700 particles and a label"
            raise InputError(name, "content", sorted(file), expected)
        end = len(dataset) if stop is None else min(stop, len(dataset))
        for first in range(start, end, chunk):
            rows = _load(dataset, slice(first, min(first + chunk, end)), name).astype(np.float64)
            good = np.isfinite(rows[:, :2100]).all(axis=1)
            if not good.all():
                event = first + int(np.argmin(good))
                raise InputError(name, f"event {event}", "a particle that is not finite", "finite pt, eta and phi")
            labels = _labels(rows[:, 2100], name, first) if rows.shape[1] == 2101 else np.full(len(rows), -1, np.int8)
            yield rows[:, :2100].reshape(-1, 700, 3), labels


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


def _own(file: Any, name: str, start: int, stop: int | None) -> Dijets:
    version = file.attrs.get("format_version", FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise InputError(name, "format_version", version, FORMAT_VERSION)
    names = tuple(v.decode() if isinstance(v, bytes) else str(v) for v in np.atleast_1d(file.attrs["features"]))
    rows = slice(start, stop)
    jets = _load(file["jets"], rows, name).astype(np.float32)
    total = len(file["jets"])
    n = len(jets)
    if jets.ndim != 3 or jets.shape[1:] != (2, len(names)):
        raise InputError(name, "jets", jets.shape, f"(n, 2, {len(names)}), the features it names")

    def column(key: str) -> npt.NDArray[Any] | None:
        if key not in file:
            return None
        node = file[key]
        if len(getattr(node, "shape", ())) > 0 and len(node) != total:
            raise InputError(name, key, f"{len(node)} events", f"{total}, as many as jets")
        return _load(node, rows, name)

    kinematics = [names.index(v) for v in ("pt", "eta", "phi", "m") if v in names]
    if len(kinematics) != 4:
        raise InputError(name, "features", list(names), "pt, eta, phi and m among them")
    mass, label, weight, parts, words = map(column, ("mjj", "label", "weight", "constituents", "l1_hw"))
    for key, values in (("mjj", mass), ("label", label), ("weight", weight)):
        if values is not None and values.ndim != 1:
            raise InputError(name, key, values.shape, "one number an event")
    return Dijets(
        jets=jets,
        names=names,
        m_jj=invariant_mass(jets[:, :, kinematics]) if mass is None else mass.astype(np.float64),
        label=np.full(n, -1, np.int8) if label is None else _labels(label, name),
        weight=np.ones(n) if weight is None else weight.astype(np.float64),
        constituents=None if parts is None else parts.astype(np.float32),
        l1_hw=None if words is None else _words(words, name),
    )


def _words(words: npt.NDArray[Any], name: str) -> npt.NDArray[np.int16]:
    if words.dtype.kind not in "iu" or (words.size and (words.min() < -32768 or words.max() > 32767)):
        raise InputError(name, "l1_hw", words.dtype, "integers of 16 bits: hardware codes")
    return words.astype(np.int16)


#: Columns of a table by name; of one that is no column of numbers, what it is instead.
_Columns = Mapping[str, npt.NDArray[Any] | str]


def _from_columns(columns: _Columns, name: str) -> Dijets:
    """Dijets from LHC Olympics column names; columns of other names are not looked at."""
    needed = [f"{c}j{j}" for j in (1, 2) for c in ("px", "py", "pz", "m")]
    missing = [c for c in needed if c not in columns]
    if missing:
        raise InputError(name, "columns", ", ".join(sorted(columns)) or "none", f"{', '.join(missing)} among them")
    extra = sorted(c[:-2] for c in columns if c.endswith("j1") and c not in needed and f"{c[:-2]}j2" in columns)

    def numbers(column: str) -> FloatArray:
        values = columns[column]
        if isinstance(values, str) or values.dtype.kind not in "biuf" or values.ndim != 1:
            found = values if isinstance(values, str) else f"{values.dtype} {values.shape}"
            raise InputError(name, f"column {column}", found, "one number an event")
        return values.astype(np.float64)

    n = len(numbers(needed[0]))
    jets = np.empty((n, 2, 4 + len(extra)))
    for j in (1, 2):
        px, py, pz, m = (numbers(f"{c}j{j}") for c in ("px", "py", "pz", "m"))
        pt = np.hypot(px, py)
        jets[:, j - 1, 0] = pt
        jets[:, j - 1, 1] = np.arcsinh(pz / np.where(pt > 0, pt, 1.0))
        jets[:, j - 1, 2] = np.arctan2(py, px)
        jets[:, j - 1, 3] = m
        for i, c in enumerate(extra):
            jets[:, j - 1, 4 + i] = numbers(f"{c}j{j}")
    return Dijets(
        jets=jets.astype(np.float32),
        names=("pt", "eta", "phi", "m", *extra),
        m_jj=invariant_mass(jets[:, :, :4]),
        label=_labels(numbers("label"), name) if "label" in columns else np.full(n, -1, np.int8),
        weight=numbers("weight") if "weight" in columns else np.ones(n),
    )


def _parquet(name: str, start: int, stop: int | None) -> _Columns:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(name)
    except (OSError, pyarrow.ArrowException) as error:
        # Of an absent file pyarrow's message is its name alone.
        number = errno.ENOENT if isinstance(error, FileNotFoundError) else getattr(error, "errno", None)
        reason = os.strerror(number) if number else str(error).splitlines()[0]
        raise InputError(name, "file", reason, "a readable parquet file") from error
    length = table.num_rows if stop is None else min(stop, table.num_rows)
    part = table.slice(start, max(length - start, 0))
    types = pyarrow.types
    return {
        column: values.to_numpy()
        if any(is_kind(values.type) for is_kind in (types.is_floating, types.is_integer, types.is_boolean))
        else str(values.type)
        for column, values in zip(part.column_names, part.columns)
    }


def _pandas_frame(file: Any, name: str, start: int, stop: int | None) -> _Columns:
    """Columns of a frame that pandas stored in its fixed format."""
    groups = [g for g in file.values() if hasattr(g, "keys") and "axis0" in g]
    if len(groups) != 1:
        raise InputError(name, "content", sorted(file), "one data frame in pandas' fixed format, or jets and features")
    group = groups[0]
    columns: dict[str, npt.NDArray[Any] | str] = {}
    items: list[str] = []
    for key in sorted(k for k in group if k.startswith("block") and k.endswith("_items")):
        node = group.get(key.replace("_items", "_values"))
        if node is None:
            raise InputError(name, group.name.strip("/"), f"{key} alone", "a data frame in pandas' fixed format")
        own = _items(group[key], name)
        items += own
        if node.dtype.kind not in "biuf":
            # pandas pickles columns of text into one object.
            columns |= dict.fromkeys(own, "text or objects")
            continue
        values = _load(node, slice(start, stop), name)
        if values.ndim != 2 or values.shape[1] != len(own):
            raise InputError(name, node.name.strip("/"), values.shape, f"(n, {len(own)}), a column for each name")
        columns |= {column: values[:, i] for i, column in enumerate(own)}
    twice = sorted({item for item in items if items.count(item) > 1})
    if twice:
        raise InputError(name, "columns", f"{', '.join(twice)} twice", "each name once")
    lengths = sorted({len(values) for values in columns.values() if not isinstance(values, str)})
    if len(lengths) > 1:
        raise InputError(name, "columns", f"lengths {', '.join(map(str, lengths))}", "one length")
    return columns


def _items(node: Any, name: str) -> list[str]:
    """Names of the columns of a block; pandas stores numbers where they are numbers."""
    values = _values(node, (), name)
    return [v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in np.atleast_1d(values)]


def _find_particles(file: Any) -> Any | None:
    """The table of an LHC Olympics particle file, or None."""
    for node in file.values():
        dataset = node.get("block0_values") if hasattr(node, "keys") else node
        if len(getattr(dataset, "shape", ())) == 2 and dataset.shape[1] in (2100, 2101):
            return dataset
    return None
