"""`l1ad search dijet`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def dijet_command(
    config: Annotated[str, typer.Argument(help="YAML file, or the name of a shipped search configuration.")],
    events: Annotated[
        list[Path], typer.Option("--events", help="Dijet files (HDF5 or parquet); several are put together.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.")],
    signal: Annotated[Path | None, typer.Option(help="Dijet file of a signal to inject.")] = None,
    n_signal: Annotated[int, typer.Option(min=0, help="How many of its events.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes for the trainings.")] = 1,
) -> None:
    """Search for a resonance in dijets: score, select, fit, p-values, limits.

    Example: l1ad search dijet dijet_quickstart --events dijets.h5 --out search
    """
    from concurrent.futures import ProcessPoolExecutor

    import numpy as np

    from l1ad.configs import find_config
    from l1ad.errors import InputError
    from l1ad.search import jets
    from l1ad.search.dijet_search import SearchConfig, search, write

    settings = SearchConfig.read(find_config(config, "search"))
    if (signal is None) != (n_signal == 0):
        given = "--signal without --n-signal" if signal is not None else "--n-signal without --signal"
        raise InputError("command line", "injection", given, "both or none")
    parts = [jets.read(path) for path in events]
    if signal is not None:
        injected = jets.read(signal)
        if len(injected) < n_signal:
            raise InputError(str(signal), "events", len(injected), f"at least {n_signal} to inject")
        rng = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(2,)))
        parts.append(injected[np.sort(rng.choice(len(injected), n_signal, replace=False))])
    data = jets.concatenate(parts)

    def progress(text: str) -> None:
        typer.echo(text, err=True)

    if workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            result = search(data, settings, executor=pool, progress=progress)
    else:
        result = search(data, settings, progress=progress)
    for path in write(result, out):
        typer.echo(path)
    fit = result.choice.fit
    typer.echo(
        f"window {settings.window}: {result.n_selected} of {result.n_events} events selected; background with "
        f"{fit.order} parameters, chi2/ndof {fit.chi2:.1f}/{fit.ndof}"
    )
    if result.proof is not None:
        typer.echo(
            f"no leak: {result.proof.n_events} events, {result.proof.n_models} models, "
            f"{result.proof.n_comparisons} comparisons"
        )
    line = f"most significant: {result.mass:.0f} GeV, local p {result.p_local:.3g} ({result.z_local:.2f} sigma)"
    if result.p_window is not None and result.p_global is not None:
        low, high = result.p_window.interval
        line += (
            f"; in the window {result.p_window.p:.3g} [{low:.2g}, {high:.2g}] by toys, "
            f"{result.p_window_gross_vitells:.3g} by extrapolation; in the search {result.p_global:.3g}"
        )
    typer.echo(line)
    if result.scan.failed:
        masses = ", ".join(f"{m:.0f}" for m in result.scan.failed)
        typer.echo(f"fits that did not converge, left out: {masses} GeV")


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    app.command("dijet")(dijet_command)
