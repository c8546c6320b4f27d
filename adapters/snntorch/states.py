"""The states of snnTorch's nodes: the soma's potential ``mem``, which users may hold, and the states that go with it.

States are plain attributes, not buffers. So ``DistributedDataParallel`` does not copy rank 0's to the others, averaged
models do not average them, and a compiled step takes batches of any size.

A neuron whose states users pass from step to step returns one of them, ``mem``. The others (branches, a charge, a
clock) are tied to the tensor that is returned, and come back with it: by an attribute of the tensor, which
``torch.compile`` can read and write too, and by one of its storage, which ``mem.detach()`` shares.
"""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import torch
from snntorch import SpikingNeuron
from torch import Tensor

from ...neurons.base import Firing, NeuronModel, States
from ..base import in_backward, recomputed, say_once, states_for

__all__ = ["Stateful"]

_TIE = "_snn_dendrite_states"


class _Tied(NamedTuple):
    """What a potential was returned with."""

    names: tuple[str, ...]
    states: tuple[Tensor, ...]
    of_graph: bool  # whether the potential was part of a graph


class Stateful(SpikingNeuron):
    """A neuron's states, from step to step; ``model`` is its :class:`NeuronModel`."""

    model: NeuronModel
    mem: Tensor

    def firing(self, dtype: torch.dtype = torch.float32) -> Firing:
        """Threshold, reset and surrogate as the models take them."""
        raise NotImplementedError

    def _init_mem(self) -> None:
        """Make the states, of size 0: soma potential ``mem``, others by their names."""
        self._state_names = ("mem", *self.model.state_names(self.firing())[1:])
        for state in self._state_names:
            if hasattr(self, state):
                raise ValueError(
                    f"state {state!r} of {type(self.model).__name__} is the name of an attribute; rename it"
                )
        self._store([torch.zeros(0) for _ in self._state_names])
        self._ran_in: int | None = None

    def _states(self, x: Tensor, mem: Tensor | None, firing: Firing) -> States:
        """The states for a step input ``x [N, C, *]``; reset ones where there are none of its shape."""
        held = [getattr(self, name) for name in self._state_names]
        if mem is None:
            if not torch.compiler.is_compiling() and self._ran_in not in (None, in_backward()) and in_backward() != -1:
                raise recomputed(type(self).__name__, "pass mem explicitly")
        elif len(held) == 1:
            held = [mem]
        else:
            held = [mem, *self._companions(mem, held)]
        return states_for(self.model, x, held, lambda: firing)

    def _companions(self, mem: Tensor, held: list[Tensor]) -> States | list[None]:
        """The states that belong to a potential which the user passes; None for each where it starts a sequence."""
        tied = getattr(mem, _TIE, None)
        if tied is None:
            if mem is held[0]:
                return tuple(held[1:])
            tied = _of_storage(mem, held[0])
        if tied is None or tied.names != self._state_names:
            if not torch.compiler.is_compiling() and mem.grad_fn is not None:
                say_once(
                    f"{type(self).__name__} got a mem that it did not return: its other states start afresh. To change "
                    f"the potential amid a sequence, set the neuron's mem and pass None"
                )
            return [None] * (len(held) - 1)
        if tied.of_graph and mem.is_leaf:  # the user cut it from the graph
            return tuple(state.detach() for state in tied.states)
        return tied.states

    def _store(self, states: Any) -> None:
        for name, state in zip(self._state_names, states, strict=True):
            object.__setattr__(self, name, state)
        if not torch.compiler.is_compiling():
            object.__setattr__(self, "_ran_in", in_backward())

    def _tie(self, states: States) -> None:
        """Have the potential bring the other states along when it comes back."""
        if len(states) > 1:
            mem = states[0]
            tied = _Tied(self._state_names, tuple(states[1:]), mem.requires_grad)
            mem._snn_dendrite_states = tied  # type: ignore[attr-defined]
            if not torch.compiler.is_compiling():
                with contextlib.suppress(NotImplementedError, RuntimeError):  # torch.func's tensors have no storage
                    mem.untyped_storage()._snn_dendrite_states = tied  # type: ignore[attr-defined]

    def reset_mem(self) -> Tensor:
        """Reset every state, without a gradient history, and return the soma's potential: the start of a sequence.

        The potential has size 0 before the first step, the last step's shape afterwards; :meth:`forward` takes both.
        """
        regular = type(self.model).init_states is NeuronModel.init_states
        first, *others = self.model.states.values()
        values = (0.0 if self._reset_mechanism == "zero" else first, *others, 0.0)
        fresh = []
        for name, value in zip(self._state_names, values, strict=False):
            state = getattr(self, name)  # of which only the shape counts: it may have escaped from a transform
            shape = state.shape if regular else (0,)
            fresh.append(torch.full(shape, value, dtype=state.dtype, device=state.device))
        self._store(fresh)
        self._ran_in = None
        return self.mem

    def init_leaky(self) -> Tensor:
        """:meth:`reset_mem` by the name that networks with explicit states call on ``snn.Leaky``."""
        return self.reset_mem()

    def detach_mem(self) -> None:
        """Cut the states from the graph and keep their values: the border of truncated backpropagation through time."""
        for name in self._state_names:
            object.__setattr__(self, name, getattr(self, name).detach())

    def _apply(self, fn, *arguments):
        super()._apply(fn, *arguments)
        for name in self._state_names:
            state = getattr(self, name)
            object.__setattr__(self, name, torch.zeros(0) if state.is_meta else fn(state))
        return self

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        for name in self._state_names:  # only leaves of the graph can be copied
            state[name] = state[name].detach()
        state["_ran_in"] = None
        return state


def _of_storage(mem: Tensor, last: Tensor) -> _Tied | None:
    """What is tied to a potential by the memory it lies in; ``torch.compile`` cannot see it, and breaks its graph.

    A compiled step ties by attribute alone, so that only the ``last`` potential can be known again by its memory.
    """
    if mem._is_view():
        return None
    try:
        tied = getattr(mem.untyped_storage(), _TIE, None)
        return getattr(last, _TIE, None) if tied is None and mem.data_ptr() == last.data_ptr() else tied
    except (NotImplementedError, RuntimeError):
        return None
