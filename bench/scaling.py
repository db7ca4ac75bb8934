"""`l1ad score` on workers: the same scores for any number, what a task costs beside its work, and what a day costs.

The same files are scored by this process and by 1, 2 and 4 workers of a `dask.distributed` LocalCluster, which all see
the same disk. What a task costs beside its work is the extra time of many small tasks over few large ones, divided by
their number; the promise is less than 5 % of a task of the default size.

    python bench/scaling.py [--quick] [--repeats N]
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from common import Case, arguments, measure, report
from emulator import LHC, network

from l1ad.errors import require
from l1ad.events import Events, EventsWriter
from l1ad.scoring import TASK_EVENTS, score_files

DAY_EVENTS = 1e9
WORDS = 57 * 2


def main() -> None:
    """Run the benchmark."""
    options = arguments("scaling", "Scoring on workers")
    distributed = require("distributed", "dask")
    trigger, events, origin = network()
    rng = np.random.default_rng(2)
    n = 2_000_000 if options.quick else 32_000_000
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        with EventsWriter(folder / "zb.h5") as writer:
            for start in range(0, n, 1 << 20):
                writer.append(Events.from_arrays(events[rng.integers(0, len(events), min(1 << 20, n - start))]))
        here = score_files(trigger, folder / "zb.h5", threads=1).histogram.tails().counts
        cases = [
            Case(f"this process, {threads} thread{'s' * (threads > 1)}", one_pass(trigger, folder, threads=threads), n)
            for threads in (1, 2)
        ]
        overhead: list[float] = []
        for workers in (1, 2, 4):
            cluster = stack.enter_context(
                distributed.LocalCluster(  # type: ignore[attr-defined]
                    n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None
                )
            )
            there = {"dask": cluster.scheduler_address, "workers": workers}
            found = score_files(trigger, folder / "zb.h5", **there)
            if not np.array_equal(found.histogram.tails().counts, here):
                raise SystemExit(f"{workers} workers: other scores than this process")
            cases.append(
                Case(f"dask, {workers} worker{'s' * (workers > 1)}", one_pass(trigger, folder, **there), n, ours=True)
            )
            if workers == 1:
                overhead = [cost_of_a_task(trigger, folder, n, there) for _ in range(options.repeats)]
        results = measure(cases, repeats=options.repeats)
    rate = next(r.rate for r in results if r.name.startswith("this process, 1"))
    extra, task = statistics.median(overhead), TASK_EVENTS / rate
    both = next(r.rate for r in results if r.name.startswith("this process, 2"))
    node_seconds = DAY_EVENTS / both
    disk = DAY_EVENTS * WORDS
    notes = [
        f"Network: {origin}. The counts of every score are the same for all.",
        f"A task costs {1e3 * extra:.1f} ms beside its work, {100 * extra / task:.1f} % of one of {TASK_EVENTS} events "
        f"({1e3 * task:.0f} ms here); wanted below 5 %.",
        f"A day of zero bias, 10^9 events: {disk / 1e9:.0f} GB of words. At {both / 1e6:.0f} M events/s for a node of "
        f"two cores (this run) {node_seconds:.0f} s on one and {node_seconds / 10:.1f} s on ten, if each reads "
        f"{both * WORDS / 1e9:.1f} GB/s; from a disk of 0.5 GB/s a node it is {disk / 0.5e9:.0f} s on one and "
        f"{disk / 0.5e9 / 10:.0f} s on ten: the disk is the limit then, not the kernel. "
        f"The LHC makes as many crossings in {DAY_EVENTS / LHC:.0f} s.",
    ]
    report("scaling", "Scoring on workers", results, options, extra={"overhead_seconds": overhead}, notes=notes)


def one_pass(trigger, folder: Path, **how):
    """Files to a histogram."""
    return lambda: score_files(trigger, folder / "zb.h5", **how)


def cost_of_a_task(trigger, folder: Path, n: int, there: dict[str, object]) -> float:
    """Seconds that a task takes beside its work: many small against few large, the same events."""
    seconds = []
    sizes = (n // 4, n // 64)
    for size in sizes:
        start = time.perf_counter()
        score_files(trigger, folder / "zb.h5", task_events=size, **there)
        seconds.append(time.perf_counter() - start)
    tasks = [-(-n // size) for size in sizes]
    return (seconds[1] - seconds[0]) / (tasks[1] - tasks[0])


if __name__ == "__main__":
    main()
