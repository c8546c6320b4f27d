"""What a plugin can offer, field by field: models, adapters, providers, conversions, layers and commands."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from .kernels.specs import OPS, ProviderSpec, check_name, check_op, check_target, load

__all__ = [
    "OPS",
    "AdapterSpec",
    "CommandSpec",
    "ConversionSpec",
    "LayerSpec",
    "ModelSpec",
    "ProviderSpec",
    "avoids",
    "check_op",
    "claims",
]


class _Spec:
    """What all specs share: a target that is loaded when it is needed."""

    name: str
    target: Any

    def load(self) -> Any:
        """Import and return the target; raises ``ImportError`` or ``AttributeError`` where it is not there."""
        return load(self.target)


def _class_target(target: object) -> None:
    check_target(target)
    if not isinstance(target, (str, type)):
        raise TypeError(f"target must be 'package.module:Class' or a class, got {target!r}")


def _function_target(target: object) -> None:
    check_target(target)
    if not isinstance(target, str) and not callable(target):
        raise TypeError(f"target must be 'package.module:function' or a function, got {target!r}")


def _check_host_names(what: str, names: object) -> None:
    if not isinstance(names, Mapping):
        raise TypeError(f"{what} must map hosts to class names, got {names!r}")
    for host, name in names.items():
        check_name(f"{what}[{host!r}]", name)


@dataclass(frozen=True)
class ModelSpec(_Spec):
    """One neuron model on offer, as ``snn_dendrite_register_models`` registers it.

    Attributes:
        name: the model's name, and the name of its class in the hosts unless ``host_names`` says otherwise.
        target: ``"package.module:Class"``, imported by :meth:`load` only, or the class itself.
        summary: one line for listings.
        host_names: host -> name of the class there.
        sequence_names: host -> name of a class that takes a whole ``[T, N, C, *]`` sequence at once there.
        distribution: the installed distribution it came from; filled in by the registry.

    Example:
        >>> target = "snn_dendrite_plugin.neurons.dendsn:DendSN"
        >>> spec = ModelSpec("DendSN", target, host_names={"snntorch": "Dendritic"})
        >>> spec.name_in("snntorch"), spec.name_in("spikingjelly")
        ('Dendritic', 'DendSN')
    """

    kind: ClassVar[str] = "neuron model"  # what a warning calls it

    name: str
    target: str | type
    summary: str = ""
    host_names: Mapping[str, str] = field(default_factory=dict, hash=False)
    sequence_names: Mapping[str, str] = field(default_factory=dict, hash=False)
    distribution: str | None = None

    def __post_init__(self) -> None:
        check_name("name", self.name)
        _class_target(self.target)
        _check_host_names("host_names", self.host_names)
        _check_host_names("sequence_names", self.sequence_names)

    def name_in(self, host: str) -> str:
        """The name of the model's class in ``host``."""
        return self.host_names.get(host, self.name)

    def names_in(self, host: str) -> list[str]:
        """Every name the model takes in ``host``: the class, and the whole-sequence class where there is one."""
        return [self.name_in(host), *([self.sequence_names[host]] if host in self.sequence_names else [])]


@dataclass(frozen=True)
class AdapterSpec(_Spec):
    """One host adapter, as ``snn_dendrite_register_adapters`` registers it.

    Attributes:
        name: the adapter's name.
        host: the host's name, the key of ``ModelSpec.host_names``.
        trigger: the module whose import activates the adapter.
        target: ``"package.module:adapter"``, imported by :meth:`load` only, or the adapter object itself.
        summary: one line for listings.
    """

    kind: ClassVar[str] = "adapter"  # what a warning calls it

    name: str
    host: str
    trigger: str
    target: Any
    summary: str = ""

    def __post_init__(self) -> None:
        check_name("name", self.name)
        check_name("host", self.host)
        if not isinstance(self.trigger, str) or not all(part.isidentifier() for part in self.trigger.split(".")):
            raise ValueError(f"trigger must be a module's full name, got {self.trigger!r}")
        check_target(self.target)

    def load(self) -> Any:
        """Import the host, whose import activates the adapter, and return the adapter object."""
        if isinstance(self.target, str):
            importlib.import_module(self.trigger)
        return super().load()


@dataclass(frozen=True)
class ConversionSpec(_Spec):
    """One thing that networks can be converted to beside neuron models, as ``snn_dendrite_register_conversions`` does.

    Attributes:
        name: as in ``convert(model, to="TTFS")``.
        target: ``"package.module:function"``, imported by :meth:`load` only, or the function itself. See
            :func:`~snn_dendrite_plugin.hookspecs.snn_dendrite_register_conversions` for what it takes and returns.
        summary: one line for listings.
        distribution: the installed distribution it came from; filled in by the registry.
    """

    kind: ClassVar[str] = "conversion"  # what a warning calls it

    name: str
    target: Any
    summary: str = ""
    distribution: str | None = None

    def __post_init__(self) -> None:
        check_name("name", self.name)
        _function_target(self.target)


@dataclass(frozen=True)
class LayerSpec(_Spec):
    """One synaptic layer on offer, as ``snn_dendrite_register_layers`` registers it.

    Attributes:
        name: the layer's name, and the name of its class in the hosts unless ``host_names`` says otherwise.
        target: ``"package.module:Class"``, imported by :meth:`load` only, or the class itself.
        summary: one line for listings.
        host_names: host -> name of the class there.
        distribution: the installed distribution it came from; filled in by the registry.
    """

    kind: ClassVar[str] = "layer"  # what a warning calls it

    name: str
    target: str | type
    summary: str = ""
    host_names: Mapping[str, str] = field(default_factory=dict, hash=False)
    distribution: str | None = None

    def __post_init__(self) -> None:
        check_name("name", self.name)
        _class_target(self.target)
        _check_host_names("host_names", self.host_names)

    def name_in(self, host: str) -> str:
        """The name of the layer's class in ``host``."""
        return self.host_names.get(host, self.name)

    def names_in(self, host: str) -> list[str]:
        """Every name the layer takes in ``host``: one."""
        return [self.name_in(host)]


@dataclass(frozen=True)
class CommandSpec(_Spec):
    """One command of ``snn-dendrite``, as ``snn_dendrite_register_commands`` registers it.

    Attributes:
        name: what the user types after ``snn-dendrite``: letters, digits and inner hyphens.
        target: ``"package.module:function"``, a function with typer's annotations, or the function itself.
        summary: one line for ``snn-dendrite --help``, which does not import the target.
        context_settings: click's, e.g. ``{"allow_interspersed_args": False}``.
        distribution: the installed distribution it came from; filled in by the registry.
    """

    kind: ClassVar[str] = "command"  # what a warning calls it

    name: str
    target: Any
    summary: str = ""
    context_settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    distribution: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"name must be a string, got {self.name!r}")
        if not all(part.isalnum() for part in self.name.split("-")):
            raise ValueError(f"name must be letters and digits with hyphens between, got {self.name!r}")
        _function_target(self.target)
        if not isinstance(self.context_settings, Mapping):
            raise TypeError(f"context_settings must be a mapping of click's settings, got {self.context_settings!r}")


def claims(spec: Any, hosts: Collection[str]) -> Iterator[tuple[str, str]]:
    """The names that a spec takes, each with the kind of thing among which it must be the only one."""
    if isinstance(spec, ProviderSpec):
        yield f"{spec.op} provider", spec.name
        return
    yield spec.kind, spec.name
    if isinstance(spec, (ModelSpec, LayerSpec)):  # a name must be free in every host, too, where it may be another
        yield from ((spec.kind, f"{host}.{name}") for host in hosts for name in spec.names_in(host))


def avoids(spec: Any, hosts: Collection[str]) -> Iterator[tuple[str, str]]:
    """The names of other kinds of things that a spec must not use, unless they are of the same plugin."""
    if isinstance(spec, ConversionSpec):  # `convert(to=...)` takes both
        yield ModelSpec.kind, spec.name
    if isinstance(spec, LayerSpec):  # in snnTorch, one namespace has both
        yield from ((ModelSpec.kind, f"{host}.{name}") for host in hosts for name in spec.names_in(host))
