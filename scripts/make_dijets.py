"""Make the dijet sample that ships in ``l1ad/data``, the benchmark sample for weak supervision, or the closure figure.

    python scripts/make_dijets.py bundled --work FOLDER [--out l1ad/data] [--workers 2]
    python scripts/make_dijets.py benchmark --work FOLDER --out benchmark.h5 [--workers 2]
    python scripts/make_dijets.py closure --work FOLDER --out closure.png [--workers 2]

FOLDER keeps the pieces: an interrupted run goes on from what is there. The same seeds give the same files, for any
number of workers. *Bundled*: QCD in the signal region from 1300 GeV and in the sideband in delta eta, and three
signals. *Benchmark*: 100,000 QCD dijets in one window of m_jj and its sidebands, and a signal in it, like that of the
LHC Olympics. Between half an hour and an hour on one core each. *Closure*: what the generator cuts lose against m_jj.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from l1ad.search.bundled import read_compact, write_compact
from l1ad.search.jets import concatenate
from l1ad.search.simulate import (
    FAST,
    Closure,
    GeneratorCuts,
    Recipe,
    Sample,
    Selection,
    draw_closure,
    qcd,
    signal,
    simulate,
)
from l1ad.search.simulate import closure as compare

SEED = 8_2026
N_QCD, N_SIDEBAND, N_SIGNAL = 40_000, 5_000, 2_500
N_BENCHMARK, N_BENCHMARK_SIGNAL = 100_000, 6_000
#: The sideband in delta eta begins here, in GeV: its jets then have the pt of those in the signal region from 1800 GeV.
SIDEBAND_FROM = 2500.0
#: Bins of the closure in GeV, as factors of the least m_jj.
CLOSURE_BINS = (1.0, 1.04, 1.12, 1.25, 1.45, 1.8, 3.0)


@dataclass(frozen=True)
class Part:
    """One sample of a set: its name, what it is made of, how many events."""

    name: str
    recipe: Recipe
    n: int


def bundled_parts(n_qcd: int, n_sideband: int, n_signal: int) -> list[Part]:
    """QCD in both regions of delta eta, and signals with 2, 3 and 6 prongs."""
    region = Selection()
    beyond = Selection(m_jj_min=SIDEBAND_FROM).sideband()
    signals = (signal("x_yy_4q"), signal("wp_bpt"), signal("y_hh_4t"))
    return [
        Part("qcd", qcd(region), n_qcd),
        *(Part(s.name, Recipe(s, region), n_signal) for s in signals),
        Part("qcd_sideband", qcd(beyond), n_sideband),
    ]


def benchmark_parts(n_qcd: int, n_signal: int) -> list[Part]:
    """3.3-3.7 TeV with 200 GeV on each side, as in the LHC Olympics (arXiv:2101.08320)."""
    selection = Selection(m_jj_min=3100.0, m_jj_max=3900.0)
    resonance = signal("x_yy_4q", 3500.0, y=500.0, y2=100.0)
    return [
        Part("qcd", qcd(selection, extra=FAST), n_qcd),
        Part("x_yy_4q_3500_500_100", Recipe(resonance, selection, extra=FAST), n_signal),
    ]


def closure_part(m_jj_min: float, m_jj_max: float, n: int) -> Part:
    """QCD with generator cuts so far from the selection that nothing is expected beyond them."""
    region = Selection(m_jj_min=m_jj_min, m_jj_max=m_jj_max)
    cuts = GeneratorCuts(
        m_hat_min=0.62 * m_jj_min,
        delta_eta_hat_max=region.delta_eta_max + 1.1,
        m_jj=(0.6 * m_jj_min, 1.4 * m_jj_max),
        delta_eta=(0.0, region.delta_eta_max + 0.5),
    )
    return Part(f"closure_{m_jj_min:.0f}_{m_jj_max:.0f}", qcd(region, cuts=cuts), n)


def make(part: Part, work: Path, workers: int) -> Sample:
    """One part, with a line for each finished piece."""
    start = time.perf_counter()

    def progress(done: int, total: int) -> None:
        sys.stdout.write(f"{part.name}: {done} of {total} pieces, {time.perf_counter() - start:.0f} s\n")
        sys.stdout.flush()

    return simulate(part.recipe, part.n, seed=SEED, workers=workers, folder=work / part.name, progress=progress)


def bundled(options: argparse.Namespace) -> None:
    """Write one compact file a process."""
    parts = bundled_parts(options.n_qcd, options.n_sideband, options.n_signal)
    samples = {part.name: make(part, options.work, options.workers) for part in parts}
    recipes = {part.name: part.recipe.to_json() for part in parts}
    files = {"qcd": ["qcd", "qcd_sideband"]}
    files |= {part.name: [part.name] for part in parts if not part.name.startswith("qcd")}
    for stem, names in files.items():
        events = concatenate([samples[name].dijets for name in names])
        attributes: dict[str, str | float] = {"seed": SEED}
        for name in names:
            attributes[f"recipe_{name}"] = recipes[name]
            attributes[f"sigma_fb_{name}"] = samples[name].sigma_fb
        path = options.out / f"dijets_{stem}.h5"
        write_compact(events, path)
        # What rounding moves over an edge of the selection is dropped.
        rounded = read_compact(path)
        inside = (rounded.m_jj >= Selection().m_jj_min) & (rounded.in_signal_region() | rounded.in_sideband())
        events = events[inside]
        write_compact(events, path, attributes=attributes)
        sys.stdout.write(f"{path.name:32s} {len(events):7d} events {path.stat().st_size / 1e6:6.2f} MB\n")


def benchmark(options: argparse.Namespace) -> None:
    """Write the benchmark sample: QCD and signal in one file, told apart by the label."""
    parts = benchmark_parts(options.n_qcd, options.n_signal)
    samples = [make(part, options.work, options.workers) for part in parts]
    events = concatenate([s.dijets for s in samples])
    events.write(options.out, attributes={f"recipe_{p.name}": p.recipe.to_json() for p in parts}, half=True)
    sys.stdout.write(f"{options.out}: {len(events)} events\n")


def closure(options: argparse.Namespace) -> None:
    """Compare the cuts with much looser ones, in a figure and in words."""
    from l1ad.io import atomic_path

    part = closure_part(options.m_jj_min, options.m_jj_max, options.n_qcd)
    sample = make(part, options.work, options.workers)
    selection = part.recipe.selection
    low, high = selection.m_jj_min, selection.m_jj_max
    edges = [low * f for f in CLOSURE_BINS]
    if high < edges[-1]:
        # A window: what its upper end loses counts as much as what its lower end does.
        edges = [low + (high - low) * i / 6 for i in range(7)]
    result = compare(sample.dijets.m_jj, GeneratorCuts.around(selection).passes(sample.partons), edges)
    _tell(result)
    with atomic_path(options.out) as temporary:
        draw_closure(result, temporary)


def _tell(result: Closure) -> None:
    for i in range(len(result.n)):
        sys.stdout.write(
            f"{result.edges[i]:6.0f}-{result.edges[i + 1]:<6.0f} {result.n[i]:6d} events, kept {result.ratio[i]:.4f} "
            f"[{result.low[i]:.4f}, {result.high[i]:.4f}]\n"
        )
    sys.stdout.write(f"lost in any bin at most {result.lost_at_most:.3f} (95 %); flat p {result.flat_p:.3g}\n")


def main() -> None:
    """Entry point."""
    here = Path(__file__).resolve().parent.parent
    sets = {
        "bundled": (bundled, here / "l1ad" / "data", N_QCD, N_SIGNAL),
        "benchmark": (benchmark, Path("benchmark.h5"), N_BENCHMARK, N_BENCHMARK_SIGNAL),
        "closure": (closure, Path("closure.png"), 6_000, 0),
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sample", choices=sorted(sets))
    parser.add_argument("--work", type=Path, required=True, help="folder of the pieces")
    parser.add_argument("--out", type=Path, help="folder of the bundled files, file of the others")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--n-qcd", type=int)
    parser.add_argument("--m-jj-min", type=float, default=Selection().m_jj_min, help="of the closure, in GeV")
    parser.add_argument("--m-jj-max", type=float, default=Selection().m_jj_max, help="of the closure, in GeV")
    parser.add_argument("--n-sideband", type=int, default=N_SIDEBAND)
    parser.add_argument("--n-signal", type=int)
    options = parser.parse_args()
    run, out, n_qcd, n_signal = sets[options.sample]
    options.out = out if options.out is None else options.out
    options.n_qcd = n_qcd if options.n_qcd is None else options.n_qcd
    options.n_signal = n_signal if options.n_signal is None else options.n_signal
    run(options)


if __name__ == "__main__":
    main()
