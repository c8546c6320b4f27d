"""The polynomial of a soma: its parameter theta, the limits and the scale that keep it from running away."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["LIMITS", "THETA_SCALE", "PolynomialSoma", "clamp_limits"]

LIMITS = (-1.0, 1.0)
THETA_SCALE = 0.125  # a power of 2: dividing a constant by it and multiplying again loses no bit


class PolynomialSoma(nn.Module):
    r"""Mixin of the soma-dendrite models with the parameter ``theta``.

    .. math:: P(u) = s u + (\theta_1 - s) c + \sigma \Big(\theta_0 + \sum_{i=2}^{K} \theta_i c^i\Big)

    with c = u within the limits, else the nearer of them, and s = theta_1, limited to -1 .. 1. The polynomial alone is
    that without limits and with sigma = 1.

    Two reasons. P of a potential that no reset bounds (hard resets bound it above, none below) grows with its K-th
    power, and is infinite in a few steps; with limits it grows by a bounded amount. And one step of an optimizer such
    as Adam moves each theta_i by about as much: theta_0, theta_2, ... then shift the potentials of a whole layer the
    same way, which a slow leak sums up over 1 / (1 - beta) steps; theta_1 scales them. sigma < 1 makes up for it.
    """

    degree = 1
    theta_scale = 1.0
    clamp_low, clamp_high = -math.inf, math.inf
    theta: Tensor
    theta_unit: Tensor
    # of SomaDendriteModel
    in_double: set[str]
    _declare: Callable[..., None]
    _derived: Callable[..., Tensor]
    value_of: Callable[[str, torch.dtype], Tensor | None]

    def declare_theta(
        self,
        row: Tensor,
        theta: float | Sequence[float] | Tensor | None,
        learn: bool,
        scale: float,
        clamp: tuple[float, float] | None,
    ) -> None:
        """Create ``theta``, ``degree + 1`` values or ``[C, degree + 1]``; where None, from the coefficients ``row``."""
        if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 < scale < math.inf:
            raise ValueError(f"theta_scale is {scale!r}; it must be a number greater than 0")
        self.theta_scale = float(scale)
        self.clamp_low, self.clamp_high = clamp_limits(clamp)
        self._declare(
            "theta", row / self.theta_units().to(row.device) if theta is None else theta, self.degree + 1, learn
        )
        if self.theta_scale != 1:
            self.register_buffer("theta_unit", self.theta_units().to(self.theta.device), persistent=False)
            self.in_double.add("theta_unit")

    def theta_units(self) -> Tensor:
        """Units of theta, ``[K + 1]``: 1 for theta_1, ``theta_scale`` for the others."""
        units = torch.full((self.degree + 1,), self.theta_scale, dtype=torch.float64, device="cpu")
        units[1] = 1.0
        return units

    @property
    def coefficients(self) -> Tensor:
        """Coefficients of P within its limits, ``[1 or C, K + 1]``; with a gradient where theta is learned."""
        return self.polynomial_coefficients(self.theta.dtype)

    def polynomial_coefficients(self, dtype: torch.dtype) -> Tensor:
        """:attr:`coefficients` in ``dtype``, as the core takes them."""
        fixed = "theta" in self._buffers
        theta: Any
        if self.theta_scale == 1:
            theta = self.value_of("theta", dtype)
        elif fixed:
            theta = self._derived("coefficients", "theta", dtype, lambda theta: theta * self.theta_unit.to(theta))
        else:
            theta = self.value_of("theta", dtype)
            theta = theta * self._derived("unit", "theta_unit", dtype, lambda unit: unit)
        if fixed or self.degree > 1 or (self.clamp_low == -math.inf and self.clamp_high == math.inf):
            return theta
        slope = theta[:, 1:]  # of degree 1 there is the line alone, limited everywhere
        return torch.cat((theta[:, :1], torch.where(slope.abs() > 1, slope.sign(), slope)), dim=1)

    def limits_repr(self) -> list[str]:
        """The limits and the scale as the constructor takes them, for ``extra_repr``."""
        limits = (self.clamp_low, self.clamp_high)
        clamp = None if limits == (-math.inf, math.inf) else "({:g}, {:g})".format(*limits)
        return [f"clamp={clamp}", f"theta_scale={self.theta_scale:g}"]


def clamp_limits(clamp: tuple[float, float] | None) -> tuple[float, float]:
    """``(low, high)`` of the polynomial's limits; unbounded for None."""
    if clamp is None:
        return -math.inf, math.inf
    try:
        low, high = (float(limit) for limit in clamp)
    except (TypeError, ValueError):
        low = high = math.nan
    if not low < high:
        raise ValueError(f"clamp is {clamp!r}; it must be (low, high) with low < high, in units of the potential")
    return low, high
