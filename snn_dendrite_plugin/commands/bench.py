"""``snn-dendrite bench``: the command; the work is in :mod:`..bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .terminal import USAGE, check_installed, check_output, console, fail

__all__ = ["command"]


def command(
    preset: Annotated[str, typer.Option(help="targets, lengths, sizes, gpu or training.")] = "targets",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    rounds: Annotated[int, typer.Option(min=5, help="Rounds in which all contestants take turns.")] = 30,
    compiled: Annotated[
        bool, typer.Option("--compiled", help="Also torch.compile of the plain loop (slow to compile).")
    ] = False,
    alone: Annotated[
        bool, typer.Option("--alone", help="Each contestant repeats alone, its data still in the caches.")
    ] = False,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all results here.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a picture of the times here.")] = None,
) -> None:
    """Time ours against the hosts' own neurons.

    Among the contestants are other ways to run a dendritic layer. Read the ratios: times depend on the machine.

    Example: snn-dendrite bench --preset sizes --rounds 10 --csv times.csv
    """
    if csv is not None:
        check_output("--csv", csv)
    if plot is not None:
        check_output("--plot", plot, (".png", ".pdf", ".svg"))
        check_installed("--plot", "matplotlib", "plot")
    import torch

    from .. import bench

    try:
        bench.check(preset, device)
    except (ValueError, RuntimeError) as error:
        fail(f"--{error}", code=USAGE)
    if preset == bench.TRAINING:
        check_installed("--preset training", "spikingjelly", "spikingjelly")
    results = bench.bench(preset, device, rounds, compiled, alone)
    out = console()
    machine = ", ".join(f"{key} {value}" for key, value in bench.environment(torch.device(device)).items())
    out.print(machine, markup=False)
    out.print(bench.table(results, out.width if out.is_terminal else None), markup=False, soft_wrap=True)
    if csv is not None:
        bench.write_csv(results, csv, torch.device(device))
    if plot is not None:
        bench.plot(results, plot)
