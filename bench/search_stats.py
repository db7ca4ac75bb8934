"""Statistics of the searches: bump hunter against pyBumpHunter, dijet fit against scipy, limits against pyhf, pulls.

    python bench/search_stats.py [--quick] [--repeats N]

Exit status 1 if a figure does not hold: bump hunter at least 100 x faster for the same pseudo-experiments with the same
local p-value to 1e-9 on 20 spectra, dijet fit of 10^6 events under 50 ms and no shallower than the peer's, CLs limits
within 0.5 % of pyhf's, pull means within 0.1 and widths within 10 %.
"""

from __future__ import annotations

import contextlib
import io
import os
import statistics
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from common import Case, Result, arguments, measure, report

from l1ad.search.stats import bumphunter, dijet, limits
from l1ad.search.stats.crystal_ball import CrystalBall

Checks = tuple[list[Result], list[str], list[tuple[str, bool]]]


def spectrum(edges: np.ndarray, total: float) -> np.ndarray:
    """Expected events of a three-parameter dijet spectrum, integrated over the bins."""
    shape = dijet.integrate(np.array([0.0, 9.5, 5.0, 0.1]), edges)
    return np.asarray(shape * total / shape.sum())


def bump_hunter(repeats: int, quick: bool) -> Checks:
    """10,000 pseudo-experiments (1,000 for the peer, which takes seconds) of all windows up to half of the spectrum."""
    from pyBumpHunter import BumpHunter1D

    peer_n = 300 if quick else 1000
    cases, notes, checks = [], [], []
    for name, edges, total in (
        ("35 published bins, 1e6 events", np.array(dijet.PUBLISHED_EDGES), 1e6),
        ("60 bins, 1e4 events", np.linspace(1460.0, 6260.0, 61), 1e4),
    ):
        expected = spectrum(edges, total)
        data = np.random.default_rng(0).poisson(expected)
        unit = f"pseudo-experiments ({name})"

        def theirs(workers: int, n: int, edges: np.ndarray = edges) -> BumpHunter1D:
            return BumpHunter1D(rang=[edges[0], edges[-1]], bins=edges, npe=n, nworker=workers, seed=1)

        def peer_run(workers: int, d: np.ndarray = data, e: np.ndarray = expected, make=theirs) -> None:
            with contextlib.redirect_stdout(io.StringIO()):
                make(workers, peer_n).bump_scan(d, e, is_hist=True)

        cases += [
            Case("pyBumpHunter", lambda r=peer_run: r(4), peer_n, unit, note="4 threads, its default"),
            Case("pyBumpHunter", lambda r=peer_run: r(1), peer_n, unit, note="1 thread"),
            Case(
                "l1ad",
                lambda e=expected: bumphunter.pseudo_experiments(e, 10_000, np.random.default_rng(1)),
                10_000,
                unit,
                ours=True,
                note="1 thread",
            ),
        ]
        apart = []
        for seed in range(10):
            drawn = np.random.default_rng(seed).poisson(expected)
            peer = theirs(1, 0)
            with contextlib.redirect_stdout(io.StringIO()):
                peer.bump_scan(drawn, expected, is_hist=True, do_pseudo=False)
            apart.append(abs(bumphunter.scan(drawn, expected).p_local / float(peer.min_Pval_ar[0]) - 1.0))
        notes.append(f"local p-value of 10 spectra, {name}: ours and pyBumpHunter's within {max(apart):.1e}")
        checks.append((f"local p {name}", max(apart) <= 1e-9))
    results = measure(cases, repeats=repeats)
    for r in results:
        if not r.ours:
            best = next(o.rate for o in results if o.ours and o.unit == r.unit)
            checks.append((f"bump hunter >= 100 x, {r.unit} {r.note}", best / r.rate >= 100.0))
    return results, notes, checks


def dijet_fit(repeats: int) -> Checks:
    """Fit of 10^6 events in 1,335 bins of 4 GeV, against scipy's minimiser on the same likelihood."""
    from scipy.optimize import minimize
    from scipy.special import xlogy

    edges = 1460.0 + 4.0 * np.arange(1336)
    counts = np.random.default_rng(2).poisson(spectrum(edges, 1e6)).astype(float)
    cases, notes, checks = [], [], []

    def half_deviance(p: np.ndarray) -> float:
        mu = np.maximum(dijet.integrate(p, edges), 1e-300)
        return float(np.sum(mu - counts + xlogy(counts, counts / mu)))

    for order in (2, 3, 4):
        fit = dijet.fit_background(counts, edges, order)
        # The peer starts where a person would: 5 % away in each parameter, normalised to the events.
        start = fit.parameters * 1.05
        start[0] += np.log(counts.sum() / dijet.integrate(start, edges).sum())
        options = {"maxiter": 4000, "maxfev": 4000}

        def peer_run(start: np.ndarray = start, options: dict = options) -> float:
            return float(minimize(half_deviance, start, method="Nelder-Mead", options=options).fun)

        unit = f"fits ({order} shape parameters)"
        cases += [
            Case("scipy Nelder-Mead", peer_run, 1, unit),
            Case("l1ad", lambda k=order: dijet.fit_background(counts, edges, k), 1, unit, ours=True),
        ]
        peer = 2.0 * peer_run()
        notes.append(f"deviance with {order} shape parameters: ours {fit.deviance:.3f}, scipy's {peer:.3f}")
        checks.append((f"dijet fit {order} as deep as the peer", fit.deviance <= peer + 1e-3))
    results = measure(cases, repeats=repeats)
    for r in results:
        if r.ours:
            milliseconds = 1e3 * statistics.median(r.seconds)
            notes.append(f"{r.unit}: one of 10^6 events takes {milliseconds:.1f} ms")
            checks.append((f"{r.unit} < 50 ms", milliseconds < 50.0))
    return results, notes, checks


def pyhf_limits() -> tuple[list[str], list[tuple[str, bool]]]:
    """Observed and expected CLs limits of counting experiments and of a shape with ten systematic parameters."""
    import warnings

    with warnings.catch_warnings():
        # pyhf 0.7.6 asks for a class that jsonschema has deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        import pyhf

        pyhf.set_backend("numpy", "scipy")
        x = np.arange(8.0)
        qcd, other, signal = 200 * np.exp(-0.4 * x), 30 * np.exp(-0.2 * x), 12 * np.exp(-0.5 * (x - 4) ** 2)
        tilt = np.linspace(1.1, 0.9, 8)
        shape = limits.HistogramModel(
            (
                limits.Sample(
                    "signal", signal, signal=True, normalisation={"lumi": (0.975, 1.025), "tag": (0.8, 1.3)},
                    shape={"scale": (signal * tilt, signal / tilt)},
                ),
                limits.Sample("qcd", qcd, shape={"slope": (qcd / tilt**1.5, qcd * tilt**1.5)}),
                limits.Sample("other", other, normalisation={"lumi": (0.975, 1.025)}, uncorrelated=0.15 * other),
            )
        )  # fmt: skip
        models = {"shape": (shape, np.rint(qcd + other + 0.3 * signal))}
        for n, b, s, sigma in (
            (12, 10.0, 5.0, None),
            (3, 4.2, 1.0, None),
            (60, 50.0, 10.0, 7.0),
            (1020, 1e3, 50.0, 60),
        ):
            samples = (
                limits.Sample("signal", np.array([s]), signal=True),
                limits.Sample("b", np.array([b]), uncorrelated=None if sigma is None else np.array([float(sigma)])),
            )
            models[f"{n} on {b:g} +- {sigma or 0:g}"] = (limits.HistogramModel(samples), np.array([float(n)]))
        apart = {}
        for name, (model, counts) in models.items():
            ours = limits.asymptotic_limit(model, model.data(counts))
            workspace = pyhf.Workspace(model.histfactory(counts))
            peer = workspace.model()
            bounds = peer.config.suggested_bounds()
            bounds[peer.config.poi_index] = (0.0, 30.0 * ours.expected[-1])
            observed, expected = pyhf.infer.intervals.upper_limits.toms748_scan(
                workspace.data(peer), peer, 1e-3, 3.0 * max(ours.expected[-1], ours.observed), rtol=1e-4,
                par_bounds=bounds,
            )  # fmt: skip
            pairs = np.array([(ours.observed, float(observed)), *zip(ours.expected, map(float, expected))])
            apart[name] = float(np.max(np.abs(pairs[:, 0] / pairs[:, 1] - 1.0)))
    text = ", ".join(f"{name}: {100 * v:.3f} %" for name, v in apart.items())
    note = f"CLs limits, observed and five expected, largest difference from pyhf's: {text}"
    return [note], [("CLs limits within 0.5 % of pyhf's", max(apart.values()) <= 0.005)]


def pulls(quick: bool) -> tuple[list[str], list[tuple[str, bool]]]:
    """Pull of the signal yield without and with injected signal, and coverage of its one-sigma interval."""
    edges = 1460.0 + 40.0 * np.arange(121)
    n_toys = 300 if quick else 1500
    notes, out = [], []
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
            notes.append(
                f"pulls, {total:.0e} events, {mass:.0f} GeV, {order} parameters, {strength:.0f} sigma injected, "
                f"{len(values)} toys ({failed} fits failed): mean {mean:+.3f}, width {width:.3f}, "
                f"68.3 % interval covers {covered / len(values):.3f}"
            )
            name = f"pulls {total:.0e} {strength:.0f} sigma"
            out += [(f"{name} mean", abs(mean) < 0.1), (f"{name} width", abs(width - 1) < 0.1)]
    return notes, out


def main() -> int:
    """Run all and say what failed."""
    options = arguments("search_stats", "Statistics of the searches")
    hunted, hunt_notes, hunt_checks = bump_hunter(options.repeats, options.quick)
    fitted, fit_notes, fit_checks = dijet_fit(options.repeats)
    pull_notes, pull_checks = pulls(options.quick)
    limit_notes, limit_checks = pyhf_limits()
    checks = hunt_checks + fit_checks + limit_checks + pull_checks
    failed = [name for name, good in checks if not good]
    verdict = f"{len(checks) - len(failed)} of {len(checks)} figures hold"
    verdict += f"; not: {'; '.join(failed)}" if failed else ""
    notes = [*hunt_notes, *fit_notes, *limit_notes, *pull_notes, verdict]
    report("search_stats", "Statistics of the searches", hunted + fitted, options, notes=notes)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
