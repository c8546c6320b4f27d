"""``convert``, ``revert`` and ``report``: exchanging a network's neurons in place, with its function kept."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import torch
from torch import nn

from .example import Recording, describe, record
from .plan import Exchange, build, check_wiring, choose, model_spec, rewirings
from .report import ConversionReport, SkippedNeuron
from .surgery import (
    REPORT_KEY,
    Found,
    Swap,
    active_adapters,
    count_parameters,
    find_modules,
    find_neurons,
    has_lazy,
    owners,
    reference_notes,
    replaced,
    reset_states,
)
from .undo import revert
from .weights import PointWeights

__all__ = ["ConversionReport", "convert", "report", "revert"]


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
            ReLU network and leaves that as it is, see :func:`~snn_dendrite_plugin.conversion.ttfs.relu.convert_relu`.
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
    spec = model_spec(to)
    if calibration is not None:
        raise ValueError(f"calibration is given, which only to='TTFS' uses; to is {to!r}")
    for module in model.modules():
        kind = type(module).__name__
        sharded = kind.startswith(("FullySharded", "FSDP"))
        if sharded or isinstance(module, (nn.parallel.DistributedDataParallel, torch.jit.ScriptModule)):
            raise ValueError(f"model contains {kind}, which fixes its parameters: convert before wrapping")
    model_class = spec.load()
    given = check_wiring(model_class, to, wiring, example_input, neuron_arguments)

    adapters = active_adapters()
    neurons = find_neurons(model, adapters)
    chosen, skipped = choose(model, spec, neurons, include, exclude, adapters)
    adapters = owners(neurons, adapters)
    before = _run(model, example_input, chosen, adapters) if example_input is not None else None
    planned = rewirings(model, example_input, chosen, wiring, given, adapters)
    exchanges = [build(model, spec, model_class, item, start, wiring, given, planned, adapters) for item in chosen]
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

    A network made with ``to="TTFS"`` has a :class:`~snn_dendrite_plugin.conversion.ttfs.relu.TTFSReport`.

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
