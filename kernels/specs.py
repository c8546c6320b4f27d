"""Where a provider is found: :class:`ProviderSpec`, and the built-in ones. Importing this module loads no framework."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

__all__ = ["BUILTIN", "OPS", "ProviderSpec", "check_name", "check_op", "check_target", "load"]

OPS = ("soma_dendrite", "ttfs")


def check_name(what: str, name: object) -> None:
    """Raise where ``name`` is no Python identifier; ``what`` it names."""
    if not isinstance(name, str):
        raise TypeError(f"{what} must be a string, got {name!r}")
    if not name.isidentifier():
        raise ValueError(f"{what} must be a Python identifier, got {name!r}")


def check_target(target: object) -> None:
    """Raise where ``target`` is neither ``'package.module:Object'`` nor an object."""
    if isinstance(target, str):
        module, _, name = target.partition(":")
        if not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
            raise ValueError(f"target must read 'package.module:Object', got {target!r}")
    elif target is None:
        raise TypeError("target must be 'package.module:Object' or the object itself, got None")


def check_op(op: object) -> None:
    """Raise where ``op`` is none of :data:`OPS`."""
    if op not in OPS:
        raise ValueError(f"op must be one of {', '.join(map(repr, OPS))}, got {op!r}")


def load(target: Any) -> Any:
    """The object that ``"package.module:Object.attribute"`` names, imported; any other object is its own target."""
    if not isinstance(target, str):
        return target
    module, _, names = target.partition(":")
    found: Any = importlib.import_module(module)
    for name in names.split("."):
        found = getattr(found, name)
    return found


@dataclass(frozen=True)
class ProviderSpec:
    """One kernel provider, as ``snn_dendrite_register_providers`` registers it.

    Attributes:
        name: the provider's name, as in ``use_provider("triton")``.
        op: the operation it provides, ``"soma_dendrite"`` or ``"ttfs"``.
        target: ``"package.module:provider"``, imported by :meth:`load` only, or the provider object itself.
        priority: of the providers that can run a call, the one of highest priority does.
        summary: one line for listings.
    """

    name: str
    op: str
    target: Any
    priority: float
    summary: str = ""

    def __post_init__(self) -> None:
        check_name("name", self.name)
        check_op(self.op)
        check_target(self.target)
        if isinstance(self.priority, bool) or not isinstance(self.priority, (int, float)):
            raise TypeError(f"priority must be a number, got {self.priority!r}")

    def load(self) -> Any:
        """Import and return the provider object."""
        return load(self.target)


_OURS = (  # best first; every op has them all
    ("triton", "triton.provider", 30, "Triton kernels"),
    ("cupy", "cupy", 20, "CUDA through CuPy"),
    ("cpu", "cpu", 10, "compiled C++"),
    ("torch", "reference", 0, "the reference"),
)
BUILTIN = tuple(
    ProviderSpec(name, op, f"{__package__}.{op}.{module}:provider", priority, summary)
    for op in OPS
    for name, module, priority, summary in _OURS
)
