"""LNM: a soma whose dynamics are a learned polynomial (Jahns, Moreno, Kinsy, arXiv 2510.07341)."""

from __future__ import annotations

import torch
from torch import Tensor

from .core import SomaDendriteModel, Values, clamp_limits, soma_row

__all__ = ["LNM"]


class LNM(SomaDendriteModel):
    r"""Learned neuron model: the leak of an integrate-and-fire neuron becomes a polynomial that training shapes.

    .. math:: h[t] = \sum_{i=0}^{K} \theta_i u[t-1]^i + \rho\, x[t]

    by Horner's scheme, then fire and reset. It starts as a LIF neuron exactly, theta = (0, beta, 0, ...). The hard
    reset bounds the potential above; nothing bounds it below, so that a strongly negative potential can grow without
    limit where theta_2 or theta_3 have grown: ``clamp`` limits P's argument. The paper's body could not be read:
    degree, start and granularity are ours and are options.

    Shapes: input and spikes ``[T, N, C, *]``; state ``v [N, C, *]``. Time is in steps.

    Args:
        degree: K, at least 1.
        per_channel, channels: one polynomial per channel; the count is taken from the first input unless given.
        beta: decay of the LIF neuron it starts from (theta_1), one number or ``[C]``.
        decay_input: rho = 1 - beta instead of 1.
        rest: potential it leaks to at the start (theta_0 = (1 - beta) rest).
        theta: start of the coefficients, ``K + 1`` numbers or ``[C, K + 1]``, instead of the LIF start.
        learn_theta: learn them.
        clamp: ``(low, high)`` limits of P's argument, off by default.

    Raises:
        ValueError: an argument out of its range; the message names it.

    Example::

        >>> import torch
        >>> model = LNM(degree=3)
        >>> spikes, (v,) = model.run(torch.rand(8, 4, 6))
        >>> model.theta.tolist()
        [[0.0, 0.5, 0.0, 0.0]]
    """

    states = {"v": 0.0}

    def __init__(
        self,
        degree: int = 3,
        per_channel: bool = False,
        channels: int | None = None,
        beta: Values = 0.5,
        decay_input: bool = False,
        rest: float = 0.0,
        theta: Values | None = None,
        learn_theta: bool = True,
        clamp: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(per_channel, channels)
        row = soma_row(beta, rest, degree)
        self.degree, self.rest, self.decay_input = degree, rest, decay_input
        self._scale_input(beta)
        self.clamp_low, self.clamp_high = clamp_limits(clamp)
        self._declare("theta", row if theta is None else theta, degree + 1, learn=learn_theta)

    def core_settings(self):
        return {"branches": 0, "clamp_low": self.clamp_low, "clamp_high": self.clamp_high}

    def core_inputs(self, dtype: torch.dtype) -> dict[str, Tensor | None]:
        theta = self.value_of("theta", dtype)
        scale = self.input_scale
        if isinstance(scale, Tensor):
            direct = scale[:, 0].to(dtype)
        else:
            direct = torch.full((1,), scale, dtype=dtype, device=theta.device)
        return {
            "alpha": None, "gain": None, "offset": None, "strength": None, "direct": direct, "theta": theta,
        }  # fmt: skip

    def extra_repr(self) -> str:
        return f"degree={self.degree}" + (", per_channel" if self.per_channel else "")

    @classmethod
    def preserving_start(cls):
        return {"theta": None}

    @classmethod
    def published_start(cls):
        return {}
