"""`l1ad compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command("compare")(compare)


def compare(
    triggers: Annotated[list[Path], typer.Argument(help="Run folders or trigger.json files.")],
    zero_bias: Annotated[
        Optional[list[str]],
        typer.Option(
            "--zero-bias", help="Zero bias for the thresholds; the bundled weighted sample by default; repeat."
        ),
    ] = None,
    rate: Annotated[float, typer.Option(min=1e-6, help="Rate in kHz.")] = 1.0,
    signals: Annotated[
        Optional[list[str]],
        typer.Option("--signals", help="NAME=FILE of a signal; repeat. The bundled ones by default."),
    ] = None,
    train: Annotated[
        Optional[list[str]],
        typer.Option("--train", help="Zero bias that the baselines learn from; that of --zero-bias by default."),
    ] = None,
    menu: Annotated[
        Optional[str],
        typer.Option(help="Menu for pure efficiencies, a name or a file; else the decisions in the data."),
    ] = None,
    bunches: Annotated[int, typer.Option(min=1, help="Colliding bunches.")] = 2544,
    baselines: Annotated[bool, typer.Option("--baselines/--no-baselines", help="With every baseline.")] = True,
    replicas: Annotated[int, typer.Option(min=2, help="Replicas of the bootstrap.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 1,
    out: Annotated[
        Optional[list[Path]], typer.Option("--out", help="File to write: .json, .md or .png; may be repeated.")
    ] = None,
) -> None:
    """Compare triggers and baselines: efficiencies of each signal at one rate, with statistical errors.

    Example: l1ad compare runs/best runs/quickstart --zero-bias zb.h5 --rate 1 --out table.md --out table.png
    """
    from l1ad.cli.calibrate import _progress, _signals
    from l1ad.events.bundled import bundled, bundled_signals
    from l1ad.rates import compare as rates
    from l1ad.rates.rates import BaseRate
    from l1ad.trigger.program import Trigger

    for path in out or []:
        rates.check_suffix(path)
    loaded = [Trigger.load(path) for path in triggers]
    files = _signals(signals) if signals else {name: [str(path)] for name, path in bundled_signals().items()}
    sample = rates.Sample.read(zero_bias or [str(bundled("zero_bias_weighted"))], files, menu=menu)
    names = [trigger.name for trigger in loaded]
    if len(set(names)) < len(names):
        names = [path.parent.name if path.name == "trigger.json" else path.stem for path in triggers]
    scores: dict[str, Any] = {name: trigger.score for name, trigger in zip(names, loaded)}
    if baselines:
        from l1ad.baselines import all_baselines

        scores |= all_baselines(rates.read_events(train) if train else sample.zero_bias, loaded)
    with _progress() as progress:
        result = rates.compare(
            sample.weights,
            sample.signal_weights,
            [sample.contestant(name, score) for name, score in scores.items()],
            rate * 1e3,
            base=BaseRate.from_bunches(bunches),
            reference="joint tail" if baselines else None,
            replicas=replicas,
            seed=seed,
            progress=progress,
        )
    name = None if sample.menu is None else sample.menu.name
    typer.echo(rates.page(result, menu=name))
    for path in out or []:
        rates.write(result, path, menu=name)
        typer.echo(f"wrote {path}")
