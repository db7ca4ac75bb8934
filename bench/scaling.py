"""`l1ad score` and `l1ad calibrate` on workers: the same result for any number, and what a task costs beside its work.

The same files are scored, and calibrated, by this process and by 1, 2 and 4 workers of a `dask.distributed`
LocalCluster, which all see the same disk; any other result than this process has is an error. What a task costs beside
its work is the extra time of many small tasks over few large ones, divided by their number; the promise is less than
5 % of a task of the default size. `python bench/scaling_page.py` makes the page on a day of zero bias from the result.

    python bench/scaling.py [--quick] [--repeats N]
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import Case, arguments, measure, report
from emulator import network

from l1ad import Trigger
from l1ad.errors import require
from l1ad.events import Events, EventsWriter
from l1ad.io import sha256_file
from l1ad.rates.calibrate import DEFAULT_CHUNK_EVENTS, calibrate
from l1ad.scoring import TASK_EVENTS, score_files

WORKERS = (1, 2, 4)
CALIBRATED = "calibrated events"
#: The recorded crossings are hard ones: rates that some of them pass.
TARGETS = {"1MHz": 1e6, "5MHz": 5e6}


def main() -> None:
    """Run the benchmark."""
    options = arguments("scaling", "Scoring and calibrating on workers")
    distributed = require("distributed", "dask")
    trigger, events, origin = network()
    n = 2_000_000 if options.quick else 16_000_000
    few = n // 8
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        write(folder / "zb.h5", events, n)
        write(folder / "few.h5", events, few)
        here = score_files(trigger, folder / "zb.h5", threads=1).histogram.tails().counts
        calibrated = thresholds(trigger, folder)
        cases = [
            Case(f"score, this process, {t} thread{'s' * (t > 1)}", one_pass(trigger, folder, threads=t), n)
            for t in (1, 2)
        ]
        cases.append(
            Case(
                "calibrate, this process",
                lambda: thresholds(trigger, folder),
                few,
                "calibrated events",
                note="1 thread",
            )
        )
        hashing = Case("SHA-256 of the file", lambda: sha256_file(folder / "few.h5"), few, "hashed events")
        overhead: dict[str, list[float]] = {}
        for workers in WORKERS:
            cluster = stack.enter_context(
                distributed.LocalCluster(  # type: ignore[attr-defined]
                    n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=":0"
                )
            )
            there: dict[str, Any] = {"dask": cluster.scheduler_address, "workers": workers}
            found = score_files(trigger, folder / "zb.h5", **there)
            if not np.array_equal(found.histogram.tails().counts, here):
                raise SystemExit(f"{workers} workers: other scores than this process")
            if thresholds(trigger, folder, few // 8, **there) != calibrated:
                raise SystemExit(f"{workers} workers: other thresholds than this process")
            who = f"dask, {workers} worker{'s' * (workers > 1)}"
            cases.append(Case(f"score, {who}", one_pass(trigger, folder, **there), n, ours=True))
            cases.append(
                Case(f"calibrate, {who}", calibration(trigger, folder, few // 8, **there), few, CALIBRATED, ours=True)
            )
            if workers == 1:
                for what, run, events_in in (
                    ("score", lambda size, there=there: one_pass(trigger, folder, task_events=size, **there)(), n),
                    ("calibrate", lambda size, there=there: thresholds(trigger, folder, chunk=size, **there), few),
                ):
                    overhead[what] = [cost_of_a_task(run, events_in) for _ in range(options.repeats)]
        results = measure([*cases, hashing], repeats=options.repeats)
    notes = [f"Network: {origin}. Scores and thresholds are the same, to the bit, for all."]
    for what, size in (("score", TASK_EVENTS), ("calibrate", DEFAULT_CHUNK_EVENTS)):
        rate = next(r.rate for r in results if r.name.startswith(f"{what}, this process"))
        extra, task = statistics.median(overhead[what]), size / rate
        notes.append(
            f"{what}: a task costs {1e3 * extra:.1f} ms beside its work, {100 * extra / task:.1f} % of one of {size} "
            f"events ({1e3 * task:.0f} ms here); wanted below 5 %."
        )
    notes.append("What a day of zero bias costs follows from these figures: `docs/explanation/scaling.md`.")
    report(
        "scaling",
        "Scoring and calibrating on workers",
        results,
        options,
        extra={
            "overhead_seconds": overhead,
            "task_events": {"score": TASK_EVENTS, "calibrate": DEFAULT_CHUNK_EVENTS},
            "bytes_per_event": int(events[0].size * 2),
        },
        notes=notes,
    )


def write(path: Path, events: np.ndarray[Any, Any], n: int) -> None:
    """A file of `n` events drawn from `events`."""
    rng = np.random.default_rng(2)
    with EventsWriter(path) as writer:
        for start in range(0, n, 1 << 20):
            writer.append(Events.from_arrays(events[rng.integers(0, len(events), min(1 << 20, n - start))]))


def thresholds(trigger: Trigger, folder: Path, chunk: int = DEFAULT_CHUNK_EVENTS, **how: Any) -> dict[str, Any]:
    """All that a calibration of total rates finds."""
    with tempfile.TemporaryDirectory(dir=folder) as work:
        found = calibrate(
            trigger, [folder / "few.h5"], TARGETS, kind="total", work=Path(work) / "work", chunk_events=chunk, **how
        )
    return found.content


def calibration(trigger: Trigger, folder: Path, chunk: int, **how: Any) -> Callable[[], object]:
    """`thresholds`, to be run later."""
    return lambda: thresholds(trigger, folder, chunk, **how)


def one_pass(trigger: Trigger, folder: Path, **how: Any) -> Callable[[], object]:
    """Files to a histogram."""
    return lambda: score_files(trigger, folder / "zb.h5", **how)


def cost_of_a_task(run: Callable[[int], object], n: int) -> float:
    """Seconds that a task takes beside its work: many small against few large, the same events."""
    seconds = []
    sizes = (n // 4, n // 64)
    for size in sizes:
        start = time.perf_counter()
        run(size)
        seconds.append(time.perf_counter() - start)
    tasks = [-(-n // size) for size in sizes]
    return (seconds[1] - seconds[0]) / (tasks[1] - tasks[0])


if __name__ == "__main__":
    main()
