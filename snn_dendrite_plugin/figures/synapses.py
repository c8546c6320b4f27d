"""Synaptic operations of one call of a torch operator, counted exactly.

A synapse that gets a spike adds its weight to a neuron: an accumulate. One that gets a real number multiplies it first:
a multiply-accumulate. Which of the two a layer does is told by the values that it gets, spikes being 0, 1 and -1. A
spike counts once for every synapse that it reaches, so that one at the border of an image, of which fewer windows of a
convolution know, counts less; a real number counts likewise, whether it is 0 or not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["OPERATORS", "count"]

aten = torch.ops.aten
Count = tuple[int, int]  # accumulates, multiply-accumulates


def count(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Count | None:
    """Accumulates and multiply-accumulates of one call; None for an operator that is no product with weights.

    Example:
        >>> import torch
        >>> spikes, weight = torch.tensor([[0.0, 1.0, 1.0]]), torch.rand(3, 4)
        >>> count(torch.ops.aten.mm.default, (spikes, weight), {})
        (8, 0)
        >>> count(torch.ops.aten.mm.default, (spikes + 0.5, weight), {})
        (0, 12)
    """
    rule = OPERATORS.get(op)
    return None if rule is None else rule(*args, **kwargs)


def _spikes(x: Tensor) -> bool:
    return x.dtype == torch.bool or bool(((x == 0) | (x.abs() == 1)).all())


def _product(x: Tensor, y: Tensor) -> Count:
    """``x [.., m, k] @ y [.., k, n]``."""
    left, right = _spikes(x), _spikes(y)
    if left and right:  # attention between spikes: one operation where both are there
        both = (x != 0).to(torch.float64) @ (y != 0).to(torch.float64)
        return int(both.sum()), 0
    if left:
        return int(x.count_nonzero()) * y.shape[-1], 0
    if right:
        return int(y.count_nonzero()) * x.shape[-2], 0
    return 0, x.numel() * y.shape[-1]


def _add_product(_bias: Tensor, x: Tensor, y: Tensor, **_: Any) -> Count:
    return _product(x, y)


def _matrix_vector(x: Tensor, y: Tensor) -> Count:
    return _product(x, y.unsqueeze(-1))


def _convolution(
    x: Tensor, weight: Tensor, _bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool, out_padding: Any,
    groups: int,
) -> Count:  # fmt: skip
    spikes = _spikes(x)
    there = (x != 0) if spikes else torch.ones_like(x, dtype=torch.bool)
    batched = there if there.dim() == weight.dim() else there.unsqueeze(0)
    # Every input of a group reaches the same windows, so that the group's inputs are added up before.
    summed = batched.unflatten(1, (groups, -1)).sum(2).to(torch.float64)
    window = torch.ones(groups, 1, *weight.shape[2:], dtype=torch.float64, device=x.device)
    reached = torch.ops.aten.convolution.default(
        summed, window, None, stride, padding, dilation, transposed, out_padding, groups
    )
    per_group = weight.shape[1] if transposed else weight.shape[0] // groups
    found = int(reached.sum().round()) * per_group
    return (found, 0) if spikes else (0, found)


OPERATORS: dict[Any, Callable[..., Count]] = {
    aten.mm.default: _product,
    aten.bmm.default: _product,
    aten.mv.default: _matrix_vector,
    aten.addmm.default: _add_product,
    aten.baddbmm.default: _add_product,
    aten.convolution.default: _convolution,
}
