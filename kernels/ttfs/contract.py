"""What a provider of the clock-driven TTFS pair is given and what it must return.

Shapes. A sequence is ``x [W * steps, N, C, *]``: ``W`` windows of ``steps`` time steps each, window ``w`` at steps
``w * steps .. (w + 1) * steps - 1``. Potentials are ``[W, N, C, *]`` in the *state dtype*: float64 for float64 input,
else float32. ``bias`` broadcasts against one window's potential ``[N, C, *]``, its first size being 1. ``windows`` is a
tensor of two durations in the unit of time, ``R_in`` of the layer before and ``R`` of this one.

One window, for every neuron, with ``T = steps`` (bin-centre charge, floor rule)::

    V    = bias + R_in / (2 T) * sum_{k = 0..T-1} (2 (T - k) - 1) x[k]        summed in the order of k
    m    = clamp(ceil(V * (T / R)), 0, T)                                     V <= 0 is silent, V > R saturates
    s[k] = 1 where T - k == m                                                 at most one spike per window

A NaN potential puts a NaN into the window's first bin, so that it cannot pass for silence.

Backward is straight through the time of the spike. With ``g[k] = dL/ds[k]``, ``dt = R / T``::

    dL/dV    = [0 < V <= R] (g[0] - g[T-1]) / ((T - 1) dt)                     T = 1: [..] 2 g[0] / dt
    dL/dx[k] = R_in / (2 T) (2 (T - k) - 1) dL/dV,   dL/dbias = sum dL/dV

A next layer's charge is linear in the time of the spike, for which this difference quotient is exact: a chain of such
layers has the gradient of the ReLU network whose activations are rounded to ``dt (m - 1/2)``, straight through the
rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

__all__ = ["Provider", "Settings"]


@dataclass(frozen=True)
class Settings:
    """The static part of a call: time steps per window."""

    steps: int

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(f"steps is {self.steps!r}; a window needs a whole number of time steps, at least 1")


@runtime_checkable
class Provider(Protocol):
    """A provider runs the pair somewhere. Backward needs the potentials only, not the input."""

    name: str

    def why_not(self, device: torch.device, dtype: torch.dtype, settings: Settings) -> str | None:
        """The reason this provider cannot run such a call, or None when it can."""

    def forward(self, x: Tensor, bias: Tensor | None, windows: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
        """Spikes ``[W * steps, N, C, *]`` in x's dtype, potentials ``[W, N, C, *]``. Must not write to its inputs."""

    def backward(
        self,
        spikes: Tensor,
        potentials: Tensor | None,
        saved: Tensor,
        bias: Tensor | None,
        windows: Tensor,
        settings: Settings,
    ) -> tuple[Tensor, Tensor | None]:
        """Gradients of x (in the dtype of ``spikes``) and bias, from those of spikes and potentials (None means zero).

        ``saved`` are the potentials that forward returned. The sum for the bias has a fixed order.
        """
