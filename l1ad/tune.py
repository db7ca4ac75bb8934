"""Searching configurations: what a trigger finds against what it costs.

`tune` lets Optuna search sizes, bit widths, sparsity and training of a configuration for a high efficiency at a fixed
rate and few LUTs, and draws the Pareto front; `scan_bits` trains in words of 2 to 16 bits (QAT) and quantises one float
training to the same words (PTQ), as arXiv:2108.03986 does in its section 4, in one plot.

Every trial is a run folder of its own with a frozen trigger, so that the one that is chosen is ready to use.
"""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from l1ad.config import FreezeConfig, RunConfig
from l1ad.errors import ConfigError, InputError, L1adError, require
from l1ad.events import Events
from l1ad.io import atomic_path, write_json
from l1ad.rates.histogram import ScoreHistogram
from l1ad.rates.physics import Signal, area_under_curve, efficiency_at_fpr
from l1ad.rates.rates import BaseRate
from l1ad.rates.thresholds import ZeroBias
from l1ad.trigger.program import Trigger

#: Colliding bunches of the LHC in 2024: what a rate in kHz means for the fraction of zero bias.
BUNCHES = 2544
Report = Callable[[str], None]


@dataclass(frozen=True)
class Figures:
    """What a trigger is judged by; efficiencies are means over the signals.

    Attributes
    ----------
    efficiency, median : mean and median efficiency at the target rate.
    tpr_1e5 : mean true-positive rate at a false-positive rate of 1e-5.
    auc : mean area under the ROC curve.
    luts : alkaid's estimate for the whole program, from words to score.
    """

    efficiency: float
    median: float
    tpr_1e5: float
    auc: float
    luts: float


def figures(trigger: Trigger, zero_bias: Events, signals: Mapping[str, Events], *, rate_khz: float = 1.0) -> Figures:
    """Judge a trigger on weighted zero bias and signals.

    Raises
    ------
    InputError
        If there are no signals.
    MissingToolError
        If alkaid, which estimates the LUTs, is not installed.
    """
    if not signals:
        raise InputError("tune", "signals", "none", "one at least")
    base = BaseRate.from_bunches(BUNCHES)
    background = ZeroBias(_histogram(trigger, zero_bias), base)
    found = [Signal(name, _histogram(trigger, events)) for name, events in signals.items()]
    at_rate = [efficiency_at_fpr(signal, background, rate_khz * 1e3 / base.hz)[1] for signal in found]
    at_fpr = [efficiency_at_fpr(signal, background, 1e-5)[1] for signal in found]
    auc = [area_under_curve(signal, background) for signal in found]
    return Figures(
        float(np.mean(at_rate)),
        float(np.median(at_rate)),
        float(np.mean(at_fpr)),
        float(np.mean(auc)),
        estimate_luts(trigger),
    )


def _histogram(trigger: Trigger, events: Events) -> ScoreHistogram:
    histogram = ScoreHistogram()
    histogram.fill(trigger.score(events), np.asarray(events.weight, dtype=np.float64))
    return histogram


def estimate_luts(trigger: Trigger) -> float:
    """alkaid's estimate of the LUTs of a program, without pipelining; for comparison only, never a placed figure.

    Raises
    ------
    MissingToolError
        If alkaid is not installed.
    """
    from l1ad.backends.rtl import trace_program

    return float(trace_program(trigger.program).cost)


# ---------------------------------------------------------------------------------------------------------- the search


def suggest(trial: Any, value: dict[str, Any]) -> dict[str, Any]:
    """A configuration (JSON types) with what a trial suggests in place of its sizes, words, sparsity and rate."""
    value = copy.deepcopy(value)
    model = value["model"]
    if model["family"] in ("vae", "contrast", "autoencoder"):
        scale = [trial.suggest_categorical(f"hidden_{i + 1}", _around(n)) for i, n in enumerate(model["hidden"])]
        model["hidden"] = scale
        model["latent"] = trial.suggest_int("latent", 2, max(2 * model["latent"], 4))
    bits = trial.suggest_int("kernel_bits", 3, 8)
    model["kernel"] = f"quantized_bits({bits},{min(2, bits - 1)})"
    hidden = trial.suggest_int("activation_bits", 5, 12)
    model["activation"] = f"quantized_relu({hidden},{min(6, hidden)})"
    sparsity = trial.suggest_float("sparsity", 0.0, 0.8)
    epochs = value["training"]["epochs"]
    value["pruning"] = {
        "schedule": "polynomial",
        "sparsity": sparsity,
        "begin_epoch": 0,
        "end_epoch": max(epochs / 2, 1),
    }
    value["training"]["rate"]["value"] = trial.suggest_float("rate", 3e-4, 1e-2, log=True)
    if model["family"] in ("vae", "cnn_vae"):
        value["loss"]["beta"]["value"] = trial.suggest_float("beta", 1e-3, 0.8, log=True)
    return value


def _around(n: int) -> list[int]:
    return sorted({max(round(n * factor), 2) for factor in (0.5, 0.75, 1.0, 1.25, 1.5)})


@dataclass(frozen=True)
class Trial:
    """One trial: its run folder, what was suggested and what came of it."""

    number: int
    folder: str
    parameters: Mapping[str, Any]
    figures: Figures

    def to_json(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "number": self.number,
            "folder": self.folder,
            "parameters": dict(self.parameters),
            "figures": asdict(self.figures),
        }


def tune(
    config: RunConfig | Mapping[str, Any],
    folder: str | os.PathLike[str],
    zero_bias: Events,
    signals: Mapping[str, Events],
    *,
    trials: int = 20,
    rate_khz: float = 1.0,
    report: Report | None = None,
) -> tuple[Trial, ...]:
    """Search; writes ``trials.json``, ``pareto.png`` and a run folder for each trial. Returns all trials in order.

    The sampler's seed is that of the configuration: the same search twice suggests the same trials. A trial that cannot
    be trained or frozen is told to the sampler and reported, and the search goes on.

    Raises
    ------
    MissingToolError
        If Optuna or alkaid is not installed.
    InputError
        If no trial could be trained.
    """
    optuna: Any = require("optuna", "tune")
    require("alkaid", "rtl")
    from l1ad.train import train
    from l1ad.trigger.freeze import freeze

    config = RunConfig.of(config)
    place = Path(folder)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=config.seed)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    done: list[Trial] = []
    start = config.model_dump(mode="json")
    last_error: L1adError | None = None
    for number in range(trials):
        asked = study.ask()
        name = f"trial_{number:03d}"
        try:
            value = {**suggest(asked, start), "name": name}
            train(value, place / name, overwrite=True)
            result = figures(freeze(place / name), zero_bias, signals, rate_khz=rate_khz)
        except L1adError as error:
            last_error = error
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
            if report is not None:
                report(f"{name}: {error}")
            continue
        study.tell(asked, [result.efficiency, result.luts])
        done.append(Trial(number, name, dict(asked.params), result))
        write_json(place / "trials.json", {"format": "l1ad-trials", "trials": [trial.to_json() for trial in done]})
        if report is not None:
            report(f"{name}: efficiency {100 * result.efficiency:.1f} % at {rate_khz:g} kHz, {result.luts:,.0f} LUTs")
    if not done:
        raise InputError(str(place), "trials", "none that could be trained", "one at least") from last_error
    draw_pareto(place / "pareto.png", done, rate_khz=rate_khz)
    return tuple(done)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points (gain, cost) that no other beats in both, by rising cost.

    >>> pareto_front([(1.0, 5.0), (3.0, 7.0), (2.0, 9.0), (1.0, 4.0)])
    [3, 1]
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][1], -points[i][0]))
    front: list[int] = []
    best = -np.inf
    for i in order:
        if points[i][0] > best:
            front.append(i)
            best = points[i][0]
    return front


def draw_pareto(path: Path, trials: Sequence[Trial], *, rate_khz: float) -> None:
    """Draw efficiency against LUTs of all trials and their Pareto front; each point bears the number of its trial."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import StrMethodFormatter

    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    points = [(trial.figures.efficiency, trial.figures.luts) for trial in trials]
    front = pareto_front(points)
    best = 100 * max(point[0] for point in points)
    x, y = [points[i][1] for i in front], [100 * points[i][0] for i in front]
    # Beyond the dearest point of the front nothing is gained.
    axes.step([*x, max(point[1] for point in points)], [*y, best], where="post", color="C0", zorder=1)
    axes.scatter([p[1] for p in points], [100 * p[0] for p in points], color="0.6", label="trial", zorder=2)
    axes.scatter(x, y, color="C0", label="on the Pareto front: none is both better and smaller", zorder=3)
    for trial, (gain, cost) in zip(trials, points):
        axes.annotate(str(trial.number), (cost, 100 * gain), (4, 4), textcoords="offset points", fontsize="x-small")
    axes.set_xlabel("Look-up tables (estimate of alkaid)")
    axes.set_ylabel(f"Mean signal efficiency at {rate_khz:g} kHz total rate [%]")
    axes.set_title(f"{len(trials)} trials by number: run folders trial_NNN", fontsize="medium")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_ylim(0.0, 1.12 * best if best else 1.0)
    axes.set_xlim(left=0.0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="lower right")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


# ------------------------------------------------------------------------------------------------------- scan of widths


@dataclass(frozen=True)
class ScanPoint:
    """One width: ``qat`` or ``ptq``, bits, and what came of it.

    `loss` is that of the training, on its validation events; None if it has none.
    """

    method: str
    bits: int
    figures: Figures
    loss: float | None = None


def parse_range(text: str) -> tuple[int, ...]:
    """``2:16`` (both ends) or ``2:16:2`` to a tuple.

    Raises
    ------
    ConfigError
        If it is no rising range from 2 to 24.

    >>> parse_range("2:8:2")
    (2, 4, 6, 8)
    """
    try:
        parts = [int(part) for part in text.split(":")]
    except ValueError:
        parts = []
    if len(parts) not in (2, 3) or not 2 <= parts[0] <= parts[1] <= 24 or min(parts) < 1:
        raise ConfigError("--scan-bits", "range", repr(text), "first:last or first:last:step, from 2 to 24")
    return tuple(range(parts[0], parts[1] + 1, parts[2] if len(parts) == 3 else 1))


def scan_bits(
    config: RunConfig | Mapping[str, Any],
    folder: str | os.PathLike[str],
    zero_bias: Events,
    signals: Mapping[str, Events],
    bits: Sequence[int],
    *,
    rate_khz: float = 1.0,
    report: Report | None = None,
) -> tuple[ScanPoint, ...]:
    """PTQ and QAT at each width; writes ``scan_bits.json`` and ``scan_bits.png``.

    A training with words wide enough to be float is gone on with twice, each time for as many epochs again: in float,
    which gives the weights for all PTQ points and the words of each width, and in those words, which is QAT
    (arXiv:1806.08342, section 3.2), so that only the words of the second half differ. From random weights a training in
    few bits ends far from where it could (at 4 bits the loss of the quickstart was 0.46 that way, 0.41 from the float
    weights). The loss is what QAT makes small; what is kept of a signal at 1 kHz is not in it and need not follow.

    Raises
    ------
    ConfigError
        If the family is not ``vae`` or ``contrast``, whose layers are one chain.
    """
    from l1ad.model import build_network, select_outputs
    from l1ad.model.dataset import read_training_data
    from l1ad.model.network import Network
    from l1ad.model.ptq import FLOAT_BITS, FLOAT_RELU, quantise
    from l1ad.model.stage import Geometry
    from l1ad.scores import SCORES
    from l1ad.train import copy_weights, train, validation_loss
    from l1ad.trigger.freeze import freeze, freeze_model, shift_for
    from l1ad.trigger.quantizer import Quantizer
    from l1ad.trigger.scaling import scale_node

    require("alkaid", "rtl")
    config = RunConfig.of(config)
    if config.model.family not in ("vae", "contrast"):
        raise ConfigError("scan of bits", "family", config.model.family, "vae or contrast")
    place = Path(folder)
    start = config.model_dump(mode="json")
    wide = copy.deepcopy(start)
    wide["name"] = "float"
    wide["model"].update(kernel=FLOAT_BITS, bias=FLOAT_BITS, activation=FLOAT_RELU)
    begun = train({**wide, "name": "start"}, place / "start", overwrite=True)
    trained = train(wide, place / "float", overwrite=True, start=begun.network)
    needs = tuple(need for need in SCORES[config.score].needs if need != "target")
    encoder = select_outputs(trained.network.encoder, needs)
    input_type = Quantizer.parse(config.model.input)
    node = scale_node(trained.scaling, zero_bias.layout, input_type.type)
    shown = zero_bias.inputs[:20000].astype(np.int64)
    x = input_type.type.to_float(node.evaluate(shown, fractions=(0,)))
    data = read_training_data(config.data, seed=config.seed, cache=place / "cache")
    geometry = Geometry.of(data.layout, trained.scaling, input_type)
    points: list[ScanPoint] = []

    def frozen(words: RunConfig, network: Network) -> Trigger:
        def make(options: FreezeConfig) -> Trigger:
            part = select_outputs(network.encoder, needs)
            return freeze_model(part, trained.scaling, data.layout, words.score, name=words.name, options=options)

        trigger = make(words.freeze)
        if words.score != "rz" or words.freeze.shift is not None:
            return trigger
        return make(words.freeze.model_copy(update={"shift": shift_for(trigger, data.train[0][:100_000])}))

    def add(method: str, width: int, words: RunConfig, network: Network, trigger: Trigger) -> None:
        result = figures(trigger, zero_bias, signals, rate_khz=rate_khz)
        point = ScanPoint(method, width, result, validation_loss(words, network, data, geometry))
        points.append(point)
        write_json(
            place / "scan_bits.json",
            {"format": "l1ad-scan", "points": [{**asdict(p), "figures": asdict(p.figures)} for p in points]},
        )
        if report is not None:
            f = point.figures
            loss = "" if point.loss is None else f"loss {point.loss:.4g}, "
            figure = f"efficiency {100 * f.efficiency:.1f} %, AUC {f.auc:.3f}, {f.luts:,.0f} LUTs"
            report(f"{method} {width} bits: {loss}{figure}")

    for width in bits:
        small = quantise(encoder, width, x)
        value = _in_words(start, small, needs[0])
        rounded = RunConfig.of({**value, "name": f"ptq_{width}"})
        network = build_network(rounded, data.layout)
        copy_weights(trained.network, network)
        add("ptq", width, rounded, network, frozen(rounded, network))
        words = RunConfig.of({**value, "name": f"qat_{width}"})
        result = train(words, place / words.name, overwrite=True, start=begun.network)
        add("qat", width, words, result.network, freeze(place / words.name))
    shutil.rmtree(place / "cache", ignore_errors=True)
    draw_scan(place / "scan_bits.png", points, rate_khz=rate_khz)
    return tuple(points)


def _in_words(value: Mapping[str, Any], encoder: Any, head: str) -> dict[str, Any]:
    """A configuration (JSON types) with the words of a quantised encoder, whose first output is `head`."""
    from l1ad.model.quantizers import from_qkeras

    result = copy.deepcopy(dict(value))
    model = result["model"]

    def text(layer: str, attribute: str) -> str:
        return str(from_qkeras(getattr(encoder.get_layer(layer), attribute), where=layer))

    hidden = range(1, len(model["hidden"]) + 1)
    for what in ("kernel", "bias"):
        layers = [*(f"dense_{i}" for i in hidden), f"{head}_dense"]
        model[what] = [text(layer, f"{what}_quantizer_internal") for layer in layers]
    model["activation"] = [text(f"relu_{i}", "quantizer") for i in hidden]
    model["head"] = text(head, "quantizer")
    return result


def draw_scan(path: Path, points: Sequence[ScanPoint], *, rate_khz: float) -> None:
    """Draw every figure against the width, PTQ and QAT."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels = [
        ("loss", "Loss of the training\n(validation events)", 1.0),
        ("auc", "Area under the ROC curve", 1.0),
        ("tpr_1e5", "True-positive rate at a\nfalse-positive rate of 1e-5 [%]", 100.0),
        ("efficiency", f"Signal efficiency at\n{rate_khz:g} kHz total rate [%]", 100.0),
        ("luts", "Look-up tables, thousands\n(estimate of alkaid)", 1e-3),
    ]
    if any(point.loss is None for point in points):
        del panels[0]
    methods = {"ptq": ("s", "trained in float, then quantised (PTQ)"), "qat": ("o", "trained on in these words (QAT)")}
    figure = Figure(figsize=(12.0, 6.5), layout="constrained")
    for number, (name, label, unit) in enumerate(panels, start=1):
        axes = figure.add_subplot(2, 3, number)
        for method, (marker, text) in methods.items():
            chosen = [point for point in points if point.method == method]
            values = [unit * {**asdict(point.figures), "loss": point.loss}[name] for point in chosen]
            axes.plot([point.bits for point in chosen], values, marker=marker, label=text)
        axes.set_xlabel("Bits of weights, biases and hidden activations")
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if name not in ("auc", "loss"):
            axes.set_ylim(bottom=0.0)
        axes.grid(alpha=0.3)
    figure.suptitle("Words of fewer bits: means over the signals, and what the trigger costs")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
