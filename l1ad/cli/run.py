"""`l1ad run`, `l1ad report` and `l1ad doctor`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    from l1ad.runfolder import Done


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    app.command("run")(run)
    app.command("report")(report)
    app.command("doctor")(doctor)


class _Log:
    """A plain log: one line when a step begins and one when it ends."""

    def __init__(self) -> None:
        self.step = ""

    def started(self, name: str, about: str) -> None:
        self.step = name
        typer.echo(f"{name}: {about}")

    def note(self, text: str) -> None:
        del text

    def finished(self, done: Done) -> None:
        typer.echo(f"{done.name}: {_state(done)}")

    def close(self) -> None:
        """Nothing stays open."""


class _Display:
    """A line that changes while a step runs, and stays when it has ended."""

    def __init__(self, console: Any) -> None:
        self._console = console
        self._status: Any = None
        self._start = 0.0
        self._about = ""
        self.step = ""

    def started(self, name: str, about: str) -> None:
        self._start, self._about, self.step = time.monotonic(), f"{name}: {about}", name
        self._status = self._console.status(self._about)
        self._status.start()

    def note(self, text: str) -> None:
        self._status.update(f"{self._about} ({text}; {time.monotonic() - self._start:.0f} s)")

    def finished(self, done: Done) -> None:
        self._status.stop()
        self._console.print(f"[bold]{done.name:10s}[/bold] {_state(done)}", highlight=False)

    def close(self) -> None:
        """Stop the line if a step was interrupted."""
        if self._status is not None:
            self._status.stop()


def _state(done: Done) -> str:
    if done.state == "unchanged":
        return f"unchanged, skipped; {done.summary}"
    return f"{done.summary} ({done.seconds:.1f} s)"


def run(
    config: Annotated[str, typer.Argument(help="YAML file or name of a shipped configuration.")],
    run_dir: Annotated[
        Optional[Path], typer.Option("--run-dir", "-o", help="Run folder; runs/NAME by default.")
    ] = None,
    first: Annotated[Optional[str], typer.Option("--from", help="Do this step and the later ones again.")] = None,
    last: Annotated[Optional[str], typer.Option("--until", help="Stop after this step.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Do every step again.")] = False,
    setting: Annotated[
        Optional[list[str]], typer.Option("--set", help="KEY=VALUE in the configuration, as training.epochs=5; repeat.")
    ] = None,
) -> None:
    """All steps: data, train, freeze, convert, validate, calibrate, report.

    A step whose inputs have not changed is skipped; a run that was killed goes on where it was.

    Example: l1ad run quickstart --until freeze
    """
    from rich.console import Console

    from l1ad.config import RunConfig
    from l1ad.configs import apply_settings, find_config, read_yaml
    from l1ad.workflow import run as run_steps

    path = find_config(config)
    checked = RunConfig.of(apply_settings(read_yaml(path), setting or [], where=str(path)), where=str(path))
    folder = run_dir or Path("runs") / checked.name
    console = Console()
    display = _Display(console) if console.is_terminal else _Log()
    try:
        run_steps(checked, folder, display, first=first, last=last, force=force)
    except KeyboardInterrupt:
        display.close()
        again = "nothing is lost: the same command goes on from there"
        typer.echo(f"l1ad: interrupted in the step {display.step}; {again}", err=True)
        sys.exit(130)
    finally:
        display.close()
    page = folder / "report.html"
    if page.exists() and last in (None, "report"):
        typer.echo(f"open {page}")


def report(
    run_dir: Annotated[Path, typer.Argument(help="Run folder with trigger.json and thresholds.json.")],
    zero_bias: Annotated[
        Optional[list[Path]], typer.Option("--zero-bias", help="Zero bias; the run's own, or the bundled one, without.")
    ] = None,
    signals: Annotated[Optional[list[str]], typer.Option("--signals", help="NAME=FILE; repeat.")] = None,
    menu: Annotated[str, typer.Option(help="Menu to be pure of.")] = "run3_lite",
    displays: Annotated[int, typer.Option(min=0, help="Crossings to draw.")] = 12,
) -> None:
    """Write the page of a run folder: report.html.

    Example: l1ad report runs/quickstart
    """
    from l1ad.workflow import write_page

    entries = [entry.partition("=") for entry in signals or []]
    chosen = {name: Path(path) for name, _, path in entries}
    page = write_page(run_dir, zero_bias=zero_bias, signals=chosen or None, menu=menu, displays=displays)
    typer.echo(f"open {page}")


def doctor() -> None:
    """What is installed, and what each missing thing would give.

    Example: l1ad doctor
    """
    import sys

    from l1ad import __version__
    from l1ad.doctor import examine
    from l1ad.errors import CheckFailed

    typer.echo(f"l1ad {__version__}, Python {sys.version.split()[0]}")
    missing = []
    for item in examine():
        if item.found:
            typer.echo(f"  found    {item.name}: {item.found}")
        else:
            typer.echo(f"  missing  {item.name}: would give {item.gives}; {item.get}")
            if item.needed:
                missing.append(item.name)
    if missing:
        raise CheckFailed(f"needed and missing: {', '.join(missing)}")
