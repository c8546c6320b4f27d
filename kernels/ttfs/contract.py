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
from typing import NamedTuple

from torch import Tensor

__all__ = ["Gradients", "Inputs", "OutputGradients", "Outputs", "Saved", "Settings"]


@dataclass(frozen=True)
class Settings:
    """The static part of a call: time steps per window."""

    steps: int

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(f"steps is {self.steps!r}; a window needs a whole number of time steps, at least 1")


class Inputs(NamedTuple):
    """The tensors of a call."""

    x: Tensor  # [W * steps, N, C, *]
    bias: Tensor | None  # broadcasts against [N, C, *], first size 1; None means 0
    windows: Tensor  # (R_in, R)


class Outputs(NamedTuple):
    """Result of the forward pass."""

    spikes: Tensor  # [W * steps, N, C, *], x's dtype
    potentials: Tensor  # [W, N, C, *], state dtype


class Saved(NamedTuple):
    """What the backward pass needs of the forward pass: one value per neuron and window, neither input nor spikes."""

    potentials: Tensor
    bias: Tensor | None
    windows: Tensor


class OutputGradients(NamedTuple):
    """What comes in to the backward pass: the gradients of the outputs; None is zero."""

    spikes: Tensor  # x's dtype
    potentials: Tensor | None = None


class Gradients(NamedTuple):
    """Result of the backward pass, each in its input's shape and dtype; None where the bias is, or is not wanted."""

    x: Tensor
    bias: Tensor | None
