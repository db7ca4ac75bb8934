"""What every reader shares: one file that yields `Events` in pieces, and several such files as one."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError, LayoutError
from l1ad.events.layout import ObjectLayout, get_layout
from l1ad.events.policy import check_saturation_policy
from l1ad.events.store import COLUMN_TYPES, Events, MenuBits, check_chunk_size

if TYPE_CHECKING:
    from typing_extensions import Self

    from l1ad.events.readers import EventSource

CHUNK_EVENTS = 65536


@dataclass(frozen=True)
class Block:
    """Some events as a reader found them.

    Attributes
    ----------
    hw : int16 (N, slots, features).
    columns : per-event numbers (N,) by name.
    bits : menu decisions.
    counts : what had to be changed, by name.
    """

    hw: npt.NDArray[np.int16]
    columns: Mapping[str, npt.NDArray[Any]]
    bits: MenuBits
    counts: Mapping[str, int] = field(default_factory=dict)


class FileSource(abc.ABC):
    """One file of one format, read in pieces; a reader says how in `_blocks`.

    Attributes
    ----------
    path, layout, format_name : see `EventSource`.
    """

    format_name: str

    def __init__(self, path: str | Path, layout: str | ObjectLayout, saturation: str) -> None:
        self.path = str(path)
        self.layout = get_layout(layout)
        self._policy = check_saturation_policy(saturation)
        self._notes: list[str] = []
        self._meta: dict[str, Any] = {}
        self._stack = ExitStack()

    @property
    @abc.abstractmethod
    def n_events(self) -> int | None:
        """Number of events, None where only reading tells."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Things a user should know about this file, in words."""
        return tuple(self._notes)

    @abc.abstractmethod
    def _blocks(self, size: int) -> Iterator[Block]:
        """Pieces of at most `size` events, at least one."""

    def chunks(self, size: int = CHUNK_EVENTS) -> Iterator[Events]:
        """Successive pieces of at most `size` events; at least one, which may be empty.

        Raises
        ------
        InputError
            If the file is damaged or a number in it does not fit its word; the message names file and field. If `size`
            is below 1.
        """
        for block in self._blocks(check_chunk_size(size)):
            meta = {**self._meta, "sources": [Path(self.path).name], "source_format": self.format_name}
            if self._notes:
                meta["notes"] = list(self._notes)
            yield Events.from_arrays(
                block.hw,
                self.layout,
                columns=block.columns,
                menu_bits=block.bits,
                meta={**meta, "counts": {name: int(value) for name, value in block.counts.items()}},
                saturation=self._policy,
                where=self.path,
            )

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def narrow_column(name: str, values: npt.NDArray[Any], *, where: str, field: str) -> npt.NDArray[Any]:
    """A per-event number in the type that the column `name` has in our files.

    The all-ones code of the source's type, which simulation writes where there is no beam, becomes the all-ones code
    of ours.

    Raises
    ------
    InputError
        If the values are not numbers or do not fit.
    """
    target = COLUMN_TYPES.get(name)
    if not (np.issubdtype(values.dtype, np.number) or values.dtype == bool):
        raise InputError(where, field, f"values of type {values.dtype}", "numbers")
    if target is None or np.dtype(target) == values.dtype or np.issubdtype(target, np.floating) or not values.size:
        return values
    if not np.issubdtype(values.dtype, np.integer):
        raise InputError(where, field, f"values of type {values.dtype}", "integers")
    top = np.iinfo(np.dtype(target)).max
    unknown = values == np.iinfo(values.dtype).max
    known = values[~unknown]
    if known.size and (int(known.min()) < 0 or int(known.max()) > int(top)):
        found = int(known.min()) if int(known.min()) < 0 else int(known.max())
        raise InputError(where, field, found, f"0 to {top}")
    return np.where(unknown, np.array(top, dtype=target), values.astype(target))


def only_options(given: Mapping[str, Any], known: Sequence[str], format_name: str) -> dict[str, Any]:
    """The options a format knows.

    Raises
    ------
    InputError
        If another one was set.
    """
    for name, value in given.items():
        if name not in known and value is not None:
            raise InputError("option", name, f"a {format_name} file", "a format that has this option")
    return {name: value for name, value in given.items() if name in known and value is not None}


class JoinedEvents:
    """Several sources one after the other, as one; checks that they go together.

    Each is opened when its turn comes and closed after it, so that any number of files can be joined.

    Raises
    ------
    LayoutError
        If the layouts differ.
    """

    def __init__(
        self, openers: Sequence[Callable[[], EventSource]], *, layout: str | ObjectLayout | None = None
    ) -> None:
        self._openers = list(openers)
        total: int | None = 0
        notes: dict[str, None] = {}
        formats: dict[str, None] = {}
        first: ObjectLayout | None = None
        for opener in self._openers:
            with opener() as source:
                if first is None:
                    first, self.path = source.layout, source.path
                elif source.layout.name != first.name:
                    raise LayoutError(source.path, "layout", source.layout.name, f"{first.name}, as in {self.path}")
                total = None if total is None or source.n_events is None else total + source.n_events
                notes.update(dict.fromkeys(source.notes))
                formats[source.format_name] = None
        assert first is not None, "at least one source"
        if len(self._openers) > 1:
            self.path += f" and {len(self._openers) - 1} more"
        self.layout = _relabelled(first, layout, self.path)
        self.format_name = "+".join(formats)
        self._n_events, self._notes = total, tuple(notes)

    @property
    def n_events(self) -> int | None:
        """Number of events of all sources, None where one does not say."""
        return self._n_events

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes of all sources, each once."""
        return self._notes

    def chunks(self, size: int = CHUNK_EVENTS) -> Iterator[Events]:
        """Successive pieces of at most `size` events, file after file.

        Raises
        ------
        InputError
            If a later file has other columns, seeds or saturation policy than the first: the message names it.
        """
        first: Events | None = None
        for opener in self._openers:
            with opener() as source:
                for events in source.chunks(size):
                    if first is None:
                        first = events[:0]
                    _check_alike(events, first, source.path)
                    meta = events.meta
                    if "sources" not in meta:
                        meta = {**meta, "sources": [Path(source.path).name]}
                    yield Events(events.hw, self.layout, events.columns, events.menu_bits, meta)

    def __enter__(self) -> JoinedEvents:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing stays open between chunks."""


def _relabelled(found: ObjectLayout, wanted: str | ObjectLayout | None, path: str) -> ObjectLayout:
    if wanted is None:
        return found
    layout = get_layout(wanted)
    if layout.groups != found.groups:
        raise LayoutError(path, "layout", found.name, f"{layout.name}, or one with the same words")
    return layout


def _check_alike(events: Events, first: Events, path: str) -> None:
    differing = sorted(set(events.columns) ^ set(first.columns))
    if differing:
        there = "there" if differing[0] in events.columns else "nothing"
        raise InputError(path, f"column {differing[0]}", there, "the same columns as the first file")
    if events.menu_bits.names != first.menu_bits.names:
        expected = f"the same {len(first.menu_bits)} in the same order as the first file"
        raise InputError(path, "menu bits", f"{len(events.menu_bits)} seeds", expected)
    if events.saturation != first.saturation:
        raise InputError(path, "saturation policy", events.saturation, f"{first.saturation}, as in the first file")
