"""The compiled CPU library ``_cpu.so`` that every ``cpu`` provider calls: loaded with ctypes, once.

It is built with the wheel where a C++ compiler is at hand, and runs in the OpenMP threads torch already has.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import torch

from ..contract import Provider

__all__ = ["LEVELS", "SCALARS", "CompiledProvider", "load"]

FOLDER = Path(__file__).resolve().parent.parent
LEVELS = ("baseline", "avx2", "avx512")  # instruction sets, in the library's order
SCALARS = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}


def _openmp() -> int | None:
    """Address of ``GOMP_parallel`` in the OpenMP runtime torch runs on: a second runtime would compete with it."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    paths = {line.split(maxsplit=5)[5] for line in lines if line.count("/") and ".so" in line}
    runtimes = sorted(path for path in paths if Path(path).name.startswith(("libgomp", "libiomp5", "libomp")))
    root = str(Path(torch.__file__).parent)
    for path in sorted(runtimes, key=lambda path: not path.startswith(root)):
        try:
            return ctypes.cast(ctypes.CDLL(path).GOMP_parallel, ctypes.c_void_p).value
        except (OSError, AttributeError):
            continue
    return None


@functools.cache
def load(prefix: str, call: type[ctypes.Structure]) -> tuple[ctypes.CDLL | None, str]:
    """The library, or None and the reason.

    Args:
        prefix: of the op's entry points: ``<prefix>_call_size()``, ``<prefix>_forward(call)``, ``<prefix>_backward``.
        call: the structure they take, whose size must be the library's.
    """
    reason = (
        f"the compiled library (_cpu*.so in {FOLDER}) is missing: no working C++ compiler was found when the package "
        "was installed; install one (g++ or clang++) and reinstall from source"
    )
    for path in sorted(FOLDER.glob("_cpu*.so")):
        try:
            library = ctypes.CDLL(str(path))
            size = getattr(library, f"{prefix}_call_size")
            size.restype = ctypes.c_int64
            if size() != ctypes.sizeof(call):
                raise OSError("it belongs to another version of this package; reinstall")
        except (OSError, AttributeError) as error:
            reason = f"the compiled library {path} does not load: {error}"
            continue
        for way in ("forward", "backward"):
            getattr(library, f"{prefix}_{way}").argtypes = [ctypes.c_void_p]
        library.sd_use_openmp.argtypes = [ctypes.c_void_p]
        library.sd_use_openmp(_openmp())
        return library, ""
    return None, reason


class CompiledProvider(Provider):
    """Compiled C++ for CPU tensors of float32, float64, float16 and bfloat16.

    Args:
        level: instruction set, one of ``baseline``, ``avx2``, ``avx512``; None takes the best this processor has. One
            that the processor lacks also gives the best.

    Raises:
        ValueError: an unknown level.
    """

    name = "cpu"
    prefix: str  # of the op's entry points in the library
    call: type[ctypes.Structure]  # what they take

    def __init__(self, level: str | None = None) -> None:
        if level is not None and level not in LEVELS:
            raise ValueError(f"level is {level!r}; it must be None or one of {', '.join(LEVELS)}")
        self._level = -1 if level is None else LEVELS.index(level)

    def why_not(
        self, device: torch.device, dtype: torch.dtype, settings: Any, steps: int = 1, degree: int = 1
    ) -> str | None:
        if device.type != "cpu":
            return f"it runs on CPU tensors, and these are on {device}"
        if dtype not in SCALARS:
            return f"it has no code for {dtype}; it runs {', '.join(str(d) for d in SCALARS)}"
        library, reason = load(self.prefix, self.call)
        return None if library is not None else reason

    def _library(self) -> ctypes.CDLL:
        library, reason = load(self.prefix, self.call)
        if library is None:
            raise RuntimeError(f"provider cpu cannot run: {reason}")
        return library
