"""The compiled CPU library ``_cpu.so`` that every ``cpu`` provider calls: loaded with ctypes, once.

It is built with the wheel where a C++ compiler is at hand, and runs in the OpenMP threads torch already has.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch

__all__ = ["LEVELS", "SCALARS", "load"]

FOLDER = Path(__file__).resolve().parent
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
