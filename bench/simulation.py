"""How fast crossings are simulated, step by step: drawn from the libraries, and put through detector and trigger.

    python bench/simulation.py [--quick] [--repeats 5] [--out FOLDER]

The collisions are those of ``$L1AD_LIBRARY`` if that folder holds every library, else toy collisions of about 40
particles (the fixtures of ``tests/events/simulate``), so that no generator is needed; the notes say which. The peer of
the emulation is numpy adding the same deposits to the same towers and nothing else: no noise, thresholds, jets,
e/gammas, muons or integers. No other open emulation of a Level-1 trigger runs without its experiment's software. The
notes say what each step of the emulation takes.
"""

from __future__ import annotations

import os
import runpy
from pathlib import Path
from typing import Any

import numpy as np
from common import Case, arguments, cpu_seconds, human, measure, report

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


def profile(pool: Any, drawn: Any, detector: Any, *, rounds: int = 5) -> dict[str, float]:
    """CPU microseconds of each compiled step a crossing, least of some rounds; calls from Python included (2 each)."""
    from l1ad.events.simulate import kernel
    from l1ad.events.simulate.detector import ETA_CENTRE, gain_maps

    d, deposits, n = detector, pool.deposits, min(len(drawn), 300)
    gain_em, gain_had = gain_maps(d)
    noise = np.random.default_rng(3).standard_normal(20_000, dtype=np.float32)
    tower_knobs = np.array([d.noise_em, d.noise_had, d.zs_em, d.zs_had, d.zs_hf, d.scale_em, d.scale_had])
    met_knobs = np.array([d.met_barrel, d.met_endcap, d.met_hf, d.met_pileup])
    eg_knobs = np.array([d.eg_seed, d.eg_h_over_e, d.eg_fine_grain, d.eg_shape, d.eg_veto_off])
    em, had, lead = (np.zeros((80, 72), np.float32) for _ in range(3))
    em_pad, had_pad, tower = (np.zeros(kernel.PADDED, np.float32) for _ in range(3))
    jets, egs, met = np.zeros((16, 4), np.float32), np.zeros((16, 3), np.float32), np.zeros(4, np.float32)
    best: dict[str, float] = {}
    for _ in range(rounds + 1):
        spent = dict.fromkeys(("deposits to towers", "noise and thresholds", "missing energy", "jets", "e/gammas"), 0.0)
        for i in range(n):
            for array in (em, had, lead):
                array[:] = 0
            part = slice(drawn.first[i], drawn.first[i + 1])
            steps = (
                lambda part=part: kernel.fill(
                    drawn.events[part], drawn.turns[part], drawn.mirrors[part], drawn.scales[part],
                    deposits.offset, deposits.forward, deposits.records, em, had, lead,
                ),
                lambda: kernel.primitives(em, had, gain_em, gain_had, noise, 0, tower_knobs, em_pad, had_pad, tower),
                lambda: kernel.missing(tower, 1000, met_knobs, met),
                lambda: kernel.jets(tower, d.jet_seed, jets),
                lambda: kernel.e_gammas(em_pad, had_pad, lead, eg_knobs, ETA_CENTRE, egs),
            )  # fmt: skip
            for name, step in zip(spent, steps, strict=True):
                spent[name] += cpu_seconds(step)
        for name, seconds in spent.items():
            best[name] = min(best.get(name, np.inf), 1e6 * seconds / n)
    return best


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

    def emulating(drawn: Any, layout: str = "cms_ugt") -> Any:
        return emulate(pool, drawn, detector, np.random.default_rng(2), layout=layout)

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
        Case("l1ad, calorimeter regions", lambda: emulating(drawn, "cms_calo_regions"), n, "region images", ours=True),
        Case("l1ad, topological objects", lambda: emulating(drawn, "atlas_l1topo"), n, "object lists", ours=True),
    ]
    results = measure(steps, repeats=options.repeats)
    emulation = next(result for result in results if result.name == "l1ad, emulation")
    reached = "reached" if emulation.rate >= WANTED else "NOT reached"
    deposits = float(np.diff(pool.deposits.offset)[drawn.events].sum()) / n
    cpu = n / min(cpu_seconds(lambda: emulating(drawn)) for _ in range(5))
    spent = profile(pool, drawn, detector)
    whole = sum(spent.values())
    megabytes = pool.deposits.records.nbytes / 1e6
    shares = ", ".join(f"{name} {time_us:.0f} us" for name, time_us in spent.items())
    filling = spent["deposits to towers"]
    notes = [
        f"{kind}, pile-up {MU_REFERENCE:g}, {deposits:.0f} deposits a crossing",
        f"wanted {human(WANTED)} crossings/s on one core: {reached} with {human(emulation.rate)}",
        f"By the CPU time of the process, which other work on the machine disturbs less: {human(cpu)} crossings/s, "
        f"{'reached' if cpu >= WANTED else 'NOT reached'}.",
        f"Compiled steps a crossing: {shares}.",
        f"The limit is the towers: {100 * filling / whole:.0f} % of the steps, {1000 * filling / deposits:.0f} ns a "
        f"deposit, which is read from one of {megabytes:.0f} MB of collisions at random and added to three sums that "
        "the next one may need. More crossings a second need fewer deposits, or more cores: chunks are independent.",
    ]
    extra = {"deposits_a_crossing": deposits, "microseconds": spent, "crossings_a_cpu_second": cpu}
    report("simulation", "Simulating crossings", results, options, extra=extra, notes=notes)


if __name__ == "__main__":
    main()
