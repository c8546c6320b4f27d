"""Which classes and functions a checkpoint may name: those whose construction reads, writes and runs nothing.

Nobody keeps a list of ours. Allowed are torch's layers; modules of a host, as its adapter says; modules of our own
rooms; what is registered as a neuron model or layer, and the adapters' classes of it; and whatever of ours says of
itself, by the attribute ``in_checkpoints``, that it may be there.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from .. import plugins
from ..adapters.base import HostAdapter

__all__ = ["harmless", "resolve"]

_PACKAGE = __name__.partition(".")[0]
_OUR_ROOMS = tuple(f"{_PACKAGE}.{room}." for room in ("adapters", "conversion", "layers", "neurons"))
_TORCH_ROOM = "torch.nn.modules."
_TORCH = {  # what its layers refer to beside their classes
    "torch.nn.functional.gelu",
    "torch.nn.functional.relu",
    "torch.nn.modules.module._WrappedHook",
    "torch.nn.parameter.UninitializedBuffer",
    "torch.nn.parameter.UninitializedParameter",
}


def harmless(names: Iterable[str]) -> dict[str, Any]:
    """The objects that a pickle means by these names, without those that are not known to be harmless.

    A host and a plugin are imported where a name is of their package.
    """
    names = set(names)
    allowed = [_TORCH_ROOM, *_OUR_ROOMS]
    barred: list[str] = []
    for adapter in _adapters(names):
        allowed += [f"{module}." for module in adapter.checkpoint_modules]
        barred += adapter.checkpoint_barred
    found: dict[str, Any] = {}
    registered: dict[str, type] | None = None
    for name in sorted(names):
        value = None
        if name in _TORCH:
            value = resolve(name)
        elif name.startswith(tuple(allowed)) and not name.startswith(tuple(barred) or " "):
            value = _module_class(resolve(name))
        if value is None and name.startswith(f"{_PACKAGE}.") and "__" not in name:
            value = _declared(resolve(name))
        if value is None:
            registered = _registered(names) if registered is None else registered
            value = registered.get(name)
        if value is not None:
            found[name] = value
    return found


def resolve(name: str) -> Any:
    """The object that a pickle means by ``name``, or None: it must say itself that this is its name."""
    parts = name.split(".")
    for split in range(len(parts) - 1, 0, -1):
        try:
            value: Any = importlib.import_module(".".join(parts[:split]))
        except ImportError:
            continue
        for part in parts[split:]:
            value = getattr(value, part, None)
        return value if _full_name(value) == name else None
    return None


def _full_name(value: Any) -> str:
    return f"{getattr(value, '__module__', None)}.{getattr(value, '__qualname__', None)}"


def _module_class(value: Any) -> type | None:
    return value if isinstance(value, type) and issubclass(value, nn.Module) else None


def _declared(value: Any) -> Any:
    """A class or function that says itself, not through a base class, that checkpoints may contain it."""
    own = getattr(value, "__dict__", {})
    return value if own.get("in_checkpoints") is True else None


def _of_package(target: Any, names: set[str]) -> bool:
    """Whether a name lies in the package of a target: ``"package.module:Object"``, or the object itself."""
    module = target.partition(":")[0] if isinstance(target, str) else getattr(target, "__module__", "")
    package = module.rpartition(".")[0] or module
    return any(name.startswith(f"{package}.") for name in names)


def _adapters(names: set[str]) -> Iterator[HostAdapter]:
    """The adapters of hosts whose modules are named, or whose own classes are."""
    hosts = {name.partition(".")[0] for name in names}
    for spec in plugins.adapters().values():
        if spec.trigger.partition(".")[0] in hosts or _of_package(spec.target, names):
            with contextlib.suppress(Exception):  # what cannot be loaded is in no checkpoint that can
                adapter = spec.load()
                if isinstance(adapter, HostAdapter):
                    yield adapter


def _registered(names: set[str]) -> dict[str, type]:
    """Registered models and layers, and the adapters' classes of them, by the names that pickles have for them."""
    specs = [*plugins.models().values(), *plugins.layers().values()]
    classes: list[Any] = []
    for spec in specs:
        if _of_package(spec.target, names):
            with contextlib.suppress(Exception):
                classes.append(spec.load())
    for adapter in _adapters(names):
        for spec in specs:
            with contextlib.suppress(Exception):
                layer = isinstance(spec, plugins.LayerSpec)
                classes += [adapter.layer_class(spec)] if layer else adapter.classes(spec).values()
    return {_full_name(value): value for value in classes if _module_class(value) is not None}
