"""Dendritic activations ``f`` and their derivatives: one table for every provider.

``mexican_hat`` is the published one of DendSN (Huang et al., arXiv 2412.06355): ``3 (1 - v^2/s) N(v; 0, s) / s`` with
``s = 0.75 + 1e-5``. It is 1.84 at rest, so with normalised strengths a silent neuron fires at every step.
Compiled providers use :attr:`Activation.index`: append only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["ACTIVATIONS", "LEAKY_SLOPE", "MEXICAN_HAT_VARIANCE", "Function", "function_of", "name_of"]

Function = Callable[[Tensor], Tensor]

LEAKY_SLOPE = 0.01
MEXICAN_HAT_VARIANCE = 0.75 + 1e-5


class Activation(NamedTuple):
    """One row of the table: index in compiled code, value and derivative."""

    index: int  # type: ignore[assignment]  # a tuple's method
    value: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]


def _gauss(v: Tensor) -> Tensor:
    s = MEXICAN_HAT_VARIANCE
    return torch.exp(-v * v / (2 * s)) / math.sqrt(2 * math.pi * s)


def _mexican_hat(v: Tensor) -> Tensor:
    s = MEXICAN_HAT_VARIANCE
    return 3 * (1 - v * v / s) * _gauss(v) / s


def _mexican_hat_derivative(v: Tensor) -> Tensor:
    s = MEXICAN_HAT_VARIANCE
    return 3 * v / (s * s) * (v * v / s - 3) * _gauss(v)


def _one(v: Tensor) -> Tensor:
    return torch.ones_like(v)


_ROWS: list[tuple[str, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = [
    ("identity", lambda v: v, _one),
    ("relu", lambda v: v.clamp(min=0), lambda v: (v > 0).to(v.dtype)),
    (
        "leaky_relu",
        lambda v: torch.where(v > 0, v, LEAKY_SLOPE * v),
        lambda v: torch.where(v > 0, v.new_tensor(1.0), v.new_tensor(LEAKY_SLOPE)),
    ),
    ("mexican_hat", _mexican_hat, _mexican_hat_derivative),
    ("tanh", torch.tanh, lambda v: 1 - torch.tanh(v) ** 2),
    ("sigmoid", torch.sigmoid, lambda v: torch.sigmoid(v) * (1 - torch.sigmoid(v))),
    (
        "elu",
        lambda v: torch.where(v > 0, v, torch.expm1(v)),
        lambda v: torch.where(v > 0, 1.0, torch.exp(v.clamp(max=0))),
    ),
    ("softplus", torch.nn.functional.softplus, torch.sigmoid),
    ("silu", torch.nn.functional.silu, lambda v: torch.sigmoid(v) * (1 + v * (1 - torch.sigmoid(v)))),
    (
        "gelu",
        torch.nn.functional.gelu,
        lambda v: 0.5 * (1 + torch.erf(v / math.sqrt(2))) + v * torch.exp(-v * v / 2) / math.sqrt(2 * math.pi),
    ),
]

ACTIVATIONS: dict[str, Activation] = {name: Activation(i, f, df) for i, (name, f, df) in enumerate(_ROWS)}


def function_of(activation: str | Function) -> Function:
    """The function of a name in the table; a function is its own.

    Example::

        >>> function_of("relu")(torch.tensor([-1.0, 2.0])).tolist()
        [0.0, 2.0]
    """
    return ACTIVATIONS[activation].value if isinstance(activation, str) else activation


def name_of(activation: str | Function) -> str:
    """What to call it in a message."""
    return activation if isinstance(activation, str) else getattr(activation, "__name__", type(activation).__name__)
