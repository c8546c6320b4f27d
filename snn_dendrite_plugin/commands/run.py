"""``snn-dendrite run``: a training script that nobody edits, with the plugin active and its neurons swapped."""

from __future__ import annotations

import contextlib
import os
import re
import runpy
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .settings import parse_settings
from .terminal import INTERRUPTED, USAGE, fail

if TYPE_CHECKING:
    from ..swap.rules import SwapRule

__all__ = ["LOST", "NOTHING_SWAPPED", "command", "own_arguments", "parse_swaps", "run_script"]

LOST = 4  # exit code of a script that succeeded although neurons' potentials became NaN or infinite in training
NOTHING_SWAPPED = 3  # exit code of a script that succeeded but constructed none of the neurons to swap
_STARTERS = ("runpy.py", "<frozen runpy>", "<frozen importlib._bootstrap>")  # files of the frames that start a script

# Options that are easily put after the script, and what its text has where it takes one of that name.
_MISPLACED = {"--swap": r"\bswap\b", "--set": "--set", "--provider": r"\bprovider\b"}


def command(
    script: Annotated[str, typer.Argument(help="Script, directory or zip file with __main__.py, or a module with -m.")],
    arguments: Annotated[list[str] | None, typer.Argument(metavar="ARGUMENTS", help="The script's own.")] = None,
    swap: Annotated[
        list[str] | None,
        typer.Option(metavar="NEURON=MODEL", help="For example LIFNode=DendSN or Leaky=Dendritic. Repeatable."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="An argument of the nodes. Repeatable."),
    ] = None,
    provider: Annotated[str | None, typer.Option(help="Kernel provider: torch, cpu, triton or cupy.")] = None,
    module: Annotated[bool, typer.Option("--module", "-m", help="SCRIPT names a module, as with python -m.")] = False,
    check_finite: Annotated[
        bool, typer.Option("--check-finite", help="Raise where a neuron's state becomes NaN or infinite; slower.")
    ] = False,
) -> None:
    """Run a training script unchanged, with its neurons swapped.

    The named neurons of its models are replaced as they are constructed. Nodes start as the neurons they replace unless
    --set says otherwise. Options end at the script: what follows is the script's own.

    The exit code is the script's. It is 2 for a wrong option, 3 when the script succeeded without constructing any
    neuron to swap, and 4 when it succeeded although a neuron's potential became NaN or infinite in training.

    Example: snn-dendrite run --swap LIFNode=DendSN --set branches=4 train.py --lr 0.01
    """
    _leave_search_path()
    try:
        own = own_arguments(script, arguments or (), module)
        pairs, values = parse_swaps(swap or ()), parse_settings(settings or ())
    except ValueError as error:
        fail(str(error), code=USAGE)
    try:
        code = run_script(script, own, swaps=pairs, settings=values, provider=provider, module=module,
                          check_finite=check_finite)  # fmt: skip
    except _UsageError as error:
        fail(str(error), code=USAGE)
    raise typer.Exit(code)


class _UsageError(Exception):
    """The script cannot be started as asked."""


def parse_swaps(texts: Iterable[str]) -> dict[str, str]:
    """``["LIFNode=DendSN"]`` -> ``{"LIFNode": "DendSN"}``; ``ValueError`` for anything else or a neuron twice."""
    swaps: dict[str, str] = {}
    for text in texts:
        neuron, equals, model = (part.strip() for part in text.partition("="))
        if not equals or not model.isidentifier() or not all(part.isidentifier() for part in neuron.split(".")):
            raise ValueError(f"--swap is {text!r}; it must read NEURON=MODEL, for example LIFNode=DendSN")
        if neuron in swaps:
            raise ValueError(f"--swap names {neuron} twice, for {swaps[neuron]} and for {model}")
        swaps[neuron] = model
    return swaps


def own_arguments(script: str, arguments: Sequence[str], module: bool = False) -> list[str]:
    """The script's arguments, none of which is an option of ours that was put in the wrong place.

    An option counts as ours unless the script's text names it. A ``--`` in front says that all are the script's.

    Raises:
        ValueError: one of our options stands after the script.
    """
    try:
        text = "" if module else Path(script).read_text(errors="replace")
    except OSError:  # a directory, a zip file, or nothing at all
        text = ""
    for i, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option not in _MISPLACED or re.search(_MISPLACED[option], text):
            continue
        words = [argument] if equals else list(arguments[i : i + 2])
        value = value if equals else " ".join(words[1:])
        if option != "--provider" and "=" not in value:
            continue
        if arguments[0] == "--":
            return list(arguments[1:])
        raise ValueError(
            f"{' '.join(words)} stands after {script}, which would get it: options of snn-dendrite go before it "
            f"(where it is the script's own, write -- after {script})"
        )
    return list(arguments)


def run_script(
    script: str,
    arguments: Sequence[str] = (),
    *,
    swaps: dict[str, str] | None = None,
    settings: dict[str, Any] | None = None,
    provider: str | None = None,
    module: bool = False,
    check_finite: bool = False,
) -> int:
    """Run a script as ``python script.py arguments...`` would, with the plugin active and neurons swapped.

    A summary goes to stderr. An exception of the script is reported as Python would, through ``sys.excepthook``.

    Args:
        script: path of a script, of a directory or zip file with ``__main__.py``, or, with ``module``, a module's name.
        arguments: what the script finds in ``sys.argv[1:]``.
        swaps: neuron -> model, see :func:`snn_dendrite_plugin.swap.rules.plan_swaps`.
        settings: arguments of the nodes.
        provider: name of the kernel provider to force.
        module: run ``script`` as ``python -m`` would.
        check_finite: raise in the script where a neuron's state becomes NaN or infinite.

    Returns:
        The script's exit code; where that is 0, ``NOTHING_SWAPPED`` if a swap matched nothing, and ``LOST`` if neurons'
        potentials became NaN or infinite in training.

    Raises:
        Exception: of a private kind, with a message for the user, when the script cannot be started as asked.
    """
    if not module and not Path(script).exists():
        raise _UsageError(f"script {script!r} does not exist")
    rules: list[SwapRule] = []
    with contextlib.ExitStack() as stack:
        try:
            if swaps or settings:
                from ..swap import plan_swaps, swapping

                rules = plan_swaps(swaps or {}, settings)
                stack.enter_context(swapping(rules))
            if provider is not None:
                stack.enter_context(_provider(provider))
            if check_finite:
                from ..neurons.finite import check_every_neuron

                stack.enter_context(check_every_neuron())
        except (TypeError, ValueError, RuntimeError, ImportError) as error:
            raise _UsageError(str(error)) from error
        for rule in rules:
            for note in rule.notes:
                _say(f"note: {note}")
        process = os.getpid()
        left: dict[str, Any] = {}
        before = len(_lost_potentials())
        code = _execute(script, arguments, module, left)
    if os.getpid() != process:  # a forked child that returned: the summary is its parent's
        return code
    code = _summarise(rules, code)
    lost = _lost(left, before) if code == 0 else []
    for what in lost:
        _say(f"error: {what} became NaN or infinite in training; --check-finite stops at the first such step")
    return LOST if lost else code


def _lost_potentials() -> list[str]:
    watch = sys.modules.get("snn_dendrite_plugin.neurons.watch")
    return [] if watch is None else watch.lost()  # None: there is no neuron of ours


def _lost(left: dict[str, Any], before: int) -> list[str]:
    """What became NaN or infinite: layers that said so, else parameters of networks that the script's names hold."""
    if "snn_dendrite_plugin.neurons.watch" not in sys.modules:
        return []
    from ..neurons.finite import nonfinite_parameters

    found = [f"the potential of layer {name}" for name in _lost_potentials()[before:]]
    return found or [f"{name}.{key}" for name, thing in left.items() for key in nonfinite_parameters(thing)]


@contextlib.contextmanager
def _provider(name: str) -> Iterator[None]:
    """Force a provider here, and by the environment in processes that the script starts."""
    from ..kernels.providers import ENVIRONMENT_VARIABLE, use_provider

    before = os.environ.get(ENVIRONMENT_VARIABLE)
    with use_provider(name):
        os.environ[ENVIRONMENT_VARIABLE] = name
        try:
            yield
        finally:
            if before is None:
                os.environ.pop(ENVIRONMENT_VARIABLE, None)
            else:
                os.environ[ENVIRONMENT_VARIABLE] = before


def _leave_search_path() -> None:
    """Take out the entry that Python put on the import path for this command, in whose place the script's comes."""
    if sys.path and not sys.flags.safe_path and sys.path[0] in ("", os.getcwd(), os.path.dirname(sys.argv[0])):
        del sys.path[0]


def _execute(script: str, arguments: Sequence[str], module: bool, left: dict[str, Any]) -> int:
    """Run it, report what it raises, and return its exit code; the names it ends with go into ``left``."""
    argv, path = sys.argv, list(sys.path)
    target = script if module else os.path.abspath(script)
    sys.argv = [script, *arguments]
    if not sys.flags.safe_path:
        sys.path.insert(0, os.getcwd() if module else os.path.dirname(os.path.realpath(script)))
    try:
        if module:
            left |= runpy.run_module(target, run_name="__main__", alter_sys=True)
        else:
            left |= runpy.run_path(target, run_name="__main__")
    except SystemExit as error:
        return _exit_code(error)
    except BaseException as error:
        error.with_traceback(_script_frames(error.__traceback__))
        sys.excepthook(type(error), error, error.__traceback__)
        return INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
    finally:
        sys.argv, sys.path[:] = argv, path
    return 0


def _exit_code(error: SystemExit) -> int:
    """As the interpreter reads it: None is success, a number is the code, anything else is a message and failure."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code
    print(error.code, file=sys.stderr)
    return 1


def _script_frames(traceback: TracebackType | None) -> TracebackType | None:
    """The traceback from the script on, without the frames that started it; empty for an error in starting it."""
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if file != __file__ and os.path.basename(file) not in _STARTERS:
            return traceback
        traceback = traceback.tb_next
    return None


def _say(message: str) -> None:
    print(f"snn-dendrite run: {message}", file=sys.stderr, flush=True)


def _summarise(rules: list[SwapRule], code: int) -> int:
    if not rules:
        _say("the plugin was active; nothing was to be swapped (--swap)")
        return code
    _say("; ".join(map(str, rules)))
    missed = [rule for rule in rules if not rule.built] if code == 0 else []  # a script that failed has said why
    for rule in missed:
        _say(
            f"error: the script constructed no {rule.neuron} that could be swapped; is it made in another process, by "
            f"another name, or loaded from a file?"
        )
    return NOTHING_SWAPPED if missed else code
