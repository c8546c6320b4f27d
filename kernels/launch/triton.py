"""What every ``triton`` provider asks first. Importing this module does not import triton.

A provider's kernels are in a module of their own, with a ``forward_kernel``; ``kernels`` below is a function that
imports it. Under ``TRITON_INTERPRET=1`` (set before triton is imported) kernels run on CPU tensors, slowly: for tests.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from ..contract import Provider

__all__ = ["DTYPES", "LaunchedProvider", "missing", "on"]

OLDEST_TRITON = (3, 3)  # tuples inside kernels
OLDEST_CAPABILITY = (8, 0)
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@functools.cache
def missing(kernels: Callable[[], ModuleType]) -> str | None:
    """Why triton cannot be used at all."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed; install `snn-dendrite-plugin[triton]`"
    try:
        import triton

        version = tuple(int(part) for part in triton.__version__.split(".")[:2])
        if version < OLDEST_TRITON:
            return f"triton is {triton.__version__}; {'.'.join(map(str, OLDEST_TRITON))} or newer is needed"
        kernels()
    except Exception as error:  # a broken installation must cost a reason, not the run
        return f"triton cannot be imported: {type(error).__name__}: {error}"
    return None


def _interpreted(kernels: Callable[[], ModuleType]) -> bool:
    from triton.runtime import JITFunction

    return not isinstance(kernels().forward_kernel, JITFunction)


def on(device: torch.device) -> Any:
    """A context in which launches go to ``device``."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


class LaunchedProvider(Provider):
    """Triton kernels on CUDA devices; on CPU tensors under Triton's interpreter."""

    name = "triton"
    automatic_devices = ("cuda",)  # the interpreter is for tests, never for speed
    kernels: Callable[[], ModuleType]  # imports the op's, a static method

    def why_not(
        self, device: torch.device, dtype: torch.dtype, settings: Any, steps: int = 1, degree: int = 1
    ) -> str | None:
        device, kernels = torch.device(device), self.kernels
        if device.type not in ("cuda", "cpu"):
            return f"triton kernels run on cuda devices, not on {device.type}"
        if device.type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
            return "triton runs on CPU tensors only under TRITON_INTERPRET=1"
        if dtype not in DTYPES:
            return f"dtype is {dtype}; the triton kernels take {', '.join(str(d) for d in DTYPES)}"
        if device.type == "cuda" and torch.version.cuda and torch.cuda.is_available():
            capability = torch.cuda.get_device_capability(device)
            if capability < OLDEST_CAPABILITY:
                return f"{device} has compute capability {capability}; triton needs {OLDEST_CAPABILITY} or newer"
        reason = missing(kernels)
        if reason is None and device.type == "cpu" and not _interpreted(kernels):
            reason = "TRITON_INTERPRET=1 was set after triton was imported; set it before"
        return reason
