"""The command ``snn-dendrite``: a registry of commands, each of which lives in a module of its own.

A command is a function ``command`` with typer's annotations, in a module that imports nothing heavy at its top (torch,
a host, matplotlib), so that ``snn-dendrite --help`` stays quick. To add one, write its module and name it below.
"""

from __future__ import annotations

import importlib
import sys
from typing import Annotated

import typer
from typer.core import TyperGroup

from .commands.terminal import OneManner

__all__ = ["COMMANDS", "app"]

COMMANDS = {  # name -> module with a function `command`
    "demo": ".commands.demo",
    "list": ".commands.list",
    "doctor": ".commands.doctor",
    "bench": ".commands.bench",
    "run": ".commands.run",
    "convert": ".commands.convert",
    "zoo": ".commands.zoo",
}


class _Commands(OneManner, TyperGroup):
    """The group of commands."""


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from . import __version__

        typer.echo(f"snn-dendrite {__version__}")
        raise typer.Exit()


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Dendritic, learned-dynamics and time-to-first-spike neurons for SpikingJelly and snnTorch."""


for _name, _module in COMMANDS.items():
    _found = importlib.import_module(_module, __package__)
    app.command(_name, context_settings=getattr(_found, "CONTEXT_SETTINGS", None))(_found.command)


if __name__ == "__main__":
    app()
