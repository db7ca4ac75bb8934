"""Events for training: read once in pieces, split, counted, and handed to the device in windows.

What fits in one window stays in memory; more goes through a cache file on disk, of which each epoch loads shuffled
blocks, so that the sample may be larger than the memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from l1ad.config import DataConfig, SplitConfig
from l1ad.errors import InputError
from l1ad.events import Events, get_layout, open_events
from l1ad.events.bundled import bundled_zero_bias
from l1ad.events.layout import ObjectLayout
from l1ad.io import sha256_path
from l1ad.trigger.scaling import CodeCounts

#: Events of one block of the cache: contiguous on disk, shuffled as a whole.
BLOCK_EVENTS = 8192
#: Events that are read at a time.
CHUNK_EVENTS = 131072

TRAIN, VALIDATION, TEST = 0, 1, 2

Part = tuple[npt.NDArray[np.int16], npt.NDArray[np.float32]]


class Splitter:
    """Assigns events to training (0), validation (1) and test (2), in the order in which they are read.

    By seed, event number i gets the i-th uniform number of the seed; by luminosity section, all events of a section
    (run, lumi) get the same one. Neither depends on the size of the pieces.
    """

    def __init__(self, config: SplitConfig, seed: int) -> None:
        self._edges = np.array([config.train, config.train + config.validation])
        self._by = config.by
        self._seed = seed
        self._generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 0x5B117])))

    def __call__(self, events: Events, *, where: str = "split") -> npt.NDArray[np.int8]:
        """The part (N,) of each of the next events.

        Raises
        ------
        InputError
            If the split is by luminosity section and the events do not carry one.
        """
        if self._by == "seed":
            uniform = self._generator.random(len(events))
        else:
            lumi = events.columns.get("lumi")
            if lumi is None:
                raise InputError(where, "column lumi", "nothing", "luminosity sections, or split by seed")
            run = events.columns.get("run", np.zeros(len(events)))
            key = (np.asarray(run).astype(np.uint64) << np.uint64(32)) | np.asarray(lumi).astype(np.uint64)
            uniform = _hash_uniform(key, self._seed)
        # The last edge is 1 up to a rounding: nothing lies beyond it.
        return np.minimum(np.searchsorted(self._edges, uniform, side="right"), TEST).astype(np.int8)


def _hash_uniform(key: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.float64]:
    """Uniform numbers in [0, 1) that depend on key and seed only (the finaliser of splitmix64)."""
    z = key + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray((z ^ (z >> np.uint64(31))) >> np.uint64(11), dtype=np.float64) * 2.0**-53


class _Store:
    """Codes and weights of one part: in memory up to `limit` events, then in a pair of files."""

    def __init__(self, folder: Path, name: str, n_inputs: int, limit: int) -> None:
        self._paths = (folder / f"{name}.codes", folder / f"{name}.weight")
        self._n_inputs, self._limit = n_inputs, limit
        self._parts: list[Part] = []
        self._spilled = False
        self.n = 0

    def add(self, codes: npt.NDArray[np.int16], weight: npt.NDArray[np.float32]) -> None:
        self._parts.append((codes, weight))
        self.n += len(codes)
        if self.n > self._limit:
            self._spill()

    def _spill(self) -> None:
        mode = "ab" if self._spilled else "wb"
        self._paths[0].parent.mkdir(parents=True, exist_ok=True)
        with open(self._paths[0], mode) as a, open(self._paths[1], mode) as b:
            for codes, weight in self._parts:
                a.write(np.ascontiguousarray(codes).tobytes())
                b.write(np.ascontiguousarray(weight).tobytes())
        self._parts, self._spilled = [], True

    def finish(self) -> Part:
        if not self._spilled:
            if not self._parts:
                return np.zeros((0, self._n_inputs), np.int16), np.zeros(0, np.float32)
            return np.concatenate([p[0] for p in self._parts]), np.concatenate([p[1] for p in self._parts])
        self._spill()
        return (
            np.memmap(self._paths[0], dtype=np.int16, mode="r", shape=(self.n, self._n_inputs)),
            np.memmap(self._paths[1], dtype=np.float32, mode="r", shape=(self.n,)),
        )


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The events of one run.

    Attributes
    ----------
    layout : of the events.
    train, validation : codes int16 (N, inputs) and weights float32 (N,) with mean 1 over the training events.
    n_test : events that were put aside.
    counts : distribution of every input over the training events.
    inputs : SHA-256 of every file that was read, by its name.
    notes : what readers said.
    """

    layout: ObjectLayout
    train: Part
    validation: Part
    n_test: int
    counts: CodeCounts
    inputs: dict[str, str]
    notes: tuple[str, ...]

    @property
    def n_train(self) -> int:
        """Number of training events."""
        return len(self.train[0])

    def windows(self, window_events: int, *, seed: int, epoch: int) -> Iterator[Part]:
        """The training events of one epoch in windows of at most about `window_events`.

        One window if they all fit. Otherwise blocks of neighbouring events are shuffled and dealt out, differently in
        each epoch; the order within a window is left to the caller.
        """
        codes, weight = self.train
        if len(codes) <= window_events:
            yield codes, weight
            return
        starts = np.arange(0, len(codes), BLOCK_EVENTS)
        np.random.default_rng([seed, epoch]).shuffle(starts)
        per_window = max(window_events // BLOCK_EVENTS, 1)
        for first in range(0, len(starts), per_window):
            chosen = np.sort(starts[first : first + per_window])
            yield (
                np.concatenate([codes[s : s + BLOCK_EVENTS] for s in chosen]),
                np.concatenate([weight[s : s + BLOCK_EVENTS] for s in chosen]),
            )


def data_files(config: DataConfig) -> list[Path]:
    """The files of a configuration.

    Raises
    ------
    InputError
        If the bundled sample is not there.
    """
    if config.sample is None:
        return [Path(path) for path in config.paths]
    return [bundled_zero_bias(config.layout)]


def iterate_events(config: DataConfig) -> Iterator[tuple[Path, tuple[str, ...], Events]]:
    """Every piece of every file of a configuration, with the file and its reader's notes.

    Raises
    ------
    InputError
        If a file cannot be read or has another layout.
    """
    layout = get_layout(config.layout)
    left = config.max_events
    for path in data_files(config):
        with open_events(path, format=config.format, saturation=config.saturation) as source:
            if source.layout.words != layout.words:
                raise InputError(str(path), "layout", source.layout.name, layout.name)
            for events in source.chunks(CHUNK_EVENTS):
                if left is not None and left <= 0:
                    return
                piece = events if left is None else events[:left]
                if left is not None:
                    left -= len(piece)
                yield path, source.notes, piece


def read_training_data(config: DataConfig, *, seed: int, cache: Path) -> TrainingData:
    """Read, split and count all events of a configuration in one pass.

    Raises
    ------
    InputError
        If nothing is left for training or for a validation part that was asked for.
    """
    layout = get_layout(config.layout)
    splitter = Splitter(config.split, seed)
    counts = CodeCounts(layout)
    stores = [_Store(cache, name, layout.n_inputs, config.window_events) for name in ("train", "validation")]
    files: dict[str, Path] = {}
    notes: dict[str, None] = {}
    n_test, sum_weight = 0, 0.0
    for path, said, events in iterate_events(config):
        files[path.name] = path
        notes.update(dict.fromkeys(said))
        weight = events.weight if config.weights == "use" else np.ones(len(events))
        part = splitter(events, where=str(path))
        inputs = events.inputs
        for number, store in enumerate(stores):
            chosen = part == number
            store.add(inputs[chosen], weight[chosen].astype(np.float32))
        n_test += int((part == TEST).sum())
        training = part == TRAIN
        counts.add(inputs[training], weight[training])
        sum_weight += float(weight[training].sum())
    where = ", ".join(files) or "data"
    if not stores[TRAIN].n or not sum_weight:
        raise InputError(where, "training split", f"{stores[TRAIN].n} events", "one at least, with a weight above 0")
    if config.split.validation and not stores[VALIDATION].n:
        raise InputError(where, "validation split", "0 events", "one at least, or a fraction of 0")
    mean = np.float32(sum_weight / stores[TRAIN].n)
    parts = []
    for store in stores:
        codes, weight32 = store.finish()
        parts.append((codes, weight32 if mean == 1 else np.asarray(weight32) / mean))
    hashes = {name: sha256_path(path) for name, path in files.items()}
    return TrainingData(layout, parts[0], parts[1], n_test, counts, hashes, tuple(notes))
