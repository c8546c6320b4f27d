"""The hooks through which neuron models, host adapters and kernel providers enter.

A plugin is a module (or any object) with functions marked by :data:`hookimpl`, announced in the entry-point group
``snn_dendrite_plugin``::

    [project.entry-points.snn_dendrite_plugin]
    my_neurons = "my_package.plugin"

The built-in models, adapters and providers come in through these same hooks (see ``snn_dendrite_plugin/builtin.py``).
Each hook is called with ``register``, a callback to be called once per registered item, with keywords only. Name the
target as ``"package.module:Object"`` rather than importing it, and keep the plugin module free of heavy imports: it is
imported together with ``snn_dendrite_plugin``, its targets only when they are needed. A hook that raises, or ends the
program, costs a :class:`~snn_dendrite_plugin.plugins.PluginWarning`; what it had registered before it raised stays. So
does one that takes more than half a second; after five, a line on stderr names the plugin that is at work.
"""

from __future__ import annotations

from collections.abc import Callable

import pluggy

PROJECT = "snn_dendrite_plugin"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def snn_dendrite_register_models(register: Callable[..., None]) -> None:
    """Register neuron models, each of which becomes a native class of every host.

    Args:
        register: call as ``register(name=..., target=..., summary="", host_names={}, sequence_names={})``, the fields
            of :class:`~snn_dendrite_plugin.plugins.ModelSpec`. ``target`` names a subclass of
            :class:`~snn_dendrite_plugin.NeuronModel`; ``host_names`` gives the class another name in some hosts, and
            ``sequence_names`` names a class that takes a whole ``[T, N, C, *]`` sequence at once there.

    A name that is taken stays with the plugin that had it first (the built-in plugin comes before all others), and a
    warning names both.

    Example:
        >>> from snn_dendrite_plugin import hookimpl
        >>> @hookimpl
        ... def snn_dendrite_register_models(register):
        ...     register(name="QIF", target="my_package.qif:QIF", summary="quadratic integrate-and-fire")
    """


@hookspec
def snn_dendrite_register_adapters(register: Callable[..., None]) -> None:
    """Register host adapters, which show every registered model in a host framework.

    Args:
        register: call as ``register(name=..., host=..., trigger=..., target=..., summary="")``, the fields of
            :class:`~snn_dendrite_plugin.plugins.AdapterSpec`. ``trigger`` is the module whose import activates the
            adapter.

    ``target`` names an adapter object with ``install(spec)``, which adds the classes of one
    :class:`~snn_dendrite_plugin.plugins.ModelSpec` to the host, may be called again for the same spec and never
    overwrites a name of the host's own; ``uninstall()``, which removes all that was added and undoes every patch; and
    ``installed``, a mapping of added names to classes. Conversion and ``snn-dendrite run`` ask it for more: derive from
    :class:`~snn_dendrite_plugin.adapters.base.HostAdapter`, which says what.

    Example:
        >>> from snn_dendrite_plugin import hookimpl
        >>> @hookimpl
        ... def snn_dendrite_register_adapters(register):
        ...     register(name="myhost", host="myhost", trigger="myhost.neurons", target="my_package.myhost:adapter")
    """


@hookspec
def snn_dendrite_register_providers(register: Callable[..., None]) -> None:
    """Register kernel providers: implementations of the forward and backward of one operation.

    Args:
        register: call as ``register(name=..., op=..., target=..., priority=..., summary="")``, the fields of
            :class:`~snn_dendrite_plugin.plugins.ProviderSpec`. ``op`` is ``"soma_dendrite"`` or ``"ttfs"``; of the
            providers that can run a call, the one of highest ``priority`` does. The built-in ones stand at 0 (torch),
            10 (cpu), 20 (cupy) and 30 (triton).

    Example:
        >>> from snn_dendrite_plugin import hookimpl
        >>> @hookimpl
        ... def snn_dendrite_register_providers(register):
        ...     register(name="npu", op="soma_dendrite", target="my_package.npu:provider", priority=40)
    """
