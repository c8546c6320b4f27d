"""Operations of the clock-driven TTFS pair, by the equations of :mod:`.contract`.

Per neuron and window of T steps, forward: T weighted products and T - 1 sums for the charge, one product for its scale,
one sum where there is a bias; one product, a rounding and two comparisons for ``m``; T comparisons to emit. Backward:
one sum, two comparisons and one product for the potential's gradient, T products for the input's.
"""

from __future__ import annotations

from typing import Any

from ..operations import Operation

__all__ = ["backward", "count_backward", "count_forward", "forward"]


def forward(size: int, windows: int, steps: int, bias: bool) -> list[Operation]:
    """Operations of a forward pass; ``size`` neurons (``N C *``), ``windows`` windows of ``steps`` steps."""
    n, t = size * windows, size * windows * steps
    found = [
        Operation("multiplication", t, t, t, weighted=True),
        Operation("addition", t - n, 2 * t, t, states=t, weighted=True),
        Operation("multiplication", n, n, n, states=n),
        Operation("multiplication", n, n, n, states=n),
        Operation("comparison", 3 * n, n, n, states=n),
        Operation("comparison", t, t, t, states=t),
    ]
    return [*found, Operation("addition", n, 2 * n, n, states=n)] if bias else found


def backward(size: int, windows: int, steps: int, bias: bool) -> list[Operation]:
    """Operations of a backward pass."""
    n, t = size * windows, size * windows * steps
    found = [
        Operation("addition", n, 2 * n, n),
        Operation("comparison", 2 * n, n, n),
        Operation("multiplication", n, 2 * n, n),
        Operation("multiplication", t, t, t),
    ]
    return [*found, Operation("addition", n, n, size)] if bias else found


def count_forward(named: dict[str, Any]) -> list[Operation]:
    """Operations of a forward call, from its arguments by name."""
    x, steps = named["x"], named["steps"]
    return forward(x[0].numel(), x.shape[0] // steps, steps, named["bias"] is not None)


def count_backward(named: dict[str, Any]) -> list[Operation]:
    """Operations of a backward call, from its arguments by name."""
    potentials, with_bias = named["potentials"], named["with_bias"] and named["bias"] is not None
    return backward(potentials[0].numel(), potentials.shape[0], named["steps"], with_bias)
