"""Compiling a kernel once, keeping it in a cache, loading it.

`load(program, ...)` gives a `Kernel`. The cache is ``$L1AD_CACHE``, else ``$XDG_CACHE_HOME/l1ad``, else
``~/.cache/l1ad``; an entry's name is a hash of the program, the row it reads, the level, the compiler and its version,
its flags and this package's generator, so that nothing stale is ever found. Entries are written under another name and
renamed: processes that build the same one at the same time do not disturb each other. Each ends with the SHA-256 of
what comes before, since loading half a library ends the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError, MissingToolError, TriggerError
from l1ad.io import atomic_path
from l1ad.trigger.emulate.codegen import generate
from l1ad.trigger.emulate.writer import LEVELS, Level
from l1ad.trigger.graph import Program

#: Compilers that are looked for, in this order; ``$CC`` goes before them.
COMPILERS = ("cc", "gcc", "clang")

#: Events on which a new kernel is compared with the golden program.
VERIFY_EVENTS = 1000

BASE_FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-shared")
_LEVEL_FLAGS: dict[Level, tuple[str, ...]] = {
    "portable": (),
    "avx2": ("-mavx2",),
    "avx512": ("-mavx2", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mprefer-vector-width=512"),
}
_LEVEL_FLAGS["avx512vnni"] = (*_LEVEL_FLAGS["avx512"], "-mavx512vnni")
_LEVEL_CPU: dict[Level, set[str]] = {
    "portable": set(),
    "avx2": {"avx2"},
    "avx512": {"avx2", "avx512f", "avx512bw", "avx512vl", "avx512dq"},
}
_LEVEL_CPU["avx512vnni"] = _LEVEL_CPU["avx512"] | {"avx512_vnni"}


def cache_folder() -> Path:
    """Where kernels are kept."""
    if given := os.environ.get("L1AD_CACHE"):
        return Path(given)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "l1ad"
    return Path("~").expanduser() / ".cache" / "l1ad"


@functools.lru_cache(maxsize=1)
def cpu_flags() -> frozenset[str]:
    """Flags of the processor that the kernel of the operating system allows; empty where it does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "flags":
            return frozenset(value.split())
    return frozenset()


def supported_levels() -> tuple[Level, ...]:
    """Instruction-set levels that this machine runs, slowest first."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return ("portable",)
    return tuple(level for level in LEVELS if _LEVEL_CPU[level] <= cpu_flags())


def choose_level(isa: str | None) -> Level:
    """The level called `isa`, or the fastest of this machine.

    Raises
    ------
    TriggerError
        If it is unknown or the machine does not run it.
    """
    levels = supported_levels()
    if isa is None:
        return levels[-1]
    for level in levels:
        if level == isa:
            return level
    raise TriggerError("option", "isa", isa, f"one that this machine runs: {', '.join(levels)}")


def find_compiler() -> str | None:
    """Path of the system's C compiler, ``$CC`` first; None if there is none."""
    for name in (os.environ.get("CC", ""), *COMPILERS):
        if name and (path := shutil.which(name)):
            return path
    return None


@functools.lru_cache(maxsize=8)
def _compiler_version(path: str, changed: float) -> str:
    del changed  # a compiler that is replaced has another time
    try:
        result = subprocess.run([path, "--version"], capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise MissingToolError(f"{path}: the C compiler does not run: {error}") from error
    return result.stdout.partition("\n")[0]


@functools.lru_cache(maxsize=1)
def _generator_digest() -> str:
    digest = hashlib.sha256()
    package = resources.files("l1ad.trigger")
    # Every module of the emulation, so that none is forgotten that the source of a kernel depends on.
    parts = [*package.joinpath("emulate").iterdir(), *package.joinpath("csrc").iterdir()]
    for part in sorted((p for p in parts if p.name.endswith((".py", ".h"))), key=lambda p: p.name):
        digest.update(part.name.encode() + b"\n" + part.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Recipe:
    """What a kernel is built from: enough to name its cache entry without generating it.

    Attributes
    ----------
    program : the arithmetic.
    columns : position of each network input in a row.
    row_words : int16 words in a row.
    level : instruction set.
    """

    program: Program
    columns: tuple[int, ...]
    row_words: int
    level: Level

    @property
    def _identity(self) -> tuple[object, ...]:
        return (self.program.hash, self.columns, self.row_words, self.level)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    def source(self) -> str:
        """The C source (see `l1ad.trigger.emulate.codegen.generate`)."""
        return generate(
            self.program,
            level=self.level,
            columns=np.array(self.columns, dtype=np.int64),
            row_words=self.row_words,
        )

    def key(self, compiler: str, flags: Sequence[str]) -> str:
        """Name of the cache entry."""
        version = _compiler_version(compiler, os.path.getmtime(compiler))
        parts = (
            self.program.hash,
            repr(self.columns),
            str(self.row_words),
            self.level,
            version,
            " ".join(flags),
            platform.machine(),
            _generator_digest(),
        )
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class Kernel:
    """A compiled kernel: `score` rows of hardware words.

    Attributes
    ----------
    level : the instruction set it was compiled for.
    row_words : int16 words it expects in a row.
    """

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.level = recipe.level
        self.row_words = recipe.row_words
        if not _is_whole(path):
            raise OSError(f"{path.name} is damaged")
        library = ctypes.CDLL(str(path))
        self._entries: dict[np.dtype[Any], Any] = {}
        for dtype, name in ((np.int32, "l1ad_score32"), (np.int64, "l1ad_score64")):
            entry = getattr(library, name)
            entry.restype = ctypes.c_int64
            entry.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
            self._entries[np.dtype(dtype)] = entry

    def score(self, rows: npt.NDArray[np.int16], scores: npt.NDArray[Any]) -> int:
        """Score rows (N, row_words) into `scores` (N,) int32 or int64; returns how many hold an impossible word.

        Such rows get the score `l1ad.trigger.emulate.codegen.NO_SCORE`. The global interpreter lock is free meanwhile.

        Raises
        ------
        ValueError
            If an array is not what the compiled code takes: it would read or write beside it.
        """
        entry = self._entries.get(scores.dtype)
        if rows.dtype != np.int16 or rows.ndim != 2 or rows.shape[1] != self.row_words or rows.strides[1] != 2:
            raise ValueError(f"rows: {rows.dtype} {rows.shape}, strides {rows.strides}")
        if entry is None or scores.shape != (len(rows),) or not scores.flags.c_contiguous or rows.strides[0] % 2:
            raise ValueError(f"scores: {scores.dtype} {scores.shape}")
        if not scores.flags.writeable:
            raise ValueError("scores: read-only")
        bad = int(entry(rows.ctypes.data, len(rows), rows.strides[0] // 2, scores.ctypes.data))
        if bad < 0:
            raise MemoryError("the kernel's working memory")
        return bad


def compile_source(source: str, output: Path, *, compiler: str, flags: Sequence[str]) -> None:
    """Compile C into a shared library.

    Raises
    ------
    MissingToolError
        If the compiler fails; the message has its first line.
    """
    with tempfile.TemporaryDirectory(prefix="l1ad-") as folder:
        file = Path(folder) / "kernel.c"
        file.write_text(source, encoding="utf-8")
        command = [compiler, *flags, "-o", str(output), str(file)]
        try:
            result = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise MissingToolError(f"{compiler}: the C compiler does not run: {error}") from error
    if result.returncode:
        first = next((line for line in result.stderr.splitlines() if "error" in line), result.stderr[:200])
        raise MissingToolError(f"{compiler}: cannot compile the kernel: {first.strip()}")


def is_built(recipe: Recipe) -> bool:
    """Whether the cache has a kernel that this compiler would make."""
    compiler = find_compiler()
    try:
        return compiler is not None and _target(recipe, compiler, None)[0].is_file()
    except (MissingToolError, OSError):
        return False


def _target(recipe: Recipe, compiler: str, folder: Path | None) -> tuple[Path, tuple[str, ...]]:
    flags = (*BASE_FLAGS, *_LEVEL_FLAGS[recipe.level])
    return (folder or cache_folder() / "kernels") / f"{recipe.key(compiler, flags)}.so", flags


def build(recipe: Recipe, *, compiler: str | None = None, folder: Path | None = None) -> Path:
    """The library of a recipe: from the cache (or `folder`), or compiled into it.

    Raises
    ------
    MissingToolError
        If there is no C compiler or it fails.
    InputError
        If the folder cannot be written.
    l1ad.trigger.emulate.codegen.Unsupported
        If the program cannot be a kernel.
    """
    path = compiler or find_compiler()
    if path is None:
        raise MissingToolError("no C compiler (cc, gcc or clang) on PATH")
    target, flags = _target(recipe, path, folder)
    if not target.is_file():
        source = recipe.source()
        with atomic_path(target) as temporary:
            compile_source(source, temporary, compiler=path, flags=flags)
            _seal(temporary)
            verify(temporary, recipe)
    return target


def verify(path: Path, recipe: Recipe) -> None:
    """Compare a library with the golden program before anyone uses it: compilers have defects too.

    Raises
    ------
    MissingToolError
        If a score differs.
    """
    program = recipe.program
    node = program.intervals[program.nodes[0].name]
    rng = np.random.default_rng(int(program.hash[:8], 16))
    words = rng.integers(node.low, node.high + 1, (VERIFY_EVENTS, len(node)))
    ends = rng.random(words.shape)
    words = np.where(ends < 0.02, node.low, np.where(ends > 0.98, node.high, words))
    # Most real words are small or zero: half of the events have many of them.
    quiet = rng.random(words.shape) < 0.7
    words[::2] = np.where(quiet, np.clip(0, node.low, node.high), words)[::2]
    words[0], words[1] = node.low, node.high
    rows = np.zeros((VERIFY_EVENTS, recipe.row_words), dtype=np.int16)
    rows[:, list(recipe.columns)] = words
    scores = np.empty(VERIFY_EVENTS, dtype=np.int64)
    Kernel(path, recipe).score(rows, scores)
    wrong = np.flatnonzero(scores != program.evaluate(words)[program.score][:, 0])
    if len(wrong):
        raise MissingToolError(
            f"the compiled kernel ({recipe.level}) differs from the golden program on {len(wrong)} of "
            f"{VERIFY_EVENTS} events: a defect of the compiler or of the generator"
        )


def _seal(path: Path) -> None:
    """Append the hash of a library to it; loaders ignore what follows the last section."""
    digest = hashlib.sha256(path.read_bytes()).digest()
    with open(path, "ab") as stream:
        stream.write(digest)


def _is_whole(path: Path) -> bool:
    content = path.read_bytes()
    return hashlib.sha256(content[:-32]).digest() == content[-32:]


def load(recipe: Recipe) -> Kernel:
    """Build and load a kernel.

    A cache entry that does not load is built anew; so is, in a temporary folder that is gone when the library is
    loaded, a kernel whose cache cannot be written.

    Raises
    ------
    MissingToolError
        If there is no C compiler or it fails, or what it makes does not load.
    l1ad.trigger.emulate.codegen.Unsupported
        If the program cannot be a kernel.
    """
    try:
        return Kernel(build(recipe), recipe)
    except (OSError, AttributeError, InputError):
        # Damaged, of another machine, or no folder: a fresh one decides.
        with tempfile.TemporaryDirectory(prefix="l1ad-") as folder:
            path = build(recipe, folder=Path(folder))
            try:
                kernel = Kernel(path, recipe)
            except (OSError, AttributeError) as error:
                raise MissingToolError(f"the compiled kernel does not load: {error}") from error
            _replace_entry(path)
            return kernel


def _replace_entry(path: Path) -> None:
    """Put a fresh library where the damaged one was, if that can be written."""
    target = cache_folder() / "kernels" / path.name
    with contextlib.suppress(InputError), atomic_path(target) as temporary:
        shutil.copyfile(path, temporary)
