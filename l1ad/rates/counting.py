"""How often each integer score occurs, at the speed at which memory can be read.

`count` is what `numpy.bincount` does, in C that is compiled once and kept beside the kernels of the fast emulation: one
pass over the scores, in blocks that stay in the first cache, into two tables by turns, so that equal scores in a row do
not wait for each other. Without a compiler it says so by returning None, and numpy does the work.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError, MissingToolError
from l1ad.io import atomic_path
from l1ad.rates.exact import IntArray
from l1ad.scores import SCORE_BITS
from l1ad.trigger.emulate.build import _is_whole, _seal, cache_folder, compile_source, find_compiler

#: Scores for which a kernel is compiled if there is none yet; it takes a fraction of a second, once.
COMPILE_SCORES = 1 << 22
#: Fewer are left to numpy: handing them over costs more than it saves.
_FEWEST = 1 << 14
#: A table counts in 32 bits.
_MOST = 1 << 31
_FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-shared")
_ENTRIES = {"i4": "int32_t", "i8": "int64_t"}
_BINS = 1 << SCORE_BITS
_SOURCE = f"""
#include <stdint.h>
enum {{ BINS = {_BINS}, BLOCK = 1024 }};
""" + "".join(
    f"""
/* Adds to two tables of BINS counts; returns the OR of all scores, or -1 if one is outside of [0, BINS). */
int64_t count_{name}(const {kind} *restrict scores, int64_t n, uint32_t *restrict even, uint32_t *restrict odd) {{
    {kind} seen = 0;
    for (int64_t start = 0; start < n; start += BLOCK) {{
        const {kind} *p = scores + start;
        const int64_t m = n - start < BLOCK ? n - start : BLOCK;
        int64_t i = 0;
        for (int64_t j = 0; j < m; j++) seen |= p[j];
        if (seen & ~({kind})(BINS - 1)) return -1;
        for (; i + 4 <= m; i += 4) {{
            even[p[i]]++; odd[p[i + 1]]++; even[p[i + 2]]++; odd[p[i + 3]]++;
        }}
        for (; i < m; i++) even[p[i]]++;
    }}
    return seen;
}}
"""
    for name, kind in _ENTRIES.items()
)


def count(scores: npt.NDArray[np.integer[Any]], *, threads: int = 1) -> IntArray | None:
    """Occurrences of each score, int64 (2^k,) with the smallest k that all fit in.

    Parameters
    ----------
    scores : (N,) integers.
    threads : of this process; the result does not depend on it.

    Returns
    -------
    counts : or None if there are too few scores to hand over, they do not lie in one piece, one is no score word, or
        there is no compiler.
    """
    entry = f"{scores.dtype.kind}{scores.dtype.itemsize}"
    if len(scores) < _FEWEST or entry not in _ENTRIES or not scores.flags.c_contiguous or not scores.dtype.isnative:
        return None
    library = _library(len(scores) >= COMPILE_SCORES)
    if library is None:
        return None
    kernel = getattr(library, f"count_{entry}")
    parts = np.array_split(scores, max(threads, -(-len(scores) // _MOST)))

    def one(part: npt.NDArray[np.integer[Any]]) -> IntArray | None:
        # Zeroed by the system when it is first touched: bins that no score falls into cost nothing.
        tables = np.zeros((2, _BINS), dtype=np.uint32)
        seen = kernel(part.ctypes.data, len(part), tables[0].ctypes.data, tables[1].ctypes.data)
        return None if seen < 0 else np.asarray(tables[:, : 1 << int(seen).bit_length()].sum(axis=0, dtype=np.int64))

    if threads == 1:
        found = [one(part) for part in parts]
    else:
        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(one, parts))
    result = np.zeros(max((len(part) for part in found if part is not None), default=0), dtype=np.int64)
    for counts in found:
        if counts is None:
            return None
        result[: len(counts)] += counts
    return result


def prepare() -> None:
    """Compile the kernel, where there is a compiler, before many small arrays are counted."""
    _library(True)


def _library(compile_it: bool) -> ctypes.CDLL | None:
    compiler = find_compiler()
    if compiler is None:
        return None
    path = cache_folder() / "kernels" / f"count-{_digest(compiler)}.so"
    if not compile_it and not path.is_file():
        return None
    return _load(path, compiler)


@functools.lru_cache(maxsize=4)
def _load(path: Path, compiler: str) -> ctypes.CDLL | None:
    """The library, compiled if it is not there; None if the compiler or the folder fails."""
    try:
        if not (path.is_file() and _is_whole(path)):
            with atomic_path(path) as temporary:
                compile_source(_SOURCE, temporary, compiler=compiler, flags=_FLAGS)
                _seal(temporary)
                _check(_open(temporary))
        library = _open(path)
    except (MissingToolError, InputError, OSError, AttributeError):
        return None
    return library


def _open(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    for name in _ENTRIES:
        entry = getattr(library, f"count_{name}")
        entry.restype = ctypes.c_int64
        entry.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p]
    return library


def _check(library: ctypes.CDLL) -> None:
    """Compare a library with numpy before anyone uses it."""
    for name in _ENTRIES:
        scores = (np.arange(5003) ** 3 % _BINS).astype(name)
        tables = np.zeros((2, _BINS), dtype=np.uint32)
        kernel = getattr(library, f"count_{name}")
        kernel(scores.ctypes.data, len(scores), tables[0].ctypes.data, tables[1].ctypes.data)
        if not np.array_equal(tables.sum(axis=0), np.bincount(scores, minlength=_BINS)):
            raise MissingToolError("the compiled histogram differs from numpy's: a defect of the compiler")


def _digest(compiler: str) -> str:
    parts = (_SOURCE, *_FLAGS, compiler, str(Path(compiler).stat().st_mtime), platform.machine())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
