"""Writing so that nothing half-written ever carries its final name, and hashing of what was read.

`atomic_path` for a library that wants a path, `write_text`/`write_json` for small files, `sha256_file` for manifests.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from l1ad.errors import InputError


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path in the same folder; renamed to `path` when the block ends well, removed when it does not.

    Raises
    ------
    InputError
        If the folder cannot be written or the disk is full; whatever stood at `path` before is untouched.
    """
    final = Path(path)
    temporary = final.with_name(f".{final.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            os.replace(temporary, final)
        except OSError as error:
            # h5py raises OSError without an errno of its own when the disk fills up.
            reason = error.strerror or str(error).splitlines()[0]
            raise InputError(str(final), "write", reason, "a writable folder with room on the disk") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text in one step (see `atomic_path`)."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write JSON with sorted keys, two spaces and a final newline, in one step: the same value gives the same bytes."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises
    ------
    InputError
        If the file is absent, not UTF-8 or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(str(path), "file", error.strerror or error, "a readable file") from error
    except UnicodeDecodeError as error:
        raise InputError(str(path), "encoding", f"byte {error.start} that is not UTF-8", "UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise InputError(str(path), f"line {error.lineno}", error.msg, "JSON") from error


def sha256_file(path: str | os.PathLike[str], *, block_bytes: int = 1 << 22) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(block_bytes):
            digest.update(block)
    return digest.hexdigest()
