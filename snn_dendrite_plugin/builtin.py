"""The built-in plugin: the project's own models, adapters and providers, through the hooks open to everyone."""

from __future__ import annotations

from collections.abc import Callable

from .hookspecs import hookimpl
from .kernels.specs import BUILTIN


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
        target="snn_dendrite_plugin.adapters.spikingjelly:adapter",
        summary="models as nodes of spikingjelly.activation_based.neuron",
    )
    register(
        name="snntorch",
        host="snntorch",
        trigger="snntorch",
        target="snn_dendrite_plugin.adapters.snntorch:adapter",
        summary="models as neurons of snntorch",
    )


@hookimpl
def snn_dendrite_register_providers(register: Callable[..., None]) -> None:
    for spec in BUILTIN:
        register(**vars(spec))
