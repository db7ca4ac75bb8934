"""`l1ad data convert` and `l1ad data inspect`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from l1ad.events import Events
    from l1ad.events.inspect import Decisions
    from l1ad.events.readers import EventSource

Sources = Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Files, folders or glob patterns.")]
Format = Annotated[str, typer.Option(help="auto looks into each file; or l1ad, adc2021, cms_opendata, l1ntuple, nano.")]
Saturation = Annotated[
    str, typer.Option(help="Saturated objects: keep, mask (as the training does) or drop the event.")
]
Layout = Annotated[Optional[str], typer.Option(help="Give the events this layout, which must have the same words.")]
Tree = Annotated[Optional[str], typer.Option(help="L1Ntuple: auto, unpacked or emulated.")]
SeedNames = Annotated[Optional[Path], typer.Option(help="L1Ntuple: YAML or JSON with 'name: bit', instead of aliases.")]
Split = Annotated[Optional[str], typer.Option(help="CMS open data: only train, valid or test.")]
MuonPt = Annotated[
    Optional[str],
    typer.Option(help="Muon pt code: physical (x 0.5 GeV is the momentum, the default) or word (as the uGT sees it)."),
]
MaxEvents = Annotated[Optional[int], typer.Option(min=1, help="Stop after this many events.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    app.command("convert")(convert)
    app.command("inspect")(inspect)


def convert(
    sources: Sources,
    out: Annotated[Path, typer.Option("--out", "-o", help="HDF5 file to write.")],
    format: Format = "auto",
    saturation: Saturation = "keep",
    layout: Layout = None,
    compression: Annotated[Optional[str], typer.Option(help="gzip: three times smaller, slower to read.")] = None,
    max_events: MaxEvents = None,
    tree: Tree = None,
    seed_names: SeedNames = None,
    split: Split = None,
    muon_pt: MuonPt = None,
    menu: Annotated[
        Optional[str],
        typer.Option(help="Write decisions of this menu with the events; those that the data has come first."),
    ] = None,
) -> None:
    """Convert files of any supported format to one HDF5 file in hardware integers.

    Example: l1ad data convert ntuples/ --out zb.h5
    """
    from l1ad.errors import InputError
    from l1ad.events import EventsWriter, open_events
    from l1ad.events.readers._files import expand
    from l1ad.menu import add_decisions, load_menu

    loaded = None if menu is None else load_menu(menu)
    for path in expand(sources):
        if path.exists() and out.exists() and path.samefile(out):
            raise InputError(str(out), "--out", "one of the sources", "another file")
    options: dict[str, Any] = {"tree": tree, "seed_names": seed_names, "split": split, "muon_pt": muon_pt}
    with (
        open_events(sources, format=format, saturation=saturation, layout=layout, **options) as source,
        EventsWriter(out, compression=compression) as writer,
    ):
        typer.echo(f"{source.path}: {source.format_name}")
        for note in source.notes:
            typer.echo(f"note: {note}")
        counts: dict[str, int] = {}
        said: dict[str, None] = {}
        for events in _limited(source, max_events):
            if loaded is not None:
                events, notes = add_decisions(loaded, events)
                said.update(dict.fromkeys(notes))
            writer.append(events)
            for name, value in events.meta.get("counts", {}).items():
                counts[name] = counts.get(name, 0) + int(value)
        first = source.layout.name
    for note in said:
        typer.echo(f"note: {note}")
    typer.echo(f"{out}: {writer.n_events} events, layout {first}, saturated objects: {saturation}")
    changed = [f"{name.replace('_', ' ')} {value}" for name, value in counts.items() if value]
    typer.echo(f"counted: {', '.join(changed) or 'nothing had to be changed'}")


def inspect(
    sources: Sources,
    plot: Annotated[Optional[Path], typer.Option(help="Write a picture (.png, .pdf or .svg).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every seed.")] = False,
    bunches: Annotated[int, typer.Option(min=1, max=3564, help="Colliding bunches the rates stand for.")] = 2544,
    menu: Annotated[
        Optional[str],
        typer.Option(help="Seeds to evaluate: a YAML file or the name of a shipped menu; bits in the data come first."),
    ] = None,
    format: Format = "auto",
    saturation: Saturation = "keep",
    max_events: MaxEvents = None,
    tree: Tree = None,
    seed_names: SeedNames = None,
    split: Split = None,
    muon_pt: MuonPt = None,
) -> None:
    """Print counts, occupancies, ranges, saturation and menu rates of files of any supported format.

    Example: l1ad data inspect zb.h5 --menu run3_lite --plot zb.png
    """
    from l1ad.events import open_events
    from l1ad.events.inspect import format_summary, plot_summary, summarise

    options: dict[str, Any] = {"tree": tree, "seed_names": seed_names, "split": split, "muon_pt": muon_pt}
    menu_notes: dict[str, None] = {}
    decide = None if menu is None else _decider(menu, menu_notes)
    origin = None if menu is None else f"the menu {menu}"
    with open_events(sources, format=format, saturation=saturation, **options) as source:
        chunks = _limited(source, max_events, quiet=as_json)
        summary = summarise(chunks, bunches=bunches, decide=decide, menu_origin=origin)
        layout = source.layout
    if as_json:
        import json

        table = summary.to_json()
        table["notes"] = [*table["notes"], *menu_notes]
        typer.echo(json.dumps(table, indent=2, allow_nan=False))
    else:
        typer.echo(format_summary(summary))
        for note in menu_notes:
            typer.echo(f"note: {note}")
    if plot is not None:
        plot_summary(summary, layout, plot)
        typer.echo(f"picture: {plot}", err=as_json)


def _decider(menu: str, notes: dict[str, None]) -> Callable[[Events], Decisions]:
    """Decisions of a menu on successive pieces; what it has to say goes into `notes`, each once."""
    from l1ad.events.inspect import Decisions
    from l1ad.menu import load_menu

    loaded = load_menu(menu)
    counters: dict[str, int] = {}

    def decide(events: Events) -> Decisions:
        decision = loaded.evaluate(events, counters=counters)
        counters.update(decision.counters)
        notes.update(dict.fromkeys(decision.notes))
        factors = {name: 1.0 / prescale if prescale else 0.0 for name, prescale in decision.prescales.items()}
        return Decisions(decision.before, factors, 1.0 - decision.chance_none())

    return decide


def _limited(source: EventSource, max_events: int | None, *, quiet: bool = False) -> Any:
    """Pieces of a source up to `max_events`, with a progress bar on a terminal."""
    total = source.n_events
    if max_events is not None:
        total = max_events if total is None else min(total, max_events)
    # Small pieces where little is wanted, so that little is read.
    size = 65536 if max_events is None else min(65536, max_events)
    with _progress(quiet, total) as advance:
        left = max_events
        for events in source.chunks(size):
            piece = events if left is None else events[:left]
            yield piece
            advance(len(piece))
            if left is not None:
                left -= len(piece)
                if not left:
                    return


def _progress(quiet: bool, total: int | None) -> Any:
    """A bar on standard error where that is a terminal; nothing otherwise, so that logs stay short."""
    import contextlib
    from collections.abc import Iterator

    @contextlib.contextmanager
    def bar() -> Iterator[Callable[[int], None]]:
        if quiet or not sys.stderr.isatty():
            yield lambda _: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("events"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("events", total=total)
            yield lambda n: progress.update(task, advance=n)

    return bar()
