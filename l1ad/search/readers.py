"""Readers of dijet files and of particle files.

`read` opens a file of dijets, `read_particles` one of particles.

Formats: our own HDF5 (`Dijets.write`); the LHC Olympics feature files (HDF5 as pandas writes it, columns ``pxj1 pyj1
pzj1 mj1 tau1j1 ...`` and the same for ``j2``, ``label``); parquet with those columns; the LHC Olympics particle files
(n, 2101), which are 700 particles of (pt, eta, phi) and a label, for `l1ad.search.clustering`. The compact files that
come with the package are for `l1ad.search.bundled`, whose `read_any` reads all of these.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.search.jets import FORMAT, FORMAT_VERSION, Dijets, invariant_mass

FloatArray = npt.NDArray[np.float64]

#: Compressions of HDF5 that are not in h5py, by their registered numbers.
_FILTERS = {305: "lzo", 307: "bzip2", 32001: "blosc", 32004: "lz4", 32015: "zstd", 32026: "blosc2"}


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
