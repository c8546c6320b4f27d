"""What conversion needs to know of snnTorch's own neurons: which have a dendritic counterpart, and their arguments."""

from __future__ import annotations

from typing import Any

import snntorch
import torch
from snntorch import Leaky, SpikingNeuron
from torch import Tensor, nn

from .shell import Shell

__all__ = ["clear_states", "is_neuron", "read", "why_not"]

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


def is_neuron(module: nn.Module) -> bool:
    """Whether ``module`` is a neuron of snnTorch's (or of ours)."""
    parallel = getattr(snntorch, "LeakyParallel", ())
    return isinstance(module, SpikingNeuron) or (parallel != () and isinstance(module, parallel))


def why_not(module: nn.Module) -> str | None:
    """The reason why this neuron cannot be converted, or None."""
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
            return f"Leaky has a {parameter} of shape {shape}; only one value, or one per channel, has a counterpart"
    if not module.reset_delay and _applied_reset(module) != module.reset_mechanism:
        return "Leaky got another reset_mechanism after it was made, of which snnTorch applies only one half"
    if module.inhibition and not module.reset_delay and not bool((module.graded_spikes_factor == 1).all()):
        return "Leaky divides its reset by graded_spikes_factor under inhibition without delay, but not its spikes"
    return None


def _applied_reset(module: Leaky) -> str:
    """The reset that the neuron carries out: Leaky binds it when it is made, and later changes do not reach it."""
    function = getattr(module, "state_function", None)
    return _FUNCTIONS.get(getattr(function, "__name__", ""), module.reset_mechanism)


def read(module: nn.Module) -> dict[str, Any]:
    """Constructor arguments that ``module``, a ``Leaky`` or one of ours, shares with every node class."""
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


def _copy(value: Tensor) -> Tensor:
    return value.detach().clone()


def clear_states(root: nn.Module) -> None:
    """Reset the states of every neuron in ``root``, to tensors without a graph, so that it can be copied."""
    for module in root.modules():
        if isinstance(module, Shell):
            module.reset_mem()
        elif isinstance(module, SpikingNeuron):
            for name in module._non_persistent_buffers_set:
                value = module._buffers.get(name)
                if value is not None:
                    module._buffers[name] = torch.zeros_like(value)
