"""A calibration from files to ``thresholds.json``.

`calibrate` plans tasks over the zero-bias files (and those of signals), has them done by any executor, merges what they
wrote, finds the thresholds and goes back to their tails for stability and overlap. The result is the same to the bit
for any chunk size, number of workers and kind of executor.
"""

from __future__ import annotations

import contextlib
import fnmatch
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from l1ad.errors import InputError, L1adError
from l1ad.events.readers import open_events
from l1ad.io import write_json
from l1ad.menu import Menu
from l1ad.rates.exact import ExactSums
from l1ad.rates.files import FORMAT, FORMAT_VERSION
from l1ad.rates.histogram import Kind, ScoreHistogram, check_kind
from l1ad.rates.intervals import Counts, check_interval_method
from l1ad.rates.ladder import check_budget, prescales_for_budget
from l1ad.rates.physics import Signal, Summary, area_under_curve, efficiency_at_fpr, summarise
from l1ad.rates.pool import process_pool
from l1ad.rates.rates import MAX_PILEUP, BaseRate, PileupProfile, pileup_factors
from l1ad.rates.stability import DriftTest, Stability, drift_test
from l1ad.rates.tasks import (
    Context,
    ExecutorFactory,
    PileupTask,
    Progress,
    Scorer,
    ScoreTask,
    SeedSums,
    Source,
    TailSums,
    TailTask,
    WorkersDied,
    dask_executor,
    plan,
    read_sums,
    run_tasks,
)
from l1ad.rates.thresholds import RateCurve, Threshold, ZeroBias, find_threshold, rate_curve

#: Decisions of the data that are no part of a menu to be pure of: zero-bias and random seeds, and anomaly seeds.
NOT_A_MENU = (
    "*ZeroBias*",
    "*AlwaysTrue*",
    "*FirstCollision*",
    "*LastCollision*",
    "*FirstBunch*",
    "*LastBunch*",
    "*SecondBunch*",
    "*SecondLastBunch*",
    "*BptxXOR*",
    "*BPTX*",
    "*MinimumBias*",
    "*UnprefireableEvent*",
    "*FinalOR*",
    "*AXO*",
    "*CICADA*",
    "*ADT*",
)
#: Seeds whose thresholds, scaled by this, a pure event meets, are said to have almost fired.
ALMOST = 0.8
#: Of a task: large enough that what a task costs beside its work (20 ms on a cluster) stays below 5 % of it.
DEFAULT_CHUNK_EVENTS = 1 << 21
FPR_OF_INTEREST = 1e-5
#: Groups that a stability table in the file has at most; the tests use all.
STABILITY_GROUPS = 60


@dataclass(frozen=True, eq=False)
class Sample:
    """A sample that was scored: its histogram, its seeds and its tails."""

    sources: tuple[Source, ...]
    histogram: ScoreHistogram
    seeds: SeedSums
    tails: TailSums


@dataclass(frozen=True, eq=False)
class SignalResult:
    """What the thresholds keep of one signal, and its curves."""

    signal: Signal
    tails: TailSums
    content: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Calibration:
    """The result of `calibrate`.

    Attributes
    ----------
    trigger_name, trigger_hash : of the trigger.
    kind : of the targets.
    zero_bias : scored zero bias, for any further threshold.
    thresholds : one a target, in the order given.
    curves : rate against threshold by kind.
    stability : table by working point and variable.
    drift : test by working point and variable, where the events allow one.
    signals : by name.
    prescales : by working point, if a budget was given.
    notes : what a user should know, in words.
    content : everything, as it is written to ``thresholds.json``.
    """

    trigger_name: str
    trigger_hash: str
    kind: Kind
    zero_bias: ZeroBias
    thresholds: tuple[Threshold, ...]
    curves: Mapping[str, RateCurve]
    stability: Mapping[str, Mapping[str, Stability]]
    drift: Mapping[str, Mapping[str, DriftTest]]
    signals: Mapping[str, SignalResult]
    prescales: Mapping[str, int] | None
    notes: tuple[str, ...]
    content: dict[str, Any]

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write ``thresholds.json`` (see `l1ad.rates.files`).

        Raises
        ------
        InputError
            If it cannot be written.
        """
        write_json(path, self.content)


def calibrate(
    trigger: Scorer,
    zero_bias: Sequence[str | os.PathLike[str]],
    rates_hz: Mapping[str, float],
    *,
    kind: str = "pure",
    menu: Menu | None = None,
    base: BaseRate | None = None,
    pileup: PileupProfile | None = None,
    signals: Mapping[str, Sequence[str | os.PathLike[str]]] | None = None,
    extrapolate: bool = False,
    interval: str = "clopper-pearson",
    budget_hz: float | None = None,
    saturation: str = "keep",
    exclude_seeds: Sequence[str] = NOT_A_MENU,
    work: str | os.PathLike[str],
    chunk_events: int = DEFAULT_CHUNK_EVENTS,
    workers: int = 1,
    dask: str | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Find the thresholds of `trigger` for target rates.

    Parameters
    ----------
    trigger : anything with a ``score`` of events, a ``hash`` and a ``name``.
    zero_bias : files, folders or patterns.
    rates_hz : targets in Hz by name.
    kind : what the targets are rates of: ``total``, ``pure`` or ``proportional``.
    menu : seeds for pure and proportional rates; the decisions in the data without it, if they are there.
    base : crossings a second; 2544 bunches without it.
    pileup : reweight zero bias to this.
    signals : files by signal name.
    extrapolate : allow a fitted tail where fewer than 10 events pass.
    interval : ``clopper-pearson``, which covers at least its level, or ``mid-p``, which covers it on average.
    budget_hz : propose prescales for this total.
    saturation : what the reader does with saturated objects; the firmware keeps them.
    exclude_seeds : patterns of decisions in the data that are not taken for a menu.
    work : folder for intermediate results, shared with the workers; it is removed at the end, and kept after a crash,
        so that the next call goes on from it.
    chunk_events : events a task, for files that can be divided.
    workers, dask, executor : who does the tasks: processes here, a dask scheduler (or ``local``), or an executor.
    progress : called with what is being done, how many tasks are done and how many there are.

    Raises
    ------
    InputError
        If anything given cannot be used; the message names it.
    """
    which = check_kind(kind)
    check_interval_method(interval)
    base = base or BaseRate.from_bunches(2544)
    if not rates_hz:
        raise InputError("rate", "targets", "none", "at least one")
    for target in rates_hz.values():
        base.check_target(target)
    if budget_hz is not None:
        check_budget(budget_hz)
    if workers < 1 or chunk_events < 1:
        raise InputError("calibrate", "workers and chunk size", f"{workers}, {chunk_events}", "1 or more")
    notes: list[str] = []
    sources, _ = plan(
        [os.fspath(p) for p in zero_bias], chunk_events=chunk_events, saturation=saturation, where="zero bias"
    )
    if menu is None:
        menu = _menu_of_data(sources[0].path, exclude_seeds, notes)
    if menu is None and which != "total":
        raise InputError(
            sources[0].path, "menu bits", f"none, which a {which} rate needs", "events with menu bits, or --menu"
        )
    work = Path(work)
    existed = work.exists()
    done = False
    executors = _executors(workers, dask, executor)
    context = Context(trigger, menu, None, saturation, os.fspath(work.resolve()))
    try:
        if pileup is not None:
            factors, uncovered = pileup_factors(pileup, _pileup_of(sources, context, executors, progress))
            context = replace(context, factors=factors)
            if uncovered > 1e-3:
                notes.append(f"{100 * uncovered:.2g} % of the pile-up profile lies where zero bias has no events")
        result = _calibrate(
            context, sources, rates_hz, which, base, pileup, signals or {}, extrapolate, interval, budget_hz,
            chunk_events, executors, progress, notes,
        )  # fmt: skip
        done = True
        return result
    except WorkersDied:
        raise
    except L1adError:
        # Bad input leaves nothing behind; a crash or a killed worker does, so that the next call goes on from it.
        done = True
        raise
    finally:
        if done and not existed:
            shutil.rmtree(work, ignore_errors=True)
        elif done:
            for file in work.glob("*.h5"):
                file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                work.rmdir()


def _calibrate(
    context: Context,
    sources: list[Source],
    rates_hz: Mapping[str, float],
    kind: Kind,
    base: BaseRate,
    pileup: PileupProfile | None,
    signals: Mapping[str, Sequence[str | os.PathLike[str]]],
    extrapolate: bool,
    interval: str,
    budget_hz: float | None,
    chunk_events: int,
    executors: ExecutorFactory,
    progress: Progress | None,
    notes: list[str],
) -> Calibration:
    tasks = [ScoreTask(source, context) for source in sources]
    run_tasks(tasks, executors, what="zero bias", progress=progress)
    histogram, seeds = _merge_scores(tasks)
    sample = ZeroBias(histogram, base, interval=interval, where="zero bias")
    thresholds = [
        find_threshold(sample, target, name=name, kind=kind, extrapolate=extrapolate)
        for name, target in rates_hz.items()
    ]
    values = tuple(item.threshold for item in thresholds)
    tail_tasks = [TailTask(task, values, kind, True, ALMOST) for task in tasks]
    run_tasks(tail_tasks, executors, what="tails", progress=progress)
    tails = _merge_tails(tail_tasks, len(values), context.menu)
    if histogram.is_weighted and "lumi" in tails.groups:
        sample, thresholds = _with_lumi_sections(sample, thresholds, tails, kind)
    stability, drift = _stability(thresholds, tails)
    signal_results = {
        name: _signal(name, paths, context, chunk_events, values, thresholds, sample, executors, progress)
        for name, paths in signals.items()
    }
    prescales = None
    if budget_hz is not None:
        prescales = prescales_for_budget({item.name: item.rate.hz for item in thresholds}, budget_hz)
    notes += seeds.notes
    for item in thresholds:
        if item.rate.effective_events < 10:
            notes.append(f"{item.name}: the weights leave {item.rate.effective_events:.1f} effective events")
    curves: dict[str, RateCurve] = {one: rate_curve(sample, one, must=values) for one in histogram.kinds}
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "trigger": {"name": context.trigger.name, "hash": context.trigger.hash},
        "kind": kind,
        "interval": interval,
        "base": {
            "crossing_hz": base.crossing_hz,
            "bunches": base.bunches,
            "luminosity_scale": base.luminosity_scale,
            "pileup": None if pileup is None else pileup.name,
        },
        "sample": {
            "files": _files(sources),
            "events": histogram.n_events,
            "sum_w": sample.all_w,
            "effective_events": sample.all_w**2 / sample.all_w2,
            "weighted": histogram.is_weighted,
            "saturation": context.saturation,
        },
        "menu": _menu_content(context.menu, seeds, sample),
        "thresholds": [item.to_json() for item in thresholds],
        "prescales": prescales,
        "curves": {one: curve.to_json() for one, curve in curves.items()},
        "stability": {
            name: {variable: _stability_content(table, drift[name].get(variable)) for variable, table in tables.items()}
            for name, tables in stability.items()
        },
        "overlap": _overlap(thresholds, tails, context.menu, sample.tails, seeds),
        "signals": {name: result.content for name, result in signal_results.items()},
        "summary": _summary(thresholds, signal_results),
        "notes": notes,
    }
    return Calibration(
        context.trigger.name,
        context.trigger.hash,
        kind,
        sample,
        tuple(thresholds),
        curves,
        stability,
        drift,
        signal_results,
        prescales,
        tuple(notes),
        content,
    )


def _executors(workers: int, dask: str | None, executor: Executor | None) -> ExecutorFactory:
    if executor is not None:
        return lambda: contextlib.nullcontext(executor)
    if dask is not None:
        return lambda: dask_executor(dask, workers)
    return lambda: process_pool(workers)


def _menu_of_data(path: str, exclude: Sequence[str], notes: list[str]) -> Menu | None:
    """All decisions of the first file but the excluded ones, as unprescaled seeds; None if it has none."""
    with open_events(path) as source:
        first = next(iter(source.chunks(1)))
    names = first.menu_bits.names
    left_out = [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in exclude)]
    kept = [name for name in names if name not in left_out]
    if not kept:
        return None
    notes.append(f"menu: the {len(kept)} decisions in the data, all taken as unprescaled")
    if left_out:
        notes.append(f"not part of that menu: {', '.join(left_out)}")
    return Menu.from_names(kept, layout=first.layout.name)


def _pileup_of(
    sources: list[Source], context: Context, executors: ExecutorFactory, progress: Progress | None
) -> np.ndarray[Any, np.dtype[np.float64]]:
    tasks = [PileupTask(source, context) for source in sources]
    run_tasks(tasks, executors, what="pile-up", progress=progress)
    sums = ExactSums(MAX_PILEUP + 1)
    for task in tasks:
        with h5py.File(task.result, "r") as file:
            sums.merge(read_sums(file, MAX_PILEUP + 1))
    values = sums.to_float()
    if not values.any():
        raise InputError("zero bias", "weight", "0 for all events", "a sum above 0")
    return values


def _merge_scores(tasks: Sequence[ScoreTask]) -> tuple[ScoreHistogram, SeedSums]:
    menu = tasks[0].context.menu
    histogram, seeds = ScoreHistogram(has_menu=menu is not None), SeedSums(menu)
    for task in tasks:
        with h5py.File(task.result, "r") as file:
            histogram.merge(ScoreHistogram.read(file["histogram"]))
            seeds.merge(SeedSums.read(file["seeds"]))
    return histogram, seeds


def _merge_tails(tasks: Sequence[TailTask], n_thresholds: int, menu: Menu | None) -> TailSums:
    result = TailSums(n_thresholds, menu)
    for task in tasks:
        with h5py.File(task.result, "r") as file:
            result.merge(TailSums.read(file, n_thresholds, menu))
    return result


def _with_lumi_sections(
    sample: ZeroBias, thresholds: list[Threshold], tails: TailSums, kind: Kind
) -> tuple[ZeroBias, list[Threshold]]:
    """The same thresholds with the errors that the scatter between lumi sections shows."""
    larger: dict[int, float] = {}
    for i, item in enumerate(thresholds):
        blocks = tails.groups["lumi"].table("lumi", i).effective_counts()
        if blocks is not None:
            larger[item.threshold] = blocks.total / sample.effective_counts_at(item.threshold, kind).total

    def counts_at(which: Kind, threshold: int) -> Counts | None:
        if which != kind or not larger:
            return None
        # Between thresholds the sections are taken to matter as much as at the nearest one.
        factor = larger[min(larger, key=lambda known: abs(known - threshold))]
        return Counts(*(factor * count for count in sample.effective_counts_at(threshold, which)))

    better = ZeroBias(sample.histogram, sample.base, interval=sample.interval, block_counts_at=counts_at)
    updated = [
        item
        if item.extrapolation is not None
        else replace(
            item,
            rates=better.rates_at(item.threshold),
            next_rate=None if item.next_threshold is None else better.rate_at(item.next_threshold, kind),
            interval_68=better.threshold_interval(item.threshold, item.target_hz, kind),
            interval_95=better.threshold_interval(item.threshold, item.target_hz, kind, level_95=True),
        )
        for item in thresholds
    ]
    return better, updated


def _stability(
    thresholds: Sequence[Threshold], tails: TailSums
) -> tuple[dict[str, dict[str, Stability]], dict[str, dict[str, DriftTest]]]:
    tables: dict[str, dict[str, Stability]] = {}
    tests: dict[str, dict[str, DriftTest]] = {}
    for i, item in enumerate(thresholds):
        tables[item.name] = {variable: sums.table(variable, i) for variable, sums in tails.groups.items()}
        found = {variable: drift_test(table) for variable, table in tables[item.name].items()}
        tests[item.name] = {variable: test for variable, test in found.items() if test is not None}
    return tables, tests


def _signal(
    name: str,
    paths: Sequence[str | os.PathLike[str]],
    context: Context,
    chunk_events: int,
    values: tuple[int, ...],
    thresholds: Sequence[Threshold],
    zero_bias: ZeroBias,
    executors: ExecutorFactory,
    progress: Progress | None,
) -> SignalResult:
    # A signal keeps the pile-up it was made with: only zero bias defines a rate.
    own = replace(context, factors=None)
    where = f"signal {name}"
    sources, _ = plan([os.fspath(p) for p in paths], chunk_events=chunk_events, saturation=own.saturation, where=where)
    tasks = [ScoreTask(source, own) for source in sources]
    run_tasks(tasks, executors, what=where, progress=progress)
    histogram, seeds = _merge_scores(tasks)
    signal = Signal(name, histogram)
    tail_tasks = [TailTask(task, values, "total", False, ALMOST) for task in tasks]
    run_tasks(tail_tasks, executors, what=where, progress=progress)
    tails = _merge_tails(tail_tasks, len(values), own.menu)
    at_fpr, tpr = efficiency_at_fpr(signal, zero_bias, FPR_OF_INTEREST)
    points: dict[str, Any] = {}
    for item in thresholds:
        entry: dict[str, Any] = {kind: signal.efficiency(item.threshold, kind).to_json() for kind in histogram.kinds}
        if histogram.has_menu:
            gain = signal.gain(item.threshold)
            if gain is None:
                entry["gain"] = None
            else:
                entry["gain"] = {"value": gain[0], "interval_68": [gain[1].low, _finite(gain[1].high)]}
        points[item.name] = entry
    kind = thresholds[0].kind
    curve = rate_curve(zero_bias, kind, points=80, must=values)
    content = {
        "files": _files(sources),
        "events": histogram.n_events,
        "menu_efficiency": signal.menu_efficiency if histogram.has_menu else None,
        "thresholds": points,
        "area_under_curve": area_under_curve(signal, zero_bias),
        "at_fpr": {"fpr": FPR_OF_INTEREST, "threshold": at_fpr, "tpr": tpr},
        "efficiency_curve": {
            "kind": kind,
            "rate_hz": curve.hz.tolist(),
            "thresholds_hz": {item.name: item.rate.hz for item in thresholds},
            "efficiency": {
                one: [signal.efficiency(int(t), one).value for t in curve.threshold] for one in histogram.kinds
            },
        },
        "overlap": _overlap(thresholds, tails, own.menu, signal.tails, seeds),
    }
    return SignalResult(signal, tails, content)


def _overlap(
    thresholds: Sequence[Threshold],
    tails: TailSums,
    menu: Menu | None,
    histogram_tails: Mapping[Any, Any],
    seeds: SeedSums,
) -> dict[str, Any]:
    """For each threshold and seed: P(seed | anomaly), P(anomaly | seed) and P(seed almost fired | pure anomaly)."""
    if menu is None:
        return {}
    shape = (len(thresholds), len(menu.seeds))
    both = tails.overlap.to_float().reshape(shape)
    almost = tails.almost.to_float().reshape(shape)
    of_seed = seeds.sums.to_float()
    result: dict[str, Any] = {}
    for i, item in enumerate(thresholds):
        fired = float(histogram_tails["total"].sum_w[item.threshold])
        pure = float(histogram_tails["pure"].sum_w[item.threshold])
        result[item.name] = {
            seed.name: {
                "seed_given_anomaly": _ratio(both[i, j], fired),
                "anomaly_given_seed": _ratio(both[i, j], of_seed[j]),
                "almost_given_pure": _ratio(almost[i, j], pure) if seed.all_conditions else None,
            }
            for j, seed in enumerate(menu.seeds)
        }
    return result


def _summary(thresholds: Sequence[Threshold], signals: Mapping[str, SignalResult]) -> dict[str, Any]:
    if not signals:
        return {}
    result: dict[str, Any] = {}
    for item in thresholds:
        result[item.name] = {}
        for kind in item.rates:
            values = [r.content["thresholds"][item.name][kind]["value"] for r in signals.values()]
            summary: Summary = summarise(values)
            result[item.name][kind] = dict(vars(summary))
    return result


def _menu_content(menu: Menu | None, seeds: SeedSums, sample: ZeroBias) -> dict[str, Any] | None:
    if menu is None:
        return None
    weights = seeds.sums.to_float()
    scale = sample.base.hz / sample.all_w
    return {
        "name": menu.name,
        "rate_hz": (sample.all_w - float(sample.tails["pure"].sum_w[0])) * scale,
        "seeds": [
            {
                "name": seed.name,
                "prescale": seed.prescale,
                "origin": " and ".join(sorted(seeds.origin[seed.name])),
                "rate_before_prescale_hz": float(weight) * scale,
            }
            for seed, weight in zip(menu.seeds, weights)
        ],
    }


def _stability_content(table: Stability, test: DriftTest | None) -> dict[str, Any]:
    groups = table.joined(max_groups=STABILITY_GROUPS)
    share = np.divide(groups.tail_w, groups.all_w, out=np.zeros_like(groups.tail_w), where=groups.all_w > 0)
    error = np.divide(np.sqrt(groups.tail_w2), groups.all_w, out=np.zeros_like(share), where=groups.all_w > 0)
    return {
        "groups": groups.labels(),
        "share": share.tolist(),
        "share_error": error.tolist(),
        "test": None if test is None else test.to_json(),
    }


def _files(sources: Sequence[Source]) -> list[dict[str, str]]:
    # Names without folders: the same data gives the same file wherever it lies.
    names = {source.digest: Path(source.path).name for source in sources}
    return [{"name": name, "sha256": digest} for digest, name in names.items()]


def _ratio(part: float, whole: float) -> float | None:
    return float(part) / float(whole) if whole > 0 else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
