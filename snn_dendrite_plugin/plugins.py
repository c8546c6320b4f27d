"""The registry: who offers which models, adapters, providers, conversions, layers and commands.

Plugins come from the entry-point group ``snn_dendrite_plugin`` and from :func:`register_plugin`. The environment
variable ``SNN_DENDRITE_PLUGINS`` selects among the entry points: unset, all of them; a comma-separated list, only those
named; empty, none at all, the built-in one included.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distributions
from typing import Any

import pluggy

from . import hookspecs
from .kernels import providers as kernel_providers
from .registered import FIRST, KINDS, PluginWarning, Record, Registered, warn
from .specs import AdapterSpec, CommandSpec, ConversionSpec, LayerSpec, ModelSpec, ProviderSpec, check_op

__all__ = [
    "AdapterSpec",
    "CommandSpec",
    "ConversionSpec",
    "LayerSpec",
    "ModelSpec",
    "PluginInfo",
    "PluginWarning",
    "ProviderSpec",
    "adapters",
    "commands",
    "conversions",
    "get_manager",
    "installed_plugins",
    "layers",
    "models",
    "on_change",
    "providers",
    "register_plugin",
    "unregister_plugin",
]

_BUILTIN = "snn_dendrite_plugin.builtin"
DISTRIBUTION = "snn-dendrite-plugin"  # ours
_SELECTION = "SNN_DENDRITE_PLUGINS"
_lock = threading.RLock()


@dataclass(frozen=True)
class PluginInfo:
    """What is known of one plugin: where it comes from, which hooks it implements, and what went wrong, if anything.

    ``seconds`` is how long its import and its hooks took.
    """

    name: str
    distribution: str | None
    version: str | None
    hooks: tuple[str, ...]
    error: str | None
    seconds: float = 0.0


def _entry_points() -> list[tuple[Distribution, EntryPoint]]:
    """Our entry points, the built-in plugin first. Parses the few files that name the group: parsing all is slow."""
    found: dict[tuple[str, str], tuple[Distribution, EntryPoint]] = {}
    for distribution in distributions():
        try:
            text = distribution.read_text("entry_points.txt")
            if not text or hookspecs.PROJECT not in text:
                continue
            for entry in distribution.entry_points.select(group=hookspecs.PROJECT):
                # A distribution seen twice on the path counts once; its name would tell, but is slow to read.
                found.setdefault((entry.name, entry.value), (distribution, entry))
        except Exception as error:
            warn(f"entry points of {distribution.name} cannot be read: {type(error).__name__}: {error}")
    return sorted(found.values(), key=lambda item: item[1].value != _BUILTIN)


class _Manager(pluggy.PluginManager):
    """pluggy's manager, with guarded loading, and listeners told when plugins come or go at run time."""

    def __init__(self) -> None:
        super().__init__(hookspecs.PROJECT)
        self.add_hookspecs(hookspecs)
        self.records: dict[str, Record] = {}
        self.unfinished: list[tuple[str, EntryPoint]] = []
        self.listeners: list[Callable[[bool], None]] = []
        self.specs = Registered()

    def register(self, plugin: object, name: str | None = None) -> str | None:
        """Register ``plugin``; its models appear in the hosts already active. Raises ``ValueError`` for no hook."""
        if type(plugin).__hash__ is None:  # pluggy finds out only later, half registered
            raise TypeError(f"plugin is a {type(plugin).__name__}, which cannot be hashed; use a module or an object")
        try:
            registered = super().register(plugin, name)
        except pluggy.PluginValidationError:  # a hook with wrong arguments
            if self.is_registered(plugin):  # older pluggy leaves it half registered
                super().unregister(plugin)
            raise
        if registered is None:
            return None
        hooks = self.get_hookcallers(plugin) or []
        unknown = [hook.name for hook in hooks if not hook.has_spec()]
        if unknown or not hooks:
            super().unregister(plugin)
            known = ", ".join(sorted(name for name in vars(hookspecs) if name.startswith("snn_dendrite_")))
            found = f"implements the unknown hook {unknown[0]!r}" if unknown else "implements no hook"
            raise ValueError(f"plugin {registered!r} {found}; mark functions named {known} with hookimpl")
        self.records.setdefault(registered, Record(registered))
        self._changed(removed=False)
        return registered

    def unregister(self, plugin: object | None = None, name: str | None = None) -> Any:
        """Unregister a plugin, by itself or by name; its models leave the hosts."""
        name = name if name is not None else self.get_name(plugin)
        removed = super().unregister(plugin, name)
        self.records.pop(str(name), None)
        self._changed(removed=True)
        return removed

    def _changed(self, removed: bool) -> None:
        self.specs = Registered()
        for listener in self.listeners:
            listener(removed)

    def load_entry_points(self) -> None:
        """Load the selected entry points; a broken one costs a warning."""
        found = _entry_points()
        selection = os.environ.get(_SELECTION)
        selected = None if selection is None else {name.strip() for name in selection.split(",") if name.strip()}
        missing = sorted((selected or set()) - {entry.name for _, entry in found})
        if missing:
            names = ", ".join(sorted({entry.name for _, entry in found})) or "none"
            warn(f"{_SELECTION} names {', '.join(missing)}, which is not installed; installed plugins: {names}")
        for distribution, entry in found:
            name = entry.name if entry.name not in self.records else f"{entry.name} ({distribution.name})"
            record = self.records[name] = Record(name, distribution)
            record.trusted = entry.value == _BUILTIN
            others = ",".join(dict.fromkeys(other.name for _, other in found if other.name != entry.name))
            record.hint = f"{_SELECTION}={others} leaves it out"
            if selected is not None and entry.name not in selected:
                record.error = f"not selected by {_SELECTION}"
            else:
                self._load_entry_point(name, entry)

    def _load_entry_point(self, name: str, entry: EntryPoint) -> None:
        record = self.records[name]
        module = sys.modules.get(entry.module)
        if getattr(getattr(module, "__spec__", None), "_initializing", False):
            # The plugin's own module is what imports us, and has no hooks yet: take it up at the next look.
            self.unfinished.append((name, entry))
            return
        with record.guarded("loading") as work:
            self.register(entry.load(), name)
        record.done(work)
        if work.error is not None:
            record.error = work.error
            warn(f"plugin {record} is not used: loading it raised {record.error} (after {work.seconds:.2f} s)")

    def retry_unfinished(self) -> None:
        waiting, self.unfinished = self.unfinished, []
        for name, entry in waiting:
            self._load_entry_point(name, entry)

    def collect(self, kind: str) -> Registered:
        """Ask the plugins, each in its turn and guarded, for their ``kind`` of items, unless that is done already."""
        with _lock:
            specs = self.specs
            hook = f"snn_dendrite_register_{kind}"
            if hook not in specs.collected:
                specs.collected.add(hook)
                if kind in FIRST:
                    self.collect(FIRST[kind])
                plugins = [(name, plugin) for name, plugin in self.list_name_plugin() if plugin is not None]
                for name, plugin in plugins:
                    caller = self.subset_hook_caller(hook, [other for _, other in plugins if other is not plugin])
                    record = self.records[name]
                    with record.guarded(f"calling {hook} of") as work:
                        caller(register=functools.partial(specs.add, kind, record))
                    record.done(work)
                    if work.error is not None:
                        record.error = f"{hook} raised {work.error}"
                        warn(f"plugin {record} is used only in part: {record.error} (after {work.seconds:.2f} s)")
        return specs


_manager: _Manager | None = None
_listeners: list[Callable[[bool], None]] = []


def on_change(listener: Callable[[bool], None]) -> None:
    """Have ``listener(removed)`` called whenever a plugin comes or goes at run time."""
    _listeners.append(listener)


def get_manager() -> pluggy.PluginManager:
    """The project's :class:`pluggy.PluginManager`, built and loaded at the first call."""
    return _get_manager()


def _get_manager() -> _Manager:
    global _manager
    with _lock:
        if _manager is None:
            manager = _Manager()
            _manager = manager  # before loading, so that a plugin that asks while it loads finds this one
            manager.load_entry_points()
            manager.listeners = _listeners
        manager = _manager
    if manager.unfinished:
        manager.retry_unfinished()
    return manager


def models() -> dict[str, ModelSpec]:
    """The registered neuron models, by name, the built-in ones first.

    Example:
        >>> from snn_dendrite_plugin import plugins
        >>> plugins.models()["DendSN"].name_in("snntorch")
        'Dendritic'
    """
    return _collected("models")


def adapters() -> dict[str, AdapterSpec]:
    """The registered host adapters, by name."""
    return _collected("adapters")


def layers() -> dict[str, LayerSpec]:
    """The registered synaptic layers, by name."""
    return _collected("layers")


def conversions() -> dict[str, ConversionSpec]:
    """What networks can be converted to beside neuron models, by name.

    Example:
        >>> from snn_dendrite_plugin import plugins
        >>> list(plugins.conversions())
        ['TTFS']
    """
    return _collected("conversions")


def commands() -> dict[str, CommandSpec]:
    """The commands of ``snn-dendrite``, by name."""
    return _collected("commands")


def _collected(kind: str) -> dict[Any, Any]:
    return dict(_get_manager().collect(kind).found[kind])


def providers(op: str) -> list[ProviderSpec]:
    """The registered providers of ``op`` (``"soma_dendrite"`` or ``"ttfs"``), highest priority first.

    Example:
        >>> from snn_dendrite_plugin import plugins
        >>> [provider.name for provider in plugins.providers("ttfs")]
        ['triton', 'cupy', 'cpu', 'torch']
    """
    check_op(op)
    found = [spec for spec in _collected("providers").values() if spec.op == op]
    return sorted(found, key=lambda spec: -spec.priority)


def installed_plugins() -> list[PluginInfo]:
    """Every plugin known: those in use, those that failed, and those that ``SNN_DENDRITE_PLUGINS`` leaves out."""
    manager = _get_manager()
    for kind in KINDS:  # so that errors inside hooks are known
        manager.collect(kind)
    found = []
    for name, record in manager.records.items():
        hooks = manager.get_hookcallers(manager.get_plugin(name)) if manager.has_plugin(name) else None
        distribution = record.distribution
        found.append(
            PluginInfo(
                name=name,
                distribution=distribution.name if distribution else None,
                version=distribution.version if distribution else None,
                hooks=tuple(sorted(hook.name for hook in hooks or ())),
                error=record.error,
                seconds=record.seconds,
            )
        )
    return found


def register_plugin(plugin: object, name: str | None = None) -> str:
    """Register a plugin at run time; its models appear at once in the hosts already active.

    Args:
        plugin: a module, class or object with functions marked by ``hookimpl``.
        name: the plugin's name; the object's ``__name__`` by default.

    Returns:
        The name it is registered under.

    Raises:
        ValueError: the plugin implements no hook, or is registered already.
    """
    return str(_get_manager().register(plugin, name))


def unregister_plugin(plugin: object) -> None:
    """Unregister a plugin given to :func:`register_plugin`; its models leave the hosts.

    Raises:
        ValueError: the plugin is not registered.
    """
    manager = _get_manager()
    if not manager.is_registered(plugin):
        raise ValueError(f"plugin {plugin!r} is not registered")
    manager.unregister(plugin)


# The kernels do not know the registry: it hands its providers down, and says when they may have changed.
kernel_providers.choose_from(providers)
on_change(lambda removed: kernel_providers.forget())
