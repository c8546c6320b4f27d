"""The same values under other strides."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LAYOUTS = ("contiguous", "channels_last", "sliced", "channels_sliced", "time_inside", "expanded")


def lay_out(x: Tensor, layout: str) -> Tensor:
    """A sequence ``[T, N, C, *]`` in a layout that its dimensions allow, else as it is.

    ``sliced`` takes every second value along the last dimension (``channels_sliced``: along C) of a tensor with NaN
    between; ``expanded`` is one batch entry for all.
    """
    if layout == "channels_last" and x.dim() > 3:
        return x.movedim(2, -1).contiguous().movedim(-1, 2)
    if layout == "time_inside":
        return x.movedim(0, 1).contiguous().movedim(1, 0)
    if layout == "expanded" and x.dim() > 1:
        return x[:, :1].expand_as(x)
    axis = {"sliced": -1, "channels_sliced": 2}.get(layout)
    if axis is not None and x.dim() > 2:
        padded = torch.full_like(x, math.nan).repeat_interleave(2, axis)
        index = [slice(None)] * x.dim()
        index[axis] = slice(1, None, 2)
        padded[tuple(index)] = x
        return padded[tuple(index)]
    return x


def fitted(sizes: list[int], values: int) -> list[int]:
    """``sizes`` halved, the largest first, until their product is at most ``values``, or all are at most 1."""
    sizes = list(sizes)
    while math.prod(sizes) > values and max(sizes) > 1:
        largest = max(range(len(sizes)), key=sizes.__getitem__)
        sizes[largest] = max(1, sizes[largest] // 2)
    return sizes
