"""What the dijet searches gain, and that they feign nothing.

    python bench/search_dijet.py [gain] [vae] [null] [sic] [--quick] [--events FILE ...] [--signal FILE]
                                 [--benchmark FILE]

``gain`` and ``vae`` (10 injections of a 3 TeV two-prong signal at about 2 sigma inclusive): expected significance of
CWoLa and of VAE-QR over that without selection, at least 2 x each in the median.
``null`` (200 pseudo-experiments without signal): global p-values uniform (Kolmogorov-Smirnov p > 0.05), no excess.
``sic``: maximum of the significance improvement of CWoLa at S/B = 0.6 % in the window of the benchmark sample
(``scripts/make_dijets.py benchmark``), at least 8; published on the LHC Olympics sample: 10.75.

Each part writes ``results/search_PART.json``; the exit status is 1 if one of its figures does not hold. Without files
the bundled dijets are used; ``sic`` is left out without ``--benchmark``.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from common import RESULTS, machine, report

from l1ad.search import folds, injected, jets, methods, metrics, quantile, weak
from l1ad.search.bundled import bundled_dijet_names, bundled_dijets
from l1ad.search.config import SearchConfig
from l1ad.search.stats import dijet, lookelsewhere

MASS = 3000.0
SIGNAL = "x_yy_4q_3000_170_170"
Figure = tuple[str, bool]
GAIN = SearchConfig.model_validate(
    {
        "window": "B3",
        "fraction": 0.01,
        "features": ["m", "tau21"],
        "combine": "sum",
        # A few hundred events in the window: small trees, and as many as are asked for.
        "trees": {
            "members": 3,
            "max_iterations": 50,
            "max_leaf_nodes": 8,
            "min_samples_leaf": 15,
            "early_stopping": False,
        },
        "fit": {"low": 1460, "high": 6800, "bin_width": 20, "orders": [2, 3, 4]},
        "vae": {"particles": 30, "epochs": 30},
        "systematics": None,
    }
)


def samples(options: argparse.Namespace, *, constituents: bool) -> tuple[jets.Dijets, jets.Dijets]:
    """Background and signal, from files or bundled."""
    if options.events:
        return jets.concatenate([jets.read(p) for p in options.events]), jets.read(options.signal[0])
    return bundled_dijets("qcd", constituents=constituents), bundled_dijets(SIGNAL, constituents=constituents)


def events_for(background: jets.Dijets, config: SearchConfig, z: float) -> float:
    """How many signal events have an expected significance of `z` without selection."""
    fit = config.fit
    region = background.m_jj[background.in_signal_region()]
    counts, edges = dijet.histogram(region, fit.low, fit.high, width=fit.bin_width)
    peak = config.peak.at(MASS).probabilities(edges)
    low, high = 1.0, 10.0 * np.sqrt(counts.sum())
    for _ in range(25):
        middle = 0.5 * (low + high)
        if injected.expected_significance(counts, edges, peak, middle, MASS, orders=fit.orders) < z:
            low = middle
        else:
            high = middle
    return float(middle)


HEAD = (
    "| method | Z without | Z with | ratio, median | range | signal kept | events kept |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
)
Run = dict[str, float]


def gain(options: argparse.Namespace) -> list[Figure]:
    """Expected significance of CWoLa with and without selection."""
    background, signal = samples(options, constituents=False)
    n = events_for(background, GAIN, 2.0)
    what = injected.Injection(background, signal, GAIN, MASS, 1.0)
    repeats = 3 if options.quick else 10
    runs = [dict(what(t)) for t in injected.injection.tasks([n], repeats=repeats, seed=1)]
    notes = [f"{n:.0f} injected events of the 3 TeV two-prong signal are 2 sigma without selection"]
    return judged("search_gain", "Expected significance of a 3 TeV signal: CWoLa", {"CWoLa": runs}, notes, options)


def vae(options: argparse.Namespace) -> list[Figure]:
    """Expected significance of VAE-QR with and without selection."""
    if options.events:
        background = jets.concatenate([jets.read(p) for p in options.events])
        signals = {p.stem: jets.read(p) for p in options.signal}
    else:
        background = bundled_dijets("qcd", constituents=True)
        names = [n for n in bundled_dijet_names() if n != "qcd"]
        signals = {n: bundled_dijets(n, constituents=True) for n in names}
    if background.constituents is None:
        sys.stdout.write("vae is left out: the events have no constituents\n")
        return []
    runs, notes = vae_gain(background, signals, 3 if options.quick else 10)
    return judged("search_vae", "Expected significance of a 3 TeV signal: VAE-QR", runs, notes, options)


def judged(
    subject: str, title: str, runs: dict[str, list[Run]], notes: list[str], options: argparse.Namespace
) -> list[Figure]:
    """Table and figures of injections."""
    figures, rows = [], []
    for name, own in runs.items():
        ratios = np.array([r["z"] / r["z_inclusive"] for r in own])
        median = {k: float(np.median([r[k] for r in own])) for k in own[0]}
        rows.append(
            f"| {name} | {median['z_inclusive']:.2f} | {median['z']:.2f} | {np.median(ratios):.2f} | "
            f"{ratios.min():.2f} to {ratios.max():.2f} | "
            f"{100 * median['efficiency']:.1f} % | {median['selected']:.0f} |"
        )
        figures.append((f"{name} raises the expected significance 2 x", bool(np.median(ratios) >= 2.0)))
    report(subject, title, [], options, extra={"runs": runs}, notes=notes, text=HEAD + "\n".join(rows))
    return figures


def vae_gain(
    background: jets.Dijets, signals: dict[str, jets.Dijets], repeats: int
) -> tuple[dict[str, list[Run]], list[str]]:
    """Each injection of each signal, with the 10 % category and with the three categories combined.

    The autoencoder learns from the sideband only, so that it is the same for all injections.
    """
    region = background[background.in_signal_region()]
    tagger = methods.train_vae(region, background[background.in_sideband()], GAIN)
    low = 20.0 * np.ceil(max(float(region.m_jj.min()), GAIN.fit.low) / 20.0)
    config = GAIN.model_copy(update={"fit": GAIN.fit.model_copy(update={"low": low})})
    n_expected = events_for(background, config, 2.0)
    # A fold needs some events above its highest quantile: a small sample has fewer folds than the published 20.
    n_folds = min(quantile.PUBLISHED_FOLDS, len(region) // 500)
    ordinary = tagger.score(region.constituents)
    runs, flat = {}, []
    for name, sample in signals.items():
        signal = sample[sample.in_signal_region()]
        odd = tagger.score(signal.constituents)
        single: list[Run] = []
        combined: list[Run] = []
        for child in np.random.SeedSequence(2).spawn(repeats):
            rng = np.random.default_rng(child)
            order = rng.permutation(len(signal))
            n = int(rng.poisson(n_expected))
            put, rest = order[:n], order[n:]
            mass = np.concatenate([region.m_jj, signal.m_jj[put]])
            done = quantile.decorrelate(np.concatenate([ordinary, odd[put]]), mass, rng, n_folds=n_folds)
            category = done.category[: len(region)]
            kept = done.curves.categories(odd[rest], signal.m_jj[rest])
            run, z = categories(region.m_jj, category, kept, n, config)
            single.append({**run, "z": z["10"]})
            combined.append({**run, "z": float(np.sqrt(sum(z[c] ** 2 for c in "123")))})
            flat.append(metrics.flatness(region.m_jj, category >= 1, np.quantile(region.m_jj, np.linspace(0, 1, 13))).p)
        runs |= {f"{name}, 10 % category": single, f"{name}, three categories": combined}
    notes = [
        f"{len(region)} events and a sideband of {int(np.sum(background.in_sideband()))}; {n_expected:.0f} injected "
        f"events are 2 sigma without selection; quantile regression in {n_folds} folds",
        f"probability that the selected fraction of the background is flat in mass, median {np.median(flat):.2f}",
    ]
    return runs, notes


def categories(
    mass: np.ndarray, category: np.ndarray, kept: np.ndarray, n: int, config: SearchConfig
) -> tuple[Run, dict[str, float]]:
    """Efficiency and events of the 10 % category, and the expected significance of each selection of categories."""
    fit, z = config.fit, {}
    for name, b, s in (
        ("all", category >= 0, kept >= 0),
        ("10", category >= 1, kept >= 1),
        *((str(c), category == c, kept == c) for c in (1, 2, 3)),
    ):
        counts, edges = dijet.histogram(mass[b], fit.low, fit.high, width=fit.bin_width)
        peak = config.peak.at(MASS).probabilities(edges)
        z[name] = injected.expected_significance(counts, edges, peak, n * np.mean(s), MASS, orders=fit.orders)
    run = {"efficiency": float(np.mean(kept >= 1)), "selected": float(np.sum(category >= 1)), "z_inclusive": z["all"]}
    return {**run, "injected": float(n)}, z


def null(options: argparse.Namespace) -> list[Figure]:
    """Pseudo-experiments without signal: events drawn from a smooth spectrum, features drawn apart from the mass.

    Each is searched from the start: CWoLa trained, selected, fitted, scanned, its window's global p-value taken from
    common toys of the background.
    """
    from scipy.stats import kstest

    from l1ad.search.stats.significance import p_from_z

    repeats = 20 if options.quick else 200
    background, _ = samples(options, constituents=False)
    region = background[background.in_signal_region()].heavier_first()
    features = region.features(tuple(GAIN.features))
    config = GAIN.model_copy(
        update={
            "trees": GAIN.trees.model_copy(update={"members": 1, "max_iterations": 30}),
            "folds": GAIN.folds.model_copy(update={"outer": 2, "inner": 2}),
            "fraction": 0.05,
        }
    )
    window = jets.WINDOWS[config.window]
    n, fit = 4000, config.fit
    near = (region.m_jj >= window.below) & (region.m_jj < window.above)
    pool = features[near]
    masses = [float(m) for m in np.arange(np.ceil(window.low / 100) * 100, window.high, 100)]
    low, high = window.below, window.above
    edges = np.linspace(low, high, 47)
    centre = 0.5 * (edges[1:] + edges[:-1])
    # The spectrum of the sample itself, smooth: a fit over the whole range, cut out around the window.
    counts, wide = dijet.histogram(region.m_jj, fit.low, fit.high, width=fit.bin_width)
    truth = dijet.choose_order(counts, wide, MASS, orders=fit.orders).fit
    density = truth.density(centre)
    peaks = {m: config.peak.at(m).probabilities(edges) for m in masses}

    def shape(mass: float, _edges: np.ndarray) -> np.ndarray:
        return peaks[mass]

    rng = np.random.default_rng(7)
    expected = config.fraction * n * density / density.sum()
    toys = lookelsewhere.scan_toys(dijet.fit_background(expected, edges, 2), masses, shape, 1000, rng)
    largest = np.sort(toys.z_max)
    p_global, p_local, failed = [], [], 0
    for child in np.random.SeedSequence(8).spawn(repeats):
        rng = np.random.default_rng(child)
        which = rng.choice(centre.size, n, p=density / density.sum())
        mass = rng.uniform(edges[which], edges[which + 1])
        rows = rng.integers(0, len(pool), n)
        # Copies of one event carry the same features: they share a fold, and a tiny shift makes them different masses.
        columns = {
            "jets": pool[rows],
            "plane": np.repeat(mass[:, None] / 2.0, 2, axis=1) * rng.uniform(0.75, 1.0, (n, 1)),
            "label": window.labels(mass),
        }
        plan = folds.plan(rows, rng, n_outer=config.folds.outer, n_inner=config.folds.inner)
        fit_ = weak.cwola_hunting(methods.classifier(config))
        scored = folds.cross_score(columns, plan, fit_, seed=int(rng.integers(2**31)))
        chosen = folds.select(scored.scores, plan, float(config.fraction), within=columns["label"] == 0)
        try:
            scan = dijet.scan_masses(np.histogram(mass[chosen], edges)[0], edges, masses, shape, 2)
        except dijet.FitError:
            failed += 1
            continue
        best = float(np.nanmax(scan.z))
        p_global.append((1.0 + np.sum(largest >= best)) / (largest.size + 1.0))
        p_local.append(float(p_from_z(best)))
    uniform = float(kstest(p_global, "uniform").pvalue)
    beyond = {q: float(np.mean(np.array(p_global) < q)) for q in (0.05, 0.01)}
    notes = [
        f"{len(p_global)} pseudo-experiments ({failed} fits failed): KS p-value of the global p-values {uniform:.3f}",
        f"global p below 5 %: {100 * beyond[0.05]:.1f} %, below 1 %: {100 * beyond[0.01]:.1f} %; "
        f"smallest local p {min(p_local):.2g}",
    ]
    extra = {"p_global": p_global, "p_local": p_local, "ks_p": uniform, "failed": failed}
    report("search_null", "Searches without signal", [], options, extra=extra, notes=notes, text=notes[0])
    # A fraction below 1 % that a fair search shows less than once in a thousand is an artificial excess.
    from scipy.stats import binom

    excess = float(binom.sf(round(beyond[0.01] * len(p_global)) - 1, len(p_global), 0.01))
    return [("global p-values uniform", uniform > 0.05), ("no artificial excess", excess > 1e-3)]


def sic(options: argparse.Namespace) -> list[Figure]:
    """CWoLa on (m of the lighter jet, mass difference, tau21 of both) with a signal of 0.6 % in the window."""
    sample = jets.read(options.benchmark).heavier_first()
    window = jets.MassWindow("LHCO", 3300.0, 3700.0, 3100.0, 3900.0)
    background, signal = sample[sample.label == 0], sample[sample.label == 1]
    inside = int(np.sum((background.m_jj >= window.low) & (background.m_jj < window.high)))
    in_window = np.flatnonzero((signal.m_jj >= window.low) & (signal.m_jj < window.high))
    elsewhere = len(signal) / max(len(in_window), 1)
    curves, rows, extra = [], [], {}
    repeats = 1 if options.quick else 5
    for child in np.random.SeedSequence(9).spawn(repeats):
        rng = np.random.default_rng(child)
        n = round(0.006 * inside * elsewhere)
        order = rng.permutation(len(signal))
        used = jets.concatenate([background, signal[order]])
        labels = window.labels(used.m_jj)
        labels[len(background) + n :] = methods.SPECTATOR
        m, tau = used.feature("m"), used.feature("tau21")
        table = np.stack([m[:, 1], m[:, 0] - m[:, 1], tau[:, 0], tau[:, 1]], axis=1)
        plan = folds.plan(methods.identities(used), rng, n_outer=5, n_inner=4)
        trees = weak.Trees(
            members=2 if options.quick else options.members, max_iterations=100, max_leaf_nodes=31, learning_rate=0.05
        )
        columns = {"event": table, "label": labels}
        scores = folds.cross_score(columns, plan, weak.cwola_pair(trees), seed=int(rng.integers(2**31))).scores
        near = (used.m_jj >= window.low) & (used.m_jj < window.high)
        truth = np.arange(len(used)) >= len(background)
        curve = metrics.sic_curve(scores[near], truth[near])
        curves.append(curve.maximum)
        in_data = int(np.sum(truth[near] & (labels[near] != methods.SPECTATOR)))
        at = int(np.argmax(curve.sic))
        rows.append(
            f"| {in_data} in {inside} ({100 * in_data / inside:.2f} %) | {curve.maximum:.2f} | "
            f"{curve.signal_efficiency[at]:.3f} | {curve.background_efficiency[at]:.2g} |"
        )
    best = float(np.median(curves))
    extra["sic_maximum"] = curves
    notes = [f"median of the maxima {best:.2f}; at least 25 background events behind every threshold"]
    text = "| signal in the window | SIC maximum | signal kept | background kept |\n| --- | ---: | ---: | ---: |\n"
    report(
        "search_sic",
        "Weak supervision at S/B = 0.6 %",
        [],
        options,
        extra=extra,
        notes=notes,
        text=text + "\n".join(rows),
    )
    return [("SIC maximum at least 8", best >= 8.0)]


def main() -> int:
    """Run the parts and say what does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=["gain", "vae", "null", "sic", []], help="all if none is named")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: shows that it runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON files")
    parser.add_argument("--events", type=Path, nargs="*", help="background dijets; the bundled ones if none")
    parser.add_argument("--signal", type=Path, nargs="*", help="3 TeV signals, with --events; gain takes the first")
    parser.add_argument("--benchmark", type=Path, help="benchmark sample, for sic")
    parser.add_argument("--members", type=int, default=20, help="trees' ensembles in sic")
    options = parser.parse_args()
    options.machine = machine()
    figures: list[Figure] = []
    for name, part in (("gain", gain), ("vae", vae), ("null", null), ("sic", sic)):
        if (not options.parts or name in options.parts) and (name != "sic" or options.benchmark):
            figures += part(options)
    failed = [name for name, good in figures if not good]
    sys.stdout.write(f"{len(figures) - len(failed)} of {len(figures)} figures hold")
    sys.stdout.write(f"; not: {'; '.join(failed)}\n" if failed else "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
