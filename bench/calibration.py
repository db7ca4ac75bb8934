"""Histogramming integer scores and finding thresholds, beside numpy.quantile on the same array.

The promise: 100 M scores in under 1 s a core after scoring, with at most 64 MB of memory of its own, and 20 times as
fast as numpy.quantile. A quantile is only a number between two scores; the threshold comes with its rate, the intervals
of both and the integer below it. numpy is timed on the 64-bit integers that it makes itself and on the 32-bit ones that
`l1ad score` writes, for which it has a faster way. Ours is timed twice: thresholds alone (`find_thresholds`, which
counts the tail), and with the histogram of all scores that a rate curve needs.

    python bench/calibration.py [--quick] [--repeats N]
"""

from __future__ import annotations

import os
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
from common import Case, Result, arguments, human, measure, report

from l1ad.rates import BaseRate, ScoreHistogram, ZeroBias, counting, find_threshold, find_thresholds

TARGETS_KHZ = (0.25, 1.0, 5.0, 10.0)
BASE = BaseRate.from_bunches(2544)
LIMITS = {"seconds": 1.0, "megabytes": 64.0, "times numpy.quantile": 20.0}
#: Which spectrum, and how many bits an integer has.
FALLING, UNIFORM = "falling", "all 18 bits"


def alone(scores: np.ndarray[Any, Any], threads: int = 1) -> list[int]:
    """Four thresholds."""
    return [one.threshold for one in find_thresholds(scores, BASE, [1e3 * t for t in TARGETS_KHZ], threads=threads)]


def whole(scores: np.ndarray[Any, Any], threads: int = 1) -> list[int]:
    """Histogram and four thresholds."""
    histogram = ScoreHistogram()
    histogram.fill(scores, threads=threads)
    sample = ZeroBias(histogram, BASE)
    return [find_threshold(sample, 1e3 * target).threshold for target in TARGETS_KHZ]


def numpys(scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The quantiles of the same four targets."""
    return np.quantile(scores, [1.0 - 1e3 * target / BASE.hz for target in TARGETS_KHZ])


def peak_megabytes(work: Callable[[], Any]) -> float:
    """Most memory that numpy and Python held at the same time during `work`, beside what was there before."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def processor_seconds(work: Callable[[], Any], repeats: int) -> float:
    """Least processor time of a few runs: what a core takes, however busy the machine is with others."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


def main() -> None:
    """Run the benchmark."""
    options = arguments("calibration", "Scores to thresholds")
    n = 5_000_000 if options.quick else 100_000_000
    counting.prepare()
    rng = np.random.default_rng(1)
    results: list[Result] = []
    extra: dict[str, Any] = {}
    notes: list[str] = []
    threads = min(2, os.cpu_count() or 1)
    for name, bits in ((FALLING, 64), (FALLING, 32), (UNIFORM, 64)):
        if name == FALLING:
            scores = np.minimum(rng.standard_exponential(n, dtype=np.float32) * 300, 262143).astype(f"i{bits // 8}")
        else:
            scores = rng.integers(0, 1 << 18, n, dtype=f"i{bits // 8}")
        unit = f"scores, {name}, {bits}-bit"
        cases = [
            Case("numpy.quantile", lambda s=scores: numpys(s), n, unit, note="1 thread"),
            Case("numpy.max: reading them once", lambda s=scores: s.max(), n, unit, note="1 thread"),
        ]
        for label, way in (("l1ad: 4 thresholds", alone), ("l1ad: histogram, 4 thresholds", whole)):
            for used in sorted({1, threads}):
                note = f"{used} thread{'s' * (used > 1)}"
                cases.append(Case(label, lambda s=scores, w=way, u=used: w(s, u), n, unit, ours=True, note=note))
        measured = measure(cases, repeats=options.repeats)
        results += measured
        rates = {(one.name, one.note): one.rate for one in measured}
        peer, once = (processor_seconds(case.run, 3) for case in cases[:2])
        memory_peer = peak_megabytes(lambda s=scores: numpys(s))
        extra[unit] = {"cpu_seconds_numpy": peer, "cpu_seconds_reading_once": once, "peak_mb_numpy": memory_peer}
        for label, way in (("l1ad: 4 thresholds", alone), ("l1ad: histogram, 4 thresholds", whole)):
            own = {note: rate for (name, note), rate in rates.items() if name == label}
            single, many = own["1 thread"], max(own.values())
            mine = processor_seconds(lambda s=scores, w=way: w(s), 3)
            memory = peak_megabytes(lambda s=scores, w=way: w(s, threads))
            extra[unit][label] = {
                "ratio_1_thread": single / measured[0].rate,
                "ratio_all_threads": many / measured[0].rate,
                "of_reading_once": single / measured[1].rate,
                "cpu_seconds": mine,
                "peak_mb": memory,
            }
            notes.append(
                f"{label}, {n / 1e6:g} M {unit}: {n / single:.3f} s on one core (wanted {LIMITS['seconds']:g} s), "
                f"{single / measured[0].rate:.1f} times numpy.quantile with one thread and "
                f"{many / measured[0].rate:.1f} times with {threads} (wanted {LIMITS['times numpy.quantile']:g}); "
                f"{single / measured[1].rate:.2f} of the speed of numpy.max, which only reads them; processor time "
                f"{mine:.3f} s against {peer:.2f} s; peak memory beside the scores {memory:.0f} MB (wanted at most "
                f"{LIMITS['megabytes']:g}) against {memory_peer:.0f} MB"
            )
        found = alone(scores, threads)
        if found != whole(scores):
            raise SystemExit(f"{unit}: thresholds alone {found}, from the histogram {whole(scores)}")
        if name == FALLING and bits == 64:
            thresholds = found
            quantiles = numpys(scores)
        del scores, cases
    notes.append(
        f"thresholds at {', '.join(f'{t:g}' for t in TARGETS_KHZ)} kHz: {', '.join(map(str, thresholds))}; "
        f"numpy's quantiles {', '.join(human(q) if q % 1 else f'{q:.0f}' for q in quantiles)}"
    )
    report("calibration", "Scores to thresholds", results, options, extra=extra, notes=notes)


if __name__ == "__main__":
    main()
