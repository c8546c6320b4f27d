"""What a plugin can offer: the fields of a neuron model, a host adapter and a kernel provider."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .kernels.specs import OPS, ProviderSpec, check_name, check_op, check_target, load

__all__ = ["OPS", "AdapterSpec", "ModelSpec", "ProviderSpec", "check_op"]


@dataclass(frozen=True)
class ModelSpec:
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

    name: str
    target: str | type
    summary: str = ""
    host_names: Mapping[str, str] = field(default_factory=dict, hash=False)
    sequence_names: Mapping[str, str] = field(default_factory=dict, hash=False)
    distribution: str | None = None

    def __post_init__(self) -> None:
        check_name("name", self.name)
        check_target(self.target)
        if not isinstance(self.target, (str, type)):
            raise TypeError(f"target must be 'package.module:Class' or a class, got {self.target!r}")
        for what, names in (("host_names", self.host_names), ("sequence_names", self.sequence_names)):
            if not isinstance(names, Mapping):
                raise TypeError(f"{what} must map hosts to class names, got {names!r}")
            for host, name in names.items():
                check_name(f"{what}[{host!r}]", name)

    def load(self) -> type:
        """Import and return the model class; raises ``ImportError`` or ``AttributeError`` where it is not there."""
        return load(self.target)

    def name_in(self, host: str) -> str:
        """The name of the model's class in ``host``."""
        return self.host_names.get(host, self.name)

    def names_in(self, host: str) -> list[str]:
        """Every name the model takes in ``host``: the class, and the whole-sequence class where there is one."""
        return [self.name_in(host), *([self.sequence_names[host]] if host in self.sequence_names else [])]


@dataclass(frozen=True)
class AdapterSpec:
    """One host adapter, as ``snn_dendrite_register_adapters`` registers it.

    Attributes:
        name: the adapter's name.
        host: the host's name, the key of ``ModelSpec.host_names``.
        trigger: the module whose import activates the adapter.
        target: ``"package.module:adapter"``, imported by :meth:`load` only, or the adapter object itself.
        summary: one line for listings.
    """

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
        """Import and return the adapter object."""
        return load(self.target)
