"""CUDA C++ from ``csrc/`` for every ``cupy`` provider: its text, compiled by NVRTC through CuPy, and its launch.

Importing this module does not import cupy.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable
from pathlib import Path

import torch

__all__ = ["SCALARS", "Launcher", "launcher", "missing", "source"]

SCALARS = {torch.float32: "float", torch.float64: "double", torch.float16: "Half", torch.bfloat16: "Brain"}

# launcher(options, kernel, blocks, arguments, device); an argument is an int (also a pointer) or a float
Launcher = Callable[[tuple[str, ...], str, int, list[int | float], torch.device], None]


@functools.cache
def source(name: str) -> str:
    """The CUDA text ``csrc/<name>`` with its own headers written in, each once."""
    folder, seen = Path(__file__).resolve().parent / "csrc", {"math_cpu.h"}

    def inline(match: re.Match[str]) -> str:
        if match[1] in seen:
            return ""
        seen.add(match[1])
        return expand((folder / match[1]).read_text())

    def expand(text: str) -> str:
        return re.sub(r'^#include "([\w.]+)"$', inline, text.replace("#pragma once\n", ""), flags=re.MULTILINE)

    return expand((folder / name).read_text())


@functools.lru_cache(maxsize=256)
def _kernel(name: str, options: tuple[str, ...], kernel: str, device: int):
    import cupy

    with cupy.cuda.Device(device):
        return cupy.RawModule(code=source(name), options=options).get_function(kernel)


def launcher(name: str, threads: int) -> Launcher:
    """Launches kernels of the text ``name``, ``threads`` to a block, on the current stream of torch."""

    def launch(
        options: tuple[str, ...], kernel: str, blocks: int, arguments: list[int | float], device: torch.device
    ) -> None:
        import cupy

        index = torch.cuda.current_device() if device.index is None else device.index
        stream = torch.cuda.current_stream(index).cuda_stream
        with cupy.cuda.Device(index), cupy.cuda.ExternalStream(stream, index):
            _kernel(name, options, kernel, index)((blocks,), (threads,), tuple(arguments))

    return launch


@functools.cache
def missing() -> str | None:
    """The reason CuPy cannot be used, or None."""
    try:
        import cupy
    except ImportError as error:
        return (
            f"CuPy is not installed ({error}); install cupy-cuda12x or cupy-cuda13x, whichever CUDA torch was built for"
        )
    with contextlib.suppress(Exception):
        if cupy.cuda.runtime.getDeviceCount() > 0:
            return None
    return "CuPy finds no CUDA device"
