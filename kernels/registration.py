"""Registering an operator and its derivative with torch.

``torch.library.custom_op`` would do, but its Python wrapper walks the schema at every call, quadratically in the number
of arguments: for the soma-dendrite op, with its 26, that took longer than the whole of a small layer. The same
registrations made on a ``Library`` (implementation, fake, autograd) go through the dispatcher alone. For that they need
two names of torch that are not public; a torch without them gets the ``custom_op``.
"""

from __future__ import annotations

import functools
import threading
import typing
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .providers import acting_for

__all__ = ["define", "results", "schema"]

NAMESPACE = "snn_dendrite"
_library = torch.library.Library(NAMESPACE, "DEF")
_TYPES = {
    Tensor: "Tensor", Tensor | None: "Tensor?", int: "int", float: "float", bool: "bool", str: "str"
}  # fmt: skip


def schema(*kinds: type, prefix: str = "") -> str:
    """The fields of NamedTuples and dataclasses as arguments in torch's schema language, by their annotations."""
    fields = [field for kind in kinds for field in typing.get_type_hints(kind).items()]
    return ", ".join(f"{_TYPES[annotation]} {prefix}{name}" for name, annotation in fields)


def results(kind: Any) -> str:
    """The fields of a NamedTuple as an op's results: tensors all; an empty one stands for None."""
    return "(" + ", ".join(["Tensor"] * len(kind._fields)) + ")"


def _shortcut() -> tuple[Any, Any] | None:
    """A guard to run below autograd, and the dispatch keys left there; None where torch does not have them."""
    guard = getattr(torch._C, "_AutoDispatchBelowAutograd", None)
    keys = getattr(torch._C, "_after_autograd_keyset", None)
    return None if guard is None or keys is None or not hasattr(torch._ops.OpOverload, "redispatch") else (guard, keys)


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
        setup_context, backward: as of ``torch.autograd.Function``; without them the op has no derivative. Backward
            keeps to the provider that the thread of the forward pass has chosen, see ``use_provider``.
    """
    implementation = _without_views(implementation)
    derivative = None
    if setup_context is not None and backward is not None:
        derivative = _on_behalf_of_the_caller(setup_context, backward)
    shortcut = _shortcut()
    if shortcut is None:
        custom = torch.library.custom_op(f"{NAMESPACE}::{name}", implementation, mutates_args=(), schema=schema)
        custom.register_fake(fake)
        if derivative is not None:
            custom.register_autograd(derivative[1], setup_context=derivative[0])
    else:
        _library.define(name + schema)
        _library.impl(name, implementation, "CompositeExplicitAutograd")
        torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=_library)
    op = getattr(getattr(torch.ops, NAMESPACE), name).default
    if shortcut is not None and derivative is not None:
        _library.impl(name, _autograd_kernel(op, *shortcut, *derivative), "Autograd", with_keyset=True)
    return op


def _without_views(implementation: Callable[..., Any]) -> Callable[..., Any]:
    """The same results as tensors of their own, on the same memory.

    A result that is a view of what the implementation allocated could not be modified in place: autograd forbids that
    for views that an operator with several results returns.
    """

    def own(result: Tensor) -> Tensor:
        return result.new_empty(0).set_(result) if result._is_view() else result

    @functools.wraps(implementation)
    def run(*arguments):
        found = implementation(*arguments)
        return own(found) if isinstance(found, Tensor) else tuple(own(result) for result in found)

    return run


def _on_behalf_of_the_caller(setup_context: Callable[..., None], backward: Callable[..., Any]) -> tuple[Any, Any]:
    """Both, so that a backward pass on a thread of autograd's own acts for the thread of its forward pass."""

    def remember(ctx, inputs, output):
        ctx.thread = threading.get_ident()
        setup_context(ctx, inputs, output)

    def run(ctx, *gradients):
        if ctx.thread == threading.get_ident():
            return backward(ctx, *gradients)
        with acting_for(ctx.thread):
            return backward(ctx, *gradients)

    return remember, run


def _autograd_kernel(op: Any, guard: Any, below: Any, setup_context: Any, derivative: Any) -> Callable[..., Any]:
    def below_autograd(keys, arguments):
        with guard():
            return op.redispatch(keys & below, *arguments)

    class Node(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *arguments):
            *arguments, keys = arguments  # last, so that needs_input_grad counts the op's own
            out = below_autograd(keys, arguments)
            setup_context(ctx, arguments, out)
            return out

        @staticmethod
        def backward(ctx, *gradients):
            return *derivative(ctx, *gradients), None

    def autograd(keys, *arguments):
        if torch.is_grad_enabled() and any(isinstance(a, Tensor) and a.requires_grad for a in arguments):
            return Node.apply(*arguments, keys)
        return below_autograd(keys, arguments)

    return autograd
