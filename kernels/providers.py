"""Which provider runs an op, and why.

Automatic choice takes the registered provider of highest priority that can run the call and says so once in the log
(logger ``snn_dendrite_plugin``). An explicit choice, by :func:`use_provider` or the environment variable
``SNN_DENDRITE_PROVIDER``, either runs or raises.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
from collections.abc import Iterator
from typing import Any

import torch

__all__ = ["ENVIRONMENT_VARIABLE", "ProviderError", "choose", "explain", "forced", "load", "use_provider"]

ENVIRONMENT_VARIABLE = "SNN_DENDRITE_PROVIDER"
log = logging.getLogger("snn_dendrite_plugin")

# A plain module variable, not a context variable: backward runs on autograd's own threads and must see it too.
_forced: list[str] = []
_said: set[tuple[Any, ...]] = set()
_chosen: dict[tuple[Any, ...], Any] = {}  # choices made so far: asking every provider costs more than a small layer


class ProviderError(RuntimeError):
    """An explicitly chosen provider is unknown or cannot run the call."""


@functools.cache
def _resolve(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


@functools.cache
def _failure(target: str) -> str | None:
    """Why a target cannot be loaded, or None. Kept, as trying a failed import again would slow down every call."""
    try:
        _resolve(target)
    except (Exception, SystemExit) as error:  # an absent or broken package must not cost the run
        return f"cannot be loaded: {type(error).__name__}: {error}"
    return None


def load(spec: Any) -> Any:
    """The provider object of a ``ProviderSpec``; loading one that is absent raises what its import raises."""
    return _resolve(spec.target) if isinstance(spec.target, str) else spec.target


def _specs(op: str) -> list[Any]:
    from ..plugins import providers

    return sorted(providers(op), key=lambda spec: -spec.priority)


def forced() -> str | None:
    """The explicitly chosen provider's name: of the innermost :func:`use_provider`, else of the environment."""
    return _forced[-1] if _forced else os.environ.get(ENVIRONMENT_VARIABLE) or None


@contextlib.contextmanager
def use_provider(name: str) -> Iterator[None]:
    """Force the provider ``name`` ("torch", "cpu", "triton", "cupy", or a registered one) inside a ``with`` block.

    Holds for forward and backward passes that run inside the block, on every thread.

    Raises:
        ProviderError: no such provider is registered; or, at the call, it cannot run the call.

    Example::

        >>> import torch, snn_dendrite_plugin as sdp
        >>> from snn_dendrite_plugin.neurons.lnm import LNM
        >>> model = LNM(degree=3)
        >>> with sdp.use_provider("torch"):
        ...     spikes, states = model.run(torch.rand(4, 2, 8))
        >>> spikes.shape
        torch.Size([4, 2, 8])
    """
    known = {spec.name for op in ("soma_dendrite", "ttfs") for spec in _specs(op)}
    if name not in known:
        raise ProviderError(f"provider is {name!r}; registered providers are {', '.join(sorted(known))}")
    _forced.append(name)
    try:
        yield
    finally:
        _forced.pop()


def _try(spec: Any, device: torch.device, dtype: torch.dtype, settings: Any) -> tuple[Any | None, str | None]:
    failure = _failure(spec.target) if isinstance(spec.target, str) else None
    if failure is not None:
        return None, failure
    provider = load(spec)
    return provider, provider.why_not(device, dtype, settings)


def choose(op: str, device: torch.device, dtype: torch.dtype, settings: Any) -> Any:
    """The provider for one call.

    Raises:
        ProviderError: the explicitly chosen provider is unknown or cannot run the call.
    """
    name = forced()
    key = (op, device, dtype, settings, name)
    provider = _chosen.get(key)
    if provider is None:
        provider = _chosen[key] = _choose(op, device, dtype, settings, name)
    return provider


def _choose(op: str, device: torch.device, dtype: torch.dtype, settings: Any, name: str | None) -> Any:
    if not _chosen:
        _watch_plugins()
    specs = _specs(op)
    if name is not None:
        spec = next((spec for spec in specs if spec.name == name), None)
        if spec is None:
            raise ProviderError(f"provider {name!r} is not registered for {op}: {', '.join(s.name for s in specs)} are")
        provider, reason = _try(spec, device, dtype, settings)
        if reason is not None:
            raise ProviderError(f"provider {name!r} was chosen explicitly but cannot run {op} on {device}: {reason}")
        return provider
    declined = []
    for spec in specs:
        provider, reason = _try(spec, device, dtype, settings)
        if reason is None and device.type not in getattr(provider, "automatic_devices", (device.type,)):
            reason = f"is not chosen automatically on {device.type}"
        if reason is None:
            key = (op, device.type, spec.name)
            if key not in _said:
                _said.add(key)
                log.info("%s on %s runs on provider %r%s", op, device.type, spec.name, _listing(declined))
            return provider
        declined.append((spec.name, reason))
    raise ProviderError(f"no provider can run {op} on {device}{_listing(declined)}")


@functools.cache
def _watch_plugins() -> None:
    """Choose anew after a plugin came or went."""
    from .. import plugins

    plugins.on_change(lambda removed: _chosen.clear())


def _listing(declined: list[tuple[str, str]]) -> str:
    return " (" + "; ".join(f"{name}: {reason}" for name, reason in declined) + ")" if declined else ""


def explain(op: str, device: torch.device, dtype: torch.dtype, settings: Any) -> list[tuple[str, str | None]]:
    """``(provider name, reason it cannot run or None)`` for every registered provider, best first."""
    return [(spec.name, _try(spec, device, dtype, settings)[1]) for spec in _specs(op)]
