"""CICADA: what the small quantised student keeps of its float teacher, on calorimeter regions.

Takes run folders of the family ``cicada`` (or trains both configurations on the bundled regions, half an hour of one
core), weighted zero bias and signals in the layout ``cms_calo_regions``. It says for each student how its integer score
goes with the error of its own teacher (rank correlation over weighted zero bias and over the signals together), and for
student, teacher and the plain sum of all regions what they keep of each signal. The bundled sample has no signals in
this layout: they are made with ``l1ad data simulate --layout cms_calo_regions``.

    python bench/cicada.py [--run runs/cicada_v1 ...] [--zero-bias FILE] [--signals NAME=FILE ...] [--quick]

``--quick`` trains small teachers and students for one epoch: it shows that the script runs.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from common import arguments, report

from l1ad.config import RunConfig
from l1ad.events.bundled import bundled
from l1ad.events.store import Events
from l1ad.rates import BaseRate
from l1ad.rates.compare import Sample, compare, percent, table
from l1ad.trigger.program import Trigger

RATE_HZ = 1e3
BUNCHES = 2544
Score = Callable[[Events], npt.NDArray[Any]]


def teacher_of(run: Path) -> Score:
    """The mean squared error of the teacher of a run, float (N,)."""
    from l1ad.model.forward import apply
    from l1ad.model.keras import import_tf, load_model
    from l1ad.model.stage import Geometry
    from l1ad.scores import mse
    from l1ad.trigger.quantizer import Quantizer
    from l1ad.trigger.scaling import read_scaling

    config = RunConfig.read(run / "config.yaml")
    scaling, layout = read_scaling(run / "scaling.json")
    teacher = load_model(run / "parts" / "teacher.h5")
    tf = import_tf().tf

    def score(events: Events) -> npt.NDArray[Any]:
        assert events.layout.name == layout
        geometry = Geometry.of(events.layout, scaling, Quantizer.parse(config.model.input))
        parts = []
        for start in range(0, len(events), 4096):
            x = geometry.inputs(tf.constant(events.inputs[start : start + 4096]))
            (output,) = apply(teacher, x, training=False)
            parts.append(mse(np.asarray(x, np.float64), np.asarray(output, np.float64)) / x.shape[1])
        return np.concatenate(parts)

    return score


def rank_correlation(a: npt.NDArray[Any], b: npt.NDArray[Any], weight: npt.NDArray[Any]) -> float:
    """Spearman's coefficient of weighted events: the linear one of their mid-ranks."""

    def ranks(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        distinct, place = np.unique(values, return_inverse=True)
        total = np.bincount(place, weights=weight, minlength=len(distinct))
        return np.asarray((np.cumsum(total) - total / 2)[place], dtype=np.float64)

    both = np.cov(ranks(a), ranks(b), aweights=weight)
    return float(both[0, 1] / np.sqrt(both[0, 0] * both[1, 1]))


def trained(work: Path, *, quick: bool) -> list[Path]:
    """Run folders of both configurations on the bundled regions, the second with the teacher of the first.

    What is there already is not trained again, and a training that was killed goes on.
    """
    from l1ad.configs import find_config, read_yaml
    from l1ad.train import train
    from l1ad.trigger.freeze import freeze

    folders = [work / name for name in ("cicada_v1", "cicada_v2")]
    for folder in folders:
        if (folder / "trigger.json").is_file():
            continue
        value = read_yaml(find_config(folder.name))
        if quick:
            value["data"]["max_events"] = 1500
            value["model"]["teacher"] = {"filters": [4, 4], "latent": 8}
            value["training"]["epochs"] = 1
        if folder != folders[0]:
            value["model"]["teacher"]["run"] = str(folders[0])
        if not (folder / "model.h5").is_file():
            train(value, folder)
        freeze(folder)
    return folders


def options_of(parser: argparse.ArgumentParser) -> None:
    """Options beside those of every benchmark."""
    parser.add_argument("--run", type=Path, action="append", default=[], help="run folder; may be repeated")
    parser.add_argument("--work", type=Path, default=Path("runs") / "physics", help="where the run folders are")
    parser.add_argument("--zero-bias", type=Path, help="weighted zero bias; the bundled regions by default")
    parser.add_argument("--signals", action="append", default=[], help="NAME=FILE; may be repeated")


def main() -> None:
    """Run the benchmark."""
    options = arguments("cicada", "CICADA: students and their teachers", options_of)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    work = Path(tempfile.mkdtemp()) if options.quick else options.work
    runs = options.run or trained(work, quick=options.quick)
    background = str(options.zero_bias or bundled("zero_bias_regions_weighted"))
    signals = dict(text.split("=", 1) for text in options.signals) or {"zero_bias": str(bundled("zero_bias_regions"))}
    sample = Sample.read([background], {name: [path] for name, path in signals.items()})
    contestants, correlations = [], {}
    for run in runs:
        trigger, teacher = Trigger.load(run), teacher_of(run)
        pair = [sample.contestant(trigger.name, trigger.score), sample.contestant(f"{trigger.name}, teacher", teacher)]
        contestants += pair
        joined = [np.concatenate(list(one.signals.values())) for one in pair]
        correlations[trigger.name] = {
            "zero bias": rank_correlation(pair[0].zero_bias, pair[1].zero_bias, sample.weights.weight),
            "signals": rank_correlation(joined[0], joined[1], np.ones(len(joined[0]))),
        }
    contestants.append(
        sample.contestant("sum of all regions", lambda events: events.inputs.sum(axis=1, dtype=np.int64))
    )
    result = compare(
        sample.weights,
        sample.signal_weights,
        contestants,
        RATE_HZ,
        base=BaseRate.from_bunches(BUNCHES),
        replicas=20 if options.quick else 500,
    )
    lines = ["| score | rank correlation, zero bias | rank correlation, signals |", "| --- | ---: | ---: |"]
    lines += [f"| {n} | {c['zero bias']:.3f} | {c['signals']:.3f} |" for n, c in correlations.items()]
    areas = ["| area under the ROC curve | " + " | ".join(signals) + " |", "| --- |" + " ---: |" * len(signals)]
    for row in result.rows:
        areas.append(f"| {row.name} | " + " | ".join(f"{row.signals[s].auc.value:.3f}" for s in signals) + " |")
    text = f"{table(result)}\n\n" + "\n".join(areas) + "\n\n" + "\n".join(lines)
    mean = {row.name: percent(row.summary["efficiency"]["mean"]) for row in result.rows}
    notes = [
        f"Efficiencies in % at {RATE_HZ / 1e3:g} kHz total rate, {BUNCHES} bunches, from {result.events['zero_bias']} "
        f"weighted crossings; means {', '.join(f'{name} {value}' for name, value in mean.items())}.",
        "The teacher is a float network and fits no FPGA: it is what the student is to come close to.",
    ]
    extra = {"comparison": result.to_json(), "correlations": correlations}
    report("cicada", "CICADA: students and their teachers", (), options, extra=extra, notes=notes, text=text)


if __name__ == "__main__":
    main()
