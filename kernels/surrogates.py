"""Surrogate derivatives: one table for every provider.

A surrogate is a name and up to two numbers. The forward pass is always the Heaviside step; the table holds the
derivative that replaces the step's own in the backward pass, as a function of ``x = h - v_threshold``. The kinds cover
the surrogates of SpikingJelly (``activation_based.surrogate``) and of snnTorch (``snntorch.surrogate``); equal formulas
share a kind. Compiled providers use :attr:`Kind.index`, so the order of the table is part of the kernel interface:
append only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

__all__ = ["KINDS", "Surrogate", "derivative", "spike"]


class Kind(NamedTuple):
    """One row of the table: its index in compiled code, its parameters' names and defaults, its derivative."""

    index: int  # type: ignore[assignment]  # a tuple's method
    parameters: tuple[tuple[str, float], ...]
    derivative: Callable[[Tensor, float, float], Tensor]


def _pick(condition: Tensor, yes: float, no: float, like: Tensor) -> Tensor:
    """``torch.where`` of two numbers, in the dtype of ``like`` (two bare numbers would give float32)."""
    return torch.where(condition, like.new_tensor(yes), like.new_tensor(no))


def _fourier(x: Tensor, n: float, period: float) -> Tensor:
    w = 2 * math.pi / period
    total = torch.zeros_like(x)
    for i in range(1, int(n)):
        total = total + torch.cos((2 * i - 1) * w * x)
    return total * (4 / period)


def _sigmoid(x: Tensor, a: float) -> Tensor:
    s = torch.sigmoid(a * x)
    return a * s * (1 - s)


# name: (parameters with the hosts' defaults, derivative(x, a, b))
_ROWS: list[tuple[str, tuple[tuple[str, float], ...], Callable[[Tensor, float, float], Tensor]]] = [
    ("sigmoid", (("alpha", 4.0),), lambda x, a, b: _sigmoid(x, a)),
    ("atan", (("alpha", 2.0),), lambda x, a, b: (a / 2) / (1 + (math.pi / 2 * a * x) ** 2)),
    ("piecewise_quadratic", (("alpha", 1.0),), lambda x, a, b: torch.where(x.abs() > 1 / a, 0.0, a - a * a * x.abs())),
    ("piecewise_exp", (("alpha", 1.0),), lambda x, a, b: a / 2 * torch.exp(-a * x.abs())),
    ("soft_sign", (("alpha", 2.0),), lambda x, a, b: 1 / (2 * a * (1 / a + x.abs()) ** 2)),
    ("super_spike", (("alpha", 1.0),), lambda x, a, b: a / (1 + x.abs()) ** 2),
    ("erf", (("alpha", 2.0),), lambda x, a, b: a / math.sqrt(math.pi) * torch.exp(-((a * x) ** 2))),
    ("nonzero_sign_log_abs", (("alpha", 1.0),), lambda x, a, b: 1 / (1 / a + x.abs())),
    ("piecewise_leaky_relu", (("w", 1.0), ("c", 0.01)), lambda x, a, b: _pick(x.abs() < a, 1 / (2 * a), b, x)),
    (
        "s2nn",
        (("alpha", 4.0), ("beta", 1.0)),
        lambda x, a, b: torch.where(x < 0, _sigmoid(x, a), b / (x.clamp(min=0) + 1)),
    ),
    ("q_pseudo_spike", (("alpha", 2.0),), lambda x, a, b: (1 + 2 / (a - 1) * x.abs()) ** (-a)),
    ("leaky_k_relu", (("leak", 0.0), ("k", 1.0)), lambda x, a, b: _pick(x >= 0, b, a, x)),
    ("fake_numerical_gradient", (("alpha", 0.3),), lambda x, a, b: (1 / x.abs()).clamp(max=a)),
    ("log_tailed_relu", (("alpha", 0.0),), lambda x, a, b: torch.where(x > 0, 1 / x.clamp(min=1.0), a)),
    ("straight_through", (), lambda x, a, b: torch.ones_like(x)),
    ("rect", (("alpha", 1.0),), lambda x, a, b: _pick(x.abs() < 0.5 / a, a, 0.0, x)),
    ("fast_sigmoid", (("slope", 25.0),), lambda x, a, b: 1 / (1 + a * x.abs()) ** 2),
    ("triangular", (("threshold", 1.0),), lambda x, a, b: _pick(x >= 0, -a, a, x)),
    ("heaviside", (), lambda x, a, b: _pick(x > 0, 1.0, 0.0, x)),
    ("spike_rate_escape", (("beta", 1.0), ("slope", 25.0)), lambda x, a, b: b * torch.exp(-a * (x - 1).abs())),
    (
        "sparse_fast_sigmoid",
        (("slope", 25.0), ("B", 1.0)),
        lambda x, a, b: torch.where(x > b, 1 / (1 + a * x.abs()) ** 2, 0.0),
    ),
    ("squarewave_fourier_series", (("n", 2.0), ("T_period", 8.0)), _fourier),
]

KINDS: dict[str, Kind] = {name: Kind(i, parameters, f) for i, (name, parameters, f) in enumerate(_ROWS)}


@dataclass(frozen=True)
class Surrogate:
    """A surrogate derivative by name, with up to two parameters.

    Args:
        kind: a key of :data:`KINDS`.
        a, b: its parameters in the table's order; ``None`` takes the hosts' default, unused ones are ignored.

    Raises:
        ValueError: unknown kind.

    Example::

        >>> Surrogate("atan").a
        2.0
        >>> derivative(torch.zeros(1), Surrogate("atan", 2.0)).item()
        1.0
    """

    in_checkpoints: ClassVar[bool] = True  # checkpoints may contain it: making one runs nothing

    kind: str = "atan"
    a: float | None = None
    b: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"surrogate kind is {self.kind!r}; known kinds are {', '.join(KINDS)}")
        defaults = [value for _, value in KINDS[self.kind].parameters] + [0.0, 0.0]
        object.__setattr__(self, "a", float(defaults[0] if self.a is None else self.a))
        object.__setattr__(self, "b", float(defaults[1] if self.b is None else self.b))


def derivative(x: Tensor, surrogate: Surrogate) -> Tensor:
    """The surrogate derivative at ``x = h - v_threshold``; same shape and dtype as ``x``."""
    return KINDS[surrogate.kind].derivative(x, surrogate.a, surrogate.b)  # type: ignore[arg-type]  # numbers, once made


class _Spike(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, surrogate: Surrogate, strict: bool) -> Tensor:
        return (x > 0 if strict else x >= 0).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.surrogate = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        return grad * derivative(x, ctx.surrogate), None, None


def spike(x: Tensor, surrogate: Surrogate, strict: bool = False) -> Tensor:
    """Heaviside of ``x`` (``x >= 0``, or ``x > 0`` when ``strict``) with ``surrogate`` as its derivative."""
    return _Spike.apply(x, surrogate, strict)
