"""``snn-dendrite zoo``: the command; the work is in :mod:`..zoo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .terminal import check_installed, check_output

__all__ = ["command"]


def command(
    sample: Annotated[bool, typer.Option("--sample", help="A few quick models only.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the page here instead of printing it.")] = None,
) -> None:
    """Build and convert SpikingJelly's model zoo.

    Writes the page that says what came of it, in Markdown.

    Example: snn-dendrite zoo --sample --out zoo.md
    """
    if out is not None:
        check_output("--out", out)
    check_installed("zoo", "spikingjelly", "spikingjelly")
    from ..zoo import page as zoo_page

    tables: list[Any] = []
    for tiny in (True, False):
        found = []
        for row in zoo_page.rows(tiny, sample):
            found.append(row)
            typer.echo(f"{row.name}: {len(found)} done", err=True)
        tables.append(found)
    written_by = "snn-dendrite zoo --sample" if sample else "snn-dendrite zoo --out docs/zoo.md"
    text = zoo_page.page(tables[0], tables[1], written_by)
    if out is None:
        typer.echo(text, nl=False)
    else:
        out.write_text(text)
