"""The hand-written firmware text: where it lies and how it is filled in.

`read(name)` for the text of one file of `firmware/`, `fill(text, ...)` to replace its ``@NAMES@``. In a checkout the
texts lie in ``firmware/``, in an installed package in ``l1ad/_share/firmware``.
"""

from __future__ import annotations

import re
from pathlib import Path

from l1ad.errors import InputError

_PLACEHOLDER = re.compile(r"@([A-Z][A-Z0-9_]*)@")
_PACKAGE = Path(__file__).resolve().parents[1]


def folder() -> Path:
    """The folder of the firmware texts.

    Raises
    ------
    InputError
        If it is in neither place.
    """
    # A checkout is recognised by its pyproject.toml: another package's `firmware` beside ours is not it.
    checkout = _PACKAGE.parent
    candidates = [_PACKAGE / "_share" / "firmware"]
    if (checkout / "pyproject.toml").is_file():
        candidates.insert(0, checkout / "firmware")
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise InputError("firmware templates", "folder", "none", " or ".join(str(c) for c in candidates))


def read(name: str) -> str:
    """The text of one file, such as ``cmssw/model.cpp``.

    Raises
    ------
    InputError
        If there is no such file.
    """
    path = folder() / name
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(str(path), "template", error.strerror, "a readable file") from error


def fill(text: str, **values: object) -> str:
    """Replace each ``@NAME@`` by ``values["name"]``.

    Raises
    ------
    InputError
        If a placeholder has no value, or a value no placeholder.

    >>> fill("void @TOP@();", top="trigger")
    'void trigger();'
    """
    wanted = {match.lower() for match in _PLACEHOLDER.findall(text)}
    if wanted != set(values):
        raise InputError("template", "placeholders", sorted(set(values)), sorted(wanted))
    return _PLACEHOLDER.sub(lambda match: str(values[match[1].lower()]), text)


def render(name: str, **values: object) -> str:
    """`fill` of `read`.

    Raises
    ------
    InputError
        As they do.
    """
    return fill(read(name), **values)
