"""Taking a conversion back: what stands for what, and putting the originals in their places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from .report import REPORT_KEY
from .surgery import (
    Found,
    Swap,
    active_adapters,
    find_modules,
    find_neurons,
    owners,
    place_of,
    reset_states,
)

__all__ = ["Replaced", "replaced", "revert"]

_KEY = "_snn_dendrite_replaced"


class Replaced:
    """The module that a new one stands for. Not a Module itself, so that it is no submodule of the new one.

    Attributes:
        original: the module that was there.
        adapter: name of the host adapter, ``""`` for a synaptic layer.
        model: name of the registered model, ``""`` for a synaptic layer.
        arguments: the host's arguments at conversion; what differs at :func:`revert` was changed by the user since.
        own: the arguments that conversion and the user added.
    """

    in_checkpoints = True

    def __init__(
        self,
        original: nn.Module,
        adapter: str = "",
        model: str = "",
        arguments: Mapping[str, Any] | None = None,
        own: Mapping[str, Any] | None = None,
    ) -> None:
        self.original, self.adapter, self.model = original, adapter, model
        self.arguments, self.own = dict(arguments or {}), dict(own or {})

    def __getstate__(self) -> dict[str, Any]:
        adapter = active_adapters().get(self.adapter)
        if adapter is None:
            return vars(self)
        tables = {
            name: {key: adapter.picklable(value) for key, value in getattr(self, name).items()}
            for name in ("arguments", "own")
        }
        return {**vars(self), **tables, "original": adapter.picklable(self.original)}

    def mark(self, module: nn.Module) -> None:
        """Keep this with the module that took the original's place."""
        vars(module)[_KEY] = self


def replaced(module: nn.Module) -> Replaced | None:
    """What ``module`` stands for, None when it was not put there by a conversion."""
    return vars(module).get(_KEY)


def revert(model: nn.Module) -> nn.Module:
    """Put back, in place, the neurons and layers that :func:`convert` took out; returns the model.

    The original neurons return with today's device, dtype and training flag, and with what was changed on their
    replacements since: parameters and buffers of the same name and shape (a learned threshold, say), a learned decay,
    and arguments that both have (``step_mode`` after the host's ``set_step_mode``). What only the dendritic neuron has
    is dropped. Layers split by ``partition`` keep their trained weights; layers widened by ``expand`` return as they
    were at conversion.

    Raises:
        ValueError: no module of the model was put there by a conversion.

    Example:
        >>> import torch, snn_dendrite_plugin as sdp
        >>> from spikingjelly.activation_based import neuron
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 3), neuron.LIFNode())
        >>> type(sdp.revert(sdp.convert(net, to="LNM"))[1]).__name__
        'LIFNode'
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is {type(model).__name__}; it must be a torch.nn.Module")
    found = find_modules(model, stop=lambda module: replaced(module) is not None)
    converted = [item for item in found if replaced(item.module) is not None]
    if not converted:
        raise ValueError(
            f"model {type(model).__name__} has no module that convert() put there: there is nothing to revert"
        )
    adapters = active_adapters()
    adapters = owners(find_neurons(model, adapters), adapters)
    reset_states(model, adapters)
    swap = Swap(model)
    for item in converted:
        swap.put(item.sites, _restored(model, item))
    for adapter in adapters.values():
        adapter.after_swap(swap.root)
    for item in converted:
        held = replaced(item.module)
        if held is not None and held.adapter in adapters:
            adapters[held.adapter].forget(item.module)
            adapters[held.adapter].remember(held.original)
    vars(swap.root).pop(REPORT_KEY, None)
    for module in swap.root.modules():
        vars(module).pop(REPORT_KEY, None)
    return swap.root


def _restored(model: nn.Module, item: Found) -> nn.Module:
    """The original of a module, brought up to date with it."""
    held = replaced(item.module)
    assert held is not None
    original, current = held.original, item.module
    dtype, device = place_of(model, item)
    original.to(device=device, dtype=dtype)
    for table in ("_parameters", "_buffers"):
        now = getattr(current, table)
        for key, tensor in getattr(original, table).items():
            if tensor is not None and now.get(key) is not None and now[key].shape == tensor.shape:
                if isinstance(tensor, nn.Parameter) and not isinstance(now[key], nn.Parameter):
                    continue
                getattr(original, table)[key] = now[key]
    for key, value in held.arguments.items():
        changed = getattr(current, key, value)
        if isinstance(value, (str, bool, int, float)) and type(changed) is type(value) and changed != value:
            setattr(original, key, changed)
    adapter = active_adapters().get(held.adapter)
    if adapter is not None:
        adapter.learned_back(original, current)
    original.train(current.training)
    return original
