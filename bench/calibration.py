"""Histogramming integer scores and finding thresholds, beside numpy.quantile on the same array.

The promise: 100 M scores in under 1 s a core after scoring, with at most 64 MB of memory of its own. A quantile is only
a number between two scores; the threshold comes with its rate, two intervals and the integer below it.

    python bench/calibration.py [--quick] [--repeats N]
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
from common import Case, arguments, measure, report

from l1ad.rates import BaseRate, ScoreHistogram, ZeroBias, find_threshold

TARGETS_KHZ = (0.25, 1.0, 5.0, 10.0)
BASE = BaseRate.from_bunches(2544)


def ours(scores: np.ndarray[Any, Any]) -> list[int]:
    """Histogram and four thresholds."""
    histogram = ScoreHistogram()
    histogram.fill(scores)
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


def main() -> None:
    """Run the benchmark."""
    options = arguments("calibration", "Scores to thresholds")
    n = 5_000_000 if options.quick else 100_000_000
    rng = np.random.default_rng(1)
    samples = {
        "falling": np.minimum(rng.standard_exponential(n, dtype=np.float32) * 300, 262143).astype(np.int64),
        "all 18 bits": rng.integers(0, 1 << 18, n),
    }
    cases, extra = [], {}
    for name, scores in samples.items():
        unit = f"scores, {name}"
        cases += [
            Case("numpy.quantile", lambda s=scores: numpys(s), n, unit, note="1 thread"),
            Case("l1ad: histogram, 4 thresholds", lambda s=scores: ours(s), n, unit, ours=True, note="1 thread"),
        ]
        # Processor time: what a core takes, however busy the machine is with others.
        start = time.process_time()
        ours(scores)
        extra[f"cpu_seconds {name}"] = time.process_time() - start
        extra[f"peak_mb l1ad {name}"] = peak_megabytes(lambda s=scores: ours(s))
        extra[f"peak_mb numpy {name}"] = peak_megabytes(lambda s=scores: numpys(s))
    thresholds = ours(samples["falling"])
    results = measure(cases, repeats=options.repeats)
    seconds = [n / result.rate for result in results]
    notes = [
        f"{n / 1e6:g} M scores of one core, median: falling spectrum {seconds[1]:.2f} s against {seconds[0]:.2f} s, "
        f"all 18 bits {seconds[3]:.2f} s against {seconds[2]:.2f} s; processor time "
        f"{extra['cpu_seconds falling']:.2f} and {extra['cpu_seconds all 18 bits']:.2f} s",
        f"peak memory beside the scores: l1ad {extra['peak_mb l1ad falling']:.0f} and "
        f"{extra['peak_mb l1ad all 18 bits']:.0f} MB, numpy {extra['peak_mb numpy falling']:.0f} MB",
        f"thresholds at {', '.join(f'{t:g}' for t in TARGETS_KHZ)} kHz: {', '.join(map(str, thresholds))}",
    ]
    report("calibration", "Scores to thresholds", results, options, extra=extra, notes=notes)


if __name__ == "__main__":
    main()
