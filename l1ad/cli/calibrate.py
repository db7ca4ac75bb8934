"""`l1ad calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command("calibrate")(calibrate)


def calibrate(
    trigger: Annotated[Path, typer.Argument(help="trigger.json, or a run folder that holds one.")],
    zero_bias: Annotated[list[str], typer.Option("--zero-bias", help="Zero bias: a file, folder or pattern; repeat.")],
    rate: Annotated[
        str, typer.Option("--rate", help="Targets in kHz: 0.25,1,5,10 or Tight=1,Loose=5.")
    ] = "0.25,1,5,10",
    ladder: Annotated[
        bool, typer.Option("--ladder", help="Name five rates VLoose, Loose, Nominal, Tight, VTight, the highest first.")
    ] = False,
    kind: Annotated[str, typer.Option(help="What the targets are rates of: total, pure or proportional.")] = "pure",
    menu: Annotated[
        Optional[str], typer.Option(help="Menu to be pure of, a name or a YAML file; else the decisions in the data.")
    ] = None,
    signals: Annotated[
        Optional[list[str]],
        typer.Option("--signals", help="NAME=FILE of a signal; repeat, also for more files of one."),
    ] = None,
    bunches: Annotated[Optional[int], typer.Option(help="Colliding bunches; 2544 if nothing else is given.")] = None,
    filling_scheme: Annotated[
        Optional[str], typer.Option(help="Name of the LHC filling scheme, for the bunches.")
    ] = None,
    crossing_rate: Annotated[Optional[float], typer.Option(help="Crossings a second, in place of bunches.")] = None,
    luminosity: Annotated[Optional[float], typer.Option(help="Target luminosity, with --data-luminosity.")] = None,
    data_luminosity: Annotated[Optional[float], typer.Option(help="Luminosity of the data, in the same unit.")] = None,
    pileup: Annotated[
        Optional[str], typer.Option(help="Reweight to this pile-up: MEAN,SIGMA or a table of pile-up and height.")
    ] = None,
    extrapolate: Annotated[
        bool, typer.Option("--extrapolate", help="Fit the tail where under 10 events pass.")
    ] = False,
    interval: Annotated[
        str, typer.Option(help="clopper-pearson (covers at least its level) or mid-p (covers it on average).")
    ] = "clopper-pearson",
    budget: Annotated[Optional[float], typer.Option(help="Propose prescales for this total, kHz.")] = None,
    saturation: Annotated[str, typer.Option(help="Saturated objects: keep (as firmware), mask or drop.")] = "keep",
    workers: Annotated[int, typer.Option(min=1, help="Processes of this machine.")] = 1,
    dask: Annotated[Optional[str], typer.Option(help="Address of a dask scheduler, or local.")] = None,
    chunk: Annotated[Optional[int], typer.Option(min=1, help="Events a task; two million by default.")] = None,
    work: Annotated[
        Optional[Path], typer.Option(help="Folder for intermediate results that workers share; OUT.work by default.")
    ] = None,
    plots: Annotated[Optional[Path], typer.Option(help="Folder for plots.")] = None,
    fragment: Annotated[Optional[Path], typer.Option(help="Write the lines for a menu to this file.")] = None,
    out: Annotated[
        Optional[Path], typer.Option(help="thresholds.json to write; beside trigger.json by default.")
    ] = None,
) -> None:
    """Find the integer thresholds that give target rates, with intervals.

    A run that was killed goes on where it stopped when it is started again.

    Example: l1ad calibrate runs/quickstart --zero-bias zb.h5 --rate 0.25,1,5,10 --kind pure --menu run3_lite
    """
    from l1ad.errors import InputError
    from l1ad.io import write_text
    from l1ad.menu import load_menu
    from l1ad.rates import calibrate as run
    from l1ad.rates import ladder as several
    from l1ad.rates.rates import BaseRate, PileupProfile, luminosity_scale
    from l1ad.trigger.program import Trigger

    given = [value for value in (bunches, filling_scheme, crossing_rate) if value is not None]
    if len(given) > 1:
        raise InputError(
            "calibrate", "base rate", f"{len(given)} options", "one of bunches, filling scheme, crossing rate"
        )
    scale = luminosity_scale(luminosity, data_luminosity)
    if filling_scheme is not None:
        base = BaseRate.from_filling_scheme(filling_scheme, luminosity_scale=scale)
    elif crossing_rate is not None:
        base = BaseRate(crossing_rate, scale)
    else:
        base = BaseRate.from_bunches(2544 if bunches is None else bunches, luminosity_scale=scale)
    targets = several.parse_rates(rate)
    if ladder:
        targets = several.ladder_rates(list(targets.values()))
    program = Trigger.load(trigger)
    target = out or (trigger if trigger.is_dir() else trigger.parent) / "thresholds.json"
    with _progress() as progress:
        result = run.calibrate(
            program,
            zero_bias,
            targets,
            kind=kind,
            menu=None if menu is None else load_menu(menu),
            base=base,
            pileup=None if pileup is None else PileupProfile.parse(pileup),
            signals=_signals(signals or []),
            extrapolate=extrapolate,
            interval=interval,
            budget_hz=None if budget is None else budget * 1e3,
            saturation=saturation,
            work=work or target.with_name(f"{target.name}.work"),
            chunk_events=chunk or run.DEFAULT_CHUNK_EVENTS,
            workers=workers,
            dask=dask,
            progress=progress,
        )
    result.write(target)
    typer.echo("\n".join(_table(result)))
    if fragment is not None:
        text = several.menu_fragment(
            result.thresholds,
            trigger_name=result.trigger_name,
            trigger_hash=result.trigger_hash,
            prescales=result.prescales,
        )
        write_text(fragment, text)
    if plots is not None:
        from l1ad.rates.plots import write_plots

        for path in write_plots(result, plots):
            typer.echo(f"plot   {path}")
    typer.echo(f"wrote  {target}")


def _signals(entries: list[str]) -> dict[str, list[str]]:
    from l1ad.errors import InputError

    result: dict[str, list[str]] = {}
    for entry in entries:
        name, found, path = entry.partition("=")
        if not (found and name and path):
            raise InputError("--signals", "entry", entry, "NAME=FILE")
        result.setdefault(name, []).extend(path.split(","))
    return result


def _progress() -> Any:
    """A context with a progress callback: a bar on a terminal, nothing elsewhere."""
    import contextlib
    from collections.abc import Iterator

    from rich.console import Console
    from rich.progress import Progress, TaskID

    @contextlib.contextmanager
    def bars() -> Iterator[Any]:
        console = Console(stderr=True)
        with Progress(console=console, disable=not console.is_terminal, transient=True) as display:
            known: dict[str, TaskID] = {}

            def update(what: str, done: int, total: int) -> None:
                if what not in known:
                    known[what] = display.add_task(what, total=total)
                display.update(known[what], completed=done)

            yield update

    return bars()


def _table(result: Any) -> list[str]:
    lines = [f"trigger {result.trigger_name} {result.trigger_hash[:12]}, {result.content['sample']['events']} events"]
    lines += [f"note   {note}" for note in result.notes]
    if result.content["menu"]:
        lines.append(f"menu   {result.content['menu']['name']}: {result.content['menu']['rate_hz'] / 1e3:.2f} kHz")
    head = f"{'name':>12} {'target':>8} {'threshold, 68 %':>23} {'rate':>9} {'68 % interval':>19} {'95 % interval':>19}"
    lines.append(f"{head} {'events':>7} {'total':>8}  one below   (rates in kHz)")
    for item in result.thresholds:
        rate = item.rate

        def span(ends: tuple[float, float]) -> str:
            return f"[{ends[0] / 1e3:.3f}, {ends[1] / 1e3:.3f}]"

        below = "" if item.next_rate is None else f"{item.next_threshold}: {item.next_rate.hz / 1e3:.3f}"
        mark = " extrapolated" if item.extrapolation else ""
        near = "" if item.interval_68 is None else f" [{item.interval_68[0]}, {item.interval_68[1]}]"
        lines.append(
            f"{item.name:>12} {item.target_hz / 1e3:8.3f} {f'{item.threshold}{near}':>23} {rate.hz / 1e3:9.3f} "
            f"{span(rate.interval_68):>19} {span(rate.interval_95):>19} {rate.events:7d} "
            f"{item.rates['total'].hz / 1e3:8.3f}  {below}{mark}"
        )
    for name, prescale in (result.prescales or {}).items():
        lines.append(f"prescale {name}: {prescale}")
    for name, tests in result.drift.items():
        for variable, test in tests.items():
            lines.append(
                f"stability {name} against {variable}: chi2/ndf {test.chi2:.1f}/{test.ndf} p {test.chi2_p_value:.2g}, "
                f"CUSUM {test.cusum:.2f} p {test.cusum_p_value:.2g}"
            )
    lines += _signal_lines(result)
    return lines


def _signal_lines(result: Any) -> list[str]:
    if not result.signals:
        return []
    names = [item.name for item in result.thresholds]
    width = max(len(name) for name in result.signals)
    pure = result.content["menu"] is not None
    head = "".join(f"{name:>16}" for name in names)
    lines = [
        f"{'signal':>{width}} {'AUC':>7} {'menu':>6}{head}   (efficiency %{', +gain over the menu %' if pure else ''})"
    ]
    for name, signal in result.signals.items():
        content = signal.content
        cells = ""
        for point in names:
            entry = content["thresholds"][point]
            gain = entry.get("gain")
            extra = f" +{100 * gain['value']:.1f}" if gain else ""
            cells += f"{100 * entry['total']['value']:.2f}{extra}".rjust(16)
        menu = content["menu_efficiency"]
        shown = "-" if menu is None else f"{100 * menu:.1f}"
        lines.append(f"{name:>{width}} {content['area_under_curve']:7.4f} {shown:>6}{cells}")
    for figure in ("mean", "median", "cvar25"):
        cells = "".join(f"{100 * result.content['summary'][point]['total'][figure]:16.2f}" for point in names)
        lines.append(f"{figure:>{width}} {'':>7} {'':>6}{cells}")
    return lines
