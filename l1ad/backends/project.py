"""A project folder: the files of one back end for one trigger, and a note of which.

`prepare` before anything is written, `finish` at the end, `open_project` to come back. The folder holds a copy of
``trigger.json``, so that it can be scored and checked without anything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.io import read_json, write_json
from l1ad.scores import SCORE_BITS
from l1ad.trigger.graph import Program
from l1ad.trigger.program import Trigger

FORMAT = "l1ad-project"
FORMAT_VERSION = 1
NOTE = "project.json"


@dataclass(frozen=True)
class Project:
    """What `open_project` found.

    Attributes
    ----------
    folder : where.
    trigger : of the folder.
    options : what the project was made with (JSON types).
    """

    folder: Path
    trigger: Trigger
    options: Mapping[str, Any]


def prepare(folder: Path, trigger: Trigger, backend: str) -> None:
    """Make the folder, or check that it may be written again.

    Raises
    ------
    InputError
        If it holds a project of another trigger or back end, or something that is no project at all, or a threshold is
        not one of a score.
    """
    for name, threshold in trigger.thresholds.items():
        # One above the largest score switches a seed off; a negative one would be a huge unsigned word.
        if not 0 <= threshold <= 1 << SCORE_BITS:
            raise InputError(trigger.name, f"threshold {name}", threshold, f"0 to {1 << SCORE_BITS}, which never fires")
    note = folder / NOTE
    if note.is_file():
        value = read_json(note)
        if value.get("backend") != backend:
            raise InputError(str(folder), "project", f"one of back end {value.get('backend')}", backend)
        if value.get("hash") != trigger.hash:
            found = f"a project of trigger {str(value.get('hash'))[:12]}"
            raise InputError(str(folder), "hash", found, f"{trigger.hash[:12]}: remove the folder or choose another")
    elif folder.is_dir() and any(folder.iterdir()):
        raise InputError(str(folder), "folder", f"files but no {NOTE}", "an empty folder, or a project of this trigger")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(str(folder), "folder", error.strerror, "a folder that can be made") from error


def finish(folder: Path, trigger: Trigger, backend: str, options: Mapping[str, Any]) -> None:
    """Write the trigger and, last, the note: a folder without it is not taken for a project."""
    trigger.save(folder / "trigger.json")
    note = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "backend": backend,
        "trigger": trigger.name,
        "hash": trigger.hash,
        "options": dict(options),
    }
    write_json(folder / NOTE, note)


def open_project(folder: Path, backend: str) -> Project:
    """The project in a folder.

    Raises
    ------
    InputError
        If there is none, it is of another back end, or its trigger is not the one it was made from.
    """
    value = read_json(folder / NOTE)
    for field, expected in (("format", FORMAT), ("format_version", FORMAT_VERSION), ("backend", backend)):
        found = value.get(field) if isinstance(value, dict) else None
        if found != expected:
            raise InputError(str(folder / NOTE), field, found, expected)
    trigger = Trigger.load(folder / "trigger.json")
    if trigger.hash != value.get("hash"):
        raise InputError(str(folder), "trigger.json", f"trigger {trigger.hash[:12]}", str(value.get("hash"))[:12])
    return Project(folder, trigger, value["options"])


def golden_vectors(program: Program, n: int, *, seed: int = 20240501) -> npt.NDArray[np.int64]:
    """Inputs (n, inputs) for the test bench of a project: random legal codes of every density, and the corners.

    The first rows are all zero, all lowest, all highest, and the highest code of one input at a time.
    """
    rng = np.random.default_rng(seed)
    words = program.layout.input_words
    low, high = (np.array([getattr(w, end) for w in words], dtype=np.int64) for end in ("code_min", "code_max"))
    codes = rng.integers(low, high + 1, size=(n, len(words)))
    # Real crossings have few and soft objects: squeeze the codes of an event by up to ten powers of two.
    codes = np.where(codes >= 0, codes >> rng.integers(0, 11, (n, 1)), -(-codes >> rng.integers(0, 11, (n, 1))))
    corners = np.vstack([np.zeros_like(low), low, high, np.diag(high)])[:n]
    codes[: len(corners)] = corners
    return codes
