"""Text output of the commands: colours, boxes and moving bars on a terminal, plain lines anywhere else."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from .. import tables

__all__ = [
    "FAILED",
    "INTERRUPTED",
    "USAGE",
    "OneManner",
    "check_installed",
    "check_output",
    "console",
    "fail",
    "heading",
    "show_table",
]

# Exit codes, the same for all commands (docs/commands.md).
FAILED = 1  # it was started as asked, and could not be done
USAGE = 2  # the command line is wrong: nothing was done
INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended

_ClickError: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")  # typer's or click's
_Abort: Any = typer.Abort


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


def fail(message: str, code: int = FAILED) -> NoReturn:
    """End the command with one line on stderr, ``error: message``; see the exit codes above."""
    console(stderr=True).print(Text(f"error: {message}"), soft_wrap=True)
    raise typer.Exit(code)


def check_output(option: str, path: Path, suffixes: Sequence[str] = ()) -> None:
    """End the command before its work, with code 2, where a file cannot be written at its end."""
    if suffixes and path.suffix.lower() not in suffixes:
        *most, last = suffixes
        fail(f"{option} is {str(path)!r}; it must end in {', '.join(most)} or {last}", code=USAGE)
    if not path.parent.is_dir():
        fail(f"{option} is {str(path)!r}, but there is no directory {str(path.parent)!r}", code=USAGE)
    if path.is_dir():
        fail(f"{option} is {str(path)!r}, which is a directory; name a file", code=USAGE)
    new = not path.exists()
    try:
        path.open("ab").close()  # what is there stays as it is
    except OSError as error:
        fail(f"{option} is {str(path)!r}, which cannot be written: {error.strerror}", code=USAGE)
    if new:
        path.unlink()


def check_installed(who: str, module: str, extra: str, purpose: str = "") -> None:
    """End the command with the line that installs what it needs, where that is missing."""
    if importlib.util.find_spec(module) is None:
        needs = f"{who} needs {module}{f' for {purpose}' if purpose else ''}"
        fail(f'{needs}, which is not installed: pip install "snn-dendrite-plugin[{extra}]"')


class OneManner:
    """For the group of commands: wrong options are told as all other errors are, in one line on stderr."""

    def main(self, *arguments: Any, standalone_mode: bool = True, **options: Any) -> Any:
        if not standalone_mode:
            return super().main(*arguments, standalone_mode=False, **options)  # type: ignore[misc]
        try:
            code = super().main(*arguments, standalone_mode=False, **options)  # type: ignore[misc]
        except _Abort:
            code = INTERRUPTED
        except _ClickError as error:
            if type(error).__name__ == "NoArgsIsHelpError":  # the message is the help
                error.show()
            else:
                _tell(error)
            code = error.exit_code
        sys.exit(code if isinstance(code, int) else 0)


def _tell(error: Any) -> None:
    """One line on stderr: what is wrong with the command line, and where its help is."""
    message = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    where = f" (see {context.command_path} --help)" if context is not None else ""
    print(f"error: {message[:1].lower()}{message[1:]}{where}", file=sys.stderr)
