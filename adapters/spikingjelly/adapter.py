"""The adapter of SpikingJelly; this module imports the host, so import the host first (``AdapterSpec.load`` does)."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Mapping
from typing import Any

import torch
from spikingjelly.activation_based import base, functional, layer, neuron
from torch import nn

from ... import plugins
from ..base import HostAdapter, Kit, learned_decay
from .layers import Stepwise, layer_class
from .patches import patches, register_neurons
from .shell import PluginNode, node_class

__all__ = ["SpikingJellyAdapter", "adapter"]

_OBSERVED = "save_v_LIFNode"  # SpikeDHS's: LIFNode's dynamics, and the mean potential before the spike kept for reading


class SpikingJellyAdapter(HostAdapter):
    """Nodes in ``spikingjelly.activation_based.neuron``, and what conversion needs to know of this host's neurons."""

    host = "spikingjelly"
    checkpoint_modules = tuple(f"{base.__package__}.{name}" for name in ("layer", "model", "neuron", "surrogate"))
    checkpoint_barred = (f"{base.__package__}.neuron.flexsn",)  # writes code for a kernel and loads it

    def namespaces(self):
        return (neuron,)

    def classes(self, spec: Any) -> Mapping[str, type]:
        name = spec.name_in(self.host)
        return {name: self.cached_class(name, spec, lambda: node_class(name, spec.load()))}

    def install(self, spec: Any) -> None:
        super().install(spec)
        register_neurons(self.installed[name] for name in self.classes(spec) if name in self.installed)

    def patch(self) -> None:
        patches.patch()

    def unpatch(self) -> None:
        patches.unpatch()

    # -- layers ----------------------------------------------------------------------------------------------------

    def layer_namespaces(self):
        return (layer,)

    def layer_class(self, spec: Any) -> type:
        name = spec.name_in(self.host)
        return self.cached_class(name, spec, lambda: layer_class(name, spec.load()))

    def layer(self, plain: nn.Module) -> nn.Module:
        """The host's layer of the same name, or the registered one; any other is wrapped in a :class:`Stepwise`."""
        kind = type(plain)
        same = getattr(layer, kind.__name__, None)
        if not (isinstance(same, type) and issubclass(same, kind) and issubclass(same, base.StepModule)):
            same = next((self.layer_class(spec) for spec in plugins.layers().values() if spec.load() is kind), None)
        if same is None:
            return Stepwise(plain)
        made = same.__new__(same)
        made.__dict__.update(plain.__dict__)
        made.step_mode = "s"
        return made

    def kit(self, steps: int) -> Kit:
        from .clocked import ClockedKit

        return ClockedKit(self, steps)

    # -- conversion ------------------------------------------------------------------------------------------------

    def _leaky(self) -> dict[type, str]:
        known = ("IFNode", "LIFNode", "ParametricLIFNode", "SimpleIFNode", "SimpleLIFNode")
        found = {getattr(neuron, name): name for name in known if hasattr(neuron, name)}
        zoo = sys.modules.get("spikingjelly.activation_based.model.spike_dhs")
        if zoo is not None:
            found[zoo.save_v_LIFNode] = _OBSERVED
        return found

    def is_neuron(self, module: nn.Module) -> bool:
        if isinstance(module, (neuron.BaseNode, getattr(neuron, "SimpleBaseNode", neuron.BaseNode))):
            return True
        return type(module).__module__.startswith(neuron.__name__) and isinstance(
            module, (base.MemoryModule, base.StepModule)
        )

    def why_not(self, module: nn.Module) -> str | None:
        if isinstance(module, PluginNode):
            return f"is already a {type(module).__name__}"
        name = self._leaky().get(type(module))
        if name == _OBSERVED and module.store_v_seq:
            return "its v_seq holds means of the potential before the spike, which no other node records"
        if name is not None:
            return None
        return f"{type(module).__name__} is not a leaky or perfect integrator: its dynamics would change"

    def read(self, module: nn.Module) -> dict[str, Any]:
        name = self._leaky()[type(module)]
        arguments: dict[str, Any] = {
            "v_threshold": module.v_threshold,
            "v_reset": module.v_reset,
            "surrogate_function": copy.deepcopy(module.surrogate_function),
            "detach_reset": module.detach_reset,
            "step_mode": module.step_mode,
        }
        if hasattr(module, "store_v_seq"):
            arguments["store_v_seq"] = module.store_v_seq
        if getattr(module, "backend", "torch") != "torch":  # before 2.0, where "torch" is the default and says nothing
            arguments["backend"] = module.backend
        if name == _OBSERVED:
            arguments["v_before_spike"] = module.v_before_spike  # reported as what is not carried over
        if name == "ParametricLIFNode":
            arguments["tau"] = 1 / module.w.detach().double().sigmoid().item()
            arguments["decay_input"] = module.decay_input
            arguments["learn_beta"] = True
        elif name.endswith("LIFNode"):
            arguments["tau"], arguments["decay_input"] = module.tau, module.decay_input
        else:
            arguments["tau"], arguments["decay_input"] = math.inf, False
        return arguments

    def build(self, name: str, arguments: Mapping[str, Any]) -> nn.Module:
        if "beta" in arguments:  # the user's, which wins over what was read
            arguments = {key: value for key, value in arguments.items() if key != "tau"}
        return super().build(name, arguments)

    def learned_back(self, original: nn.Module, node: nn.Module) -> None:
        if self._leaky().get(type(original)) != "ParametricLIFNode":
            return
        decay = learned_decay(node.model, 1 - original.w.detach().sigmoid())
        if decay is not None:
            with torch.no_grad():
                original.w.copy_(torch.logit(1 - decay))

    def before_swap(self, root: nn.Module) -> None:
        functional.reset_net(root)

    def after_swap(self, root: nn.Module) -> None:
        """Have ``reset_net`` look for the modules to reset anew, in every network it knows.

        The host keeps a list per network it was given, which may be a parent of ``root`` or a wrapper around it: nobody
        knows these, and the neurons that were taken out live on for ``revert``.
        """
        invalidate = getattr(functional, "invalidate_reset_cache", None)
        if invalidate is not None:
            for network in (*root.modules(), *getattr(functional.net_config, "_RESET_MODULE_CACHE", ())):
                invalidate(network)


adapter = SpikingJellyAdapter()
