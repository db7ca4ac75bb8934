"""How fast crossings are simulated, step by step: drawn from the libraries, and put through detector and trigger.

    python bench/simulation.py [--quick] [--repeats 5] [--out FOLDER]

The collisions are those of ``$L1AD_LIBRARY`` if that folder holds every library, else toy collisions of about 40
particles (the fixtures of ``tests/events/simulate``), so that no generator is needed; the notes say which. The peer of
the emulation is numpy adding the same deposits to the same towers and nothing else: no noise, thresholds, jets,
e/gammas, muons or integers. No other open emulation of a Level-1 trigger runs without its experiment's software.
"""

from __future__ import annotations

import os
import runpy
from pathlib import Path
from typing import Any

import numpy as np
from common import Case, arguments, human, measure, report

ROOT = Path(__file__).resolve().parent.parent
COLUMNS, CELLS = 72, 80 * 72
#: Wanted crossings a second on one core at a pile-up of 52, from towers to integers.
WANTED = 5400.0


def libraries() -> tuple[list[Any], str]:
    """Generated collisions where there are any, else toys; and which."""
    from l1ad.events.simulate.processes import BACKGROUND
    from l1ad.events.simulate.produce import default_library_folder, library_path, load_libraries

    if "L1AD_LIBRARY" in os.environ:
        folder = default_library_folder()
        if all(library_path(folder, name).exists() for name in BACKGROUND):
            return load_libraries(folder, list(BACKGROUND), max_collisions=20_000), "generated collisions"
    toys = runpy.run_path(str(ROOT / "tests/events/simulate/conftest.py"))
    return [toys["toy_library"](name, 1500, sigma, 3) for name, sigma in toys["SIGMAS"].items()], "toy collisions"


def numpy_towers(pool: Any, drawn: Any) -> np.ndarray:
    """Transverse energy of each tower of each crossing (n, 5760), one crossing after the other."""
    offset, records = pool.deposits.offset, pool.deposits.records
    cells, energy = records["cell"].astype(np.int64), records["em"] + records["had"]
    towers = np.empty((len(drawn), CELLS))
    for i in range(len(drawn)):
        part = slice(drawn.first[i], drawn.first[i + 1])
        events = drawn.events[part]
        counts = offset[events + 1] - offset[events]
        total = int(counts.sum())
        places = np.arange(total) + np.repeat(offset[events] - np.concatenate(([0], np.cumsum(counts)[:-1])), counts)
        row, column = np.divmod(cells[places], COLUMNS)
        row = np.where(np.repeat(drawn.mirrors[part], counts), 79 - row, row)
        column = (column + np.repeat(drawn.turns[part], counts)) % COLUMNS
        weights = energy[places] * np.repeat(drawn.scales[part], counts)
        towers[i] = np.bincount(row * COLUMNS + column, weights, CELLS)
    return towers


def main() -> None:
    options = arguments("simulation", "How fast crossings are simulated")
    from l1ad.events.simulate.detector import Detector
    from l1ad.events.simulate.level1 import emulate
    from l1ad.events.simulate.mixing import MU_REFERENCE, draw, make_pool

    found, kind = libraries()
    detector = Detector()
    pool = make_pool(found, detector)
    n = 200 if options.quick else 2000

    def drawing(stratified: bool) -> Any:
        return draw(pool, n, detector, np.random.default_rng(1), mu=MU_REFERENCE, stratified=stratified)

    def emulating(drawn: Any) -> Any:
        return emulate(pool, drawn, detector, np.random.default_rng(2))

    drawn = drawing(False)
    # The peer must do the work it is timed for: all energy that was drawn lands in a tower.
    towers = numpy_towers(pool, drawn)
    energy = np.add.reduceat(
        (pool.deposits.records["em"] + pool.deposits.records["had"]).astype(np.float64), pool.deposits.offset[:-1]
    )
    energy[np.diff(pool.deposits.offset) == 0] = 0.0
    if not np.isclose(towers.sum(), (energy[drawn.events] * drawn.scales).sum(), rtol=1e-5):
        raise RuntimeError("the numpy towers lose energy")
    unit = "crossings"
    steps = [
        Case("draw, natural", lambda: drawing(False), n, "natural crossings drawn", ours=True),
        Case("draw, stratified", lambda: drawing(True), n, "stratified crossings drawn", ours=True),
        Case("numpy, towers only", lambda: numpy_towers(pool, drawn), n, unit, note="no objects"),
        Case("l1ad, emulation", lambda: emulating(drawn), n, unit, ours=True, note="to hardware integers, 1 thread"),
        Case("l1ad, draw and emulate", lambda: emulating(drawing(False)), n, "whole crossings", ours=True),
    ]
    results = measure(steps, repeats=options.repeats)
    emulation = next(result for result in results if result.name == "l1ad, emulation")
    reached = "reached" if emulation.rate >= WANTED else "NOT reached"
    deposits = float(np.diff(pool.deposits.offset)[drawn.events].sum()) / n
    notes = [
        f"{kind}, pile-up {MU_REFERENCE:g}, {deposits:.0f} deposits a crossing",
        f"wanted {human(WANTED)} crossings/s on one core: {reached} with {human(emulation.rate)}",
    ]
    report("simulation", "Simulating crossings", results, options, extra={"deposits_a_crossing": deposits}, notes=notes)


if __name__ == "__main__":
    main()
