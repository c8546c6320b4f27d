"""Point neurons that a script constructs become dendritic ones, without a change to the script.

While :func:`.stand_in.swapping` is on, the host's name for a neuron, ``neuron.LIFNode`` say, is a *stand-in*: a
subclass of the host's class whose construction gives one of our nodes, with the arguments that the host's neuron would
have had. What a script may do with such a name goes on working: ``isinstance`` accepts what was built in the neuron's
place, subclasses of the name are ordinary subclasses of the host's neuron (and are not swapped), signatures,
annotations and pickles are the host's.
"""

from __future__ import annotations

import collections
import importlib
import importlib.util
import inspect
import logging
import sys
import warnings
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from .. import plugins
from ..conversion.start import no_place_for_current, start_arguments
from ..conversion.undo import Replaced
from ..conversion.weights import PointWeights, build_node
from ..suggest import did_you_mean

__all__ = ["SwapRule", "plan_swaps", "swappable"]

log = logging.getLogger("snn_dendrite_plugin")

# Values for constructor arguments without a default, to make one neuron of each kind and see what it is.
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_EXTRAS = ("spikingjelly", "snntorch")  # hosts that an extra of this package installs
_SAMPLES = {"tau": 2.0, "decay_input": True, "v_threshold": 1.0, "v_reset": 0.0}


class SwapRule:
    """One swap: a neuron of a host, the registered model that takes its place, and the settings for the node.

    Attributes:
        neuron: the neuron's name in the host.
        original: the host's class.
        node: the node's name in the host.
        settings: the node's arguments that the user set; they win over those of the script.
        built: number of nodes built so far.
        kept: reason -> number of neurons that were left as they are.
        nodes: those nodes, as long as they live.
        notes: what the user should know of the settings.
    """

    def __init__(
        self,
        adapter_name: str,
        adapter: Any,
        neuron: str,
        original: type,
        spec: plugins.ModelSpec,
        settings: dict[str, Any],
    ) -> None:
        self.adapter_name, self.adapter, self.neuron, self.original = adapter_name, adapter, neuron, original
        self.spec, self.node, self.settings = spec, spec.name_in(adapter.host), settings
        reason = getattr(spec.load(), "no_drop_in", None)
        if reason is not None:
            raise ValueError(f"{self.node} cannot take the place of {neuron} in a script: {reason}")
        self.parameters = frozenset(inspect.signature(adapter.classes(spec)[self.node]).parameters)
        self.package = plugins.adapters()[adapter_name].trigger.partition(".")[0]
        self.active = False
        self.built = 0
        self.kept: collections.Counter[str] = collections.Counter()
        self.nodes: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        self.notes: list[str] = []
        self.preserving = self._preserving()

    def _preserving(self) -> dict[str, Any]:
        """Arguments with which the node computes what the neuron did, unless the settings say otherwise."""
        model_class = self.spec.load()
        try:
            preserving = start_arguments(model_class, self.spec.name, "preserve", {})
        except ValueError:
            self.notes.append(f"{self.node} cannot start as a point neuron: it starts from its defaults")
            return {}
        try:
            start_arguments(model_class, self.spec.name, "preserve", self.settings)
        except ValueError as error:
            self.notes.append(f"the network does not start as the script's own: {str(error).partition(';')[0]}")
        return preserving

    def build(self, *args: Any, **kwargs: Any) -> nn.Module:
        """What the script gets for ``Neuron(*args, **kwargs)``; the host's class checks the arguments."""
        point = self.original(*args, **kwargs)
        current = self.adapter.current_decay(point)
        reason = self.adapter.why_not(point) or no_place_for_current(self.spec.load(), self.spec.name, current)
        if reason is not None:
            self.keep(reason)
            return point
        node = self.replace(point)
        self.built += 1
        self.nodes.add(node)
        return node

    def replace(self, point: nn.Module) -> nn.Module:
        """The node for one neuron of the host; as a converted one, it loads checkpoints of the point neuron."""
        # What a node does not take, its model decides: LNM learns its decay, ParametricLIFNode's learn_beta or not.
        read = {name: value for name, value in self.adapter.read(point).items() if name in self.parameters}
        current = self.adapter.current_decay(point)
        filtered = {} if current is None else self.spec.load().filtered(current) or {}
        own = {**self.preserving, **filtered, **self.settings}
        try:
            node = build_node(self.adapter, self.spec.name, {**read, **own}, torch.get_default_dtype())
        except (TypeError, ValueError) as error:
            error.add_note(f"while a {self.node} was built in the place of a {self.neuron}")
            raise
        Replaced(point, self.adapter_name, self.spec.name, read, own).mark(node)
        node.register_load_state_dict_pre_hook(PointWeights())
        self.adapter.forget(point)
        return node

    def keep(self, reason: str) -> None:
        """Count a neuron that stays as it is; one log line per reason."""
        if not self.kept[reason]:
            log.warning("%s is not swapped: %s", self.neuron, reason)
        self.kept[reason] += 1

    def __str__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.settings.items())
        kept = "".join(f"; {count} kept ({reason})" for reason, count in self.kept.items())
        return f"{self.built} {self.neuron} built as {self.node}{f' ({settings})' if settings else ''}{kept}"


# -- what can be swapped -----------------------------------------------------------------------------------------------


def _hosts(wanted: str = "") -> Iterator[tuple[str, Any]]:
    """Name and adapter of every host that is installed, or of the one that is wanted, imported for the purpose."""
    for name, spec in plugins.adapters().items():
        package = spec.trigger.partition(".")[0]
        if wanted not in ("", name, spec.host):
            continue
        if package in sys.modules or importlib.util.find_spec(package) is not None:
            importlib.import_module(spec.trigger)
            yield name, spec.load()


def _sample(cls: type) -> nn.Module | None:
    """One neuron of a class, or None where it needs more than a time constant."""
    needed = {
        name: _SAMPLES.get(name, 0.5)
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.default is parameter.empty and parameter.kind in _NAMED
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return cls(**needed)
    except Exception:  # whatever a constructor raises, the class is none that we know how to make
        return None


def _neurons(adapter: Any) -> dict[str, type]:
    """Every class of modules in the host's namespaces, by name."""
    return {
        name: value
        for space in adapter.namespaces()
        for name, value in vars(space).items()
        if isinstance(value, type) and issubclass(value, nn.Module) and not name.startswith("_")
    }


def swappable(adapter: Any) -> list[str]:
    """Names of the host's neurons that have a dendritic counterpart, in the host's order.

    Example:
        >>> from snn_dendrite_plugin import plugins, swap
        >>> swap.swappable(plugins.adapters()["snntorch"].load())
        ['Leaky']
    """
    found = []
    for name, cls in _neurons(adapter).items():
        point = _sample(cls)
        if point is not None and adapter.is_neuron(point) and adapter.why_not(point) is None:
            found.append(name)
        if point is not None:
            adapter.forget(point)
    return found


def plan_swaps(swaps: Mapping[str, str], settings: Mapping[str, Any] | None = None) -> list[SwapRule]:
    """Check swaps and settings against the installed hosts and the registered models, before anything is changed.

    Args:
        swaps: neuron of a host -> registered model, by its own name or by its name in the host; a neuron may be written
            ``spikingjelly.LIFNode``.
        settings: arguments of the nodes; each goes to the swaps whose node takes it.

    Raises:
        ValueError: an unknown neuron or model, or one that cannot be swapped: the message lists what there is. A
            setting that no node takes, or a value it refuses.
        TypeError: a setting of a wrong type.

    Example:
        >>> rules = plan_swaps({"LIFNode": "DendSN"}, {"branches": 2})
        >>> from snn_dendrite_plugin.swap import swapping
        >>> with swapping(rules):
        ...     from spikingjelly.activation_based import neuron
        ...     node = neuron.LIFNode(tau=4.0)
        >>> type(node).__name__, node.tau, node.model.branches, str(rules[0])
        ('DendSN', 4.0, 2, '1 LIFNode built as DendSN (branches=2)')
    """
    settings = dict(settings or {})
    found = [(neuron, *_find_neuron(neuron), _find_model(model)) for neuron, model in swaps.items()]
    takers: dict[str, list[str]] = {name: [] for name in settings}
    rules, options = [], set()
    for _, adapter_name, adapter, name, original, spec in found:
        parameters = inspect.signature(adapter.classes(spec)[spec.name_in(adapter.host)]).parameters
        options |= set(parameters)
        own = {key: value for key, value in settings.items() if key in parameters}
        for key in own:
            takers[key].append(name)
        rules.append(SwapRule(adapter_name, adapter, name, original, spec, own))
    unused = [key for key, nodes in takers.items() if not nodes]
    if unused and rules:
        nodes = " or ".join(dict.fromkeys(rule.node for rule in rules))
        hint = did_you_mean(unused[0], options)
        raise ValueError(f"{unused[0]} is no argument of {nodes}{hint or ';'} it takes {', '.join(sorted(options))}")
    if unused:
        raise ValueError(f"{unused[0]} is set, but no neuron is swapped")
    seen: dict[type, str] = {}
    for rule in rules:
        if rule.original in seen:
            raise ValueError(f"{rule.neuron} is swapped twice, for {seen[rule.original]} and for {rule.node}")
        seen[rule.original] = rule.node
        if rule.settings.get("wiring", "shared") != "shared":
            raise ValueError(
                f"wiring is {rule.settings['wiring']!r}, which needs other synapses than the script makes; swapped "
                f"nodes are wired 'shared' (convert() rewrites synapses)"
            )
        _check_settings(rule)
    return rules


def _check_settings(rule: SwapRule) -> None:
    """Build one node, so that a wrong value is known before the script starts."""
    point = _sample(rule.original)
    assert point is not None  # _find_neuron made one before
    try:
        rule.replace(point)
    finally:
        rule.adapter.forget(point)


def _find_neuron(name: str) -> tuple[str, Any, str, type]:
    """Adapter and class of the neuron that the user calls ``name``."""
    where, _, short = name.rpartition(".")
    looked = []
    for adapter_name, adapter in _hosts(where):
        looked.append(adapter)
        cls = _neurons(adapter).get(short)
        if cls is None:
            continue
        point = _sample(cls)
        if point is None:
            reason: str | None = f"{short} is no neuron that can be examined"
        else:
            reason = adapter.why_not(point) if adapter.is_neuron(point) else f"{short} is no neuron"
            adapter.forget(point)
        if reason is not None:
            raise ValueError(f"{name} cannot be swapped: {reason}; {adapter.host} has {_join(swappable(adapter))}")
        return adapter_name, adapter, short, cls
    if not looked:
        hosts = _join(f"{spec.host} (module {spec.trigger})" for spec in plugins.adapters().values())
        missing = [spec.host for spec in plugins.adapters().values() if where in ("", spec.name, spec.host)]
        install = f': pip install "snn-dendrite-plugin[{missing[0]}]"' if missing and missing[0] in _EXTRAS else ""
        raise ValueError(
            f"{name} is a neuron of no host that is installed; the hosts with an adapter are {hosts}{install}"
        )
    hint = did_you_mean(short, [known for adapter in looked for known in swappable(adapter)])
    listing = "; ".join(f"{adapter.host} has {_join(swappable(adapter))}" for adapter in looked)
    raise ValueError(f"{name} is no neuron of an installed host{hint or ';'} of those that can be swapped, {listing}")


def _find_model(name: str) -> plugins.ModelSpec:
    specs = plugins.models()
    for spec in specs.values():
        if name == spec.name or name in spec.host_names.values():
            return spec
    known = [s.name + "".join(f" ({other} in {host})" for host, other in s.host_names.items()) for s in specs.values()]
    names = [other for spec in specs.values() for other in (spec.name, *spec.host_names.values())]
    raise ValueError(f"{name} is no registered neuron model{did_you_mean(name, names) or ';'} there are {_join(known)}")


def _join(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
