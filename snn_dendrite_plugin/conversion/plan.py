"""What a conversion will do: the model asked for, the neurons chosen, and a node built for each; nothing is changed."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from .. import plugins
from ..adapters.base import accepts
from ..neurons.base import NeuronModel
from ..suggest import did_you_mean
from .report import ConvertedNeuron, SkippedNeuron
from .start import check_host_arguments, no_place_for_current, start_arguments
from .surgery import Found, count_parameters, has_lazy, hook_notes, place_of, reset_states, select
from .undo import Replaced, replaced
from .weights import build_node
from .wiring import WIRINGS, Rewiring, plan_wiring

__all__ = ["Exchange", "NothingToConvert", "build", "branch_count", "choose", "model_spec", "rewirings"]


class NothingToConvert(ValueError):
    """The model has no neuron of a host."""


@dataclasses.dataclass
class Exchange:
    """One neuron and the node that takes its place."""

    found: Found
    node: nn.Module
    held: Replaced
    rewiring: Rewiring | None
    line: ConvertedNeuron


def model_spec(to: str) -> plugins.ModelSpec:
    specs = plugins.models()
    for spec in specs.values():
        if to == spec.name or to in spec.host_names.values():
            return spec
    others = ", ".join(plugins.conversions())
    known = [*specs, *(name for spec in specs.values() for name in spec.host_names.values()), *plugins.conversions()]
    raise ValueError(
        f"to is {to!r}; registered neuron models are {', '.join(specs)}; conversions are {others}"
        f"{did_you_mean(to, known)}"
    )


def branch_count(
    model_class: type[NeuronModel], to: str, wiring: str, example_input: Any, given: dict[str, Any]
) -> int | None:
    """Channels that a rewritten layer sends each neuron, checked against the model; None in ``shared`` wiring.

    Raises:
        ValueError: an unknown wiring, one that the model or the call does not allow, or a number that is none.
    """
    if wiring not in WIRINGS:
        hint = "; 'partition' and 'expand' make the layer that 'fold' needs" if wiring == "fold" else ""
        raise ValueError(
            f"wiring is {wiring!r}; it must be one of {', '.join(WIRINGS)}{hint or did_you_mean(str(wiring), WIRINGS)}"
        )
    if wiring == "shared":
        return None
    if not _has_branches(model_class):
        raise ValueError(f"wiring is {wiring!r}, but {to} has no branches; only 'shared' applies")
    if example_input is None:
        raise ValueError(f"wiring={wiring!r} needs example_input, to find the layer that feeds each neuron")
    branches = given.get("branches", _constructor(model_class)["branches"].default)
    if isinstance(branches, bool) or not isinstance(branches, int) or branches < 1:
        raise ValueError(f"branches is {branches!r}; a dendrite needs an integer of at least 1")
    return branches


def _constructor(model_class: type) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(model_class.__init__).parameters  # type: ignore[misc]


def _has_branches(model_class: type[NeuronModel]) -> bool:
    return "branches" in _constructor(model_class) and model_class.wired(1) is not None


def choose(
    model: nn.Module,
    spec: plugins.ModelSpec,
    neurons: list[Found],
    include: Any,
    exclude: Any,
    adapters: dict[str, Any],
    start: str,
) -> tuple[list[Found], list[SkippedNeuron]]:
    """The neurons to convert, and the others with the reason."""
    if not neurons:
        # A host that is not imported has no neuron in it.
        hosts = ", ".join(dict.fromkeys(adapter.host for adapter in plugins.adapters().values()))
        raise NothingToConvert(f"model {type(model).__name__} has no neuron of a host; hosts: {hosts}")
    listing = ", ".join(f"{item.name} ({item.kind})" for item in neurons)
    wanted = {id(item) for item in neurons}
    if include is not None:
        pairs = select("include", include, neurons)
        for selector, matched in pairs:
            if not matched:
                raise ValueError(f"include: {selector!r} matches no neuron; the neurons are {listing}")
        wanted = {id(item) for _, matched in pairs for item in matched}
    unwanted = {id(item) for _, matched in select("exclude", exclude or [], neurons) for item in matched}
    chosen, skipped = [], []
    for item in neurons:
        nodes = tuple(item.adapter.classes(spec).values())
        if id(item) in unwanted:
            reason: str | None = "excluded"
        elif id(item) not in wanted:
            reason = "not included"
        elif isinstance(item.module, nodes):
            reason = f"is a {item.kind} already"
        elif replaced(item.module) is not None:
            reason = f"was converted to {item.kind} before; revert the model first"
        else:
            reason = item.adapter.why_not(item.module)
            if reason is None and start == "preserve":
                reason = no_place_for_current(spec.load(), spec.name, item.adapter.current_decay(item.module))
        if reason is None:
            chosen.append(item)
        else:
            skipped.append(SkippedNeuron(item.name, item.kind, reason))
    if not chosen:
        reasons = "; ".join(f"{line.name} ({line.before}): {line.reason}" for line in skipped)
        raise ValueError(f"no neuron of the model can be converted to {spec.name}: {reasons}")
    return chosen, skipped


def rewirings(
    model: nn.Module,
    example_input: Any,
    chosen: list[Found],
    wiring: str,
    branches: int | None,
    adapters: dict[str, Any],
) -> dict[int, Rewiring | str]:
    """For each neuron the layer to rewrite, or the reason why its input stays as it is; empty for ``shared``."""
    if branches is None:
        return {}
    reset_states(model, adapters)
    try:
        return plan_wiring(model, example_input, chosen, wiring, branches)
    finally:
        reset_states(model, adapters)


def build(
    model: nn.Module, spec: plugins.ModelSpec, model_class: type[NeuronModel], item: Found, start: str, wiring: str,
    branches: int | None, given: dict[str, Any], planned: dict[int, Rewiring | str], adapters: dict[str, Any],
) -> Exchange:  # fmt: skip
    """The node for one neuron, with its line of the report."""
    rewiring = planned.get(id(item.module))
    fallback = isinstance(rewiring, str)
    used = "shared" if fallback else wiring
    current = item.adapter.current_decay(item.module)
    own = start_arguments(model_class, spec.name, start, given, None if fallback else branches, current)
    read = dict(item.adapter.read(item.module))
    lost = _without_counterpart(item, spec, read)
    read = {key: value for key, value in read.items() if key not in lost}
    if start == "preserve":
        check_host_arguments(item.name, read, given)
    dtype, device = place_of(model, item)
    try:
        node = build_node(item.adapter, spec.name, {**read, **own}, dtype)
    except (TypeError, ValueError) as error:
        error.add_note(f"while building the {spec.name} that would take the place of {item.name} ({item.kind})")
        raise
    node.to(device=device)
    node.train(item.module.training)
    name = next(key for key, adapter in adapters.items() if adapter is item.adapter)
    line = ConvertedNeuron(
        name=item.name,
        aliases=tuple(site.name for site in item.sites[1:]),
        host=item.adapter.host,
        before=item.kind,
        after=type(node).__name__,
        wiring=used if _has_branches(model_class) else "",
        layer=rewiring.layer.name if isinstance(rewiring, Rewiring) else "",
        parameters_before=count_parameters(item.module),
        parameters_after=None if has_lazy(node) else count_parameters(node),
        notes=(
            *((f"shared: {rewiring}",) if fallback else ()),
            *(f"{key} not carried over: {spec.name} has none" for key in lost),
            *(("its synaptic current is not carried over",) if current is not None and start != "preserve" else ()),
            *hook_notes(item.module),
        ),
    )
    held = Replaced(item.module, name, spec.name, read, own)
    return Exchange(item, node, held, rewiring if isinstance(rewiring, Rewiring) else None, line)


def _without_counterpart(item: Found, spec: plugins.ModelSpec, read: dict[str, Any]) -> list[str]:
    """What the host's neuron has and the node does not take, e.g. a learned decay where the whole soma is learned."""
    parameters = inspect.signature(item.adapter.classes(spec)[spec.name_in(item.adapter.host)]).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return []
    return [key for key in read if key not in parameters and not accepts(spec.load(), key)]
