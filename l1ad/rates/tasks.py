"""The pieces of a calibration that workers do, and how they are handed out.

A task is a range of one file. `ScoreTask` scores it and writes its histogram and its scores to a file in the work
folder; `TailTask` goes back to the events at or above the lowest threshold and sums them by pile-up, run, lumi section,
bunch and seed. The name of a result is the hash of everything it depends on, and it gets that name only when it is
complete: a task whose result exists is not done again, so that a calibration goes on where it was killed. Nothing in a
result depends on which worker made it, or on how a file was divided. Workers and the caller share the work folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, as_completed
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError, L1adError
from l1ad.events.readers import open_events
from l1ad.events.store import Events, EventsFile
from l1ad.io import atomic_hdf5, sha256_path
from l1ad.menu import Menu, MenuDecision
from l1ad.rates.exact import ExactSums, FloatArray, IntArray
from l1ad.rates.histogram import Kind, ScoreHistogram, check_weights
from l1ad.rates.rates import MAX_PILEUP, pileup_bin
from l1ad.rates.stability import VARIABLES, GroupSums, group_keys

#: Of the files in the work folder; a change here makes old ones unknown.
RESULT_VERSION = 2
#: Events that a task holds at a time.
CHUNK_EVENTS = 1 << 16
#: How often a broken pool of processes is replaced before giving up.
MAX_RESTARTS = 5


class Scorer(Protocol):
    """What a calibration needs of a `Trigger`."""

    @property
    def name(self) -> str: ...

    @property
    def hash(self) -> str: ...

    def score(self, events: Events) -> npt.NDArray[np.integer[Any]]: ...


@dataclass(frozen=True)
class Source:
    """A range of a file.

    Attributes
    ----------
    path : of the file.
    digest : SHA-256 of its bytes.
    start, stop : events of it; stop is None for a format that can only be read from beginning to end.
    """

    path: str
    digest: str
    start: int = 0
    stop: int | None = None

    def chunks(self, saturation: str) -> Iterator[Events]:
        """Its events, `CHUNK_EVENTS` at a time."""
        with open_events(self.path, saturation=saturation) as source:
            if self.stop is not None and isinstance(source, EventsFile):
                for start in range(self.start, self.stop, CHUNK_EVENTS):
                    yield source[start : min(start + CHUNK_EVENTS, self.stop)]
            else:
                yield from source.chunks(CHUNK_EVENTS)


@dataclass(frozen=True, eq=False)
class Context:
    """What all tasks of one sample share.

    Attributes
    ----------
    trigger : scores events.
    menu : for pure and proportional rates, or None.
    factors : on the weight by `pileup_bin`, or None.
    saturation : policy of the reader.
    folder : where results go.
    """

    trigger: Scorer
    menu: Menu | None
    factors: FloatArray | None
    saturation: str
    folder: str

    def weight_of(self, events: Events, *, where: str) -> FloatArray | None:
        """Weights (N,), pile-up factors included; None if all are 1.

        Raises
        ------
        InputError
            If a weight cannot be, or there is no pile-up to reweight.
        """
        column = events.columns.get("weight")
        weight = None if column is None else np.asarray(column, dtype=np.float64)
        if weight is not None:
            check_weights(weight, where=where)
        if self.factors is None:
            return weight
        if events.n_pv is None:
            raise InputError(where, "column n_pv", "nothing", "the pile-up of each event, to reweight it")
        factors = self.factors[pileup_bin(events.n_pv)]
        return factors if weight is None else weight * factors

    def identity(self) -> dict[str, Any]:
        """What results depend on, in JSON types."""
        factors = None if self.factors is None else hashlib.sha256(self.factors.tobytes()).hexdigest()
        return {
            "version": RESULT_VERSION,
            "trigger": self.trigger.hash,
            "menu": None if self.menu is None else self.menu.model_dump(mode="json"),
            "pileup": factors,
            "saturation": self.saturation,
        }


def _result_path(folder: str, *parts: Any) -> Path:
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return Path(folder) / f"{parts[0]}-{digest[:32]}.h5"


@dataclass(frozen=True, eq=False)
class ScoreTask:
    """Score one range of a file."""

    source: Source
    context: Context

    @property
    def result(self) -> Path:
        """The file that this task writes."""
        source = self.source
        return _result_path(
            self.context.folder, "scores", self.context.identity(), source.digest, source.start, source.stop
        )

    def run(self) -> None:
        """Do it.

        Raises
        ------
        InputError
            If the events cannot be used.
        """
        context, where = self.context, self.source.path
        histogram = ScoreHistogram(has_menu=context.menu is not None)
        seeds = SeedSums(context.menu)
        with atomic_hdf5(self.result) as file:
            saved = file.create_dataset("scores", shape=(0,), maxshape=(None,), chunks=(CHUNK_EVENTS,), dtype="u4")
            for events in self.source.chunks(context.saturation):
                scores = np.asarray(context.trigger.score(events))
                weight = context.weight_of(events, where=where)
                if context.menu is None:
                    histogram.fill(scores, weight, where=where)
                else:
                    decision = context.menu.evaluate(events)
                    histogram.fill(
                        scores,
                        weight,
                        chance_none=decision.chance_none(),
                        mean_share=decision.mean_share(),
                        where=where,
                    )
                    seeds.fill(decision, np.ones(len(events)) if weight is None else weight)
                position = len(saved)
                saved.resize(position + len(events), axis=0)
                if len(events):
                    saved[position:] = scores
            histogram.write(file.create_group("histogram"))
            seeds.write(file.create_group("seeds"))


@dataclass(frozen=True, eq=False)
class TailTask:
    """Sum the events of one range that pass each threshold, by group and by seed."""

    scored: ScoreTask
    thresholds: tuple[int, ...]
    kind: Kind
    groups: bool
    almost: float

    @property
    def result(self) -> Path:
        """The file that this task writes."""
        name = self.scored.result.name
        return _result_path(
            self.scored.context.folder, "tail", name, self.thresholds, self.kind, self.groups, self.almost
        )

    def run(self) -> None:
        """Do it.

        Raises
        ------
        InputError
            If the events cannot be used.
        """
        context, source = self.scored.context, self.scored.source
        sums = TailSums(len(self.thresholds), context.menu)
        position = 0
        with h5py.File(self.scored.result, "r") as scored:
            for events in source.chunks(context.saturation):
                scores = scored["scores"][position : position + len(events)].astype(np.int64)
                position += len(events)
                weight = context.weight_of(events, where=source.path)
                if weight is None:
                    weight = np.ones(len(events))
                self._fill(sums, events, scores, weight)
        with atomic_hdf5(self.result) as file:
            sums.write(file)

    def _fill(self, sums: TailSums, events: Events, scores: IntArray, weight: FloatArray) -> None:
        menu = self.scored.context.menu
        tail = np.flatnonzero(scores >= min(self.thresholds)) if self.thresholds else np.zeros(0, dtype=np.int64)
        counted = weight[tail]
        decision = None
        if menu is not None:
            # Only the tail is evaluated again: a few events in a thousand.
            decision = menu.evaluate(events[tail])
            if self.kind == "pure":
                counted = counted * decision.chance_none()
            elif self.kind == "proportional":
                counted = counted * decision.mean_share()
        passing = []
        for threshold in self.thresholds:
            chosen = scores[tail] >= threshold
            passing.append((tail[chosen], counted[chosen]))
        if self.groups:
            for variable in VARIABLES:
                keys = group_keys(events, variable)
                if keys is not None:
                    sums.groups.setdefault(variable, GroupSums(len(self.thresholds))).fill(keys, weight, passing)
        if menu is not None and decision is not None:
            loose = menu.scaled(self.almost)
            with_cuts = Menu.model_construct(
                **{**dict(loose), "seeds": tuple(seed for seed in loose.seeds if seed.all_conditions)}
            )
            near = with_cuts.evaluate(events[tail], use_data_bits=False).before if with_cuts.seeds else None
            pure = weight[tail] * decision.chance_none()
            for i, threshold in enumerate(self.thresholds):
                chosen = scores[tail] >= threshold
                for j, seed in enumerate(decision.names):
                    fires = chosen & decision.before[seed]
                    sums.add_overlap(i, j, weight[tail][fires])
                    if near is not None and seed in near:
                        sums.add_almost(i, j, pure[chosen & near[seed]])


class SeedSums:
    """Weight of the events of each seed, before prescales, and where its decisions came from."""

    def __init__(self, menu: Menu | None) -> None:
        self.names = tuple(seed.name for seed in menu.seeds) if menu else ()
        self.sums = ExactSums(len(self.names))
        self.origin: dict[str, set[str]] = {name: set() for name in self.names}
        self.notes: list[str] = []

    def fill(self, decision: MenuDecision, weight: FloatArray) -> None:
        """Add events."""
        for i, name in enumerate(self.names):
            fired = weight[decision.before[name]]
            self.sums.add(np.full(len(fired), i), fired)
            self.origin[name].add(decision.origin[name])
        self.notes = list(dict.fromkeys([*self.notes, *decision.notes]))

    def merge(self, other: SeedSums) -> None:
        """Add the events of another one of the same menu."""
        self.sums.merge(other.sums)
        for name, origins in other.origin.items():
            self.origin[name] |= origins
        self.notes = list(dict.fromkeys([*self.notes, *other.notes]))

    def write(self, group: h5py.Group) -> None:
        """Write to an HDF5 group."""
        group.attrs["names"] = json.dumps(self.names)
        group.attrs["origin"] = json.dumps({name: sorted(origins) for name, origins in self.origin.items()})
        group.attrs["notes"] = json.dumps(self.notes)
        write_sums(group, self.sums)

    @classmethod
    def read(cls, group: h5py.Group) -> SeedSums:
        """Read what `write` wrote."""
        result = cls(None)
        result.names = tuple(json.loads(group.attrs["names"]))
        result.origin = {name: set(origins) for name, origins in json.loads(group.attrs["origin"]).items()}
        result.notes = json.loads(group.attrs["notes"])
        result.sums = read_sums(group, len(result.names))
        return result


class TailSums:
    """What passes each threshold: sums by group, the overlap with each seed, and the pure events it almost fired on.

    Attributes
    ----------
    groups : by variable.
    overlap : exact, of (thresholds x seeds) bins: weight of the events that pass and for which the seed fires.
    almost : likewise, pure weight of the events for which the seed with loosened thresholds fires.
    """

    def __init__(self, n_thresholds: int, menu: Menu | None) -> None:
        self.n_thresholds = n_thresholds
        self.n_seeds = len(menu.seeds) if menu else 0
        self.groups: dict[str, GroupSums] = {}
        self.overlap = ExactSums(n_thresholds * self.n_seeds)
        self.almost = ExactSums(n_thresholds * self.n_seeds)

    def add_overlap(self, threshold: int, seed: int, weight: FloatArray) -> None:
        """Add events to `overlap`."""
        self.overlap.add(np.full(len(weight), threshold * self.n_seeds + seed), weight)

    def add_almost(self, threshold: int, seed: int, weight: FloatArray) -> None:
        """Add events to `almost`."""
        self.almost.add(np.full(len(weight), threshold * self.n_seeds + seed), weight)

    def merge(self, other: TailSums) -> None:
        """Add the events of another one of the same thresholds and menu."""
        for variable, sums in other.groups.items():
            self.groups.setdefault(variable, GroupSums(self.n_thresholds)).merge(sums)
        self.overlap.merge(other.overlap)
        self.almost.merge(other.almost)

    def write(self, file: h5py.Group) -> None:
        """Write to an HDF5 file."""
        for variable, sums in self.groups.items():
            sums.write(file.create_group(f"groups/{variable}"))
        write_sums(file.create_group("overlap"), self.overlap)
        write_sums(file.create_group("almost"), self.almost)

    @classmethod
    def read(cls, file: h5py.Group, n_thresholds: int, menu: Menu | None) -> TailSums:
        """Read what `write` wrote."""
        result = cls(n_thresholds, menu)
        for variable, group in file.get("groups", {}).items():
            result.groups[variable] = GroupSums.read(group, n_thresholds)
        result.overlap = read_sums(file["overlap"], result.overlap.n_bins)
        result.almost = read_sums(file["almost"], result.almost.n_bins)
        return result


@dataclass(frozen=True, eq=False)
class PileupTask:
    """Sum of weights of one range by `pileup_bin`."""

    source: Source
    context: Context

    @property
    def result(self) -> Path:
        """The file that this task writes."""
        source = self.source
        identity = {**self.context.identity(), "trigger": None, "menu": None}
        return _result_path(self.context.folder, "pileup", identity, source.digest, source.start, source.stop)

    def run(self) -> None:
        """Do it.

        Raises
        ------
        InputError
            If the events have no pile-up column.
        """
        sums = ExactSums(MAX_PILEUP + 1)
        for events in self.source.chunks(self.context.saturation):
            if events.n_pv is None:
                raise InputError(
                    self.source.path, "column n_pv", "nothing", "the pile-up of each event, to reweight it"
                )
            weight = self.context.weight_of(events, where=self.source.path)
            sums.add(pileup_bin(events.n_pv), np.ones(len(events)) if weight is None else weight)
        with atomic_hdf5(self.result) as file:
            write_sums(file, sums)


def write_sums(group: h5py.Group, sums: ExactSums) -> None:
    """Write exact sums to an HDF5 group."""
    sums.carry()
    for power, limb in sums.limbs.items():
        group[f"limbs/{power}"] = limb


def read_sums(group: h5py.Group, n_bins: int) -> ExactSums:
    """Read what `write_sums` wrote."""
    return ExactSums(n_bins, {int(power): limb[:] for power, limb in group.get("limbs", {}).items()})


class WorkersDied(L1adError):
    """Workers were killed again and again; what is done is kept, and the next call goes on from it."""


Task = ScoreTask | TailTask | PileupTask
Progress = Callable[[str, int, int], None]
ExecutorFactory = Callable[[], AbstractContextManager[Executor | None]]


def _run(task: Task) -> None:
    task.run()


def run_tasks(
    tasks: Sequence[Task],
    executors: ExecutorFactory,
    *,
    what: str = "tasks",
    progress: Progress | None = None,
    restarts: int = MAX_RESTARTS,
) -> None:
    """Do the tasks whose results do not exist yet.

    Parameters
    ----------
    executors : makes an executor (a context that yields one, or None to work in this process); called again when the
        one before broke because a worker was killed.
    progress : called with `what`, the number of tasks done and of all.
    restarts : how often a broken executor is replaced.

    Raises
    ------
    WorkersDied
        If they keep dying; and whatever a task raises.
    """
    Path(tasks[0].scored.context.folder if isinstance(tasks[0], TailTask) else tasks[0].context.folder).mkdir(
        parents=True, exist_ok=True
    )
    for attempt in range(restarts + 1):
        todo = [task for task in tasks if not task.result.is_file()]
        if not todo:
            break
        try:
            with executors() as executor:
                _hand_out(todo, len(tasks), executor, what, progress)
        except BrokenExecutor as error:
            if attempt == restarts:
                text = (
                    f"{what}: a worker died {restarts + 1} times (out of memory?); run again to go on from what is done"
                )
                raise WorkersDied(text) from error


def _hand_out(
    todo: Sequence[Task], total: int, executor: Executor | None, what: str, progress: Progress | None
) -> None:
    done = total - len(todo)
    if executor is None:
        for task in todo:
            task.run()
            done += 1
            if progress:
                progress(what, done, total)
        return
    futures = [executor.submit(_run, task) for task in todo]
    try:
        for future in as_completed(futures):
            future.result()
            done += 1
            if progress:
                progress(what, done, total)
    except BaseException:
        for future in futures:
            future.cancel()
        raise


@contextlib.contextmanager
def dask_executor(address: str, workers: int) -> Iterator[Executor | None]:
    """An executor on a dask scheduler at `address`, or on `workers` processes of this machine if it is ``local``.

    On a batch farm, start a cluster with dask-jobqueue in one session and hand its address to ``--dask`` in another::

        from dask_jobqueue import HTCondorCluster  # or SLURMCluster(queue=..., cores=1, memory="2GB")
        cluster = HTCondorCluster(cores=1, memory="2GB", disk="1GB")
        cluster.scale(jobs=50)
        print(cluster.scheduler_address)           # tcp://...: l1ad calibrate ... --dask tcp://... --work SHARED

    Its workers need the files and the work folder under the same paths as the caller.

    Raises
    ------
    MissingToolError
        If the extra is not installed.
    InputError
        If nothing answers at the address.
    """
    from l1ad.errors import require

    distributed: Any = require("distributed", "dask")
    if address == "local":
        with (
            distributed.LocalCluster(
                n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=":0"
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client.get_executor(pure=False)
        return
    try:
        client = distributed.Client(address, timeout="10s")
    except (OSError, ValueError, TypeError) as error:
        raise InputError("--dask", "address", address, "the address of a running scheduler, or local") from error
    with client:
        yield client.get_executor(pure=False)


def plan(paths: Sequence[str], *, chunk_events: int, saturation: str, where: str) -> tuple[list[Source], int | None]:
    """Ranges of the files, and the number of events if all files say so.

    Files of our own format are divided into ranges of `chunk_events`; one task reads any other from beginning to end.

    Raises
    ------
    InputError
        If there are no files, one cannot be read, one is given twice, or they hold no events.
    """
    from l1ad.events.readers._files import expand

    sources: list[Source] = []
    total: int | None = 0
    if not paths:
        raise InputError(where, "files", "none", "at least one")
    for path in expand(list(paths)):
        with open_events(path, saturation=saturation) as source:
            number = source.n_events
            divisible = isinstance(source, EventsFile)
        digest = sha256_path(path)
        if any(digest == earlier.digest for earlier in sources):
            raise InputError(where, "files", f"the content of {path.name} twice", "each event once")
        total = None if total is None or number is None else total + number
        if divisible and number is not None:
            starts = range(0, number, chunk_events)
            sources += [Source(str(path), digest, start, min(start + chunk_events, number)) for start in starts]
        elif number != 0:
            sources.append(Source(str(path), digest))
    if total == 0:
        raise InputError(where, "events", "none", f"at least one in {', '.join(Path(p).name for p in paths)}")
    return sources, total
