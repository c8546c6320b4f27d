"""The dtype in which a neuron's state and parameters are kept."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

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

    def _apply(self, fn, *arguments):  # hosts' modules may take the function alone
        kept = {name: self._buffers[name] for name in self.in_double if self._buffers.get(name) is not None}
        super()._apply(fn, *arguments)
        for name, value in kept.items():  # what lies on "meta" has no value to keep
            moved = self._buffers[name]
            self._buffers[name] = moved.double() if value.is_meta else value.to(moved.device)
        return self
