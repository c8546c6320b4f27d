"""TTFS: time to first spike on a clock, the ReLU network in binary spikes (Stanojevic et al. 2024)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from ..kernels.dtypes import DoubleBuffers, state_dtype
from ..kernels.ttfs import Settings, ttfs
from ..kernels.ttfs.reference import bins, slope_weights
from .base import Firing, FiringStep, NeuronModel, States
from .core import check_channels, holds

__all__ = ["TTFS"]


class TTFS(DoubleBuffers, NeuronModel):
    r"""Time-to-first-spike neuron on a clock: at most one spike per window of ``steps`` steps; its time is the value.

    It takes a linear layer, without the layer's bias, applied to the binary spikes of the layer before. With
    :math:`T` = ``steps``, windows :math:`R_{in}` and :math:`R`, and :math:`dt = R / T`:

    .. math:: V = b + \frac{R_{in}}{T} \sum_{k=0}^{T-1} (T - k - \tfrac12)\, x[k], \qquad
              s[k] = 1 \iff R - (k + 1)\, dt < V \le R - k\, dt

    so a spike in bin k stands for the value :math:`(T - k - 1/2)\, dt`: a ReLU whose activation is rounded to T levels.
    ``V <= 0`` is silent; ``V > R`` saturates and fires in the first bin. The gradient is straight through the rounding,
    and zero for silent and saturated neurons. The neuron and its mapping to the ReLU are those of Stanojevic et al.
    2024, Nat. Commun. 15:6793 (equations in :mod:`snn_dendrite_plugin.kernels.ttfs.contract`); putting it on a clock is
    ours. The host's threshold, reset and surrogate have no effect here: the threshold is the window, and the window's
    end is the reset.

    Shapes: sequence ``[W * steps, N, C, *]`` (W windows, one after the other); step ``[N, C, *]``. Durations are in the
    unit of the activations; a step lasts ``window / steps``.

    :meth:`sequence` runs in the layer's own clock: window w of the input gives window w of the output. :meth:`step` is
    causal: while it charges one window it fires the window before, so that the same spikes come ``steps`` steps later.

    States: ``v``, the potential of the last whole window; ``charge``, the sum so far in the current one; ``clock``, the
    step in it.

    Args:
        steps: T, time steps per window.
        window: R, duration of the window in which it fires; the largest activation it can express.
        input_window: R of the layer before; the same as ``window`` when None.
        bias: True for a learned bias per channel that starts at 0; or its start, ``[C]`` or ``[C, *]``; None for none.
            It belongs here, not in the linear layer, which would add it at every step.
        channels: number of channels; taken from the first input when None.

    Raises:
        ValueError: an argument out of its range, or a sequence that is not a whole number of windows.

    Example::

        >>> import torch
        >>> node = TTFS(steps=4)
        >>> x = torch.zeros(4, 1, 2)
        >>> x[0, 0, 0] = x[3, 0, 1] = 1.0                    # first and last bin: values 7/8 and 1/8
        >>> spikes, (v, charge, clock) = node.run(x)
        >>> spikes[:, 0].tolist(), v.tolist()
        ([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 1.0]], [[0.875, 0.125]])
    """

    states = {"v": 0.0, "charge": 0.0, "clock": 0.0}
    no_drop_in = (
        "the times of its spikes are the values, which the layers around it must read; convert a trained ReLU network: "
        "sdp.convert(network, to='TTFS', calibration=inputs)"
    )
    in_double = ("window", "input_window")

    def __init__(
        self,
        steps: int,
        window: float = 1.0,
        input_window: float | None = None,
        bias: bool | Tensor | Sequence[float] | None = None,
        channels: int | None = None,
    ) -> None:
        super().__init__()
        self.steps = Settings(steps).steps
        self.register_buffer("window", _duration("window", window))
        self.register_buffer("input_window", None if input_window is None else _duration("input_window", input_window))
        check_channels(channels)
        if bias is None or bias is False:
            self.register_parameter("bias", None)
        elif bias is True:
            self.bias = UninitializedParameter() if channels is None else nn.Parameter(torch.zeros(channels))
        else:
            if isinstance(bias, str):
                raise TypeError(f"bias is {bias!r}; it must be True, None, or numbers [C] or [C, *]")
            start = torch.as_tensor(bias).detach().clone()
            start = start if start.is_floating_point() else start.to(torch.get_default_dtype())
            if start.dim() < 1 or (channels is not None and start.shape[0] != channels):
                shape = tuple(start.shape)
                raise ValueError(f"bias has shape {shape}; it must be [C] or [C, *] with C={channels or 'any'}")
            self.bias = nn.Parameter(start)

    window: Tensor
    input_window: Tensor | None

    # -- parameters ------------------------------------------------------------------------------------------------

    def prepare(self, channels: int) -> None:
        """Create the bias that waited for the channel count; does nothing when there is none waiting."""
        if isinstance(self.bias, UninitializedParameter):
            self.bias.materialize((channels,))
            nn.init.zeros_(self.bias)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        value = state_dict.get(prefix + "bias")
        if value is not None and isinstance(self.bias, UninitializedParameter):
            self.bias.materialize(value.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _windows(self, dtype: torch.dtype) -> Tensor:
        first = self.window if self.input_window is None else self.input_window
        return torch.stack((first, self.window)).to(dtype)

    def _bias(self, shape: torch.Size | tuple[int, ...], dtype: torch.dtype) -> Tensor | None:
        """The bias, broadcastable against a step of ``shape [N, C, *]``."""
        if self.bias is None:
            return None
        if len(shape) < 2:
            raise ValueError(f"x has the step shape {tuple(shape)}; a TTFS neuron with a bias needs [N, C, *]")
        self.prepare(shape[1])
        bias = self.bias
        if bias.shape != tuple(shape[1 : 1 + bias.dim()]) or bias.dim() not in (1, len(shape) - 1):
            raise ValueError(f"x has the step shape {tuple(shape)}, which does not fit the bias {tuple(bias.shape)}")
        return bias.to(dtype).reshape(1, *bias.shape, *[1] * (len(shape) - 1 - bias.dim()))

    # -- the call --------------------------------------------------------------------------------------------------

    def state_names(self, firing: Firing) -> tuple[str, ...]:
        return tuple(self.states)  # fires once per window in any case

    def state_shapes(self, shape: torch.Size | tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        return tuple(shape), tuple(shape), (*shape[:1], *[1] * (len(shape) - 1))

    def init_states(self, x: Tensor, firing: Firing | None = None) -> States:
        return tuple(x.new_zeros(shape, dtype=state_dtype(x.dtype)) for shape in self.state_shapes(x.shape))

    def step(self, x: Tensor, states: States, firing: Firing | FiringStep) -> tuple[Tensor, States]:
        v, charge, clock, *rest = states  # a host's fire_once adds a state, which has nothing to add here
        dtype, steps = v.dtype, self.steps
        windows = self._windows(dtype)
        m = bins(v, windows[1], steps)
        spikes = (m == steps - clock).to(dtype) + torch.where(clock == 0, m - m, 0.0).detach()
        if v.requires_grad:
            ends = (clock == 0).to(dtype) - ((clock == steps - 1).to(dtype) if steps > 1 else 0.0)
            slope = (ends * slope_weights(v, windows[1], steps)).detach()
            spikes = spikes + (v - v.detach()) * slope  # adds 0; carries the straight-through gradient
        charge = charge + x.to(dtype) * (2 * (steps - clock) - 1)
        full = charge * (windows[0] / (2 * steps))
        bias = self._bias(x.shape, dtype)
        full = full if bias is None else full + bias
        last = clock == steps - 1
        return spikes, (
            torch.where(last, full, v),
            torch.where(last, 0.0, charge),
            torch.where(last, 0.0, clock + 1),
            *rest,
        )

    def advance(self, x: Tensor, states: States, firing: Firing) -> tuple[Tensor, States]:
        spikes, states = self.step(x, states, firing)
        return spikes.to(x.dtype), states

    def sequence(self, x_seq: Tensor, states: States, firing: Firing, record: bool = False) -> tuple[Any, ...]:
        """Whole windows in the layer's own clock; with ``record`` also the potential behind each window's spikes.

        Raises:
            ValueError: the length is no positive multiple of ``steps``, or the states stop inside a window.
        """
        if x_seq.dim() == 0 or x_seq.shape[0] == 0 or x_seq.shape[0] % self.steps:
            raise ValueError(
                f"x_seq has shape {tuple(x_seq.shape)}; its length must be a positive multiple of steps={self.steps}"
            )
        _, charge, clock, *rest = states
        if not torch.compiler.is_compiling() and clock.device.type == "cpu" and not holds(clock == 0):
            raise ValueError(f"states stop at step {int(clock.max())} of a window; reset them before a sequence")
        dtype = state_dtype(x_seq.dtype)
        bias = self._bias(x_seq.shape[1:], dtype)
        spikes, potentials = ttfs(x_seq, bias, self._windows(dtype), self.steps)
        new = (potentials[-1], torch.zeros_like(charge), torch.zeros_like(clock), *rest)
        self.refuse_nonfinite(new, x_seq.shape[0])
        if not record:
            return spikes, new
        return spikes, new, potentials.repeat_interleave(self.steps, 0)

    def extra_repr(self) -> str:
        if self.window.is_meta:
            return f"steps={self.steps}"
        first = self.window if self.input_window is None else self.input_window
        return f"steps={self.steps}, window={self.window.item():g}, input_window={first.item():g}"


def _duration(name: str, value: float | Tensor) -> Tensor:
    if not math.isfinite(float(value)) or float(value) <= 0:
        raise ValueError(f"{name} is {value!r}; a window must last a positive, finite time, in the unit of activations")
    return torch.tensor(float(value), dtype=torch.float64)
