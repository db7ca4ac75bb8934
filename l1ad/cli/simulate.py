"""`l1ad data simulate` and `l1ad data realism`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def simulate_command(
    process: Annotated[str, typer.Option(help="zero_bias, or the name of a signal; 'list' names them.")] = "zero_bias",
    out: Annotated[Path | None, typer.Option("--out", help="Events file to write (HDF5).")] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Number of crossings.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed; the result does not depend on the workers.")] = 1,
    layout: Annotated[
        str, typer.Option(help="What the trigger reports: cms_ugt, cms_calo_regions (18 x 14) or atlas_l1topo.")
    ] = "cms_ugt",
    stratified: Annotated[
        bool, typer.Option("--stratified", help="Zero bias with populated tails and weights.")
    ] = False,
    mu: Annotated[float, typer.Option(help="Mean number of collisions a crossing.")] = 52.0,
    mu_spread: Annotated[float, typer.Option(help="Spread of that number from crossing to crossing.")] = 6.0,
    workers: Annotated[int, typer.Option(min=1, help="Processes to use.")] = 1,
    library: Annotated[
        Path | None, typer.Option(help="Folder of generator libraries; made there when missing (minutes, once).")
    ] = None,
    compression: Annotated[str, typer.Option(help="gzip or none.")] = "gzip",
) -> None:
    """Simulate crossings: pile-up, detector and trigger, in hardware integers.

    Example: l1ad data simulate --process haa4b_ma15 --n 5000 --seed 1 --out haa4b.h5
    """
    from l1ad.errors import InputError
    from l1ad.events import EventsWriter
    from l1ad.events.simulate.processes import SIGNALS
    from l1ad.events.simulate.produce import simulate

    if process == "list":
        for name, entry in SIGNALS.items():
            typer.echo(f"{name:18s} {entry.about}")
        return
    if out is None:
        raise InputError("--out", found="no file name", expected="the events file to write, such as zb.h5")
    # The file is opened first: a place that cannot be written is said before minutes of work, not after them.
    with EventsWriter(out, compression=None if compression == "none" else compression) as writer:
        events = simulate(
            process,
            n,
            seed=seed,
            layout=layout,
            stratified=stratified,
            mu=mu,
            mu_spread=mu_spread,
            workers=workers,
            library=library,
            progress=lambda text: typer.echo(text, err=True),
        )
        writer.append(events)
    weights = f", mean weight {events.weight.mean():.4f}" if stratified else ""
    where = "" if layout == "cms_ugt" else f" in {layout}"
    typer.echo(f"{out}: {len(events)} crossings of {process}{where}{weights}")


def realism_command(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(help="Simulated zero_bias and tt_hadronic files, or a folder of libraries; else the bundled."),
    ] = None,
) -> None:
    """Compare the simulation with public CMS figures; exit status 1 if a figure is missed.

    Example: l1ad data realism zero_bias.h5 zero_bias_weighted.h5 tt_hadronic.h5
    """
    from l1ad.events.simulate.realism import bundled_sources, format_report, realism_tables

    report = realism_tables(*(sources or bundled_sources()))
    typer.echo(format_report(report))
    if not report.passed:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    app.command("simulate")(simulate_command)
    app.command("realism")(realism_command)
