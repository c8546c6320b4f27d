"""Operations of the soma-dendrite pair, by the equations of :mod:`.contract`.

Per neuron and step, forward (``+`` additions, ``x`` multiplications, ``<`` comparisons; B branches, degree K)::

    gain_b x                 B x*                            where there is a gain
    + offset_b               B +                             where there is an offset
    alpha_b v_b + ..         B x, B + (B +* with a gain)
    f(v_b)                   as in ACTIVATIONS below, B times
    sum_b strength_b f(v_b)  B x*, B - 1 +*
    direct sum_b x_b         fold: B - 1 +;  1 x;  1 +* to join the branches' sum
    P(u) + y, K = 1          3 +, 1 x                        u + (y - (1 - theta_1) (u - rest)), as hosts write the leak
    P(u) + y, K > 1          K + 1 +, 1 x, K - 1 x*          Horner's scheme
        within limits        1 +, 1 x, 2 < more              c = clamp(u), and the line beyond
    h >= threshold           1 +, 1 <
    hard reset               2 +, 2 x                        (1 - s) h + s v_reset
    soft reset               1 +, 1 x                        h - s threshold
    delayed reset            1 +, 1 < for r, then as above;  at_once_retested: 1 + more for s - r
    fire_once                1 +, 1 x, 1 <

Products with a star (and the sums of them) are multiply-accumulates of weights that a point neuron does not
have. The other sums count as accumulates, those of a polynomial too, so that no neuron counts fewer than the point
neuron that it extends.

A ``direct`` of exactly 0 everywhere is no connection and counts as nothing, one of 1 is no multiplication: neither is
learned. Everything else counts whatever its value is: a strength of 0 that is still to be learned is not free, nor is a
theta_3 of 0.

Backward recomputes the forward pass and adds, per neuron and step: the surrogate's derivative (4 operations), the
reset's and the polynomial's derivative, f's derivative (as many operations as f), the chain through alpha, strength,
gain and direct, and one product and one sum for each parameter whose gradient is wanted.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch

from ..operations import Operation
from .contract import Gradients, Inputs, Settings, dimensions

__all__ = ["ACTIVATIONS", "backward", "count_backward", "count_forward", "forward"]

# f(v): additions, multiplications, comparisons, functions
ACTIVATIONS: dict[str, tuple[int, int, int, int]] = {
    "identity": (0, 0, 0, 0),
    "relu": (0, 0, 1, 0),
    "leaky_relu": (0, 1, 1, 0),
    "mexican_hat": (1, 4, 0, 1),  # v v, 1 - v v / s, exp(-v v / 2 s), their product with a constant
    "tanh": (0, 0, 0, 1),
    "sigmoid": (0, 0, 0, 1),
    "elu": (0, 0, 1, 1),
    "softplus": (1, 0, 0, 2),
    "silu": (0, 1, 0, 1),
    "gelu": (1, 2, 0, 1),
}
_UNKNOWN = (0, 0, 0, 1)  # an activation that is added to the table without a row here
_SURROGATE = 4  # operations of a surrogate's derivative; the hosts count a sigmoid as so many


class _Steps:
    """Collects the operations of all steps; sizes are elements of one step."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.found: list[Operation] = []

    def add(self, kind: str, size: int, *reads: int, states: int = 0, writes: int | None = None, **flags: bool) -> None:
        t = self.steps
        made = size if writes is None else writes
        if size:
            self.found.append(Operation(kind, size * t, sum(reads) * t, made * t, states * t, **flags))

    def function(self, name: str, size: int) -> None:
        kinds = ("addition", "multiplication", "comparison", "function")
        for kind, times in zip(kinds, ACTIVATIONS.get(name, _UNKNOWN), strict=True):
            for _ in range(times):
                self.add(kind, size, size, states=size)


def _numel(value: torch.Tensor | None) -> int:
    return 0 if value is None else value.numel()


def _only(value: torch.Tensor, number: float) -> bool:
    """Whether all of ``value`` is this one number; not known, hence no, where there is no data."""
    if value.is_meta or isinstance(value, torch._subclasses.FakeTensor):
        return False
    with torch.no_grad(), torch._C._DisableTorchDispatch():
        return bool((value == number).all())


def forward(inputs: Inputs, settings: Settings) -> list[Operation]:
    """Operations of a forward pass; shapes and symbols as in :mod:`.contract`."""
    t, n, c, space, _ = _sizes(inputs, settings)
    steps = _Steps(t)
    size = n * c * space
    _dendrite(steps, inputs, settings, size)
    _soma(steps, inputs, settings, size)
    return steps.found


def _sizes(inputs: Inputs, settings: Settings) -> tuple[int, int, int, int, int]:
    t, n, c, *_ = dimensions(inputs.x, settings)
    return t, n, c, math.prod(inputs.x.shape[3:]), settings.branches


def _dendrite(steps: _Steps, p: Inputs, settings: Settings, n: int) -> None:
    b = settings.branches
    wide = n * b
    x = wide if settings.wiring == "fold" else n
    if b:
        drive = x
        if p.gain is not None:
            steps.add("multiplication", wide, drive, _numel(p.gain), weighted=True)
            drive = wide
        if p.offset is not None:
            steps.add("addition", wide, drive, _numel(p.offset))
            drive = wide
        steps.add("multiplication", wide, wide, _numel(p.alpha), states=wide)
        steps.add("addition", wide, wide, drive, states=wide, weighted=p.gain is not None)
        steps.function(settings.activation, wide)
        steps.add("multiplication", wide, wide, _numel(p.strength), states=wide, weighted=True)
        steps.add("addition", n * (b - 1), wide, states=wide, writes=n, weighted=True)
    if not _only(p.direct, 0.0):
        if settings.wiring == "fold":
            steps.add("addition", n * (b - 1), wide, writes=n)
        if not _only(p.direct, 1.0):
            steps.add("multiplication", n, n, _numel(p.direct))
        if b:
            steps.add("addition", n, n, n, weighted=True)


def _soma(steps: _Steps, p: Inputs, settings: Settings, n: int) -> None:
    degree = p.theta.shape[1] - 1
    resets = settings.reset != "none"
    delayed = settings.timing != "at_once" and resets
    threshold = _numel(p.threshold)
    if delayed:
        steps.add("addition", n, n, threshold, states=n)
        steps.add("comparison", n, n, states=n)
        if settings.reset == "hard":
            _reset(steps, settings, n, threshold)
    if degree <= 1:
        steps.add("addition", n, n, states=n)  # u - rest
        steps.add("multiplication", n, n, _numel(p.theta), states=n)
        steps.add("addition", n, n, n, states=n)
        steps.add("addition", n, n, n, states=2 * n)
    else:
        for i in range(degree):
            reads = n if i == 0 else 2 * n
            steps.add("multiplication", n, reads, p.theta.shape[0], states=reads, weighted=i > 0)
            steps.add("addition", n, n, p.theta.shape[0], states=n)
        if math.isfinite(settings.clamp_low) or math.isfinite(settings.clamp_high):
            steps.add("comparison", 2 * n, n, states=n, writes=n)
            steps.add("multiplication", n, n, p.theta.shape[0], states=n)
            steps.add("addition", n, n, n, states=2 * n)
        steps.add("addition", n, n, n, states=n)
    if delayed and settings.reset == "soft":
        _reset(steps, settings, n, threshold)
    steps.add("addition", n, n, threshold, states=n)
    steps.add("comparison", n, n, states=n)
    if settings.fire_once:
        steps.add("addition", n, n, states=n)
        steps.add("multiplication", n, n, n)
        steps.add("comparison", n, n, n, states=n)
    if resets and settings.timing != "next_step":
        if delayed:
            steps.add("addition", n, n, n, reset=True)  # s - r
        _reset(steps, settings, n, threshold)


def _reset(steps: _Steps, settings: Settings, n: int, threshold: int) -> None:
    if settings.reset == "hard":
        steps.add("addition", n, n)
        steps.add("multiplication", n, n, n, states=n, reset=True)
        steps.add("multiplication", n, n)
        steps.add("addition", n, n, n, states=n, reset=True)
    else:
        steps.add("multiplication", n, n, threshold)
        steps.add("addition", n, n, n, states=n, reset=True)


def backward(inputs: Inputs, settings: Settings, wanted: tuple[str, ...]) -> list[Operation]:
    """Operations of a backward pass that makes the gradients named in ``wanted``."""
    t, n, c, space, b = _sizes(inputs, settings)
    steps = _Steps(t)
    size = n * c * space
    wide = size * b
    degree = inputs.theta.shape[1] - 1
    steps.found += forward(inputs, settings)
    if settings.reset != "none" and settings.timing != "next_step":
        steps.add("multiplication", size, size, size)  # gu (1 - s), or gu as it is and s threshold
        if not settings.detach:
            steps.add("multiplication", size, size, size)
            steps.add("addition", 2 * size, 2 * size, writes=size)
    steps.add("function", _SURROGATE * size, size, writes=size)
    steps.add("multiplication", size, size, size)
    steps.add("addition", size, size, size)
    for _ in range(degree):  # gh P'(u), P' by Horner's scheme: K - 1 times a product and a sum, and the product with gh
        steps.add("multiplication", size, size, size)
    steps.add("addition", size * max(0, degree - 1), size * max(0, degree - 1))
    if "theta" in wanted:
        for _ in range(degree + 1):
            _gradient(steps, size)
    if "threshold" in wanted:
        _gradient(steps, size, product=False)
    if not _only(inputs.direct, 0.0):
        steps.add("multiplication", size, size, _numel(inputs.direct))
        steps.add("addition", wide if settings.wiring == "fold" else size, size, wide or size)
    if "direct" in wanted:
        _gradient(steps, size)
    if b:
        steps.add("multiplication", wide, size, _numel(inputs.strength))
        steps.function(settings.activation, wide)
        steps.add("multiplication", wide, wide, wide)
        steps.add("addition", wide, wide, wide)
        steps.add("multiplication", wide, wide, _numel(inputs.alpha))
        if inputs.gain is not None:
            steps.add("multiplication", wide, wide, _numel(inputs.gain))
        if settings.wiring == "shared":
            steps.add("addition", size * (b - 1), wide, writes=size)
        for name in ("strength", "alpha", "gain", "offset"):
            if name in wanted and getattr(inputs, name) is not None:
                _gradient(steps, wide, product=name != "offset")
    return steps.found


def _gradient(steps: _Steps, size: int, product: bool = True) -> None:
    if product:
        steps.add("multiplication", size, size, size)
    steps.add("addition", size, size, writes=1)


def _contract(named: dict[str, Any]) -> tuple[Inputs, Settings]:
    fields = (field.name for field in dataclasses.fields(Settings))
    return Inputs(*(named[name] for name in Inputs._fields)), Settings(**{f: named[f] for f in fields if f in named})


def count_forward(named: dict[str, Any]) -> list[Operation]:
    """Operations of a forward call, from its arguments by name."""
    return forward(*_contract(named))


def count_backward(named: dict[str, Any]) -> list[Operation]:
    """Operations of a backward call, from its arguments by name."""
    wanted = tuple(name for i, name in enumerate(Gradients._fields) if named["wanted"] >> i & 1)
    return backward(*_contract(named), wanted)
