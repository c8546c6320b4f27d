"""The built-in plugin: all that the project itself offers, through the hooks open to everyone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .hookspecs import hookimpl
from .kernels.specs import BUILTIN

_SUMMARIES = {
    "demo": "Train point, dendritic and learned-dynamics networks.",
    "list": "List neuron models, host adapters, providers and plugins.",
    "doctor": "Tell versions, hosts, plugins and which provider runs.",
    "bench": "Time ours against the hosts' own neurons.",
    "run": "Run a training script unchanged, with its neurons swapped.",
    "convert": "Exchange the neurons in a checkpoint of a whole network.",
    "summary": "Count a checkpoint's parameters, spikes and operations.",
    "zoo": "Build and convert every model of SpikingJelly's zoo.",
}
_SETTINGS = {"run": {"allow_interspersed_args": False}}  # what follows `run SCRIPT` is the script's
COMMANDS: list[dict[str, Any]] = [
    {
        "name": name,
        "target": f"snn_dendrite_plugin.commands.{name}:command",
        "summary": summary,
        "context_settings": _SETTINGS.get(name, {}),
    }
    for name, summary in _SUMMARIES.items()
]


@hookimpl
def snn_dendrite_register_models(register: Callable[..., None]) -> None:
    register(
        name="DendSN",
        target="snn_dendrite_plugin.neurons.dendsn:DendSN",
        summary="dendritic neuron: leaky branches with a nonlinearity feed a leaky or polynomial soma",
        host_names={"snntorch": "Dendritic"},
        sequence_names={"snntorch": "DendriticParallel"},
    )
    register(
        name="LNM",
        target="snn_dendrite_plugin.neurons.lnm:LNM",
        summary="learnable neuron model: the membrane's dynamics are a learned polynomial",
        sequence_names={"snntorch": "LNMParallel"},
    )
    register(
        name="TTFS",
        target="snn_dendrite_plugin.neurons.ttfs:TTFS",
        summary="time-to-first-spike neuron: fires at most once, and the time carries the value",
    )


@hookimpl
def snn_dendrite_register_adapters(register: Callable[..., None]) -> None:
    register(
        name="spikingjelly",
        host="spikingjelly",
        trigger="spikingjelly.activation_based.neuron",
        target="snn_dendrite_plugin.adapters.spikingjelly.adapter:adapter",
        summary="models as nodes of spikingjelly.activation_based.neuron",
    )
    register(
        name="snntorch",
        host="snntorch",
        trigger="snntorch",
        target="snn_dendrite_plugin.adapters.snntorch.adapter:adapter",
        summary="models as neurons of snntorch",
    )


@hookimpl
def snn_dendrite_register_providers(register: Callable[..., None]) -> None:
    for spec in BUILTIN:
        register(**vars(spec))


@hookimpl
def snn_dendrite_register_conversions(register: Callable[..., None]) -> None:
    register(
        name="TTFS",
        target="snn_dendrite_plugin.conversion.ttfs:to_ttfs",
        summary="a ReLU network to a new network of first spikes that computes the same",
    )


@hookimpl
def snn_dendrite_register_commands(register: Callable[..., None]) -> None:
    for fields in COMMANDS:
        register(**fields)
