"""The hooks through which models, adapters, kernel providers, conversions, layers and commands enter.

A plugin is a module (or any object) with functions marked by :data:`hookimpl`, announced in the entry-point group
``snn_dendrite_plugin``::

    [project.entry-points.snn_dendrite_plugin]
    my_neurons = "my_package.plugin"

All that is built in comes in through these same hooks (see ``snn_dendrite_plugin/builtin.py``).
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
    warning names both. ``snn-dendrite convert`` lets checkpoints contain registered classes, with whatever arguments a
    hostile one gives: a constructor must not run, read or write what it is told.

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
    ``installed``, a mapping of added names to classes. One that has ``install_layer(spec)`` too is asked to show the
    registered layers. Conversion and ``snn-dendrite run`` ask it for more: derive from
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


@hookspec
def snn_dendrite_register_conversions(register: Callable[..., None]) -> None:
    """Register what ``snn_dendrite_plugin.convert(model, to=...)`` converts to, beside the neuron models.

    Args:
        register: call as ``register(name=..., target=..., summary="")``, the fields of
            :class:`~snn_dendrite_plugin.plugins.ConversionSpec`. ``name`` is what the user passes as ``to``; the name
            of a neuron model is free only to the plugin that registers this model.

    ``target`` names a function ``convert_it(model, **arguments) -> (converted, report)``. Of ``convert``'s own
    arguments (``include``, ``exclude``, ``example_input``, ``start``, ``dry_run``, ``wiring``, ``calibration``) it gets
    those that its signature names, and a user who gives another is told so; further arguments reach it as they are.
    ``report`` is a :class:`~snn_dendrite_plugin.conversion.report.Report`. A function that changes ``model`` in place
    takes ``dry_run`` and leaves the model alone when it is true; ``snn_dendrite_plugin.revert`` takes back what it
    exchanged through :class:`~snn_dendrite_plugin.conversion.surgery.Swap` and marked with
    :class:`~snn_dendrite_plugin.conversion.undo.Replaced`.

    Example:
        >>> from snn_dendrite_plugin import hookimpl
        >>> @hookimpl
        ... def snn_dendrite_register_conversions(register):
        ...     register(name="NSP", target="my_package.pruning:convert_synapses", summary="pruned synapses")
    """


@hookspec
def snn_dendrite_register_layers(register: Callable[..., None]) -> None:
    """Register synaptic layers, each of which is shown in every host in the host's own form.

    Args:
        register: call as ``register(name=..., target=..., summary="", host_names={})``, the fields of
            :class:`~snn_dendrite_plugin.plugins.LayerSpec`. ``target`` names a ``torch.nn.Module`` class that keeps no
            state and takes one time step ``[N, C, *]``. SpikingJelly's ``layer`` shows it with a ``step_mode``, in
            ``"m"`` for sequences ``[T, N, C, *]``; in ``snntorch``, whose users' layers are torch's own, it is the
            class itself.

    Names that are taken, and checkpoints, are treated as those of models are.

    Example:
        >>> from snn_dendrite_plugin import hookimpl
        >>> @hookimpl
        ... def snn_dendrite_register_layers(register):
        ...     register(name="SignedLinear", target="my_package.layers:SignedLinear", summary="Dale's law")
    """


@hookspec
def snn_dendrite_register_commands(register: Callable[..., None]) -> None:
    """Register commands of ``snn-dendrite``.

    Args:
        register: call as ``register(name=..., target=..., summary="", context_settings={})``, the fields of
            :class:`~snn_dendrite_plugin.plugins.CommandSpec`. ``target`` names a function with typer's annotations; it
            is imported when the command runs, and ``snn-dendrite --help`` shows the ``summary``.

    A command that cannot be imported ends with an error that names its plugin; all others go on working.

    Example:
        >>> from snn_dendrite_plugin import hookimpl
        >>> @hookimpl
        ... def snn_dendrite_register_commands(register):
        ...     register(name="prune", target="my_package.pruning:command", summary="Prune a checkpoint.")
    """
