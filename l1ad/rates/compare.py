"""Scores side by side: what each keeps of each signal at one rate, with errors that can be believed.

What to use when: `compare` for the scores of any number of contestants, triggers or plain numbers, on the same zero
bias and signals; `table` and `draw` to show the result, `Comparison.to_json` to keep it. `physics` has the single
figures of one trigger.

**Threshold.** The smallest value that at most the share rate / crossings of the zero bias reaches; for integer scores
the integer threshold of `thresholds.find_threshold`. A signal event passes if it scores above the highest value that
too much of the zero bias reaches, ties and all: the same rule for integers and floats.

**Errors.** The efficiency of a signal has two: the finite signal, and the threshold, which is read off finite weighted
zero bias. The second moves all signals of a contestant together, so that the error of a mean over signals is not the
mean error over the root of their number. Both come from one bootstrap: each of `replicas` times every event of zero
bias and of the signals gets a Poisson(1) count on top of its weight (the bootstrap of Efron, Ann. Statist. 7 (1979) 1,
for a sample whose size is itself random), and every figure of every contestant is taken again. All contestants see the
same counts, so that the error of a difference is that of the difference.

The interval of a single signal joins the spread that the threshold gives with the Clopper-Pearson interval of the
signal, in quadrature: the bootstrap alone says that an efficiency of nothing out of 2500 is known exactly.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from l1ad.errors import InputError
from l1ad.events.readers import open_events
from l1ad.events.store import Events
from l1ad.io import atomic_path, write_json, write_text
from l1ad.menu import Menu, load_menu
from l1ad.rates.calibrate import NOT_A_MENU, _menu_of_data
from l1ad.rates.exact import FloatArray, IntArray
from l1ad.rates.histogram import check_weights
from l1ad.rates.intervals import LEVEL_68, Interval, clopper_pearson, effective_counts
from l1ad.rates.physics import Summary, summarise
from l1ad.rates.rates import BaseRate

FORMAT = "l1ad-comparison"
FORMAT_VERSION = 1
#: The false-positive rate at which true-positive rates are quoted (arXiv:2108.03986).
FPR = 1e-5
#: Replicas of the bootstrap: the error of an error is 5 % then.
REPLICAS = 200
_SUMMARIES = ("mean", "median", "cvar25")


@dataclass(frozen=True, eq=False)
class Weights:
    """The weights of a sample.

    Attributes
    ----------
    weight : (N,), not negative.
    rejected : (N,) chance that the menu rejects the event, or None without a menu.
    """

    weight: FloatArray
    rejected: FloatArray | None = None

    @classmethod
    def of(cls, events: Events, menu: Menu | None = None, *, where: str = "events") -> Weights:
        """Of events, with the decisions of a menu.

        Raises
        ------
        InputError
            If there are no events, or weights are negative, not finite or all 0.
        """
        weight = np.asarray(events.weight, dtype=np.float64)
        check_weights(weight, where=where)
        if not weight.sum() > 0:
            raise InputError(where, "weight", f"0 in all {len(weight)} events", "a sum above 0")
        return cls(weight, None if menu is None else menu.evaluate(events).chance_none())

    def __len__(self) -> int:
        return len(self.weight)


@dataclass(frozen=True, eq=False)
class Contestant:
    """A score to be compared: its values on zero bias (N,) and on each signal, any kind of number."""

    name: str
    zero_bias: npt.NDArray[Any]
    signals: Mapping[str, npt.NDArray[Any]]
    about: str = ""


@dataclass(frozen=True, eq=False)
class Sample:
    """Zero bias and signals in memory, with the menu that pure efficiencies refer to, if there is one."""

    zero_bias: Events
    signals: Mapping[str, Events]
    weights: Weights
    signal_weights: Mapping[str, Weights]
    menu: Menu | None = None

    @classmethod
    def of(cls, zero_bias: Events, signals: Mapping[str, Events], menu: Menu | None = None) -> Sample:
        """Of events.

        Raises
        ------
        InputError
            As `Weights.of`.
        """
        weights = {name: Weights.of(events, menu, where=f"signal {name}") for name, events in signals.items()}
        return cls(zero_bias, signals, Weights.of(zero_bias, menu, where="zero bias"), weights, menu)

    @classmethod
    def read(cls, zero_bias: Sequence[str], signals: Mapping[str, Sequence[str]], *, menu: str | None = None) -> Sample:
        """From files of any supported format; `menu` is a name or a file, else the decisions in the zero bias serve.

        Raises
        ------
        InputError
            If a file cannot be read, or as `Weights.of`.
        """
        chosen = load_menu(menu) if menu is not None else _menu_of_data(zero_bias[0], NOT_A_MENU, [])
        return cls.of(read_events(zero_bias), {name: read_events(files) for name, files in signals.items()}, chosen)

    def contestant(self, name: str, score: Callable[[Events], npt.NDArray[Any]], *, about: str = "") -> Contestant:
        """What `score` gives on all of it."""
        signals = {signal: np.asarray(score(events)) for signal, events in self.signals.items()}
        return Contestant(name, np.asarray(score(self.zero_bias)), signals, about)


def read_events(paths: Sequence[str]) -> Events:
    """All events of some files.

    Raises
    ------
    InputError
        If there are none, or a file cannot be read.
    """
    with open_events(paths) as source:
        parts = list(source.chunks(1 << 18))
    if not any(len(part) for part in parts):
        raise InputError(", ".join(paths), "events", "none", "one at least")
    return Events.concatenate(parts)


@dataclass(frozen=True)
class Measured:
    """A figure and its standard deviation."""

    value: float
    error: float

    def to_json(self) -> list[float]:
        """Value and error."""
        return [self.value, self.error]


@dataclass(frozen=True)
class SignalFigures:
    """What a contestant keeps of one signal.

    Attributes
    ----------
    efficiency : at the rate, with the standard deviation of the bootstrap.
    interval : 68 %, of signal and threshold together.
    threshold_error : the part of the error that all signals share.
    events : events of the signal that pass.
    tpr : share of the signal at a false-positive rate of `FPR`.
    auc : chance that the signal scores higher than zero bias, ties counted half.
    pure : efficiency of what passes and the menu rejects, at a pure rate of the same size; None without a menu.
    """

    efficiency: Measured
    interval: Interval
    threshold_error: float
    events: int
    tpr: Measured
    auc: Measured
    pure: Measured | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON types."""
        result = {
            "efficiency": self.efficiency.to_json(),
            "interval_68": list(self.interval),
            "threshold_error": self.threshold_error,
            "events": self.events,
            "tpr": self.tpr.to_json(),
            "auc": self.auc.to_json(),
        }
        return result if self.pure is None else {**result, "pure": self.pure.to_json()}


@dataclass(frozen=True, eq=False)
class Row:
    """One contestant.

    Attributes
    ----------
    threshold : the largest value of zero bias that does not pass: what scores above it does. None if all of it passes.
    rate_hz : what passes, by weight.
    events : events of zero bias that pass; few make a rough threshold.
    signals : by name.
    summary : mean, median and CVaR25 over the signals of ``efficiency``, ``tpr`` and, with a menu, ``pure``; of ``auc``
        the mean alone.
    against : difference of mean and median to the reference, or None for the reference itself.
    """

    name: str
    about: str
    threshold: float | None
    rate_hz: float
    events: int
    signals: Mapping[str, SignalFigures]
    summary: Mapping[str, Mapping[str, Measured]]
    against: Mapping[str, Measured] | None

    def to_json(self) -> dict[str, Any]:
        """JSON types."""

        def plain(figures: Mapping[str, Measured]) -> dict[str, list[float]]:
            return {name: figure.to_json() for name, figure in figures.items()}

        return {
            "name": self.name,
            "about": self.about,
            "threshold": self.threshold,
            "rate_hz": self.rate_hz,
            "events": self.events,
            "signals": {name: figures.to_json() for name, figures in self.signals.items()},
            "summary": {what: plain(figures) for what, figures in self.summary.items()},
            "against": None if self.against is None else plain(self.against),
        }


@dataclass(frozen=True, eq=False)
class Comparison:
    """All rows, at one rate.

    Attributes
    ----------
    rate_hz : total rate, and pure rate for the pure efficiencies, Hz.
    base : crossings a second.
    reference : name of the row that the differences are taken to, or None.
    replicas : of the bootstrap.
    events : events of zero bias, and of each signal.
    effective_events : of the zero bias (Kish), weights considered.
    """

    rate_hz: float
    base: BaseRate
    reference: str | None
    replicas: int
    events: Mapping[str, int]
    effective_events: float
    rows: tuple[Row, ...]

    @property
    def signal_names(self) -> tuple[str, ...]:
        """In order."""
        return tuple(self.rows[0].signals)

    def to_json(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "rate_hz": self.rate_hz,
            "crossing_hz": self.base.hz,
            "fpr": FPR,
            "reference": self.reference,
            "replicas": self.replicas,
            "events": dict(self.events),
            "effective_zero_bias": self.effective_events,
            "rows": [row.to_json() for row in self.rows],
        }


# --------------------------------------------------------------------------------------------------------- the figures


@dataclass(frozen=True, eq=False)
class _Ranks:
    """Zero bias from the highest score to the lowest, in groups of equal scores, and where signals fall in between.

    Attributes
    ----------
    order : (N,) positions of the zero bias, highest score first.
    start, stop : (G,) first event of each group, and the first behind it.
    value : (G,) score of each group.
    above, reaching : by signal (n,): how many of zero bias score higher, and at least as high.
    """

    order: IntArray
    start: IntArray
    stop: IntArray
    value: npt.NDArray[Any]
    above: tuple[IntArray, ...]
    reaching: tuple[IntArray, ...]

    @classmethod
    def of(cls, contestant: Contestant) -> _Ranks:
        scores = np.asarray(contestant.zero_bias)
        order = np.argsort(-scores.astype(np.float64), kind="stable")
        falling = -scores[order].astype(np.float64)
        start = np.flatnonzero(np.r_[True, falling[1:] != falling[:-1]])
        signals = [-np.asarray(values).astype(np.float64) for values in contestant.signals.values()]
        return cls(
            order,
            start,
            np.r_[start[1:], len(order)],
            scores[order][start],
            tuple(np.searchsorted(falling, s, side="left") for s in signals),
            tuple(np.searchsorted(falling, s, side="right") for s in signals),
        )

    def passing(self, cumulative: FloatArray, share: float) -> int:
        """How many of the zero bias lie above the first group with which more than `share` of it would pass."""
        too_many = cumulative[self.stop] > share * (1.0 + 1e-12)
        if not too_many.any():
            return len(self.order)
        return int(self.start[int(np.argmax(too_many))])

    def efficiencies(self, n_passing: int, weights: Sequence[FloatArray], totals: FloatArray) -> FloatArray:
        """Share of each signal above the first `n_passing` ... events of zero bias, (signals,)."""
        kept = [w[r <= n_passing].sum() for r, w in zip(self.reaching, weights, strict=True)]
        return np.asarray(kept / totals)

    def areas(self, cumulative: FloatArray, weights: Sequence[FloatArray], totals: FloatArray) -> FloatArray:
        """Area under the ROC curve of each signal, (signals,)."""
        beaten = [
            (w * (1.0 - 0.5 * (cumulative[a] + cumulative[r]))).sum()
            for a, r, w in zip(self.above, self.reaching, weights, strict=True)
        ]
        return np.asarray(beaten / totals)


@dataclass(frozen=True, eq=False)
class _Take:
    """Every figure of one contestant for one set of counts: (signals,) each; `held` with the signals as they are."""

    efficiency: FloatArray
    held: FloatArray
    tpr: FloatArray
    auc: FloatArray
    pure: FloatArray | None


@dataclass(frozen=True, eq=False)
class _Samples:
    """Weights of zero bias and signals."""

    zero_bias: Weights
    signals: tuple[Weights, ...]
    pure: bool

    def take(
        self, ranks: _Ranks, share: float, zero: FloatArray, signals: Sequence[FloatArray]
    ) -> tuple[_Take, int, FloatArray]:
        """The figures for weights `zero` (N,) and `signals`, what passes, and the cumulative share of zero bias."""
        sorted_weight = zero[ranks.order]
        cumulative = np.concatenate([[0.0], np.cumsum(sorted_weight)])
        total = cumulative[-1]
        cumulative /= total
        sums = np.array([w.sum() for w in signals])
        passing = ranks.passing(cumulative, share)
        held = [w.weight for w in self.signals]
        pure = None
        if self.pure:
            assert self.zero_bias.rejected is not None
            rejected = np.concatenate([[0.0], np.cumsum(sorted_weight * self.zero_bias.rejected[ranks.order])]) / total
            chances = [s.rejected for s in self.signals]
            weights = [w * c for w, c in zip(signals, chances, strict=True) if c is not None]
            pure = ranks.efficiencies(ranks.passing(rejected, share), weights, sums)
        result = _Take(
            ranks.efficiencies(passing, signals, sums),
            ranks.efficiencies(passing, held, np.array([w.sum() for w in held])),
            ranks.efficiencies(ranks.passing(cumulative, FPR), signals, sums),
            ranks.areas(cumulative, signals, sums),
            pure,
        )
        return result, passing, cumulative


def compare(
    zero_bias: Weights,
    signals: Mapping[str, Weights],
    contestants: Sequence[Contestant],
    rate_hz: float,
    *,
    base: BaseRate,
    reference: str | None = None,
    replicas: int = REPLICAS,
    seed: int = 1,
    progress: Callable[[str, int, int], None] | None = None,
) -> Comparison:
    """Efficiencies of all contestants at one rate.

    Parameters
    ----------
    zero_bias, signals : weights of the samples that the scores belong to; pure efficiencies are given if all of them
        know what the menu rejects.
    rate_hz : total rate of each contestant; for the pure efficiencies the pure rate.
    reference : a contestant that all others are held against; none to leave the differences out.
    replicas, seed : of the bootstrap.
    progress : called with a word, replicas done, and all of them.

    Raises
    ------
    InputError
        If there is nothing to compare, a name occurs twice, a contestant has not one finite score an event, or the rate
        cannot be reached.
    """
    base.check_target(rate_hz)
    names = [contestant.name for contestant in contestants]
    if not contestants or not signals:
        raise InputError("compare", "signals" if contestants else "contestants", "none", "one at least")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError("compare", "name", f"{twice[0]} twice", "different names")
    if reference is not None and reference not in names:
        raise InputError("compare", "reference", reference, f"one of {', '.join(names)}")
    if replicas < 2:
        raise InputError("compare", "replicas", replicas, "2 at least")
    for contestant in contestants:
        _check(contestant, zero_bias, signals)
    pure = zero_bias.rejected is not None and all(w.rejected is not None for w in signals.values())
    samples = _Samples(zero_bias, tuple(signals.values()), pure)
    share = rate_hz / base.hz
    ranks = [_Ranks.of(contestant) for contestant in contestants]
    held = [w.weight for w in samples.signals]
    first = [samples.take(r, share, zero_bias.weight, held) for r in ranks]
    takes: list[list[_Take]] = [[] for _ in contestants]
    for replica in range(replicas):
        rng = np.random.default_rng([seed, replica])
        zero = zero_bias.weight * rng.poisson(1.0, len(zero_bias))
        drawn = [w * rng.poisson(1.0, len(w)) for w in held]
        if not zero.any() or not all(w.any() for w in drawn):
            raise InputError("compare", "events", "so few that a replica has none", "more events")
        for r, collected in zip(ranks, takes, strict=True):
            collected.append(samples.take(r, share, zero, drawn)[0])
        if progress is not None:
            progress("bootstrap", replica + 1, replicas)
    at = names.index(reference) if reference is not None else None
    rows = []
    for i, contestant in enumerate(contestants):
        nominal, passing, cumulative = first[i]
        against = None if at is None or at == i else _difference(nominal, takes[i], first[at][0], takes[at])
        group = int(np.searchsorted(ranks[i].start, passing))
        rows.append(
            Row(
                contestant.name,
                contestant.about,
                float(ranks[i].value[group]) if group < len(ranks[i].value) else None,
                float(cumulative[passing] * base.hz),
                passing,
                _signal_figures(signals, ranks[i], nominal, takes[i], passing),
                _summaries(nominal, takes[i]),
                against,
            )
        )
    weight = zero_bias.weight
    events = {"zero_bias": len(zero_bias), **{name: len(w) for name, w in signals.items()}}
    effective = float(weight.sum() ** 2 / (weight**2).sum())
    return Comparison(rate_hz, base, reference, replicas, events, effective, tuple(rows))


def _check(contestant: Contestant, zero_bias: Weights, signals: Mapping[str, Weights]) -> None:
    if list(contestant.signals) != list(signals):
        found = ", ".join(contestant.signals)
        raise InputError(f"contestant {contestant.name}", "signals", found, ", ".join(signals))
    samples = [("zero bias", contestant.zero_bias, len(zero_bias))]
    samples += [(name, contestant.signals[name], len(w)) for name, w in signals.items()]
    for name, scores, n in samples:
        if scores.shape != (n,):
            raise InputError(f"contestant {contestant.name}", f"scores of {name}", scores.shape, f"({n},)")
        if not np.isfinite(scores).all():
            bad = int((~np.isfinite(scores)).sum())
            raise InputError(f"contestant {contestant.name}", f"scores of {name}", f"{bad} not finite", "numbers")


def _spread(values: Sequence[float] | FloatArray) -> float:
    return float(np.std(np.asarray(values), ddof=1))


def _signal_figures(
    signals: Mapping[str, Weights], ranks: _Ranks, nominal: _Take, takes: Sequence[_Take], passing: int
) -> dict[str, SignalFigures]:
    """Of each signal by name."""
    result = {}
    for j, (name, w) in enumerate(signals.items()):
        passes = ranks.reaching[j] <= passing
        counts = effective_counts(
            float(w.weight[passes].sum()),
            float((w.weight[passes] ** 2).sum()),
            float(w.weight.sum()),
            float((w.weight**2).sum()),
        )
        low, high = clopper_pearson(*counts, LEVEL_68)
        value = float(nominal.efficiency[j])
        threshold = _spread([take.held[j] for take in takes])
        interval = Interval(
            max(value - math.hypot(value - low, threshold), 0.0), min(value + math.hypot(high - value, threshold), 1.0)
        )
        pure = None
        if nominal.pure is not None:
            pure = Measured(float(nominal.pure[j]), _spread([take.pure[j] for take in takes if take.pure is not None]))
        result[name] = SignalFigures(
            Measured(value, _spread([take.efficiency[j] for take in takes])),
            interval,
            threshold,
            int(passes.sum()),
            Measured(float(nominal.tpr[j]), _spread([take.tpr[j] for take in takes])),
            Measured(float(nominal.auc[j]), _spread([take.auc[j] for take in takes])),
            pure,
        )
    return result


def _summaries(nominal: _Take, takes: Sequence[_Take]) -> dict[str, dict[str, Measured]]:
    def over(values: FloatArray, replicas: Sequence[FloatArray], which: Sequence[str]) -> dict[str, Measured]:
        value: Summary = summarise(values.tolist())
        others = [summarise(replica.tolist()) for replica in replicas]
        return {name: Measured(getattr(value, name), _spread([getattr(s, name) for s in others])) for name in which}

    result = {
        "efficiency": over(nominal.efficiency, [take.efficiency for take in takes], _SUMMARIES),
        "tpr": over(nominal.tpr, [take.tpr for take in takes], _SUMMARIES),
        "auc": over(nominal.auc, [take.auc for take in takes], ("mean",)),
    }
    if nominal.pure is not None:
        result["pure"] = over(nominal.pure, [t.pure for t in takes if t.pure is not None], _SUMMARIES)
    return result


def _difference(
    nominal: _Take, takes: Sequence[_Take], reference: _Take, others: Sequence[_Take]
) -> dict[str, Measured]:
    """Mean and median of the efficiency minus those of the reference, replica by replica."""

    def of(a: _Take, b: _Take) -> tuple[float, float]:
        mine, theirs = summarise(a.efficiency.tolist()), summarise(b.efficiency.tolist())
        return mine.mean - theirs.mean, mine.median - theirs.median

    value = of(nominal, reference)
    spread = [of(a, b) for a, b in zip(takes, others, strict=True)]
    return {name: Measured(value[k], _spread([s[k] for s in spread])) for k, name in enumerate(("mean", "median"))}


# --------------------------------------------------------------------------------------------------------- how it shows


def table(comparison: Comparison, *, pure: bool = False) -> str:
    """A Markdown table: one row a contestant; efficiencies in percent, errors behind them.

    With `pure` the efficiencies of the summary and of each signal are the pure ones.

    Raises
    ------
    InputError
        If `pure` is asked for without a menu.
    """
    what = "pure" if pure else "efficiency"
    if pure and "pure" not in comparison.rows[0].summary:
        raise InputError("comparison", "pure efficiencies", "no menu decisions", "events with menu bits, or a menu")
    head = ["score", "mean", "median", "CVaR25", "AUC", f"TPR at FPR {FPR:.0e}".replace("e-0", "e-")]
    if comparison.reference is not None and not pure:
        head.append(f"mean minus {comparison.reference}")
    lines = [
        _line([*head, *comparison.signal_names]),
        _line(["---", *["---:"] * (len(head) - 1 + len(comparison.signal_names))]),
    ]
    for row in comparison.rows:
        summary = row.summary[what]
        cells = [row.name, *(percent(summary[name]) for name in _SUMMARIES)]
        auc = row.summary["auc"]["mean"]
        cells += [f"{auc.value:.3f} ± {auc.error:.3f}", percent(row.summary["tpr"]["mean"])]
        if comparison.reference is not None and not pure:
            cells.append("" if row.against is None else percent(row.against["mean"], sign="+"))
        for figures in row.signals.values():
            cells.append(percent(figures.pure) if pure and figures.pure else _signal_cell(figures))
        lines.append(_line(cells))
    return "\n".join(lines)


def percent(figure: Measured, *, sign: str = "") -> str:
    """``12.3 ± 0.8``, in percent."""
    return f"{100 * figure.value:{sign}.1f} ± {100 * figure.error:.1f}"


def _signal_cell(figures: SignalFigures) -> str:
    low, high = figures.interval
    return percent(Measured(figures.efficiency.value, 0.5 * (high - low)))


def page(comparison: Comparison, *, menu: str | None = None) -> str:
    """The table, and with the name of a menu the one of pure efficiencies too."""
    text = table(comparison)
    if menu is None:
        return text
    return f"{text}\n\nEfficiencies of pure events at that pure rate, menu {menu}:\n\n{table(comparison, pure=True)}"


#: What can be written, by suffix.
SUFFIXES = (".json", ".md", ".png")


def write(comparison: Comparison, path: str | os.PathLike[str], *, menu: str | None = None) -> None:
    """Write a comparison as its suffix says: JSON, Markdown or a picture.

    Raises
    ------
    InputError
        If the suffix is another.
    """
    check_suffix(path)
    suffix = Path(path).suffix
    if suffix == ".json":
        write_json(path, {**comparison.to_json(), "menu": menu})
    elif suffix == ".md":
        write_text(path, f"{page(comparison, menu=menu)}\n")
    else:
        draw(comparison, path)


def check_suffix(path: str | os.PathLike[str]) -> None:
    """See that `write` knows what to write.

    Raises
    ------
    InputError
        If it does not.
    """
    if Path(path).suffix not in SUFFIXES:
        raise InputError(os.fspath(path), "suffix", Path(path).suffix or "none", ", ".join(SUFFIXES))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def draw(comparison: Comparison, path: str | os.PathLike[str]) -> None:
    """Mean and median of each contestant with errors, and beside them its efficiency for each signal."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    rows, names = comparison.rows, comparison.signal_names
    height = 1.9 + 0.34 * len(rows)
    figure = Figure(figsize=(5.2 + 0.95 * len(names), height), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3.2, 0.95 * len(names)))
    y = np.arange(len(rows))
    for name, colour, marker, offset in (("mean", "#3f90da", "o", -0.12), ("median", "#bd1f01", "D", 0.12)):
        figures = [row.summary["efficiency"][name] for row in rows]
        x, error = [100 * f.value for f in figures], [100 * f.error for f in figures]
        left.errorbar(x, y + offset, xerr=error, fmt=marker, ms=4, lw=1.2, color=colour, label=name)
    left.set_yticks(y, [row.name for row in rows], fontsize=9)
    left.set_ylim(len(rows) - 0.5, -0.5)
    left.set_xlim(left=0)
    left.grid(axis="x", color="0.9")
    left.set_axisbelow(True)
    left.set_xlabel("over the signals [%]")
    left.legend(fontsize=8, loc="lower right")
    values = np.array([[100 * row.signals[name].efficiency.value for name in names] for row in rows])
    # A root spreads the colours over efficiencies from parts of a percent to all of a signal.
    right.imshow(values, aspect="auto", cmap="Blues", norm=PowerNorm(0.5, 0.0, max(100.0, values.max())))
    for i, row in enumerate(rows):
        for j, name in enumerate(names):
            colour = "white" if values[i, j] > 40 else "black"
            right.text(j, i, _signal_cell(row.signals[name]), ha="center", va="center", fontsize=7, color=colour)
    right.set_xticks(range(len(names)), names, rotation=35, ha="right", fontsize=8)
    right.tick_params(left=False)
    figure.suptitle(f"Signal efficiency at {comparison.rate_hz / 1e3:g} kHz total rate [%]", fontsize=11)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
