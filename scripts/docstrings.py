"""How the reference reads our docstrings: an extension of Griffe, which mkdocs.yml names.

They are numpydoc with what a parameter means on the line of its name (types stand in the signature), which Griffe would
take for the type; and their examples stand where they belong in the text, which Markdown would take for quotations.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

import griffe

_SECTION = re.compile(r"^(Parameters|Attributes|Returns|Yields|Raises|Examples|Notes|References)\n-+$", re.MULTILINE)
_ITEM = re.compile(r"^(\*{0,2}\w+(?:, \*{0,2}\w+)*) : (.+)$", re.MULTILINE)


def _items(text: str) -> str:
    return _ITEM.sub(r"\1\n    \2", text)


def _examples(text: str) -> str:
    """Doctests in fences; one ends at the next empty line."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(f"```pycon\n{p.strip()}\n```" if p.lstrip().startswith(">>>") else p for p in paragraphs)


def readable(text: str) -> str:
    """A docstring of ours as Griffe's numpydoc parser and Markdown want it."""
    marks = [0, *(m.start() for m in _SECTION.finditer(text)), len(text)]
    head, *sections = (text[a:b] for a, b in itertools.pairwise(marks))
    # What is returned is often one sentence and no name, which would be taken for a type.
    told = [s for s in sections if s.startswith(("Returns", "Yields")) and not _ITEM.search(s)]
    head += "".join("**{}:** {}\n\n".format(*re.split(r"\n-+\n", s.strip(), maxsplit=1)) for s in told)
    named = ("Parameters", "Attributes", "Returns", "Yields")
    rest = (_items(s) if s.startswith(named) else s for s in sections if s not in told)
    return _examples(head) + "".join(rest)


class Docstrings(griffe.Extension):
    """Rewrites each docstring once, when it has been read."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for every object."""
        if obj.docstring:
            obj.docstring.value = readable(obj.docstring.value)
