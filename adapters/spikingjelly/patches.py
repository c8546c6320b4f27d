"""What SpikingJelly has no hook for.

Its operation counters take an operator that they do not know for free, its configuration of vision training a class
that it does not know for an error, its NIR exchange neither, and its export to Lynxi chips hands on what it does not
know.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from ..patching import Patches

__all__ = ["patches", "register_neurons"]

_CONFIG = "spikingjelly.activation_based.distributed.vision.config"
_LYNXI = "spikingjelly.activation_based.lynxi_exchange"


_known: set[type] = set()  # classes that are installed in the host


def register_neurons(classes: Iterable[type]) -> None:
    """Let vision training find classes by the path that it writes for them, now or when its module is loaded."""
    classes = list(classes)
    _known.update(classes)
    patches.undo(_known.clear)
    config = sys.modules.get(_CONFIG)
    registry = getattr(config, "_NEURON_REGISTRY", None)
    if config is None or registry is None:
        return
    for cls in classes:
        config.register_neuron_class(cls)
        path = f"{cls.__module__}.{cls.__qualname__}"
        patches.undo(functools.partial(_forget, registry, path, cls))


def _forget(registry: dict[str, type], path: str, cls: type) -> None:
    if registry.get(path) is cls:
        del registry[path]


def _register_installed(_: Patches, module: ModuleType) -> None:
    register_neurons(_known)


def _refuses(original: Callable) -> Callable:
    """``to_lynxi_supported_module``, which copies a module that it does not know, as if the chip could run it."""

    @functools.wraps(original)
    def wrapper(m_in: Any, *args: Any, **kwargs: Any) -> Any:
        from .shell import PluginNode

        if isinstance(m_in, PluginNode):
            raise ValueError(
                f"m_in is a {type(m_in).__name__}, which Lynxi's chips have no module for; snn_dendrite_plugin.revert "
                f"gives back the point neurons of a converted network"
            )
        return original(m_in, *args, **kwargs)

    return wrapper


def _patch_lynxi(found: Patches, module: ModuleType) -> None:
    found.replace(module, "to_lynxi_supported_module", _refuses)


def _patch_counters(found: Patches, module: ModuleType) -> None:
    from .counters import apply

    apply(found, module)


def _patch_export(found: Patches, module: ModuleType) -> None:
    from .nir import apply_export

    apply_export(found, module)


def _patch_import(found: Patches, module: ModuleType) -> None:
    from .nir import apply_import

    apply_import(found, module)


patches = Patches(
    {
        "spikingjelly.activation_based.op_counter": _patch_counters,
        _CONFIG: _register_installed,
        _LYNXI: _patch_lynxi,
        "spikingjelly.activation_based.nir_exchange.to_nir": _patch_export,
        "spikingjelly.activation_based.nir_exchange.from_nir": _patch_import,
    }
)
