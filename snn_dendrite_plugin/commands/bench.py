"""``snn-dendrite bench``: the command; the work is in :mod:`..bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["command"]


def command(
    preset: Annotated[str, typer.Option(help="targets, lengths, sizes, gpu or training.")] = "targets",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    rounds: Annotated[int, typer.Option(min=5, help="Rounds in which all contestants take turns.")] = 30,
    compiled: Annotated[bool, typer.Option(help="Also torch.compile of the plain loop (slow to compile).")] = False,
    alone: Annotated[bool, typer.Option(help="Each contestant repeats alone, its data still in the caches.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Write all results here.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a picture of the times here.")] = None,
) -> None:
    """Time ours against the hosts' own neurons and the other ways to run a dendritic layer; read the ratios."""
    import torch

    from .. import bench

    try:
        results = bench.bench(preset, device, rounds, compiled, alone)
    except (ValueError, RuntimeError, ImportError) as error:
        raise typer.BadParameter(str(error)) from error
    typer.echo(", ".join(f"{key} {value}" for key, value in bench.environment(torch.device(device)).items()))
    typer.echo(bench.table(results))
    if csv is not None:
        bench.write_csv(results, csv, torch.device(device))
    if plot is not None:
        bench.plot(results, plot)
