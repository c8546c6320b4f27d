"""Time-coded layers: spike times in, spike times out, exactly the ReLU network (Stanojevic et al. 2024).

A layer integrates the spikes of the layer before during that layer's window and fires in its own, the next one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .times import SpikeTimes, TTFSFire, as_spikes

__all__ = ["TTFSConv1d", "TTFSConv2d", "TTFSLinear", "TTFSScale"]

PARAMETRIZATIONS = ("B1", "general", "alpha1")


class Synapse(nn.Module):
    """Weights, and what the potential is at the end of the input's window; fires, or returns the potential."""

    bias: nn.Parameter | None

    def __init__(
        self,
        shape: tuple[int, ...],
        bias: bool,
        fire: bool | TTFSFire,
        parametrization: str,
        slope: float,
        alpha: float,
    ) -> None:
        super().__init__()
        if parametrization not in PARAMETRIZATIONS:
            raise ValueError(f"parametrization is {parametrization!r}; it must be one of {', '.join(PARAMETRIZATIONS)}")
        for name, value in (("slope", slope), ("alpha", alpha)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value!r}; a potential must rise at threshold: positive and finite")
        self.parametrization, self.slope, self.alpha = parametrization, float(slope), float(alpha)
        self.weight_bits: int | None = None
        self.weight = nn.Parameter(torch.empty(shape))
        self.register_parameter("bias", nn.Parameter(torch.zeros(shape[0])) if bias else None)
        self.fire = TTFSFire() if fire is True else fire or None
        start = torch.empty(shape)
        if self.fire is None:
            nn.init.xavier_uniform_(start)
        else:
            nn.init.kaiming_uniform_(start, nonlinearity="relu")
        if parametrization == "alpha1":  # the map below needs rows that sum to less than 1
            total = start.flatten(1).sum(1)
            excess = (total - 0.9).clamp(min=0) / start[0].numel()
            start = start - excess.reshape(-1, *[1] * (start.dim() - 1))
        self.set_weight(start)

    @torch.no_grad()
    def set_weight(self, weight: Tensor) -> None:
        """Set the synaptic strengths so that the layer has the ReLU layer's ``weight`` W.

        B1: J = W. general: J = B W with B = ``slope``. alpha1: J = alpha W / (1 - sum_k W_k) per row.

        Raises:
            ValueError: with alpha1, a row that sums to 1 or more: no positive slope at threshold has it.
        """
        if self.parametrization == "general":
            weight = weight * self.slope
        elif self.parametrization == "alpha1":
            rest = 1 - weight.flatten(1).sum(1)
            if bool((rest <= 0).any()):
                rows = (rest <= 0).nonzero().flatten().tolist()
                raise ValueError(f"weight rows {rows[:5]} sum to 1 or more, which alpha1 cannot express; scale them")
            weight = self.alpha * weight / rest.reshape(-1, *[1] * (weight.dim() - 1))
        self.weight.copy_(weight)

    def effective_weight(self) -> Tensor:
        """W of the ReLU network that the layer equals, from the synaptic strengths ``weight``."""
        weight: Tensor = self.weight
        if self.parametrization == "general":
            weight = weight / self.slope
        elif self.parametrization == "alpha1":
            total = self.alpha + weight.flatten(1).sum(1)
            weight = weight / total.reshape(-1, *[1] * (weight.dim() - 1))
        if self.weight_bits is not None:
            largest = weight.detach().abs().amax().clamp(min=torch.finfo(weight.dtype).tiny)
            grid = 2 * largest / (2**self.weight_bits - 1)
            weight = weight + ((torch.round((weight + largest) / grid) * grid - largest) - weight).detach()
        return weight

    def _charge(self, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        raise NotImplementedError

    def forward(self, spikes: SpikeTimes) -> SpikeTimes | Tensor:
        """:class:`SpikeTimes` of the neurons, or with ``fire=False`` their potentials ``[N, C, *]``."""
        values = as_spikes(self, spikes).values
        bias = self.bias
        if bias is None or bias.dim() == 1:
            potential = self._charge(values, self.effective_weight(), bias)
        else:  # a bias per position: constants that zero padding cuts off at the border
            potential = self._charge(values, self.effective_weight(), None)
            if potential.shape[1:] != bias.shape:
                raise ValueError(
                    f"input gives potentials {tuple(potential.shape[1:])}, but the layer was converted for images that "
                    f"give {tuple(bias.shape)}; convert again with an example of the new size"
                )
            potential = potential + bias
        return potential if self.fire is None else self.fire(potential)

    def extra_repr(self) -> str:
        kind = "" if self.parametrization == "B1" else f", {self.parametrization}"
        return f"{tuple(self.weight.shape)}{kind}" + ("" if self.fire is not None else ", fire=False")


_SHARED_ARGUMENTS = """
        bias: learned, starts at 0; it lowers the threshold.
        fire: True, or a :class:`TTFSFire` with its window; False returns potentials (readout, or residual addition).
        parametrization: ``B1`` (slope 1 at threshold: trains like the ReLU network), ``general`` (slope B = ``slope``:
            gradients are 1/B of those) or ``alpha1`` (slope alpha + sum of weights: another metric, to compare).
        slope, alpha: B, and alpha.
"""


class TTFSLinear(Synapse):
    """Fully connected layer of TTFS neurons.

        Shapes: :class:`SpikeTimes` ``[N, in_features]`` -> ``[N, out_features]``.

        Args:
            in_features, out_features: sizes.
    %s
        Raises:
            ValueError: an argument out of its range; the message names it. TypeError: an input that is no SpikeTimes.

        Source: Stanojevic et al. 2024, Nat. Commun. 15:6793; also for the other layers.

        Example::

            >>> import torch
            >>> from snn_dendrite_plugin.layers import TTFSEncode
            >>> net = torch.nn.Sequential(TTFSEncode(), TTFSLinear(6, 8), TTFSLinear(8, 3, fire=False))
            >>> net(torch.rand(5, 6)).shape
            torch.Size([5, 3])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        fire: bool | TTFSFire = True,
        parametrization: str = "B1",
        slope: float = 1.0,
        alpha: float = 1.0,
    ) -> None:
        super().__init__((out_features, in_features), bias, fire, parametrization, slope, alpha)

    def _charge(self, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(values, weight, bias)


class _Conv(Synapse):
    dims: int

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: int | str | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool = True,
        fire: bool | TTFSFire = True,
        parametrization: str = "B1",
        slope: float = 1.0,
        alpha: float = 1.0,
    ) -> None:
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups is {groups}; it must divide in_channels={in_channels} and out_channels={out_channels}"
            )
        kernel = (kernel_size,) * self.dims if isinstance(kernel_size, int) else tuple(kernel_size)
        super().__init__((out_channels, in_channels // groups, *kernel), bias, fire, parametrization, slope, alpha)
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups

    def _charge(self, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        conv = F.conv1d if self.dims == 1 else F.conv2d
        return conv(values, weight, bias, self.stride, self.padding, self.dilation, self.groups)


class TTFSConv2d(_Conv):
    """Convolution of TTFS neurons, as ``torch.nn.Conv2d``; padding is silence.

        Shapes: :class:`SpikeTimes` ``[N, C, H, W]`` -> ``[N, C', H', W']``.

        Args:
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups: those of ``torch.nn.Conv2d``.
    %s
        Raises:
            ValueError: an argument out of its range; the message names it. TypeError: an input that is no SpikeTimes.

        Example::

            >>> import torch
            >>> from snn_dendrite_plugin.layers import TTFSEncode
            >>> net = torch.nn.Sequential(TTFSEncode(), TTFSConv2d(1, 4, 3, padding=1))
            >>> net(torch.rand(2, 1, 8, 8)).times.shape
            torch.Size([2, 4, 8, 8])
    """

    dims = 2


class TTFSConv1d(_Conv):
    """Convolution of TTFS neurons over one dimension, as ``torch.nn.Conv1d``; otherwise as :class:`TTFSConv2d`.

    Example::

        >>> import torch
        >>> from snn_dendrite_plugin.layers import TTFSEncode
        >>> net = torch.nn.Sequential(TTFSEncode(), TTFSConv1d(1, 4, 3, stride=2))
        >>> net(torch.rand(2, 1, 9)).times.shape
        torch.Size([2, 4, 4])
    """

    dims = 1


class TTFSScale(nn.Module):
    """One synapse per neuron, ``V = weight_c x_c + bias_c``: passes a stream on, e.g. to a residual addition.

    Shapes: :class:`SpikeTimes` ``[N, C, *]`` -> potentials ``[N, C, *]``; ``weight`` ``[C]``; ``bias`` ``[C]``,
    ``[C, *]`` or None.

    Example::

        >>> import torch
        >>> from snn_dendrite_plugin.layers import TTFSEncode
        >>> TTFSScale(torch.tensor([2.0]))(TTFSEncode()(torch.tensor([[0.25]]))).item()
        0.5
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias: nn.Parameter | None
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach().clone()))

    def forward(self, spikes: SpikeTimes) -> Tensor:
        values = as_spikes(self, spikes).values
        potential = values * per_channel(self.weight, values)
        return potential if self.bias is None else potential + per_channel(self.bias, values)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}"


def per_channel(value: Tensor, like: Tensor) -> Tensor:
    """``[C]`` or ``[C, *]`` -> broadcastable against ``[N, C, *]``."""
    return value.reshape(*value.shape, *[1] * (like.dim() - 1 - value.dim()))


for _layer in (TTFSLinear, TTFSConv2d):
    _layer.__doc__ = (_layer.__doc__ or "") % _SHARED_ARGUMENTS.strip("\n")
