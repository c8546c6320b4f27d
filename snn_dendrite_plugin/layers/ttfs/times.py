"""Spike times, the layers that emit them, and what a spike stands for (Stanojevic et al. 2024).

Times are counted from the start of the window in which the neuron fires, so that precision does not depend on depth; a
neuron whose time equals the window's duration R has not fired. A spike at t stands for the value ``R - t``.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...kernels.dtypes import DoubleBuffers

__all__ = ["SpikeTimes", "TTFSDecode", "TTFSEncode", "TTFSFire"]


class SpikeTimes(NamedTuple):
    """One window of first spikes, as passed between time-coded layers.

    Attributes:
        times: ``[N, C, *]``, from the window's start, in [0, window]; a time equal to the window is silence.
        window: duration R, a tensor without dimensions in the dtype of the times.
        ready: these times and their ``window - times``, where the layer that fired has worked them out in one go.
    """

    times: Tensor
    window: Tensor
    ready: tuple[Tensor, Tensor] | None = None

    @property
    def values(self) -> Tensor:
        """What the spikes stand for, ``window - times``: the activations of the ReLU network."""
        if self.ready is not None and self.ready[0] is self.times:
            return self.ready[1]
        return self.window - self.times


def as_spikes(layer: nn.Module, spikes: object) -> SpikeTimes:
    """``spikes`` itself, or a TypeError that says what the layer takes."""
    if not isinstance(spikes, SpikeTimes):
        raise TypeError(
            f"{type(layer).__name__} got a {type(spikes).__name__}; it takes SpikeTimes, as TTFSEncode and firing "
            "layers return them (a layer made with fire=False returns potentials)"
        )
    return spikes


class Emitter(nn.Module):
    """What has spikes to send: counts saturation and applies the perturbations of spike times."""

    saturated: Tensor
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("saturated", torch.zeros((), dtype=torch.int64), persistent=False)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64), persistent=False)
        self.noise = 0.0  # standard deviation, in units of time
        self.time_bits: int | None = None

    def _send(self, times: Tensor, window: Tensor, values: Tensor | None = None) -> SpikeTimes:
        if self.noise or self.time_bits is not None:
            silent = times >= window  # a neuron that does not fire has no spike to move
            moved = times
            if self.noise:
                moved = (moved + self.noise * torch.randn_like(moved)).clamp(min=0)
            if self.time_bits is not None:
                grid = window / (2**self.time_bits - 1)
                moved = moved + (torch.round(moved / grid) * grid - moved).detach()
            return SpikeTimes(torch.where(silent, window, torch.minimum(moved, window)), window)
        return SpikeTimes(times, window, None if values is None else (times, values))

    def _count(self, outside: Tensor | None, number: int) -> None:
        if outside is not None:
            self.saturated += outside.sum()
        self.seen += number


class _Ramp(torch.autograd.Function):
    """Times ``window - min(relu(V), window)`` and the values ``window - times``, with the ReLU's gradient.

    One function for both, so that the changes of sign between a potential and the next layer cost nothing backwards.
    """

    @staticmethod
    def forward(ctx: Any, potential: Tensor, window: Tensor, clip: bool) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.clip = clip
        ctx.save_for_backward(potential, window)
        times = potential.clamp(min=0)
        if clip:
            times = torch.minimum(times, window)
        times = torch.sub(window, times, out=times)
        return times, window - times

    @staticmethod
    def backward(ctx: Any, g_times: Tensor | None, g_values: Tensor | None) -> tuple[Tensor | None, ...]:
        potential, window = ctx.saved_tensors
        if g_times is not None:
            g_values = -g_times if g_values is None else g_values - g_times
        if g_values is None:
            return None, None, None
        gradient = torch.ops.aten.threshold_backward(g_values, potential, 0)
        return (gradient * (potential <= window) if ctx.clip else gradient), None, None


class TTFSFire(DoubleBuffers, Emitter):
    r"""Turns potentials into spike times: from the window's start, a ramp of slope 1 lifts V to the threshold R.

    .. math:: t = R - \min(\max(V, 0), R)

    ``V <= 0`` stays silent. ``V > R`` saturates: it fires at once, with the value R; such neurons are counted in
    ``saturated`` out of ``seen``. The gradient is that of the ReLU, and 0 for saturated neurons.

    Shapes: potentials ``[N, C, *]`` -> :class:`SpikeTimes` of the same shape.

    Args:
        window: R, in the unit of the activations; the largest value it can express.
        adaptive: while training, R grows to ``margin`` times the largest potential of the batch before the layer
            fires, so that nothing saturates. The function that the network computes does not depend on R.
        margin: the factor; 10 in the paper's code.

    Raises:
        ValueError: a window or margin that is not positive and finite, or a margin below 1.

    Example::

        >>> import torch
        >>> fire = TTFSFire(window=2.0, adaptive=False)
        >>> fire(torch.tensor([[-1.0, 0.5, 2.0, 3.0]])).times.tolist(), fire.saturated.item()
        ([[2.0, 1.5, 0.0, 0.0]], 1)
    """

    window: Tensor
    in_double = ("window",)

    def __init__(self, window: float = 1.0, adaptive: bool = True, margin: float = 10.0) -> None:
        super().__init__()
        if not (math.isfinite(window) and window > 0):
            raise ValueError(f"window is {window!r}; it must be a positive, finite duration")
        if not (math.isfinite(margin) and margin >= 1):
            raise ValueError(f"margin is {margin!r}; a window must hold the largest activation: at least 1")
        self.register_buffer("window", torch.tensor(float(window), dtype=torch.float64))
        self.adaptive = bool(adaptive)
        self.margin = float(margin)
        self.shorten = 1.0  # perturbation: the share of the window that is used
        self.observing = False  # while calibrating: the window follows the data

    def grow(self, potential: Tensor, margin: float) -> None:
        """Widen the window to ``margin`` times the largest finite potential."""
        largest = potential.detach().amax().double() * margin
        largest = torch.where(torch.isfinite(largest), largest, 0.0)
        self.window.copy_(torch.maximum(self.window, largest))

    def forward(self, potential: Tensor) -> SpikeTimes:
        """Spike times of the potentials ``[N, C, *]`` at the start of the window."""
        grows = self.adaptive and self.training
        if self.observing:
            self.grow(potential, 1.0)
        elif grows:
            self.grow(potential, self.margin)
        window = self.window.to(potential.dtype)
        if self.shorten != 1.0:
            window = window * self.shorten
        clip = self.shorten != 1.0 or not (grows or self.observing)  # a window that has just grown holds everything
        if clip and known(potential):
            clip = not bool(potential.detach().amax() <= window)
        if not grows and not self.observing:
            self._count((potential.detach() > window) if clip else None, potential.numel())
        times, values = _Ramp.apply(potential, window, clip)
        return self._send(times, window, values)

    def extra_repr(self) -> str:
        return f"window={self.window.item():g}" + (", adaptive" if self.adaptive else "")


class TTFSEncode(Emitter):
    """Images to first spikes: ``t = 1 - (x - low) / (high - low)`` in a window of 1; ``x = low`` stays silent.

    Values outside the range saturate (clipped to its ends) and are counted in ``saturated`` out of ``seen``.

    Shapes: ``[N, C, *]`` -> :class:`SpikeTimes` of the same shape. No gradient reaches values outside the range.

    Raises:
        ValueError: ``low >= high``; at the call, an input with NaN.

    Example::

        >>> import torch
        >>> TTFSEncode()(torch.tensor([[0.0, 0.25, 1.0]])).times.tolist()
        [[1.0, 0.75, 0.0]]
    """

    def __init__(self, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__()
        self.low, self.high = check_range(low, high)

    def forward(self, x: Tensor) -> SpikeTimes:
        """Spike times of ``x [N, C, *]``."""
        scaled, inside = scale_input(self, x)
        self._count(None if inside else (scaled < 0) | (scaled > 1), x.numel())
        scaled = scaled if inside else scaled.clamp(0, 1)
        return self._send(1 - scaled, torch.ones((), dtype=x.dtype, device=x.device))

    def extra_repr(self) -> str:
        return f"low={self.low:g}, high={self.high:g}"


def check_range(low: float, high: float) -> tuple[float, float]:
    """``(low, high)`` as floats; raises ValueError unless they are finite and in order."""
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"input range is ({low!r}, {high!r}); it must be (low, high) with low < high, both finite")
    return float(low), float(high)


def scale_input(layer: Any, x: Tensor) -> tuple[Tensor, bool]:
    """``(x - low) / (high - low)``, and whether it is known to lie in [0, 1]; refuses integers and NaN.

    NaN and the range are looked for in eager mode; under torch.compile nothing is known.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        found = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{type(layer).__name__} got an input of {found}; it takes a floating point tensor")
    scaled = x if (layer.low, layer.high) == (0.0, 1.0) else (x - layer.low) / (layer.high - layer.low)
    if torch.compiler.is_compiling() or x.numel() == 0:
        return scaled, False
    low, high = float(scaled.detach().amin()), float(scaled.detach().amax())  # faster than aminmax on the CPU
    if math.isnan(low):
        raise ValueError(f"{type(layer).__name__} got an input with NaN, which no spike time can stand for")
    return scaled, low >= 0 and high <= 1


def known(x: Tensor) -> bool:
    """Whether looking at a value costs nothing: eager mode, on the CPU."""
    return not torch.compiler.is_compiling() and x.device.type == "cpu"


class TTFSDecode(nn.Module):
    """Spike times back to values, ``window - times``.

    Example::

        >>> import torch
        >>> TTFSDecode()(TTFSEncode()(torch.tensor([[0.25]]))).item()
        0.25
    """

    def forward(self, spikes: SpikeTimes) -> Tensor:
        return as_spikes(self, spikes).values
