"""Finding a model's neurons, choosing among them, and exchanging modules so that every step can be taken back."""

from __future__ import annotations

import dataclasses
import fnmatch
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from .. import plugins

__all__ = ["Found", "Site", "Swap", "find_modules", "find_neurons", "select"]

ROOT = "(root)"
_HOOKS = {
    "_forward_pre_hooks": "forward pre-hook",
    "_forward_hooks": "forward hook",
    "_backward_pre_hooks": "backward pre-hook",
    "_backward_hooks": "backward hook",
}

Selector = str | type | Callable[[str, nn.Module], bool]


@dataclasses.dataclass
class Site:
    """One place where a module hangs: ``parent._modules[key]``, or the root of the model when ``parent`` is None."""

    parent: nn.Module | None
    key: str
    name: str


@dataclasses.dataclass
class Found:
    """One module and every place where it hangs; ``adapter`` is its host's for a neuron."""

    module: nn.Module
    sites: list[Site]
    adapter: Any = None

    @property
    def name(self) -> str:
        return self.sites[0].name or ROOT

    @property
    def kind(self) -> str:
        return type(self.module).__name__


def active_adapters() -> dict[str, Any]:
    """Adapters of the hosts that are imported, by name."""
    found = {}
    for name, spec in plugins.adapters().items():
        if spec.trigger in sys.modules:
            try:
                found[name] = spec.load()
            except Exception as error:
                message = f"adapter {name!r} cannot be loaded: {type(error).__name__}: {error}"
                warnings.warn(message, plugins.PluginWarning, stacklevel=4)
    return found


def reset_states(model: nn.Module, adapters: dict[str, Any]) -> None:
    """Clear the states of every host's neurons."""
    for adapter in adapters.values():
        adapter.before_swap(model)


def find_modules(root: nn.Module, stop: Callable[[nn.Module], bool] = lambda _: False) -> list[Found]:
    """Every module with all its places, in order of registration; modules that ``stop`` accepts are not entered."""
    found: dict[int, Found] = {}

    def visit(module: nn.Module, site: Site) -> None:
        known = found.get(id(module))
        if known is not None:
            known.sites.append(site)
            return
        found[id(module)] = Found(module, [site])
        if not stop(module):
            for key, child in module._modules.items():
                if child is not None:
                    visit(child, Site(module, key, f"{site.name}.{key}" if site.name else key))

    visit(root, Site(None, "", ""))
    return list(found.values())


def find_neurons(root: nn.Module, adapters: dict[str, Any]) -> list[Found]:
    """The hosts' neurons in ``root``, each once; neurons inside neurons belong to the outer one."""

    def owner(module: nn.Module) -> Any:
        return next((adapter for adapter in adapters.values() if adapter.is_neuron(module)), None)

    found = find_modules(root, stop=lambda module: owner(module) is not None)
    neurons = []
    for item in found:
        item.adapter = owner(item.module)
        if item.adapter is not None:
            neurons.append(item)
    return neurons


def owners(neurons: Iterable[Found], adapters: dict[str, Any]) -> dict[str, Any]:
    """Those adapters whose neurons these are: no other host gets its hands on the model."""
    found = [item.adapter for item in neurons]
    return {name: adapter for name, adapter in adapters.items() if any(adapter is owner for owner in found)}


def select(what: str, chosen: Any, neurons: Iterable[Found]) -> list[tuple[Any, list[Found]]]:
    """The neurons that each of the user's selectors accepts: ``(selector, neurons)`` pairs.

    Args:
        what: name of the argument, for messages.
        chosen: an ``fnmatch`` pattern for the qualified name, a class, a function of (name, module), or several.
        neurons: what to choose from.

    Raises:
        TypeError: a selector is none of these.
    """
    selectors = list(chosen) if isinstance(chosen, (list, tuple, set, frozenset)) else [chosen]
    pairs = []
    for selector in selectors:
        if not isinstance(selector, str) and not callable(selector):
            raise TypeError(
                f"{what} has {selector!r}; it takes a name pattern such as 'layer1.*', a neuron class, a function of "
                f"(name, module) that returns a bool, or a list of these"
            )
        pairs.append((selector, [neuron for neuron in neurons if _accepts(selector, neuron)]))
    return pairs


def _accepts(selector: Selector, neuron: Found) -> bool:
    if isinstance(selector, str):
        return any(fnmatch.fnmatchcase(site.name, selector) for site in neuron.sites)
    if isinstance(selector, type):
        return isinstance(neuron.module, selector)
    return any(bool(selector(site.name, neuron.module)) for site in neuron.sites)


def hook_notes(module: nn.Module) -> list[str]:
    """A note on the user's hooks, which stay with the module that is taken out."""
    notes = []
    for attribute, what in _HOOKS.items():
        count = len(getattr(module, attribute, ()) or ())
        if count:
            notes.append(f"{count} {what}{'s' if count > 1 else ''} left behind")
    return notes


def reference_notes(root: nn.Module, wanted: dict[int, nn.Module]) -> dict[int, list[str]]:
    """Notes on plain attributes (lists, dicts, bare references) that will go on seeing an old module."""
    notes: dict[int, list[str]] = {}
    for name, module in root.named_modules():
        for attribute, value in vars(module).items():
            if attribute == "_modules":
                continue
            for item in _contents(value):
                if id(item) in wanted:
                    where = f"{name}.{attribute}" if name else attribute
                    notes.setdefault(id(item), []).append(f"{where} still refers to the old module")
    return notes


def _contents(value: Any) -> Iterator[Any]:
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, dict):
        yield from (item for item in value.values() if isinstance(item, nn.Module))
    elif isinstance(value, (list, tuple)):
        yield from (item for item in value if isinstance(item, nn.Module))


class Swap:
    """Exchanges modules in a model and can take it all back.

    Attributes:
        root: the model; a new object where the root itself was exchanged.
    """

    def __init__(self, root: nn.Module) -> None:
        self.root = root
        self._done: list[tuple[nn.Module, str, nn.Module | None]] = []
        self._original_root = root

    def put(self, sites: Iterable[Site], module: nn.Module) -> None:
        """Hang ``module`` at every one of the places."""
        for site in sites:
            if site.parent is None:
                self.root = module
                continue
            self._done.append((site.parent, site.key, site.parent._modules[site.key]))
            site.parent._modules[site.key] = module

    def undo(self) -> None:
        """Everything as it was."""
        for parent, key, module in reversed(self._done):
            parent._modules[key] = module
        self._done.clear()
        self.root = self._original_root


def place_of(root: nn.Module, found: Found) -> tuple[torch.dtype, torch.device | None]:
    """Floating dtype and device for what replaces a module: its own tensors', else those of the nearest module above.

    Parameters come first: fixed values are buffers that keep float64 in a float32 model.
    """
    modules = [found.module, *_ancestors(root, found.sites[0])]
    tables = [module.parameters for module in modules] + [module.buffers for module in modules]
    for table in tables:
        for tensor in table():
            if tensor.is_floating_point():
                return tensor.dtype, tensor.device
    return torch.get_default_dtype(), None


def _ancestors(root: nn.Module, site: Site) -> Iterator[nn.Module]:
    parts = site.name.split(".")[:-1]
    for depth in range(len(parts), -1, -1):
        yield root.get_submodule(".".join(parts[:depth]))


def count_parameters(module: nn.Module) -> int:
    """Elements of all parameters, shared ones once, lazy ones as 0."""
    return sum(parameter.numel() for parameter in module.parameters() if not is_lazy(parameter))


def has_lazy(module: nn.Module) -> bool:
    """Whether a parameter waits for the first forward pass."""
    return any(is_lazy(parameter) for parameter in module.parameters())
