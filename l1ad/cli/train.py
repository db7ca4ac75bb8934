"""`l1ad train`, `l1ad freeze` and `l1ad tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    app.command("train", help=_TRAIN_HELP)(train)
    app.command("freeze", help=_FREEZE_HELP)(freeze)
    app.command("tune", help=_TUNE_HELP)(tune)


_TRAIN_HELP = """Train what a configuration describes, or go on with a run that was killed.

CONFIG is a YAML file or the name of a shipped configuration. The run folder gets the trained model, the scaling of the
inputs, the history and the learning curves.

Example: l1ad train configs/quickstart.yaml"""

_FREEZE_HELP = """Freeze the trained encoder of a run folder into integers: trigger.json.

Example: l1ad freeze runs/quickstart"""

_TUNE_HELP = """Search a configuration for efficiency at a fixed rate against LUTs, or scan its bit widths.

Without --scan-bits Optuna tries sizes, words, sparsity and training; the run folder gets trials.json and pareto.png.
With it every width is trained (QAT) and quantised after a float training (PTQ), and compared in one plot.

Example: l1ad tune configs/quickstart.yaml --trials 30"""


def train(
    config: Annotated[str, typer.Argument(help="YAML file or name of a shipped configuration.")],
    run_dir: Annotated[
        Optional[Path], typer.Option("--run-dir", "-o", help="Run folder; runs/NAME by default.")
    ] = None,
    data: Annotated[
        Optional[list[Path]], typer.Option("--data", help="Train on these files instead; may be repeated.")
    ] = None,
    epochs: Annotated[Optional[int], typer.Option(min=1, help="Other number of epochs.")] = None,
    seed: Annotated[Optional[int], typer.Option(min=0, help="Other seed.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what the run folder holds.")] = False,
) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from l1ad.config import RunConfig
    from l1ad.configs import find_config, read_yaml
    from l1ad.errors import ConfigError
    from l1ad.train import Progress as Standing
    from l1ad.train import train as run

    path = find_config(config)
    value = read_yaml(path)
    if not isinstance(value, dict):
        raise ConfigError(str(path), "content", type(value).__name__, "a mapping of keys to values")
    if data:
        value["data"] = {**(value.get("data") or {}), "sample": None, "paths": [str(file) for file in data]}
    if epochs is not None:
        value["training"] = {**(value.get("training") or {}), "epochs": epochs}
    if seed is not None:
        value["seed"] = seed
    checked = RunConfig.of(value, where=str(path))
    folder = run_dir or Path("runs") / checked.name
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]:>9,.0f} events/s"),
        TextColumn("loss {task.fields[loss]:.4g}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as bars:
        tasks: dict[str, object] = {}

        def show(standing: Standing) -> None:
            if standing.stage not in tasks:
                total = standing.epochs * standing.steps
                tasks[standing.stage] = bars.add_task(standing.stage, total=total, speed=0.0, loss=0.0)
            loss = standing.terms.get("val_loss", standing.terms.get("loss", 0.0))
            done = (standing.epoch - 1) * standing.steps + standing.step
            bars.update(tasks[standing.stage], completed=done, speed=standing.events_per_second, loss=loss)  # type: ignore[arg-type]

        result = run(checked, folder, progress=show, overwrite=overwrite)
    for note in result.notes:
        typer.echo(f"note: {note}")
    if result.resumed:
        typer.echo("note: went on from the checkpoint of a run that was interrupted")
    last = result.history[-1]
    validation = f", validation loss {last['val_loss']:.4g}" if "val_loss" in last else ""
    typer.echo(
        f"{folder}: {len(result.history)} epochs, {result.n_train} events, {result.events_per_second:,.0f} events/s, "
        f"loss {last['loss']:.4g}{validation}, {100 * result.sparsity:.1f} % of the weights are zero"
    )


def freeze(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a finished `l1ad train`.")],
    lint: Annotated[bool, typer.Option("--lint", help="Only list what is wrong with the model.")] = False,
    fix: Annotated[bool, typer.Option("--fix", help="Rewrite what has one meaning only, then freeze.")] = False,
) -> None:
    if lint:
        from l1ad.errors import CheckFailed
        from l1ad.model import load_encoder
        from l1ad.model.lint import lint as find

        findings = find(load_encoder(run_dir))
        for finding in findings:
            typer.echo(str(finding))
        if findings:
            raise CheckFailed(f"{run_dir}: {len(findings)} findings")
        typer.echo(f"{run_dir}: nothing to mend")
        return
    from l1ad.trigger.freeze import freeze as run
    from l1ad.trigger.nodes import Dense
    from l1ad.trigger.widths import prove

    trigger = run(run_dir, fix=fix)
    layers = [node for node in trigger.program.nodes if isinstance(node, Dense)]
    weights, used = sum(node.weights.size for node in layers), sum(node.n_nonzero for node in layers)
    typer.echo(f"{run_dir / 'trigger.json'}: {trigger.kind} on {trigger.layout.name}, hash {trigger.hash[:12]}")
    typer.echo(f"{len(trigger.program.nodes)} nodes, {used} of {weights} weights are not zero")
    for row in prove(trigger.program).rows:
        typer.echo(f"  {row}")


def tune(
    config: Annotated[str, typer.Argument(help="YAML file or name of a shipped configuration.")],
    run_dir: Annotated[
        Optional[Path], typer.Option("--run-dir", "-o", help="Folder; runs/NAME_tune by default.")
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Number of trials.")] = 20,
    scan: Annotated[
        Optional[str], typer.Option("--scan-bits", help="Widths to compare PTQ and QAT at: first:last[:step].")
    ] = None,
    rate_khz: Annotated[float, typer.Option(min=0.001, help="Total rate at which efficiency is taken, kHz.")] = 1.0,
    epochs: Annotated[Optional[int], typer.Option(min=1, help="Other number of epochs, without pruning.")] = None,
    zero_bias: Annotated[
        Optional[Path], typer.Option("--zero-bias", help="Events for the rate; the bundled weighted sample by default.")
    ] = None,
    signal: Annotated[
        Optional[list[Path]],
        typer.Option("--signal", help="Signal file, repeatable; the bundled ones by default."),
    ] = None,
) -> None:
    from l1ad.config import RunConfig
    from l1ad.configs import find_config, read_yaml
    from l1ad.events import Events
    from l1ad.events.bundled import bundled, bundled_signals
    from l1ad.tune import parse_range, scan_bits
    from l1ad.tune import tune as search

    path = find_config(config)
    checked = RunConfig.read(path)
    if epochs is not None:
        value = {**read_yaml(path), "pruning": {}}
        value["training"] = {**(value.get("training") or {}), "epochs": epochs}
        checked = RunConfig.of(value, where=str(path))
    widths = parse_range(scan) if scan else ()
    folder = run_dir or Path("runs") / f"{checked.name}_tune"
    background = Events.read(zero_bias or bundled("zero_bias_weighted"))
    files = {file.stem: file for file in signal} if signal else bundled_signals()
    signals = {name: Events.read(file) for name, file in files.items()}
    if widths:
        scan_bits(checked, folder, background, signals, widths, rate_khz=rate_khz, report=typer.echo)
        typer.echo(f"{folder / 'scan_bits.png'}: PTQ and QAT at {len(widths)} widths")
        return
    done = search(checked, folder, background, signals, trials=trials, rate_khz=rate_khz, report=typer.echo)
    typer.echo(f"{folder / 'pareto.png'}: {len(done)} trials")
