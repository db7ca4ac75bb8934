"""Steps in a run folder: what has been made from what, and what need not be made again.

A step reads files of earlier steps and parts of the configuration and writes files. ``manifest.json`` holds, for each
step that has finished, a hash of all it read and the hash of each file it wrote; a step whose inputs hash the same and
whose files are as it left them is skipped. A lock keeps two runs out of one folder.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import hashlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l1ad import __version__
from l1ad.errors import InputError
from l1ad.io import make_folder, read_json, remove_parts, sha256_file, sha256_path, write_json

FORMAT = "l1ad-run"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
LOCK = ".lock"


@dataclass(frozen=True)
class Step:
    """One step of a run.

    Attributes
    ----------
    name : the verb.
    about : what it does, in a few words.
    settings : the parts of the configuration it depends on (JSON types).
    reads : files of earlier steps, relative to the run folder.
    external : files outside the run folder.
    run : does it and returns a line on what came out; gets a function that takes lines of progress.
    writes : the files it wrote, relative to the run folder; called after `run`.
    """

    name: str
    about: str
    settings: Any
    reads: tuple[str, ...]
    external: tuple[Path, ...]
    run: Callable[[Callable[[str], None]], str]
    writes: Callable[[], tuple[str, ...]]


@dataclass(frozen=True)
class Done:
    """What became of a step: ``ran`` or ``unchanged``, its line, and the seconds it took."""

    name: str
    state: str
    summary: str
    seconds: float


class RunFolder:
    """A run folder and its manifest.

    Raises
    ------
    InputError
        If the manifest is not one of this version.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file = self.path / MANIFEST
        self.steps: dict[str, dict[str, Any]] = {}
        self._known: dict[tuple[str, int, int], str] = {}
        if self._file.exists():
            value = read_json(self._file)
            if value.get("format") != FORMAT or value.get("format_version") != FORMAT_VERSION:
                found = f"{value.get('format')} {value.get('format_version')}"
                raise InputError(str(self._file), "format", found, f"{FORMAT} {FORMAT_VERSION}")
            self.steps = value["steps"]

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock.

        Raises
        ------
        InputError
            If another process holds it (the message says which), or the folder cannot be written.
        """
        make_folder(self.path)
        try:
            handle = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise InputError(str(self.path), "run folder", error.strerror, "a folder that can be written") from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise InputError(str(self.path), "lock", error.strerror, "a file system with locks") from error
                holder = os.read(handle, 200).decode(errors="replace").strip() or "another process"
                raise InputError(str(self.path), "lock", f"held by {holder}", "one run at a time") from error
            now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
            try:
                os.ftruncate(handle, 0)
                os.write(handle, f"process {os.getpid()} on {socket.gethostname()} since {now}".encode())
            except OSError as error:
                raise InputError(str(self.path), "lock", error.strerror, "a folder that can be written") from error
            # With the lock held, what is half-written is of a run that was killed.
            remove_parts(self.path)
            yield
        finally:
            # The kernel drops the lock of a killed process too; the file itself stays.
            os.close(handle)

    def execute(self, step: Step, *, force: bool, note: Callable[[str], None]) -> Done:
        """Run a step unless nothing it depends on has changed.

        Raises
        ------
        InputError
            If a file that an earlier step wrote is missing or was edited since.
        """
        for name in step.reads:
            self._unedited(name)
        inputs = self._inputs(step)
        known = self.steps.get(step.name)
        if known and known["inputs"] == inputs and not force:
            missing = [name for name in known["outputs"] if not (self.path / name).exists()]
            if not missing:
                for name in known["outputs"]:
                    self._unedited(name)
                return Done(step.name, "unchanged", known["summary"], 0.0)
        start = time.monotonic()
        summary = step.run(note)
        seconds = time.monotonic() - start
        self.steps[step.name] = {
            "inputs": inputs,
            "outputs": {name: sha256_file(self.path / name) for name in step.writes()},
            "summary": summary,
            "seconds": round(seconds, 3),
        }
        write_json(self._file, {"format": FORMAT, "format_version": FORMAT_VERSION, "steps": self.steps})
        return Done(step.name, "ran", summary, seconds)

    def _inputs(self, step: Step) -> str:
        parts = {
            "version": __version__,
            "settings": step.settings,
            "reads": {name: sha256_file(self.path / name) for name in step.reads},
            "external": [[path.name, self._hash_of(path)] for path in step.external],
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _hash_of(self, path: Path) -> str:
        """Hash of a file outside, made once while its size and time stamp stay: several steps read the same events."""
        if not path.is_file():
            return sha256_path(path)
        state = path.stat()
        key = (str(path), state.st_size, state.st_mtime_ns)
        if key not in self._known:
            self._known[key] = sha256_path(path)
        return self._known[key]

    def _unedited(self, name: str) -> None:
        writer = next((s for s, value in self.steps.items() if name in value["outputs"]), None)
        path = self.path / name
        if not path.is_file():
            raise InputError(str(path), "file", "nothing", f"what the step {writer or 'before'} writes: run it again")
        if writer is None:
            return
        found, expected = sha256_file(path), self.steps[writer]["outputs"][name]
        if found != expected:
            wanted = f"{expected[:12]} as the step {writer} left it: edited; `--from {writer}` makes it again"
            raise InputError(str(path), "hash", found[:12], wanted)


def select_steps(steps: tuple[Step, ...], *, first: str | None, last: str | None) -> Mapping[str, bool]:
    """For each step up to `last` whether it is forced: those from `first` on are.

    Raises
    ------
    InputError
        If a name is not a step, or `last` comes before `first`.
    """
    names = [step.name for step in steps]
    for option, value in (("--from", first), ("--until", last)):
        if value is not None and value not in names:
            raise InputError("l1ad run", option, value, f"one of {', '.join(names)}")
    stop = names.index(last) if last else len(names) - 1
    start = names.index(first) if first else len(names)
    if first and start > stop:
        raise InputError("l1ad run", "--until", last, f"{first} or a later step")
    return {name: i >= start for i, name in enumerate(names[: stop + 1])}


def latest_run(below: str | os.PathLike[str] = "runs") -> Path:
    """The run folder below a folder whose trigger was frozen last: what is meant where no trigger is named.

    Raises
    ------
    InputError
        If there is none.
    """
    found = sorted(Path(below).glob("*/trigger.json"), key=lambda path: (path.stat().st_mtime_ns, path))
    if not found:
        raise InputError(str(below), "trigger", "no run with a trigger.json", "one, or --trigger FILE")
    return found[-1].parent
