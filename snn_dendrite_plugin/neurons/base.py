"""The contract between a neuron model and a host adapter: :class:`Firing` and :class:`NeuronModel`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..kernels.soma_dendrite.contract import state_dtype
from ..kernels.surrogates import Surrogate, spike

__all__ = ["Firing", "NeuronModel", "States"]

States = tuple[Tensor, ...]
_RESETS = ("hard", "soft", "none")
_TIMINGS = ("at_once", "next_step", "at_once_retested")


@dataclasses.dataclass(frozen=True, eq=False)
class Firing:
    """How a neuron fires and resets: what a host decides, not the model.

    Args:
        threshold: ``v_th``, in units of the membrane potential; a number, or a tensor with one value or one per
        channel. reset: ``hard`` (to ``v_reset``), ``soft`` (minus the threshold) or ``none``.
        v_reset: target of the hard reset and start value of the membrane potential.
        timing: ``at_once``; ``next_step`` (snnTorch's default: the reset takes effect one step later and carries no
            gradient); ``at_once_retested`` (snnTorch's ``reset_delay=False``, which tests the stored potential again).
        strict: fire at ``h > threshold`` (snnTorch) instead of ``h >= threshold`` (SpikingJelly).
        detach: cut the gradient through the spike in the reset.
        fire_once: at most one spike per neuron and sequence.
        surrogate: a :class:`~snn_dendrite_plugin.kernels.surrogates.Surrogate` of the table, or any function of
            ``h - threshold`` that returns spikes (then the reference path runs it).

    Raises:
        ValueError: an unknown ``reset`` or ``timing``.

    Example::

        >>> import torch
        >>> firing = Firing(threshold=1.0, reset="soft")
        >>> spikes, u = firing.update(torch.zeros(2), memory=torch.zeros(2), drive=torch.tensor([0.5, 1.5]))
        >>> spikes.tolist(), u.tolist()
        ([0.0, 1.0], [0.5, 0.5])
    """

    threshold: float | Tensor = 1.0
    reset: str = "hard"
    v_reset: float = 0.0
    timing: str = "at_once"
    strict: bool = False
    detach: bool = False
    fire_once: bool = False
    surrogate: Surrogate | Callable[[Tensor], Tensor] = Surrogate("atan")
    allowed: Tensor | None = None  # 1 - fired of the current step; set by NeuronModel.advance, never by users

    def __post_init__(self) -> None:
        if self.reset not in _RESETS:
            raise ValueError(f"reset is {self.reset!r}; it must be one of {', '.join(_RESETS)}")
        if self.timing not in _TIMINGS:
            raise ValueError(f"timing is {self.timing!r}; it must be one of {', '.join(_TIMINGS)}")

    def spike(self, distance: Tensor) -> Tensor:
        """Spikes of ``distance = h - threshold``, with the surrogate derivative."""
        if isinstance(self.surrogate, Surrogate):
            return spike(distance, self.surrogate, self.strict)
        return self.surrogate(distance).to(distance.dtype)

    def threshold_like(self, u: Tensor) -> float | Tensor:
        """The threshold, shaped to broadcast against ``u [N, C, *]``."""
        if not isinstance(self.threshold, Tensor) or self.threshold.numel() == 1:
            return self.threshold
        return self.threshold.reshape(1, -1, *[1] * (u.dim() - 2)).to(u.dtype)

    def update(self, u: Tensor, memory: Tensor, drive: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
        """Integrate, fire, reset: one step of the soma, for authors of a new :meth:`NeuronModel.step`.

        Args:
            u: membrane potential before the step, ``[N, C, *]``.
            memory: what the potential becomes without input, e.g. ``beta * u``; the part that a delayed hard reset
            clears. drive: what the input adds.

        Returns:
            spikes and the new membrane potential, both ``[N, C, *]``.
        """
        threshold = self.threshold_like(u)
        resets = self.reset != "none"
        r: Tensor | None = None
        if self.timing != "at_once" and resets:
            r = ((u > threshold) if self.strict else (u >= threshold)).to(u.dtype).detach()
        if r is not None and self.reset == "hard":
            memory = memory * (1 - r) + r * self.v_reset
        h = memory + drive
        if r is not None and self.reset == "soft":
            h = h - r * threshold
        s = self.spike(h - threshold)
        if self.allowed is not None:
            s = s * self.allowed
        if self.timing == "next_step" or not resets:
            return s, h
        reset = s.detach() if self.detach else s
        reset = reset if r is None else reset - r
        u = h - reset * threshold if self.reset == "soft" else (1 - reset) * h + reset * self.v_reset
        return s, u


DEFAULT_FIRING = (
    Firing()
)  # one object, made at import: torch.compile cannot make the dataclass's default inside a graph


class NeuronModel(nn.Module):
    """A neuron as a pure state transition: it holds parameters, never state, and knows no host framework.

    A subclass names its states and writes :meth:`step`; the adapters turn it into a native node of every host. States
    are float32 (float64 for float64 input) also under autocast and for half inputs; spikes come out in the input's
    dtype.

    Attributes:
        states: state names and their reset values, membrane potential of the soma first.

    Example::

        >>> import torch
        >>> class QIF(NeuronModel):
        ...     states = {"v": 0.0}
        ...     def step(self, x, states, firing):
        ...         (v,) = states
        ...         spikes, v = firing.update(v, memory=v + 0.1 * v * (v - 0.5), drive=x)
        ...         return spikes, (v,)
        >>> spikes, states = QIF().run(torch.rand(5, 2, 3))
        >>> spikes.shape, states[0].shape
        (torch.Size([5, 2, 3]), torch.Size([2, 3]))
    """

    states: Mapping[str, float] = {"v": 0.0}
    watched: str | None = None  # the layer's name while check_finite is on

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

    def step(self, x: Tensor, states: States, firing: Firing) -> tuple[Tensor, States]:
        """One time step: ``x [N, C, *]`` in the state dtype, the states -> spikes ``[N, C, *]`` and the new states.

        Must be pure: no writes to ``self`` or to its arguments.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement step(x, states, firing)")

    def advance(self, x: Tensor, states: States, firing: Firing) -> tuple[Tensor, States]:
        """One step as the adapters call it: :meth:`step` with dtypes and the fire-once rule around it."""
        own = states
        if firing.fire_once:
            *own, fired = states
            firing = dataclasses.replace(firing, allowed=1 - fired)
        spikes, new = self.step(x.to(states[0].dtype), tuple(own), firing)
        if firing.fire_once:
            new = (*new, torch.maximum(fired, spikes.detach()))
        return spikes.to(x.dtype), tuple(new)

    def sequence(self, x_seq: Tensor, states: States, firing: Firing, record: bool = False) -> tuple[Any, ...]:
        """A whole sequence ``x_seq [T, N, C, *]``: spikes ``[T, N, C, *]`` and the last states.

        With ``record`` a third value follows: the soma's potential after every step, ``[T, N, C, *]``.
        The default loops over :meth:`step`.
        """
        if x_seq.shape[0] == 0:
            raise ValueError("x_seq is an empty sequence: it has 0 time steps; at least 1 is needed")
        spikes, trace = [], []
        for x in x_seq:
            s, states = self.advance(x, states, firing)
            spikes.append(s)
            trace.append(states[0])
        self.refuse_nonfinite(states)
        out = (torch.stack(spikes), states)
        return (*out, torch.stack(trace)) if record else out

    def refuse_nonfinite(self, states: States) -> None:
        """Raise where a state is NaN or infinite while ``check_finite`` is on."""
        if self.watched is None:
            return
        for name, state in zip((*self.states, "fired"), states, strict=False):
            if not bool(torch.isfinite(state).all()):
                count = int((~torch.isfinite(state)).sum())
                raise FloatingPointError(
                    f"layer {self.watched!r} ({type(self).__name__}): {count} of {state.numel()} values of its state "
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
