"""How the tensors of one call lie in memory, for the providers that work on data pointers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["Layout"]


class Layout:
    """A call's tensors with the neurons in three dimensions, ``[*, N, C, L]``, in memory order.

    Dimensions are merged and split such that the bias is one number, or varies along C or along L alone (``bias_c`` or
    ``bias_l`` is 1). Channels-last input is walked as it lies, and the results follow its layout.

    Args:
        x: the sequence ``[W * steps, N, C, *]`` that is read through its strides: the input, or the spikes' gradient.
    """

    def __init__(self, x: Tensor, bias: Tensor | None, steps: int) -> None:
        self.given = x.shape
        x = x.reshape(*x.shape, *[1] * (3 - x.dim()))
        inner = [s for s, size in zip(x.stride()[3:], x.shape[3:], strict=True) if size > 1]
        self.channels_last = x.shape[2] > 1 and bool(inner) and 0 < x.stride(2) < min(inner)
        x = x.movedim(2, -1) if self.channels_last else x
        length, n, *rest = self.ordered = x.shape
        every, outer, last = n * math.prod(rest), rest[0], math.prod(rest[1:])
        if self.channels_last:
            outer, last = math.prod(rest[:-1]), rest[-1]

        self.bias_shape = self.bias_ordered = None if bias is None else bias.shape
        if bias is not None:
            bias = bias.reshape(bias.shape[1:] + (1,) * (len(rest) - bias.dim() + 1))
            bias = bias.movedim(0, -1) if self.channels_last else bias
            self.bias_ordered = bias.shape
        self.bias_c = self.bias_l = 0
        channel = -1 if self.channels_last else 0
        if bias is None or bias.numel() == 1:
            shapes = [(1, 1, every), (n, 1, outer * last), (n, outer, last)]
        elif bias.numel() == bias.shape[channel] == rest[channel]:
            if self.channels_last or last == 1:
                shapes, self.bias_l = [(1, every // max(1, bias.numel()), bias.numel()), (n, outer, last)], 1
                shapes = shapes[: 1 + self.channels_last]
            else:
                shapes, self.bias_c = [(n, outer, last)], 1
        else:
            bias = bias.expand(rest)
            shapes, self.bias_l, self.bias_ordered = [(1, n, outer * last)], 1, bias.shape
        self.bias = None if bias is None else bias.reshape(-1)
        self.columns = 1 if bias is None else self.bias.numel()
        self.x = _view(x, [(length, *shape) for shape in shapes])
        self.W, (self.N, self.C, self.L) = length // steps, self.x.shape[1:]

    def potentials(self, p: Tensor) -> Tensor:
        """``[W, N, C, *]`` -> ``[W, N', C', L']``, contiguous."""
        p = p.reshape(self.W, self.given[1] if len(self.given) > 1 else 1, *self._original()[2:])
        p = p.movedim(2, -1) if self.channels_last else p
        return p.reshape(self.W, self.N, self.C, self.L).contiguous()

    def _original(self) -> tuple[int, ...]:
        return (*self.given, *[1] * (3 - len(self.given)))

    def empty(self, lead: int, dtype: torch.dtype) -> Tensor:
        """Uninitialised ``[lead, N', C', L']``."""
        return torch.empty((lead, self.N, self.C, self.L), dtype=dtype, device=self.x.device)

    def shaped(self, result: Tensor) -> Tensor:
        """A tensor from :meth:`empty`, back in the caller's shape."""
        result = result.reshape(result.shape[0], *self.ordered[1:])
        result = result.movedim(-1, 2) if self.channels_last else result
        return result if len(self.given) >= 3 else result.reshape(result.shape[0], *self.given[1:])

    def bias_gradient(self, sums: Tensor) -> Tensor:
        """The gradient of the bias, from those of its ``columns`` numbers."""
        sums = sums.reshape(self.bias_ordered)
        sums = sums.movedim(-1, 0) if self.channels_last else sums
        missing = sums.dim() + 1 - len(self.bias_shape)
        shape = (*self.bias_shape[1:], *[1] * missing)
        return sums.sum_to_size(shape).reshape(self.bias_shape)


def _view(x: Tensor, shapes: list[tuple[int, ...]]) -> Tensor:
    """x in the first of ``shapes`` that needs no copy, else a copy in the first."""
    for shape in shapes:
        try:
            return x.view(shape)
        except RuntimeError:
            continue
    return x.reshape(shapes[0])
