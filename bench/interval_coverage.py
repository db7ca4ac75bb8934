"""Do the intervals of a threshold's rate cover the true rate as often as they say?

Toy calibrations from spectra whose true rate at every integer is known: score = floor(x), x exponential of mean 200, so
that P(score >= t) = exp(-t/200) whatever the weights, as long as these do not depend on the score; the stratified toy
draws hard and soft events with different probabilities and corrects by weights, as the simulated zero bias does.

    python bench/interval_coverage.py [--quick]
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from common import arguments

from l1ad.rates import BaseRate, ScoreHistogram, ZeroBias, find_threshold

MEAN, SOFT_MEAN = 200.0, 100.0
BASE = BaseRate(1e6)
Toy = Callable[[np.random.Generator, int], tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]]


def unweighted(rng: np.random.Generator, n: int) -> tuple[np.ndarray[Any, Any], None]:
    """Plain counts."""
    return np.floor(rng.exponential(MEAN, n)).astype(np.int64), None


def smooth(rng: np.random.Generator, n: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Weights of relative width 0.7, independent of the score."""
    return np.floor(rng.exponential(MEAN, n)).astype(np.int64), rng.gamma(2.0, 0.5, n)


def stratified(rng: np.random.Generator, n: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A hard tenth of all crossings drawn half of the time (weight 0.2), the soft rest the other half (weight 1.8).

    Soft events reach into the tail, few and heavy: what makes weighted samples hard.
    """
    hard = rng.random(n) < 0.5
    scores = np.where(hard, rng.exponential(MEAN, n), rng.exponential(SOFT_MEAN, n))
    return np.floor(scores).astype(np.int64), np.where(hard, 0.2, 1.8)


def truth(toy: Toy, threshold: int) -> float:
    """True share of crossings at or above a threshold."""
    if toy is stratified:
        return 0.1 * math.exp(-threshold / MEAN) + 0.9 * math.exp(-threshold / SOFT_MEAN)
    return math.exp(-threshold / MEAN)


def study(toy: Toy, events_above: int, toys: int, seed: int, n: int = 20_000) -> dict[str, float]:
    """Coverage over `toys` calibrations of `n` events with about `events_above` at or above the threshold."""
    rng = np.random.default_rng(seed)
    inside = np.zeros(2)
    for _ in range(toys):
        scores, weight = toy(rng, n)
        histogram = ScoreHistogram()
        histogram.fill(scores, weight)
        found = find_threshold(ZeroBias(histogram, BASE), events_above / n * BASE.hz)
        true = truth(toy, found.threshold) * BASE.hz
        for i, (low, high) in enumerate((found.rate.interval_68, found.rate.interval_95)):
            inside[i] += low <= true <= high
    return {"coverage_68": inside[0] / toys, "coverage_95": inside[1] / toys, "error": math.sqrt(0.68 * 0.32 / toys)}


def main() -> int:
    """Run the study; 1 if a headline figure lies outside 66 to 72 %."""
    options = arguments("coverage", "Coverage of the intervals of a rate")
    toys = 200 if options.quick else 2000
    lines = ["| sample | events expected above | 68 % interval | 95 % interval |", "| --- | ---: | ---: | ---: |"]
    extra: dict[str, Any] = {"toys": toys}
    headline: list[float] = []
    samples: dict[str, Toy] = {"unweighted": unweighted, "weights": smooth, "stratified": stratified}
    for seed, (name, toy) in enumerate(samples.items()):
        for events in (50, 200) if name != "unweighted" else (20, 50, 200):
            found = study(toy, events, toys, 100 + seed)
            extra[f"{name} {events}"] = found
            lines.append(f"| {name} | {events} | {found['coverage_68']:.1%} | {found['coverage_95']:.1%} |")
            if events == 200:
                headline.append(found["coverage_68"])
    notes = [
        f"{toys} toy calibrations each, standard error {math.sqrt(0.68 * 0.32 / toys):.1%}; the threshold is found "
        "anew in each toy and its true rate compared with the interval quoted for it",
        "Clopper-Pearson covers at least its level: with few events above it covers more",
    ]
    text = "\n".join(lines)
    value = {
        "subject": "coverage",
        "title": "Coverage of the intervals of a rate",
        "machine": options.machine,
        "quick": bool(options.quick),
        "when": time.strftime("%Y-%m-%d", time.gmtime()),
        "results": [],
        "extra": extra,
        "notes": notes,
        "table": text,
    }
    sys.stdout.write(f"\n## {value['title']}\n\n{text}\n\n" + "".join(f"- {note}\n" for note in notes))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "coverage.json").write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return 0 if options.quick or all(0.66 <= figure <= 0.72 for figure in headline) else 1


if __name__ == "__main__":
    sys.exit(main())
