"""PYTHIA 8 to :class:`~l1ad.events.simulate.library.Library`.

Events come in awkward arrays from ``nextBatch``: no Python loop over particles. A library is made in blocks of fixed
size, each with its own child of one ``SeedSequence``, so that it is the same to the bit for any number of workers, and
the first blocks of a longer library are those of a shorter one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from l1ad.errors import InputError
from l1ad.events.simulate.library import EM, HADRON, MUON, Library, concatenate, write_library
from l1ad.events.simulate.processes import COMMON, TUNES, Process
from l1ad.events.simulate.propagate import to_calorimeter
from l1ad.events.simulate.suep import thermal_decay

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = [
    "ETA_MAX",
    "ET_MIN_GEV",
    "MAX_PYTHIA_SEED",
    "MU_PT_MIN_GEV",
    "generate",
    "generate_block",
    "generate_to_file",
    "start",
]

ETA_MAX = 5.191  # outer edge of the forward calorimeter
ET_MIN_GEV = 0.05  # softer particles are below any noise
MU_PT_MIN_GEV = 2.0  # softer muons do not leave the calorimeters
MU_ETA_MAX = 2.5
JET_PT_MIN_GEV = 10.0
BEAM_SPOT_SIGMA_M = 0.035
_BATCH = 500
MAX_PYTHIA_SEED = 900_000_000

Floats = NDArray[np.float64]


def start(process: Process, tune: str, seed: int, hook: Callable[[Any], Any] | None = None) -> Any:
    """A PYTHIA instance that accepted every setting.

    Parameters
    ----------
    hook:
        Makes a ``UserHooks`` from the ``pythia8mc`` module; the caller keeps what it returns alive.
    """
    try:
        import pythia8mc
    except ImportError as error:
        raise InputError("pythia8mc", found="no such module", expected='pip install "l1ad[simulate]"') from error
    if tune not in TUNES:
        raise InputError("tune", found=repr(tune), expected=f"one of {', '.join(TUNES)}")
    pythia = pythia8mc.Pythia("", False)
    settings = (*COMMON, *TUNES[tune], *process.settings, "Random:setSeed = on", f"Random:seed = {seed}")
    for setting in settings:
        if not pythia.readString(setting):
            raise InputError(process.name, "setting", repr(setting), "one that PYTHIA accepts")
    if hook is not None:
        pythia.setUserHooksPtr(hook(pythia8mc))
    if not pythia.init():
        raise InputError(process.name, "settings", "a set that PYTHIA cannot start with", "a consistent set")
    return pythia


def _gen_jets(momenta: Floats, event: NDArray[np.int64], n: int) -> tuple[NDArray[Any], ...]:
    """Anti-kt 0.4 jets of (E, px, py, pz) rows: counts of n events, then pt, eta, phi, hardest first."""
    import awkward as ak
    import fastjet

    records = ak.zip(
        {"E": momenta[:, 0], "px": momenta[:, 1], "py": momenta[:, 2], "pz": momenta[:, 3]}, with_name="Momentum4D"
    )
    particles = ak.unflatten(records, np.bincount(event, minlength=n))
    definition = fastjet.JetDefinition(fastjet.antikt_algorithm, 0.4)
    jets = fastjet.ClusterSequence(particles, definition).inclusive_jets(min_pt=JET_PT_MIN_GEV)
    pt = np.hypot(jets.px, jets.py)
    order = ak.argsort(pt, axis=1, ascending=False)
    jets, pt = jets[order], pt[order]
    flat = (ak.to_numpy(ak.flatten(x)) for x in (pt, np.arcsinh(jets.pz / pt), np.arctan2(jets.py, jets.px)))
    return (ak.to_numpy(ak.num(pt)), *flat)


def _offsets(event: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(np.bincount(event, minlength=n))]).astype(np.int64)


def _digest(
    ids: NDArray[np.int64],
    momenta: Floats,
    event: NDArray[np.int64],
    pthat: Floats,
    particle_data: Any,
    rng: np.random.Generator,
    with_jets: bool,
) -> dict[str, NDArray[Any]]:
    """Final-state particles of ``len(pthat)`` collisions to the arrays of a library, ``event`` rising."""
    n = len(pthat)
    unique, inverse = np.unique(ids, return_inverse=True)
    charge = np.array([particle_data.chargeType(int(i)) / 3.0 for i in unique])[inverse]
    visible = np.array([particle_data.isVisible(int(i)) for i in unique], bool)[inverse]
    absolute = np.abs(ids)
    kind = np.where(absolute == 13, MUON, np.where(np.isin(absolute, (11, 22)), EM, HADRON))
    energy, px, py, pz = momenta.T
    pt = np.maximum(np.hypot(px, py), 1e-9)
    eta, phi = np.arcsinh(pz / pt), np.arctan2(py, px)

    out: dict[str, NDArray[Any]] = {"pthat": pthat}
    hidden = np.where(visible, 0.0, 1.0)
    out["gen_met"] = np.hypot(np.bincount(event, hidden * px, n), np.bincount(event, hidden * py, n))
    muon = (kind == MUON) & (pt > MU_PT_MIN_GEV) & (np.abs(eta) < MU_ETA_MAX)
    out["mu_offset"] = _offsets(event[muon], n)
    out.update(mu_pt=pt[muon], mu_eta=eta[muon], mu_phi=phi[muon], mu_charge=charge[muon])
    if with_jets:
        seen = visible & (kind != MUON) & (np.abs(eta) < ETA_MAX)
        counts, *jets = _gen_jets(momenta[seen], event[seen], n)
        out["jet_offset"] = np.concatenate([[0], np.cumsum(counts)])
        out.update(zip(("jet_pt", "jet_eta", "jet_phi"), jets, strict=True))
    else:
        out.update(jet_offset=np.zeros(n + 1, np.int64), jet_pt=np.zeros(0), jet_eta=np.zeros(0), jet_phi=np.zeros(0))

    z0 = rng.normal(0.0, BEAM_SPOT_SIGMA_M, n)[event]
    face_eta, face_phi = to_calorimeter(pt, eta, phi, charge, z0)
    et = energy / np.cosh(face_eta)
    keep = visible & (np.abs(face_eta) < ETA_MAX) & (et > ET_MIN_GEV)
    out["offset"] = _offsets(event[keep], n)
    out.update(eta=face_eta[keep], phi=face_phi[keep], et=np.minimum(et[keep], 6e4), kind=kind[keep])
    return out


def _decay_scalar(
    ids: NDArray[np.int64], momenta: Floats, event: NDArray[np.int64], pid: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], Floats, NDArray[np.int64]]:
    """Replace every particle ``pid`` by its thermal decay products; events stay in order."""
    heavy = ids == pid
    owner, new_ids, products = thermal_decay(momenta[heavy], rng)
    ids = np.concatenate([ids[~heavy], new_ids])
    momenta = np.concatenate([momenta[~heavy], products])
    event = np.concatenate([event[~heavy], event[heavy][owner]])
    order = np.argsort(event, kind="stable")
    return ids[order], momenta[order], event[order]


def _batches(pythia: Any, process: Process, n: int, rng: np.random.Generator) -> Iterator[tuple[Library, bool]]:
    """Libraries of at most ``_BATCH`` tried events until ``n`` are accepted."""
    import awkward as ak

    done = 0
    with_jets = process.pthat_veto is None
    while done < n:
        batch = pythia.nextBatch(min(_BATCH, max(n - done, 50)))
        pthat = np.sqrt(ak.to_numpy(batch.info.pT2Hat))
        keep = np.ones(len(pthat), bool) if process.pthat_veto is None else pthat < process.pthat_veto
        # stop exactly at the n-th accepted event, so that tried / accepted stays the veto's inverse efficiency
        last = np.searchsorted(np.cumsum(keep), n - done) + 1
        keep, tried = keep[:last], min(int(last), len(keep))
        batch, pthat = batch[: len(keep)][keep], pthat[: len(keep)][keep]
        final = batch.prt[batch.prt.status > 0]
        counts = ak.to_numpy(ak.num(final.id))
        event = np.repeat(np.arange(len(pthat)), counts)
        ids = ak.to_numpy(ak.flatten(final.id)).astype(np.int64)
        momenta = np.column_stack([ak.to_numpy(ak.flatten(final.p[c])) for c in ("e", "px", "py", "pz")])
        if process.thermal_scalar is not None:
            ids, momenta, event = _decay_scalar(ids, momenta, event, process.thermal_scalar, rng)
        arrays = _digest(ids, momenta, event, pthat, pythia.particleData, rng, with_jets)
        done += len(pthat)
        yield (
            Library(process.name, process.settings, "", 0, tried, 0.0, **arrays),
            done >= n,
        )


def generate_block(process: Process, n: int, seed: np.random.SeedSequence, tune: str = "monash") -> Library:
    """``n`` collisions from one child seed."""
    seed_pythia, seed_numpy = seed.spawn(2)
    pythia = start(process, tune, 1 + int(seed_pythia.generate_state(1)[0]) % MAX_PYTHIA_SEED)
    parts = [part for part, _ in _batches(pythia, process, n, np.random.default_rng(seed_numpy))]
    lib = concatenate(parts)
    sigma = float(pythia.infoPython().sigmaGen()) * len(lib) / lib.n_tried
    return _with(lib, tune=tune, sigma_mb=sigma)


def _with(lib: Library, **changes: Any) -> Library:
    from dataclasses import replace

    return replace(lib, **changes)


def _block_task(args: tuple[Process, int, np.random.SeedSequence, str]) -> Library:
    return generate_block(*args)


def generate(
    process: Process,
    n: int | None = None,
    *,
    seed: int,
    tune: str = "monash",
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Library:
    """A library of ``n`` collisions (``process.n_default`` unless given).

    Parameters
    ----------
    seed:
        Root seed. The process name is mixed in, so that one seed serves a whole set of libraries.
    workers:
        Processes to use; the result does not depend on it.
    progress:
        Called with the number of collisions of each finished block.
    """
    n = process.n_default if n is None else n
    if n < 1:
        raise InputError("n", found=n, expected="at least 1 collision")
    sizes = [process.block] * (n // process.block) + ([n % process.block] if n % process.block else [])
    root = np.random.SeedSequence([seed, *process.name.encode()])
    tasks = [(process, size, child, tune) for size, child in zip(sizes, root.spawn(len(sizes)), strict=True)]
    blocks: list[Library] = []
    with _executor(min(workers, len(tasks))) as pool:
        for block in pool.map(_block_task, tasks) if pool is not None else map(_block_task, tasks):
            blocks.append(block)
            if progress is not None:
                progress(len(block))
    return _with(concatenate(blocks), seed=seed)


def _executor(workers: int) -> Any:
    """A pool of fresh processes, or a context that gives None for one worker: then the caller works itself."""
    import contextlib
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    if workers <= 1:
        return contextlib.nullcontext(None)
    pool: Executor = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    return pool


def generate_to_file(
    path: str | Path, process: Process, n: int | None = None, *, seed: int, tune: str = "monash", workers: int = 1
) -> Library:
    """:func:`generate`, then :func:`~l1ad.events.simulate.library.write_library`."""
    lib = generate(process, n, seed=seed, tune=tune, workers=workers)
    write_library(path, lib)
    return lib
