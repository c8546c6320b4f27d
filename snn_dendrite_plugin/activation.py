"""Shows the registered neuron models in every host framework that is, or gets, imported.

``import snn_dendrite_plugin`` calls :func:`activate`. From then on the import of a host's trigger module installs the
models there, whichever comes first; a host that is never imported costs nothing.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import sys
import threading
import warnings
from types import ModuleType
from typing import Any

import wrapt

from . import plugins
from .guard import Guarded

__all__ = ["activate", "deactivate"]

_lock = threading.RLock()  # guards the names below; never held while a module is imported
_active = False
_waiting: set[str] = set()  # triggers whose post-import hook has not fired yet
_attached: dict[str, Any] = {}  # adapter name -> adapter that has installed models


def activate() -> None:
    """Show the registered models in every host, at once where it is imported and upon its import elsewhere.

    May be called any number of times. A model or adapter that cannot be installed costs a
    :class:`~snn_dendrite_plugin.plugins.PluginWarning`, never the import of the host.

    Example:
        >>> import snn_dendrite_plugin as sdp
        >>> sdp.activate()  # import already did
        >>> from snntorch import Dendritic
    """
    global _active
    with _lock:
        _active = True
    _watch_triggers()


def deactivate() -> None:
    """Take the models out of every host again; hosts imported later stay as they are until :func:`activate`.

    Modules built from the classes go on working.

    Example:
        >>> import snntorch
        >>> import snn_dendrite_plugin as sdp
        >>> sdp.deactivate()
        >>> hasattr(snntorch, "Dendritic")
        False
        >>> sdp.activate()
    """
    global _active
    with _lock:
        _active = False
    _detach()


def _watch_triggers() -> None:
    for trigger in sorted({spec.trigger for spec in plugins.adapters().values()}):
        if trigger in sys.modules:
            _install_in(_complete(trigger))
            continue
        with _lock:
            if trigger in _waiting:
                continue
            _waiting.add(trigger)
        # wrapt's hooks fire once and cannot be taken back, so the hook itself asks whether it is still wanted.
        wrapt.register_post_import_hook(functools.partial(_on_import, trigger), trigger)


def _complete(trigger: str) -> ModuleType | None:
    """The trigger module, waited for where another thread is still importing it; None where that import failed."""
    try:
        return importlib.import_module(trigger)
    except Exception:
        return None


def _on_import(trigger: str, module: ModuleType) -> None:
    with _lock:
        _waiting.discard(trigger)
        wanted = _active
    if wanted:
        _install_in(module)


def _install_in(module: ModuleType | None) -> None:
    if module is None:
        return
    for spec in plugins.adapters().values():
        if spec.trigger != module.__name__:
            continue
        with _guarded(f"loading the adapter {spec.name!r}", spec) as work:
            adapter = spec.load()
        if work.exception is not None:
            _warn(f"adapter {spec.name!r} cannot be loaded for {_version(spec.host, module)}", work)
            continue
        with _lock:
            _attached[spec.name] = adapter
        host = functools.partial(_version, spec.host, module)
        show_layer = getattr(adapter, "install_layer", None)  # an adapter need not show layers
        items: list[tuple[Any, Any, str]] = [
            (model, adapter.install, "installed") for model in plugins.models().values()
        ]
        if show_layer is not None:
            items += [(layer, show_layer, "installed_layers") for layer in plugins.layers().values()]
        for item, install, shown in items:
            with _guarded(f"installing the {_named(item)} in {spec.host}", item) as work:
                install(item)
            if work.exception is not None:
                _warn(f"adapter {spec.name!r} cannot install {_named(item)} in {host()}", work)
                continue
            installed = getattr(adapter, shown, item.names_in(spec.host))  # an adapter need not tell
            refused = [name for name in item.names_in(spec.host) if name not in installed]
            if refused and shown == "installed":
                refused = [name for name in refused if hasattr(module, name)]
            if refused:
                taken = ", ".join(refused)
                _warn(f"{_named(item)} is not shown in {host()}, which has a {taken} of its own: choose another name")
    if not _active:  # deactivated by another thread meanwhile
        _detach()


def _detach() -> None:
    with _lock:
        attached = dict(_attached)
        _attached.clear()
    for name, adapter in attached.items():
        with _guarded(f"uninstalling the adapter {name!r}") as work:
            adapter.uninstall()
        if work.exception is not None:
            _warn(f"adapter {name!r} cannot be uninstalled", work)


def _plugins_changed(removed: bool) -> None:
    """Bring active hosts up to date with the registry, after a plugin came or went at run time."""
    if not _active:
        return
    if removed:  # adapters take back all or nothing
        _detach()
    _watch_triggers()


def _version(host: str, module: ModuleType) -> str:
    try:
        return f"{host} {importlib.metadata.version(host)}"
    except importlib.metadata.PackageNotFoundError:
        package = sys.modules.get(module.__name__.partition(".")[0])
        return f"{host} {getattr(package, '__version__', '(version unknown)')}"


def _named(item: plugins.ModelSpec | plugins.LayerSpec) -> str:
    own = item.distribution in (None, plugins.DISTRIBUTION)
    return f"{item.kind} {item.name!r}" + ("" if own else f" of {item.distribution}")


def _guarded(what: str, spec: Any = None) -> Guarded:
    """A block in which the code of an adapter or a model runs, which may be a stranger's."""
    target = getattr(spec, "target", None)
    watch = isinstance(target, str) and not target.startswith(f"{__package__}.")
    return Guarded(what, watch=watch)


def _warn(message: str, work: Guarded | None = None) -> None:
    text = message if work is None else f"{message}: {work.error}"
    warnings.warn(text, plugins.PluginWarning, stacklevel=3)


plugins.on_change(_plugins_changed)
