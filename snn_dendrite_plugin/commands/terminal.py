"""Text output of the commands: colours, boxes and moving bars on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

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
    """Print a table: drawn on a terminal, Markdown with unfolded lines elsewhere; ``right`` columns align right."""
    cells = [[str(cell) for cell in row] for row in rows]
    if not out.is_terminal:
        _print_markdown(out, list(columns), cells, right)
        return
    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))  # Text: square brackets are not markup
    out.print(table)


def _print_markdown(out: Console, columns: list[str], rows: list[list[str]], right: Sequence[str]) -> None:
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in [columns, None, *rows]:
        if row is None:
            marks = ["-" * (w + 1) + ":" if c in right else "-" * (w + 2) for c, w in zip(columns, widths, strict=True)]
            line = "|" + "|".join(marks) + "|"
        else:
            padded = [
                text.rjust(w) if column in right else text.ljust(w)
                for text, column, w in zip(row, columns, widths, strict=True)
            ]
            line = "| " + " | ".join(padded) + " |"
        out.print(line, soft_wrap=True, markup=False)


def fail(message: str, code: int = 1) -> NoReturn:
    """End the command with a message on stderr."""
    console(stderr=True).print(Text(f"error: {message}"), soft_wrap=True)
    raise typer.Exit(code)
