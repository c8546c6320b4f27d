"""The shell that gives any neuron model snnTorch's manners: construction, states, reset, checkpoints."""

from __future__ import annotations

import inspect
import math
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from snntorch import SpikingNeuron
from torch import Tensor, nn

from ...kernels.surrogates import Surrogate
from ...neurons.base import Firing, NeuronModel, States
from ..base import accepts, read_decay, say_slow, write_decay
from .states import Stateful
from .surrogates import DEFAULT_SPIKE_GRAD, TableSpike, read_surrogate

__all__ = ["Shell", "forget", "live"]

RESETS = {"subtract": "soft", "zero": "hard", "none": "none"}
# What the host decides: name -> default, in the order in which Leaky takes it by position; the last by keyword only.
HOST = {
    "threshold": 1.0,
    "spike_grad": None,
    "surrogate_disable": False,
    "init_hidden": False,
    "inhibition": False,
    "learn_beta": False,
    "learn_threshold": False,
    "reset_mechanism": "subtract",
    "state_quant": False,
    "output": False,
    "graded_spikes_factor": 1.0,
    "learn_graded_spikes_factor": False,
    "reset_delay": True,
    "fire_once": False,
}
FLAGS = ("surrogate_disable", "init_hidden", "inhibition", "learn_threshold", "output", "learn_graded_spikes_factor",
         "reset_delay", "fire_once", "carry_states")  # fmt: skip
KEYWORD_ONLY = ("fire_once", "carry_states")
HIDDEN = ("decay_input",)  # snnTorch never scales a neuron's input
_LIVE: weakref.WeakSet[Shell] = weakref.WeakSet()


def live(cls: type) -> Iterator[Shell]:
    """Every neuron of ``cls`` that is in use; copies and unpickled ones too."""
    return (neuron for neuron in list(_LIVE) if isinstance(neuron, cls))


def forget(module: nn.Module) -> None:
    """Take a neuron out of ``SpikingNeuron.instances``, whose strong references would keep it, and its state."""
    for holder in {SpikingNeuron, *type(module).__mro__}:
        instances = vars(holder).get("instances")
        if isinstance(instances, list):
            instances[:] = [item for item in instances if item is not module]


def _floating(value: Any) -> Tensor:
    value = value if isinstance(value, Tensor) else torch.as_tensor(value, device="cpu")
    return value if value.is_floating_point() else value.to(torch.get_default_dtype())


class Shell(Stateful):
    """A registered neuron model among snnTorch's neurons; subclasses name the model. See :mod:`.factory`."""

    model_class: type[NeuronModel]
    takes_beta = False
    host_arguments = HOST

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        own, host = self._arguments(args, kwargs)
        name, model_class = type(self).__name__, self.model_class
        learn_beta = host.pop("learn_beta", False)
        if self.takes_beta:
            # As Leaky does, through the default dtype: a beta of 0.9 is the same number in both.
            if "beta" in own:
                own["beta"] = _floating(own["beta"])
            if accepts(model_class, "learn_beta"):
                own["learn_beta"] = learn_beta
        for hidden in HIDDEN:
            if accepts(model_class, hidden):
                own[hidden] = False
        model = model_class(**own)
        if learn_beta and not any(parameter.requires_grad for parameter in model.parameters()):
            raise ValueError(f"learn_beta is True, but {name} has nothing that is learned; its model fixes beta")
        if host["reset_mechanism"] not in RESETS:
            raise ValueError(f"reset_mechanism is {host['reset_mechanism']!r}; it must be one of {', '.join(RESETS)}")
        self._check_callables(host)
        for flag in FLAGS:
            if host.get(flag, False) not in (True, False):
                raise TypeError(f"{flag} is {host[flag]!r}; it must be True or False")
        fire_once, reset_delay, carry = (host.pop(key, False) for key in ("fire_once", "reset_delay", "carry_states"))
        for key in ("threshold", "graded_spikes_factor"):
            value, made = host[key], _floating(host[key])
            host[key] = made if isinstance(value, Tensor) else made.to(torch.get_default_device())
            if isinstance(value, float) and math.isnan(value):
                raise ValueError(f"{key} is {value}; it must be a number, or one per channel")
        if host["spike_grad"] is None:
            host["spike_grad"] = DEFAULT_SPIKE_GRAD
        elif isinstance(host["spike_grad"], Surrogate):
            host["spike_grad"] = TableSpike(host["spike_grad"])
        super().__init__(**host)
        forget(self)
        _LIVE.add(self)
        self.reset_delay, self._fire_once, self.carry_states = reset_delay, bool(fire_once), carry
        self._spike_reading = (None, None)
        self._read_spike_grad()
        self.model = model
        self._init_mem()
        self.register_load_state_dict_post_hook(_forgive_missing)
        for feature in ("inhibition", "state_quant"):
            if getattr(self, feature):
                say_slow(name, feature)

    @classmethod
    def _arguments(cls, args: tuple, kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The model's share of the arguments, as given, and the host's, complete."""
        signature: inspect.Signature = cls.__signature__  # type: ignore[attr-defined]
        for key in kwargs:
            if key in HIDDEN and accepts(cls.model_class, key):
                raise TypeError(f"{cls.__name__} takes no {key}: snnTorch never scales a neuron's input")
            if key not in signature.parameters:
                options = ", ".join(signature.parameters)
                raise TypeError(f"{cls.__name__} got an unexpected argument {key!r}; it takes {options}")
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{cls.__name__}{signature}: {error}") from None
        host = {key: given.pop(key, default) for key, default in cls.host_arguments.items()}
        return given, host

    @staticmethod
    def _check_callables(host: dict[str, Any]) -> None:
        spike_grad = host["spike_grad"]
        if not (spike_grad is None or callable(spike_grad) or isinstance(spike_grad, Surrogate)):
            raise TypeError(
                f"spike_grad is {spike_grad!r}; it must be a function of mem - threshold, such as "
                f"snntorch.surrogate.fast_sigmoid(), or None"
            )
        if host["state_quant"] and not callable(host["state_quant"]):
            raise TypeError(
                f"state_quant is {host['state_quant']!r}; it must be a function such as "
                f"snntorch.functional.quant.state_quant(), or False"
            )

    # -- firing ----------------------------------------------------------------------------------------------------

    @property
    def fire_once(self) -> bool:
        """Whether a neuron fires at most once until it is reset."""
        return self._fire_once

    def _read_spike_grad(self) -> Surrogate | Callable[[Tensor], Tensor]:
        """``spike_grad`` as the kernels take it, read again only when it was exchanged."""
        surrogate: Any
        function, surrogate = self._spike_reading
        if function is not self.spike_grad:
            function = self.spike_grad
            surrogate = read_surrogate(function) or function
            self._spike_reading = (function, surrogate)
            if surrogate is function:
                say_slow(type(self).__name__, "a spike_grad that is not in the surrogate table")
        return surrogate

    def _spike_function(self, dtype: torch.dtype) -> Surrogate | Callable[[Tensor], Tensor]:
        """Surrogate of the fused path, or a function of ``h - threshold`` where something happens before or after."""
        surrogate = self._read_spike_grad()
        if not (self.inhibition or self.state_quant):
            return surrogate
        fire = TableSpike(surrogate) if isinstance(surrogate, Surrogate) else surrogate
        quantise, inhibition, threshold = self.state_quant, self.inhibition, self.threshold.to(dtype)

        def function(distance: Tensor) -> Tensor:
            if quantise:
                distance = quantise(distance + threshold) - threshold
            spikes = fire(distance)
            if inhibition:
                winner = distance.argmax(1, keepdim=True)
                spikes = spikes * torch.zeros_like(spikes).scatter(1, winner, 1.0)
            return spikes

        return function

    def firing(self, dtype: torch.dtype = torch.float32) -> Firing:
        """Threshold, reset and surrogate as the models take them, read anew at every call; ``dtype`` is the states'."""
        return Firing(
            threshold=self.threshold,
            reset=RESETS[self._reset_mechanism],
            v_reset=0.0,
            timing="next_step" if self.reset_delay or self.state_quant else "at_once_retested",
            strict=True,
            detach=False,
            fire_once=self._fire_once,
            surrogate=self._spike_function(dtype),
        )

    def _step(self, x: Tensor, states: States, firing: Firing) -> tuple[Tensor, States]:
        """One step of the model, with what no model knows of: states that are quantised."""
        spikes, new = self.model.advance(x, states, firing)
        if not self.state_quant:
            return spikes, new
        kept = len(new) - int(self._fire_once and self._state_names[-1] == "fired")
        new = (*(self.state_quant(state) for state in new[:kept]), *new[kept:])
        if self.reset_delay or firing.reset == "none":
            return spikes, new
        # snnTorch quantises before it resets, and leaves what the reset made of it.
        h, threshold = new[0], firing.threshold_like(new[0])
        reset = spikes.to(h.dtype) - (states[0] > threshold).to(h.dtype).detach()
        return spikes, (h - reset * (threshold if firing.reset == "soft" else h), *new[1:])

    def _graded(self, spikes: Tensor) -> Tensor:
        """Spikes times ``graded_spikes_factor``; not under inhibition, as in snnTorch."""
        if self.inhibition or self._factor_is_one():
            return spikes
        return spikes * self.graded_spikes_factor.to(spikes.dtype)

    def _factor_is_one(self) -> bool:
        """Whether multiplying can be left out. The value is looked at again only after it was written to."""
        factor = self.graded_spikes_factor
        if torch.compiler.is_compiling() or factor.requires_grad or factor.is_meta or factor.is_inference():
            return False
        seen = self.__dict__.get("_factor_seen")
        if seen is None or seen[0] is not factor or seen[1] != factor._version:
            if torch._C._functorch.is_functorch_wrapped_tensor(factor):  # which has no value to look at
                return False
            seen = self._factor_seen = (factor, factor._version, bool((factor == 1).all()))
        return seen[2]

    # -- snnTorch's protocol ----------------------------------------------------------------------------------------

    @property
    def outputs(self) -> int:
        """Number of outputs that ``snntorch.backprop`` unpacks when this is the last layer: spikes and potential."""
        return 2

    @classmethod
    def reset_hidden(cls) -> None:
        """Reset all neurons of this class in use, in every network; ``snntorch.utils.reset(net)`` resets one's."""
        for neuron in live(cls):
            neuron.reset_mem()

    @classmethod
    def detach_hidden(cls) -> None:
        """Detach the states of all neurons of this class that are in use, in every network."""
        for neuron in live(cls):
            neuron.detach_mem()

    # -- copies and checkpoints ------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        state.pop("_factor_seen", None)
        surrogate = self._read_spike_grad()
        if "spike_grad" in state and isinstance(surrogate, Surrogate):  # snnTorch's closures do not pickle, this does
            state["spike_grad"] = TableSpike(surrogate)
            state["_spike_reading"] = (state["spike_grad"], surrogate)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        _LIVE.add(self)

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, unexpected, errors) -> None:
        point = self.takes_beta and prefix + "beta" in state_dict
        if point and not any(key.startswith(prefix + "model.") for key in state_dict):
            # A point neuron's checkpoint: its beta is ours, and what it does not have stays as it is.
            try:
                set_beta(self, state_dict[prefix + "beta"].clamp(0, 1))
            except ValueError as error:
                errors.append(f"{prefix}beta: {error}")
            state_dict = {key: value for key, value in state_dict.items() if key != prefix + "beta"}
            self._point_prefix = prefix
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, unexpected, errors)
        value = self.reset_mechanism_val
        if not value.is_meta:
            names = {index: name for name, index in self.reset_dict.items()}
            if int(value) not in names:
                errors.append(f"{prefix}reset_mechanism_val is {int(value)}; it must be one of {sorted(names)}")
            else:
                self._reset_mechanism = names[int(value)]

    def extra_repr(self) -> str:
        threshold = self.threshold
        plain = threshold.numel() == 1 and not threshold.is_meta
        text = f"threshold={threshold.item():g}" if plain else f"threshold={list(threshold.shape)}"
        if self.takes_beta:
            beta = get_beta(self).detach()
            one = beta.numel() == 1 and type(beta) is Tensor and not beta.is_meta
            text = (f"beta={beta.item():g}, " if one else f"beta={list(beta.shape)}, ") + text
        text += f", reset_mechanism={self._reset_mechanism}, reset_delay={self.reset_delay}"
        flags = ("init_hidden", "output", "inhibition")
        return text + "".join(f", {flag}=True" for flag in flags if getattr(self, flag))


def _forgive_missing(module: Shell, incompatible: Any) -> None:
    """After a point neuron's checkpoint was loaded, what only our model has is not missing."""
    prefix = module.__dict__.pop("_point_prefix", None)
    if prefix is not None:
        missing = incompatible.missing_keys
        missing[:] = [key for key in missing if not key.startswith(prefix + "model.")]


_forgive_missing.in_checkpoints = True  # type: ignore[attr-defined]  # as a hook of every neuron


def get_beta(neuron: Shell) -> Tensor:
    """Decay of the membrane potential per step: one value, or one per channel; with a gradient where it is learned."""
    return read_decay(neuron.model).to(neuron.threshold.dtype)


def set_beta(neuron: Shell, value: float | Tensor) -> None:
    """Set the decay of the membrane potential in place, one value or one per channel."""
    write_decay(neuron.model, value)
