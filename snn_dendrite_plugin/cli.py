"""The command ``snn-dendrite``: the registered commands, each of which is imported when it runs.

A command is a function with typer's annotations, registered through the hook ``snn_dendrite_register_commands``; the
built-in ones are modules in ``commands/`` with a function ``command``.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from . import builtin, plugins
from .commands.terminal import OneManner

__all__ = ["app"]


class _Later(TyperCommand):
    """A command as ``--help`` lists it; running it, or asking for its own help, imports it."""

    def __init__(self, spec: plugins.CommandSpec) -> None:
        super().__init__(spec.name, help=spec.summary, short_help=spec.summary, rich_markup_mode=None)
        self.spec = spec

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        return self.load().make_context(*arguments, **options)

    def load(self) -> Any:
        """The command itself; ends the program where it cannot be imported."""
        try:
            function = self.spec.load()
            alone = typer.Typer(**_STYLE)
            alone.command(self.spec.name, context_settings=dict(self.spec.context_settings))(function)
            return typer.main.get_command(alone)
        except (Exception, SystemExit) as error:
            where = f" of {self.spec.distribution}" if self.spec.distribution else ""
            typer.echo(
                f"error: the command {self.spec.name!r}{where} cannot be loaded: {type(error).__name__}: {error}",
                err=True,
            )
            raise typer.Exit(1) from error


class _Commands(OneManner, TyperGroup):
    """The group of registered commands: asked for at every call, as plugins may come and go."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_commands())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        self.commands = {name: _Later(spec) for name, spec in _commands().items()}  # among which a typo is looked up
        return self.commands.get(cmd_name)


def _commands() -> dict[str, plugins.CommandSpec]:
    """The registered commands, and the built-in ones also where the environment leaves the built-in plugin out."""
    found = plugins.commands()
    for fields in builtin.COMMANDS:  # `doctor` and `list` are there to tell what is left out
        found.setdefault(fields["name"], plugins.CommandSpec(**fields))
    return found


_SETTINGS = {"help_option_names": ["-h", "--help"]}
_STYLE: dict[str, Any] = {
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": "rich" if sys.stdout.isatty() else None,
}

app = typer.Typer(cls=_Commands, no_args_is_help=True, context_settings=_SETTINGS, **_STYLE)


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


if __name__ == "__main__":
    app()
