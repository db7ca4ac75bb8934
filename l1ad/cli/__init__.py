"""The command line: one verb a step, one module a group of verbs, no logic.

Each module here has ``register(app)`` (or ``register(data_app)``), which adds its verbs; what a verb does lives in the
package it calls, imported inside the verb so that ``l1ad --help`` stays quick.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Annotated

import typer

from l1ad.cli.interrupts import heeded_interrupts
from l1ad.errors import L1adError

app = typer.Typer(
    name="l1ad",
    help="Anomaly detection in a Level-1 trigger: data, training, frozen triggers, firmware, thresholds, searches.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Simulate, convert and inspect events.", no_args_is_help=True, rich_markup_mode=None)
search_app = typer.Typer(help="Offline searches on the same scores.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")
app.add_typer(search_app, name="search")

#: Modules of this package in the order of the steps, with the application that their verbs belong to.
_VERBS = (
    ("data", data_app),
    ("simulate", data_app),
    ("score", app),
    ("calibrate", app),
    ("compare", app),
    ("train", app),
    ("firmware", app),
    ("display", app),
    ("run", app),
    ("search", search_app),
    ("dijets", search_app),
)


def _version(value: bool) -> None:
    if value:
        from l1ad import __version__

        typer.echo(f"l1ad {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    del version
    if debug:
        os.environ["L1AD_DEBUG"] = "1"


for _name, _parent in _VERBS:
    importlib.import_module(f"l1ad.cli.{_name}").register(_parent)


#: What typer raises on words it cannot take; it does not export the base class under a name of its own.
_UsageError = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "UsageError")


#: Exit status of a program that a signal has ended: 128 and the number of SIGINT.
_INTERRUPTED = 130


def main() -> None:
    """Run the command line; an error that a user can cause is one line and a non-zero exit status."""
    try:
        with heeded_interrupts():
            status = app(standalone_mode=False)
    except L1adError as error:
        if os.environ.get("L1AD_DEBUG"):
            raise
        sys.stderr.write(f"l1ad: error: {error}\n")
        sys.exit(error.exit_status)
    except _UsageError as error:  # type: ignore[misc]
        message = error.format_message().rstrip(".")
        if type(error).__name__ != "NoArgsIsHelpError":
            message = f"l1ad: error: {' '.join(message.split())}; --help says more"
        sys.stderr.write(f"{message}\n")
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("l1ad: interrupted\n")
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has gone (`l1ad ... | head`): that is not an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    if status == _INTERRUPTED:
        # Some versions of typer turn the interrupt into a status, and say nothing.
        sys.stderr.write("l1ad: interrupted\n")
    sys.exit(status if isinstance(status, int) else 0)
