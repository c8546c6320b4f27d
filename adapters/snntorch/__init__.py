"""snnTorch: every registered neuron model as ``snntorch.<Name>``, a native neuron of the host.

``snn.Dendritic``, ``snn.LNM`` and ``snn.TTFS`` take one time step per call, ``snn.DendriticParallel`` and
``snn.LNMParallel`` a whole sequence. ``snntorch.utils.reset`` and ``snntorch.backprop`` know them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import nn

from ..base import HostAdapter, learned_decay

__all__ = ["SnnTorchAdapter", "adapter"]


class SnnTorchAdapter(HostAdapter):
    """Classes in ``snntorch``, and what conversion needs to know of this host's neurons."""

    host = "snntorch"

    def namespaces(self) -> Iterable[ModuleType]:
        import snntorch

        return (snntorch,)

    def classes(self, spec: Any) -> Mapping[str, type]:
        from .factory import node_class

        step, *sequences = spec.names_in(self.host)
        found = {step: self.cached_class(step, spec, lambda: node_class(step, spec.load()))}
        for name in sequences:
            found[name] = self.cached_class(name, spec, lambda name=name: node_class(name, spec.load(), True))
        return found

    def patch(self) -> None:
        from . import patches

        patches.patch()

    def unpatch(self) -> None:
        from . import patches

        patches.unpatch()

    # -- conversion ------------------------------------------------------------------------------------------------

    def is_neuron(self, module: nn.Module) -> bool:
        from . import conversion

        return conversion.is_neuron(module)

    def why_not(self, module: nn.Module) -> str | None:
        from . import conversion

        return conversion.why_not(module)

    def read(self, module: nn.Module) -> dict[str, Any]:
        from . import conversion

        return conversion.read(module)

    def learned_back(self, original: nn.Module, node: nn.Module) -> None:
        if not isinstance(original.beta, nn.Parameter):
            return
        decay = learned_decay(node.model, original.beta.detach())
        if decay is not None:
            with torch.no_grad():
                original.beta.copy_(decay)

    def before_swap(self, root: nn.Module) -> None:
        from . import conversion

        conversion.clear_states(root)

    def forget(self, module: nn.Module) -> None:
        """Release a neuron that was taken out of a network: snnTorch's own list would keep and reset it for ever."""
        from .shell import forget

        forget(module)

    def remember(self, module: nn.Module) -> None:
        """List a neuron of snnTorch's again that goes back into a network: ``utils.reset`` knows no other."""
        from snntorch import SpikingNeuron

        from .shell import Shell

        if isinstance(module, SpikingNeuron) and not isinstance(module, Shell):
            self.forget(module)
            SpikingNeuron.instances.append(module)


adapter = SnnTorchAdapter()


def __getattr__(name: str) -> Any:
    # Node classes are made on demand; pickles look for them here.
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return adapter.resolve(name)
