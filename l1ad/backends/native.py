"""Compiling and running the C++ of the back ends.

`compile_program` for one executable, `run_logged` for any other command, `score_events` to score with an executable in
several processes. A failed compile keeps its log and shows the last lines.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError, L1adError, MissingToolError
from l1ad.io import read_json, write_json, write_text

#: Events a process gets at a time; fewer than two of these are not worth a second process.
CHUNK_EVENTS = 20_000
#: -O1 compiles a third faster than -O2 and runs as fast: nearly all of it is inlined integer arithmetic.
FLAGS = ("-std=c++17", "-O1", "-fPIC", "-Wno-unknown-pragmas")


class BuildError(L1adError):
    """A compile that failed: the message names the log and ends with its last lines."""


def find_compiler() -> str:
    """The C++ compiler: that of the environment's CXX, or g++, c++ or clang++.

    Raises
    ------
    MissingToolError
        If there is none.
    """
    given = os.environ.get("CXX")
    for name in (given,) if given else ("g++", "c++", "clang++"):
        found = shutil.which(name)
        if found:
            return found
    what = f"C++ compiler {given} of the variable CXX" if given else "C++ compiler (g++, c++, clang++)"
    raise MissingToolError(f"no {what} on PATH: install g++ 9 or later (Debian: apt install g++ make)")


def ap_types(path: str | os.PathLike[str] | None = None) -> Path:
    """The folder with ``ap_fixed.h``: `path`, or the headers that hls4ml ships.

    Raises
    ------
    InputError
        If `path` has no ap_fixed.h.
    MissingToolError
        If no path is given and hls4ml is not installed.
    """
    if path is not None:
        if not (Path(path) / "ap_fixed.h").is_file():
            raise InputError(str(path), "ap_types", "no ap_fixed.h", "the include folder of the ap_types")
        return Path(path).resolve()
    # find_spec does not import: hls4ml costs seconds, and only its headers are wanted.
    spec = importlib.util.find_spec("hls4ml")
    for location in (spec.submodule_search_locations or []) if spec else []:
        headers = Path(location) / "templates" / "vivado" / "ap_types"
        if (headers / "ap_fixed.h").is_file():
            return headers
    raise MissingToolError("no ap_types headers: pip install hls4ml==1.3.0, or name a folder with ap_fixed.h")


def run_logged(
    command: Sequence[str], *, cwd: Path, log: Path, what: str, env: Mapping[str, str] | None = None
) -> None:
    """Run a command with its output in `log`.

    Raises
    ------
    BuildError
        If it fails: the message names the log and shows its last ten lines.
    """
    with open(log, "w", encoding="utf-8") as stream:
        stream.write(" ".join(command) + "\n")
        stream.flush()
        merged = None if env is None else {**os.environ, **env}
        done = subprocess.run(command, cwd=cwd, stdout=stream, stderr=subprocess.STDOUT, env=merged, check=False)
    if done.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:]
        raise BuildError("\n".join([f"{what} failed (exit status {done.returncode}); log: {log}", *lines]))


def sources_hash(folder: Path, files: Iterable[str], *extra: str) -> str:
    """SHA-256 of the named files of a folder and of what else decides the result of a compile."""
    digest = hashlib.sha256()
    for name in sorted(files):
        content = (folder / name).read_bytes()
        digest.update(f"{name}:{len(content)}:".encode() + content)
    digest.update("\0".join(extra).encode())
    return digest.hexdigest()


def up_to_date(stamp: Path, product: Path, fingerprint: str) -> bool:
    """Whether `product` exists and `stamp` says that it was built from `fingerprint`."""
    if not (product.is_file() and stamp.is_file()):
        return False
    return bool(read_json(stamp).get("sources") == fingerprint)


def stamp_build(stamp: Path, fingerprint: str) -> None:
    """Say what a product was built from."""
    write_json(stamp, {"sources": fingerprint})


def compile_program(
    folder: Path,
    sources: Sequence[str],
    output: str,
    *,
    headers: Sequence[str],
    include: Sequence[Path],
    flags: Sequence[str] = FLAGS,
    what: str = "compile",
) -> Path:
    """Compile `sources` of `folder` into the executable ``folder/output``, unless that is already done.

    Each source is compiled in a process of its own, so that their times add up on one core only.

    Raises
    ------
    BuildError
        If the compiler fails; the log is ``folder/output.log``.
    MissingToolError
        If there is no compiler.
    """
    compiler = find_compiler()
    product = folder / output
    product.parent.mkdir(parents=True, exist_ok=True)
    stamp = product.with_name(product.name + ".build.json")
    fingerprint = sources_hash(folder, [*sources, *headers], compiler, *flags)
    if up_to_date(stamp, product, fingerprint):
        return product
    paths = [f"-I{path}" for path in include]
    objects = [f"{output}.{i}.o" for i in range(len(sources))]

    def translate(i: int) -> None:
        command = [compiler, *flags, "-I.", *paths, "-c", sources[i], "-o", objects[i]]
        run_logged(command, cwd=folder, log=folder / f"{output}.{i}.log", what=f"{what} of {sources[i]}")

    with ThreadPoolExecutor(max_workers=available_cpus()) as pool:
        list(pool.map(translate, range(len(sources))))
    link = [compiler, *objects, "-ldl", "-o", output]
    run_logged(link, cwd=folder, log=product.with_name(product.name + ".log"), what=f"linking of {output}")
    for name in objects:
        (folder / name).unlink()
    stamp_build(stamp, fingerprint)
    return product


def available_cpus() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def score_events(
    command: Sequence[str | os.PathLike[str]],
    inputs: npt.NDArray[np.integer[Any]],
    columns: int,
    *,
    workers: int | None = None,
    cwd: Path | None = None,
) -> npt.NDArray[np.int64]:
    """Run ``command CODES RESULTS`` on chunks of the events, several at a time.

    CODES holds little-endian int32 (n, inputs), RESULTS little-endian int64 (n, columns). Chunks come back in order, so
    the result does not depend on the number of processes.

    Returns
    -------
    (N, columns) int64.

    Raises
    ------
    BuildError
        If the program fails: its last ten lines of output are shown.
    """
    codes = np.ascontiguousarray(inputs, dtype="<i4")
    result = np.empty((len(codes), columns), dtype=np.int64)
    starts = range(0, len(codes), CHUNK_EVENTS)
    with tempfile.TemporaryDirectory(prefix="l1ad-") as scratch:

        def run(start: int) -> None:
            source, target = Path(scratch, f"{start}.codes"), Path(scratch, f"{start}.results")
            chunk = codes[start : start + CHUNK_EVENTS]
            chunk.tofile(source)
            arguments = [*(os.fspath(part) for part in command), str(source), str(target)]
            done = subprocess.run(arguments, cwd=cwd, capture_output=True, text=True, errors="replace", check=False)
            if done.returncode:
                last = (done.stdout + done.stderr).splitlines()[-10:]
                raise BuildError("\n".join([f"{arguments[0]} failed (exit status {done.returncode})", *last]))
            values = np.fromfile(target, dtype="<i8")
            if values.size != len(chunk) * columns:
                found = f"{values.size} numbers for {len(chunk)} events"
                raise BuildError(f"{arguments[0]}: {found}, expected {columns} an event")
            result[start : start + len(chunk)] = values.reshape(len(chunk), columns)
            source.unlink()
            target.unlink()

        with ThreadPoolExecutor(max_workers=workers or available_cpus()) as pool:
            list(pool.map(run, starts))
    return result


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write texts below `folder`, each in one step."""
    for name, text in files.items():
        write_text(folder / name, text)
