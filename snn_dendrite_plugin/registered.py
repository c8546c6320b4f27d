"""What plugins registered: one table per kind of thing, and which plugin has which name."""

from __future__ import annotations

import warnings
from dataclasses import replace
from importlib.metadata import Distribution
from typing import Any

from .guard import Guarded
from .specs import (
    AdapterSpec,
    CommandSpec,
    ConversionSpec,
    LayerSpec,
    ModelSpec,
    ProviderSpec,
    avoids,
    claims,
)

__all__ = ["FIRST", "KINDS", "PluginWarning", "Record", "Registered", "warn"]

# What can be registered: the end of the hook's name -> its fields. Names of models and layers are checked in every
# host, so that adapters come first; those of layers and conversions against the models'.
KINDS: dict[str, type[Any]] = {
    "adapters": AdapterSpec,
    "models": ModelSpec,
    "layers": LayerSpec,
    "providers": ProviderSpec,
    "conversions": ConversionSpec,
    "commands": CommandSpec,
}
FIRST = {"models": "adapters", "layers": "models", "conversions": "models"}


class PluginWarning(UserWarning):
    """A plugin could not be used, or not in full; everything else goes on without it."""


class Record:
    """A plugin's origin, and what went wrong with it, if anything."""

    def __init__(self, name: str, distribution: Distribution | None = None) -> None:
        self.name = name
        self.distribution = distribution
        self.hint = ""  # how to do without it
        self.trusted = False  # the built-in plugin: no need to watch it
        self.error: str | None = None
        self.seconds = 0.0

    def guarded(self, doing: str) -> Guarded:
        """A block in which the plugin's code runs."""
        return Guarded(f"{doing} the plugin {self}", self.hint, watch=not self.trusted)

    def done(self, work: Guarded) -> None:
        """Count the time of such a block, and warn where it was long."""
        self.seconds += work.seconds
        if work.slow and work.error is None:
            warn(work.slow)

    def __str__(self) -> str:
        return f"{self.name!r} of {self.distribution.name}" if self.distribution else f"{self.name!r}"


class Registered:
    """What the plugins registered, by name; the first plugin to use a name has it."""

    def __init__(self) -> None:
        self.found: dict[str, dict[Any, Any]] = {kind: {} for kind in KINDS}
        self.owners: dict[tuple[str, str], Record] = {}  # what is taken -> the plugin that has it
        self.collected: set[str] = set()  # the hooks that have been called

    def add(self, kind: str, record: Record, **fields: Any) -> None:
        """Register one item of a plugin's, if its names are free."""
        spec = KINDS[kind](**fields)
        if record.distribution is not None and hasattr(spec, "distribution"):
            spec = replace(spec, distribution=record.distribution.name)
        hosts = sorted({adapter.host for adapter in self.found["adapters"].values()})
        if self.claim(record, list(claims(spec, hosts)), list(avoids(spec, hosts))):
            self.found[kind][(spec.op, spec.name) if kind == "providers" else spec.name] = spec

    def claim(self, record: Record, keys: list[tuple[str, str]], others: list[tuple[str, str]]) -> bool:
        """Take ``keys`` for a plugin and return True, or warn and return False where another plugin has one.

        ``others`` are names of other things, which may be taken, but by the same plugin.
        """
        for what, key in (*keys, *others):
            owner = self.owners.get((what, key))
            if owner is not None and ((what, key) in keys or owner is not record):
                warn(f"{what} {key!r} is registered by the plugins {owner} and {record}; the one of {owner} is kept")
                return False
        self.owners.update(dict.fromkeys(keys, record))
        return True


def warn(message: str) -> None:
    warnings.warn(message, PluginWarning, stacklevel=3)
