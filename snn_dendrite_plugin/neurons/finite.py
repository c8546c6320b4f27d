"""A check, off by default, that no potential becomes NaN or infinite unnoticed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from .base import NeuronModel

__all__ = ["check_every_neuron", "check_finite", "nonfinite_parameters"]


@contextlib.contextmanager
def check_finite(model: nn.Module) -> Iterator[None]:
    """Inside the ``with`` block, a neuron of ``model`` whose state becomes NaN or infinite raises and names its layer.

    A NaN potential never reaches the threshold, so the neuron just falls silent and the loss stays finite: LNM with
    ``clamp=None`` can end that way. Without this check a neuron in training looks every 64 time steps, and warns
    once. The check reads every state back once per forward pass, which on a GPU waits for it.

    Args:
        model: a network with neurons of this package, in any host, or a :class:`NeuronModel`.

    Raises:
        ValueError: no such neuron in ``model``.
        FloatingPointError: at the forward pass; says layer, neuron model, state and how many values.

    Example::

        >>> import torch, snn_dendrite_plugin as sdp
        >>> from spikingjelly.activation_based import neuron
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 3), neuron.LNM())
        >>> with sdp.check_finite(net):
        ...     spikes = net(torch.rand(2, 4))
    """
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, NeuronModel)]
    if not found:
        raise ValueError(f"model {type(model).__name__} has no neuron of snn_dendrite_plugin to check")
    before = [module.watched for _, module in found]
    for name, module in found:
        module.watched = name.removesuffix("model").rstrip(".") or type(module).__name__
    try:
        yield
    finally:
        for (_, module), value in zip(found, before, strict=True):
            module.watched = value


def nonfinite_parameters(thing: object) -> list[str]:
    """Names of the parameters with NaN or infinity, if ``thing`` is a network with neurons of this package."""
    if not isinstance(thing, nn.Module) or not any(isinstance(module, NeuronModel) for module in thing.modules()):
        return []
    known = ((name, value) for name, value in thing.named_parameters() if not isinstance(value, UninitializedParameter))
    return [name for name, value in known if not value.is_meta and not bool(torch.isfinite(value).all())]


@contextlib.contextmanager
def check_every_neuron() -> Iterator[None]:
    """As :func:`check_finite`, for all neurons of this package in this process, those made inside included."""
    before = NeuronModel.watched
    NeuronModel.watched = ""
    try:
        yield
    finally:
        NeuronModel.watched = before
