"""The reference of the clock-driven TTFS pair: plain torch, the oracle of every other provider.

The functions are differentiable where the equations of :mod:`.contract` are; :func:`bins` is shared with the state
machine of single-step mode, so that both modes fire in the same bin to the last bit.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from ..contract import Provider
from .contract import Gradients, Inputs, OutputGradients, Outputs, Saved, Settings

__all__ = ["TorchProvider", "backward", "bins", "charge", "emit", "provider", "slope_weights"]


def charge(x: Tensor, bias: Tensor | None, windows: Tensor, steps: int) -> Tensor:
    """Potentials at the end of each window, ``[W, N, C, *]``, in the dtype of ``windows``."""
    x = x.unflatten(0, (-1, steps))
    total = x[:, 0].to(windows.dtype) * (2 * steps - 1)
    for k in range(1, steps):  # product and sum are rounded one by one, as in single-step mode
        total = total + x[:, k].to(windows.dtype) * (2 * (steps - k) - 1)
    potential = total * (windows[0] / (2 * steps))
    return potential if bias is None else potential + bias


def bins(potential: Tensor, window: Tensor, steps: int) -> Tensor:
    """``m`` of every neuron: it fires ``m`` steps before its window's end; 0 is silent, NaN stays NaN."""
    return torch.ceil(potential * (steps / window)).clamp(0, steps)


def emit(potential: Tensor, window: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
    """Spikes ``[W * steps, N, C, *]`` of the potentials ``[W, N, C, *]``."""
    m = bins(potential, window, steps).unsqueeze(1)
    levels = torch.arange(steps, 0, -1, device=m.device, dtype=m.dtype).reshape(1, steps, *[1] * (m.dim() - 2))
    spikes = (m == levels).to(dtype)
    spikes[:, :1] += (m - m).to(dtype)  # 0, or NaN
    return spikes.flatten(0, 1)


def slope_weights(potential: Tensor, window: Tensor, steps: int) -> Tensor:
    """The factor of ``g[0] - g[T-1]`` in the gradient of the potential."""
    scale = 2 * steps / window if steps == 1 else steps / ((steps - 1) * window)
    return torch.where((potential > 0) & (potential <= window), scale, 0.0)


def backward(saved: Saved, settings: Settings, g: OutputGradients, with_bias: bool = True) -> Gradients:
    """The backward pass of :mod:`.contract`, linear in the gradients that come in and differentiable in them."""
    steps, (potentials, bias, windows) = settings.steps, saved
    g_spikes = g.spikes.unflatten(0, (-1, steps))
    difference = g_spikes[:, 0].to(potentials.dtype)
    if steps > 1:
        difference = difference - g_spikes[:, -1].to(potentials.dtype)
    gv = difference * slope_weights(potentials, windows[1], steps)
    if g.potentials is not None:
        gv = gv + g.potentials
    weights = torch.arange(2 * steps - 1, 0, -2, device=gv.device, dtype=gv.dtype) * (windows[0] / (2 * steps))
    gx = gv.unsqueeze(1) * weights.reshape(1, steps, *[1] * (gv.dim() - 1))
    g_bias = None if bias is None or not with_bias else gv.sum(0).sum_to_size(bias.shape)
    return Gradients(gx.flatten(0, 1).to(g.spikes.dtype), g_bias)


class TorchProvider(Provider):
    """The pair in plain torch, on every device torch runs on."""

    name = "torch"

    def why_not(
        self, device: torch.device, dtype: torch.dtype, settings: Settings, steps: int = 1, degree: int = 1
    ) -> str | None:
        return None

    @torch.no_grad()
    def forward(self, inputs: Inputs, settings: Settings) -> Outputs:
        potentials = charge(*inputs, settings.steps)
        return Outputs(emit(potentials, inputs.windows[1], settings.steps, inputs.x.dtype), potentials)

    @torch.no_grad()
    def backward(
        self, saved: Saved, settings: Settings, gradients: OutputGradients, wanted: Collection[str] = Gradients._fields
    ) -> Gradients:
        return backward(saved, settings, gradients, "bias" in wanted)


provider = TorchProvider()
