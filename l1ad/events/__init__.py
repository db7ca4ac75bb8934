"""Crossings in hardware integers.

What to use when: `Events.read(path)` for a file that fits in memory, `open_events(paths)` to go through any number of
files in chunks, `EventsWriter` to write as you go; `layout` for what the integers mean, `policy` for what happens to
saturated, unsorted or surplus objects.
"""

from l1ad.events.layout import LAYOUTS, ObjectGroup, ObjectLayout, Word, get_layout
from l1ad.events.readers import EventSource, open_events
from l1ad.events.store import Events, EventsFile, EventsWriter, MenuBits

__all__ = [
    "LAYOUTS",
    "EventSource",
    "Events",
    "EventsFile",
    "EventsWriter",
    "MenuBits",
    "ObjectGroup",
    "ObjectLayout",
    "Word",
    "get_layout",
    "open_events",
]
