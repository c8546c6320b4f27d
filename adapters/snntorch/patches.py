"""What snnTorch has no hook for: ``utils.reset``, ``backprop`` and the number of outputs know their own classes only.

``utils._layer_check`` and ``utils._final_layer_check`` are looked up as globals of the module whenever ``utils.reset``
and ``backprop`` run, so that wrapping them reaches users who imported ``reset`` before. Stock neurons see no change.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import snntorch.utils
import wrapt
from torch import nn

from ..patching import Patches
from .shell import Shell

__all__ = ["patch", "unpatch"]

_BACKPROP = "snntorch.backprop"
_active = False
_waiting = False
_originals: dict[tuple[str, str], tuple[Callable, Callable]] = {}  # (module, name) -> (original, wrapper)


def _neurons(net: nn.Module) -> list[Shell]:
    return [module for module in net.modules() if isinstance(module, Shell)] if isinstance(net, nn.Module) else []


def _unwrapped(module: Any) -> Any:
    """The module inside torch.compile's, DataParallel's and DistributedDataParallel's wrappers."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if inner is None and isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = module.module
        if inner is None:
            return module
        module = inner


def _resets(original: Callable) -> Callable:
    """``original(net)``, then a reset of our neurons at any depth. A host that resets them itself does no harm."""

    @functools.wraps(original)
    def wrapper(net, *args, **kwargs):
        result = original(net, *args, **kwargs)
        if _active:
            for neuron in _neurons(net):
                neuron.reset_mem()
        return result

    return wrapper


def _counts_outputs(original: Callable) -> Callable:
    """``original(net)`` unless the last layer is one of ours: spikes and potential are 2 outputs."""

    @functools.wraps(original)
    def wrapper(net, *args, **kwargs):
        if _active:
            last = _unwrapped(net)
            if not isinstance(last, Shell):
                children = list(getattr(last, "_modules", {}).values())
                last = _unwrapped(children[-1]) if children else None
            if isinstance(last, Shell):
                return last.outputs
        return original(net, *args, **kwargs)

    return wrapper


def _truncates(original: Callable) -> Callable:
    """``backprop.TBPTT``, which detaches states right after each step of the optimizer: so do ours."""
    signature = inspect.signature(original)

    @functools.wraps(original)
    def wrapper(*args, **kwargs):
        try:
            arguments = signature.bind(*args, **kwargs).arguments
        except TypeError:
            return original(*args, **kwargs)  # raises, in its own words
        neurons = _neurons(arguments.get("net"))
        register = getattr(arguments.get("optimizer"), "register_step_post_hook", None)
        if not (_active and neurons and register):
            return original(*args, **kwargs)
        handle = register(lambda *_: [neuron.detach_mem() for neuron in neurons] and None)
        try:
            return original(*args, **kwargs)
        finally:
            handle.remove()

    return wrapper


def _wrap(module: ModuleType, name: str, make: Callable[[Callable], Callable]) -> None:
    key = (module.__name__, name)
    current = getattr(module, name)
    if key in _originals and _originals[key][1] is current:
        return
    if key in _originals and _contains(current, _originals[key][1]):
        return  # someone wrapped our wrapper
    _originals[key] = (current, make(current))
    setattr(module, name, _originals[key][1])


def _contains(function: Any, ours: Callable) -> bool:
    while function is not None:
        if function is ours:
            return True
        function = getattr(function, "__wrapped__", None)
    return False


def _patch_backprop(module: ModuleType) -> None:
    global _waiting
    _waiting = False
    if _active and hasattr(module, "TBPTT"):
        _wrap(module, "TBPTT", _truncates)


def _patch_export(found: Patches, module: ModuleType) -> None:
    from .nir import apply_export

    apply_export(found, module)


def _patch_import(found: Patches, module: ModuleType) -> None:
    from .nir import apply_import

    apply_import(found, module)


class _Attributes:
    """A neuron for those who call its ``__getattr__``, by which a module gives its parameters and buffers only."""

    def __init__(self, neuron: Shell) -> None:
        self._neuron = neuron

    def __getattr__(self, name: str) -> Any:
        return getattr(self._neuron, name)


def _probes(original: Callable) -> Callable:
    """``AttributeMonitor.create_hook``, whose hooks read states, which are no buffers in our neurons."""

    @functools.wraps(original)
    def create_hook(self: Any, name: str) -> Callable:
        hook = original(self, name)

        @functools.wraps(hook)
        def read(module: nn.Module, *arguments: Any) -> Any:
            return hook(_Attributes(module) if isinstance(module, Shell) else module, *arguments)

        return read

    return create_hook


def _patch_probe(found: Patches, module: ModuleType) -> None:
    found.replace(module.AttributeMonitor, "create_hook", _probes)


_patches = Patches({
    "snntorch.export_nir": _patch_export, "snntorch.import_nir": _patch_import,
    "snntorch.functional.probe": _patch_probe,
})  # fmt: skip


def patch() -> None:
    """Make ``utils.reset``, ``backprop``, probes and NIR exchange know our neurons; does nothing when they do."""
    global _active, _waiting
    _active = True
    _patches.patch()
    utils = snntorch.utils
    _wrap(utils, "_layer_check" if hasattr(utils, "_layer_check") else "reset", _resets)
    if hasattr(utils, "_final_layer_check"):
        _wrap(utils, "_final_layer_check", _counts_outputs)
    if _BACKPROP in sys.modules:
        _patch_backprop(sys.modules[_BACKPROP])
    elif not _waiting:  # importing it would show the user its deprecation warning
        _waiting = True
        wrapt.register_post_import_hook(_patch_backprop, _BACKPROP)


def unpatch() -> None:
    """Put back what :func:`patch` replaced; a wrapper that others have wrapped since stays, and does nothing."""
    global _active
    _active = False
    _patches.unpatch()
    for (module_name, name), (original, wrapper) in list(_originals.items()):
        module = sys.modules.get(module_name)
        if module is not None and getattr(module, name, None) is wrapper:
            setattr(module, name, original)
            del _originals[module_name, name]
