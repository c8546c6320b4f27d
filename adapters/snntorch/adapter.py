"""The adapter of snnTorch; this module imports the host, so import the host first (``AdapterSpec.load`` does)."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

import snntorch
import torch
from snntorch import Leaky, SpikingNeuron
from torch import Tensor, nn

from ..base import HostAdapter, Kit, learned_decay
from . import patches
from .factory import node_class
from .shell import Shell, forget
from .surrogates import TableSpike, read_surrogate

__all__ = ["SnnTorchAdapter", "adapter"]

_REASONS = {
    "AssociativeLeaky": "keeps a matrix as its memory",
    "DeltaLeaky": "emits signed changes of its potential",
    "LeakyParallel": "contains its synapses and has no reset",
    "LinearLeaky": "contains its synapses and has no reset",
    "StateLeaky": "is a convolution over time without a reset",
    "RLeaky": "contains recurrent synapses",
    "RSynaptic": "contains recurrent synapses and a synaptic current",
    "Synaptic": "filters its input by a synaptic current",
    "Alpha": "filters its input by two synaptic currents",
    "SLSTM": "is an LSTM cell",
    "SConv2dLSTM": "is an LSTM cell",
    "Lapicque": "scales its input by time_step / C and decays by 1 - time_step / (R C), which is not beta",
}
_FUNCTIONS = {"_base_sub": "subtract", "_base_zero": "zero", "_base_int": "none"}


class SnnTorchAdapter(HostAdapter):
    """Classes in ``snntorch``, and what conversion needs to know of this host's neurons."""

    host = "snntorch"
    checkpoint_modules = ("snntorch._neurons",)

    def namespaces(self) -> Iterable[ModuleType]:
        return (snntorch,)

    def classes(self, spec: Any) -> Mapping[str, type]:
        step, *sequences = spec.names_in(self.host)
        found = {step: self.cached_class(step, spec, lambda: node_class(step, spec.load()))}
        for name in sequences:
            found[name] = self.cached_class(name, spec, lambda name=name: node_class(name, spec.load(), True))
        return found

    def patch(self) -> None:
        patches.patch()

    def unpatch(self) -> None:
        patches.unpatch()

    # -- conversion ------------------------------------------------------------------------------------------------

    def is_neuron(self, module: nn.Module) -> bool:
        parallel = getattr(snntorch, "LeakyParallel", ())
        return isinstance(module, SpikingNeuron) or (parallel != () and isinstance(module, parallel))

    def why_not(self, module: nn.Module) -> str | None:
        name = type(module).__name__
        if isinstance(module, Shell):
            return f"is already a {name}"
        if type(module) is not Leaky:
            for cls in type(module).__mro__:
                if getattr(snntorch, cls.__name__, None) is cls and cls.__name__ in _REASONS:
                    return f"{name} {_REASONS[cls.__name__]}"
            base = "a subclass of Leaky" if isinstance(module, Leaky) else "no leaky integrator of snnTorch's"
            return f"{name} is {base}: what it computes is not known"
        for parameter in ("beta", "threshold"):
            shape = tuple(getattr(module, parameter).shape)
            if sum(size > 1 for size in shape) > 1:
                return (
                    f"Leaky has a {parameter} of shape {shape}; only one value, or one per channel, has a counterpart"
                )
        if not module.reset_delay and _applied_reset(module) != module.reset_mechanism:
            return "Leaky got another reset_mechanism after it was made, of which snnTorch applies only one half"
        if module.inhibition and not module.reset_delay and not bool((module.graded_spikes_factor == 1).all()):
            return "Leaky divides its reset by graded_spikes_factor under inhibition without delay, but not its spikes"
        return None

    def read(self, module: nn.Module) -> dict[str, Any]:
        ours = isinstance(module, Shell)
        arguments: dict[str, Any] = {}
        if not ours or module.takes_beta:
            beta = module.beta
            arguments["beta"] = _copy(beta.clamp(0, 1))
            arguments["learn_beta"] = beta.requires_grad if ours else isinstance(beta, nn.Parameter)
        return arguments | {
            "threshold": _copy(module.threshold),
            "spike_grad": None if module.surrogate_disable else module.spike_grad,
            "surrogate_disable": module.surrogate_disable,
            "inhibition": module.inhibition,
            "learn_threshold": isinstance(module.threshold, nn.Parameter),
            "reset_mechanism": module.reset_mechanism if ours else _applied_reset(module),
            "state_quant": module.state_quant,
            "output": module.output,
            "graded_spikes_factor": _copy(module.graded_spikes_factor),
            "learn_graded_spikes_factor": isinstance(module.graded_spikes_factor, nn.Parameter),
            "reset_delay": module.reset_delay,
            **({} if ours and "init_hidden" not in module.host_arguments else {"init_hidden": module.init_hidden}),
        }

    def learned_back(self, original: nn.Module, node: nn.Module) -> None:
        if not isinstance(original.beta, nn.Parameter):
            return
        decay = learned_decay(node.model, original.beta.detach())
        if decay is not None:
            with torch.no_grad():
                original.beta.copy_(decay)

    def before_swap(self, root: nn.Module) -> None:
        for module in root.modules():
            if isinstance(module, Shell):
                module.reset_mem()
            elif isinstance(module, SpikingNeuron):
                for name in module._non_persistent_buffers_set:
                    value = module._buffers.get(name)
                    if value is not None:
                        module._buffers[name] = torch.zeros_like(value)

    def forget(self, module: nn.Module) -> None:
        """Release a neuron that was taken out of a network: snnTorch's own list would keep and reset it for ever."""
        forget(module)

    def remember(self, module: nn.Module) -> None:
        """List a neuron of snnTorch's again that goes back into a network: ``utils.reset`` knows no other."""
        if isinstance(module, SpikingNeuron) and not isinstance(module, Shell):
            self.forget(module)
            SpikingNeuron.instances.append(module)

    def picklable(self, value: Any) -> Any:
        """Surrogates of the host are closures, which cannot be pickled: the table's, and copies of neurons with it."""
        if isinstance(value, Shell):
            return value
        neuron = isinstance(value, SpikingNeuron)
        surrogate = read_surrogate(value.spike_grad if neuron else value)
        if surrogate is None or not neuron:
            return value if surrogate is None else TableSpike(surrogate)
        like = copy.copy(value)  # on the same tensors
        for name, bound in vars(value).items():
            if getattr(bound, "__self__", None) is value:  # a method that the host bound when it made the neuron
                vars(like)[name] = getattr(like, bound.__name__)
        vars(like)["spike_grad"] = TableSpike(surrogate)
        return like

    # -- networks on a clock ---------------------------------------------------------------------------------------

    def kit(self, steps: int) -> Kit:
        return _Kit(self, steps)


class _Kit(Kit):
    """torch's own layers, and neurons that keep their states."""

    node_options = {"init_hidden": True}


def _applied_reset(module: Leaky) -> str:
    """The reset that the neuron carries out: Leaky binds it when it is made, and later changes do not reach it."""
    function = getattr(module, "state_function", None)
    return _FUNCTIONS.get(getattr(function, "__name__", ""), module.reset_mechanism)


def _copy(value: Tensor) -> Tensor:
    return value.detach().clone()


adapter = SnnTorchAdapter()
