"""The steps of `l1ad run`: from zero bias to thresholds, proven firmware and a page, each made only if it must be.

`run(config, folder)` does them all; `steps(config, folder)` says what they are. What a step depends on and what it
writes is listed here and nowhere else; `l1ad.runfolder` decides from that what is still good.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from l1ad.config import RunConfig
from l1ad.errors import CheckFailed, InputError, MissingToolError
from l1ad.events.bundled import bundled, bundled_signals, bundled_zero_bias
from l1ad.io import read_json, write_json
from l1ad.runfolder import Done, RunFolder, Step, select_steps

Note = Callable[[str], None]


class Reporter(Protocol):
    """What is told of a run as it goes: a progress display or a plain log."""

    def started(self, name: str, about: str) -> None:
        """A step begins."""
        ...

    def note(self, text: str) -> None:
        """How the step stands."""
        ...

    def finished(self, done: Done) -> None:
        """A step has ended well."""
        ...


def run(
    config: RunConfig,
    folder: str | os.PathLike[str],
    reporter: Reporter,
    *,
    first: str | None = None,
    last: str | None = None,
    force: bool = False,
) -> tuple[Done, ...]:
    """Run every step that is not up to date.

    Parameters
    ----------
    first, last : do the steps from `first` on again; stop after `last`.
    force : do every step again.

    Raises
    ------
    L1adError
        What a step raises; everything up to it stays in the folder and is not done again.
    """
    run_folder = RunFolder(folder)
    everything = steps(config, Path(folder))
    wanted = select_steps(everything, first=first, last=last)
    results = []
    with run_folder.locked():
        for step in everything:
            if step.name not in wanted:
                continue
            reporter.started(step.name, step.about)
            done = run_folder.execute(step, force=force or wanted[step.name], note=reporter.note)
            reporter.finished(done)
            results.append(done)
    return tuple(results)


def steps(config: RunConfig, folder: Path) -> tuple[Step, ...]:
    """The steps of a configuration in order.

    Raises
    ------
    InputError
        If the bundled sample is asked for and is not there.
    """
    everything = config.model_dump(mode="json")
    later = ("firmware", "validation", "calibration", "report", "description")
    training = {key: value for key, value in everything.items() if key not in later}
    zero_bias = calibration_files(config)
    signals = signal_files(config)
    sources = _with_seeds(training_files(config))
    samples = _with_seeds((*zero_bias, *(path for paths in signals.values() for path in paths)))
    projects = tuple(f"firmware/{name}/{_STAMP[name]}" for name in config.firmware.backends)
    return (
        Step(
            "data",
            "look at the events",
            {"data": everything["data"]},
            (),
            sources,
            lambda note: _data(config, folder, note),
            lambda: ("data.json",),
        ),
        Step(
            "train",
            "train and prune",
            training,
            (),
            sources,
            lambda note: _train(config, folder, note),
            lambda: _existing(folder, "model.h5", "scaling.json", "history.csv", "training.json"),
        ),
        Step(
            "freeze",
            "freeze the encoder into integers",
            {"freeze": everything["freeze"], "score": config.score, "name": config.name},
            ("model.h5", "scaling.json"),
            (),
            lambda _: _freeze(folder),
            lambda: ("trigger.json",),
        ),
        Step(
            "convert",
            "write the firmware projects",
            {"firmware": everything["firmware"]},
            ("trigger.json", "model.h5"),
            (),
            lambda note: _convert(config, folder, note),
            lambda: _existing(folder, *projects, "firmware/alkaid/resources.json"),
        ),
        Step(
            "validate",
            "compare every realisation with the golden program",
            {"validation": everything["validation"], "firmware": everything["firmware"]},
            ("trigger.json", *projects),
            _with_seeds(zero_bias),
            lambda note: _validate(config, folder, note),
            lambda: ("validation.json",),
        ),
        Step(
            "calibrate",
            "find the thresholds",
            {"calibration": everything["calibration"]},
            ("trigger.json",),
            samples,
            lambda note: _calibrate(config, folder, note),
            lambda: ("thresholds.json",),
        ),
        Step(
            "report",
            "write the page",
            {"report": everything["report"], "description": config.description},
            ("trigger.json", "thresholds.json", "validation.json"),
            samples,
            lambda note: _report(config, folder, note),
            lambda: ("report.html", *_existing(folder, CATALOGUE), *_figures(folder)),
        ),
    )


#: The file that a back end writes last and that names the trigger it was made from.
_STAMP = {"hls4ml": "project.json", "alkaid": "project.json", "cmssw": "project.json"}


#: Folder of the figures for slides, and table of the selected crossings.
FIGURES, CATALOGUE = "figures", "catalogue.parquet"


def _figures(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(f"{FIGURES}/{path.name}" for path in (folder / FIGURES).glob("[!.]*") if path.is_file()))


def _existing(folder: Path, *names: str) -> tuple[str, ...]:
    return tuple(name for name in names if (folder / name).is_file())


# ------------------------------------------------------------------ files


def training_files(config: RunConfig) -> tuple[Path, ...]:
    """The files that are trained on."""
    from l1ad.events.readers._files import expand
    from l1ad.model.dataset import data_files

    return tuple(found for path in data_files(config.data) for found in expand(path))


def _with_seeds(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    """Files and those of the same name in a folder ``seeds`` beside them, which open data are read with."""
    beside = (path.parent / "seeds" / path.name for path in paths)
    return (*paths, *(path for path in beside if path.is_file()))


def calibration_files(config: RunConfig) -> tuple[Path, ...]:
    """The zero bias that thresholds are read off."""
    from l1ad.events.readers._files import expand

    if config.calibration.zero_bias == "bundled":
        return (bundled_zero_bias(config.data.layout, weighted=True),)
    return tuple(p for source in config.calibration.zero_bias for p in expand(source))


def signal_files(config: RunConfig) -> dict[str, tuple[Path, ...]]:
    """Files of each signal by name; the bundled ones only where the layout is theirs."""
    from l1ad.events.readers._files import expand

    if config.calibration.signals == "bundled":
        if config.data.layout not in ("cms_ugt", "adc2021"):
            return {}
        return {name: (path,) for name, path in bundled_signals().items()}
    return {name: tuple(p for p in expand(path)) for name, path in config.calibration.signals.items()}


# ------------------------------------------------------------------ steps


def _data(config: RunConfig, folder: Path, note: Note) -> str:
    from l1ad.events.readers import open_events

    files, total = [], 0
    for path in training_files(config):
        note(path.name)
        with open_events(path, format=config.data.format, saturation="keep") as source:
            counts: dict[str, int] = {}
            n = 0
            for events in source.chunks(1 << 17):
                n += len(events)
                counts = {k: int(v) for k, v in events.meta.get("counts", {}).items()}
            files.append(
                {
                    "name": path.name,
                    "format": source.format_name,
                    "layout": source.layout.name,
                    "events": n,
                    "notes": list(source.notes),
                    "counts": counts,
                }
            )
        total += n
    if not total:
        raise InputError(str(files[0]["name"]) if files else "data", "events", "none", "at least one")
    write_json(folder / "data.json", {"format": "l1ad-data", "format_version": 1, "files": files, "events": total})
    return f"{total:,} events in {len(files)} file{'s' if len(files) > 1 else ''}"


def _train(config: RunConfig, folder: Path, note: Note) -> str:
    from l1ad.train import Progress, train

    def show(standing: Progress) -> None:
        loss = standing.terms.get("val_loss", standing.terms.get("loss", float("nan")))
        note(
            f"{standing.stage}: epoch {standing.epoch}/{standing.epochs}, loss {loss:.4g}, "
            f"{standing.events_per_second:,.0f} events/s"
        )

    # A checkpoint of this very configuration is gone on with; anything else in the folder is of an older one.
    path = folder / "config.yaml"
    unfinished = (folder / "checkpoint.h5").is_file() and not (folder / "model.h5").is_file() and path.is_file()
    resume = unfinished and RunConfig.read(path) == config
    result = train(config, folder, progress=show, overwrite=not resume)
    last = result.history[-1] if result.history else {}
    loss = f", loss {last['loss']:.4g}" if "loss" in last else ""
    return (
        f"{len(result.history)} epochs on {result.n_train:,} events at {result.events_per_second:,.0f} events/s{loss}, "
        f"{100 * result.sparsity:.0f} % of the weights are zero{', resumed' if result.resumed else ''}"
    )


def _freeze(folder: Path) -> str:
    from l1ad.trigger.freeze import freeze
    from l1ad.trigger.widths import prove

    trigger = freeze(folder)
    wraps = prove(trigger.program).wraps
    proof = "no sum can overflow" if not wraps else f"{len(wraps)} nodes can wrap"
    return f"{trigger.kind}, {len(trigger.program.nodes)} nodes, {proof}, hash {trigger.hash[:12]}"


def _convert(config: RunConfig, folder: Path, note: Note) -> str:
    from l1ad.backends.registry import convert
    from l1ad.trigger.program import Trigger

    trigger = Trigger.load(folder)
    made = []
    for name in config.firmware.backends:
        note(name)
        # What stands there is of another trigger, or half of one: this folder belongs to the run.
        shutil.rmtree(folder / "firmware" / name, ignore_errors=True)
        project = convert(
            name,
            trigger,
            folder / "firmware" / name,
            run_dir=folder,
            part=config.firmware.part,
            clock_ns=config.firmware.clock_ns,
            latency_clocks=config.firmware.latency_clocks,
            reuse_factor=config.firmware.reuse_factor,
        )
        if name == "alkaid":
            _resources(config, project, note)
        made.append(name)
    return ", ".join(made)


def _resources(config: RunConfig, project: Any, note: Note) -> None:
    """Write what the RTL is expected to cost beside it; open synthesis if it is asked for and installed."""
    from l1ad.backends import synthesis

    counted = None
    if config.firmware.open_synthesis:
        note("open synthesis")
        try:
            counted = synthesis.synthesise(project)
        except MissingToolError as error:
            note(str(error))
    synthesis.write_table(project, counted)


#: Realisations that the projects of a back end give; the replay of QKeras and the fast kernel are always there.
_REALISATIONS = {"hls4ml": ("hls4ml",), "alkaid": ("alkaid", "verilator"), "cmssw": ("cmssw",)}


def _validate(config: RunConfig, folder: Path, note: Note) -> str:
    from l1ad.validate import validate

    wanted = ["keras", *(name for backend in config.firmware.backends for name in _REALISATIONS[backend]), "fast"]
    result = validate(
        folder,
        events=[str(path) for path in calibration_files(config)],
        n=config.validation.n,
        n_rtl=config.validation.n_rtl,
        realisations=wanted,
        mutate=config.validation.mutate,
        note=note,
    )
    # A mutation that no event shows says that the check is blind in one corner, not that the trigger is wrong: it is on
    # the page, and `l1ad validate --mutate` fails on it.
    if not result.equal:
        raise CheckFailed(f"{folder / 'validation.json'}: {result.summary}")
    return result.summary


def _calibrate(config: RunConfig, folder: Path, note: Note) -> str:
    from l1ad.menu import load_menu
    from l1ad.rates.calibrate import calibrate
    from l1ad.rates.rates import BaseRate
    from l1ad.rates.thresholds import rate_label
    from l1ad.trigger.program import Trigger

    given = config.calibration
    result = calibrate(
        Trigger.load(folder),
        [str(path) for path in calibration_files(config)],
        {rate_label(1e3 * rate): 1e3 * rate for rate in given.rates_khz},
        kind=given.kind,
        menu=load_menu(given.menu) if config.data.layout in ("cms_ugt", "adc2021") else None,
        base=BaseRate.from_bunches(given.bunches),
        signals={name: [str(path) for path in paths] for name, paths in signal_files(config).items()},
        work=folder / "calibration.work",
        progress=lambda what, done, total: note(f"{what} {done}/{total}"),
    )
    result.write(folder / "thresholds.json")
    points = ", ".join(f"{t.name}: {t.threshold} ({t.rate.hz / 1e3:.3g} kHz)" for t in result.thresholds)
    return points


def _report(config: RunConfig, folder: Path, note: Note) -> str:
    page = _page(
        folder,
        calibration_files(config),
        signal_files(config),
        menu=config.calibration.menu,
        displays=config.report.displays,
        note=note,
    )
    return f"{page} ({page.stat().st_size / 1e6:.1f} MB)"


def write_page(
    run_dir: str | os.PathLike[str],
    *,
    zero_bias: list[Path] | None = None,
    signals: Mapping[str, Path] | None = None,
    menu: str = "run3_lite",
    displays: int = 12,
) -> Path:
    """The page of a run folder, from files given here or, without them, from those of its configuration.

    Raises
    ------
    InputError
        If the folder lacks a trigger or its thresholds, or they do not belong together.
    """
    folder = Path(run_dir)
    own = folder / "config.yaml"
    config = RunConfig.read(own) if own.is_file() else None
    if zero_bias is None:
        zero_bias = list(calibration_files(config)) if config else [bundled("zero_bias_weighted")]
    chosen: dict[str, tuple[Path, ...]]
    if signals:
        chosen = {name: (path,) for name, path in signals.items()}
    elif config:
        chosen = signal_files(config)
    else:
        chosen = {name: (path,) for name, path in bundled_signals().items()}
    return _page(folder, tuple(zero_bias), chosen, menu=menu, displays=displays, note=lambda _: None)


def _page(
    folder: Path,
    zero_bias: tuple[Path, ...],
    signals: Mapping[str, tuple[Path, ...]],
    *,
    menu: str,
    displays: int,
    note: Note,
) -> Path:
    from l1ad.menu import load_menu
    from l1ad.report.catalogue import write_catalogue
    from l1ad.report.content import gather
    from l1ad.report.page import write_report
    from l1ad.report.slides import write_figures
    from l1ad.trigger.program import Trigger

    trigger = Trigger.load(folder)
    thresholds = read_json(folder / "thresholds.json")
    note("scoring")
    events = _read(zero_bias)
    content = gather(
        trigger,
        thresholds,
        events,
        {name: _read(paths) for name, paths in signals.items()},
        menu=load_menu(menu) if thresholds.get("menu") else None,
        run_dir=folder,
        displays=displays,
    )
    note("drawing")
    write_report(content, folder / "report.html")
    write_figures(content, folder / FIGURES, note=note)
    (folder / CATALOGUE).unlink(missing_ok=True)
    if not isinstance(content.catalogue, str):
        write_catalogue(folder / CATALOGUE, content.catalogue, events)
    return folder / "report.html"


def _read(paths: tuple[Path, ...]) -> Any:
    from l1ad.events.store import Events

    return Events.concatenate([Events.read(path) for path in paths])
