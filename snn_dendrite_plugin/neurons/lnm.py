"""LNM: a soma whose dynamics are a learned polynomial (Jahns, Moreno, Kinsy, arXiv 2510.07341)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .core import SomaDendriteModel, Values, soma_row
from .polynomial import LIMITS, THETA_SCALE

__all__ = ["LNM"]


class LNM(SomaDendriteModel):
    r"""Learned neuron model: the leak of an integrate-and-fire neuron becomes a polynomial that training shapes.

    .. math::
        h[t] &= P(u[t-1]) + \rho\, x[t] \\
        P(u) &= \theta_1 u + \sigma \Big(\theta_0 + \sum_{i=2}^{K} \theta_i u^i\Big) \quad\text{within the limits}

    then fire and reset. Beyond the limits ``clamp`` the powers stay what they are there and P goes on as a line, of
    slope theta_1 but not steeper than 1 (for degree 1 it is that line everywhere): with c = clip(u) and
    s = clip(theta_1, -1, 1), ``P(u) = s u + (theta_1 - s) c + sigma (theta_0 + theta_2 c^2 + ...)``. So a potential
    grows by a bounded amount per step, whatever theta becomes. The scale sigma makes one step of an optimizer move the
    dynamics about as little as one of beta's would. It starts as a LIF neuron exactly, theta = (0, beta, 0, ...).

    The published model is the polynomial alone, ``clamp=None, theta_scale=1``; without a reset that bounds it below, a
    strongly negative potential leaves for infinity as soon as theta_2 or theta_3 have grown. The paper's body could not
    be read: degree, start, granularity, limits and scale are ours and are options.

    Shapes: input and spikes ``[T, N, C, *]``; state ``v [N, C, *]``. Time is in steps.

    Args:
        degree: K, at least 1.
        per_channel, channels: one polynomial per channel; the count is taken from the first input unless given.
        beta: decay of the LIF neuron it starts from (theta_1), one number or ``[C]``.
        decay_input: rho = 1 - beta instead of 1.
        rest: potential it leaks to at the start (theta_0 = (1 - beta) rest).
        theta: start of theta, ``K + 1`` numbers or ``[C, K + 1]``, instead of the LIF start.
        learn_theta: learn it.
        clamp: ``(low, high)``, the limits in units of the potential; None: none. The default is made for thresholds
            around 1.
        theta_scale: sigma. A power of 2 keeps the LIF start exact where ``rest`` is not 0.

    Attributes:
        coefficients: of the polynomial within the limits, ``[1 or C, K + 1]``: theta, and sigma theta_i for i != 1.

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
        clamp: tuple[float, float] | None = LIMITS,
        theta_scale: float = THETA_SCALE,
    ) -> None:
        super().__init__(per_channel, channels)
        row = soma_row(beta, rest, degree)
        self.degree, self.rest, self.decay_input = degree, rest, decay_input
        self._scale_input(beta)
        self.declare_theta(row, theta, learn_theta, theta_scale, clamp)

    def core_settings(self) -> dict[str, Any]:
        limits = {"clamp_low": self.clamp_low, "clamp_high": self.clamp_high} if self.degree > 1 else {}
        return {"branches": 0, **limits}

    def core_inputs(self, dtype: torch.dtype) -> dict[str, Any]:
        theta = self.polynomial_coefficients(dtype)
        scale = self.input_scale
        if isinstance(scale, Tensor):
            direct = scale[:, 0].to(dtype)
        else:
            direct = torch.full((1,), scale, dtype=dtype, device=theta.device)
        return {
            "alpha": None, "gain": None, "offset": None, "strength": None, "direct": direct, "theta": theta,
        }  # fmt: skip

    def extra_repr(self) -> str:
        return ", ".join((f"degree={self.degree}", *["per_channel"] * self.per_channel, *self.limits_repr()))

    @classmethod
    def preserving_start(cls) -> dict[str, Any]:
        return {"theta": None}

    @classmethod
    def published_start(cls) -> dict[str, Any]:
        return {"clamp": None, "theta_scale": 1.0}
