"""Statistics of the searches: how fast against a peer in the same run, and are the fits unbiased.

    python bench/search_stats.py            # everything, about two minutes on one core
    python bench/search_stats.py --quick    # fewer toys

Prints one line a figure: name, ours, peer, ratio or limit, and PASS or FAIL where issue 8 names a figure. Exit status 1
if one fails. Times are minima over repetitions; ratios are taken within one run on one core.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from l1ad.search.stats import bumphunter, dijet
from l1ad.search.stats.crystal_ball import CrystalBall


def best_time(function: Callable[[], object], repeats: int) -> float:
    """Smallest wall time in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def spectrum(edges: np.ndarray, total: float) -> np.ndarray:
    """Expected events of a three-parameter dijet spectrum, integrated over the bins."""
    shape = dijet.integrate(np.array([0.0, 9.5, 5.0, 0.1]), edges)
    return np.asarray(shape * total / shape.sum())


def bump_hunter(quick: bool) -> list[tuple[str, bool]]:
    """10,000 pseudo-experiments against pyBumpHunter with its own default options (4 threads, and 1)."""
    from pyBumpHunter import BumpHunter1D

    peer_n = 300 if quick else 1000
    out = []
    for name, edges, total in (
        ("published bins, 1e6 events", np.array(dijet.PUBLISHED_EDGES), 1e6),
        ("60 bins, 1e4 events", np.linspace(1460.0, 6260.0, 61), 1e4),
    ):
        expected = spectrum(edges, total)
        data = np.random.default_rng(0).poisson(expected)
        windows = bumphunter.Windows()
        ours = best_time(
            lambda e=expected, w=windows: bumphunter.pseudo_experiments(e, 10_000, np.random.default_rng(1), w), 5
        )
        ratios = []
        for workers in (4, 1):
            peer = BumpHunter1D(
                rang=[edges[0], edges[-1]], bins=edges, npe=peer_n, nworker=workers, seed=1, use_sideband=False
            )
            with contextlib.redirect_stdout(io.StringIO()):
                theirs = best_time(lambda p=peer, d=data, e=expected: p.bump_scan(d, e, is_hist=True), 2)
            ratios.append(theirs * 10_000 / peer_n / ours)
        p_ours = bumphunter.scan(data, expected, windows).p_local
        p_peer = float(peer.min_Pval_ar[0])
        same = abs(p_ours - p_peer) <= 1e-9 * p_peer
        print(
            f"bump hunter, {name}: 10,000 pseudo-experiments {ours * 1e3:.1f} ms, pyBumpHunter takes {ratios[0]:.0f} x "
            f"(4 threads, its default) and {ratios[1]:.0f} x (1 thread); local p equal: {same}"
        )
        out += [(f"bump hunter {name} >= 100 x", min(ratios) >= 100.0), (f"local p {name}", same)]
    return out


def dijet_speed() -> list[tuple[str, bool]]:
    """Fit of 10^6 events in 4 GeV bins, against scipy's minimiser on the same likelihood."""
    from scipy.optimize import minimize
    from scipy.special import xlogy

    edges = 1460.0 + 4.0 * np.arange(1336)
    counts = np.random.default_rng(2).poisson(spectrum(edges, 1e6)).astype(float)
    out = []
    for order in (2, 3, 4):
        ours = best_time(lambda k=order: dijet.fit_background(counts, edges, k), 7)
        fit = dijet.fit_background(counts, edges, order)

        def half_deviance(p: np.ndarray) -> float:
            mu = np.maximum(dijet.integrate(p, edges), 1e-300)
            return float(np.sum(mu - counts + xlogy(counts, counts / mu)))

        # The peer starts where a person would: 5 % away in each parameter, normalised to the events.
        start = fit.parameters * 1.05
        start[0] += np.log(counts.sum() / dijet.integrate(start, edges).sum())
        clock = time.perf_counter()
        peer = minimize(half_deviance, start, method="Nelder-Mead", options={"maxiter": 4000, "maxfev": 4000})
        theirs = time.perf_counter() - clock
        print(
            f"dijet fit, {order} parameters, 10^6 events: {ours * 1e3:.1f} ms, deviance {fit.deviance:.3f}; scipy "
            f"Nelder-Mead {theirs * 1e3:.0f} ms ({theirs / ours:.0f} x), deviance {2 * peer.fun:.3f}"
        )
        out.append((f"dijet fit {order} < 50 ms", ours < 0.050))
        out.append((f"dijet fit {order} at least as deep as the peer", fit.deviance <= 2 * peer.fun + 1e-3))
    return out


def pulls(quick: bool) -> list[tuple[str, bool]]:
    """Pull of the signal yield without and with injected signal, and coverage of its one-sigma interval."""
    edges = 1460.0 + 40.0 * np.arange(121)
    n_toys = 300 if quick else 1500
    out = []
    for total, mass, order in ((1e5, 3000.0, 3), (1e4, 2500.0, 2)):
        peak = CrystalBall(mass, 0.03 * mass, 1.3, 4.0, 1.6, 8.0).probabilities(edges)
        # The truth is a member of the family that is fitted: a test of the fit, not of the choice of function.
        truth = dijet.fit_background(spectrum(edges, total), edges, order).expected
        sigma = dijet.fit_peak(truth, edges, peak, order).signal_error
        for strength in (0.0, 3.0):
            rng = np.random.default_rng(int(total) + int(strength))
            injected = strength * sigma
            values, covered, failed = [], 0, 0
            for _ in range(n_toys):
                counts = rng.poisson(truth + injected * peak)
                try:
                    fit = dijet.fit_peak(counts, edges, peak, order)
                except dijet.FitError:
                    failed += 1
                    continue
                pull = (fit.signal - injected) / fit.signal_error
                values.append(pull)
                covered += abs(pull) < 1.0
            mean, width = float(np.mean(values)), float(np.std(values))
            print(
                f"pulls, {total:.0e} events, {mass:.0f} GeV, {order} parameters, {strength:.0f} sigma injected, "
                f"{len(values)} toys ({failed} fits failed): mean {mean:+.3f}, width {width:.3f}, "
                f"68.3 % interval covers {covered / len(values):.3f}"
            )
            name = f"pulls {total:.0e} {strength:.0f} sigma"
            out += [(f"{name} mean", abs(mean) < 0.1), (f"{name} width", abs(width - 1) < 0.1)]
    return out


def main() -> int:
    """Run all and say what failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer toys")
    quick = parser.parse_args().quick
    checks = bump_hunter(quick) + dijet_speed() + pulls(quick)
    failed = [name for name, good in checks if not good]
    print(
        f"{len(checks) - len(failed)} of {len(checks)} figures hold"
        + (f"; FAIL: {', '.join(failed)}" if failed else "")
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
