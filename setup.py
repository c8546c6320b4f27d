"""Builds the optional CPU library ``snn_dendrite_plugin/kernels/_cpu.so``; the rest is in pyproject.toml.

The library has a plain C interface and is loaded with ctypes, so one file serves every Python version. Without a
working C++ compiler the installation goes on without it, and the ``cpu`` provider says what is missing.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

SOURCES = Path("kernels/csrc")
TOP = ("adapters", "kernels")  # folders of the top level that are installed as subpackages
FLAGS = [
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fopenmp-simd",
    "-fno-exceptions",
    "-fno-rtti",
    "-ffp-contract=off",  # what is fused is written so, see csrc/common/functions.h
]
OPS = ("soma_dendrite", "ttfs")
# an op's engine is compiled once per instruction set; the entry points pick one when they are called
LEVELS = {"baseline": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    FLAGS.append("-DSD_X86")
    LEVELS["avx2"] = ["-mavx2", "-mfma"]
    LEVELS["avx512"] = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"]


class BuildLibrary(build_ext):
    """Compiles the library; a failure costs a message, not the installation."""

    def get_ext_filename(self, fullname: str) -> str:
        return os.path.join(*fullname.split(".")) + ".so"

    def build_extension(self, ext: Extension) -> None:
        target, objects = Path(self.get_ext_fullpath(ext.name)), Path(self.build_temp)
        try:
            if sys.platform == "win32":
                raise RuntimeError("there is no Windows build of it yet")
            target.parent.mkdir(parents=True, exist_ok=True)
            objects.mkdir(parents=True, exist_ok=True)
            self._compile(target, objects)
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            with contextlib.suppress(OSError):
                target.unlink()
            print(
                f"\n*** snn-dendrite-plugin: the optional CPU kernels were not built: {error}\n"
                "*** Everything else is installed; for fast CPU kernels install a C++17 compiler and reinstall.\n",
                file=sys.stderr,
            )

    def _compile(self, target: Path, objects: Path) -> None:
        compiler = shlex.split(os.environ.get("CXX", "c++"))
        units = [(f"{op}/entry.cpp", f"{op}.o", []) for op in OPS]
        for op in OPS:
            for name, flags in LEVELS.items():
                units.append((f"{op}/engine.cpp", f"{op}_{name}.o", [f"-DSD_ISA={name}", *flags]))

        def run(command: list[str]) -> None:
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"`{shlex.join(command)}` failed:\n{done.stderr[-2000:]}")

        def compile_unit(unit: tuple[str, str, list[str]]) -> None:
            source, name, flags = unit
            run([*compiler, *FLAGS, *flags, f"-I{SOURCES}", "-c", str(SOURCES / source), "-o", str(objects / name)])

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(compile_unit, units))
        # renamed into place: a process that has the old library loaded keeps it, and would crash if it were overwritten
        linked = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            run([*compiler, "-shared", *(str(objects / unit[1]) for unit in units), "-o", str(linked), "-pthread"])
            os.replace(linked, target)
        finally:
            linked.unlink(missing_ok=True)

    def get_outputs(self) -> list[str]:
        return [path for path in super().get_outputs() if os.path.exists(path)]


class Wheel(bdist_wheel):
    """One wheel per platform, for every Python 3."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


PACKAGE = "snn_dendrite_plugin"

setup(
    packages=[
        *find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
        *(f"{PACKAGE}.{name}" for name in find_packages(include=[*TOP, *(f"{top}.*" for top in TOP)])),
    ],
    package_dir={PACKAGE: PACKAGE, **{f"{PACKAGE}.{top}": top for top in TOP}},
    ext_modules=[Extension("snn_dendrite_plugin.kernels._cpu", [], optional=True)],
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": Wheel},
)
