"""What a call of one of our operators costs, in operations: one list per step, from which every count is derived.

An operator is opaque to whoever counts the operations of a program, so each pair says here, in
:func:`..soma_dendrite.operations.forward` and its neighbours, which element-wise operations its equations hold. The
numbers are those of the equations, whichever provider runs them, and do not depend on the values of the data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch

__all__ = ["COUNTED", "Operation", "Total", "arguments_of", "of_call", "register", "total"]

KINDS = ("addition", "multiplication", "comparison", "function")


class Operation(NamedTuple):
    """One element-wise operation of the equations.

    Attributes:
        kind: ``addition`` (or subtraction), ``multiplication`` (or division), ``comparison`` (or a choice by one, a
            rounding), ``function`` (an exponential and the like).
        count: how many are done in the whole call.
        reads, writes: elements that it takes and makes.
        states: of ``reads``, those that are a state of the neuron, or what becomes one.
        weighted: half of a multiply-accumulate of real numbers: the product with a weight, or the sum of such. The leak
            of a point neuron is none.
        reset: part of the reset.
    """

    kind: str
    count: int
    reads: int
    writes: int
    states: int = 0
    weighted: bool = False
    reset: bool = False


class Total(NamedTuple):
    """Sums over a list of operations. An accumulate is an addition that is not half of a multiply-accumulate."""

    additions: int
    multiplications: int
    comparisons: int
    functions: int
    multiply_accumulates: int
    accumulates: int

    @property
    def operations(self) -> int:
        """All of them, each counted once (a function as one)."""
        return self.additions + self.multiplications + self.comparisons + self.functions


def total(operations: Iterable[Operation]) -> Total:
    """Sums by kind."""
    sums = dict.fromkeys(KINDS, 0)
    products = accumulates = 0
    for operation in operations:
        sums[operation.kind] += operation.count
        products += operation.count * (operation.weighted and operation.kind == "multiplication")
        accumulates += operation.count * (not operation.weighted and operation.kind == "addition")
    return Total(*sums.values(), products, accumulates)


Counter = Callable[[dict[str, Any]], list[Operation]]
COUNTED: dict[Any, Counter] = {}  # operator -> its list of operations, from its named arguments


def register(op: Any, count: Counter) -> None:
    """Say what a call of ``op`` costs; ``count`` gets its arguments by name."""
    COUNTED[op] = count


def arguments_of(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> dict[str, Any]:
    """A call's arguments by the names of the operator's schema."""
    names = [argument.name for argument in op._schema.arguments]
    return dict(zip(names, args, strict=False)) | (kwargs or {})


def of_call(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> list[Operation] | None:
    """The operations of one call; None where ``op`` is not one of ours.

    Example:
        >>> import torch
        >>> from snn_dendrite_plugin.kernels.operations import of_call, total
        >>> from snn_dendrite_plugin.kernels.ttfs.op import ttfs
        >>> op = torch.ops.snn_dendrite.ttfs.default
        >>> total(of_call(op, (torch.zeros(4, 1, 3), None, torch.ones(2), 4))).multiply_accumulates
        12
    """
    if not isinstance(op, torch._ops.OpOverload) or op.namespace != "snn_dendrite":
        return None
    from .soma_dendrite import operations as _soma  # noqa: F401  (registers)
    from .ttfs import operations as _ttfs  # noqa: F401

    count = COUNTED.get(op)
    return None if count is None else count(arguments_of(op, args, kwargs))
