"""Dijet events: readers, features, mass windows, clustering of particles.

`read` opens any supported file, `Dijets` holds the events, `WINDOWS` are the published mass windows, `cluster` makes
dijets from particles (extra ``[jets]``).

Formats: our own HDF5 (`Dijets.write`); the LHC Olympics feature files (HDF5 as pandas writes it, columns ``pxj1 pyj1
pzj1 mj1 tau1j1 ...`` and the same for ``j2``, ``label``); parquet with those columns; the LHC Olympics particle files
(n, 2101), which are 700 particles of (pt, eta, phi) and a label, through `read_particles` and `cluster`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError, require
from l1ad.io import atomic_hdf5

FloatArray = npt.NDArray[np.float64]
Jets = npt.NDArray[np.float32]

FORMAT = "l1ad-dijets"
FORMAT_VERSION = 1

#: Edges in GeV of the published overlapping mass bins A and B (arXiv:2412.03747).
EDGES: dict[str, tuple[float, ...]] = {
    "A": (1350, 1650, 2017, 2465, 3013, 3682, 4500, 5500, 8000),
    "B": (1492, 1824, 2230, 2725, 3331, 4071, 4975, 6081, 8000),
}
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
        good = np.isfinite(self.jets).all(axis=(1, 2)) & np.isfinite(self.m_jj)
        if not good.all():
            row = int(np.argmin(good))
            raise InputError("dijets", f"event {row}", "a feature that is not finite", "finite values")
        if np.any(self.m_jj < 0):
            row = int(np.argmax(self.m_jj < 0))
            raise InputError("dijets", f"event {row}, m_jj", f"{self.m_jj[row]:g} GeV", "a mass of at least 0")

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
        """
        if name in self.names:
            return self.jets[:, :, self.names.index(name)].astype(np.float64)
        if name in _RATIOS and all(part in self.names for part in _RATIOS[name]):
            top, bottom = (self.jets[:, :, self.names.index(part)].astype(np.float64) for part in _RATIOS[name])
            return np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1.0), 0.0)
        raise InputError("dijets", "feature", name, f"one of {', '.join((*self.names, *_RATIOS))}")

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

    Raises
    ------
    InputError
        If the file cannot be read or its content is none of these; a file of particles says to use `cluster`.
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
    import h5py

    try:
        file = h5py.File(name, "r")
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error).splitlines()[0]
        raise InputError(name, "file", reason, "a readable HDF5 file, or one ending in .parquet") from error
    with file:
        if "jets" in file and "features" in file.attrs:
            return _own(file, name, start, stop)
        columns, values = _pandas_frame(file, name, start, stop)
    if columns is None:
        raise InputError(name, "columns", values.shape[1], "jet features; this is a file of particles, use cluster")
    return _from_columns({c: values[:, i] for i, c in enumerate(columns)}, name)


def read_particles(
    path: str | os.PathLike[str], *, start: int = 0, stop: int | None = None, chunk: int = 10_000
) -> Iterator[tuple[FloatArray, npt.NDArray[np.int8]]]:
    """Particles of an LHC Olympics file: (pt, eta, phi) of shape (m, 700, 3), zeros after the last, and labels (m,).

    Labels are -1 where the file has none (2100 columns: the black boxes).
    """
    import h5py

    name = os.fspath(path)
    try:
        file = h5py.File(name, "r")
    except OSError as error:
        raise InputError(name, "file", error.strerror or str(error).splitlines()[0], "a readable HDF5 file") from error
    with file:
        dataset = _particle_dataset(file, name)
        end = len(dataset) if stop is None else min(stop, len(dataset))
        for first in range(start, end, chunk):
            rows = np.asarray(dataset[first : min(first + chunk, end)], np.float64)
            labels = rows[:, 2100].astype(np.int8) if rows.shape[1] == 2101 else np.full(len(rows), -1, np.int8)
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
    """
    require("fastjet", "jets")
    require("vector", "jets")
    import awkward as ak
    import fastjet
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
    arrays = {k: ak.unflatten(v, counts)[used] for k, v in flat.items()}
    events = ak.to_packed(ak.zip(arrays, with_name="Momentum4D"))
    definition = fastjet.JetDefinition(fastjet.antikt_algorithm, radius)
    sequence = fastjet.ClusterSequence(events, definition)
    jets, parts = sequence.inclusive_jets(min_pt=pt_min), sequence.constituents(min_pt=pt_min)
    two = np.asarray(ak.num(jets) >= 2)
    if not two.any():
        raise InputError("jet clustering", "jets", f"no event with two jets above {pt_min:g} GeV", "at least one")
    order = ak.argsort(jets[two].pt, ascending=False)[:, :2]
    jets, parts = jets[two][order], parts[two][order]
    names = ("pt", "eta", "phi", "m", "tau1", "tau2", "tau3", "tau4", "n_const")
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


def _own(file: Any, name: str, start: int, stop: int | None) -> Dijets:
    version = file.attrs.get("format_version", FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise InputError(name, "format_version", version, FORMAT_VERSION)
    names = tuple(v.decode() if isinstance(v, bytes) else str(v) for v in file.attrs["features"])
    rows = slice(start, stop)
    jets = np.asarray(file["jets"][rows], np.float32)
    n = len(jets)
    if jets.ndim != 3 or jets.shape[1:] != (2, len(names)):
        raise InputError(name, "jets", jets.shape, f"(n, 2, {len(names)}), the features it names")

    def column(key: str, default: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.asarray(file[key][rows]) if key in file else default

    kinematics = [names.index(v) for v in ("pt", "eta", "phi", "m") if v in names]
    if len(kinematics) != 4:
        raise InputError(name, "features", list(names), "pt, eta, phi and m among them")
    mass = column("mjj", np.empty(0))
    return Dijets(
        jets=jets,
        names=names,
        m_jj=mass.astype(np.float64) if mass.size == n else invariant_mass(jets[:, :, kinematics]),
        label=column("label", np.full(n, -1)).astype(np.int8),
        weight=column("weight", np.ones(n)).astype(np.float64),
        constituents=np.asarray(file["constituents"][rows], np.float32) if "constituents" in file else None,
        l1_hw=_words(file, name, rows),
    )


def _words(file: Any, name: str, rows: slice) -> npt.NDArray[np.int16] | None:
    if "l1_hw" not in file:
        return None
    words = np.asarray(file["l1_hw"][rows])
    if words.dtype.kind not in "iu" or (words.size and (words.min() < -32768 or words.max() > 32767)):
        raise InputError(name, "l1_hw", words.dtype, "integers of 16 bits: hardware codes")
    return words.astype(np.int16)


def _from_columns(columns: Mapping[str, npt.NDArray[Any]], name: str) -> Dijets:
    """Dijets from LHC Olympics column names."""
    needed = [f"{c}j{j}" for j in (1, 2) for c in ("px", "py", "pz", "m")]
    missing = [c for c in needed if c not in columns]
    if missing:
        raise InputError(name, "columns", ", ".join(sorted(columns)), f"{', '.join(missing)} among them")
    extra = sorted(c[:-2] for c in columns if c.endswith("j1") and c not in needed and f"{c[:-2]}j2" in columns)
    n = len(columns[needed[0]])
    jets = np.empty((n, 2, 4 + len(extra)))
    for j in (1, 2):
        px, py, pz, m = (np.asarray(columns[f"{c}j{j}"], np.float64) for c in ("px", "py", "pz", "m"))
        pt = np.hypot(px, py)
        jets[:, j - 1, 0] = pt
        jets[:, j - 1, 1] = np.arcsinh(pz / np.where(pt > 0, pt, 1.0))
        jets[:, j - 1, 2] = np.arctan2(py, px)
        jets[:, j - 1, 3] = m
        for i, c in enumerate(extra):
            jets[:, j - 1, 4 + i] = columns[f"{c}j{j}"]
    label = np.asarray(columns["label"], np.int8) if "label" in columns else np.full(n, -1, np.int8)
    return Dijets(
        jets=jets.astype(np.float32),
        names=("pt", "eta", "phi", "m", *extra),
        m_jj=invariant_mass(jets[:, :, :4]),
        label=label,
        weight=np.asarray(columns["weight"], np.float64) if "weight" in columns else np.ones(n),
    )


def _parquet(name: str, start: int, stop: int | None) -> dict[str, npt.NDArray[Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(name)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise InputError(name, "file", str(error).splitlines()[0], "a readable parquet file") from error
    length = table.num_rows if stop is None else min(stop, table.num_rows)
    part = table.slice(start, max(length - start, 0))
    return {c: part.column(c).to_numpy() for c in part.column_names}


def _pandas_frame(file: Any, name: str, start: int, stop: int | None) -> tuple[list[str] | None, npt.NDArray[Any]]:
    """Columns and values of a frame that pandas stored in its fixed format; columns None if they are only numbers."""
    groups = [g for g in file.values() if hasattr(g, "keys") and "axis0" in g]
    if len(groups) != 1:
        raise InputError(name, "content", sorted(file), "one data frame in pandas' fixed format, or jets and features")
    group = groups[0]
    items, blocks = [], []
    for i in range(sum(key.endswith("_values") and key.startswith("block") for key in group)):
        own = group[f"block{i}_items"][()]
        items += [v.decode() if isinstance(v, bytes) else str(v) for v in own]
        try:
            blocks.append(np.asarray(group[f"block{i}_values"][start:stop]))
        except OSError as error:
            expected = "an uncompressed or gzip file; write the frame again with complib='zlib'"
            raise InputError(name, f"block{i}_values", str(error).splitlines()[0], expected) from error
    values = np.concatenate(blocks, axis=1)
    return (None if all(v.lstrip("-").isdigit() for v in items) else items), values


def _particle_dataset(file: Any, name: str) -> Any:
    for group in file.values():
        if hasattr(group, "keys") and "block0_values" in group:
            dataset = group["block0_values"]
            if dataset.ndim == 2 and dataset.shape[1] in (2100, 2101):
                return dataset
        if hasattr(group, "shape") and len(group.shape) == 2 and group.shape[1] in (2100, 2101):
            return group
    raise InputError(name, "content", sorted(file), "a table of 2100 or 2101 columns, 700 particles and a label")
