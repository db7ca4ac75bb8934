"""Readers: one file a format, each an `EventSource` that streams `Events`.

What to use when: `open_events` finds the format by itself and joins several files; the classes behind it (`AdcFile`,
`OpenDataFile`, `L1NtupleFile`, `NanoFile`, and `EventsFile` for our own) are for those who need one format only;
`adc2021.float_view` gives the physical numbers of the ADC2021 data as published.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from l1ad.errors import InputError
from l1ad.events.layout import ObjectLayout
from l1ad.events.store import Events, EventsFile

#: Options of each format, beside `saturation`.
FORMAT_OPTIONS: dict[str, tuple[str, ...]] = {
    "l1ad": (),
    "adc2021": (),
    "cms_opendata": ("split", "muon_pt"),
    "l1ntuple": ("tree", "seed_names", "muon_pt"),
    "nano": ("muon_pt",),
}


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
    layout: str | ObjectLayout | None = None,
    **options: Any,
) -> EventSource:
    """Open one or several files of any supported format for streaming.

    Parameters
    ----------
    paths : a file, a folder, a glob pattern, or a sequence of these.
    format : ``auto`` looks at the content of each file; or one of ``l1ad``, ``adc2021``, ``cms_opendata``,
        ``l1ntuple``, ``nano``.
    saturation : ``keep``, ``mask`` or ``drop`` (see `l1ad.events.policy.apply_saturation`).
    layout : give the events this layout instead of the format's own; it must have the same words.
    options : ``split`` (cms_opendata), ``tree`` and ``seed_names`` (l1ntuple), ``muon_pt`` (the CMS formats); None
        stands for the default.

    Raises
    ------
    InputError
        If a file is absent, empty, truncated, of no known format or of another one than `format`, if files do not go
        together, or if an option is not one of the format.
    """
    from l1ad.events.readers._files import FORMATS, expand, sniff
    from l1ad.events.readers._source import JoinedEvents

    if format != "auto" and format not in FORMATS:
        raise InputError("option", "format", format, f"auto or one of {', '.join(FORMATS)}")
    openers: list[Callable[[], EventSource]] = []
    for path in expand(paths):
        name = sniff(path)
        if format not in ("auto", name):
            raise InputError(str(path), "format", name, format)
        openers.append(functools.partial(_open_one, path, name, saturation, options))
    if len(openers) == 1 and layout is None:
        return openers[0]()
    return JoinedEvents(openers, layout=layout)


def _open_one(path: Path, format_name: str, saturation: str, options: dict[str, Any]) -> EventSource:
    from l1ad.events.readers._source import only_options

    chosen = only_options(options, FORMAT_OPTIONS[format_name], format_name)
    if format_name == "l1ad":
        return EventsFile(path, saturation=saturation)
    if format_name == "adc2021":
        from l1ad.events.readers.adc2021 import AdcFile

        return AdcFile(path, saturation=saturation)
    if format_name == "cms_opendata":
        from l1ad.events.readers.cms_opendata import OpenDataFile

        return OpenDataFile(path, saturation=saturation, **chosen)
    if format_name == "l1ntuple":
        from l1ad.events.readers.l1ntuple import L1NtupleFile

        return L1NtupleFile(path, saturation=saturation, **chosen)
    from l1ad.events.readers.nano import NanoFile

    return NanoFile(path, saturation=saturation, **chosen)
