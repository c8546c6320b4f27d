"""What every test file shares: the installed package is what is tested, with fixed seeds."""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent

# `python -m pytest` puts the repository root on the path, where the package lies without adapters/ and kernels/, which
# become its subpackages by being installed.
sys.path[:] = [entry for entry in sys.path if Path(entry or os.curdir).resolve() != ROOT]

hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("repeatable")


def pytest_report_header(config: pytest.Config) -> str:
    spec = importlib.util.find_spec("snn_dendrite_plugin")
    return f"snn_dendrite_plugin: {spec.origin if spec else None}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long experiments run by name only; tests that need a GPU run where there is one."""
    chosen = config.getoption("-m") or ""
    gpu = None
    for item in items:
        if "long" in item.keywords and "long" not in chosen:
            item.add_marker(pytest.mark.skip(reason="a long experiment: run with `pytest -m long`"))
        if "gpu" in item.keywords:
            if gpu is None:
                import torch

                gpu = torch.cuda.is_available()
            if not gpu:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def _seeds() -> None:
    random.seed(0)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)


@pytest.fixture
def run_python(tmp_path: Path) -> Callable[..., str]:
    """``run_python(code, *paths, **environment)`` runs code in a fresh interpreter and returns what it prints.

    ``paths`` are put on its import path, which never holds the repository root; a failure fails the test with stderr.
    """

    def run(code: str, *paths: Path, flags: tuple[str, ...] = (), **environment: str) -> str:
        script = tmp_path / "script.py"
        script.write_text(code)
        variables = {key: value for key, value in os.environ.items() if not key.startswith("SNN_DENDRITE_")}
        variables |= {"PYTHONPATH": os.pathsep.join(map(str, paths)), **environment}
        done = subprocess.run(
            [sys.executable, "-P", *flags, str(script)],
            cwd=tmp_path,
            env=variables,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run
