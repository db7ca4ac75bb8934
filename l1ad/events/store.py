"""`Events`: crossings in hardware integers with their per-event columns, and their file.

`Events` in memory, `EventsFile` for a file that is read in pieces, `EventsWriter` for one that is written in pieces.

The file is HDF5 and needs nothing but h5py to be read (format version 1):

==================  =====================  ==========================================================================
name                type and shape         meaning
==================  =====================  ==========================================================================
``/hw``             int16 (N, slots,       hardware codes in the order of the layout
                    features)
``/columns/NAME``   number (N,)            ``run lumi bx orbit event n_pv weight`` and any further per-event number
``/menu/bits``      uint8 (N, ceil(S/8))   menu decisions, bit ``s % 8`` of byte ``s // 8`` (little bit order)
``/menu/names``     string (S,)            seed names
attributes          of the file            ``format`` = ``l1ad-events``, ``format_version``, ``layout``, ``meta`` (JSON)
==================  =====================  ==========================================================================
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, get_args

import h5py
import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError, LayoutError
from l1ad.events.layout import ObjectLayout, get_layout
from l1ad.events.policy import SaturationPolicy, add_counts, apply_saturation, check_saturation_policy, sort_objects
from l1ad.io import atomic_hdf5_checked

FORMAT = "l1ad-events"
FORMAT_VERSION = 1
CHUNK_EVENTS = 16384
#: Events written at once: whole chunks, so that the bytes do not depend on the pieces given to a writer.
BLOCK_EVENTS = 8 * CHUNK_EVENTS

#: Types of the columns that every part of the project knows by name.
COLUMN_TYPES: dict[str, npt.DTypeLike] = {
    "run": np.uint32,
    "lumi": np.uint32,
    "bx": np.uint16,
    "orbit": np.uint32,
    "event": np.uint64,
    "n_pv": np.float32,
    "weight": np.float64,
}

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class MenuBits(Mapping[str, BoolArray]):
    """Menu decisions by seed name, eight to the byte.

    Attributes
    ----------
    names : seed names, in bit order.
    packed : uint8 (N, ceil(len(names) / 8)), little bit order.
    """

    names: tuple[str, ...]
    packed: npt.NDArray[np.uint8]

    @classmethod
    def empty(cls, n_events: int) -> MenuBits:
        """No seeds at all."""
        return cls((), np.zeros((n_events, 0), dtype=np.uint8))

    @classmethod
    def from_bools(cls, bits: Mapping[str, npt.ArrayLike], n_events: int) -> MenuBits:
        """Pack boolean arrays (N,) by seed name.

        Raises
        ------
        LayoutError
            If an array does not have one entry an event.
        """
        names = tuple(bits)
        if not names:
            return cls.empty(n_events)
        packed = np.zeros((n_events, (len(names) + 7) // 8), dtype=np.uint8)
        # Byte by byte: eight passes over contiguous memory are several times faster than filling a table by column.
        for first in range(0, len(names), 8):
            byte = np.zeros(n_events, dtype=np.uint8)
            for shift, name in enumerate(names[first : first + 8]):
                column = np.asarray(bits[name])
                if column.shape != (n_events,):
                    raise LayoutError("menu_bits", name, f"shape {column.shape}", f"({n_events},)")
                byte |= column.astype(bool, copy=False).view(np.uint8) << np.uint8(shift)
            packed[:, first // 8] = byte
        return cls(names, packed)

    def __getitem__(self, name: str) -> BoolArray:
        try:
            index = self._index[name]
        except KeyError:
            raise LayoutError("menu_bits", "seed", name, f"one of the {len(self.names)} seeds of the data") from None
        return np.asarray((self.packed[:, index // 8] >> np.uint8(index % 8)) & 1, dtype=bool)

    @property
    def _index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def n_events(self) -> int:
        """Number of events."""
        return len(self.packed)

    def take(self, index: Any) -> MenuBits:
        """The same seeds for the events that a slice, mask or index array selects."""
        return MenuBits(self.names, self.packed[index])

    def any_of(self, names: Iterable[str] | None = None) -> BoolArray:
        """OR of the seeds called `names` (all of them by default), (N,)."""
        result = np.zeros(self.n_events, dtype=bool)
        for name in self.names if names is None else names:
            result |= self[name]
        return result


@dataclass(frozen=True, eq=False, repr=False)
class Events:
    """N crossings in hardware integers with their columns. Make one with `from_arrays` or `read`.

    Attributes
    ----------
    hw : int16 (N, slots, features), codes in the order of `layout`.
    layout : what the codes mean.
    columns : per-event numbers (N,) by name.
    menu_bits : decisions of trigger seeds by name.
    meta : where the events come from and what was done to them (JSON types); ``saturation`` is the policy that was
        applied, ``counts`` what it and the readers changed.
    """

    hw: npt.NDArray[np.int16]
    layout: ObjectLayout
    columns: Mapping[str, npt.NDArray[Any]]
    menu_bits: MenuBits
    meta: Mapping[str, Any] = field(default_factory=dict)

    # ------------------------------------------------------------------ making

    @classmethod
    def from_arrays(
        cls,
        hw: npt.ArrayLike,
        layout: str | ObjectLayout = "cms_ugt",
        *,
        weight: npt.ArrayLike | None = None,
        n_pv: npt.ArrayLike | None = None,
        columns: Mapping[str, npt.ArrayLike] | None = None,
        menu_bits: Mapping[str, npt.ArrayLike] | MenuBits | None = None,
        meta: Mapping[str, Any] | None = None,
        saturation: str = "keep",
        where: str = "hw",
    ) -> Events:
        """Check codes and order and make `Events` of plain arrays.

        Parameters
        ----------
        hw : integers (N, slots, features).
        layout : a layout or its name.
        weight, n_pv : (N,); event weight (1 without it) and number of primary vertices or average pile-up.
        columns : further per-event numbers by name.
        menu_bits : boolean arrays (N,) by seed name.
        meta : provenance, kept with the file.
        saturation : ``keep``, ``mask`` or ``drop`` (see `l1ad.events.policy.apply_saturation`).
        where : what error messages call the input.

        Raises
        ------
        LayoutError
            If a code does not fit its word, a shape does not match or a column is NaN.
        """
        layout = get_layout(layout)
        codes = np.asarray(hw)
        layout.check(codes, where=where)
        codes = codes.astype(np.int16, copy=False)
        n = len(codes)
        table: dict[str, npt.NDArray[Any]] = {}
        given = dict(columns or {})
        for name, extra in (("weight", weight), ("n_pv", n_pv)):
            if extra is not None:
                given[name] = extra
        for name, values in given.items():
            table[name] = _column(name, values, n, where)
        bits = menu_bits if isinstance(menu_bits, MenuBits) else MenuBits.from_bools(menu_bits or {}, n)
        if bits.n_events != n:
            raise LayoutError(where, "menu bits", f"{bits.n_events} events", f"{n} events")
        policy = check_saturation_policy(saturation)
        codes, n_unsorted = sort_objects(codes, layout)
        codes, keep, counts = apply_saturation(codes, layout, policy)
        info = dict(meta or {})
        info["saturation"] = policy
        info["counts"] = add_counts(info.get("counts", {}), counts, {"unsorted_events": n_unsorted})
        if policy == "mask" and counts["saturated_objects"]:
            # Zeroed objects leave a hole that the firmware would not have: close it again.
            codes, _ = sort_objects(codes, layout)
        events = cls(codes, layout, table, bits, info)
        return events if keep.all() else events[keep]

    @classmethod
    def concatenate(cls, parts: Sequence[Events]) -> Events:
        """One `Events` of several, in order; counts are added up, sources listed.

        Raises
        ------
        LayoutError
            If there is nothing to join, or layouts, saturation policies, columns or seeds differ.
        """
        if not parts:
            raise LayoutError("concatenate", "events", "no parts", "one at least")
        first = parts[0]
        for other in parts[1:]:
            if other.layout.name != first.layout.name:
                raise LayoutError("concatenate", "layout", other.layout.name, first.layout.name)
            if other.saturation != first.saturation:
                raise LayoutError("concatenate", "saturation policy", other.saturation, first.saturation)
            if set(other.columns) != set(first.columns):
                raise LayoutError("concatenate", "columns", sorted(other.columns), sorted(first.columns))
            if other.menu_bits.names != first.menu_bits.names:
                raise LayoutError(
                    "concatenate", "menu bits", f"{len(other.menu_bits)} seeds", f"the same {len(first.menu_bits)}"
                )
        meta = dict(first.meta)
        meta["counts"] = add_counts(*(part.meta.get("counts", {}) for part in parts))
        for name in ("sources", "notes"):
            joined = list(dict.fromkeys(text for part in parts for text in part.meta.get(name, [])))
            if joined:
                meta[name] = joined
        return cls(
            np.concatenate([part.hw for part in parts]),
            first.layout,
            {name: np.concatenate([part.columns[name] for part in parts]) for name in first.columns},
            MenuBits(first.menu_bits.names, np.concatenate([part.menu_bits.packed for part in parts])),
            meta,
        )

    # ------------------------------------------------------------------ looking

    def __len__(self) -> int:
        return len(self.hw)

    def __repr__(self) -> str:
        columns = ", ".join(self.columns) or "no columns"
        return f"Events({len(self)} x {self.layout.name}, {columns}, {len(self.menu_bits)} seeds)"

    def __getitem__(self, index: Any) -> Events:
        """Events that a slice, boolean mask or index array selects (a single integer keeps the event axis).

        Raises
        ------
        LayoutError
            If a mask has not one entry an event, or the index is neither of these.
        IndexError
            If a number is beyond the last event.
        """
        if isinstance(index, (int, np.integer)) and not isinstance(index, bool):
            index = _one(int(index), len(self))
        elif not isinstance(index, slice):
            index = np.asarray(index)
            if index.dtype == bool and index.shape != (len(self),):
                raise LayoutError("mask", "shape", index.shape, f"({len(self)},)")
            if not index.size:
                index = index.astype(np.int64)  # an empty list has no type of its own
            if index.ndim != 1 or not np.issubdtype(index.dtype, (np.bool_ if index.dtype == bool else np.integer)):
                found = f"{index.dtype} of shape {index.shape}"
                raise LayoutError("events", "index", found, "a number, a slice, a mask or a list of numbers")
        columns = {name: values[index] for name, values in self.columns.items()}
        return Events(self.hw[index], self.layout, columns, self.menu_bits.take(index), self.meta)

    def chunks(self, size: int) -> Iterator[Events]:
        """Successive pieces of `size` events; the last may be shorter, and without events there is one empty piece.

        The counts of what was changed stay with the first piece, so that joining the pieces gives the same counts.

        Raises
        ------
        InputError
            If `size` is below 1.
        """
        for start in range(0, max(len(self), 1), check_chunk_size(size)):
            piece = self[start : start + size]
            yield piece if not start else replace(piece, meta=_without_counts(self.meta))

    @property
    def weight(self) -> npt.NDArray[np.float64]:
        """Event weights (N,), 1 where none were given."""
        values = self.columns.get("weight")
        return np.ones(len(self)) if values is None else values

    @property
    def n_pv(self) -> npt.NDArray[np.float32] | None:
        """Number of primary vertices or average pile-up (N,); None if the data does not say."""
        return self.columns.get("n_pv")

    @property
    def saturation(self) -> str:
        """The policy that was applied to saturated objects: keep, mask or drop."""
        return str(self.meta.get("saturation", "keep"))

    @property
    def inputs(self) -> npt.NDArray[np.int16]:
        """The network inputs (N, inputs) in slot order, as hardware codes."""
        flat = self.hw.reshape(len(self), -1)
        index = self.layout.input_index
        return flat if len(index) == flat.shape[1] else flat[:, index]

    def physical(self) -> npt.NDArray[np.float64]:
        """GeV, pseudorapidity and radians in [0, 2 pi), (N, slots, features)."""
        return self.hw.astype(np.float64) * self.layout.lsb

    def objects(self, name: str) -> npt.NDArray[np.int16]:
        """Codes of one object type, (N, count, features)."""
        self.layout.group(name)
        return self.hw[:, self.layout.slices[name]]

    def with_columns(self, **columns: npt.ArrayLike) -> Events:
        """The same events with further or replaced columns."""
        table = dict(self.columns)
        table.update({name: _column(name, values, len(self), "columns") for name, values in columns.items()})
        return Events(self.hw, self.layout, table, self.menu_bits, self.meta)

    def with_menu_bits(self, bits: Mapping[str, npt.ArrayLike] | MenuBits, *, origin: str) -> Events:
        """The same events with other menu decisions; `origin` says where they come from."""
        packed = bits if isinstance(bits, MenuBits) else MenuBits.from_bools(bits, len(self))
        return Events(self.hw, self.layout, self.columns, packed, {**self.meta, "menu_origin": origin})

    # ------------------------------------------------------------------ files

    @classmethod
    def read(
        cls, path: str | os.PathLike[str], *, format: str = "auto", saturation: str = "keep", **options: Any
    ) -> Events:
        """Read a whole file of any supported format (see `l1ad.events.readers`).

        Raises
        ------
        InputError
            If the file cannot be read; the message names file, field, found and expected.
        """
        from l1ad.events.readers import open_events

        with open_events(path, format=format, saturation=saturation, **options) as source:
            if isinstance(source, EventsFile):
                return source[:]
            return cls.concatenate(list(source.chunks()))

    def write(self, path: str | os.PathLike[str], *, compression: str | None = None) -> None:
        """Write HDF5 (see the module's table); ``compression="gzip"`` is three times smaller and slower to read.

        Raises
        ------
        InputError
            If the folder cannot be written or the disk is full; nothing half-written remains.
        """
        with EventsWriter(path, compression=compression) as writer:
            writer.append(self)


def _one(index: int, n: int) -> slice:
    """The range of one event. IndexError past the end is what ends a loop over events."""
    if not -n <= index < n:
        raise IndexError(f"event {index} of {n}")
    return slice(index, index + 1 or None)


def check_chunk_size(size: int) -> int:
    """The size itself.

    Raises
    ------
    InputError
        If a piece of that size has no event: nothing would be read, and nobody told.
    """
    if size < 1:
        raise InputError("chunks", "size", size, "1 event or more")
    return size


def _without_counts(meta: Mapping[str, Any]) -> dict[str, Any]:
    return {**meta, "counts": dict.fromkeys(meta.get("counts", {}), 0)}


def _is_number(dtype: np.dtype[Any]) -> bool:
    """Integers, floats and booleans: what a per-event number may be."""
    return any(np.issubdtype(dtype, kind) for kind in (np.bool_, np.integer, np.floating))


def _column(name: str, values: npt.ArrayLike, n: int, where: str) -> npt.NDArray[Any]:
    array = np.asarray(values)
    if array.shape != (n,):
        raise LayoutError(where, f"column {name}", f"shape {array.shape}", f"({n},)")
    if not _is_number(array.dtype):
        raise LayoutError(where, f"column {name}", array.dtype, "numbers")
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        raise LayoutError(where, f"column {name}", "NaN or infinity", "finite numbers")
    target = COLUMN_TYPES.get(name)
    if target is None or array.dtype == target:
        return array
    if np.issubdtype(target, np.integer) and n:
        limits, low, high = np.iinfo(np.dtype(target)), array.min(), array.max()
        if low < limits.min or high > limits.max:
            found = low if low < limits.min else high
            raise LayoutError(where, f"column {name}", found, f"{limits.min} to {limits.max}")
        if np.issubdtype(array.dtype, np.floating) and (array != np.rint(array)).any():
            raise LayoutError(where, f"column {name}", array[array != np.rint(array)][0], "whole numbers")
    return array.astype(target, copy=False)


class EventsWriter(AbstractContextManager["EventsWriter"]):
    """Write `Events` piece by piece; the file gets its name when the block ends well.

    The first piece fixes layout, columns and seeds; `append` checks the others against it. `compression` is None
    (fastest) or ``gzip``. The bytes of the file depend on the events only, not on how they were cut into pieces. A full
    disk ends the block with an `InputError`.
    """

    def __init__(self, path: str | os.PathLike[str], *, compression: str | None = None) -> None:
        if compression not in (None, "gzip"):
            raise InputError(str(path), "compression", compression, "none or gzip")
        self._options: dict[str, Any] = {"compression": "gzip", "shuffle": True} if compression else {}
        self._path = path
        self._file: h5py.File | None = None
        self._check_disk: Callable[[], None] = lambda: None
        self._meta: dict[str, Any] = {}
        self._stack = contextlib.ExitStack()
        self._first: Events | None = None
        self._waiting: list[Events] = []
        self._written = 0
        self.n_events = 0

    def __enter__(self) -> EventsWriter:
        if os.path.isdir(self._path):
            # Said before the work, not after it.
            raise InputError(str(self._path), "write", "a folder", "the name of a file")
        self._file, self._check_disk = self._stack.enter_context(atomic_hdf5_checked(self._path))
        return self

    def append(self, events: Events) -> None:
        """Add events at the end.

        Raises
        ------
        LayoutError
            If layout, saturation policy, columns or seeds differ from those of the first piece.
        """
        assert self._file is not None, "use EventsWriter as a context manager"
        if self._first is None:
            self._first = events[:0]
            self._meta = dict(events.meta)
            self._create(events)
        else:
            head = replace(self._first, meta=self._meta)
            self._meta = dict(Events.concatenate([head, events[:0]]).meta)
        self._waiting.append(replace(events, meta={}))
        self.n_events += len(events)
        if self.n_events - self._written >= BLOCK_EVENTS:
            self._flush()

    def _flush(self, *, last: bool = False) -> None:
        """Write what waits in blocks of one size, the remainder only at the end."""
        assert self._file is not None
        if not self._waiting:
            return
        events = self._waiting[0] if len(self._waiting) == 1 else Events.concatenate(self._waiting)
        stop = len(events) if last else len(events) - len(events) % BLOCK_EVENTS
        for start in range(0, stop, BLOCK_EVENTS):
            self._write(events[start : min(start + BLOCK_EVENTS, stop)])
            self._check_disk()
        self._waiting = [events[stop:]] if stop < len(events) else []

    def _write(self, events: Events) -> None:
        assert self._file is not None
        start, stop = self._written, self._written + len(events)
        arrays = {"hw": events.hw, "menu/bits": events.menu_bits.packed}
        arrays.update({f"columns/{name}": events.columns[name] for name in sorted(events.columns)})
        for name, values in arrays.items():
            if name in self._file:
                dataset = self._file[name]
                dataset.resize(stop, axis=0)
                dataset[start:stop] = values
        self._written = stop

    def _create(self, events: Events) -> None:
        assert self._file is not None

        def dataset(name: str, like: npt.NDArray[Any]) -> None:
            shape = like.shape[1:]
            assert self._file is not None
            self._file.create_dataset(
                name,
                shape=(0, *shape),
                maxshape=(None, *shape),
                chunks=(CHUNK_EVENTS, *shape),
                dtype=like.dtype,
                track_times=False,
                **self._options,
            )

        dataset("hw", events.hw)
        # By name, which is the order in which they are read back.
        for name in sorted(events.columns):
            dataset(f"columns/{name}", events.columns[name])
        if events.menu_bits.names:
            dataset("menu/bits", events.menu_bits.packed)
            names = np.array(events.menu_bits.names, dtype=object)
            self._file.create_dataset("menu/names", data=names, dtype=h5py.string_dtype(), track_times=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        if error is not None:
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            if self._first is None:
                raise InputError(str(self._path), "events", "none", "at least one piece")
            self._flush(last=True)
            attributes = self._file.attrs
            attributes["format"] = FORMAT
            attributes["format_version"] = FORMAT_VERSION
            attributes["layout"] = self._first.layout.name
            attributes["meta"] = json.dumps(self._meta, sort_keys=True, allow_nan=False)


class EventsFile:
    """An events file of ours, opened: read it piece by piece without holding it in memory.

    Raises
    ------
    InputError
        If the file is absent, truncated, not HDF5, not of this format, or of a newer version.
    """

    format_name = "l1ad"

    def __init__(self, path: str | os.PathLike[str], *, saturation: str = "keep") -> None:
        self.path = str(path)
        self._policy = check_saturation_policy(saturation)
        self._file = open_hdf5(path)
        try:
            self._check()
        except BaseException:
            self._file.close()
            raise

    def _check(self) -> None:
        found = text_attribute(self._file, "format")
        if found != FORMAT:
            raise InputError(self.path, "attribute format", found, FORMAT)
        version = text_attribute(self._file, "format_version")
        if version != str(FORMAT_VERSION):
            raise InputError(self.path, "attribute format_version", version, FORMAT_VERSION)
        try:
            self.layout = get_layout(text_attribute(self._file, "layout"))
        except LayoutError as error:
            raise InputError(self.path, "attribute layout", error.found, error.expected) from None
        self.meta = self._read_meta()
        slots, features = self.layout.shape
        hw = self._dataset("hw")
        if hw.ndim != 3 or hw.shape[1:] != (slots, features) or hw.dtype != np.int16:
            raise InputError(self.path, "/hw", f"{hw.dtype} {hw.shape}", f"int16 (N, {slots}, {features})")
        self.n_events = int(hw.shape[0])
        columns = self._file.get("columns", {})
        if isinstance(columns, h5py.Dataset):
            raise InputError(self.path, "/columns", "a data set", "a group of data sets")
        self.column_names = tuple(columns)
        for name in self.column_names:
            column = self._dataset(f"columns/{name}")
            if column.shape != (self.n_events,):
                raise InputError(self.path, f"/columns/{name}", f"shape {column.shape}", f"({self.n_events},)")
            if not _is_number(column.dtype):
                raise InputError(self.path, f"/columns/{name}", f"values of type {column.dtype}", "numbers")
        self.menu_names: tuple[str, ...] = ()
        if "menu" in self._file:
            seeds = self._dataset("menu/names")
            if seeds.ndim != 1 or h5py.check_string_dtype(seeds.dtype) is None:
                raise InputError(self.path, "/menu/names", f"{seeds.dtype} {seeds.shape}", "strings (S,)")
            self.menu_names = tuple(seeds.asstr()[:])
            if len(set(self.menu_names)) < len(self.menu_names):
                twice = next(name for name in self.menu_names if self.menu_names.count(name) > 1)
                raise InputError(self.path, "/menu/names", f"{twice} twice", "each seed once")
            bits, expected = self._dataset("menu/bits"), (self.n_events, (len(self.menu_names) + 7) // 8)
            if bits.shape != expected or bits.dtype != np.uint8:
                raise InputError(self.path, "/menu/bits", f"{bits.dtype} {bits.shape}", f"uint8 {expected}")

    def _read_meta(self) -> dict[str, Any]:
        """What the file says of itself, with the entries that we use in the form that we write."""
        try:
            meta = json.loads(text_attribute(self._file, "meta", "{}"))
        except json.JSONDecodeError as error:
            raise InputError(self.path, "attribute meta", str(error), "JSON") from error
        if not isinstance(meta, dict):
            raise InputError(self.path, "attribute meta", f"a JSON {type(meta).__name__}", "a JSON object")
        for name in ("sources", "notes"):
            texts = meta.get(name, [])
            if not (isinstance(texts, list) and all(isinstance(text, str) for text in texts)):
                raise InputError(self.path, f"attribute meta, {name}", json.dumps(texts)[:40], "a list of texts")
        counts = meta.get("counts", {})
        if not (isinstance(counts, dict) and all(type(value) is int for value in counts.values())):
            raise InputError(self.path, "attribute meta, counts", json.dumps(counts)[:40], "whole numbers by name")
        policy = meta.get("saturation", "keep")
        if policy not in get_args(SaturationPolicy):
            raise InputError(self.path, "attribute meta, saturation", json.dumps(policy)[:40], "keep, mask or drop")
        return meta

    def _dataset(self, name: str) -> Any:
        found = self._file.get(name)
        if not isinstance(found, h5py.Dataset):
            raise InputError(self.path, f"/{name}", "a group" if found is not None else "nothing", "a data set")
        return found

    def __len__(self) -> int:
        return self.n_events

    def __enter__(self) -> EventsFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def notes(self) -> tuple[str, ...]:
        """Things a user should know about this file, in words: those that were written with it."""
        return tuple(str(note) for note in self.meta.get("notes", ()))

    def __getitem__(self, index: slice | int) -> Events:
        """Read a range of events, or one.

        Raises
        ------
        InputError
            If the file is damaged, a code in it does not fit its word, or the index is not a range without steps.
        IndexError
            If a number is beyond the last event.
        """
        if isinstance(index, (int, np.integer)):
            index = _one(int(index), self.n_events)
        if not isinstance(index, slice):
            raise InputError(self.path, "index", type(index).__name__, "a range (read the file for masks and lists)")
        start, stop, step = index.indices(self.n_events)
        if step != 1:
            raise InputError(self.path, "slice", f"step {step}", "step 1")
        return self._read(start, max(start, stop), first=True)

    def _read(self, start: int, stop: int, *, first: bool) -> Events:
        try:
            hw = self._file["hw"][start:stop]
            columns = {name: self._file["columns"][name][start:stop] for name in self.column_names}
            if self.menu_names:
                bits = MenuBits(self.menu_names, self._file["menu/bits"][start:stop])
            else:
                bits = MenuBits.empty(stop - start)
        except (OSError, RuntimeError) as error:
            raise InputError(self.path, "data", str(error).splitlines()[0], "a complete file") from error
        meta = dict(self.meta) if first else _without_counts(self.meta)
        if self._policy == "keep":
            # What was written was sorted and carries its policy already: only the numbers are checked again.
            self.layout.check(hw, where=self.path)
            columns = {name: _column(name, values, len(hw), self.path) for name, values in columns.items()}
            return Events(hw, self.layout, columns, bits, meta)
        previous = meta.pop("saturation", "keep")
        if previous not in ("keep", self._policy):
            raise InputError(self.path, "saturation policy", previous, f"keep, to apply {self._policy}")
        # They are counted afresh.
        meta["counts"] = {k: v for k, v in meta.get("counts", {}).items() if k != "saturated_objects"}
        return Events.from_arrays(
            hw,
            self.layout,
            columns=columns,
            menu_bits=bits,
            meta=meta,
            saturation=self._policy,
            where=self.path,
        )

    def chunks(self, size: int = CHUNK_EVENTS * 8) -> Iterator[Events]:
        """Successive pieces of at most `size` events; one empty piece if the file has none.

        The counts in the file stay with the first piece, so that joining the pieces gives the same counts.
        """
        for start in range(0, max(self.n_events, 1), check_chunk_size(size)):
            yield self._read(start, min(start + size, self.n_events), first=not start)


def text_attribute(file: h5py.File, name: str, default: str = "nothing") -> str:
    """An attribute of a file as text whatever its type: a text that C wrote is bytes, an array is shown as one."""
    value = file.attrs.get(name, default)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def open_hdf5(path: str | os.PathLike[str]) -> h5py.File:
    """Open an HDF5 file for reading.

    Raises
    ------
    InputError
        If it is absent, empty, truncated or not HDF5.
    """
    try:
        size = os.path.getsize(path)
        if os.path.isdir(path):
            raise InputError(str(path), "file", "a folder", "an HDF5 file")
        if not size:
            raise InputError(str(path), "file", "0 bytes", "an HDF5 file")
        return h5py.File(path, "r")
    except OSError as error:
        text = error.strerror or str(error)
        found = "a truncated file" if "truncated" in text else "no such file" if error.errno == 2 else "not HDF5"
        raise InputError(str(path), "file", found, "an HDF5 file") from error
