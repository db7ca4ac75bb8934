"""Histogramming integer scores and finding thresholds, beside numpy.quantile on the same array.

The promise: 100 M scores in under 1 s a core after scoring, with at most 64 MB of memory of its own, and 20 times as
fast as numpy.quantile. A quantile is only a number between two scores; the threshold comes with its rate, the intervals
of both and the integer below it. numpy is timed on the 64-bit integers that it makes itself and on the 32-bit ones that
`l1ad score` writes, for which it has a faster way.

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

from l1ad.rates import BaseRate, ScoreHistogram, ZeroBias, counting, find_threshold

TARGETS_KHZ = (0.25, 1.0, 5.0, 10.0)
BASE = BaseRate.from_bunches(2544)
LIMITS = {"seconds": 1.0, "megabytes": 64.0, "times numpy.quantile": 20.0}
#: Which spectrum, and how many bits an integer has.
FALLING, UNIFORM = "falling", "all 18 bits"


def ours(scores: np.ndarray[Any, Any], threads: int = 1) -> list[int]:
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
            Case("l1ad: histogram, 4 thresholds", lambda s=scores: ours(s), n, unit, ours=True, note="1 thread"),
        ]
        if threads > 1:
            cases.append(Case(cases[2].name, lambda s=scores: ours(s, 2), n, unit, ours=True, note="2 threads"))
        measured = measure(cases, repeats=options.repeats)
        results += measured
        peer, once, mine = (processor_seconds(case.run, 3) for case in cases[:3])
        memory = peak_megabytes(lambda s=scores: ours(s, threads))
        extra[unit] = {
            "ratio_1_thread": measured[2].rate / measured[0].rate,
            "ratio_all_threads": measured[-1].rate / measured[0].rate,
            "cpu_seconds": mine,
            "cpu_seconds_numpy": peer,
            "cpu_seconds_reading_once": once,
            "peak_mb": memory,
            "peak_mb_numpy": peak_megabytes(lambda s=scores: numpys(s)),
        }
        notes.append(
            f"{n / 1e6:g} M {unit}: {n / measured[2].rate:.2f} s on one core (wanted below {LIMITS['seconds']:g} s), "
            f"{measured[2].rate / measured[0].rate:.1f} times numpy.quantile with one thread and "
            f"{measured[-1].rate / measured[0].rate:.1f} times with {threads} (wanted "
            f"{LIMITS['times numpy.quantile']:g}); processor time {mine:.2f} s against {peer:.2f} s, "
            f"{peer / mine:.1f} times; numpy.max, which only reads them, {once:.2f} s; peak memory beside the scores "
            f"{memory:.0f} MB (wanted at most {LIMITS['megabytes']:g}) against {extra[unit]['peak_mb_numpy']:.0f} MB"
        )
        if name == FALLING and bits == 64:
            thresholds = ours(scores)
            quantiles = numpys(scores)
        del scores, cases
    notes.append(
        f"thresholds at {', '.join(f'{t:g}' for t in TARGETS_KHZ)} kHz: {', '.join(map(str, thresholds))}; "
        f"numpy's quantiles {', '.join(human(q) if q % 1 else f'{q:.0f}' for q in quantiles)}"
    )
    report("calibration", "Scores to thresholds", results, options, extra=extra, notes=notes)


if __name__ == "__main__":
    main()
