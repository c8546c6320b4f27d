"""Which provider runs an op, and why.

Automatic choice takes the provider of highest priority that can run the call and says so once in the log (logger
``snn_dendrite_plugin``). An explicit choice, by :func:`use_provider` or the environment variable
``SNN_DENDRITE_PROVIDER``, either runs or raises. The providers are the built-in ones, until somebody who knows more
hands down a list by :func:`choose_from`, as the plugins' registry does.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .specs import BUILTIN, OPS, ProviderSpec

if TYPE_CHECKING:  # the registry imports this module, and must not load torch
    import torch

    from .contract import Provider

__all__ = [
    "ENVIRONMENT_VARIABLE",
    "ProviderError",
    "acting_for",
    "choose",
    "choose_from",
    "explain",
    "forced",
    "forget",
    "idle_on",
    "say_slow",
    "use_provider",
]

REFERENCE = "torch"  # the provider that runs everything, slowly
ENVIRONMENT_VARIABLE = "SNN_DENDRITE_PROVIDER"
log = logging.getLogger("snn_dendrite_plugin")


class ProviderError(RuntimeError):
    """An explicitly chosen provider is unknown or cannot run the call."""


# -- where providers come from -------------------------------------------------------------------------------------


def _builtin(op: str) -> list[ProviderSpec]:
    return [spec for spec in BUILTIN if spec.op == op]


_specs: Callable[[str], Sequence[ProviderSpec]] = _builtin
_broken: dict[tuple[str, str], str] = {}  # (op, name) -> why it cannot be loaded: a failed import is slow to repeat
_chosen: dict[tuple[Any, ...], Provider] = {}  # asking every provider costs more than a small layer
_said: set[tuple[str, str, str]] = set()


def choose_from(specs: Callable[[str], Sequence[ProviderSpec]] | None) -> None:
    """Take the providers of an op from ``specs(op)``, best first; None: the built-in ones."""
    global _specs
    _specs = specs or _builtin
    forget()


def forget() -> None:
    """Choose anew from now on: a provider came or went."""
    _chosen.clear()
    _broken.clear()


# -- the explicit choice -------------------------------------------------------------------------------------------

# Of every thread inside a `use_provider`, the names from the outermost to the innermost. No context variable and no
# thread-local: autograd runs backward passes on threads of its own, which look up the entry of another (acting_for).
_forced: dict[int, tuple[str, ...]] = {}


def forced() -> str | None:
    """Name of the explicitly chosen provider: by this thread's innermost :func:`use_provider`, else the environment."""
    name = None
    if _forced:
        names = _forced.get(threading.get_ident())
        name = _common() if names is None else names[-1] if names else None
    return name or os.environ.get(ENVIRONMENT_VARIABLE) or None


def _common() -> str | None:
    """For a thread of autograd's, inside the backward pass of a compiled graph, which does not say for whom it runs:
    the choice of all threads that have one, if they agree. None on a thread of Python's, which has its own."""
    if not isinstance(threading.current_thread(), threading._DummyThread):
        return None
    names = {names[-1] for names in list(_forced.values()) if names}
    return names.pop() if len(names) == 1 else None


@contextlib.contextmanager
def _hold(names: tuple[str, ...]) -> Iterator[None]:
    """This thread's explicit choice is the last of ``names``. A thread writes to its own entry alone."""
    thread = threading.get_ident()
    before = _forced.get(thread)
    _forced[thread] = names
    try:
        yield
    finally:
        if before is None:
            _forced.pop(thread, None)
        else:
            _forced[thread] = before


@contextlib.contextmanager
def use_provider(name: str) -> Iterator[None]:
    """Force the provider ``name`` ("torch", "cpu", "triton", "cupy", or a registered one) inside a ``with`` block.

    Holds for this thread's forward passes inside the block, and for the backward passes that run while it is inside, on
    whichever thread autograd runs them. Other threads choose for themselves.

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
    known = {spec.name for op in OPS for spec in _specs(op)}
    if name not in known:
        raise ProviderError(f"provider is {name!r}; registered providers are {', '.join(sorted(known))}")
    with _hold((*_forced.get(threading.get_ident(), ()), name)):
        yield


@contextlib.contextmanager
def acting_for(thread: int) -> Iterator[None]:
    """Inside, this thread has the explicit choice of ``thread``: a backward pass that of its forward pass's thread."""
    with _hold(_forced.get(thread, ())):
        yield


# -- the choice ----------------------------------------------------------------------------------------------------


def _try(spec: ProviderSpec, *call: Any) -> tuple[Provider | None, str | None]:
    """The provider and why it cannot run the call."""
    from .contract import Provider

    failure = _broken.get((spec.op, spec.name))
    if failure is None:
        try:
            provider = spec.load()
            if not isinstance(provider, Provider):
                raise TypeError(f"{provider!r} is no {Provider.__module__}.Provider; derive its class from that")
        except (Exception, SystemExit) as error:  # an absent or broken package must not cost the run
            failure = _broken[spec.op, spec.name] = f"cannot be loaded: {type(error).__name__}: {error}"
        else:
            return provider, provider.why_not(*call)
    return None, failure


def idle_on(provider: Provider, device_type: str) -> bool:
    """Whether ``provider`` runs on devices of this type by explicit choice only."""
    return provider.automatic_devices is not None and device_type not in provider.automatic_devices


def choose(
    op: str, device: torch.device, dtype: torch.dtype, settings: Any, steps: int = 1, degree: int = 1
) -> Provider:
    """The provider for one call; the arguments from ``device`` on are those of ``Provider.why_not``.

    Raises:
        ProviderError: the explicitly chosen provider is unknown or cannot run the call.
    """
    name = forced()
    key = (op, device, dtype, settings, steps, degree, name)
    provider = _chosen.get(key)
    if provider is None:
        provider = _chosen[key] = _choose(op, (device, dtype, settings, steps, degree), name)
    return provider


def _choose(op: str, call: tuple[Any, ...], name: str | None) -> Provider:
    specs, device = _specs(op), call[0]
    if name is not None:
        spec = next((spec for spec in specs if spec.name == name), None)
        if spec is None:
            raise ProviderError(f"provider {name!r} is not registered for {op}: {', '.join(s.name for s in specs)} are")
        provider, reason = _try(spec, *call)
        if provider is None or reason is not None:
            raise ProviderError(f"provider {name!r} was chosen explicitly but cannot run {op} on {device}: {reason}")
        return provider
    declined: list[tuple[str, str | None]] = []
    for spec in specs:
        provider, reason = _try(spec, *call)
        if provider is not None and reason is None:
            if not idle_on(provider, device.type):
                _say(op, device.type, spec.name, declined)
                return provider
            reason = f"is not chosen automatically on {device.type}"
        declined.append((spec.name, reason))
    raise ProviderError(f"no provider can run {op} on {device}{_listing(declined)}")


def _say(op: str, device: str, name: str, declined: list[tuple[str, str | None]]) -> None:
    if (op, device, name) not in _said:
        _said.add((op, device, name))
        log.info("%s on %s runs on provider %r%s", op, device, name, _listing(declined))
        if name == REFERENCE and declined:
            warnings.warn(
                f"{op} on {device} runs on the provider {name!r}, a loop in PyTorch, several times slower than a "
                f"compiled kernel{_listing(declined)}",
                stacklevel=2,
            )


def say_slow(what: str) -> None:
    """One log line for each thing of the user's own that no provider has, and that the reference loop runs."""
    if ("", "", what) not in _said:
        _said.add(("", "", what))
        log.warning("%s is not in the kernels' table: it runs step by step on the reference path, slower", what)


def _listing(declined: list[tuple[str, str | None]]) -> str:
    return " (" + "; ".join(f"{name}: {reason}" for name, reason in declined) + ")" if declined else ""


def explain(
    op: str, device: torch.device, dtype: torch.dtype, settings: Any, steps: int = 1, degree: int = 1
) -> list[tuple[str, str | None]]:
    """``(provider name, reason it cannot run or None)`` for every provider, best first; arguments as of ``choose``."""
    return [(spec.name, _try(spec, device, dtype, settings, steps, degree)[1]) for spec in _specs(op)]
