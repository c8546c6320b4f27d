"""The dtype in which a neuron's state and parameters are kept."""

from __future__ import annotations

import torch

__all__ = ["state_dtype"]


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64 input, float32 for every other."""
    return torch.float64 if dtype == torch.float64 else torch.float32
