"""Wirings that rewrite the synaptic layer before a neuron, so that its branches see different inputs."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn

from ..layers.branched import BranchedBatchNorm, expanded, partitioned
from .flow import Path, is_maximum, is_norm, trace_inputs
from .surgery import Found, Swap, count_parameters, find_modules
from .undo import Replaced, replaced

__all__ = ["WIRINGS", "Rewiring", "plan_wiring"]

WIRINGS = ("shared", "partition", "expand")


@dataclasses.dataclass
class Rewiring:
    """The modules that take the place of a layer and of the batch norms behind it."""

    layer: Found
    exchanges: list[tuple[Found, nn.Module]]

    @property
    def parameter_change(self) -> int:
        return sum(count_parameters(new) - count_parameters(old.module) for old, new in self.exchanges)

    def put(self, swap: Swap) -> None:
        for old, new in self.exchanges:
            Replaced(old.module).mark(new)
            swap.put(old.sites, new)


def plan_wiring(
    model: nn.Module, example: Any, neurons: list[Found], wiring: str, branches: int
) -> dict[int, Rewiring | str]:
    """For each neuron the rewriting of its layer, or the reason why it has to be wired ``shared``.

    The model is run once on the example, and is not changed.
    """
    modules = find_modules(model)
    paths = trace_inputs(model, example, modules, neurons)
    return {key: path if isinstance(path, str) else _rewire(path, wiring, branches) for key, path in paths.items()}


def _rewire(path: Path, wiring: str, branches: int) -> Rewiring | str:
    layer = path.layer
    touched = [layer, *(item for item in path.between if is_norm(item.module))]
    for item in touched:
        if replaced(item.module) is not None:
            return f"{item.name} was rewritten before"
        if item.module._forward_hooks or item.module._forward_pre_hooks or item.module._backward_hooks:
            return f"{item.name} ({item.kind}) has hooks, which a rewritten layer would lose"
    peak = next((item for item in path.between if is_maximum(item.module)), None)
    if wiring == "partition" and peak is not None:
        return f"{peak.name} ({peak.kind}) lies between: a maximum of sums is no sum of maxima"
    try:
        new = partitioned(layer.module, branches) if wiring == "partition" else expanded(layer.module, branches)
    except ValueError as error:
        return f"{layer.name} ({layer.kind}): {error}"
    exchanges = [(layer, new)]
    for item in touched[1:]:
        norm: Any = item.module
        sequence = getattr(norm, "step_mode", "s") == "m"
        exchanges.append((item, BranchedBatchNorm(norm, branches, sequence)))
    return Rewiring(layer, exchanges)
