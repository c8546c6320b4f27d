"""Synaptic layers that emit one channel per branch, and the batch norm between them and a dendrite.

Channel ``c * B + b`` of their output is the input of branch b of neuron c, as `fold` wiring has it; the sum over the
branches is what the layer they replace computes. Parameters keep their names, and but for ``expand`` their shapes and
identity, so that checkpoints and optimizers of the point network go on working.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["BranchedBatchNorm", "ExpandedWeights", "PartitionedConv", "PartitionedLinear", "expanded", "partitioned"]

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class PartitionedLinear(nn.Module):
    """A linear layer of which branch b sees group b of the inputs.

    Shapes: input ``[*, C_in]``, output ``[*, C_out * B]``. The weights are those of ``layer``, ``[C_out, C_in]``, and
    the multiply-adds as many; its bias is shared out evenly.

    Raises:
        ValueError: ``branches`` does not divide the layer's inputs.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(6, 2)
        >>> y = PartitionedLinear(layer, branches=3)(x := torch.rand(4, 6))
        >>> y.shape, torch.allclose(y.unflatten(-1, (2, 3)).sum(-1), layer(x), atol=1e-6)
        (torch.Size([4, 6]), True)
    """

    _version = 1

    def __init__(self, layer: nn.Linear, branches: int) -> None:
        super().__init__()
        _check_groups(layer.in_features, branches, "input features")
        self.branches, self.in_features, self.out_features = branches, layer.in_features, layer.out_features * branches
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.unflatten(1, (self.branches, -1))  # [C_out, B, C_in / B]
        y = torch.einsum("...bi,obi->...ob", x.unflatten(-1, (self.branches, -1)), weight)
        if self.bias is not None:
            y = y + (self.bias / self.branches).to(y.dtype).unsqueeze(1)  # autocast: y may be half
        return y.flatten(-2)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, branches={self.branches}, bias={self.bias is not None}"


class PartitionedConv(nn.Module):
    """A convolution (1d, 2d, 3d) of which branch b sees group b of the input channels.

    Shapes: input ``[N, C_in, *]`` or ``[T, N, C_in, *]``, output ``[.., C_out * B, *]``. The weights are those of
    ``layer``, and the multiply-adds as many; its bias is shared out evenly. In a grouped convolution the channels of
    each of its groups are split.

    Raises:
        ValueError: ``branches`` does not divide the channels that one output sees.

    Example:
        >>> import torch
        >>> layer = torch.nn.Conv2d(4, 2, 3)
        >>> y = PartitionedConv(layer, branches=2)(x := torch.rand(1, 4, 5, 5))
        >>> y.shape, torch.allclose(y.unflatten(1, (2, 2)).sum(2), layer(x), atol=1e-6)
        (torch.Size([1, 4, 3, 3]), True)
    """

    _version = 1

    def __init__(self, layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, branches: int) -> None:
        super().__init__()
        _check_groups(layer.in_channels // layer.groups, branches, "input channels per output")
        self.branches, self.groups, self.dims = branches, layer.groups, layer.weight.dim() - 2
        self.in_channels, self.out_channels = layer.in_channels, layer.out_channels * branches
        self.kernel_size, self.stride, self.dilation = layer.kernel_size, layer.stride, layer.dilation
        self.padding, self.padding_mode = layer.padding, layer.padding_mode
        self._pad = list(layer._reversed_padding_repeated_twice) if layer.padding_mode != "zeros" else None
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        lead = x.shape[: -self.dims - 1]
        x = x.reshape(-1, *x.shape[-self.dims - 1 :])  # [T * N, C_in, *]
        g, b = self.groups, self.branches
        # A grouped convolution whose groups are the branches: its outputs come branch by branch.
        weight = self.weight.unflatten(0, (g, -1)).unflatten(2, (b, -1)).transpose(1, 2).flatten(0, 2)
        bias = None if self.bias is None else (self.bias / b).view(g, 1, -1).expand(g, b, -1).reshape(-1)
        padding: Any = self.padding
        if self._pad is not None:
            x, padding = F.pad(x, self._pad, mode=self.padding_mode), 0
        y = _CONV[self.dims](x, weight, bias, self.stride, padding, self.dilation, g * b)
        y = y.unflatten(1, (g, b, -1)).transpose(2, 3).flatten(1, 3)
        return y.reshape(*lead, *y.shape[1:])

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, branches={self.branches}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, groups={self.groups}, bias={self.bias is not None}"
        )


class BranchedBatchNorm(nn.Module):
    """The batch norm of a layer whose output is spread over branches: statistics of the sum, applied to each branch.

    Shapes: ``[N, C * B, *]`` or ``[T, N, C * B, *]``, input and output. Summed over the branches it is ``norm`` of the
    sum over the branches, in training as in evaluation mode (equal up to rounding), with the same parameters and
    buffers.

    Args:
        norm: the ``BatchNorm1d``, ``2d`` or ``3d`` it replaces.
        branches: B.
        sequence: whether a three-dimensional input of ``BatchNorm1d`` is ``[T, N, C * B]``, not ``[N, C * B, L]``.

    Example:
        >>> import torch
        >>> norm = torch.nn.BatchNorm1d(2).eval()
        >>> y = BranchedBatchNorm(norm, branches=3)(x := torch.rand(4, 6))
        >>> torch.allclose(y.unflatten(1, (2, 3)).sum(2), norm(x.unflatten(1, (2, 3)).sum(2)))
        True
    """

    _version = 2  # that of torch's own batch norm, whose checkpoints it reads
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm, branches: int, sequence: bool = False) -> None:
        super().__init__()
        self.branches, self.sequence, self.num_features = branches, sequence, norm.num_features
        self.dims = 3 if isinstance(norm, nn.BatchNorm3d) else 2 if isinstance(norm, nn.BatchNorm2d) else 1
        self.eps, self.momentum, self.track_running_stats = norm.eps, norm.momentum, norm.track_running_stats
        self.weight, self.bias = norm.weight, norm.bias
        for key in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(key, getattr(norm, key))
        self.train(norm.training)

    def _axis(self, x: Tensor) -> int:
        if self.dims > 1 or x.dim() != 3:
            return x.dim() - self.dims - 1 if self.dims > 1 else 1 + (x.dim() == 4)
        likely, other = (2, 1) if self.sequence else (1, 2)  # the step mode may have changed since
        return other if x.shape[likely] != self.num_features * self.branches == x.shape[other] else likely

    def forward(self, x: Tensor) -> Tensor:
        axis = self._axis(x)
        if x.shape[axis] != self.num_features * self.branches:
            raise ValueError(
                f"input has shape {tuple(x.shape)}; axis {axis} must hold {self.num_features} channels times "
                f"{self.branches} branches"
            )
        branches = x.unflatten(axis, (self.num_features, self.branches))
        if self.training or self.running_mean is None or self.running_var is None:
            total = branches.sum(axis + 1)
            if total.dtype in (torch.float16, torch.bfloat16):
                total = total.float()
            count = total.numel() // self.num_features
            if self.training and count == 1:
                raise ValueError(f"batch norm in training needs more than 1 value per channel, got {tuple(x.shape)}")
            reduced = [dim for dim in range(total.dim()) if dim != axis]
            var, mean = torch.var_mean(total, dim=reduced, correction=0)
            if self.training and self.running_mean is not None:
                self._track(mean.detach(), var.detach() * (count / max(1, count - 1)))
        else:
            mean, var = self.running_mean, self.running_var
        scale = torch.rsqrt(var + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        shift = -mean * scale
        if self.bias is not None:
            shift = shift + self.bias
        shape = (-1, 1, *[1] * (x.dim() - axis - 1))
        y = branches * scale.view(shape) + (shift / self.branches).view(shape)
        return y.flatten(axis, axis + 1).to(x.dtype)

    def _track(self, mean: Tensor, var: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            rate = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), rate)
            self.running_var.lerp_(var.to(self.running_var.dtype), rate)

    def extra_repr(self) -> str:
        return f"{self.num_features}, branches={self.branches}, eps={self.eps}, momentum={self.momentum}"


class ExpandedWeights:
    """``load_state_dict`` pre-hook of a widened layer: weights of the one it replaced are shared out over branches."""

    in_checkpoints = True

    def __init__(self, branches: int) -> None:
        self.branches = branches

    def __call__(self, module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
        for key, own in module._parameters.items():
            value = state_dict.get(prefix + key)
            if own is None or not isinstance(value, Tensor) or value.dim() == 0:
                continue
            if (value.shape[0] * self.branches, *value.shape[1:]) == tuple(own.shape):
                state_dict[prefix + key] = _share_out(value, self.branches)


def _share_out(value: Tensor, branches: int) -> Tensor:
    return value.repeat_interleave(branches, 0) / branches


def _check_groups(count: int, branches: int, what: str) -> None:
    if count % branches:
        raise ValueError(f"{count} {what} cannot be split evenly over {branches} branches")


def partitioned(layer: Any, branches: int) -> nn.Module:
    """``layer``, a linear one or a convolution, split so that each branch sees its group of the inputs.

    Raises:
        ValueError: the inputs cannot be split evenly.
    """
    new = PartitionedLinear(layer, branches) if isinstance(layer, nn.Linear) else PartitionedConv(layer, branches)
    return new.train(layer.training)


def expanded(layer: nn.Module, branches: int) -> nn.Module:
    """A copy of ``layer``, of the same class, with B output channels for each, every one with 1/B of its weights."""
    new = copy.copy(layer)
    new._parameters = {
        key: None if value is None else nn.Parameter(_share_out(value.detach(), branches), value.requires_grad)
        for key, value in layer._parameters.items()
    }
    for table in ("_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks", "_load_state_dict_pre_hooks"):
        setattr(new, table, copy.copy(getattr(layer, table)))
    size = "out_features" if isinstance(layer, nn.Linear) else "out_channels"
    setattr(new, size, getattr(layer, size) * branches)
    new.register_load_state_dict_pre_hook(ExpandedWeights(branches))
    return new
