"""Writing so that nothing half-written ever carries its final name, and hashing of what was read.

`atomic_path` for a library that wants a path, `atomic_hdf5` for HDF5, `write_text`/`write_json` for small files,
`make_folder` for a folder, `sha256_file` and `sha256_path` for manifests.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from l1ad.errors import InputError

#: What the temporary name of a file that is being written ends in; it begins with a dot.
PART = ".part"


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path in the same folder; renamed to `path` when the block ends well, removed when it does not.

    Raises
    ------
    InputError
        If the folder cannot be written or the disk is full; whatever stood at `path` before is untouched.
    """
    final = Path(path)
    temporary = final.with_name(f".{final.name}.{os.getpid()}-{secrets.token_hex(4)}{PART}")
    try:
        make_folder(final.parent)
        try:
            yield temporary
            os.replace(temporary, final)
        except OSError as error:
            # h5py raises OSError without an errno of its own when the disk fills up.
            reason = error.strerror or str(error).splitlines()[0]
            raise InputError(str(final), "write", reason, "a writable folder with room on the disk") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


class _Sink(io.RawIOBase):
    """A file in which writing never fails: the first error is kept in `error`, and what comes after it is dropped.

    HDF5 cannot close a file that it cannot write: it raises from destructors, or crashes.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        self._at = 0
        self.error: OSError | None = None

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at}.get(whence)
        self._at = (os.fstat(self._descriptor).st_size if base is None else base) + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = os.pread(self._descriptor, len(view), self._at)
        # What was dropped reads as zeros.
        view[:] = data.ljust(len(view), b"\0")
        self._at += len(view)
        return len(view)

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(view) and self.error is None:
                done += os.pwrite(self._descriptor, view[done:], self._at + done)
        except OSError as error:
            self.error = error
        self._at += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        wanted = self._at if size is None else size
        try:
            os.ftruncate(self._descriptor, wanted)
        except OSError as error:
            self.error = self.error or error
        return wanted

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


@contextlib.contextmanager
def atomic_hdf5(path: str | os.PathLike[str]) -> Iterator[Any]:
    """An `h5py.File` to write into, which gets its name when the block ends well (see `atomic_path`).

    Raises
    ------
    InputError
        If the folder cannot be written or the disk is full.
    """
    with atomic_hdf5_checked(path) as (file, _):
        yield file


@contextlib.contextmanager
def atomic_hdf5_checked(path: str | os.PathLike[str]) -> Iterator[tuple[Any, Callable[[], None]]]:
    """`atomic_hdf5` for a writer that takes long: the file, and a call that ends the block if the disk is full."""
    import h5py

    with atomic_path(path) as temporary, contextlib.closing(_Sink(temporary)) as sink:

        def check() -> None:
            if sink.error is not None:
                raise sink.error

        with h5py.File(sink, "w") as file:
            yield file, check
        check()


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Make a folder and those above it, if they are not there.

    Raises
    ------
    InputError
        If it cannot be made: the message names the file that is in the way, if one is.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        in_the_way = next((p for p in (folder, *folder.parents) if p.exists() and not p.is_dir()), None)
        if in_the_way is not None:
            raise InputError(str(in_the_way), "folder", "a file of that name", "a folder or nothing") from error
        raise InputError(str(folder), "folder", error.strerror or error, "a place that can be written") from error
    return folder


def require_folder(path: str | os.PathLike[str]) -> None:
    """Check, before hours of work, that a folder can be written or made; makes nothing.

    Raises
    ------
    InputError
        If something else stands there, or nothing can be written.
    """
    folder = Path(path)
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not there.is_dir():
        raise InputError(str(there), "folder", "a file of that name", "a folder or nothing")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(str(folder), "folder", f"{there}, which cannot be written", "a place that can be written")


def remove_parts(folder: str | os.PathLike[str]) -> int:
    """Remove what writers that were killed have left below a folder, and return how many files that were.

    Nobody else may be writing there.
    """
    left = list(Path(folder).rglob(f".*{PART}"))
    for path in left:
        with contextlib.suppress(OSError):
            path.unlink()
    return len(left)


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


def sha256_path(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, or of the names and hashes of all files below a folder.

    Raises
    ------
    InputError
        If something cannot be read.
    """
    given = Path(path)
    try:
        if not given.is_dir():
            return sha256_file(given)
        files = sorted(file for file in given.rglob("*") if file.is_file())
        listing = [(file.relative_to(given).as_posix(), sha256_file(file)) for file in files]
    except OSError as error:
        raise InputError(str(path), "file", error.strerror or error, "a readable file") from error
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()
