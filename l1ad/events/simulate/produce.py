"""Simulated :class:`~l1ad.events.store.Events`, in parallel, and the libraries they need."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from l1ad.errors import InputError
from l1ad.events.simulate.calibration import JetCalibration, default_calibration
from l1ad.events.simulate.detector import Detector
from l1ad.events.simulate.level1 import LAYOUTS, emulate
from l1ad.events.simulate.library import Library, describe_library, read_library
from l1ad.events.simulate.mixing import MU_REFERENCE, Pool, draw, hardest_pthat, make_pool
from l1ad.events.simulate.processes import BACKGROUND, SQRT_S_GEV, get_process

if TYPE_CHECKING:
    from l1ad.events.store import Events

__all__ = [
    "LIBRARY_SEED",
    "ZERO_BIAS",
    "default_library_folder",
    "ensure_libraries",
    "load_libraries",
    "simulate",
    "simulate_chunk",
]

ZERO_BIAS = "zero_bias"
LIBRARY_SEED = 2024
CHUNK = 2500  # crossings of one child seed; part of what a seed means


def default_library_folder() -> Path:
    """``$L1AD_LIBRARY``, or a folder in the user's cache."""
    if folder := os.environ.get("L1AD_LIBRARY"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "l1ad" / "library"


def library_path(folder: Path, process: str) -> Path:
    """File of a process's library."""
    return folder / f"{process}.h5"


def ensure_libraries(
    folder: Path,
    processes: list[str],
    *,
    seed: int = LIBRARY_SEED,
    tune: str = "monash",
    workers: int = 1,
    progress: Callable[[str], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Generate into ``folder`` the libraries that are missing there; what each library of ``processes`` is, by name.

    ``progress`` is told what is being made.

    Raises
    ------
    InputError
        If a file holds another process than its name says, or a process is unknown.
    """
    from l1ad.events.simulate.generate import generate_to_file

    out = {}
    for name in processes:
        path = library_path(folder, name)
        if not path.exists():
            process = get_process(name)
            if progress is not None:
                progress(f"generating {process.n_default} collisions of {name}")
            generate_to_file(path, process, seed=seed, tune=tune, workers=workers)
        out[name] = describe_library(path)
        if out[name]["process"] != name:
            raise InputError(str(path), "process", out[name]["process"], name)
    return out


def load_libraries(folder: Path, processes: list[str], *, max_collisions: int | None = None) -> list[Library]:
    """Libraries of these processes, or the first ``max_collisions`` of each."""
    libraries = [read_library(library_path(folder, name)) for name in processes]
    return libraries if max_collisions is None else [library.head(max_collisions) for library in libraries]


@dataclass(frozen=True)
class Job:
    """Everything that a chunk of crossings depends on, besides the libraries and its seed."""

    process: str
    stratified: bool
    mu: float
    mu_spread: float
    detector: Detector
    layout: str = "cms_ugt"
    calibration: JetCalibration = field(default_factory=default_calibration)


def simulate_chunk(pool: Pool, job: Job, start: int, n: int, seed: np.random.SeedSequence) -> dict[str, Any]:
    """Crossings ``start`` to ``start + n`` of a job as plain arrays: ``hw`` and the columns by name."""
    rng = np.random.default_rng(seed)
    signal = pool.signal[(start + np.arange(n)) % len(pool.signal)] if len(pool.signal) else None
    drawn = draw(
        pool, n, job.detector, rng, mu=job.mu, mu_spread=job.mu_spread, stratified=job.stratified, signal=signal
    )
    objects = emulate(pool, drawn, job.detector, rng, job.calibration, job.layout)
    out: dict[str, Any] = {
        "hw": objects.hw,
        **objects.columns,
        # whole collisions: no detector measures pile-up any better
        "n_pv": np.rint(drawn.mu).astype(np.float32),
        "n_pu": drawn.counts.sum(axis=1).astype(np.int16),
        "hardest": drawn.hardest.astype(np.int8),
        "pthat_max": hardest_pthat(pool, drawn).astype(np.float16).astype(np.float32),
    }
    if job.stratified:
        out["weight"] = drawn.weight.astype(np.float32)
    return out


@dataclass(frozen=True)
class Setup:
    """What a worker needs to make its pool: folder, background strata, signal, cap on each library, and the job."""

    folder: Path
    background: list[str]
    signal: str | None
    max_collisions: int | None
    job: Job

    def pool(self) -> Pool:
        """Read and shower the libraries; some seconds for a large set."""
        libraries = load_libraries(self.folder, self.background, max_collisions=self.max_collisions)
        signal = [self.signal] if self.signal else []
        overlay = load_libraries(self.folder, signal, max_collisions=self.max_collisions)
        return make_pool(libraries, self.job.detector, overlay[0] if overlay else None)


Task = tuple[int, int, np.random.SeedSequence]


def run_tasks(setup: Setup, tasks: list[Task]) -> tuple[list[str], list[dict[str, Any]]]:
    """Names of the strata and the chunks of these tasks: the share of one worker."""
    pool = setup.pool()
    return [s.name for s in pool.strata], [simulate_chunk(pool, setup.job, *task) for task in tasks]


def _run(setup: Setup, tasks: list[Task], workers: int) -> tuple[list[str], list[dict[str, Any]]]:
    if workers <= 1:
        return run_tasks(setup, tasks)
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as executor:
        shares = [executor.submit(run_tasks, setup, tasks[w::workers]) for w in range(workers)]
        done = [share.result() for share in shares]
    chunks: list[dict[str, Any]] = [{}] * len(tasks)
    for w, (_, share) in enumerate(done):
        chunks[w::workers] = share
    return done[0][0], chunks


def simulate(
    process: str = ZERO_BIAS,
    n: int = 10_000,
    *,
    seed: int,
    layout: str = "cms_ugt",
    stratified: bool = False,
    mu: float = MU_REFERENCE,
    mu_spread: float = 6.0,
    workers: int = 1,
    library: str | Path | None = None,
    detector: Detector | None = None,
    background: list[str] | None = None,
    max_collisions: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> Events:
    """Simulate crossings as the Level-1 trigger sees them.

    Parameters
    ----------
    process:
        ``zero_bias``, or a signal (or background stratum) of :mod:`.processes`, one collision of it a crossing on top
        of pile-up.
    n:
        Number of crossings.
    seed:
        Root of all randomness; the result depends on it and on the libraries, not on ``workers``. The crossings do not
        depend on ``layout`` either: two calls see the same ones through two triggers.
    layout:
        What the trigger reports: ``cms_ugt``, ``cms_calo_regions`` or ``atlas_l1topo`` (see :mod:`.level1`).
    stratified:
        Zero bias with populated tails and a ``weight`` column of mean 1.
    mu, mu_spread:
        Mean number of inelastic collisions a crossing and its spread.
    library:
        Folder of generator libraries; what is missing is generated into it (minutes, once).
    background:
        Names of the background strata; all of them unless given.
    max_collisions:
        Use only the first so many collisions of each library.
    progress:
        Told in words what takes long.

    Returns
    -------
    Events
        With columns ``n_pv`` (mean pile-up of the crossing, rounded), ``n_pu`` (collisions it holds), and the truth
        ``hardest`` (index into the metadata's ``strata``) and ``pthat_max`` (GeV); in ``cms_ugt`` also ``ht`` and
        ``met_hf`` (codes of 0.5 GeV).

    Raises
    ------
    InputError
        For an unknown process or layout, impossible numbers, or weights asked for a signal.
    """
    from l1ad.events.store import Events

    if process != ZERO_BIAS:
        get_process(process)
        if stratified:
            raise InputError("stratified", found=f"process {process}", expected=f"process {ZERO_BIAS}")
    if layout not in LAYOUTS:
        raise InputError("layout", found=layout, expected=f"one of {', '.join(LAYOUTS)}")
    if n < 1:
        raise InputError("n", found=n, expected="at least 1 crossing")
    if not 0 <= mu <= 200:
        raise InputError("mu", found=mu, expected="0 to 200 collisions a crossing")
    if not 0 <= mu_spread <= 200:
        raise InputError("mu_spread", found=mu_spread, expected="0 to 200 collisions a crossing")
    if workers < 1:
        raise InputError("workers", found=workers, expected="at least 1")
    folder = Path(library) if library is not None else default_library_folder()
    names = list(BACKGROUND) if background is None else background
    signal = None if process == ZERO_BIAS else process
    wanted = names + ([signal] if signal else [])
    about = ensure_libraries(folder, wanted, workers=workers, progress=progress)

    job = Job(process, stratified, mu, mu_spread, detector or Detector(), layout)
    starts = range(0, n, CHUNK)
    children = np.random.SeedSequence([seed, *process.encode(), int(stratified)]).spawn(len(starts))
    tasks = [(start, min(CHUNK, n - start), child) for start, child in zip(starts, children, strict=True)]
    setup = Setup(folder, names, signal, max_collisions, job)
    strata, parts = _run(setup, tasks, min(workers, len(tasks)))
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    meta = {
        "source": "simulation",
        "process": process,
        "stratified": stratified,
        "seed": seed,
        "mu": mu,
        "mu_spread": mu_spread,
        "sqrt_s_gev": SQRT_S_GEV,
        "strata": strata,
        "libraries": about,
        "max_collisions": max_collisions,
        "detector": asdict(job.detector),
    }
    hw = arrays.pop("hw")
    return Events.from_arrays(hw, layout=layout, columns=arrays, meta=meta, where=process)
