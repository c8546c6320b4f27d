"""``convert``, ``revert`` and ``report``: exchanging a network's neurons in place, with its function kept."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import torch
from torch import nn

from .. import plugins
from ..adapters.base import accepts
from ..neurons.base import NeuronModel
from .example import Recording, describe, record
from .report import ConversionReport, ConvertedNeuron, SkippedNeuron
from .start import check_host_arguments, start_arguments
from .surgery import (
    REPORT_KEY,
    Found,
    Replaced,
    Swap,
    active_adapters,
    count_parameters,
    find_modules,
    find_neurons,
    forget,
    has_lazy,
    hook_notes,
    owners,
    place_of,
    reference_notes,
    replaced,
    reset_states,
    select,
)
from .undo import revert
from .weights import PointWeights, build_node
from .wiring import WIRINGS, Rewiring, plan_wiring

__all__ = ["ConversionReport", "convert", "report", "revert"]


@dataclasses.dataclass
class _Exchange:
    """One neuron and the node that takes its place."""

    found: Found
    node: nn.Module
    held: Replaced
    rewiring: Rewiring | None
    line: ConvertedNeuron


def convert(
    model: nn.Module,
    to: str = "DendSN",
    *,
    include: Any = None,
    exclude: Any = None,
    example_input: Any = None,
    start: str = "preserve",
    dry_run: bool = False,
    wiring: str = "shared",
    calibration: Any = None,
    **neuron_arguments: Any,
) -> Any:
    """Exchange the neurons of a network for those of a registered model, in place; returns the model.

    Threshold, reset, time constant, surrogate, step mode, training flag, device and dtype are carried over, and with
    the default ``start`` the network computes what it computed before: the same spikes in float64, and in float32 up
    to roundings at threshold, which the report counts on ``example_input``. Everything is checked and built before the
    first module is exchanged, and an error after that takes all of it back. States of the neurons are reset. The model
    gets new parameters: make optimizers, ``DistributedDataParallel`` and compiled copies after conversion.

    Args:
        model: a network with neurons of an imported host, or one such neuron (then use the returned module).
        to: name of a registered model (``DendSN``, ``LNM``, or a plugin's). ``"TTFS"`` makes a new network out of a
            ReLU network and leaves that as it is, see :func:`~snn_dendrite_plugin.convert.ttfs.convert_relu`.
        include: which neurons, the default is all: a pattern as of :mod:`fnmatch` for the qualified name
            (``"layer1.*"``), a class, a function of (name, module), or a list of these.
        exclude: which not, written in the same way; wins over ``include``.
        example_input: a tensor, a tuple or dict of the model's arguments, or a function that runs the model it is
            given. The model runs on it before and after, in evaluation mode and without a trace: the report then counts
            flipped spikes and the output difference, and parameters per channel are created.
        start: ``preserve`` keeps the function; ``published`` takes the paper's values; ``fresh`` the model's defaults.
        dry_run: change nothing, return the report.
        wiring: ``shared``: branches see the neuron's one input. ``partition``: the layer before the neuron is split, so
            that branch b sees group b of its input channels, with the same weights. ``expand``: that layer emits a
            channel per branch, each starting with 1/B of the weights. The last two need ``example_input``; where they
            do not apply, the neuron is wired ``shared`` and the report says why.
        calibration: for ``to="TTFS"`` only.
        **neuron_arguments: the node's arguments, e.g. ``branches=4``; they win over those read off the neurons.

    Returns:
        ``model`` itself, or its :class:`ConversionReport` with ``dry_run``.

    Raises:
        TypeError: the model is no Module, or an argument is not the node's.
        ValueError: unknown ``to``, ``start`` or ``wiring``; nothing to convert (the message lists what is there); an
            argument that contradicts ``start="preserve"``; an ``example_input`` that does not run through the model.

    Example:
        >>> import torch, snn_dendrite_plugin as sdp
        >>> from spikingjelly.activation_based import neuron
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 3), neuron.LIFNode())
        >>> net = sdp.convert(net, to="DendSN", branches=2)
        >>> type(net[1]).__name__, net(torch.rand(5, 4)).shape
        ('DendSN', torch.Size([5, 3]))
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is {type(model).__name__}; it must be a torch.nn.Module")
    if to == "TTFS":
        unused = {"include": include, "exclude": exclude, "start": start, "wiring": wiring}
        return _convert_relu(model, calibration, example_input, dry_run, unused, neuron_arguments)
    spec = _model_spec(to)
    if calibration is not None:
        raise ValueError(f"calibration is given, which only to='TTFS' uses; to is {to!r}")
    for module in model.modules():
        kind = type(module).__name__
        sharded = kind.startswith(("FullySharded", "FSDP"))
        if sharded or isinstance(module, (nn.parallel.DistributedDataParallel, torch.jit.ScriptModule)):
            raise ValueError(f"model contains {kind}, which fixes its parameters: convert before wrapping")
    model_class = spec.load()
    given = _wiring_arguments(model_class, to, wiring, example_input, neuron_arguments)

    adapters = active_adapters()
    neurons = find_neurons(model, adapters)
    chosen, skipped = _choose(model, spec, neurons, include, exclude, adapters)
    adapters = owners(neurons, adapters)
    before = _run(model, example_input, chosen, adapters) if example_input is not None else None
    rewirings = _rewirings(model, example_input, chosen, wiring, given, adapters)
    exchanges = [_build(model, spec, model_class, item, start, wiring, given, rewirings, adapters) for item in chosen]
    notes = reference_notes(model, {id(item.module): item.module for item in chosen})
    for exchange in exchanges:
        extra = (*exchange.line.notes, *notes.get(id(exchange.found.module), ()))
        exchange.line = dataclasses.replace(exchange.line, notes=extra)
    summary = _summary(model, spec.name, exchanges, skipped)
    if dry_run:
        return dataclasses.replace(summary, dry_run=True)
    return _exchange(model, exchanges, summary, adapters, example_input, before)


def _model_spec(to: str) -> plugins.ModelSpec:
    specs = plugins.models()
    for spec in specs.values():
        if to == spec.name or to in spec.host_names.values():
            return spec
    raise ValueError(f"to is {to!r}; registered neuron models are {', '.join(specs)}")


def _wiring_arguments(
    model_class: type[NeuronModel], to: str, wiring: str, example_input: Any, given: dict[str, Any]
) -> dict[str, Any]:
    """Check ``wiring`` against the model; the user's neuron arguments."""
    if wiring not in WIRINGS:
        hint = "; 'partition' and 'expand' make the layer that 'fold' needs" if wiring == "fold" else ""
        raise ValueError(f"wiring is {wiring!r}; it must be one of {', '.join(WIRINGS)}{hint}")
    if wiring != "shared":
        if not (accepts(model_class, "wiring") and accepts(model_class, "branches")):
            raise ValueError(f"wiring is {wiring!r}, but {to} has no branches; only 'shared' applies")
        if example_input is None:
            raise ValueError(f"wiring={wiring!r} needs example_input, to find the layer that feeds each neuron")
    return dict(given)


def _choose(
    model: nn.Module,
    spec: plugins.ModelSpec,
    neurons: list[Found],
    include: Any,
    exclude: Any,
    adapters: dict[str, Any],
) -> tuple[list[Found], list[SkippedNeuron]]:
    """The neurons to convert, and the others with the reason."""
    if not neurons:
        hosts = ", ".join(adapters) or "none (import the host before converting)"
        raise ValueError(f"model {type(model).__name__} has no neuron of a host that is imported; hosts: {hosts}")
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
        if reason is None:
            chosen.append(item)
        else:
            skipped.append(SkippedNeuron(item.name, item.kind, reason))
    if not chosen:
        reasons = "; ".join(f"{line.name} ({line.before}): {line.reason}" for line in skipped)
        raise ValueError(f"no neuron of the model can be converted to {spec.name}: {reasons}")
    return chosen, skipped


def _run(model: nn.Module, example_input: Any, neurons: list[Found], adapters: dict[str, Any]) -> Recording:
    """Spikes and outputs on the example, from reset states, which are reset again afterwards."""
    reset_states(model, adapters)
    try:
        return record(model, example_input, {item.name: item.module for item in neurons})
    except TypeError as error:
        if "example_input" in str(error):
            raise
        raise _example_error(model, example_input, error) from error
    except Exception as error:
        raise _example_error(model, example_input, error) from error
    finally:
        reset_states(model, adapters)


def _example_error(model: nn.Module, example_input: Any, error: Exception) -> ValueError:
    return ValueError(
        f"example_input ({describe(example_input)}) does not run through {type(model).__name__}: "
        f"{type(error).__name__}: {error}; the model is unchanged"
    )


def _rewirings(
    model: nn.Module,
    example_input: Any,
    chosen: list[Found],
    wiring: str,
    given: dict[str, Any],
    adapters: dict[str, Any],
) -> dict[int, Rewiring | str]:
    """For each neuron the layer to rewrite, or the reason why its input stays as it is; empty for ``shared``."""
    if wiring == "shared":
        return {}
    branches = given.get("branches", 4)
    if isinstance(branches, bool) or not isinstance(branches, int) or branches < 1:
        raise ValueError(f"branches is {branches!r}; a dendrite needs an integer of at least 1")
    reset_states(model, adapters)
    try:
        return plan_wiring(model, example_input, chosen, wiring, branches)
    finally:
        reset_states(model, adapters)


def _build(
    model: nn.Module, spec: plugins.ModelSpec, model_class: type, item: Found, start: str, wiring: str,
    given: dict[str, Any], rewirings: dict[int, Rewiring | str], adapters: dict[str, Any],
) -> _Exchange:  # fmt: skip
    """The node for one neuron, with its line of the report."""
    rewiring = rewirings.get(id(item.module))
    fallback = isinstance(rewiring, str)
    used = "shared" if fallback else wiring
    own = start_arguments(model_class, spec.name, start, given, used)
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
        wiring=used if accepts(model_class, "wiring") else "",
        layer=rewiring.layer.name if isinstance(rewiring, Rewiring) else "",
        parameters_before=count_parameters(item.module),
        parameters_after=None if has_lazy(node) else count_parameters(node),
        notes=(
            *((f"shared: {rewiring}",) if fallback else ()),
            *(f"{key} not carried over: {spec.name} has none" for key in lost),
            *hook_notes(item.module),
        ),
    )
    held = Replaced(item.module, name, spec.name, read, own)
    return _Exchange(item, node, held, rewiring if isinstance(rewiring, Rewiring) else None, line)


def _without_counterpart(item: Found, spec: plugins.ModelSpec, read: dict[str, Any]) -> list[str]:
    """What the host's neuron has and the node does not take, e.g. a learned decay where the whole soma is learned."""
    parameters = inspect.signature(item.adapter.classes(spec)[spec.name_in(item.adapter.host)]).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return []
    return [key for key in read if key not in parameters and not accepts(spec.load(), key)]


def _summary(model: nn.Module, to: str, exchanges: list[_Exchange], skipped: list[SkippedNeuron]) -> ConversionReport:
    before = count_parameters(model)
    change = sum((line.parameters_after or 0) - line.parameters_before for line in (item.line for item in exchanges))
    change += sum(item.rewiring.parameter_change for item in exchanges if item.rewiring is not None)
    return ConversionReport(to, tuple(item.line for item in exchanges), tuple(skipped), before, before + change)


def _exchange(
    model: nn.Module, exchanges: list[_Exchange], summary: ConversionReport, adapters: dict[str, Any],
    example_input: Any, before: Recording | None,
) -> nn.Module:  # fmt: skip
    """Put the nodes in; take everything back if anything fails."""
    earlier = vars(model).get(REPORT_KEY)
    swap = Swap(model)
    try:
        reset_states(model, adapters)
        for item in exchanges:
            if item.rewiring is not None:
                item.rewiring.put(swap)
            item.held.mark(item.node)
            item.node.register_load_state_dict_pre_hook(PointWeights())
            swap.put(item.found.sites, item.node)
        for adapter in adapters.values():
            adapter.after_swap(swap.root)
        if before is not None:
            summary = _compare(swap.root, example_input, exchanges, summary, before, adapters)
    except BaseException:
        swap.undo()
        for adapter in adapters.values():
            adapter.after_swap(model)
        raise
    for item in exchanges:
        forget(item.found.adapter, item.found.module)
    if earlier is not None:
        summary = summary.after(earlier)
    vars(swap.root)[REPORT_KEY] = summary
    return swap.root


def _compare(
    model: nn.Module, example_input: Any, exchanges: list[_Exchange], summary: ConversionReport, before: Recording,
    adapters: dict[str, Any],
) -> ConversionReport:  # fmt: skip
    """Run the converted model on the example; the report with flips, output difference and final parameter counts."""
    nodes = [Found(item.node, item.found.sites) for item in exchanges]
    after = _run(model, example_input, nodes, adapters)
    lines = []
    for item in exchanges:
        compared = before.flips(after, item.found.name)
        spikes, flips = compared if compared is not None else (None, None)
        lazy = has_lazy(item.node)
        parameters = None if lazy else count_parameters(item.node)
        notes = (
            item.line.notes if before.spikes.get(item.found.name) else (*item.line.notes, "did not run on the example")
        )
        lines.append(
            dataclasses.replace(item.line, spikes=spikes, flips=flips, parameters_after=parameters, notes=notes)
        )
    difference = before.output_difference(after)
    return dataclasses.replace(
        summary, converted=tuple(lines), parameters_after=count_parameters(model), output_difference=difference
    )


def _convert_relu(
    model: nn.Module,
    calibration: Any,
    example_input: Any,
    dry_run: bool,
    unused: dict[str, Any],
    arguments: dict[str, Any],
) -> Any:
    """Time-to-first-spike: a ReLU network, not spiking neurons, is what gets converted, into a new network."""
    from .ttfs import convert_relu

    for name, value in unused.items():
        if value != inspect.signature(convert).parameters[name].default:
            raise ValueError(f"{name} is {value!r}, which to='TTFS' does not use: it converts a whole ReLU network")
    network = convert_relu(model, calibration=calibration, example_input=example_input, **arguments)
    vars(network)[REPORT_KEY] = network.report
    return network.report if dry_run else network


def report(model: nn.Module) -> ConversionReport:
    """The report of what :func:`convert` did to a model; several conversions of one model are told together.

    A network made with ``to="TTFS"`` has a :class:`~snn_dendrite_plugin.convert.ttfs.TTFSReport`.

    Raises:
        ValueError: the model was not converted, or was reverted.

    Example:
        >>> import torch, snn_dendrite_plugin as sdp
        >>> from spikingjelly.activation_based import neuron
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 3), neuron.LIFNode())
        >>> print(sdp.report(sdp.convert(net, to="LNM")).summary())
        1 neurons converted to LNM, 0 kept; parameters 15 -> 19
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is {type(model).__name__}; it must be a torch.nn.Module")
    for module in model.modules():  # the model itself comes first, then a part of it that was converted alone
        if REPORT_KEY in vars(module):
            return _current(module, vars(module)[REPORT_KEY])
    raise ValueError(f"model {type(model).__name__} was not converted: there is no report")


def _current(model: nn.Module, told: Any) -> Any:
    """The report without the neurons that were reverted since, as part of a part of the model."""
    if not isinstance(told, ConversionReport):
        return told
    here = {item.name for item in find_modules(model) if replaced(item.module) is not None}
    kept = tuple(line for line in told.converted if line.name in here)
    if len(kept) == len(told.converted):
        return told
    return dataclasses.replace(told, converted=kept, parameters_after=count_parameters(model))
