"""On a clock: images to binary first spikes and back, max pooling of spike trains, and the readout.

All take ``step_mode``: ``"m"`` for sequences ``[T, N, C, *]`` of whole windows, ``"s"`` for one step ``[N, C, *]``
with the state kept in the layer until ``reset``. They know no host: its ``TTFS`` neurons and layers lie between them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...kernels.dtypes import DoubleBuffers, state_dtype
from ...kernels.ttfs import Settings
from ...kernels.ttfs.reference import bins, charge, emit
from .times import check_range, scale_input

__all__ = ["ClockedEncoder", "ClockedReadout", "ClockedDecoder", "ClockedMaxPool", "ClockedScale"]


class Clocked(nn.Module):
    """Steps per window, step mode, and a state that :meth:`reset` clears."""

    def __init__(self, steps: int, step_mode: str) -> None:
        super().__init__()
        self.steps = Settings(steps).steps
        self.step_mode = step_mode
        self._state: Any = None

    @property
    def step_mode(self) -> str:
        """``"m"``: whole sequences; ``"s"``: one step per call."""
        return self._step_mode

    @step_mode.setter
    def step_mode(self, value: str) -> None:
        if value not in ("s", "m"):
            raise ValueError(f"step_mode is {value!r}; it must be 's' (one step) or 'm' (a sequence)")
        self._step_mode = value

    def reset(self) -> None:
        """Forget the current window; the next step is the first of a window."""
        self._state = None

    reset_mem = reset  # snnTorch's name

    def _whole(self, x: Tensor) -> None:
        if x.dim() == 0 or x.shape[0] == 0 or x.shape[0] % self.steps:
            raise ValueError(f"sequence has shape {tuple(x.shape)}; it must hold whole windows of steps={self.steps}")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_state": None}  # copies start from reset

    def extra_repr(self) -> str:
        return f"steps={self.steps}, step_mode={self.step_mode!r}"


class ClockedEncoder(Clocked):
    """Images to binary first spikes: ``x' = (x - low) / (high - low)`` fires in bin ``floor((1 - x') T)``, 0 never.

    Shapes: image ``[N, C, *]`` -> spikes ``[T, N, C, *]``; in step mode ``"s"`` the image at every step -> one step's
    spikes ``[N, C, *]``, silence after T steps until ``reset``, or a window per image with ``repeat``. No gradient
    reaches the image. Values outside the range saturate and are counted in ``saturated`` out of ``seen``.

    Args:
        steps: T, time steps per window.
        low, high: the range of the values.
        step_mode: ``"m"`` or ``"s"``.
        repeat: in step mode ``"s"``, encode the image given at each window's first step, one per window.

    Raises:
        ValueError: an empty range, or an input with NaN.

    Example::

        >>> import torch
        >>> ClockedEncoder(4)(torch.tensor([[0.0, 0.2, 1.0]]))[:, 0].tolist()
        [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """

    saturated: Tensor
    seen: Tensor

    def __init__(
        self, steps: int, low: float = 0.0, high: float = 1.0, step_mode: str = "m", repeat: bool = False
    ) -> None:
        super().__init__(steps, step_mode)
        self.low, self.high = check_range(low, high)
        self.repeat = bool(repeat)
        for name in ("saturated", "seen"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64), persistent=False)

    @torch.no_grad()
    def _scaled(self, x: Tensor) -> Tensor:
        scaled, inside = scale_input(self, x)
        if not inside:
            self.saturated += ((scaled < 0) | (scaled > 1)).sum()
        self.seen += x.numel()
        return scaled.to(state_dtype(x.dtype))

    def forward(self, x: Tensor) -> Tensor:
        if self.step_mode == "m":
            scaled = self._scaled(x)
            return emit(scaled.unsqueeze(0), scaled.new_ones(()), self.steps, x.dtype)
        m: Any
        clock, m = self._state or (0, None)
        if clock == 0:
            scaled = self._scaled(x)
            m = bins(scaled, scaled.new_ones(()), self.steps)
        if clock >= self.steps:
            return torch.zeros_like(x)
        spikes = (m == self.steps - clock).to(x.dtype)
        clock += 1
        self._state = (0, None) if self.repeat and clock == self.steps else (clock, m)
        return spikes


class ClockedReadout(DoubleBuffers, Clocked):
    """The output layer's potential at the end of each window; never fires.

    Shapes: currents ``[T, N, C, *]`` (a linear layer on binary spikes, without its bias) -> potentials ``[N, C, *]``;
    several windows give ``[W, N, C, *]``. In step mode ``"s"``: ``[N, C, *]`` -> the last whole window's potential, 0
    before. Differentiable; half inputs give float32 potentials.

    Args:
        steps: T, time steps per window.
        window: R of the layer before, in the unit of the activations.
        bias: ``[C]`` or ``[C, *]``, or None; learned.
        step_mode: ``"m"`` or ``"s"``.

    Example::

        >>> import torch
        >>> ClockedReadout(4, window=2.0)(torch.tensor([0.0, 1.0, 0.0, 0.0]).reshape(4, 1, 1)).item()
        1.25
    """

    window: Tensor
    in_double = ("window",)

    def __init__(self, steps: int, window: float = 1.0, bias: Tensor | None = None, step_mode: str = "m") -> None:
        super().__init__(steps, step_mode)
        if not (math.isfinite(float(window)) and float(window) > 0):
            raise ValueError(f"window is {window!r}; it must be a positive, finite duration")
        self.register_buffer("window", torch.tensor(float(window), dtype=torch.float64))
        self.bias: nn.Parameter | None
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach().clone()))

    def _bias(self, dims: int, dtype: torch.dtype) -> Tensor | None:
        if self.bias is None:
            return None
        return self.bias.to(dtype).reshape(1, *self.bias.shape, *[1] * (dims - 1 - self.bias.dim()))

    def _windows(self, dtype: torch.dtype) -> Tensor:
        return torch.stack((self.window, self.window)).to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        dtype = state_dtype(x.dtype)
        if self.step_mode == "m":
            self._whole(x)
            potential = charge(x, self._bias(x.dim() - 1, dtype), self._windows(dtype), self.steps)
            return potential[0] if potential.shape[0] == 1 else potential
        clock, total, potential = self._state or (0, x.new_zeros((), dtype=dtype), torch.zeros_like(x, dtype=dtype))
        total = total + x.to(dtype) * (2 * (self.steps - clock) - 1)
        clock += 1
        if clock == self.steps:
            bias = self._bias(x.dim(), dtype)
            potential = total * (self._windows(dtype)[0] / (2 * self.steps))
            potential = potential if bias is None else potential + bias
            clock, total = 0, torch.zeros_like(total)
        self._state = (clock, total, potential)
        return potential


class ClockedDecoder(ClockedReadout):
    """Binary first spikes back to values, ``(T - k - 1/2) dt`` for a spike in bin k and 0 for silence.

    Shapes and step modes as :class:`ClockedReadout`.

    Example::

        >>> import torch
        >>> ClockedDecoder(8)(ClockedEncoder(8)(torch.tensor([[0.0, 0.3, 1.0]]))).tolist()
        [[0.0, 0.3125, 0.9375]]
    """

    def __init__(self, steps: int, window: float = 1.0, step_mode: str = "m") -> None:
        super().__init__(steps, window, None, step_mode)


class ClockedScale(Clocked):
    """A factor per channel on a spike stream, ``weight [C]``; state-free, the same in both step modes.

    Example::

        >>> import torch
        >>> ClockedScale(1, torch.tensor([2.0, 3.0]))(torch.ones(1, 1, 2)).tolist()
        [[[2.0, 3.0]]]
    """

    def __init__(self, steps: int, weight: Tensor, step_mode: str = "m") -> None:
        super().__init__(steps, step_mode)
        self.weight = nn.Parameter(weight.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        trailing = x.dim() - (3 if self.step_mode == "m" else 2)
        return x * self.weight.to(x.dtype).reshape(-1, *[1] * trailing)


class ClockedMaxPool(Clocked):
    """Max pooling of binary first spikes that keeps one spike per window: the earliest neuron's train goes on whole.

    Pooling every step by itself would emit a spike for every neuron of the pool. The gradient goes to the neuron that
    wins, as in max pooling of its value.

    Shapes: ``[T, N, C, L]`` or ``[T, N, C, H, W]`` -> pooled; in step mode ``"s"`` without T. There the spike comes at
    the same step, and backward needs the whole window to have run.

    Args:
        steps: T, time steps per window.
        kernel_size, stride, padding, dilation, ceil_mode: those of ``torch.nn.MaxPool2d``.
        latest: ``[C]``, True where the latest neuron wins and silence is latest of all.
        step_mode: ``"m"`` or ``"s"``.

    Raises:
        ValueError: an input that is not a sequence of whole windows, or not 1 or 2 spatial dimensions.

    Example::

        >>> import torch
        >>> spikes = ClockedEncoder(4)(torch.tensor([[[0.2, 0.9, 0.5, 0.0]]]))
        >>> ClockedMaxPool(4, 2)(spikes)[:, 0, 0].tolist()
        [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    """

    sign: Tensor | None

    def __init__(
        self,
        steps: int,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        latest: Tensor | None = None,
        step_mode: str = "m",
    ) -> None:
        super().__init__(steps, step_mode)
        self.options = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation}
        self.options["ceil_mode"] = ceil_mode
        self.register_buffer("sign", None if latest is None else torch.where(latest, -1.0, 1.0))

    def _pool(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled ``[N, C, *]`` and the positions of the winners."""
        if value.dim() not in (3, 4):
            raise ValueError(f"pooling got spikes of step shape {tuple(value.shape)}; it takes [N, C, L] or more")
        pool = F.max_pool1d if value.dim() == 3 else F.max_pool2d
        if self.sign is not None:
            sign = self.sign.to(value.dtype).reshape(-1, *[1] * (value.dim() - 2))
            pooled, index = pool(value * sign, **self.options, return_indices=True)
            return pooled * sign, index
        return pool(value, **self.options, return_indices=True)

    def forward(self, x: Tensor) -> Tensor:
        if self.step_mode == "s":
            return self._step(x)
        self._whole(x)
        windows = x.reshape(-1, self.steps, *x.shape[1:])
        with torch.no_grad():
            dtype = state_dtype(x.dtype)
            weights = torch.arange(self.steps, 0, -1, dtype=dtype, device=x.device) - 0.5
            value = torch.tensordot(weights, windows.to(dtype), dims=([0], [1]))
            index = self._pool(value.flatten(0, 1))[1]
            index = index.reshape(*value.shape[:3], *index.shape[2:]).unsqueeze(1)
        flat = index.flatten(4).expand(-1, self.steps, -1, -1, -1)
        out = windows.flatten(4).gather(4, flat)
        return out.reshape(x.shape[0], *x.shape[1:3], *index.shape[4:])

    def _step(self, x: Tensor) -> Tensor:
        seen: Any
        value: Any
        clock, seen, value, before, winners = self._state or (0, None, None, None, _Winners())
        with torch.no_grad():
            dtype = state_dtype(x.dtype)
            first = seen is None
            seen = x.to(dtype) if first else seen + x
            value = x.to(dtype) * (self.steps - clock - 0.5) + (0 if first else value)
            after = self._pool(seen)[0]  # 1 where the winner has fired
            out = (after if before is None else after - before).to(x.dtype)
            clock += 1
            if clock == self.steps:
                winners.index = self._pool(value)[1]
                self._state = None
            else:
                self._state = (clock, seen, value, after, winners)
        return _StepPool.apply(x, out, winners)


class _Winners:
    """Which neuron of each pool fired first; known at the window's end, needed by every step's backward pass."""

    index: Tensor | None = None


class _StepPool(torch.autograd.Function):
    """One step of the pooled train; backward sends its gradient to the window's winner."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, out: Tensor, winners: _Winners) -> Tensor:
        ctx.winners, ctx.shape = winners, x.shape
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.winners.index is None:
            raise RuntimeError("backward through ClockedMaxPool in step mode needs a whole window of forward steps")
        flat = gradient.new_zeros(ctx.shape).flatten(2)
        flat.scatter_add_(2, ctx.winners.index.flatten(2), gradient.flatten(2))
        return flat.reshape(ctx.shape), None, None
