"""Every configuration on every realisation: are they the same integer on a million events?

    python bench/validate_all.py --runs runs [--events LAYOUT=FILE]

A configuration whose run folder (RUNS/NAME with its ``trigger.json``) is not there is trained for --epochs first: the
arithmetic is what is compared here, not the physics. Events: the bundled zero bias of its layout or the files given,
the adversarial ones, and for what is missing to --n half perturbed crossings and half random words.
What was compared for this trigger before, on as many events, is not done again (--again does it).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import arguments, report

from l1ad import Trigger
from l1ad.config import RunConfig
from l1ad.events.bundled import bundled_zero_bias
from l1ad.events.layout import get_layout
from l1ad.train import train
from l1ad.trigger.freeze import freeze
from l1ad.validate import REALISATIONS, Comparison, validate

SUBJECT, TITLE = "validate_all", "Every configuration on every realisation"


@dataclass(frozen=True)
class Subject:
    """A configuration, and what is changed in it."""

    config: str
    changes: dict[str, Any] = field(default_factory=dict)


SUBJECTS = {
    "quickstart_mu2": Subject("quickstart"),
    "quickstart_kl": Subject("quickstart", {"score": "kl"}),
    "quickstart_rz": Subject("quickstart", {"score": "rz"}),
    "axol1tl_v3": Subject("axol1tl_v3"),
    "axol1tl_v4": Subject("axol1tl_v4"),
    "axol1tl_v5": Subject("axol1tl_v5"),
    "adc2021_dnn_vae": Subject("adc2021_dnn_vae"),
    "atlas_l1topo_vae": Subject("atlas_l1topo_vae"),
    "cicada_v1": Subject("cicada_v1"),
    "axol1tl_v1": Subject("axol1tl_v1"),
    "adc2021_dnn_ae": Subject("adc2021_dnn_ae"),
    "adc2021_cnn_ae": Subject("adc2021_cnn_ae"),
    "adc2021_cnn_vae": Subject("adc2021_cnn_vae"),
    "cicada_v2": Subject("cicada_v2"),
}
#: Those that are compared if none is named: the others are convolutions and variants that take much longer.
USUAL = tuple(SUBJECTS)[:9]


def main() -> None:
    """Compare, and write the table."""
    options = _arguments()
    names = options.only or list(USUAL)
    path = options.out / f"{SUBJECT}.json"
    known = json.loads(path.read_text(encoding="utf-8"))["extra"]["rows"] if path.is_file() else []
    n, n_rtl = (20_000, 2_000) if options.quick else (options.n, options.n_rtl)
    rows: dict[tuple[str, str], dict[str, Any]] = {(row["config"], row["key"]): row for row in known}
    for name in names:
        run_dir = _run_folder(name, options)
        trigger = Trigger.load(run_dir)
        wanted = {key: n_rtl if key == "verilator" else n for key in REALISATIONS}
        if not options.again:
            wanted = {key: m for key, m in wanted.items() if not _done(rows.get((name, key)), trigger.hash, m)}
        if not wanted:
            _say(f"{name}: compared before")
            continue
        order = iter(wanted)

        def compared(result: Comparison, name: str = name, trigger: Trigger = trigger, order: Any = order) -> None:
            key = next(order)
            rows[name, key] = {
                "config": name, "key": key, "name": result.name, "hash": trigger.hash, "events": result.events,
                "mismatches": result.mismatches, "seconds": round(result.seconds, 2), "reason": result.reason,
                "first": str(result.first) if result.first else "",
            }  # fmt: skip
            _say(f"{name}: {key}: {result.mismatches} of {result.events} differ {result.reason}")
            _write(rows, options)

        result = validate(
            run_dir, _events(trigger, options), n=n, n_rtl=n_rtl, realisations=list(wanted), write=False,
            note=lambda text: _say(f"... {text}"), compared=compared,
        )  # fmt: skip
        for key in wanted:
            rows[name, key]["kinds"] = {
                kind: getattr(result, kind) for kind in ("given", "perturbed", "adversarial", "random")
            }
        _write(rows, options)
    wrong = [row for row in rows.values() if row["mismatches"]]
    if wrong:
        sys.exit("; ".join(f"{row['config']}: {row['key']}: {row['mismatches']} differ" for row in wrong))


def _arguments() -> argparse.Namespace:
    options = arguments(SUBJECT, TITLE, _more)
    options.files = {}
    for given in options.events:
        layout, _, file = given.partition("=")
        options.files.setdefault(get_layout(layout).name, []).append(file)
    if options.quick and not options.only:
        options.only = ["quickstart_mu2"]
    return options


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of run folders, by configuration")
    parser.add_argument("--events", action="append", default=[], metavar="LAYOUT=FILE", help="zero bias; repeatable")
    parser.add_argument(
        "--only", action="append", choices=list(SUBJECTS), help="this configuration, whatever it is; repeatable"
    )
    parser.add_argument("--n", type=int, default=1_000_000, help="events of each realisation")
    parser.add_argument("--n-rtl", type=int, default=200_000, help="events of the simulation clock by clock")
    parser.add_argument("--epochs", type=int, default=2, help="of a configuration that is not there")
    parser.add_argument("--again", action="store_true", help="compare what was compared before, too")


def _run_folder(name: str, options: argparse.Namespace) -> Path:
    """The run folder of a configuration, trained shortly if it is not there."""
    folder: Path = options.runs / name
    if (folder / "trigger.json").is_file():
        return folder
    subject = SUBJECTS[name]
    config = RunConfig.read(Path(__file__).resolve().parents[1] / "configs" / f"{subject.config}.yaml")
    value = {**config.model_dump(mode="json"), **subject.changes, "name": name}
    paths = options.files.get(value["data"]["layout"], [])
    value["data"] |= {"paths": paths, "sample": None if paths else "bundled", "max_events": 50_000}
    value["training"]["epochs"] = options.epochs
    _say(f"{name}: {options.epochs} epochs, for there is no {folder / 'trigger.json'}")
    train(value, folder, overwrite=True)
    freeze(folder)
    return folder


def _events(trigger: Trigger, options: argparse.Namespace) -> list[str]:
    layout = trigger.layout.name
    return options.files.get(layout) or [str(bundled_zero_bias(layout, weighted=w)) for w in (False, True)]


def _done(row: dict[str, Any] | None, trigger: str, n: int) -> bool:
    return bool(row and row["hash"] == trigger and row["mismatches"] == 0 and (row["events"] or 0) >= n)


def _say(text: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


def _table(rows: dict[tuple[str, str], dict[str, Any]]) -> str:
    lines = ["| configuration | " + " | ".join(REALISATIONS) + " |", "| --- |" + " ---: |" * len(REALISATIONS)]
    for name in SUBJECTS:
        cells = []
        for key in REALISATIONS:
            row = rows.get((name, key))
            cells.append(
                "" if row is None else "none" if row["events"] is None else f"{row['mismatches']} of {row['events']:,}"
            )
        if any(cells):
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _write(rows: dict[tuple[str, str], dict[str, Any]], options: argparse.Namespace) -> None:
    notes = [
        "events whose integer differs from that of the golden program, of those compared",
        *(f"{key}: {text}" for key, text in REALISATIONS.items()),
    ]
    for name in SUBJECTS:
        kinds = next((row["kinds"] for row in rows.values() if row["config"] == name and "kinds" in row), None)
        if kinds:
            parts = f"{kinds['given']:,} crossings, {kinds['perturbed']:,} perturbed ones"
            notes.append(f"{name}: {parts}, {kinds['adversarial']:,} adversarial, {kinds['random']:,} random words")
    notes += [f"{row['config']}: {row['key']}: {row['reason']}" for row in rows.values() if row["reason"]]
    report(SUBJECT, TITLE, [], options, extra={"rows": list(rows.values())}, notes=notes, text=_table(rows))


if __name__ == "__main__":
    main()
