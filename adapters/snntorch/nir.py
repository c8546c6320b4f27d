"""NIR exchange of snnTorch's: the neurons that NIR can hold go out as nested graphs and come back as neurons.

Exporter and importer look up ``nirtorch`` as a global of their modules whenever they run. In its place they get one
whose two functions know our neurons, so that users who imported the host's functions before are reached too. The host's
own time step is 1e-4.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ... import plugins
from .. import nir as exchange
from ..patching import Patches
from .shell import Shell

__all__ = ["apply_export", "apply_import"]

HOST = "snntorch"

DT = 1e-4


def _why_not(neuron: Shell) -> str | None:
    """What NIR cannot hold of what the host does around the model."""
    for feature in ("inhibition", "state_quant"):
        if getattr(neuron, feature):
            return f"it has {feature}, and NIR's neurons have none"
    if not bool((neuron.graded_spikes_factor == 1).all()):
        return "its spikes are graded (graded_spikes_factor), and NIR's are not"
    if not bool((neuron.threshold > 0).all()):
        return "its threshold is not above the reset at 0"
    if neuron.reset_mechanism != "zero" or neuron.reset_delay:
        return (
            f"it has reset_mechanism={neuron.reset_mechanism!r} and reset_delay={neuron.reset_delay}, and NIR knows "
            f"the hard reset at once only (reset_mechanism='zero', reset_delay=False)"
        )
    return None


def _extracts(nirtorch: ModuleType) -> exchange.Through:
    def extract_nir_graph(
        model: nn.Module, model_map: Callable[[nn.Module], Any], sample_data: Any, *args: Any, **kwargs: Any
    ) -> Any:
        neurons = {name: module for name, module in model.named_modules() if isinstance(module, Shell)}
        exchange.refuse({name: (n.model, n.firing(torch.float64), _why_not(n)) for name, n in neurons.items()})
        if not neurons:
            return nirtorch.extract_nir_graph(model, model_map, sample_data, *args, **kwargs)
        shapes: dict[nn.Module, tuple[int, ...]] = {}
        ignored = set(kwargs.get("ignore_dims") or ())

        def note(neuron: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            shapes[neuron] = tuple(size for axis, size in enumerate(inputs[0].shape) if axis not in ignored)

        def mapped(module: nn.Module) -> Any:
            if not isinstance(module, Shell):
                return model_map(module)
            numbers = exchange.describe(module.model, module.firing(torch.float64))
            return exchange.Nested(exchange.write(numbers, shapes[module], DT))

        kwargs["ignore_submodules_of"] = [*(kwargs.get("ignore_submodules_of") or ()), *map(type, neurons.values())]
        handles = [neuron.register_forward_pre_hook(note) for neuron in neurons.values()]
        try:
            graph = nirtorch.extract_nir_graph(model, mapped, sample_data, *args, **kwargs)
        finally:
            for handle in handles:
                handle.remove()
        return exchange.expand(graph)

    return exchange.Through(nirtorch, extract_nir_graph=extract_nir_graph)


def _converts(nirtorch: ModuleType) -> exchange.Through:
    def nir_to_torch(graph: Any, node_map: dict[type, Any], *args: Any, **kwargs: Any) -> Any:
        node_map = {**node_map, exchange.Nested: lambda node: _build(exchange.parse(node.graph, DT))}
        return nirtorch.nir_to_torch(exchange.collapse(graph), node_map, *args, **kwargs)

    return exchange.Through(nirtorch, nir_to_torch=nir_to_torch)


def _build(p: exchange.Parameters) -> nn.Module:
    adapter = plugins.adapters()[HOST].load()
    if p.v_reset != 0:
        raise ValueError(f"soma.v_reset is {p.v_reset}; snnTorch's neurons reset to 0")
    options = exchange.options(p, decay_input=False)
    if options.pop("decay_input", False):
        raise ValueError(f"the input of an LNM is scaled by {p.direct.tolist()}, which snnTorch's neurons do not do")
    options.setdefault("beta", float(p.theta[0, 1]))
    spec = plugins.models()[p.model]
    cls = adapter.classes(spec)[spec.names_in(adapter.host)[0]]
    threshold = torch.from_numpy(p.threshold.copy())
    return cls(
        threshold=threshold[0] if len(threshold) == 1 else threshold,
        reset_mechanism="zero",
        reset_delay=False,
        init_hidden=True,
        **options,
    )


def apply_export(patches: Patches, module: ModuleType) -> None:
    """Teach the host's exporter our neurons; ``module`` is its ``export_nir``."""
    patches.replace(module, "nirtorch", _extracts)


def apply_import(patches: Patches, module: ModuleType) -> None:
    """Teach the host's importer our graphs; ``module`` is its ``import_nir``."""
    patches.replace(module, "nirtorch", _converts)
