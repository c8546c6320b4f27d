"""One node class for every neuron model: a model with SpikingJelly's manners."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from spikingjelly.activation_based import surrogate
from torch import Tensor, nn

from ...neurons.base import Firing, NeuronModel
from ..base import (
    accepts,
    in_backward,
    merged_signature,
    read_decay,
    recomputed,
    say_slow,
    split_arguments,
    states_for,
    write_decay,
)
from .compat import HOST_OPTIONS, NodeBase
from .surrogates import read_surrogate

__all__ = ["PluginNode", "node_class"]

_TAU = 2.0  # LIFNode's default


class PluginNode(NodeBase):
    """A registered neuron model as a SpikingJelly node; subclasses name the model. See :func:`node_class`."""

    model_class: type[NeuronModel]
    _ran: tuple[int, Tensor] | None = None  # the backward pass in which the node ran last, and its potential since

    def __init__(
        self,
        *model_arguments: Any,
        tau: float = _TAU,
        decay_input: bool | None = None,
        v_threshold: float | Tensor = 1.0,
        v_reset: float | None = 0.0,
        surrogate_function: Callable[[Tensor], Tensor] | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        store_v_seq: bool = False,
        fire_once: bool = False,
        **model_options: Any,
    ) -> None:
        name, model_class = type(self).__name__, self.model_class
        versions = {p.name: model_options.pop(p.name) for p in HOST_OPTIONS if p.name in model_options}
        options = split_arguments(model_class, model_options, _HOST_SIGNATURE.parameters, name)
        if surrogate_function is not None and not callable(surrogate_function):
            raise TypeError(
                f"surrogate_function is {surrogate_function!r}; it must be a function of v - v_threshold, such as "
                f"surrogate.ATan()"
            )
        given = {"beta", "rest", "theta"} & set(options)
        if accepts(model_class, "beta"):
            if "beta" in options and tau != _TAU:
                raise TypeError(f"tau is {tau!r} and beta is {options['beta']!r}; give one of them, beta = 1 - 1 / tau")
            options.setdefault("beta", 1 - 1 / _number("tau", tau, above=1.0))
            if accepts(model_class, "decay_input"):
                auto = inspect.signature(model_class.__init__).parameters["decay_input"].default
                if (
                    decay_input is None
                ):  # LIFNode's default is True; only a model that decides by itself (None) is asked
                    decay_input = True if auto is False else auto
                options["decay_input"] = None if decay_input is None else bool(decay_input)
            if accepts(model_class, "rest"):
                options.setdefault("rest", 0.0 if v_reset is None else _number("v_reset", v_reset))
        super().__init__(
            v_threshold=1.0 if isinstance(v_threshold, Tensor) else _number("v_threshold", v_threshold),
            v_reset=None if v_reset is None else _number("v_reset", v_reset),
            surrogate_function=surrogate.Sigmoid() if surrogate_function is None else surrogate_function,
            detach_reset=_flag("detach_reset", detach_reset),
            step_mode=step_mode,
            store_v_seq=_flag("store_v_seq", store_v_seq),
            **versions,
        )
        if isinstance(v_threshold, Tensor):  # a learned or per-channel threshold, which BaseNode's own check refuses
            if isinstance(v_threshold, nn.Parameter):
                self.v_threshold = v_threshold
            else:
                del self.v_threshold
                self.register_buffer("v_threshold", v_threshold)
        self.fire_once = _flag("fire_once", fire_once)
        self.model = model_class(*model_arguments, **options)
        self._tau = tau if "beta" not in given else None
        self._rests_at_reset = accepts(model_class, "rest") and not given & {"rest", "theta"}
        for state in self.model.state_names(self.firing())[1:]:  # the first is BaseNode's own v
            self.register_memory(state, float(self.model.states.get(state, 0.0)))
        self._asks_model = type(self.model).init_states is not NeuronModel.init_states
        if self._asks_model or v_reset is None:  # v_reset is not where it starts
            self.v = float(next(iter(self.model.states.values())))
            self.set_reset_value("v", self.v)

    # -- LIFNode's attributes that belong to the model -------------------------------------------------------------

    @property
    def tau(self) -> float | Tensor | None:
        """Time constant of the soma in steps, 1 / (1 - decay): one number, or one per channel; None without a decay.

        Setting it sets the model's decay.
        """
        if not accepts(self.model_class, "beta"):
            return None
        decay = read_decay(self.model).detach()
        if decay.numel() > 1 or decay.is_meta or type(decay) is not Tensor:  # no number to read in a fake tensor
            return 1 / (1 - decay)
        value = decay.item()
        if self._tau is not None and abs(1 - 1 / self._tau - value) <= 1e-6:  # as given, not by way of the decay
            return self._tau
        return math.inf if value == 1 else 1 / (1 - value)

    @tau.setter
    def tau(self, value: float) -> None:
        if not accepts(self.model_class, "beta"):
            raise AttributeError(f"{type(self).__name__} has no tau: its model takes no decay")
        write_decay(self.model, 1 - 1 / _number("tau", value, above=1.0))
        self._tau = value

    @property
    def v_reset(self) -> float | None:
        """Potential after a spike, and the one the soma leaks to; None for the soft reset. Setting it sets both."""
        return self._v_reset

    @v_reset.setter
    def v_reset(self, value: float | None) -> None:
        value = None if value is None else _number("v_reset", value)
        if "model" in self._modules and self._rests_at_reset:
            self._call("set_rest", "v_reset", 0.0 if value is None else value)
        self._v_reset = value

    @property
    def decay_input(self) -> bool:
        """Whether the input is scaled by 1 / tau."""
        return bool(self.model.decay_input)

    @decay_input.setter
    def decay_input(self, value: bool) -> None:
        self._call("set_decay_input", "decay_input", bool(value))

    def _call(self, method: str, what: str, value: Any) -> None:
        if not hasattr(self.model, method):
            name = type(self.model).__name__
            raise AttributeError(f"{what} of {type(self).__name__} cannot be set: {name} has no {method}(value)")
        getattr(self.model, method)(value)

    # -- firing ----------------------------------------------------------------------------------------------------

    def firing(self) -> Firing:
        """Threshold, reset and surrogate of this node, read anew at every call: all of them may be changed in place."""
        known = read_surrogate(self.surrogate_function)
        if known is None and not torch.compiler.is_compiling():
            what = f"the surrogate {type(self.surrogate_function).__name__}, which is not in the surrogate table,"
            say_slow(type(self).__name__, what)
        return Firing(
            threshold=self.v_threshold,
            reset="soft" if self.v_reset is None else "hard",
            v_reset=0.0 if self.v_reset is None else float(self.v_reset),
            timing="at_once",
            strict=False,
            detach=self.detach_reset,
            fire_once=self.fire_once,
            surrogate=self.surrogate_function if known is None else known,
        )

    # -- the host's functional contract ----------------------------------------------------------------------------

    def materialize_states(self, inputs: tuple[Any, ...], states: tuple[Any, ...], step_mode: str) -> tuple[Any, ...]:
        """Every state as a tensor in the state dtype, by :func:`~snn_dendrite_plugin.adapters.base.states_for`."""
        x = inputs[0]
        if not isinstance(x, Tensor) or not x.is_floating_point():
            found = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"{type(self).__name__} got an input of {found}; it takes a floating point tensor")
        if step_mode == "m":
            if x.dim() == 0 or x.shape[0] == 0:
                raise ValueError(
                    f"{type(self).__name__} got an empty sequence, x_seq {tuple(x.shape)}; it needs T >= 1"
                )
            x = x[0]
        if self._asks_model:
            resets = (self._memories_rv[name] for name in self._memories)
            states = tuple(None if _same(state, reset) else state for state, reset in zip(states, resets, strict=True))
        return states_for(self.model, x, states, self.firing)

    def single_step_functional_forward(self, inputs, states, **kwargs):
        spikes, states = self.model.advance(inputs[0], states, self.firing())
        return (spikes,), states

    def multi_step_functional_forward(self, inputs, states, **kwargs):
        spikes, states = self.model.sequence(inputs[0], states, self.firing())
        return (spikes,), states

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return super().forward(*args, **kwargs)
        task, ran = in_backward(), self._ran
        if task != -1 and ran is not None and ran[0] != task and ran[1] is self.v:
            raise recomputed(type(self).__name__, "use spikingjelly's memopt, which keeps the states")
        output = super().forward(*args, **kwargs)
        self.__dict__["_ran"] = (task, self.v)
        return output

    def multi_step_forward(self, x_seq: Tensor, *args: Any, **kwargs: Any):
        if not self.store_v_seq:
            return super().multi_step_forward(x_seq, *args, **kwargs)
        states = self.materialize_states((x_seq,), tuple(self._memories.values()), "m")
        spikes, states, v_seq = self.model.sequence(x_seq, states, self.firing(), record=True)
        for name, value in zip(self._memories, states, strict=True):
            self._memories[name] = value
        self.v_seq = v_seq
        return spikes

    def detach(self) -> None:
        """Cut the states from the graph. BaseNode does it in place, which autograd forbids for views."""
        for name, value in self._memories.items():
            if isinstance(value, Tensor):
                self._memories[name] = value.detach()
        if isinstance(self.v_seq, Tensor):
            self.v_seq = self.v_seq.detach()
        if self._ran is not None:
            self._ran = (self._ran[0], self.v)

    def reset(self) -> None:
        super().reset()
        self._ran = None

    def __getstate__(self) -> dict[str, Any]:
        def leaf(value: Any) -> Any:  # only leaves of the graph can be copied
            return value.detach() if isinstance(value, Tensor) else value

        state = {**self.__dict__, "_ran": None}
        state["_memories"] = {name: leaf(value) for name, value in self._memories.items()}
        return {**state, "_v_seq": leaf(state["_v_seq"])} if "_v_seq" in state else state

    def extra_repr(self) -> str:
        once = ", fire_once=True" if self.fire_once else ""
        return super().extra_repr() + self._decay_repr() + once

    def _decay_repr(self) -> str:
        """The soma's decay as it was given: by ``tau``, or by ``beta``."""
        tau = self.tau
        if tau is None or isinstance(tau, Tensor):
            return "" if tau is None else f", tau={tau}"
        return f", tau={tau}" if tau == self._tau else f", beta={read_decay(self.model).item():g}"


_HOST_SIGNATURE = inspect.Signature(
    [
        p.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for p in (*inspect.signature(PluginNode.__init__).parameters.values(), *HOST_OPTIONS)
        if p.name != "self" and p.kind is p.KEYWORD_ONLY
    ]
)


def _number(name: str, value: Any, above: float | None = None) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        raise TypeError(f"{name} is {value!r}; it must be a number")
    if above is not None and not value > above:
        raise ValueError(f"{name} is {value!r}; it must be greater than {above}")
    return float(value)


def _flag(name: str, value: Any) -> bool:
    if value not in (True, False):
        raise TypeError(f"{name} is {value!r}; it must be True or False")
    return bool(value)


def _same(state: Any, reset: float) -> bool:
    return isinstance(state, (int, float)) and state == reset


def node_class(name: str, model_class: type[NeuronModel]) -> type[PluginNode]:
    """A SpikingJelly node class for a model, with the model's documentation and the merged signature."""
    host = _HOST_SIGNATURE
    if not accepts(model_class, "beta"):
        host = host.replace(parameters=[p for p in host.parameters.values() if p.name not in ("tau", "decay_input")])
    doc = (
        f"{inspect.getdoc(model_class) or name}\n\nAs a SpikingJelly node: ``tau`` gives beta = 1 - 1/tau (``inf``: no "
        f"leak), ``v_threshold``, ``v_reset`` (None: soft reset), ``surrogate_function``, ``detach_reset``, "
        f"``step_mode`` and ``store_v_seq`` are LIFNode's; ``fire_once`` allows one spike per neuron until ``reset``. "
        f"A ``v_threshold`` tensor is one value or one per channel, learned when it is a Parameter."
    )
    cls: Any = type(name, (PluginNode,), {"model_class": model_class, "__doc__": doc})
    cls.__module__ = "snn_dendrite_plugin.adapters.spikingjelly"
    own = merged_signature(model_class, inspect.Signature(), hidden=("beta", "rest", *host.parameters))
    own = [p.replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD) for p in own.parameters.values()]
    cls.__signature__ = inspect.Signature([*own, *host.parameters.values()])
    return cls
