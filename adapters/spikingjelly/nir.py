"""NIR exchange of SpikingJelly's: the neurons that NIR can hold go out as nested graphs and come back as nodes.

The host's mappers are tables by class, looked up at each call; ours are added to them. Functions of the host that users
imported before stay the same objects.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

import torch
from torch import nn

from ... import plugins
from .. import nir as exchange
from ..patching import Patches
from .shell import PluginNode

__all__ = ["apply_export", "apply_import"]

HOST = "spikingjelly"


def _nodes(net: nn.Module) -> dict[str, PluginNode]:
    return {name: module for name, module in net.named_modules() if isinstance(module, PluginNode)}


def _checks(original: Any) -> Any:
    """``_ModuleMapper.__init__``, which traces the network: what NIR cannot hold is refused before."""

    @functools.wraps(original)
    def init(self: Any, net: nn.Module, *args: Any, **kwargs: Any) -> None:
        exchange.refuse({name: (node.model, node.firing(), None) for name, node in _nodes(net).items()})
        original(self, net, *args, **kwargs)

    return init


def _exports(original: property) -> property:
    def map_dict(self: Any) -> dict[type, Any]:
        ours = {type(node) for node in _nodes(self.net).values()}
        return original.__get__(self) | {cls: functools.partial(_export, self) for cls in ours}

    return property(map_dict)


def _export(mapper: Any, node: PluginNode) -> Any:
    shape = tuple(mapper.module_io_shape[node][2 if node.step_mode == "m" else 1 :])
    return exchange.write(exchange.describe(node.model, node.firing()), shape, mapper.dt)


def _imports(host: ModuleType) -> Any:
    def make(original: property) -> property:
        def map_dict(self: Any) -> dict[type, Any]:
            def build(node: exchange.Nested) -> nn.Module:
                return host._NIRStatefulModule(_build(exchange.parse(node.graph, self.dt)))

            return original.__get__(self) | {exchange.Nested: build}

        return property(map_dict)

    return make


def _build(p: exchange.Parameters) -> nn.Module:
    adapter = plugins.adapters()[HOST].load()
    spec = plugins.models()[p.model]
    threshold: Any = float(p.threshold[0]) if len(p.threshold) == 1 else torch.from_numpy(p.threshold.copy())
    options = exchange.options(p, decay_input=p.scaled_soma)
    if p.model == "LNM":
        options.setdefault("decay_input", False)
    return adapter.classes(spec)[spec.name_in(adapter.host)](v_threshold=threshold, v_reset=p.v_reset, **options)


def _collapses(nirtorch: ModuleType) -> exchange.Through:
    def nir_to_torch(graph: Any, *args: Any, **kwargs: Any) -> Any:
        return nirtorch.nir_to_torch(exchange.collapse(graph), *args, **kwargs)

    return exchange.Through(nirtorch, nir_to_torch=nir_to_torch)


def apply_export(patches: Patches, module: ModuleType) -> None:
    """Teach the host's exporter our nodes; ``module`` is its ``to_nir``."""
    patches.replace(module._ModuleMapper, "map_dict", _exports)
    patches.replace(module._ModuleMapper, "__init__", _checks)


def apply_import(patches: Patches, module: ModuleType) -> None:
    """Teach the host's importer our graphs; ``module`` is its ``from_nir``."""
    patches.replace(module._NodeMapper, "map_dict", _imports(module))
    patches.replace(module, "nirtorch", _collapses)
