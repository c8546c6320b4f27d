"""The CUDA text without a GPU: compiled to PTX by NVRTC, and run thread by thread on the CPU."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from places import SUPPORT

from snn_dendrite_plugin.kernels.soma_dendrite import cupy as module

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")


def nvrtc_library() -> str | None:
    """NVRTC as torch brings it, without loading CUDA."""
    package = importlib.util.find_spec("nvidia")
    roots = [Path(root) for root in (package.submodule_search_locations or [])] if package else []
    roots.append(Path(torch.__file__).parent / "lib")
    found = [path for root in roots for path in root.rglob("libnvrtc.so*")]
    found += [path for root in roots for path in root.rglob("libnvrtc-*.so*") if "builtins" not in path.name]
    return str(found[0]) if found else None


def compile_to_ptx(text: str, options: tuple[str, ...]) -> str:
    nvrtc = ctypes.CDLL(nvrtc_library())
    program = ctypes.c_void_p()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"soma_dendrite.cu", 0, None, None) == 0
    arguments = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    status = nvrtc.nvrtcCompileProgram(program, len(options), arguments)
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    assert status == 0, log.value.decode()
    nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size))
    ptx = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetPTX(program, ptx)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return ptx.value.decode()


class OnCpu:
    """A launcher that compiles the CUDA text with g++ and runs the threads of a launch on the CPU."""

    def __init__(self, folder: Path, op=module, prefix: str = "sd") -> None:
        self.folder, self.op, self.prefix = folder, op, prefix
        self.library = functools.cache(self.build)

    def build(self, options: tuple[str, ...]) -> ctypes.CDLL:
        name = hashlib.sha256(repr(options).encode()).hexdigest()[:16]
        unit, target = self.folder / f"{name}.cpp", self.folder / f"{name}.so"
        entries = "".join(
            f'extern "C" void launch_{kernel}(int64_t blocks, int together, const Argument* a)'
            f" {{ launch({kernel}, blocks, together, a); }}\n"
            for kernel in (f"{self.prefix}_forward", f"{self.prefix}_backward")
        )
        unit.write_text('#include "cuda_threads.h"\n' + self.op.source() + entries)
        command = ["g++", "-std=c++17", "-O0", "-w", "-shared", "-fPIC", "-pthread", f"-I{SUPPORT}"]
        command += [option for option in options if option.startswith("-D")]
        done = subprocess.run([*command, str(unit), "-o", str(target)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[:3000]
        return ctypes.CDLL(str(target))

    def __call__(self, options, kernel, blocks, arguments, device) -> None:
        class Argument(ctypes.Union):
            _fields_ = [("integer", ctypes.c_int64), ("number", ctypes.c_double)]

        packed = (Argument * len(arguments))()
        for slot, value in zip(packed, arguments, strict=True):
            if isinstance(value, float):
                slot.number = value
            else:
                slot.integer = value
        together = kernel == "sd_backward" and "-DSD_BY_CHANNEL=0" in options  # only there do threads synchronise
        getattr(self.library(options), f"launch_{kernel}")(ctypes.c_int64(blocks), int(together), packed)
