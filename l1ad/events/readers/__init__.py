"""Readers: one file a format, each an `EventSource` that streams `Events`.

What to use when: `open_events` finds the format by itself and joins several files; the classes behind it are for those
who need an option of one format only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from l1ad.events.layout import ObjectLayout
from l1ad.events.store import Events, EventsFile


class EventSource(Protocol):
    """An opened file (or several) that yields `Events` in order.

    ``n_events`` is None where the format does not say before reading; ``notes`` are things a user should know in
    words, such as a file that has menu bits but no objects.
    """

    path: str
    layout: ObjectLayout
    format_name: str

    @property
    def n_events(self) -> int | None: ...

    @property
    def notes(self) -> tuple[str, ...]: ...

    def chunks(self, size: int = ...) -> Iterator[Events]:
        """Successive pieces of at most `size` events; at least one, which may be empty."""
        ...

    def __enter__(self) -> EventSource: ...

    def __exit__(self, *_: object) -> None: ...


def open_events(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    format: str = "auto",
    saturation: str = "keep",
    **options: Any,
) -> EventSource:
    """Open one or several files of any supported format for streaming."""
    assert isinstance(paths, (str, os.PathLike))
    return EventsFile(paths, saturation=saturation)
