"""`l1ad data convert` and `l1ad data inspect`."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    del app
