"""`l1ad search simulate` and `l1ad search cluster`: files of dijets from a generator or from particles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def simulate_command(
    process: Annotated[str, typer.Option(help="qcd, or the name of a signal; 'list' names them.")] = "qcd",
    out: Annotated[Path | None, typer.Option("--out", help="Dijet file to write (HDF5).")] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Number of selected events.")] = 1000,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Seed; the result does not depend on the workers.")
    ] = 1,
    mass: Annotated[float | None, typer.Option(help="Mass of the resonance in GeV.")] = None,
    daughter: Annotated[
        list[str] | None, typer.Option("--daughter", help="NAME=GEV, mass of what it decays to; can be repeated.")
    ] = None,
    m_jj_min: Annotated[float, typer.Option(help="Least dijet mass in GeV.")] = 1300.0,
    m_jj_max: Annotated[float, typer.Option(help="Largest dijet mass in GeV.")] = 13600.0,
    sideband: Annotated[
        bool, typer.Option("--sideband", help="2.0 < |delta eta| < 2.5 instead of the signal region.")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="With the underlying event: slower.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes to use.")] = 1,
    work: Annotated[
        Path | None, typer.Option(help="Folder for the pieces: a run that was interrupted goes on from them.")
    ] = None,
) -> None:
    """Simulate dijets with substructure: QCD, or a resonance.

    Example: l1ad search simulate --process x_yy_4q --mass 3000 --daughter y=170 --daughter y2=400 --n 2000 --out x.h5
    """
    from l1ad.errors import InputError
    from l1ad.io import make_folder
    from l1ad.search.simulate import NO_UNDERLYING_EVENT, SIGNALS, Recipe, Selection, qcd, signal, simulate

    if process == "list":
        typer.echo(f"{'qcd':10s} QCD dijets")
        for name, entry in SIGNALS.items():
            masses = ", ".join(f"{key}={value:g}" for key, value in entry.daughters)
            typer.echo(f"{name:10s} {entry.about}: mass={entry.mass:g}, {masses}. {entry.stands_for}.")
        return
    if out is None:
        raise InputError("--out", found="no file name", expected="the dijet file to write, such as qcd.h5")
    _check_out(out)
    if work is not None:
        make_folder(work)
    masses_given = dict(_mass(text) for text in daughter or ())
    selection = Selection(m_jj_min=m_jj_min, m_jj_max=m_jj_max)
    if sideband:
        selection = selection.sideband()
    extra = () if full else NO_UNDERLYING_EVENT
    if process == "qcd":
        if mass is not None or masses_given:
            raise InputError("command line", "--mass or --daughter", "with qcd", "only with a signal")
        recipe = qcd(selection, extra=extra)
    else:
        recipe = Recipe(signal(process, mass, **masses_given), selection, extra=extra)

    def progress(done: int, total: int) -> None:
        typer.echo(f"piece {done} of {total}", err=True)

    sample = simulate(recipe, n, seed=seed, workers=workers, folder=work, progress=progress)
    attributes: dict[str, str | float] = {"recipe": recipe.to_json(), "seed": seed, "sigma_fb": sample.sigma_fb}
    sample.dijets.write(out, attributes=attributes)
    typer.echo(
        f"{out}: {len(sample)} dijets of {recipe.process.name}, {len(sample) / sample.n_tried:.3f} of those generated"
    )


def cluster_command(
    file: Annotated[Path, typer.Argument(help="Particle file of the LHC Olympics (HDF5, 2100 or 2101 columns).")],
    out: Annotated[Path, typer.Option("--out", help="Dijet file to write (HDF5).")],
    radius: Annotated[float, typer.Option(help="Of the anti-kt jets.")] = 1.0,
    pt_min: Annotated[float, typer.Option(help="Of both jets, in GeV.")] = 100.0,
    max_events: Annotated[int | None, typer.Option(min=1, help="Events to read; all if not given.")] = None,
) -> None:
    """Cluster particles to dijets with N-subjettiness and constituents.

    Example: l1ad search cluster events_anomalydetection.h5 --out dijets.h5 --max-events 100000
    """
    from l1ad.search.clustering import cluster_file

    _check_out(out)

    def progress(done: int) -> None:
        typer.echo(f"{done} events", err=True)

    n_read, n_kept = cluster_file(file, out, radius=radius, pt_min=pt_min, max_events=max_events, progress=progress)
    typer.echo(f"{out}: {n_kept} dijets of {n_read} events")


def _check_out(out: Path) -> None:
    """Say before the work, and not after it, that a file cannot be written there."""
    from l1ad.errors import InputError
    from l1ad.io import require_folder

    if out.is_dir():
        raise InputError(str(out), "--out", "a folder", "the name of a file")
    require_folder(out.parent)


def _mass(text: str) -> tuple[str, float]:
    from l1ad.errors import InputError

    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError as error:
        raise InputError("command line", "--daughter", text, "NAME=GEV, such as y=170") from error


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    app.command("simulate")(simulate_command)
    app.command("cluster")(cluster_command)
