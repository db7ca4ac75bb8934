"""`l1ad display` and `l1ad catalogue`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

Trigger = Annotated[
    Optional[Path],
    typer.Option("--trigger", help="trigger.json or a run folder; the latest run below runs/ without."),
]


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    app.command("display")(display)
    app.command("catalogue")(catalogue)


def display(
    source: Annotated[Path, typer.Argument(help="Events, of any supported format.")],
    trigger: Trigger = None,
    top: Annotated[int, typer.Option(min=1, help="How many of the most anomalous crossings.")] = 20,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("displays"),
    suffix: Annotated[str, typer.Option("--format", help="png or pdf.")] = "png",
) -> None:
    """Draw the most anomalous crossings of a file, and say why they are.

    Example: l1ad display zb.h5 --top 20
    """
    from l1ad.errors import InputError
    from l1ad.events.store import Events
    from l1ad.io import atomic_path
    from l1ad.report.display import display_title, draw, explain, most_anomalous, neighbours
    from l1ad.runfolder import latest_run
    from l1ad.trigger.program import Trigger

    if suffix not in ("png", "pdf"):
        raise InputError("display", "--format", suffix, "png or pdf")
    where = trigger or latest_run()
    program, events = Trigger.load(where), Events.read(source)
    typer.echo(f"{program.name} {program.hash[:12]} ({where}) on {len(events):,} crossings")
    for rank, index in enumerate(most_anomalous(program, events, top), start=1):
        view = explain(program, events, int(index))
        near = neighbours(program, events, int(index), events, k=4)
        path = out / f"event_{rank:03d}.{suffix}"
        with atomic_path(path) as temporary:
            draw(view, title=display_title(view, rank)).savefig(temporary, format=suffix, dpi=110)
        strongest = max(view.objects, key=lambda o: abs(o.removal), default=None)
        why = f"{strongest.slot} ({strongest.pt:g} GeV) carries {-strongest.removal:g}" if strongest else "it is empty"
        like = ", ".join(f"{i} (score {s / 16:g})" for i, s, _ in [n for n in near if n[0] != index][:3])
        typer.echo(f"{rank:3d}. crossing {index}: score {view.value:g}; {why}; nearest: {like}; {path}")


def catalogue(
    source: Annotated[Path, typer.Argument(help="Events, of any supported format.")],
    trigger: Trigger = None,
    threshold: Annotated[
        Optional[int], typer.Option(help="Integer threshold; the lowest of the run's thresholds.json without.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Table to write: .parquet or .h5.")] = Path("catalogue.parquet"),
    space: Annotated[str, typer.Option(help="latent or inputs.")] = "latent",
    min_cluster_size: Annotated[int, typer.Option(min=2, help="Smallest cluster.")] = 15,
) -> None:
    """Cluster the selected crossings and say what sets each cluster apart.

    Example: l1ad catalogue zb.h5 --trigger runs/quickstart --out catalogue.parquet
    """
    from l1ad.errors import InputError
    from l1ad.events.store import Events
    from l1ad.io import read_json
    from l1ad.report.catalogue import Space, write_catalogue
    from l1ad.report.catalogue import catalogue as cluster
    from l1ad.runfolder import latest_run
    from l1ad.trigger.program import Trigger

    if space not in ("latent", "inputs"):
        raise InputError("catalogue", "--space", space, "latent or inputs")
    if out.suffix not in (".parquet", ".h5", ".hdf5"):
        raise InputError("catalogue", "--out", out.name, "a name ending in .parquet or .h5")
    where = trigger or latest_run()
    if threshold is None:
        folder = where if where.is_dir() else where.parent
        threshold = min(int(entry["threshold"]) for entry in read_json(folder / "thresholds.json")["thresholds"])
    events = Events.read(source)
    chosen: Space = "inputs" if space == "inputs" else "latent"
    result = cluster(Trigger.load(where), events, threshold, space=chosen, min_cluster_size=min_cluster_size)
    write_catalogue(out, result, events)
    typer.echo(f"{len(result.index)} crossings at or above {threshold}, clustered in {space}")
    for c in result.clusters:
        name = "no cluster" if c.number < 0 else f"cluster {c.number}"
        features = ", ".join(f"{f} {here:.3g} (zero bias {ref:.3g})" for f, here, ref, _ in c.distinguishing[:3])
        typer.echo(f"{name}: {c.size} crossings, mean score {c.mean_score / 16:.1f}; {features}")
    typer.echo(f"wrote {out}")
