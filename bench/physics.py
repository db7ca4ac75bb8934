"""Everything that was tried, trained to its end and compared: efficiencies of each signal with statistical errors.

Trains the configurations of ``physics.yaml`` (or of another list), each in a run folder of its own below ``--work``,
freezes them, and compares their integer scores and every baseline at one total rate on the bundled weighted zero bias
and signals. What is trained already is not trained again, and a training that was killed goes on, so that the whole
takes as many sittings as one likes (about an hour and a half of one core in all). A second table says what the scores
mu2, kl and rz cost on the FPGA.

    python bench/physics.py [--quick] [--only NAME ...] [--work FOLDER] [--zero-bias FILE] [--signals NAME=FILE ...]

``--quick`` trains two epochs of a few, which shows that all of it runs and says nothing of physics: it never replaces
the result of a full run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from common import BENCH, arguments, report

from l1ad.baselines import all_baselines
from l1ad.config import RunConfig
from l1ad.configs import apply_settings, find_config, read_yaml
from l1ad.errors import L1adError, MissingToolError
from l1ad.events.bundled import bundled, bundled_signals
from l1ad.io import read_json, write_json
from l1ad.rates import BaseRate
from l1ad.rates.compare import Comparison, Contestant, Row, Sample, compare, draw, percent, table
from l1ad.trigger.nodes import Dense
from l1ad.trigger.program import Trigger

RATE_HZ = 1e3
BUNCHES = 2544
REFERENCE = "joint tail"
QUICK = ("quickstart_mu2", "quickstart_rz", "best")


@dataclass(frozen=True)
class Try:
    """One configuration to train, and the run folder it is trained in."""

    name: str
    group: str
    folder: Path
    config: dict[str, Any]
    about: str
    cost: bool


def read_tries(path: Path, work: Path, only: list[str], *, quick: bool) -> list[Try]:
    """The list in a file, one entry a seed; those whose name `only` names, all without it."""
    result = []
    for entry in yaml.safe_load(path.read_text(encoding="utf-8"))["tries"]:
        if only and entry["name"] not in only:
            continue
        start = read_yaml(find_config(entry["config"]))
        seeds = entry.get("seeds", [start.get("seed", 1)])
        for seed in seeds[:1] if quick else seeds:
            name = entry["name"] if len(seeds) == 1 else f"{entry['name']}, seed {seed}"
            folder = re.sub(r"[^A-Za-z0-9]+", "_", name)
            settings = [f"{key}={json.dumps(_resolved(value))}" for key, value in entry.get("set", {}).items()]
            settings += [f"seed={seed}", f"name={folder}"]
            if quick:
                settings += [
                    "training.epochs=2",
                    "pruning.end_epoch=2",
                    "pruning.begin_epoch=0",
                    "data.max_events=20000",
                ]
            config = apply_settings(start, settings, where=entry["config"])
            result.append(Try(name, entry["name"], work / folder, config, entry["about"], bool(entry.get("cost"))))
    return result


def _resolved(value: Any) -> Any:
    """A setting, ``bundled NAME`` replaced by the path of that file."""
    if isinstance(value, list):
        return [_resolved(item) for item in value]
    if isinstance(value, str) and value.startswith("bundled "):
        return str(bundled(value.removeprefix("bundled ")))
    return value


def trained(one: Try) -> Trigger:
    """The frozen trigger of a try: as it stands, or trained first."""
    from l1ad.train import Progress, train
    from l1ad.trigger.freeze import freeze

    config = RunConfig.of(one.config, where=one.name)
    path = one.folder / "config.yaml"
    stated = RunConfig.read(path) if path.is_file() else None
    # Neither how the score is written down nor how the step is compiled asks for another training.
    same = stated is not None and _what_is_trained(stated) == _what_is_trained(config)
    if stated is not None and same and (one.folder / "model.h5").is_file():
        if stated.freeze == config.freeze and (one.folder / "trigger.json").is_file():
            return Trigger.load(one.folder)
        (one.folder / "trigger.json").unlink(missing_ok=True)
        stated.model_copy(update={"freeze": config.freeze}).write(path)
    else:
        said = [time.monotonic()]

        def show(standing: Progress) -> None:
            if time.monotonic() - said[0] > 30:
                said[0] = time.monotonic()
                note(f"{one.name}: {standing.stage}, epoch {standing.epoch} of {standing.epochs}")

        note(f"{one.name}: training")
        train(config, one.folder, progress=show, overwrite=stated != config)
    return freeze(one.folder)


def _what_is_trained(config: RunConfig) -> dict[str, Any]:
    """A configuration without what the trained weights do not depend on."""
    value = config.model_dump(exclude={"description", "freeze", "firmware", "validation", "calibration", "report"})
    del value["training"]["jit"]
    # A file of the bundled sample is the same one in every checkout.
    value["data"]["paths"] = [Path(path).name for path in config.data.paths]
    return value


def note(text: str) -> None:
    """A line on how far it is, apart from the tables."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def weights_of(trigger: Trigger) -> str:
    """Weights that are not zero, of all."""
    layers = [node for node in trigger.program.nodes if isinstance(node, Dense) and node.name != "sum"]
    return f"{sum(node.n_nonzero for node in layers)} of {sum(node.weights.size for node in layers)}"


def costs(trigger: Trigger, folder: Path, *, open_synthesis: bool) -> dict[str, Any]:
    """Estimates of alkaid and of the latency, and what open synthesis counts where it is installed.

    Kept in ``costs.json`` of the run folder for the next time.
    """
    from l1ad.backends import rtl, synthesis

    kept = folder / "costs.json"
    if kept.is_file():
        value: dict[str, Any] = read_json(kept)
        if value["hash"] == trigger.hash and (not open_synthesis or "yosys_lut" in value):
            return value
    with tempfile.TemporaryDirectory() as name:
        made = rtl.convert(trigger, None, Path(name) / "rtl", latency_clocks=2, ignore_estimate=True)
        result: dict[str, Any] = {
            "hash": trigger.hash,
            "weights": weights_of(trigger),
            "alkaid_lut": made.cost.lut,
            "latency_ns": None if made.timing is None else made.timing.logic_ns,
            "verdict": None if made.timing is None else made.timing.verdict,
            "score_shift": trigger.provenance.get("score_shift", 0),
        }
        if open_synthesis:
            try:
                counted = synthesis.synthesise(made)
            except MissingToolError as error:
                note(f"{trigger.name}: {error}")
            else:
                result.update(yosys_lut=counted.lut, yosys_ff=counted.ff, yosys_dsp=counted.dsp, tool=counted.tool)
    write_json(kept, result)
    return result


def cost_table(rows: dict[str, dict[str, Any]], comparison: Comparison) -> str:
    """What each score costs and what it finds."""
    found = {row.name: row for row in comparison.rows}
    head = [
        "score",
        "weights used",
        "LUT, alkaid's estimate",
        "LUT, open synthesis",
        "logic, estimate",
        "mean",
        "median",
    ]
    lines = [f"| {' | '.join(head)} |", "| --- | " + "---: | " * (len(head) - 1)]
    for name, cost in rows.items():
        figures = found[name].summary["efficiency"]
        latency = "" if cost["latency_ns"] is None else f"{cost['latency_ns']:.0f} ns, {cost['verdict']} 2 x 25 ns"
        counted = f"{cost['yosys_lut']}" if "yosys_lut" in cost else "not run"
        cells = [name, cost["weights"], f"{cost['alkaid_lut']:.0f}", counted, latency]
        lines.append(f"| {' | '.join([*cells, percent(figures['mean']), percent(figures['median'])])} |")
    return "\n".join(lines)


def over_seeds(tries: list[Try], comparison: Comparison) -> list[str]:
    """Mean and scatter of the figures of a configuration that was trained with several seeds."""
    found = {row.name: row for row in comparison.rows}
    groups: dict[str, list[Row]] = {}
    for one in tries:
        if one.name in found:
            groups.setdefault(one.group, []).append(found[one.name])
    lines = []
    for name, rows in groups.items():
        if len(rows) > 1:
            values = {f: [100 * r.summary["efficiency"][f].value for r in rows] for f in ("mean", "median")}
            said = ", ".join(f"{f} {np.mean(v):.1f} ({min(v):.1f} to {max(v):.1f})" for f, v in values.items())
            lines.append(f"{name}, {len(rows)} seeds: {said} %.")
    return lines


def options_of(parser: argparse.ArgumentParser) -> None:
    """Options beside those of every benchmark."""
    parser.add_argument("--tries", type=Path, default=BENCH / "physics.yaml", help="list of what is trained")
    parser.add_argument("--work", type=Path, default=Path("runs") / "physics", help="where the run folders are")
    parser.add_argument("--only", action="append", default=[], help="name of a try; may be repeated")
    parser.add_argument("--zero-bias", type=Path, help="weighted zero bias; the bundled one by default")
    parser.add_argument("--signals", action="append", default=[], help="NAME=FILE; the bundled ones by default")
    parser.add_argument("--keep-going", action="store_true", help="compare what is trained already, train nothing")
    parser.add_argument("--no-synthesis", action="store_true", help="leave out open synthesis")
    parser.add_argument("--picture", type=Path, help="draw the comparison to this PNG")


def main() -> None:
    """Run the benchmark."""
    options = arguments("physics", "Physics: everything that was tried", options_of)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    work = Path(tempfile.mkdtemp()) if options.quick else options.work
    tries = read_tries(options.tries, work, list(QUICK) if options.quick else options.only, quick=options.quick)
    signals = dict(text.split("=", 1) for text in options.signals) or {k: str(p) for k, p in bundled_signals().items()}
    background = str(options.zero_bias or bundled("zero_bias_weighted"))
    sample = Sample.read([background], {name: [path] for name, path in signals.items()})
    contestants: list[Contestant] = []
    triggers: dict[str, Trigger] = {}
    failed: list[str] = []
    for one in tries:
        if options.keep_going and not (one.folder / "trigger.json").is_file():
            failed.append(f"{one.name}: not trained yet.")
            continue
        try:
            triggers[one.name] = trained(one)
            contestants.append(sample.contestant(one.name, triggers[one.name].score, about=one.about))
        except L1adError as error:
            failed.append(f"{one.name}: {error}.")
            note(failed[-1])
    scores = all_baselines(
        sample.zero_bias, [t for name, t in triggers.items() if name.startswith(("quickstart", "best"))][:1]
    )
    contestants += [sample.contestant(name, score, about="baseline") for name, score in scores.items()]
    result = compare(
        sample.weights,
        sample.signal_weights,
        contestants,
        RATE_HZ,
        base=BaseRate.from_bunches(BUNCHES),
        reference=REFERENCE,
        replicas=20 if options.quick else 500,
    )
    seen: set[str] = set()
    priced: dict[str, dict[str, Any]] = {}
    for one in tries:
        if one.cost and one.name in triggers and one.group not in seen:
            seen.add(one.group)
            note(f"{one.name}: counting look-up tables")
            wanted = not (options.quick or options.no_synthesis)
            priced[one.name] = costs(triggers[one.name], one.folder, open_synthesis=wanted)
    text = f"{table(result)}\n\nWhat a score costs:\n\n{cost_table(priced, result)}"
    notes = [
        f"Efficiencies in % at {RATE_HZ / 1e3:g} kHz total rate, {BUNCHES} bunches, from {result.events['zero_bias']} "
        f"weighted crossings (how many of them lie above each threshold is in the JSON), "
        f"bootstrap of {result.replicas} replicas over zero bias and signals. "
        "Baselines are fitted on the zero bias that sets the thresholds, which is to their favour.",
        *(f"{one.name}: {one.about}." for one in tries if one.about),
        *over_seeds(tries, result),
        *failed,
        "LUT by open synthesis are cells that were not placed; alkaid's estimate is calibrated on another family.",
    ]
    if options.picture is not None:
        draw(result, options.picture)
    kept = options.out / "physics.json"
    if options.quick and kept.is_file() and not json.loads(kept.read_text(encoding="utf-8"))["quick"]:
        sys.stdout.write(f"{text}\n\n{kept} is of a full run and stays as it is.\n")
        return
    extra = {"comparison": result.to_json(), "costs": priced, "failed": failed}
    report("physics", "Physics: everything that was tried", (), options, extra=extra, notes=notes, text=text)


if __name__ == "__main__":
    main()
