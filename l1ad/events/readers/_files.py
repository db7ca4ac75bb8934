"""Which files a path means, and which format a file has: told by its content, never by its name alone."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py

from l1ad.errors import InputError
from l1ad.events.store import FORMAT, open_hdf5, text_attribute

SUFFIXES = (".h5", ".hdf5", ".parquet", ".root")
FORMATS = ("l1ad", "adc2021", "cms_opendata", "l1ntuple", "nano")

#: Folders of the open data that hold one kind of column each (as in the Zenodo record).
OBJECT_FOLDERS = ("jets", "egammas", "muons", "MET")

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_PARQUET_MAGIC = b"PAR1"
_ROOT_MAGIC = b"root"


def expand(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The files that paths, folders and glob patterns mean, in the order given and sorted within each.

    A folder stands for the data files below it; a folder with one subfolder an object (``jets``, ``muons``, ...) stands
    for itself. Files below a folder called ``seeds`` belong to the files beside that folder and are not listed.

    Raises
    ------
    InputError
        If a path does not exist, or a folder or pattern has no data file.
    """
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not given:
        raise InputError("paths", "files", "none", "one at least")
    files: list[Path] = []
    for entry in given:
        text = os.fspath(entry)
        path = Path(text)
        if path.is_dir():
            found = sorted(_walk(path))
            if not found:
                raise InputError(text, "folder", "no data file", f"files ending in {', '.join(SUFFIXES)}")
            files += found
        elif path.exists():
            files.append(path)
        elif glob.has_magic(text):
            matches = sorted(glob.glob(text, recursive=True))
            if not matches:
                raise InputError(text, "pattern", "no file", "one at least")
            files += expand(matches)
        else:
            raise InputError(text, "file", "no such file", "a data file, a folder or a pattern")
    return files


def is_object_folder(path: Path) -> bool:
    """Whether a folder holds one subfolder an object, each with parquet shards."""
    return path.is_dir() and all((path / name).is_dir() for name in OBJECT_FOLDERS)


def _walk(folder: Path) -> Iterator[Path]:
    if is_object_folder(folder):
        yield folder
        return
    for entry in folder.iterdir():
        if entry.is_dir():
            if entry.name != "seeds":
                yield from _walk(entry)
        elif entry.suffix.lower() in SUFFIXES and not entry.name.startswith("."):
            yield entry


def sniff(path: Path) -> str:
    """The format of a file, one of `FORMATS`, from its first bytes and the names inside.

    Raises
    ------
    InputError
        If the file is empty, truncated or of none of the formats.
    """
    if is_object_folder(path):
        return "cms_opendata"
    try:
        with open(path, "rb") as stream:
            head = stream.read(8)
    except OSError as error:
        raise InputError(str(path), "file", error.strerror or error, "a readable file") from error
    expected = "HDF5 (l1ad or ADC2021), parquet (CMS open data) or ROOT (L1Ntuple or NanoAOD)"
    if not head:
        raise InputError(str(path), "file", "0 bytes", expected)
    if head.startswith(_PARQUET_MAGIC):
        return "cms_opendata"
    if head == _HDF5_MAGIC:
        with open_hdf5(path) as file:
            if text_attribute(file, "format") == FORMAT:
                return "l1ad"
            if "Particles" in file:
                return "adc2021"
            found = ", ".join(sorted(file)[:5]) or "nothing"
            raise InputError(str(path), "HDF5 contents", found, f"the attribute format = {FORMAT}, or /Particles")
    if head.startswith(_ROOT_MAGIC):
        with open_root(path) as file:
            names = {name.split(";")[0] for name in file.keys(recursive=True)}
        if any(name.startswith(("l1UpgradeTree/", "l1UpgradeEmuTree/")) for name in names):
            return "l1ntuple"
        if "Events" in names:
            return "nano"
        found = ", ".join(sorted(names)[:5]) or "nothing"
        trees = "l1UpgradeTree or l1UpgradeEmuTree (L1Ntuple), or Events (NanoAOD)"
        raise InputError(str(path), "ROOT contents", found, trees)
    raise InputError(str(path), "first bytes", head[:4].hex(" "), expected)


def open_hdf5_dataset(file: h5py.File, name: str, path: str) -> h5py.Dataset:
    """A data set of an open file.

    Raises
    ------
    InputError
        If there is no data set of that name.
    """
    if name not in file or not isinstance(file[name], h5py.Dataset):
        raise InputError(path, f"/{name}", ", ".join(sorted(file)[:5]) or "nothing", f"a data set {name}")
    return file[name]


def open_root(path: str | os.PathLike[str]) -> Any:
    """Open a ROOT file.

    Raises
    ------
    InputError
        If it is absent, empty, truncated or not ROOT.
    """
    import uproot

    try:
        size = os.path.getsize(path)
        with open(path, "rb") as stream:
            head = stream.read(4)
    except OSError as error:
        raise InputError(str(path), "file", error.strerror or error, "a ROOT file") from error
    if not size:
        raise InputError(str(path), "file", "0 bytes", "a ROOT file")
    if head != _ROOT_MAGIC:
        raise InputError(str(path), "first bytes", head.hex(" "), "a ROOT file")
    with root_errors(str(path), "header"):
        # A Path, since a colon in a text would be taken for the name of an object inside.
        file = uproot.open(Path(path), handler=uproot.MemmapSource)
    end = int(file.file.fEND)
    if end > size:
        file.close()
        raise InputError(str(path), "file", f"a truncated file of {size} bytes", f"{end} bytes")
    return file


@contextlib.contextmanager
def root_errors(path: str, field: str) -> Iterator[None]:
    """Turn what uproot raises on a damaged file into one line."""
    import struct
    import zlib

    from isal import isal_zlib

    # The stubs of isal do not say that its error is an exception.
    unpacking: Any = (zlib.error, isal_zlib.error)
    # A damaged file can fail at any depth of uproot and numpy: a wrong length, a missing member, an absurd size.
    contents = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, struct.error)
    states = (AssertionError, RuntimeError, MemoryError)
    known: Any = (OSError, EOFError, *unpacking, *contents, *states)
    try:
        yield
    except InputError:
        raise
    except known as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(path, field, f"damaged data ({reason[:80]})", "a complete ROOT file") from error
