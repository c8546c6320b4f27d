"""Scripts in processes of their own: in a new interpreter, or in a fork of one with torch and scikit-learn imported.

Importing those costs more than most scripts of the tests do after it. A fork has neither this package nor a host
imported, and no state of other tests; where processes cannot fork, a new interpreter does the same more slowly.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TextIO

LIMIT = 300  # seconds


def environment(**changes: str) -> dict[str, str]:
    """The environment without this package's own variables, changed."""
    return {key: value for key, value in os.environ.items() if not key.startswith("SNN_DENDRITE_")} | changes


def run(*arguments: object, cwd: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """``python arguments`` in a new interpreter."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env=environment(**changes), capture_output=True, text=True, timeout=LIMIT, check=False
    )


def run_with_torch(*arguments: object, cwd: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """The same in a fork; arguments are a script or ``-m`` and a module, and theirs."""
    if not hasattr(os, "fork"):
        return run(*arguments, cwd=cwd, **changes)
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        request = {"arguments": [*map(str, arguments)], "cwd": str(cwd), "environment": environment(**changes)}
        process = _server()
        process.stdin.write(json.dumps(request | {"out": str(out), "err": str(err)}) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the server of forks ended with {process.wait()}")
        return subprocess.CompletedProcess([*arguments], int(answer), out.read_text(), err.read_text())


@functools.cache
def _server() -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-P", __file__],
        env=environment(OMP_NUM_THREADS="1"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # an interrupt ends the tests, and their end the server
    )
    atexit.register(process.communicate)  # ends its input, and so the server
    return process


def _serve(requests: TextIO, answers: TextIO) -> None:
    # What scripts need that is neither ours nor a host's; torch._dynamo comes with the first optimizer.
    for library in ("torch", "torch._dynamo", "sklearn.datasets"):
        with contextlib.suppress(ImportError):
            importlib.import_module(library)
    for line in requests:
        child = os.fork()
        if not child:
            _become(**json.loads(line))
            return
        answers.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        answers.flush()


def _become(arguments: list[str], cwd: str, environment: dict[str, str], out: str, err: str) -> None:
    """This process goes on as one started by ``python arguments``."""
    signal.alarm(LIMIT)
    for stream, descriptor in ((out, 1), (err, 2)):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    if arguments[0] == "-m":
        sys.argv[:] = arguments[1:]
        sys.path.insert(0, cwd)
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return
    safe = arguments[0] == "-P"
    sys.argv[:] = arguments[safe:]
    if not safe:
        sys.path.insert(0, str(Path(sys.argv[0]).resolve().parent))
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    _serve(sys.stdin, sys.stdout)
