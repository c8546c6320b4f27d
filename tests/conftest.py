"""What every test file shares: the installed package is what is tested, with fixed seeds."""

from __future__ import annotations

import importlib.util
import os
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path

import fresh
import hypothesis
import pytest

pytest_plugins = ["pytester"]

# Several processes share the cores: threads of torch's, which wait by spinning, would take them from each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
BY_NAME = {"gpu", "long", "data", "wide"}  # markers of what runs only when `pytest -m` names it

# `python -m pytest` puts the repository root on the path, where the package lies without adapters/ and kernels/, which
# become its subpackages by being installed.
sys.path[:] = [entry for entry in sys.path if Path(entry or os.curdir).resolve() != ROOT]

hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("repeatable")


def pytest_report_header(config: pytest.Config) -> str:
    spec = importlib.util.find_spec("snn_dendrite_plugin")
    return f"snn_dendrite_plugin: {spec.origin if spec else None}"


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Several processes for the whole suite; for chosen tests none, as starting them takes longer than the tests."""
    chosen = config.getoption("keyword") or config.getoption("markexpr") or config.args != config.getini("testpaths")
    return 0 if chosen else min(4, os.cpu_count() or 1)


@pytest.hookimpl(trylast=True)  # after pytest's own -m and -k
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What needs a GPU, hours or a data set is left out unless ``-m`` names it."""
    unasked = BY_NAME - set(re.findall(r"\w+", config.getoption("markexpr")))
    left_out = [item for item in items if any(item.get_closest_marker(name) for name in unasked)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test asked for by name that cannot run here fails, as a green run would say that it passed."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.fail("needs a CUDA device, and torch finds none on this machine", pytrace=False)
    if item.get_closest_marker("data") and "SNN_DENDRITE_DATA" not in os.environ:
        pytest.fail("needs SNN_DENDRITE_DATA, which names the folder with the data set", pytrace=False)


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
    With ``torch`` the interpreter has imported torch already, which saves two seconds.
    """

    def run(code: str, *paths: Path, flags: tuple[str, ...] = (), torch: bool = False, **environment: str) -> str:
        script = tmp_path / "script.py"
        script.write_text(code)
        start = fresh.run_with_torch if torch else fresh.run
        done = start(
            "-P", *flags, script, cwd=tmp_path, **{"PYTHONPATH": os.pathsep.join(map(str, paths))} | environment
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run
