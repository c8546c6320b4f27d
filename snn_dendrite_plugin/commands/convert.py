"""``snn-dendrite convert``: the command; the work is in :mod:`..conversion.checkpoint`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from .settings import parse_settings
from .terminal import USAGE, check_output, console, fail

__all__ = ["command"]


def command(
    source: Annotated[Path, typer.Argument(metavar="IN.pt", help="Checkpoint of a whole network.")],
    target: Annotated[Path, typer.Argument(metavar="OUT.pt", help="Where the converted network goes.")],
    to: Annotated[str, typer.Option(help="The neuron model to convert to.")] = "DendSN",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="An argument of the nodes. Repeatable."),
    ] = None,
    start: Annotated[str, typer.Option(help="preserve (the network's function), published or fresh.")] = "preserve",
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS", help="package.module.Class that it may contain too. Repeatable."),
    ] = None,
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Load anything; a checkpoint can then run any code. For files you trust.")
    ] = False,
) -> None:
    """Exchange the neurons in a checkpoint of a whole network.

    Pickles that could run code are refused, with the names that they contain.

    Example: snn-dendrite convert net.pt dendritic.pt --set branches=4
    """
    if not source.is_file():
        fail(
            f"IN.pt is {str(source)!r}, {'which is a directory' if source.is_dir() else 'which does not exist'}", USAGE
        )
    check_output("OUT.pt", target)
    if target.exists() and target.samefile(source):
        fail(f"OUT.pt is {str(target)!r}, which is both the input and the output; write to another file", USAGE)
    from ..conversion.checkpoint import CheckpointError, convert_checkpoint
    from ..conversion.plan import NothingToConvert

    if allow or unsafe:
        sys.path.insert(0, os.getcwd())  # where the user's own classes are
    try:
        values = parse_settings(settings or ())
    except ValueError as error:
        fail(str(error), USAGE)
    try:
        reports = convert_checkpoint(source, target, to=to, start=start, allow=allow or (), unsafe=unsafe, **values)
    except (CheckpointError, NothingToConvert, OSError) as error:  # it is the file
        fail(str(error))
    except (TypeError, ValueError) as error:  # it is the arguments
        fail(str(error), USAGE)
    out = console()
    for report in reports:
        out.print(report)
    out.print(f"written: {target}", markup=False)
