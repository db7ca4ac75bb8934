"""Every error that a user can cause.

The command line prints the message of a `L1adError` as one line and exits with its `exit_status`; anything else is a
defect of ours and shows a traceback.
"""

from __future__ import annotations

from typing import ClassVar


class L1adError(Exception):
    """Base of all errors that are the input's or the environment's, not ours."""

    exit_status: ClassVar[int] = 2


class InputError(L1adError):
    """Input that cannot be used: names the file, the field, what was found and what was expected."""

    def __init__(self, where: str, field: str = "", found: object = None, expected: object = None) -> None:
        parts = [str(where)]
        if field:
            parts.append(field)
        text = ": ".join(parts)
        if found is not None:
            text += f": found {found}"
        if expected is not None:
            text += f", expected {expected}" if found is not None else f": expected {expected}"
        super().__init__(" ".join(text.split()))
        self.where, self.field, self.found, self.expected = str(where), field, found, expected


class LayoutError(InputError):
    """Codes that do not fit the words of a layout, or layouts that do not match."""


class ConfigError(InputError):
    """A configuration with an unknown key or a value that cannot work."""


class TriggerError(InputError):
    """A trigger file or program that is not valid, or thresholds that belong to another trigger."""


class MissingToolError(L1adError):
    """A program or optional package that is not installed: the message says what to install."""


class CheckFailed(L1adError):
    """A check ran to its end and its answer is no (exit status 1)."""

    exit_status: ClassVar[int] = 1


def require(module: str, extra: str) -> object:
    """Import an optional dependency, or say in one line which extra brings it.

    Raises
    ------
    MissingToolError
        If `module` is not installed.
    """
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingToolError(f"{module} is not installed: pip install 'l1ad[{extra}]' ({error})") from error
