"""How fast files are read, beside the plain library reading the same columns in the same run.

    python bench/reading.py [--events 200000] [--repeats 5] [--json reading.json]

Rows: our HDF5 into memory beside plain h5py, CMS open-data parquet beside plain pyarrow, L1Ntuple beside plain uproot
(ours streams in pieces and gives checked, padded, sorted hardware integers; the plain libraries only decode). The two
are timed in turn, so that a busy machine slows both. The files are written first, with the random objects of
tests/events/readers/writers.py, and read once before the clock starts (page cache).
"""

from __future__ import annotations

import argparse
import os
import platform
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Row:
    """One comparison: events per second, median, slowest and fastest of the repeats; ours first."""

    name: str
    events: int
    median: float
    slowest: float
    fastest: float
    plain: str
    plain_median: float
    plain_slowest: float
    plain_fastest: float
    wanted: float

    @property
    def reached(self) -> bool:
        return self.median >= self.wanted


def compare(
    name: str,
    events: int,
    ours: Callable[[], int],
    plain: str,
    theirs: Callable[[], int],
    *,
    repeats: int,
    wanted: float,
) -> Row:
    """Time `ours` and `theirs` in turn; both return the number of events they read."""
    rates: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 1):
        for function, found in zip((ours, theirs), rates):
            start = time.perf_counter()
            n = function()
            seconds = time.perf_counter() - start
            if n != events:
                raise SystemExit(f"{name}: read {n} events of {events}")
            if repeat:
                found.append(n / seconds)
    mine, other = rates
    return Row(
        name,
        events,
        statistics.median(mine),
        min(mine),
        max(mine),
        plain,
        statistics.median(other),
        min(other),
        max(other),
        wanted,
    )


def own_hdf5(folder: Path, repeats: int, events: int) -> Row:
    """Our file into one `Events`, beside h5py reading the same data sets into arrays."""
    import h5py

    from l1ad.events import Events

    rng = np.random.default_rng(7)
    hw = np.zeros((events, 19, 3), dtype=np.int16)
    for first, slots in ((0, 1), (1, 4), (5, 4), (9, 10)):
        hw[:, first : first + slots, 0] = -np.sort(-rng.integers(0, 500, (events, slots)), axis=1)
        hw[:, first : first + slots, 2] = rng.integers(0, 144, (events, slots))
    path = folder / "own.h5"
    bits = {f"L1_Seed{i}": rng.random(events) < 0.01 for i in range(20)}
    Events.from_arrays(hw, weight=rng.random(events), n_pv=rng.random(events), menu_bits=bits).write(path)

    def ours() -> int:
        return len(Events.read(path))

    def theirs() -> int:
        with h5py.File(path) as file:
            arrays = [file[name][:] for name in ("hw", "columns/weight", "columns/n_pv", "menu/bits")]
        return len(arrays[0])

    return compare("own HDF5 into memory", events, ours, "h5py", theirs, repeats=repeats, wanted=3e6)


def stream(path: Path) -> Callable[[], int]:
    """Read a file in pieces with our reader."""
    from l1ad.events import open_events

    def ours() -> int:
        with open_events(path) as source:
            return sum(len(events) for events in source.chunks())

    return ours


def parquet(folder: Path, repeats: int, toy: object, writers: SimpleNamespace) -> Row:
    """Open data with 178 seeds, beside pyarrow decoding the same columns."""
    import pyarrow.parquet as pq

    path = writers.write_opendata(folder / "open.parquet", toy, rows=100_000)
    names = [name for name in pq.read_schema(path).names if not name.startswith("taus_")]
    names = [name for name in names if name not in ("muons_muonQual", "muons_muonChg")]

    def theirs() -> int:
        return sum(batch.num_rows for batch in pq.ParquetFile(path).iter_batches(batch_size=65536, columns=names))

    return compare(
        "CMS open data (parquet)",
        len(toy),
        stream(path),
        "pyarrow",
        theirs,
        repeats=repeats,
        wanted=2e5,  # type: ignore[arg-type]
    )


def l1ntuple(folder: Path, repeats: int, toy: object, writers: SimpleNamespace) -> Row:
    """L1Ntuple with five crossings and 512 decisions, beside uproot decoding the same branches."""
    import uproot

    path = writers.write_l1ntuple(folder / "ntuple.root", toy)
    wanted = {f"{name}{part}" for name in ("eg", "jet") for part in ("IEt", "IEta", "IPhi", "Bx")}
    wanted |= {"muonIEt", "muonIEtaAtVtx", "muonIPhiAtVtx", "muonBx", "sumType", "sumIEt", "sumIPhi", "sumBx"}

    def theirs() -> int:
        with uproot.open(path, handler=uproot.MemmapSource) as file:
            trees = [
                file[name] for name in ("l1UpgradeTree/L1UpgradeTree", "l1uGTTree/L1uGTTree", "l1EventTree/L1EventTree")
            ]
            n = trees[0].num_entries
            for start in range(0, n, 65536):
                for tree, names in zip(trees, (wanted, {"m_algoDecisionFinal"}, set(trees[2].keys()))):
                    for name in sorted(names):
                        tree[name].array(entry_start=start, entry_stop=min(start + 65536, n))
        return n

    return compare("L1Ntuple (ROOT)", len(toy), stream(path), "uproot", theirs, repeats=repeats, wanted=2e5)  # type: ignore[arg-type]


def import_seconds(repeats: int) -> list[float]:
    """CPU seconds that `import l1ad` costs beyond starting Python, in fresh processes."""
    code = "import time; t = time.process_time(); import l1ad; print(time.process_time() - t)"
    return [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(repeats)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    writers = SimpleNamespace(**runpy.run_path(str(ROOT / "tests/events/readers/writers.py")))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [own_hdf5(folder, options.repeats, 5 * options.events)]
        # Mean numbers of e/gamma, muons and jets of a zero-bias crossing at a pile-up of 60.
        toy = writers.toy_objects(options.events, n_seeds=178, means=(5, 0.5, 5))
        rows.append(parquet(folder, options.repeats, toy, writers))
        rows.append(l1ntuple(folder, options.repeats, toy, writers))
    print(f"{'':26s} {'ours: k events/s':>30s} {'plain: k events/s':>32s} {'ours/plain':>11s} {'wanted':>8s}")
    for row in rows:
        mine = f"{row.median / 1e3:8.0f} ({row.slowest / 1e3:.0f} to {row.fastest / 1e3:.0f})"
        other = (
            f"{row.plain} {row.plain_median / 1e3:.0f} ({row.plain_slowest / 1e3:.0f} to {row.plain_fastest / 1e3:.0f})"
        )
        ratio = f"{row.median / row.plain_median:.2f}"
        mark = "" if row.reached else "  below"
        print(f"{row.name:26s} {mine:>30s} {other:>32s} {ratio:>11s} {row.wanted / 1e3:8.0f}{mark}")
    imports = import_seconds(options.repeats)
    print(
        f"import l1ad: {statistics.median(imports):.3f} s CPU ({min(imports):.3f} to {max(imports):.3f}), wanted below 0.5"
    )
    load = os.getloadavg()[0]
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f}, Python {platform.python_version()}")
    if options.json:
        from l1ad.io import write_json

        rows_json = [{**asdict(row), "reached": row.reached} for row in rows]
        write_json(
            options.json, {"rows": rows_json, "import_cpu_seconds": imports, "load": load, "cores": os.cpu_count()}
        )


if __name__ == "__main__":
    main()
