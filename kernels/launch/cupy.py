"""CUDA C++ from ``csrc/`` for every ``cupy`` provider: its text, compiled by NVRTC through CuPy, and its launch.

Importing this module does not import cupy.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..contract import Provider

__all__ = ["SCALARS", "Launcher", "NvrtcProvider", "missing", "on_gpu", "source"]

SCALARS = {torch.float32: "float", torch.float64: "double", torch.float16: "Half", torch.bfloat16: "Brain"}

# launcher(options, kernel, blocks, arguments, device); an argument is an int (also a pointer) or a float
Launcher = Callable[[tuple[str, ...], str, int, list[int | float], torch.device], None]


@functools.cache
def source(name: str) -> str:
    """The CUDA text ``csrc/<name>`` with our headers written in, each once."""
    folder, seen = Path(__file__).resolve().parent.parent / "csrc", {"common/math_cpu.h"}

    def inline(match: re.Match[str]) -> str:
        if match[1] in seen:
            return ""
        seen.add(match[1])
        return expand((folder / match[1]).read_text())

    def expand(text: str) -> str:
        return re.sub(r'^#include "([\w./]+)"$', inline, text.replace("#pragma once\n", ""), flags=re.MULTILINE)

    return expand((folder / name).read_text())


@functools.lru_cache(maxsize=256)
def _kernel(name: str, options: tuple[str, ...], kernel: str, device: int) -> Any:
    import cupy

    with cupy.cuda.Device(device):
        return cupy.RawModule(code=source(name), options=options).get_function(kernel)


def on_gpu(name: str, threads: int) -> Launcher:
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


class NvrtcProvider(Provider):
    """CUDA C++ through CuPy, for CUDA tensors of float32, float64, float16 and bfloat16.

    Args:
        launcher: runs a kernel; None compiles with CuPy and launches on the current stream of torch.
    """

    name = "cupy"
    text: str  # the op's CUDA text in csrc/
    threads: int  # to a block

    def __init__(self, launcher: Launcher | None = None) -> None:
        self._launch = launcher or on_gpu(self.text, self.threads)

    def why_not(
        self, device: torch.device, dtype: torch.dtype, settings: Any, steps: int = 1, degree: int = 1
    ) -> str | None:
        if device.type != "cuda":
            return f"it runs on CUDA tensors, and these are on {device}"
        if dtype not in SCALARS:
            return f"it has no code for {dtype}; it runs {', '.join(str(d) for d in SCALARS)}"
        return missing()
