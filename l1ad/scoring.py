"""Files to scores in one pass: `score_files` reads, scores and histograms at the speed of the disk or of the kernel.

What to use when: `score_files` for files of any format and size; `ScoresFile` to read what it wrote; `Trigger.score`
for events in memory; `l1ad.rates.calibrate` for thresholds, which does this and more.

Files of our own format that are not compressed are mapped into memory chunk by chunk, and the kernel reads the mapped
words in place. Memory holds a few pieces of a file at a time, whatever its size.

The output is HDF5 and needs nothing but h5py to be read (format version 1):

===============  ==========  ===========================================================================================
name             type        meaning
===============  ==========  ===========================================================================================
``/scores``      int32 (N,)  scores in units of 1/16, in the order of the events and files
``/histogram``   group       counts and exact sums of weights by score (`l1ad.rates.ScoreHistogram.read`)
attributes       of the      ``format`` = ``l1ad-scores``, ``format_version``, ``trigger_hash``, ``trigger_name``,
                 file        ``layout``, ``saturation``, ``sources`` (JSON: name and number of events of each file)
===============  ==========  ===========================================================================================
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError, TriggerError
from l1ad.events.readers import EventSource, open_events
from l1ad.events.readers._files import expand, sniff
from l1ad.events.store import Events, EventsFile, open_hdf5
from l1ad.io import atomic_hdf5
from l1ad.rates import counting
from l1ad.rates.histogram import ScoreHistogram
from l1ad.rates.pool import process_pool
from l1ad.rates.tasks import dask_executor
from l1ad.trigger import emulate
from l1ad.trigger.program import Trigger

FORMAT = "l1ad-scores"
FORMAT_VERSION = 1
#: Events that a thread takes at a time from a file that is mapped, and that a reader of another format yields.
PIECE_EVENTS = 1 << 18
#: Events of a task for another process: enough work that handing it over does not count (bench/scaling.py).
TASK_EVENTS = 1 << 24
#: The same where the scores come back, which takes memory for those that wait for their turn to be written.
TASK_EVENTS_WITH_SCORES = 1 << 22

Scores = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class ScoreRun:
    """What `score_files` found.

    Attributes
    ----------
    n_events : scored.
    histogram : counts and sums of weights by score.
    sources : name and number of events of each file.
    notes : things a user should know about the files, in words.
    """

    n_events: int
    histogram: ScoreHistogram
    sources: tuple[tuple[str, int], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ScoresFile:
    """Scores that `score_files` wrote, with what they belong to."""

    scores: Scores
    histogram: ScoreHistogram
    trigger_hash: str
    trigger_name: str
    sources: tuple[tuple[str, int], ...]

    @classmethod
    def read(cls, path: str | os.PathLike[str], *, trigger: Trigger | None = None) -> ScoresFile:
        """Read a file; with `trigger`, check that its scores are of this trigger.

        Raises
        ------
        InputError
            If it is absent or not of this format.
        TriggerError
            If the scores are another trigger's.
        """
        with open_hdf5(path) as file:
            attributes = file.attrs
            found = attributes.get("format", "nothing")
            if found != FORMAT or attributes.get("format_version") != FORMAT_VERSION:
                version = attributes.get("format_version", "nothing")
                raise InputError(str(path), "format", f"{found} {version}", f"{FORMAT} {FORMAT_VERSION}")
            digest = str(attributes["trigger_hash"])
            if trigger is not None and digest != trigger.hash:
                raise TriggerError(str(path), "trigger", digest[:12], f"{trigger.hash[:12]} of {trigger.name}")
            sources = tuple((str(name), int(n)) for name, n in json.loads(attributes["sources"]))
            histogram = ScoreHistogram.read(file["histogram"])
            return cls(file["scores"][:], histogram, digest, str(attributes["trigger_name"]), sources)


def score_files(
    trigger: Trigger,
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    out: str | os.PathLike[str] | None = None,
    threads: int = 1,
    workers: int = 1,
    dask: str | None = None,
    isa: str | None = None,
    format: str = "auto",
    saturation: str = "keep",
    progress: Callable[[int], None] | None = None,
    task_events: int | None = None,
) -> ScoreRun:
    """Score files of any supported format. The result does not depend on threads, workers or the size of pieces.

    Parameters
    ----------
    trigger : scores events.
    paths : files, folders or glob patterns.
    out : HDF5 file for the scores; only the histogram is made without it.
    threads : threads of this process; of each worker, with `workers` or `dask`.
    workers : processes of this machine.
    dask : address of a dask scheduler, or ``local`` for `workers` dask processes here.
    isa : instruction-set level (see `l1ad.trigger.emulate.score`).
    format, saturation : as `l1ad.events.readers.open_events` takes them.
    progress : called with the number of events done so far.
    task_events : events of a task for another process; by default `TASK_EVENTS`, or `TASK_EVENTS_WITH_SCORES` with
        `out`.

    Raises
    ------
    InputError
        If a file cannot be read, its layout is not the trigger's, or the output cannot be written.
    """
    if threads < 1:
        raise InputError("option", "threads", threads, "1 or more")
    job = _Job(trigger, isa, format, saturation, threads, keep_scores=out is not None)
    size = task_events or (TASK_EVENTS if out is None else TASK_EVENTS_WITH_SCORES)
    files = expand(paths)
    numbers = [job.check(path) for path in files]
    if None in numbers or sum(n or 0 for n in numbers) >= emulate.COMPILE_EVENTS:
        # Once, before several threads or processes would each do it.
        job.prepare()
    histogram = ScoreHistogram()
    counts = [0] * len(files)
    notes: list[str] = []
    done = 0
    with contextlib.ExitStack() as stack:
        writer = None if out is None else stack.enter_context(_scores_writer(out))
        if workers > 1 or dask is not None:
            executors = dask_executor(dask, workers) if dask is not None else process_pool(workers)
            executor = stack.enter_context(executors)
            assert executor is not None
            results = _with_processes(job, files, executor, size, 2 * workers + 2)
        else:
            executor = stack.enter_context(ThreadPoolExecutor(threads))
            results = _with_threads(job, files, executor, threads)
        for number, piece in results:
            histogram.merge(piece.histogram)
            counts[number] += piece.n_events
            notes += [note for note in piece.notes if note not in notes]
            if writer is not None:
                for scores in piece.scores:
                    writer.append(scores)
            done += piece.n_events
            if progress is not None:
                progress(done)
        sources = tuple((path.name, n) for path, n in zip(files, counts, strict=True))
        if writer is not None:
            writer.finish(trigger, saturation, sources, histogram)
    return ScoreRun(done, histogram, sources, tuple(notes))


# ------------------------------------------------------------------------------------------------------------ one piece


@dataclass(frozen=True, eq=False)
class _Piece:
    """Scores of successive events, in parts, and their histogram."""

    n_events: int
    scores: tuple[Scores, ...]
    histogram: ScoreHistogram
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Job:
    """What every piece needs; goes to workers."""

    trigger: Trigger
    isa: str | None
    format: str
    saturation: str
    threads: int
    keep_scores: bool

    def open(self, path: Path) -> EventSource:
        return open_events(path, format=self.format, saturation=self.saturation)

    def check(self, path: Path) -> int | None:
        """Refuse files of other words before anything is scored; the number of events where the file says it."""
        with self.open(path) as source:
            if source.layout.words != self.trigger.layout.words:
                raise InputError(str(path), "layout", source.layout.name, self.trigger.layout.name)
            return source.n_events

    def prepare(self) -> None:
        """Compile the kernels."""
        counting.prepare()
        layout = self.trigger.layout
        words = layout.n_objects * layout.n_features
        emulate.prepare(self.trigger.program, row_words=words, columns=layout.input_index, isa=self.isa)

    def score_events(self, events: Events, where: str) -> _Piece:
        """Score events in memory."""
        rows = events.hw.reshape(len(events), self.trigger.layout.n_objects * self.trigger.layout.n_features)
        scores: Scores = np.empty(len(rows), dtype=np.int32)
        self._score(rows, scores, where)
        weight = events.columns.get("weight")
        histogram = ScoreHistogram()
        histogram.fill(scores, None if weight is None else np.asarray(weight, dtype=np.float64), where=where)
        return _Piece(len(scores), (scores,) if self.keep_scores else (), histogram)

    def score_mapped(self, mapped: _MappedFile, start: int, stop: int) -> _Piece:
        """Score a range of a mapped file."""
        scores: Scores = np.empty(stop - start, dtype=np.int32)
        for first, last, rows in mapped.rows(start, stop):
            self._score(rows, scores[first - start : last - start], mapped.path)
        histogram = ScoreHistogram()
        histogram.fill(scores, mapped.weight(start, stop), where=mapped.path)
        return _Piece(len(scores), (scores,) if self.keep_scores else (), histogram)

    def _score(self, rows: npt.NDArray[np.int16], scores: Scores, where: str) -> None:
        index = self.trigger.layout.input_index
        columns = None if len(index) == rows.shape[1] else index
        emulate.score(self.trigger.program, rows, columns=columns, isa=self.isa, out=scores, strict_in=where)


@dataclass(frozen=True, eq=False)
class _MappedFile:
    """The words of an uncompressed file of ours, read where the disk cache has them.

    Attributes
    ----------
    path : of the file.
    file : the same, open in HDF5.
    chunk_events : events that lie together.
    offsets : first byte of each such chunk.
    """

    path: str
    file: h5py.File
    chunk_events: int
    offsets: npt.NDArray[np.int64]

    @property
    def n_events(self) -> int:
        """Events in the file."""
        return int(self.file["hw"].shape[0])

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, int, npt.NDArray[np.int16]]]:
        """Rows (n, words) of a range, chunk by chunk: first and last event, and the words."""
        words = int(np.prod(self.file["hw"].shape[1:]))
        while start < stop:
            number, inside = divmod(start, self.chunk_events)
            last = min(stop, (number + 1) * self.chunk_events)
            flat = self._map(int(self.offsets[number]) + inside * words * 2, (last - start) * words)
            yield start, last, flat.reshape(last - start, words)
            start = last

    def _map(self, begin: int, count: int) -> npt.NDArray[np.int16]:
        base = begin // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        with open(self.path, "rb") as stream:
            if begin + 2 * count > os.fstat(stream.fileno()).st_size:
                raise InputError(self.path, "/hw", "a truncated file", "a complete file")
            view = mmap.mmap(stream.fileno(), begin - base + 2 * count, offset=base, access=mmap.ACCESS_READ)
        return np.frombuffer(view, dtype="<i2", count=count, offset=begin - base)

    def weight(self, start: int, stop: int) -> npt.NDArray[np.float64] | None:
        """Weights of a range; None if the file has none."""
        if "columns/weight" not in self.file:
            return None
        return np.asarray(self.file["columns/weight"][start:stop], dtype=np.float64)


@contextlib.contextmanager
def _mapped(path: Path, job: _Job) -> Iterator[_MappedFile | None]:
    """The file at `path` mapped, or None if HDF5 (or another library) has to read it."""
    if job.saturation != "keep" or sniff(path) != "l1ad":
        yield None
        return
    with open_hdf5(path) as file:
        data = file["hw"]
        place = None
        if data.dtype == np.dtype("<i2") and not data.id.get_create_plist().get_nfilters() and len(data):
            place = _places(data)
        yield None if place is None else _MappedFile(str(path), file, *place)


def _places(data: h5py.Dataset) -> tuple[int, npt.NDArray[np.int64]] | None:
    """Events a chunk and the first byte of each; None for a layout that is not one row after another."""
    if data.chunks is None:
        offset = data.id.get_offset()
        return None if offset is None else (len(data), np.array([offset], dtype=np.int64))
    if data.chunks[1:] != data.shape[1:]:
        return None
    size = int(data.chunks[0])
    offsets = np.full(-(-len(data) // size), -1, dtype=np.int64)

    def note(chunk: Any) -> None:
        if chunk.chunk_offset[0] < len(data):
            offsets[chunk.chunk_offset[0] // size] = chunk.byte_offset

    data.id.chunk_iter(note)
    return None if (offsets < 0).any() else (size, offsets)


# ------------------------------------------------------------------------------------------------------ who does pieces


def _with_threads(job: _Job, files: Sequence[Path], executor: Executor, threads: int) -> Iterator[tuple[int, _Piece]]:
    """Pieces in order, a few ahead of the one that is asked for, scored by threads while this one reads or collects."""
    ahead = 2 * threads
    for number, path in enumerate(files):
        with _mapped(path, job) as mapped:
            if mapped is not None:
                starts = range(0, mapped.n_events, PIECE_EVENTS)
                ranges = ((start, min(start + PIECE_EVENTS, mapped.n_events)) for start in starts)
                waiting = (executor.submit(job.score_mapped, mapped, start, stop) for start, stop in ranges)
                yield from ((number, piece) for piece in _in_order(waiting, ahead))
                continue
        with job.open(path) as source:
            chunks = source.chunks(PIECE_EVENTS // 4)
            waiting = (executor.submit(job.score_events, events, str(path)) for events in chunks)
            for piece in _in_order(waiting, ahead):
                yield number, piece
            yield number, _Piece(0, (), ScoreHistogram(), tuple(source.notes))


def _with_processes(
    job: _Job, files: Sequence[Path], executor: Executor, task_events: int, ahead: int
) -> Iterator[tuple[int, _Piece]]:
    """Pieces in order, scored by other processes, which need the files under the same paths."""
    tasks: list[tuple[int, int, int | None]] = []
    for number, path in enumerate(files):
        with job.open(path) as source:
            n_events = source.n_events
            divisible = isinstance(source, EventsFile) and n_events is not None
        if divisible and n_events is not None:
            tasks += [(number, start, min(start + task_events, n_events)) for start in range(0, n_events, task_events)]
        else:
            tasks.append((number, 0, None))
    waiting = (executor.submit(_score_range, job, str(files[number]), start, stop) for number, start, stop in tasks)
    yield from zip((number for number, _, _ in tasks), _in_order(waiting, ahead), strict=True)


def _in_order(waiting: Iterator[Future[_Piece]], ahead: int) -> Iterator[_Piece]:
    """Results in order, with at most `ahead` pieces begun: that bounds the memory."""
    begun: deque[Future[_Piece]] = deque()
    try:
        for future in waiting:
            begun.append(future)
            if len(begun) >= ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        for future in begun:
            future.cancel()


def _score_range(job: _Job, path: str, start: int, stop: int | None) -> _Piece:
    """One task of a worker: a range of a file of ours, or a whole file of another format (stop is None)."""
    pieces: list[_Piece] = []
    file = Path(path)
    with ThreadPoolExecutor(job.threads) as pool, _mapped(file, job) as mapped:
        if mapped is not None and stop is not None:
            starts = range(start, stop, PIECE_EVENTS)
            ranges = ((first, min(first + PIECE_EVENTS, stop)) for first in starts)
            waiting = (pool.submit(job.score_mapped, mapped, first, last) for first, last in ranges)
            pieces += _in_order(waiting, 2 * job.threads)
        else:
            with job.open(file) as source:
                chunks = _chunks(source, start, stop)
                waiting = (pool.submit(job.score_events, events, path) for events in chunks)
                pieces += _in_order(waiting, 2 * job.threads)
                pieces.append(_Piece(0, (), ScoreHistogram(), tuple(source.notes)))
    histogram = ScoreHistogram()
    for piece in pieces:
        histogram.merge(piece.histogram)
    scores = tuple(part for piece in pieces for part in piece.scores)
    notes = tuple(note for piece in pieces for note in piece.notes)
    return _Piece(sum(piece.n_events for piece in pieces), scores, histogram, notes)


def _chunks(source: EventSource, start: int, stop: int | None) -> Iterator[Events]:
    if stop is None or not isinstance(source, EventsFile):
        yield from source.chunks(PIECE_EVENTS // 4)
        return
    for first in range(start, stop, PIECE_EVENTS // 4):
        yield source[first : min(first + PIECE_EVENTS // 4, stop)]


# -------------------------------------------------------------------------------------------------------------- writing


class _Writer:
    """Appends scores to an open HDF5 file."""

    def __init__(self, file: h5py.File) -> None:
        self._file = file
        self._scores = file.create_dataset(
            "scores", shape=(0,), maxshape=(None,), chunks=(PIECE_EVENTS,), dtype="<i4", track_times=False
        )

    def append(self, scores: Scores) -> None:
        """Add scores at the end."""
        position = len(self._scores)
        self._scores.resize(position + len(scores), axis=0)
        self._scores[position:] = scores

    def finish(
        self, trigger: Trigger, saturation: str, sources: tuple[tuple[str, int], ...], histogram: ScoreHistogram
    ) -> None:
        """Write what the scores belong to."""
        histogram.write(self._file.create_group("histogram"))
        attributes: dict[str, Any] = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "trigger_hash": trigger.hash,
            "trigger_name": trigger.name,
            "layout": trigger.layout.name,
            "saturation": saturation,
            "sources": json.dumps(sources),
        }
        self._file.attrs.update(attributes)


@contextlib.contextmanager
def _scores_writer(path: str | os.PathLike[str]) -> Iterator[_Writer]:
    with atomic_hdf5(path) as file:
        yield _Writer(file)
