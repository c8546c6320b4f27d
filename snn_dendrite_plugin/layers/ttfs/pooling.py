"""Time-coded pooling, flattening and residual addition: what lies between the firing layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .synapses import TTFSScale
from .times import SpikeTimes, TTFSFire, as_spikes

__all__ = [
    "TTFSAdaptiveAvgPool",
    "TTFSAvgPool",
    "TTFSFlatten",
    "TTFSMaxPool",
    "TTFSRelay",
    "TTFSResidual",
]

Size = int | tuple[int, ...]


def spatial(function: str, x: Tensor) -> Any:
    """``F.max_pool2d`` and the like, for the number of spatial dimensions of ``x [N, C, *]``."""
    dims = x.dim() - 2
    if dims not in (1, 2):
        raise ValueError(f"pooling got times of shape {tuple(x.shape)}; it takes [N, C, L] or [N, C, H, W]")
    return getattr(F, f"{function}{dims}d")


def of_values(values: Tensor, window: Tensor) -> SpikeTimes:
    """The spikes that stand for ``values``."""
    times = window - values
    return SpikeTimes(times, window, (times, values))


class TTFSMaxPool(nn.Module):
    """Max pooling of values: the earliest spike of each window wins, at most one spike goes on.

    Shapes: :class:`SpikeTimes` ``[N, C, L]`` or ``[N, C, H, W]`` -> pooled.

    Args:
        kernel_size, stride, padding, dilation, ceil_mode: those of ``torch.nn.MaxPool2d``; padding is never the winner.
        latest: ``[C]``, True for channels where the latest spike wins (silence is latest of all): those that a negative
            factor follows, where the maximum of the scaled values is the minimum of the values.

    Example::

        >>> import torch
        >>> TTFSMaxPool(2)(SpikeTimes(torch.tensor([[[0.5, 0.25, 1.0, 0.75]]]), torch.tensor(1.0))).times.tolist()
        [[[0.25, 0.75]]]
    """

    sign: Tensor | None

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        latest: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.options = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation}
        self.options["ceil_mode"] = ceil_mode
        self.register_buffer("sign", None if latest is None else torch.where(latest, 1.0, -1.0))

    def forward(self, spikes: SpikeTimes) -> SpikeTimes:
        times, window, _ = as_spikes(self, spikes)
        pool = spatial("max_pool", times)
        if self.sign is None:
            return of_values(pool(spikes.values, **self.options), window)
        sign = self.sign.to(times.dtype).reshape(-1, *[1] * (times.dim() - 2))
        return SpikeTimes(sign * pool(sign * times, **self.options), window)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.options.items())


class TTFSAvgPool(nn.Module):
    """Average pooling of values: the mean of the times, which the next layer's synapses see as one time.

    It is linear, has no neurons of its own and emits no spikes: in hardware its factors belong to those synapses.

    Shapes: :class:`SpikeTimes` ``[N, C, L]`` or ``[N, C, H, W]`` -> pooled; or potentials -> pooled potentials.

    Args:
        kernel_size, stride, padding, ceil_mode, count_include_pad: those of ``torch.nn.AvgPool2d``; padding is silence.
        divisor_override: instead of the pool's size; two spatial dimensions only.

    Example::

        >>> import torch
        >>> TTFSAvgPool(2)(SpikeTimes(torch.tensor([[[0.5, 1.0]]]), torch.tensor(1.0))).times.tolist()
        [[[0.75]]]
    """

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        self.options = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}
        self.options["count_include_pad"] = count_include_pad
        if divisor_override is not None:
            self.options["divisor_override"] = divisor_override

    def pool(self, values: Tensor) -> Tensor:
        """The same pooling of values."""
        return spatial("avg_pool", values)(values, **self.options)

    def forward(self, spikes: SpikeTimes) -> SpikeTimes:
        if isinstance(spikes, Tensor):  # potentials: linear all the same
            return self.pool(spikes)
        spikes = as_spikes(self, spikes)
        return of_values(self.pool(spikes.values), spikes.window)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.options.items())


class TTFSAdaptiveAvgPool(TTFSAvgPool):
    """As :class:`TTFSAvgPool`, to a given output size, as ``torch.nn.AdaptiveAvgPool2d``.

    Example::

        >>> import torch
        >>> TTFSAdaptiveAvgPool(1)(SpikeTimes(torch.tensor([[[0.5, 1.0]]]), torch.tensor(1.0))).times.tolist()
        [[[0.75]]]
    """

    def __init__(self, output_size: Any) -> None:
        nn.Module.__init__(self)
        self.options = {"output_size": output_size}

    def pool(self, values: Tensor) -> Tensor:
        return spatial("adaptive_avg_pool", values)(values, **self.options)


class TTFSFlatten(nn.Module):
    """``[N, C, *]`` -> ``[N, C * *]``, spikes or potentials.

    Example::

        >>> import torch
        >>> TTFSFlatten()(SpikeTimes(torch.zeros(2, 3, 4), torch.tensor(1.0))).times.shape
        torch.Size([2, 12])
    """

    def forward(self, spikes: SpikeTimes) -> SpikeTimes:
        if isinstance(spikes, Tensor):
            return spikes.flatten(1)
        times, window, _ = as_spikes(self, spikes)
        flat = times.flatten(1)
        return SpikeTimes(flat, window, None if spikes.ready is None else (flat, spikes.values.flatten(1)))


class TTFSRelay(TTFSFire):
    """One neuron per input spike that sends it on in the next window, unchanged: aligns streams of different depth.

    Its window is its input's. It counts as neurons and spikes of the network.

    Shapes: :class:`SpikeTimes` -> :class:`SpikeTimes` of the same shape.

    Example::

        >>> import torch
        >>> TTFSRelay()(SpikeTimes(torch.tensor([[0.25]]), torch.tensor(1.0))).times.item()
        0.25
    """

    def __init__(self) -> None:
        super().__init__(adaptive=False)

    def forward(self, spikes: SpikeTimes) -> SpikeTimes:  # type: ignore[override]  # what it fires by comes as times
        times, window, _ = as_spikes(self, spikes)
        self.window.copy_(window)
        return self._send(times, window, spikes.values)


class TTFSResidual(nn.Module):
    """Residual block: the potentials of two streams, aligned in one window, add up before the neuron fires.

    Shapes: :class:`SpikeTimes` -> :class:`SpikeTimes`, or potentials with ``fire=False``.

    Args:
        body: SpikeTimes -> potentials; its last layer is made with ``fire=False``.
        shortcut: SpikeTimes -> potentials, one layer with ``fire=False``; None passes the values themselves (J = 1).
        windows: firing layers in ``body``: through how many windows relay neurons carry the shortcut's spikes.
        fire: True, a :class:`TTFSFire`, or False.

    Raises:
        ValueError: at the call, streams whose potentials have different shapes.

    Example::

        >>> import torch
        >>> from snn_dendrite_plugin.layers import TTFSEncode, TTFSLinear
        >>> body = torch.nn.Sequential(TTFSLinear(4, 8), TTFSLinear(8, 4, fire=False))
        >>> TTFSResidual(body)(TTFSEncode()(torch.rand(2, 4))).times.shape
        torch.Size([2, 4])
    """

    def __init__(
        self, body: nn.Module, shortcut: nn.Module | None = None, windows: int = 1, fire: bool | TTFSFire = True
    ) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut
        self.relays = nn.Sequential(*(TTFSRelay() for _ in range(windows)))
        self.fire = TTFSFire() if fire is True else fire or None

    def forward(self, spikes: SpikeTimes) -> SpikeTimes | Tensor:
        relayed = self.relays(as_spikes(self, spikes))
        potential = self.body(spikes)
        other = relayed.values if self.shortcut is None else self.shortcut(relayed)
        for name, value in (("body", potential), ("shortcut", other)):
            if not isinstance(value, Tensor):
                raise TypeError(f"{name} returns {type(value).__name__}; its last layer must be made with fire=False")
        if potential.shape != other.shape:
            raise ValueError(f"body gives {tuple(potential.shape)} but shortcut {tuple(other.shape)}; they must agree")
        potential = potential + other
        return potential if self.fire is None else self.fire(potential)


def is_identity(scale: TTFSScale) -> bool:
    """Whether a one-to-one layer passes its stream on unchanged."""
    return scale.bias is None and bool((scale.weight == 1).all())
