"""Registering an operator and its derivative with torch.

``torch.library.custom_op`` would do, but its Python wrapper walks the schema at every call, quadratically in the number
of arguments: for the soma-dendrite op, with its 26, that took longer than the whole of a small layer. The same
registrations made on a ``Library`` (implementation, fake, autograd) go through the dispatcher alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["define"]

NAMESPACE = "snn_dendrite"
_library = torch.library.Library(NAMESPACE, "DEF")


def define(
    name: str,
    schema: str,
    implementation: Callable[..., Any],
    fake: Callable[..., Any],
    setup_context: Callable[[Any, tuple[Any, ...], Any], None] | None = None,
    backward: Callable[..., tuple[Any, ...]] | None = None,
) -> Any:
    """Define ``snn_dendrite::name`` and return its callable overload.

    Args:
        schema: ``(Tensor x, ...) -> ...`` in torch's schema language; no argument is written to.
        implementation: runs on tensors of every real device.
        fake: the same on tensors without data.
        setup_context, backward: as of ``torch.autograd.Function``; without them the op has no derivative.
    """
    _library.define(name + schema)
    _library.impl(name, implementation, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=_library)
    op = getattr(getattr(torch.ops, NAMESPACE), name).default
    if backward is None or setup_context is None:
        return op

    class Node(torch.autograd.Function):
        @staticmethod
        def forward(ctx, keys, *arguments):
            out = _below_autograd(op, keys, arguments)
            setup_context(ctx, arguments, out)
            return out

        @staticmethod
        def backward(ctx, *gradients):
            return None, *backward(ctx, *gradients)

    def autograd(keys, *arguments):
        if torch.is_grad_enabled() and any(isinstance(a, torch.Tensor) and a.requires_grad for a in arguments):
            return Node.apply(keys, *arguments)
        return _below_autograd(op, keys, arguments)

    _library.impl(name, autograd, "Autograd", with_keyset=True)
    return op


def _below_autograd(op: Any, keys: Any, arguments: tuple[Any, ...]) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        return op.redispatch(keys & torch._C._after_autograd_keyset, *arguments)
