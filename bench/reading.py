"""How fast files are read, beside the plain library decoding the same columns in the same run.

    python bench/reading.py [--quick] [--repeats 5] [--out FOLDER]

Our HDF5 into memory beside plain h5py, CMS open-data parquet beside plain pyarrow, L1Ntuple beside plain uproot. The
plain libraries only decode; ours gives hardware integers that were checked, padded and put in order. The files are
written first, with the random objects of ``tests/events/readers/writers.py``, and read once before the clock starts, so
that they come from the page cache.
"""

from __future__ import annotations

import runpy
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from common import Case, arguments, cpu_seconds, human, measure, report

ROOT = Path(__file__).resolve().parent.parent
#: Wanted events per second, by unit.
WANTED = {"HDF5 events": 3e6, "parquet events": 2e5, "L1Ntuple events": 2e5}
PIECE = 65536


def counted(read: Callable[[], int], expected: int) -> Callable[[], None]:
    """`read`, held to the number of events in the file."""

    def run() -> None:
        found = read()
        if found != expected:
            raise RuntimeError(f"read {found} events of {expected}")

    return run


def own_hdf5(folder: Path, n: int) -> list[Case]:
    """Our file into one `Events`, beside h5py reading the same data sets into arrays."""
    import h5py

    from l1ad.events import Events

    rng = np.random.default_rng(7)
    hw = np.zeros((n, 19, 3), dtype=np.int16)
    for first, slots in ((0, 1), (1, 4), (5, 4), (9, 10)):
        hw[:, first : first + slots, 0] = -np.sort(-rng.integers(0, 500, (n, slots)), axis=1)
        hw[:, first : first + slots, 2] = rng.integers(0, 144, (n, slots))
    path = folder / "own.h5"
    bits = {f"L1_Seed{i}": rng.random(n) < 0.01 for i in range(20)}
    Events.from_arrays(hw, weight=rng.random(n), n_pv=rng.random(n), menu_bits=bits).write(path)

    def theirs() -> int:
        with h5py.File(path) as file:
            arrays = [file[name][:] for name in ("hw", "columns/weight", "columns/n_pv", "menu/bits")]
        return len(arrays[0])

    unit = "HDF5 events"
    return [
        Case("h5py, own format into memory", counted(theirs, n), n, unit),
        Case("l1ad, own format into memory", counted(lambda: len(Events.read(path)), n), n, unit, ours=True),
    ]


def stream(path: Path) -> Callable[[], int]:
    """Read a file in pieces with our reader."""
    from l1ad.events import open_events

    def ours() -> int:
        with open_events(path) as source:
            return sum(len(events) for events in source.chunks(PIECE))

    return ours


def parquet(folder: Path, toy: Any, writers: SimpleNamespace) -> list[Case]:
    """Open data with 178 seeds, beside pyarrow decoding the same columns."""
    import pyarrow.parquet as pq

    path = writers.write_opendata(folder / "open.parquet", toy, rows=100_000)
    names = [name for name in pq.read_schema(path).names if not name.startswith("taus_")]
    names = [name for name in names if name not in ("muons_muonQual", "muons_muonChg")]

    def theirs() -> int:
        return sum(batch.num_rows for batch in pq.ParquetFile(path).iter_batches(batch_size=PIECE, columns=names))

    n, unit = len(toy), "parquet events"
    return [
        Case("pyarrow, CMS open data", counted(theirs, n), n, unit, note="decoded only"),
        Case("l1ad, CMS open data", counted(stream(path), n), n, unit, ours=True, note="178 seeds"),
    ]


def l1ntuple(folder: Path, toy: Any, writers: SimpleNamespace) -> list[Case]:
    """L1Ntuple with objects of several crossings and 512 decisions, beside uproot decoding the same branches."""
    import uproot

    path = writers.write_l1ntuple(folder / "ntuple.root", toy)
    objects = [f"{name}{part}" for name in ("eg", "jet") for part in ("IEt", "IEta", "IPhi", "Bx")]
    objects += ["muonIEt", "muonIEtaAtVtx", "muonIPhiAtVtx", "muonBx", "sumType", "sumIEt", "sumIPhi", "sumBx"]
    branches = {
        "l1UpgradeTree/L1UpgradeTree": objects,
        "l1uGTTree/L1uGTTree": ["m_algoDecisionFinal"],
        "l1EventTree/L1EventTree": ["run", "lumi", "bx", "orbit", "event", "nPV_True"],
    }

    def theirs() -> int:
        with uproot.open(path, handler=uproot.MemmapSource) as file:
            trees = {name: file[name] for name in branches}
            n = int(trees["l1UpgradeTree/L1UpgradeTree"].num_entries)
            for start in range(0, n, PIECE):
                for tree, names in branches.items():
                    for name in names:
                        trees[tree][name].array(entry_start=start, entry_stop=min(start + PIECE, n))
        return n

    n, unit = len(toy), "L1Ntuple events"
    return [
        Case("uproot, L1Ntuple", counted(theirs, n), n, unit, note="decoded only"),
        Case("l1ad, L1Ntuple", counted(stream(path), n), n, unit, ours=True, note="512 decisions"),
    ]


def import_seconds(repeats: int) -> list[float]:
    """CPU seconds of `import l1ad` beyond starting Python, in fresh processes."""
    code = "import time; t = time.process_time(); import l1ad; print(time.process_time() - t)"
    return [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(repeats)]


def main() -> None:
    options = arguments("reading", "How fast files are read")
    n = 20_000 if options.quick else 200_000
    writers = SimpleNamespace(**runpy.run_path(str(ROOT / "tests/events/readers/writers.py")))
    # About the numbers of e/gamma, muons and jets in a zero-bias crossing at a pile-up of 60.
    toy = writers.toy_objects(n, n_seeds=178, means=(5, 0.5, 5))
    results = []
    per_cpu: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for cases in (own_hdf5(folder, 5 * n), parquet(folder, toy, writers), l1ntuple(folder, toy, writers)):
            results += measure(cases, repeats=options.repeats)
            per_cpu.update({c.name: c.work / min(cpu_seconds(c.run) for _ in range(5)) for c in cases})
    imports = import_seconds(options.repeats)
    notes = []
    for result in results:
        if result.ours:
            reached = "reached" if result.rate >= WANTED[result.unit] else "NOT reached"
            notes.append(f"wanted {human(WANTED[result.unit])} {result.unit}/s: {reached} with {human(result.rate)}")
    shares = ", ".join(f"{name} {human(rate)}" for name, rate in per_cpu.items())
    notes.append(f"Events for each second of CPU time, which other work disturbs less: {shares}.")
    notes.append(f"`import l1ad`: {statistics.median(imports):.3f} s of CPU time, wanted below 0.5 s")
    extra = {"import_cpu_seconds": imports, "events_a_cpu_second": per_cpu}
    report("reading", "Reading events", results, options, extra=extra, notes=notes)


if __name__ == "__main__":
    main()
