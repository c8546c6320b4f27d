"""``snn-dendrite summary``: the command; the work is in :mod:`..figures`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from .terminal import USAGE, console, fail, heading

__all__ = ["command"]


def command(
    source: Annotated[Path, typer.Argument(metavar="NET.pt", help="Checkpoint of a whole network.")],
    shape: Annotated[
        str, typer.Option(metavar="SIZES", help="Sizes of one input, with commas: 8,1,1,28,28 (or 1,784 with --steps).")
    ],
    steps: Annotated[
        int, typer.Option(min=0, help="Call the network so many times, once per step. 0: once, with a sequence.")
    ] = 0,
    rate: Annotated[
        float | None, typer.Option(min=0, max=1, help="Input spikes of this rate; without it, numbers from 0 to 1.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the input.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS", help="package.module.Class that it may contain too. Repeatable."),
    ] = None,
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Load anything; a checkpoint can then run any code. For files you trust.")
    ] = False,
) -> None:
    """Show what each layer of a network is and does on random input.

    Output shapes, parameters, spikes, synaptic operations with spikes and with numbers, operations of the neurons.

    Example: snn-dendrite summary net.pt --shape 8,1,1,28,28
    """
    if not source.is_file():
        fail(
            f"NET.pt is {str(source)!r}, {'which is a directory' if source.is_dir() else 'which does not exist'}", USAGE
        )
    try:
        sizes = [int(size) for size in shape.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        fail(f"--shape is {shape!r}; it must be whole numbers of at least 1, as in 8,1,784", USAGE)

    import torch

    from ..conversion.checkpoint import CheckpointError, load_network
    from ..figures import summary

    if allow or unsafe:
        sys.path.insert(0, os.getcwd())  # where the user's own classes are
    try:
        found = load_network(source, allow=allow or (), unsafe=unsafe)
    except (CheckpointError, OSError) as error:
        fail(str(error))
    networks = {"": found} if isinstance(found, torch.nn.Module) else found
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(*([steps] if steps else []), *sizes, generator=generator)
    x = x if rate is None else (x < rate).float()
    results = {}
    for name, network in networks.items():
        if not isinstance(network, torch.nn.Module):
            continue
        dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
        cast = x.to(dtype)
        example = cast if not steps else lambda net, cast=cast: [net(step) for step in cast]
        try:
            results[str(name)] = summary(network, example)
        except Exception as error:  # whatever the user's network raises on an input that does not suit it
            fail(f"the network{f' {name!r}' if name else ''} does not run on {tuple(cast.shape)}: {error}")
    if as_json:
        print(json.dumps({name: result.to_dict() for name, result in results.items()}, indent=2))
        return
    out = console()
    for name, result in results.items():
        if name:
            heading(out, name)
        out.print(result)
