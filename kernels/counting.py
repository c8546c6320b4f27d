"""The operations of one call of any of our operators, by the operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .operations import Operation
from .soma_dendrite import op as _soma_dendrite  # noqa: F401  (defines the operators)
from .soma_dendrite import operations as soma_dendrite
from .ttfs import op as _ttfs  # noqa: F401
from .ttfs import operations as ttfs

__all__ = ["OPERATORS", "arguments_of", "of_call"]

_ours = torch.ops.snn_dendrite
OPERATORS: dict[Any, Callable[[dict[str, Any]], list[Operation]]] = {
    _ours.soma_dendrite.default: soma_dendrite.count_forward,
    _ours.soma_dendrite_backward.default: soma_dendrite.count_backward,
    _ours.ttfs.default: ttfs.count_forward,
    _ours.ttfs_backward.default: ttfs.count_backward,
}


def arguments_of(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> dict[str, Any]:
    """A call's arguments by the names of the operator's schema."""
    names = [argument.name for argument in op._schema.arguments]
    return dict(zip(names, args, strict=False)) | (kwargs or {})


def of_call(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> list[Operation] | None:
    """The operations of one call; None where ``op`` is not one of ours.

    Example:
        >>> import torch
        >>> from snn_dendrite_plugin.kernels.counting import of_call
        >>> from snn_dendrite_plugin.kernels.operations import total
        >>> op = torch.ops.snn_dendrite.ttfs.default
        >>> total(of_call(op, (torch.zeros(4, 1, 3), None, torch.ones(2), 4))).multiply_accumulates
        12
    """
    count = OPERATORS.get(op)
    return None if count is None else count(arguments_of(op, args, kwargs))
