"""An optimizer that resumes from a checkpoint of the point network, inside a script whose neurons are swapped.

The script hands the optimizer all parameters of its network, so the swapped network gives it more than the checkpoint
knows of. Those that the point network has as well take up their state; the nodes' own start afresh.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from ..conversion.undo import replaced

if TYPE_CHECKING:
    from .rules import SwapRule

__all__ = ["resuming"]

log = logging.getLogger("snn_dendrite_plugin")


@contextlib.contextmanager
def resuming(rules: Iterable[SwapRule]) -> Iterator[None]:
    """Inside, optimizers also load the state of the network as it is without the swaps."""
    rules = list(rules)
    original = torch.optim.Optimizer.load_state_dict

    @functools.wraps(original)
    def load_state_dict(self: torch.optim.Optimizer, state_dict: dict[str, Any]) -> None:
        found = _fitted(self, state_dict, rules)
        if found is not None:
            state_dict, new = found
            log.warning(
                "the optimizer goes on from a point network's checkpoint: %d parameters of the swapped neurons, which "
                "it does not have, start without a state", new,
            )  # fmt: skip
        original(self, state_dict)

    torch.optim.Optimizer.load_state_dict = load_state_dict  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.optim.Optimizer.load_state_dict = original  # type: ignore[method-assign]


def _fitted(
    optimizer: torch.optim.Optimizer, state_dict: dict[str, Any], rules: Iterable[SwapRule]
) -> tuple[dict[str, Any], int] | None:
    """The state with room for the nodes' parameters, and their number; None where it is not the point network's."""
    saved, groups = state_dict.get("param_groups", []), optimizer.param_groups
    if len(saved) != len(groups):
        return None
    pairs = list(zip(saved, groups, strict=True))
    if all(len(group["params"]) == len(now["params"]) for group, now in pairs):
        return None
    owners = {id(p): node for rule in rules for node in rule.nodes for p in node.parameters()}
    fresh = max((i for group in saved for i in group["params"]), default=-1)
    state, fitted, seen, new = dict(state_dict["state"]), [], set(), 0
    for group, now in pairs:
        left, ids = iter(group["params"]), []
        for parameter in now["params"]:
            node = owners.get(id(parameter))
            if node is None:
                ids.append(next(left, None))
                continue
            if id(node) not in seen:  # the point neuron's own stood here: what they learned goes by another name now
                seen.add(id(node))
                held = replaced(node)
                for _ in held.original.parameters() if held is not None else ():
                    state.pop(next(left, None), None)
            fresh, new = fresh + 1, new + 1
            ids.append(fresh)
        if None in ids or next(left, None) is not None:
            return None
        names = {"param_names": now["param_names"]} if "param_names" in now else {}
        fitted.append({**{key: value for key, value in group.items() if key != "param_names"}, **names, "params": ids})
    return {**state_dict, "state": state, "param_groups": fitted}, new
