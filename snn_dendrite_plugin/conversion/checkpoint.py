"""A checkpoint that holds a whole network, with its neurons exchanged: behind ``snn-dendrite convert``.

A checkpoint is a pickle, and unpickling one can run any code. :func:`load_network` therefore lets through what
:mod:`.harmless` knows (classes of ``torch.nn``, of the hosts, of this package and of registered plugins), and refuses
the rest before anything of it runs.
"""

from __future__ import annotations

import pickle
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..suggest import did_you_mean

if TYPE_CHECKING:
    from torch import nn

    from .report import ConversionReport

__all__ = ["CheckpointError", "convert_checkpoint", "load_network"]

_ANYWAY = "Loading it could run any code; --unsafe loads it anyway"


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, is refused, or holds nothing to convert."""


def convert_checkpoint(
    source: str | Path,
    target: str | Path,
    *,
    to: str = "DendSN",
    allow: Iterable[str] = (),
    unsafe: bool = False,
    **arguments: Any,
) -> list[ConversionReport]:
    """Convert the network in a checkpoint, or each network in a dict, and save it with all else the checkpoint holds.

    Args:
        source: a file written by ``torch.save(model, source)``, or by ``torch.save({"model": model, ...}, source)``.
        target: where the result goes, tensors on the CPU; written whole or not at all.
        to: name of a registered neuron model.
        allow: ``package.module.Class`` names that the checkpoint may contain beside those known to be harmless.
        unsafe: load the file whatever it contains.
        **arguments: of :func:`snn_dendrite_plugin.convert`.

    Returns:
        The conversion report of every network in the checkpoint.

    Raises:
        CheckpointError: the file cannot be read, is refused, or holds no network.
        TypeError, ValueError: of :func:`snn_dendrite_plugin.convert`.

    Example:
        >>> import tempfile, torch
        >>> from spikingjelly.activation_based import neuron
        >>> from snn_dendrite_plugin.conversion.checkpoint import convert_checkpoint, load_network
        >>> folder = tempfile.TemporaryDirectory()
        >>> torch.save(torch.nn.Sequential(torch.nn.Linear(4, 3), neuron.LIFNode()), f"{folder.name}/in.pt")
        >>> (report,) = convert_checkpoint(f"{folder.name}/in.pt", f"{folder.name}/out.pt", branches=2)
        >>> type(load_network(f"{folder.name}/out.pt")[1]).__name__
        'DendSN'
    """
    import torch

    from .api import convert, report

    source, target = Path(source), Path(target)
    if target.exists() and source.exists() and target.samefile(source):
        raise CheckpointError(f"{target} is both the input and the output; write to another file")
    if not target.parent.is_dir():
        raise CheckpointError(f"{target} cannot be written: there is no directory {target.parent}")
    found = load_network(source, allow=allow, unsafe=unsafe)
    reports: list[Any] = []
    if isinstance(found, torch.nn.Module):
        found = convert(found, to=to, **arguments)
        reports.append(report(found))
    else:
        for key, value in found.items():
            if isinstance(value, torch.nn.Module):
                found[key] = convert(value, to=to, **arguments)
                reports.append(report(found[key]))
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        written = Path(folder) / target.name
        torch.save(found, written)
        written.replace(target)
    return reports


def load_network(path: str | Path, *, allow: Iterable[str] = (), unsafe: bool = False) -> nn.Module | dict[Any, Any]:
    """Load a checkpoint that holds a whole network, onto the CPU, refusing what could run code.

    Args:
        path: the file.
        allow: names of further classes or functions that it may contain, ``package.module.Name``.
        unsafe: load it whatever it contains.

    Returns:
        The network, or the dict in which one lies.

    Raises:
        CheckpointError: the file is no checkpoint, refers to what is not known to be harmless, or has no network.
    """
    import torch

    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist")
    with path.open("rb") as file:
        if file.read(1) not in (b"P", b"\x80"):  # a zip archive, or a pickle, as torch.save wrote before 1.6
            raise CheckpointError(f"{path} is no PyTorch checkpoint")
    if unsafe:
        print(f"warning: {path} is loaded with --unsafe: it can run any code of its author's", file=sys.stderr)
        found = _read(path, weights_only=False)
    else:
        with torch.serialization.safe_globals(_harmless(path, allow)):
            found = _read(path, weights_only=True)
    if not isinstance(found, torch.nn.Module) and not _has_network(found):
        raise CheckpointError(f"{path} {_what_else(found)}")
    return found


def _read(path: Path, weights_only: bool) -> Any:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=weights_only)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is refused: it is of PyTorch's old format, whose names cannot be looked at first. {_ANYWAY}"
        ) from error
    except ModuleNotFoundError as error:
        raise CheckpointError(f"{path} needs the module {error.name!r}, which cannot be found") from error
    except AttributeError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}; a class that a script defines is not found outside of it: move it into a "
            f"module, or convert inside the script"
        ) from error
    except Exception as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {type(error).__name__}: {error}") from error


# -- what may be unpickled ---------------------------------------------------------------------------------------------


def _harmless(path: Path, allow: Iterable[str]) -> list[Any]:
    """The classes and functions that a checkpoint names, all of them harmless; anything else is refused unread."""
    import torch

    from .harmless import harmless, resolve

    names = _names_in(path)
    allowed = set(allow)
    found = harmless(names - allowed)
    found |= {name: value for name in names & allowed if (value := resolve(name)) is not None}
    refused = sorted(names - set(found))
    if refused:
        typo = "".join(
            f"; --allow {name} is not in it{did_you_mean(name, refused)}" for name in sorted(allowed - names)
        )
        own = "; classes of your own: --allow package.module.Class" if any(map(_may_be_own, refused)) else ""
        raise CheckpointError(
            f"{path} is refused: it contains {', '.join(refused)}, not known to be harmless. {_ANYWAY}{own}{typo}"
        )
    missing = sorted(allowed - names)
    if missing:
        raise CheckpointError(f"--allow {missing[0]}: {path} contains no such name, but {', '.join(sorted(names))}")
    return [value for value in found.values() if value is not torch.nn.Module]


def _names_in(path: Path) -> set[str]:
    """Everything that the checkpoint's pickle names and torch does not allow by itself, read without unpickling."""
    import torch

    try:
        return set(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except ValueError as error:
        if "torchscript" in str(error):
            message = f"{path} is a TorchScript archive, whose graph is fixed: convert the network before scripting it"
            raise CheckpointError(message) from error
        return set()  # not a zip file: torch.load, which allows nothing then, will say
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path} is refused: {error}, which networks do not need. {_ANYWAY}") from error
    except Exception as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {type(error).__name__}: {error}") from error


def _may_be_own(name: str) -> bool:
    top = name.partition(".")[0]
    return top not in sys.stdlib_module_names and top not in ("__builtin__", "torch", "numpy")


# -- what is in it -----------------------------------------------------------------------------------------------------


def _has_network(found: Any) -> bool:
    import torch

    return isinstance(found, dict) and any(isinstance(value, torch.nn.Module) for value in found.values())


def _what_else(found: Any) -> str:
    """What a checkpoint without a network holds, and what to do with it."""
    if isinstance(found, dict):
        states = [("", found), *((f" under {key!r}", value) for key, value in found.items())]
        where, weights = next((state for state in states if _is_state(state[1])), ("", None))
        if weights is not None:
            return (
                f"holds a state_dict{where} ({len(weights)} tensors), which has no modules to exchange. Build the "
                f"model in Python, convert it, then load the file: model = snn_dendrite_plugin.convert(model), then "
                f"model.load_state_dict(...) takes the weights of the model with point neurons. Or run the script that "
                f"wrote it under `snn-dendrite run`"
            )
        keys = ", ".join(map(repr, list(found)[:8]))
        return f"holds a dict with {keys or 'nothing in it'}, none of which is a network"
    return f"holds a {type(found).__name__}, not a network saved with torch.save(model, path)"


def _is_state(value: Any) -> bool:
    import torch

    return isinstance(value, dict) and bool(value) and all(isinstance(item, torch.Tensor) for item in value.values())
