"""The dtype in which a neuron's state and parameters are kept."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["DoubleBuffers", "state_dtype"]


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64 input, float32 for every other."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class DoubleBuffers(nn.Module):
    """A module some of whose buffers stay float64 when it changes dtype: ``half()`` and ``float()`` only move them.

    So a network that was converted in one dtype computes the same in another. Put it first among the bases.

    Attributes:
        in_double: names of these buffers; one may be None.
    """

    in_double: Collection[str] = ()

    def _apply(self, fn: Callable[[Tensor], Tensor], *arguments: Any) -> Any:
        # `arguments` because hosts' modules may take the function alone
        kept = {name: value for name in self.in_double if (value := self._buffers.get(name)) is not None}
        super()._apply(fn, *arguments)
        for name, value in kept.items():  # what lies on "meta" has no value to keep
            moved: Any = self._buffers[name]
            self._buffers[name] = moved.double() if value.is_meta else value.to(moved.device)
        return self
