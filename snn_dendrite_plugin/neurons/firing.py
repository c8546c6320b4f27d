"""How a neuron fires: :class:`Firing`, the setting that a host decides, and :class:`FiringStep`, one step of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from torch import Tensor

from ..kernels.soma_dendrite.contract import RESETS, TIMINGS
from ..kernels.soma_dendrite.firing import after_reset, carried, charged, owed
from ..kernels.surrogates import Surrogate, spike

__all__ = ["DEFAULT_FIRING", "Firing", "FiringStep"]


@dataclasses.dataclass(frozen=True, eq=False)
class Firing:
    """How a neuron fires and resets: what a host decides, not the model.

    Args:
        threshold: ``v_th``, in units of the membrane potential; a number, or a tensor with one value or one per
            channel.
        reset: ``hard`` (to ``v_reset``), ``soft`` (minus the threshold) or ``none``.
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
        >>> u, step = Firing(threshold=1.0, reset="soft").begin(torch.zeros(2))
        >>> spikes, u = step.update(memory=0.5 * u, drive=torch.tensor([0.5, 1.5]))
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

    def __post_init__(self) -> None:
        if self.reset not in RESETS:
            raise ValueError(f"reset is {self.reset!r}; it must be one of {', '.join(RESETS)}")
        if self.timing not in TIMINGS:
            raise ValueError(f"timing is {self.timing!r}; it must be one of {', '.join(TIMINGS)}")

    def threshold_like(self, u: Tensor) -> float | Tensor:
        """The threshold, shaped to broadcast against ``u [N, C, *]``."""
        if not isinstance(self.threshold, Tensor) or self.threshold.numel() == 1:
            return self.threshold
        return self.threshold.reshape(1, -1, *[1] * (u.dim() - 2)).to(u.dtype)

    def begin(self, u: Tensor, fired: Tensor | None = None) -> tuple[Tensor, FiringStep]:
        """Begin a step: the potential that it starts from, and the rule for this step.

        Args:
            u: the stored potential, ``[N, C, *]``. Where a hard reset was put off to this step, it is carried out now.
            fired: 1 where a neuron has had its one spike, for ``fire_once``.
        """
        threshold = self.threshold_like(u)
        r = owed(u, threshold, self)
        return carried(u, r, self), FiringStep(self, threshold, r, None if fired is None else 1 - fired)


class FiringStep:
    """One step of a :class:`Firing`, as :meth:`NeuronModel.step` is given it: integrate, fire, reset.

    A model with one potential calls :meth:`update`, which does all three. One that does something in between, or that
    is reset by another amount than the threshold, calls the three. They are the host's rules whichever that is: a reset
    that belongs to the step before is part of :meth:`integrate`, and a neuron that has had its one spike does not
    :meth:`fire`. CLIF (Huang et al., ICML 2024), whose complementary potential m makes the reset stronger, reads ::

        u, m = states
        h = firing.integrate(beta * u, x, by=firing.threshold + torch.sigmoid(m))
        s = firing.fire(h)
        m = m * torch.sigmoid((1 - beta) * h) + s
        u = firing.reset(h, s, by=firing.threshold + torch.sigmoid(m))

    ``by`` stands twice because a host that resets one step later subtracts it there, from the m that was stored.

    Attributes:
        setting: the :class:`Firing`.
        threshold: its threshold, shaped to broadcast against ``[N, C, *]``.
        allowed: 0 where ``fire_once`` forbids a spike, else 1; None without that rule.
    """

    def __init__(self, setting: Firing, threshold: float | Tensor, r: Tensor | None, allowed: Tensor | None) -> None:
        self.setting, self.threshold, self.r, self.allowed = setting, threshold, r, allowed

    def integrate(self, memory: Tensor, drive: Tensor | float = 0.0, by: Tensor | float | None = None) -> Tensor:
        """The potential that is compared with the threshold, ``[N, C, *]``.

        Args:
            memory: what the potential becomes without input, e.g. ``beta * u``.
            drive: what the input adds.
            by: what a soft reset of the step before subtracts; the threshold when None.
        """
        return charged(memory + drive, self.r, self.threshold if by is None else by, self.setting)

    def fire(self, h: Tensor) -> Tensor:
        """Spikes of the potential ``h``, with the surrogate derivative."""
        return self.spike(h - self.threshold)

    def spike(self, distance: Tensor) -> Tensor:
        """Spikes of ``distance = h - threshold``, for a model with a threshold of its own."""
        surrogate = self.setting.surrogate
        if isinstance(surrogate, Surrogate):
            s = spike(distance, surrogate, self.setting.strict)
        else:
            s = surrogate(distance).to(distance.dtype)
        return s if self.allowed is None else s * self.allowed

    def reset(self, h: Tensor, s: Tensor, by: Tensor | float | None = None) -> Tensor:
        """The potential after the step, from ``h`` and the spikes.

        ``by`` is what a soft reset subtracts, the threshold when None; a hard reset goes to ``v_reset``.
        """
        return after_reset(h, s, self.r, self.threshold if by is None else by, self.setting)

    def update(self, memory: Tensor, drive: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
        """Integrate, fire, reset: one step of the soma. Arguments as of :meth:`integrate`.

        Returns:
            spikes and the new membrane potential, both ``[N, C, *]``.
        """
        h = self.integrate(memory, drive)
        s = self.fire(h)
        return s, self.reset(h, s)


# One object, made at import: torch.compile cannot make the dataclass's default inside a graph.
DEFAULT_FIRING = Firing()
