"""Scoring with the fast kernel: which path is taken, threads, and rows that the kernel leaves to the golden program."""

from __future__ import annotations

import functools
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError, MissingToolError, TriggerError
from l1ad.trigger.emulate.build import Kernel, Recipe, choose_level, is_built, load
from l1ad.trigger.emulate.codegen import NO_SCORE
from l1ad.trigger.emulate.exact import ExactProgram
from l1ad.trigger.emulate.ranges import Unsupported
from l1ad.trigger.graph import Program

#: Fewer events than this do not pay for a compilation, which takes seconds: numpy scores them unless a kernel is there.
COMPILE_EVENTS = 4096
#: Events that numpy evaluates, or that are converted to int16, at a time.
CHUNK_EVENTS = 16384
#: Fewest events for a thread: less costs more to hand over than to score.
THREAD_EVENTS = 32768


class SlowEmulationWarning(UserWarning):
    """The compiled kernel cannot be used; scores are the same and come more slowly."""


def score(
    program: Program,
    rows: npt.NDArray[np.integer[Any]],
    *,
    columns: npt.NDArray[np.int64] | None = None,
    threads: int = 1,
    isa: str | None = None,
    out: npt.NDArray[Any] | None = None,
    strict_in: str | None = None,
) -> npt.NDArray[Any]:
    """Integer scores (N,), LSB 1/16, equal to the golden program's for every input.

    Parameters
    ----------
    program : what to compute.
    rows : integers (N, words), hardware codes; int16 with adjacent words is read in place, all else in small copies.
    columns : (inputs,) position of each network input in a row; by default a row is the inputs.
    threads : how many work at once.
    isa : ``portable``, ``avx2``, ``avx512`` or ``avx512vnni``; by default the best of this machine. Naming one
        compiles a kernel however few the events are.
    out : where the scores go, (N,) int32 or int64; a new int64 array by default.
    strict_in : a name for the rows: a word that its bits cannot hold is then an error that names them. Without it the
        golden program scores such rows, whatever they mean.

    Raises
    ------
    TriggerError
        If `isa` is unknown or this machine does not run it, `threads` is not positive, or a word cannot be.
    """
    if threads < 1:
        raise TriggerError("option", "threads", threads, "1 or more")
    scores = np.empty(len(rows), dtype=np.int64) if out is None else out
    chosen = np.arange(rows.shape[1]) if columns is None else np.asarray(columns, dtype=np.int64)
    recipe = Recipe(program, tuple(chosen.tolist()), rows.shape[1], choose_level(isa))
    work: _NumpyWork | _KernelWork
    if isa is None and len(rows) < COMPILE_EVENTS and not is_built(recipe):
        work = _NumpyWork(program, chosen, strict_in)
    else:
        found = _kernel(recipe)
        if isinstance(found, Kernel):
            work = _KernelWork(program, chosen, strict_in, found)
        else:
            _say(found)
            work = _NumpyWork(program, chosen, strict_in)
    n_pieces = min(threads * 4, -(-len(rows) // THREAD_EVENTS)) if threads > 1 else 1
    if n_pieces <= 1:
        work(rows, scores)
        return scores
    bounds = [round(len(rows) * k / n_pieces) for k in range(n_pieces + 1)]
    with ThreadPoolExecutor(threads) as pool:
        pieces = [slice(a, b) for a, b in pairwise(bounds)]
        for done in [pool.submit(work, rows[piece], scores[piece]) for piece in pieces]:
            done.result()
    return scores


@dataclass(frozen=True)
class _NumpyWork:
    """Scores of rows into an array, with numpy."""

    program: Program
    columns: npt.NDArray[np.int64]
    strict_in: str | None

    def __call__(self, rows: npt.NDArray[Any], scores: npt.NDArray[Any]) -> None:
        exact = ExactProgram(self.program)
        for start in range(0, len(rows), CHUNK_EVENTS):
            piece = slice(start, start + CHUNK_EVENTS)
            inputs = rows[piece][:, self.columns]
            if self.strict_in is not None:
                check_words(self.program, inputs, self.strict_in)
            scores[piece] = exact.codes(inputs)[:, 0]


@dataclass(frozen=True)
class _KernelWork:
    """Scores of rows into an array, with a compiled kernel."""

    program: Program
    columns: npt.NDArray[np.int64]
    strict_in: str | None
    kernel: Kernel

    def __call__(self, rows: npt.NDArray[Any], scores: npt.NDArray[Any]) -> None:
        in_place = rows.dtype == np.int16 and rows.dtype.isnative and rows.strides[1] == 2 and rows.strides[0] % 2 == 0
        if in_place:
            self._score(rows, rows, scores)
            return
        for start in range(0, len(rows), CHUNK_EVENTS):
            piece = slice(start, start + CHUNK_EVENTS)
            original = rows[piece]
            words = np.ascontiguousarray(original.astype(np.int16, copy=False))
            # Conversion wraps at 16 bits, the program's input type at as many or fewer: nothing is lost.
            self._score(words, original, scores[piece])

    def golden(self, rows: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """What the kernel leaves: rows with words that their bits cannot hold."""
        inputs = rows[:, self.columns]
        if self.strict_in is not None:
            check_words(self.program, inputs, self.strict_in)
        return self.program.evaluate(inputs)[self.program.score][:, 0]

    def _score(self, words: npt.NDArray[np.int16], original: npt.NDArray[Any], scores: npt.NDArray[Any]) -> None:
        if self.kernel.score(words, scores):
            left = np.flatnonzero(scores == NO_SCORE)
            scores[left] = self.golden(original[left])


def prepare(
    program: Program,
    *,
    columns: npt.NDArray[np.int64] | None = None,
    row_words: int | None = None,
    isa: str | None = None,
) -> str:
    """Compile the kernel that `score` will use, or find it in the cache; says which level it has, or ``numpy``."""
    n_words = program.nodes[0].size if row_words is None else row_words
    chosen = tuple(range(n_words)) if columns is None else tuple(columns.tolist())
    found = _kernel(Recipe(program, chosen, n_words, choose_level(isa)))
    if isinstance(found, Kernel):
        return found.level
    _say(found)
    return "numpy"


def check_words(program: Program, inputs: npt.NDArray[np.integer[Any]], where: str) -> None:
    """Check that every word of inputs (N, inputs) is one that its bits can hold.

    Raises
    ------
    TriggerError
        Naming `where`, the input, the code found and the range expected.
    """
    words = program.intervals[program.nodes[0].name]
    bad = np.argwhere((inputs < words.low) | (inputs > words.high))
    if len(bad):
        event, position = bad[0]
        expected = f"{words.low[position]} to {words.high[position]}"
        raise TriggerError(where, program.layout.input_names[position], int(inputs[event, position]), expected)


@functools.lru_cache(maxsize=64)
def _kernel(recipe: Recipe) -> Kernel | str:
    """The kernel of a recipe, loaded once a process; or why there is none, in words."""
    try:
        return load(recipe)
    except (MissingToolError, Unsupported, InputError) as error:
        return str(error)


@functools.lru_cache(maxsize=64)
def _say(reason: str) -> None:
    """Say once a process that the slow path is taken."""
    warnings.warn(
        f"{reason}: scores are computed with numpy instead, exactly the same and some thirty times slower",
        SlowEmulationWarning,
        stacklevel=4,
    )
