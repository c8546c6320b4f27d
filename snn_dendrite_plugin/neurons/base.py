"""The contract between a neuron model and a host adapter: :class:`NeuronModel`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..kernels.dtypes import state_dtype
from .firing import DEFAULT_FIRING, Firing, FiringStep
from .watch import layer_name, look

__all__ = ["DEFAULT_FIRING", "HOST_ARGUMENTS", "Firing", "FiringStep", "NeuronModel", "States"]

States = tuple[Tensor, ...]

# Arguments of a model's constructor that hosts and conversion fill in, where it has them: name -> meaning.
HOST_ARGUMENTS: Mapping[str, str] = {
    "beta": "decay of the potential per step: tau in SpikingJelly (1 - 1 / tau), the first argument in snnTorch",
    "learn_beta": "whether that is learned: snnTorch's learn_beta; conversion of a neuron with a learned decay",
    "decay_input": "whether the input is scaled by 1 - beta: SpikingJelly's decay_input; False in snnTorch",
    "rest": "potential that the soma leaks to: SpikingJelly's v_reset",
    "channels": "how many channels have parameters of their own: conversion, where it reads them off a network",
    "branches": "number of branches: conversion with a wiring that gives each its own inputs",
    "wiring": "`shared` or `fold`: the same",
}


class NeuronModel(nn.Module):
    """A neuron as a pure state transition: it holds parameters, never state, and knows no host framework.

    A subclass names its states and writes :meth:`step`; the adapters turn it into a native node of every host. States
    are float32 (float64 for float64 input) also under autocast and for half inputs; spikes come out in the input's
    dtype.

    Four calls, each in terms of the one before. A model overrides the first; only one that computes the same in a
    faster way overrides another, and then falls back to this class's where a subclass has a :meth:`step` of its own.

    - :meth:`step`: the model's equations for one step, in the state dtype, with a :class:`FiringStep`.
    - :meth:`advance`: one step as hosts call it: ``step``, with the dtypes and what firing carries from step to step
      (a reset that is due, the one spike of ``fire_once``) around it.
    - :meth:`sequence`: a whole sequence as hosts call it: ``advance`` in a loop.
    - :meth:`run`: ``sequence`` from the reset states, for use without a host.

    Attributes:
        states: state names and their reset values, membrane potential of the soma first.
        from_host: names of the constructor's arguments, out of :data:`HOST_ARGUMENTS`, that hosts and conversion fill
            in. None, the default: all that it has. A model whose ``beta`` is no decay says which are meant, ``()`` for
            none. One that takes ``beta`` as a decay keeps it as its attribute ``beta``, or has a property ``decay`` and
            a method ``set_decay(value)``; hosts' ``node.tau`` and ``node.beta`` read and write it there.
        no_drop_in: why a node of this model cannot take a point neuron's place in a network that is left as it is; None
            where it can.

    Example::

        >>> import torch
        >>> class QIF(NeuronModel):
        ...     states = {"v": 0.0}
        ...     def step(self, x, states, firing):
        ...         (v,) = states
        ...         spikes, v = firing.update(memory=v + 0.1 * v * (v - 0.5), drive=x)
        ...         return spikes, (v,)
        >>> spikes, states = QIF().run(torch.rand(5, 2, 3))
        >>> spikes.shape, states[0].shape
        (torch.Size([5, 2, 3]), torch.Size([2, 3]))
    """

    states: Mapping[str, float] = {"v": 0.0}
    from_host: Collection[str] | None = None
    no_drop_in: str | None = None
    watched: str | None = None  # the layer's name while check_finite is on; "" where it is looked up

    def state_names(self, firing: Firing) -> tuple[str, ...]:
        """Names of the states a call carries: the model's, and ``fired`` last when ``firing.fire_once``."""
        return (*self.states, "fired") if firing.fire_once else tuple(self.states)

    def state_shapes(self, shape: torch.Size | tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """Shape of each state for a step input of ``shape [N, C, *]``; the first is also the shape of the spikes."""
        return (tuple(shape),) * len(self.states)

    def init_states(self, x: Tensor, firing: Firing | None = None) -> States:
        """Reset states for a step input ``x [N, C, *]``: the soma starts at the hard reset's value.

        Each is one number expanded to its shape, so that a kernel need not read it neuron by neuron; not to be written
        to in place.
        """
        firing = firing or DEFAULT_FIRING
        shapes = self.state_shapes(x.shape)
        values = list(self.states.values())
        if firing.reset == "hard":
            values[0] = firing.v_reset
        if firing.fire_once:
            shapes, values = (*shapes, shapes[0]), [*values, 0.0]
        dtype = state_dtype(x.dtype)
        return tuple(x.new_full((), value, dtype=dtype).expand(s) for s, value in zip(shapes, values, strict=True))

    def step(self, x: Tensor, states: States, firing: FiringStep) -> tuple[Tensor, States]:
        """One time step: ``x [N, C, *]`` in the state dtype, the states -> spikes ``[N, C, *]`` and the new states.

        Must be pure: no writes to ``self`` or to its arguments.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement step(x, states, firing)")

    def advance(self, x: Tensor, states: States, firing: Firing) -> tuple[Tensor, States]:
        """One step as the adapters call it: ``x [N, C, *]``, all states of :meth:`state_names` -> spikes in ``x``'s
        dtype and the new states."""
        own, fired = (states[:-1], states[-1]) if firing.fire_once else (states, None)
        u, now = firing.begin(own[0], fired)
        spikes, new = self.step(x.to(u.dtype), (u, *own[1:]), now)
        if fired is not None and now.allowed is not None:
            spikes = spikes * now.allowed  # also where the model made its spikes without asking the rule
            new = (*new, torch.maximum(fired, spikes.detach()))
        self.refuse_nonfinite(tuple(new))
        return spikes.to(x.dtype), tuple(new)

    def sequence(self, x_seq: Tensor, states: States, firing: Firing, record: bool = False) -> tuple[Any, ...]:
        """A whole sequence ``x_seq [T, N, C, *]``: spikes ``[T, N, C, *]`` and the last states.

        With ``record`` a third value follows: the soma's potential after every step, ``[T, N, C, *]``.
        The default loops over :meth:`advance`.
        """
        if x_seq.shape[0] == 0:
            raise ValueError("x_seq is an empty sequence: it has 0 time steps; at least 1 is needed")
        spikes, trace = [], []
        for x in x_seq:
            s, states = self.advance(x, states, firing)
            spikes.append(s)
            trace.append(states[0])
        out = (torch.stack(spikes), states)
        return (*out, torch.stack(trace)) if record else out

    def refuse_nonfinite(self, states: States, steps: int = 1) -> None:
        """Raise where a state is NaN or infinite while ``check_finite`` is on; else look now and then, and warn once.

        ``steps``: how many time steps made these states.
        """
        if self.watched is None:
            look(self, states[0], steps)
            return
        watched = self.watched or layer_name(self)
        for name, state in zip((*self.states, "fired"), states, strict=False):
            if not bool(torch.isfinite(state).all()):
                count = int((~torch.isfinite(state)).sum())
                raise FloatingPointError(
                    f"layer {watched!r} ({type(self).__name__}): {count} of {state.numel()} values of its state "
                    f"{name!r} are NaN or infinite"
                )

    def run(self, x_seq: Tensor, states: States | None = None, firing: Firing | None = None) -> tuple[Tensor, States]:
        """:meth:`sequence` from the reset states (or the given ones) with a default :class:`Firing`."""
        firing = firing or DEFAULT_FIRING
        if x_seq.shape[0] == 0:
            raise ValueError("x_seq is an empty sequence: it has 0 time steps; at least 1 is needed")
        if states is None:
            states = self.init_states(x_seq.detach()[0], firing)  # of x's graph they need nothing
        return self.sequence(x_seq, states, firing)

    # -- what conversion asks --------------------------------------------------------------------------------------

    @classmethod
    def preserving_start(cls) -> Mapping[str, Any] | None:
        """Constructor arguments with which the model computes what the leaky point neuron does that it replaces.

        Beside them the model gets the point neuron's own decay and resting potential, where it takes them. A user who
        gives one of these arguments another value is refused, unless with ``start="fresh"``. None: no such start is
        known, and users have to ask for ``start="fresh"``.

        Example::

            >>> from snn_dendrite_plugin.neurons.lnm import LNM
            >>> LNM.preserving_start()
            {'theta': None}
        """
        return None

    @classmethod
    def published_start(cls) -> Mapping[str, Any] | None:
        """Constructor arguments of the published model, for ``start="published"``; None: there is no such start."""
        return None

    @classmethod
    def filtered(cls, decay: float) -> Mapping[str, Any] | None:
        """Constructor arguments with which a synaptic current ``I[t] = decay * I[t-1] + x[t]`` drives the soma.

        For point neurons whose input passes such a current first, beside :meth:`preserving_start`. None: the model has
        no place for a current.

        Example::

            >>> from snn_dendrite_plugin.neurons.dendsn import DendSN
            >>> DendSN.filtered(0.8)["branches"], DendSN.filtered(0.8)["alpha"]
            (1, 0.8)
        """
        return None

    @classmethod
    def wired(cls, branches: int) -> Mapping[str, Any] | None:
        """Constructor arguments for an input that has a channel per branch, ``[N, C * branches, *]``.

        Neuron c owns the channels ``c * branches`` to ``(c + 1) * branches - 1``, whose sum is what the point neuron
        got. For the wirings ``partition`` and ``expand``, whose layers send such input. A model that has branches has
        the constructor argument ``branches``. None: it has none, and only the wiring ``shared`` applies.
        """
        return None
