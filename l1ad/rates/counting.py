"""How often each integer score occurs, and the tail of it at the speed at which memory can be read.

`count` is what `numpy.bincount` does, in C that is compiled once and kept beside the kernels of the fast emulation: one
pass over the scores, in blocks that stay in the first cache, into two tables by turns, so that equal scores in a row do
not wait for each other. `count_from` counts only the scores from a floor on, which is all that a low rate asks for: a
block without any is read and left. Without a compiler both say so by returning None, and numpy does the work.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError, MissingToolError
from l1ad.io import atomic_path
from l1ad.rates.exact import IntArray
from l1ad.scores import SCORE_BITS
from l1ad.trigger.emulate.build import (
    BASE_FLAGS,
    _is_whole,
    _seal,
    cache_folder,
    compile_source,
    find_compiler,
    supported_levels,
)

#: Scores for which a kernel is compiled if there is none yet; it takes a fraction of a second, once.
COMPILE_SCORES = 1 << 22
#: Fewer are left to numpy: handing them over costs more than it saves.
_FEWEST = 1 << 14
#: A table counts in 32 bits.
_MOST = 1 << 31
_ENTRIES = {"i4": "int32_t", "i8": "int64_t"}
_BINS = 1 << SCORE_BITS
_SOURCE = f"""
#include <stdint.h>
enum {{ BINS = {_BINS}, BLOCK = 1024, LOOK = 128, LINE = 64, AHEAD = 8192 }};
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

/* Adds the scores from `floor` on to a table of BINS counts; returns the OR of all scores, or -1 if one is outside. */
int64_t count_from_{name}(const {kind} *restrict scores, int64_t n, int64_t floor, uint32_t *restrict table) {{
    const {kind} least = ({kind})floor;
    {kind} seen = 0;
    int64_t start = 0;
    for (; start + LOOK <= n; start += LOOK) {{
        const {kind} *p = scores + start;
        {kind} some = 0;
        u{kind} below = -1;
        for (int j = 0; j < LOOK; j += LINE / sizeof(*p)) __builtin_prefetch((const char *)(p + j) + AHEAD);
        /* The difference of two score words has its sign bit set if the first is less: no comparison of 64 bits, which
           the oldest vector instructions do not have. */
        for (int j = 0; j < LOOK; j++) {{ some |= p[j]; below &= (u{kind})p[j] - (u{kind})least; }}
        if (some & ~({kind})(BINS - 1)) return -1;
        seen |= some;
        if (({kind})below < 0) continue;
        for (int j = 0; j < LOOK; j++) if (p[j] >= least) table[p[j]]++;
    }}
    for (; start < n; start++) {{
        if (scores[start] & ~({kind})(BINS - 1)) return -1;
        seen |= scores[start];
        if (scores[start] >= least) table[scores[start]]++;
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
    kernel = _kernel("count", scores)
    if kernel is None:
        return None

    def one(part: npt.NDArray[np.integer[Any]]) -> IntArray | None:
        # Zeroed by the system when it is first touched: bins that no score falls into cost nothing.
        tables = np.zeros((2, _BINS), dtype=np.uint32)
        seen = kernel(part.ctypes.data, len(part), tables[0].ctypes.data, tables[1].ctypes.data)
        return None if seen < 0 else np.asarray(tables[:, : 1 << int(seen).bit_length()].sum(axis=0, dtype=np.int64))

    return _in_parts(one, scores, threads)


def count_from(scores: npt.NDArray[np.integer[Any]], floor: int, *, threads: int = 1) -> IntArray | None:
    """Occurrences of each score from `floor` on, all lower ones together in bin 0; else as `count`.

    Faster than `count` where few scores reach the floor: then it is a reading of the scores.

    Parameters
    ----------
    floor : 1 to 2^18 - 1.
    """
    kernel = _kernel("count_from", scores)
    if kernel is None:
        return None

    def one(part: npt.NDArray[np.integer[Any]]) -> IntArray | None:
        table = np.zeros(_BINS, dtype=np.uint32)
        seen = kernel(part.ctypes.data, len(part), floor, table.ctypes.data)
        if seen < 0:
            return None
        counts = table[: 1 << int(seen).bit_length()].astype(np.int64)
        counts[0] = len(part) - counts.sum()
        return counts

    return _in_parts(one, scores, threads)


def _kernel(name: str, scores: npt.NDArray[np.integer[Any]]) -> Callable[..., int] | None:
    """A compiled function for such scores, None if they are left to numpy."""
    entry = f"{scores.dtype.kind}{scores.dtype.itemsize}"
    if len(scores) < _FEWEST or entry not in _ENTRIES or not scores.flags.c_contiguous or not scores.dtype.isnative:
        return None
    library = _library(len(scores) >= COMPILE_SCORES)
    return None if library is None else cast("Callable[..., int]", getattr(library, f"{name}_{entry}"))


def _in_parts(
    one: Callable[[npt.NDArray[np.integer[Any]]], IntArray | None], scores: npt.NDArray[np.integer[Any]], threads: int
) -> IntArray | None:
    """The sum of the counts of parts of the scores; None if one part gives none."""
    parts = np.array_split(scores, max(threads, -(-len(scores) // _MOST)))
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
                compile_source(_SOURCE, temporary, compiler=compiler, flags=_flags())
                _seal(temporary)
                _check(_open(temporary))
        library = _open(path)
    except (MissingToolError, InputError, OSError, AttributeError):
        return None
    return library


def _open(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    for name in _ENTRIES:
        for entry, third in ((f"count_{name}", ctypes.c_void_p), (f"count_from_{name}", ctypes.c_int64)):
            function = getattr(library, entry)
            function.restype = ctypes.c_int64
            function.argtypes = [ctypes.c_void_p, ctypes.c_int64, third, ctypes.c_void_p]
    return library


def _check(library: ctypes.CDLL) -> None:
    """Compare a library with numpy before anyone uses it."""
    for name in _ENTRIES:
        scores = (np.arange(5003) ** 3 % _BINS).astype(name)
        tables = np.zeros((2, _BINS), dtype=np.uint32)
        kernel = getattr(library, f"count_{name}")
        kernel(scores.ctypes.data, len(scores), tables[0].ctypes.data, tables[1].ctypes.data)
        tail, floor = np.zeros(_BINS, dtype=np.uint32), _BINS - _BINS // 64
        getattr(library, f"count_from_{name}")(scores.ctypes.data, len(scores), floor, tail.ctypes.data)
        expected = np.bincount(scores, minlength=_BINS)
        if not (np.array_equal(tables.sum(axis=0), expected) and np.array_equal(tail[floor:], expected[floor:])):
            raise MissingToolError("the compiled histogram differs from numpy's: a defect of the compiler")


def _flags() -> tuple[str, ...]:
    return (*BASE_FLAGS, "-mavx2") if "avx2" in supported_levels() else BASE_FLAGS


def _digest(compiler: str) -> str:
    parts = (_SOURCE, *_flags(), compiler, str(Path(compiler).stat().st_mtime), platform.machine())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
