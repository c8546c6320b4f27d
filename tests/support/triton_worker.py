"""Triton in a process of its own, as TRITON_INTERPRET has to be set before it is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from places import SUPPORT

from snn_dendrite_plugin.kernels.launch.triton import missing
from snn_dendrite_plugin.kernels.soma_dendrite.triton.provider import provider

needs_triton = pytest.mark.skipif(missing(provider.kernels) is not None, reason=str(missing(provider.kernels)))
Ask = Callable[..., Any]


def worker(directory: Path, **environment: str) -> Iterator[Ask]:
    """Asks a process that imports triton under ``environment``; an error there fails the test here."""
    variables = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    variables |= {"TRITON_CACHE_DIR": str(directory / "cache"), "OMP_NUM_THREADS": "1", **environment}
    with subprocess.Popen(
        [sys.executable, str(SUPPORT / "triton_cases.py")],
        cwd=directory,
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(directory / "stderr").open("w"),
        text=True,
    ) as process:

        def ask(*request: Any) -> Any:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                pytest.fail(f"the worker ended with {process.wait()}: {(directory / 'stderr').read_text()[-3000:]}")
            answer = json.loads(line)
            if "error" in answer:
                pytest.fail(answer["error"], pytrace=False)
            return answer["result"]

        yield ask
        process.stdin.close()
