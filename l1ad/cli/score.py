"""`l1ad score`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from l1ad.scoring import ScoreRun
    from l1ad.trigger import Trigger


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command("score")(score)


def score(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Files, folders or glob patterns.")],
    trigger: Annotated[Path, typer.Option("--trigger", "-t", help="trigger.json, or the run folder that holds it.")],
    out: Annotated[Optional[Path], typer.Option("--out", "-o", help="HDF5 file for the scores (int32, 1/16).")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of this process, or of each worker.")] = 2,
    workers: Annotated[int, typer.Option(min=1, help="Processes of this machine.")] = 1,
    dask: Annotated[Optional[str], typer.Option(help="Address of a dask scheduler, or local for --workers.")] = None,
    isa: Annotated[
        Optional[str], typer.Option(help="portable, avx2, avx512 or avx512vnni; the best of the machine by default.")
    ] = None,
    format: Annotated[
        str, typer.Option(help="auto looks into each file; or a format of `l1ad data convert`.")
    ] = "auto",
    saturation: Annotated[str, typer.Option(help="Saturated objects: keep (as firmware), mask or drop.")] = "keep",
) -> None:
    """Score files with a frozen trigger in one pass, bit-exact with its firmware, and show the distribution.

    Example: l1ad score zb.h5 --trigger runs/quickstart --out scores.h5
    """
    import time

    from l1ad.scoring import score_files
    from l1ad.trigger import Trigger

    program = Trigger.load(trigger)
    start = time.perf_counter()
    run = score_files(
        program,
        files,
        out=out,
        threads=threads if workers == 1 and dask is None else max(threads // workers, 1),
        workers=workers,
        dask=dask,
        isa=isa,
        format=format,
        saturation=saturation,
    )
    seconds = time.perf_counter() - start
    typer.echo("\n".join(_lines(program, run)))
    typer.echo(f"time   {seconds:.2f} s, {run.n_events / seconds / 1e6:.3g} million events a second")
    if out is not None:
        typer.echo(f"wrote  {out}")


def _lines(trigger: Trigger, run: ScoreRun) -> list[str]:
    """The distribution in words: quantiles of the weighted scores, and what passes each threshold of the trigger."""
    import numpy as np

    from l1ad.scores import SCORE_LSB

    lines = [f"trigger {trigger.name} {trigger.hash[:12]}, {run.n_events} events of {len(run.sources)} files"]
    lines += [f"note   {note}" for note in run.notes]
    if not run.n_events:
        return lines
    tails = run.histogram.tails()
    total = tails.sum_w[0]
    if tails.weighted:
        lines.append(f"weight {total:.6g} in all")
    if total <= 0:
        return lines
    lines.append("score at or above which this part of the weight lies (integer, and in its own unit):")
    for part in (0.5, 0.1, 1e-2, 1e-3, 1e-4, 1e-5):
        # sum_w falls with the threshold: the last one that still has the part.
        found = int(np.flatnonzero(tails.sum_w >= part * total)[-1])
        lines.append(f"{part:>9g} {found:>8d} {found * SCORE_LSB:>12.4f}")
    for name, threshold in sorted(trigger.thresholds.items(), key=lambda item: item[1]):
        threshold = min(max(int(threshold), 0), len(tails.sum_w) - 1)
        passed, share = int(tails.counts[threshold]), tails.sum_w[threshold] / total
        lines.append(f"{name}: {passed} events at or above {threshold}, {share:.4g} of the weight")
    return lines
