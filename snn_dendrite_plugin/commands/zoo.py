"""``snn-dendrite zoo``: the command; the work is in :mod:`..zoo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["command"]


def command(
    sample: Annotated[bool, typer.Option("--sample", help="A few quick models only.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the page here instead of printing it.")] = None,
) -> None:
    """Build and convert every model of SpikingJelly's zoo and write the page that says what came of it."""
    if out is not None and not out.parent.is_dir():
        raise typer.BadParameter(f"{out.parent} is no folder", param_hint="--out")
    try:
        from ..zoo import page as zoo_page
    except ImportError as error:
        typer.echo(f"snn-dendrite zoo needs SpikingJelly 2.0: {error}", err=True)
        raise typer.Exit(1) from error

    tables = []
    for tiny in (True, False):
        found = []
        for row in zoo_page.rows(tiny, sample):
            found.append(row)
            typer.echo(f"{row.name}: {len(found)} done", err=True)
        tables.append(found)
    text = zoo_page.page(*tables, "snn-dendrite zoo --out docs/zoo.md" if not sample else "snn-dendrite zoo --sample")
    if out is None:
        typer.echo(text, nl=False)
    else:
        out.write_text(text)
