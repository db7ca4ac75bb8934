"""What every benchmark shares: timing peer and ours in turns, a table, a JSON file, and `bench/README.md`.

A benchmark makes `Case`s, `measure` runs them in rounds (each round runs every case once, in a rotated order, so that a
machine that slows down slows down all of them), and `report` prints the table and writes ``results/SUBJECT.json``::

    options = arguments("reading", "Reading events")
    results = measure([Case("h5py", read_plain, n), Case("l1ad", read_ours, n, ours=True)], repeats=options.repeats)
    report("reading", "Reading events", results, options)

``python bench/common.py`` writes the tables of all results into ``bench/README.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

BENCH = Path(__file__).resolve().parent
RESULTS = BENCH / "results"
#: A median of fewer runs says nothing.
MIN_REPEATS = 5
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


@dataclass(frozen=True)
class Case:
    """One way to do the work.

    Attributes
    ----------
    name : what the table calls it.
    run : does the work once; what it returns is thrown away.
    work : how much one run does, in `unit`.
    unit : what is counted; the table gives it per second.
    ours : our way; the table gives its ratio to each peer.
    note : a word on conditions, such as "1 thread".
    prepare : runs before each timed run, outside the clock.
    """

    name: str
    run: Callable[[], Any]
    work: float
    unit: str = "events"
    ours: bool = False
    note: str = ""
    prepare: Callable[[], Any] | None = None


@dataclass(frozen=True)
class Result:
    """The times of a case: rates in units a second, from the median, the slowest and the fastest run."""

    name: str
    unit: str
    ours: bool
    note: str
    work: float
    seconds: list[float]
    rate: float = field(init=False)
    rate_min: float = field(init=False)
    rate_max: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", self.work / statistics.median(self.seconds))
        object.__setattr__(self, "rate_min", self.work / max(self.seconds))
        object.__setattr__(self, "rate_max", self.work / min(self.seconds))


def measure(cases: Sequence[Case], *, repeats: int = 5, warmup: int = 1) -> list[Result]:
    """Run all cases `warmup` + `repeats` times in turns.

    Raises
    ------
    ValueError
        With fewer than five repeats: a median of less says nothing.
    """
    if repeats < MIN_REPEATS:
        raise ValueError(f"{repeats} repeats: at least {MIN_REPEATS} for a median")
    seconds: list[list[float]] = [[] for _ in cases]
    for turn in range(warmup + repeats):
        for position in range(len(cases)):
            index = (position + turn) % len(cases)
            case = cases[index]
            if case.prepare is not None:
                case.prepare()
            start = time.perf_counter()
            case.run()
            elapsed = time.perf_counter() - start
            if turn >= warmup:
                seconds[index].append(elapsed)
    return [Result(c.name, c.unit, c.ours, c.note, c.work, s) for c, s in zip(cases, seconds, strict=True)]


def cpu_seconds(run: Callable[[], Any]) -> float:
    """CPU time that `run` takes, of all threads together: what other work on the machine disturbs least."""
    start = time.process_time()
    run()
    return time.process_time() - start


def machine() -> dict[str, Any]:
    """The machine and the versions that the times depend on; nothing that names a person or a path."""
    cpu, flags = platform.machine(), set()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                cpu = value.strip()
            elif key.strip() == "flags":
                flags = set(value.split())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    version = "none"
    if compiler:
        version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    versions = {}
    for package in ("numpy", "h5py", "tensorflow", "qkeras", "hls4ml", "alkaid", "numba", "distributed"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "instruction_sets": sorted(flags & {"avx2", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8"}),
        "memory_gb": round(memory / 2**30, 1),
        "load_average_before": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "compiler": version.splitlines()[0],
        "packages": versions,
    }


def _repeats(text: str) -> int:
    """A number of runs that a median can be taken of; anything else is an error of the command line."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < MIN_REPEATS:
        raise argparse.ArgumentTypeError(f"{text}: at least {MIN_REPEATS} for a median")
    return number


def arguments(
    subject: str, description: str, more: Callable[[argparse.ArgumentParser], None] | None = None
) -> argparse.Namespace:
    """The options of every benchmark: ``--repeats``, ``--quick`` (less work, for a test), ``--out FOLDER``.

    `more` adds those of one benchmark.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--repeats", type=_repeats, default=5, help="timed runs of each case, at least 5")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work or less: shows that it runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help=f"folder for {subject}.json")
    if more is not None:
        more(parser)
    options = parser.parse_args()
    options.machine = machine()
    return options


def human(value: float) -> str:
    """Three digits and a prefix: ``57.1 M``."""
    for limit, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= limit:
            return f"{value / limit:.3g}{letter}"
    return f"{value:.3g}"


def table(results: Sequence[Result]) -> str:
    """A Markdown table; each peer's last column is how many times faster our fastest case of the same unit is."""
    lines = ["| what | median | slowest to fastest | runs | ours is faster by |", "| --- | ---: | ---: | ---: | ---: |"]
    for r in results:
        best = max((o.rate for o in results if o.ours and o.unit == r.unit), default=0.0)
        ratio = "" if r.ours or not best else f"{best / r.rate:.3g} x"
        name = f"**{r.name}**" if r.ours else r.name
        note = f" ({r.note})" if r.note else ""
        span = f"{human(r.rate_min)} to {human(r.rate_max)}"
        lines.append(f"| {name}{note} | {human(r.rate)} {r.unit}/s | {span} | {len(r.seconds)} | {ratio} |")
    return "\n".join(lines)


def report(
    subject: str,
    title: str,
    results: Sequence[Result],
    options: argparse.Namespace,
    *,
    extra: dict[str, Any] | None = None,
    notes: Sequence[str] = (),
    text: str | None = None,
) -> Path:
    """Print the table and write ``SUBJECT.json``; `extra` are further measured figures, `notes` are shown below.

    `text` stands in for the table of `results` where it is not times that were measured.
    """
    text = table(results) if text is None else text
    value = {
        "subject": subject,
        "script": Path(sys.argv[0]).name,
        "title": title,
        "machine": options.machine,
        "quick": bool(options.quick),
        "when": time.strftime("%Y-%m-%d", time.gmtime()),
        "results": [asdict(r) for r in results],
        "extra": extra or {},
        "notes": list(notes),
        "table": text,
    }
    sys.stdout.write(f"\n## {title}\n\n{text}\n\n" + "".join(f"- {note}\n" for note in notes))
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{subject}.json"
    if options.quick and path.is_file() and not json.loads(path.read_text(encoding="utf-8"))["quick"]:
        sys.stdout.write(f"- a quick run: {path.name} keeps the result of the full one\n")
        return path
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    temporary.replace(path)
    return path


def write_readme(folder: Path = RESULTS, readme: Path = BENCH / "README.md") -> None:
    """Put the tables of all results between the markers of the README."""
    parts = []
    for path in sorted(folder.glob("*.json")):
        value = json.loads(path.read_text(encoding="utf-8"))
        m = value["machine"]
        sets = ", ".join(m["instruction_sets"]) or "no vector extensions beyond the baseline"
        packages = ", ".join(f"{k} {v}" for k, v in sorted(m["packages"].items()))
        head = (
            f"{value['when']}, {m['cores']} cores of {m['cpu']} ({sets}), {m['memory_gb']:g} GB, {m['compiler']}, "
            f"Python {m['python']}, {packages}; load average before the run {m['load_average_before']:g}."
            + (" A quick run: less work than the figures are quoted for." if value["quick"] else "")
        )
        notes = "".join(f"- {note}\n" for note in value["notes"])
        script = value.get("script", f"{value['subject']}.py")
        parts.append(f"## {value['title']}\n\n`python bench/{script}`. {head}\n\n{value['table']}\n\n{notes}")
    text = readme.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{BEGIN}\n\n" + "\n".join(parts) + f"\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    argparse.ArgumentParser(description="Write the tables of all results into bench/README.md.").parse_args()
    write_readme()
