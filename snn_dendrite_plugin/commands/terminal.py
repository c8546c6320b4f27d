"""Text output of the commands: colours, boxes and moving bars on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from .. import tables

__all__ = ["console", "fail", "heading", "show_table"]


def console(stderr: bool = False) -> Console:
    """A console that writes no control codes unless its stream is a terminal, whatever the environment asks for."""
    stream = sys.stderr if stderr else sys.stdout
    if stream.isatty():
        return Console(file=stream, highlight=False)
    return Console(file=stream, force_terminal=False, color_system=None, highlight=False, soft_wrap=True)


def heading(out: Console, text: str) -> None:
    out.print()
    out.print(Text(text, style="bold"))


def show_table(out: Console, columns: Sequence[str], rows: Iterable[Sequence[Any]], right: Sequence[str] = ()) -> None:
    """Print a table: on a terminal folded to its width, elsewhere Markdown, a line per row; ``right`` aligns right."""
    if not out.is_terminal:
        out.print(tables.markdown(columns, rows, right), soft_wrap=True, markup=False)
        return
    lines = tables.plain(columns, rows, right, width=out.width, rule=True)
    head, line, body = lines.partition("\n-")
    out.print(Text(head, style="bold"), Text(line + body), sep="", soft_wrap=True)  # Text: brackets are no markup


def fail(message: str, code: int = 1) -> NoReturn:
    """End the command with a message on stderr."""
    console(stderr=True).print(Text(f"error: {message}"), soft_wrap=True)
    raise typer.Exit(code)
