"""What a call of one of our operators costs, in operations: one list per step, from which every count is derived.

An operator is opaque to whoever counts the operations of a program, so each pair says which element-wise operations its
equations hold: :mod:`.soma_dendrite.operations`, :mod:`.ttfs.operations`; :mod:`.counting` finds the right one. The
numbers are those of the equations, whichever provider runs them, and do not depend on the values of the data.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["KINDS", "Operation", "Total", "total"]

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
    count: int  # type: ignore[assignment]  # a tuple's method
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
    return Total(*sums.values(), products, accumulates)  # type: ignore[call-arg]  # as many as KINDS
