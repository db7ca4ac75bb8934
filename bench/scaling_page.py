"""`docs/explanation/scaling.md` from what `bench/scaling.py` measured: what a day of zero bias costs on N nodes.

    python bench/scaling_page.py            # writes the page
    python bench/scaling_page.py --check    # exit status 1 if the page does not follow from the result

Nothing is measured here, and no number stands in the page that is not read from the result or named as assumed.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "bench" / "results" / "scaling.json"
PAGE = ROOT / "docs" / "explanation" / "scaling.md"

#: A day of zero bias for thresholds; the LHC makes as many crossings in 35 s.
DAY_EVENTS = 1e9
CROSSINGS_HZ = 2544 * 11245.6
NODES = (1, 2, 5, 10, 20)
#: Reading speeds of a node that are assumed, bytes a second: a plain disk, a fast one.
DISKS = (0.5e9, 2.0e9)


def task_rounds(events: float, task: int, workers: int) -> int:
    """Tasks that the busiest of `workers` does."""
    return math.ceil(math.ceil(events / task) / workers)


def seconds_on(nodes: int, rate: float, task: int, overhead: float, bytes_per_second: float | None, size: int) -> float:
    """Seconds for a day on `nodes`, each doing one task at a time at `rate` or at the speed of its disk."""
    each = task / rate if bytes_per_second is None else max(task / rate, task * size / bytes_per_second)
    return task_rounds(DAY_EVENTS, task, nodes) * (each + overhead)


def three(value: float) -> str:
    """Three digits at most, no exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


NOT_MEASURED = """## Thresholds

`bench/scaling.py` times `l1ad calibrate` on the same workers too; the result that this page was made from is older than
that and has no figure for it."""


def _thresholds(value: dict[str, Any]) -> str:
    """The part on `l1ad calibrate`."""
    rates, extra = {entry["name"]: entry["rate"] for entry in value["results"]}, value["extra"]
    rate, hashed, size = rates["calibrate, this process"], rates["SHA-256 of the file"], extra["bytes_per_event"]
    task, cost = extra["task_events"]["calibrate"], statistics.median(extra["overhead_seconds"]["calibrate"])
    lines = ["| nodes of two cores | tasks on the busiest core | scoring, counting, tails |", "| ---: | ---: | ---: |"]
    for nodes in NODES:
        seconds = seconds_on(2 * nodes, rate, task, cost, None, size)
        lines.append(f"| {nodes} | {task_rounds(DAY_EVENTS, task, 2 * nodes)} | {three(seconds)} s |")
    return f"""## Derived: thresholds

`l1ad calibrate` scores, evaluates the menu if there is one, keeps the scores for its second look, and goes back to the
tail of each threshold; the figure is for total rates without a menu, one worker a core.

{chr(10).join(lines)}

Before that, the caller alone reads all files once for their SHA-256, which names every result and makes a killed run go
on where it was: {three(DAY_EVENTS / hashed)} s for the day at the measured {three(hashed * size / 1e9)} GB/s. That part
does not get shorter with more nodes."""


def page(value: dict[str, Any]) -> str:
    """The page."""
    rates = {entry["name"]: entry["rate"] for entry in value["results"]}
    spans = {entry["name"]: (entry["rate_min"], entry["rate_max"]) for entry in value["results"]}
    extra, machine = value["extra"], value["machine"]
    size = extra["bytes_per_event"]
    score, one = rates["score, this process, 2 threads"], rates["score, this process, 1 thread"]
    calibrated, hashed = rates.get("calibrate, this process"), rates.get("SHA-256 of the file")
    cost = {what: statistics.median(seconds) for what, seconds in extra["overhead_seconds"].items()}
    task = extra["task_events"]
    data = DAY_EVENTS * size

    measured = [
        "| figure | value | slowest to fastest |",
        "| --- | ---: | ---: |",
        *(
            f"| {name} | {three(rates[name] / 1e6)} M events/s | {three(low / 1e6)} to {three(high / 1e6)} |"
            for name, (low, high) in spans.items()
        ),
        *(
            f"| {what}: a task beside its work | {1e3 * cost[what]:.1f} ms | "
            f"{1e3 * min(seconds):.1f} to {1e3 * max(seconds):.1f} |"
            for what, seconds in extra["overhead_seconds"].items()
        ),
    ]
    head = ["nodes of two cores", "tasks on the busiest", "kernel alone"]
    head += [f"disk of {disk / 1e9:g} GB/s a node" for disk in DISKS]
    days = [f"| {' | '.join(head)} |", "| ---: |" + " ---: |" * (len(head) - 1)]
    for nodes in NODES:
        cells = [str(nodes), str(task_rounds(DAY_EVENTS, task["score"], nodes))]
        cells += [
            f"{three(seconds_on(nodes, score, task['score'], cost['score'], disk, size))} s" for disk in (None, *DISKS)
        ]
        days.append(f"| {' | '.join(cells)} |")
    tasks = [
        f"A task of `l1ad score` has {task['score']:,} events and takes {task['score'] / one:.2f} s of one core: "
        f"handing it over\ncosts {100 * cost['score'] / (task['score'] / one):.1f} % of that."
    ]
    if calibrated:
        seconds = task["calibrate"] / calibrated
        tasks.append(
            f"One of `l1ad calibrate` has {task['calibrate']:,} and takes\n{seconds:.2f} s: "
            f"{100 * cost['calibrate'] / seconds:.1f} %."
        )
    same = "Scores and thresholds were" if calibrated else "Scores were"
    quick = "\n!!! warning\n    From a quick run: less work than figures are quoted for.\n" if value["quick"] else ""
    return f"""# What a day of zero bias costs

<!-- Made by bench/scaling_page.py from bench/results/scaling.json: edit those. -->

10^9 events are a day's worth of zero bias for thresholds at 250 Hz: they leave {three(DAY_EVENTS * 250 / CROSSINGS_HZ)}
of them above such a threshold, which is {100 / math.sqrt(DAY_EVENTS * 250 / CROSSINGS_HZ):.1f} %. The LHC makes as many
crossings in {DAY_EVENTS / CROSSINGS_HZ:.0f} s. As {size} bytes of words each they are {data / 1e9:.0f} GB.

## Measured

`python bench/scaling.py`, {value["when"]}: {machine["cores"]} cores of {machine["cpu"]}
({", ".join(machine["instruction_sets"])}), load average {machine["load_average_before"]:g} before the run: above
1, rates are lower bounds. {same} the same, to the bit, in this process and on 1, 2 and
4 workers of a `dask.distributed` LocalCluster.
{quick}
{chr(10).join(measured)}

{" ".join(tasks)}

## Derived: scores

`l1ad score`, files to a histogram. A day is {math.ceil(DAY_EVENTS / task["score"])} tasks; a node of two cores does one
at a time with two threads, at {three(score / 1e6)} M events/s, or as fast as its disk gives {size} bytes an event, and
pays {1e3 * cost["score"]:.1f} ms for each. The seconds are the tasks on the busiest node times what one takes.

{chr(10).join(days)}

**Assumed, not measured**: that nodes do not slow each other down, that each reads as fast as its column says, and that
the events lie in files that are not compressed. At {three(score / 1e6)} M events/s a node reads
{score * size / 1e9:.1f} GB/s: without a disk that fast the disk is the limit, and more nodes help because they bring
more disks.

{_thresholds(value) if calibrated and hashed else NOT_MEASURED}

## On a batch system

`--dask ADDRESS` takes any scheduler of `dask.distributed`; `dask-jobqueue` starts one on HTCondor or Slurm:

```py
from dask_jobqueue import HTCondorCluster  # or SLURMCluster(queue="...", cores=2, memory="4GB", walltime="01:00:00")

cluster = HTCondorCluster(cores=2, processes=1, memory="4GB", disk="1GB")
cluster.scale(jobs=10)
print(cluster.scheduler_address)
```

```console
$ l1ad score 'zb/*.h5' --trigger runs/quickstart --out scores.h5 --dask tcp://...
$ l1ad calibrate runs/quickstart --zero-bias 'zb/*.h5' --dask tcp://... --work shared/work
```

Workers need the files, and the `--work` folder, under the same paths as the caller. A worker that is killed is replaced
and its task done again; a calibration that was killed whole goes on from the results in `--work` when it is started
again, and ends in the same bytes. `tests/rates/test_calibrate.py` and `tests/cli/test_score.py` show both, and the same
result for any number of workers, on a LocalCluster; no batch system was at hand to try these lines on.
"""


def main() -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only compare")
    options = parser.parse_args()
    text = page(json.loads(RESULT.read_text(encoding="utf-8")))
    if options.check:
        return int(PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
