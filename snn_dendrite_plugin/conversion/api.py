"""``convert``, ``revert`` and ``report``: exchanging a network's neurons in place, with its function kept."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import torch
from torch import nn

from .. import plugins
from .example import Recording, describe, record
from .plan import Exchange, branch_count, build, choose, model_spec, rewirings
from .report import REPORT_KEY, ConversionReport, Report, SkippedNeuron
from .surgery import (
    Found,
    Swap,
    active_adapters,
    count_parameters,
    find_modules,
    find_neurons,
    has_lazy,
    owners,
    reference_notes,
    reset_states,
)
from .undo import replaced, revert
from .weights import PointWeights

__all__ = ["ConversionReport", "Report", "convert", "report", "revert"]


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
        to: name of a registered model (``DendSN``, ``LNM``, or a plugin's) or conversion. ``"TTFS"`` makes a new
            network out of a ReLU network and leaves that as it is, see
            :func:`~snn_dendrite_plugin.conversion.ttfs.convert_relu`; other conversions come from plugins. They take
            those of the arguments below that apply to them, and their own.
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
        calibration: data from which a conversion sets what it measures, as ``to="TTFS"`` does.
        **neuron_arguments: the node's arguments, e.g. ``branches=4``; they win over those read off the neurons.

    Returns:
        ``model`` itself, or its :class:`ConversionReport` with ``dry_run``; for ``to="TTFS"`` the new network, or its
        report.

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
    registered = plugins.conversions().get(to)
    if registered is not None:
        own = {
            "include": include, "exclude": exclude, "example_input": example_input, "start": start, "dry_run": dry_run,
            "wiring": wiring, "calibration": calibration,
        }  # fmt: skip
        return _by_plugin(registered, model, own, neuron_arguments)
    spec = model_spec(to)
    if calibration is not None:
        raise ValueError(f"calibration is given, which to={to!r} does not use")
    for module in model.modules():
        kind = type(module).__name__
        sharded = kind.startswith(("FullySharded", "FSDP"))
        if sharded or isinstance(module, (nn.parallel.DistributedDataParallel, torch.jit.ScriptModule)):
            raise ValueError(f"model contains {kind}, which fixes its parameters: convert before wrapping")
    model_class = spec.load()
    branches = branch_count(model_class, to, wiring, example_input, neuron_arguments)

    adapters = active_adapters()
    neurons = find_neurons(model, adapters)
    chosen, skipped = choose(model, spec, neurons, include, exclude, adapters, start)
    adapters = owners(neurons, adapters)
    before = _run(model, example_input, chosen, adapters) if example_input is not None else None
    planned = rewirings(model, example_input, chosen, wiring, branches, adapters)
    exchanges = [
        build(model, spec, model_class, item, start, wiring, branches, neuron_arguments, planned, adapters)
        for item in chosen
    ]
    notes = reference_notes(model, {id(item.module): item.module for item in chosen})
    for exchange in exchanges:
        extra = (*exchange.line.notes, *notes.get(id(exchange.found.module), ()))
        exchange.line = dataclasses.replace(exchange.line, notes=extra)
    summary = _summary(model, spec.name, exchanges, skipped)
    if dry_run:
        return dataclasses.replace(summary, dry_run=True)
    return _exchange(model, exchanges, summary, adapters, example_input, before)


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


def _summary(model: nn.Module, to: str, exchanges: list[Exchange], skipped: list[SkippedNeuron]) -> ConversionReport:
    before = count_parameters(model)
    change = sum((line.parameters_after or 0) - line.parameters_before for line in (item.line for item in exchanges))
    change += sum(item.rewiring.parameter_change for item in exchanges if item.rewiring is not None)
    return ConversionReport(to, tuple(item.line for item in exchanges), tuple(skipped), before, before + change)


def _exchange(
    model: nn.Module, exchanges: list[Exchange], summary: ConversionReport, adapters: dict[str, Any],
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
        item.found.adapter.forget(item.found.module)
    if earlier is not None:
        summary = summary.after(earlier)
    vars(swap.root)[REPORT_KEY] = summary
    return swap.root


def _compare(
    model: nn.Module, example_input: Any, exchanges: list[Exchange], summary: ConversionReport, before: Recording,
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


def _by_plugin(spec: plugins.ConversionSpec, model: nn.Module, own: dict[str, Any], arguments: dict[str, Any]) -> Any:
    """A conversion that a plugin registered: its function gets those of ``convert``'s own arguments that it names."""
    function = spec.load()
    parameters = inspect.signature(function).parameters
    for name, value in own.items():
        if name in parameters:
            arguments[name] = value
        elif name != "dry_run" and not _is_default(name, value):
            raise ValueError(f"{name} is {value!r}, which to={spec.name!r} does not use")
    options = ", ".join(list(parameters)[1:])
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for name in arguments:
        if name not in parameters and not open_ended:
            raise TypeError(f"convert(to={spec.name!r}) got an unexpected argument {name!r}; it takes {options}")
    converted, told = function(model, **arguments)
    if own["dry_run"]:
        return told
    vars(converted)[REPORT_KEY] = told
    return converted


def _is_default(name: str, value: Any) -> bool:
    default = inspect.signature(convert).parameters[name].default
    return value is default or (isinstance(value, (str, bool)) and value == default)


def report(model: nn.Module) -> Report:
    """The report of what :func:`convert` did to a model; several conversions of one model are told together.

    Returns:
        a :class:`ConversionReport` where neurons were exchanged; a network made with ``to="TTFS"`` has a
        :class:`~snn_dendrite_plugin.conversion.ttfs.TTFSReport`.

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
            here = {item.name for item in find_modules(module) if replaced(item.module) is not None}
            return vars(module)[REPORT_KEY].only(here, count_parameters(module))
    raise ValueError(f"model {type(model).__name__} was not converted: there is no report")
