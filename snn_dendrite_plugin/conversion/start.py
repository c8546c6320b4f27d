"""What a converted neuron starts from: the function it replaces, the paper's values, or the model's own defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..neurons.dendsn import DendSN, spread_decays
from ..neurons.lnm import LNM

__all__ = ["STARTS", "start_arguments"]

STARTS = ("preserve", "published", "fresh")

# Arguments that make a model compute what the point neuron did. A model outside this table states its own as the class
# attribute `preserving_start`.
_PRESERVING: dict[type, dict[str, Any]] = {
    DendSN: {"strength": "raw", "strength_init": 0.0, "direct": 1.0},
    LNM: {"theta": None},
}
_PUBLISHED: dict[type, dict[str, Any]] = {
    DendSN: {"strength": "softmax", "alpha": 0.5, "direct": 0.0, "scale_branch_input": False},
    LNM: {},
}
# Host arguments that training sees and the forward function does not.
_HARMLESS = ("surrogate_function", "spike_grad", "store_v_seq", "detach_reset", "surrogate_disable")


def _of(table: Mapping[type, dict[str, Any]], model_class: type) -> dict[str, Any] | None:
    return next((table[cls] for cls in model_class.__mro__ if cls in table), None)


def start_arguments(
    model_class: type, name: str, start: str, given: Mapping[str, Any], wiring: str = "shared"
) -> dict[str, Any]:
    """The model's arguments for a start, the user's over ours.

    Raises:
        ValueError: the start is unknown or the model has none such, or an argument contradicts ``start="preserve"``.
    """
    if start not in STARTS:
        raise ValueError(f"start is {start!r}; it must be one of {', '.join(STARTS)}")
    chosen: dict[str, Any] = {}
    if issubclass(model_class, DendSN) and wiring != "shared":
        branches = given.get("branches", 4)
        # In `fold` wiring nothing else sets branches apart that start with equal shares of one layer's weights.
        chosen = {"wiring": "fold", "scale_branch_input": True}
        if isinstance(branches, int) and branches > 0:
            chosen["alpha"] = spread_decays(branches)
    if start == "fresh":
        return {**chosen, **given}
    if start == "published":
        published = _of(_PUBLISHED, model_class)
        if published is None:
            raise ValueError(f"start is 'published', which is not known for {name}; use 'preserve' or 'fresh'")
        return {**chosen, **published, **given}
    preserving = getattr(model_class, "preserving_start", None) or _of(_PRESERVING, model_class)
    if preserving is None:
        raise ValueError(
            f"start is 'preserve', but {name} does not say how it keeps the function of a point neuron (class "
            f"attribute preserving_start); pass start='fresh' to start from its defaults"
        )
    for argument, value in given.items():
        needed = {**preserving, "fire_once": False}
        if argument in needed and not _same(value, needed[argument]):
            raise ValueError(
                f"{argument} is {value!r}, which changes what the network computes; start='preserve' needs "
                f"{argument}={needed[argument]!r}; pass start='fresh' to take it as given"
            )
    return {**chosen, **{key: value for key, value in preserving.items() if value is not None}, **given}


def check_host_arguments(neuron: str, read: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """With ``start="preserve"`` an argument of the host may repeat the neuron's value, not change it.

    Raises:
        ValueError: an argument differs from that of the neuron it would replace.
    """
    for argument in given:
        if argument not in read or argument in _HARMLESS or argument.startswith("learn"):
            continue
        if not _same(given[argument], read[argument]):
            raise ValueError(
                f"{argument} is {given[argument]!r}, but neuron {neuron} has {read[argument]!r}; start='preserve' "
                f"keeps the function: leave {argument} out, or pass start='fresh'"
            )


def _same(given: Any, needed: Any) -> bool:
    if given is None or needed is None or isinstance(given, (str, bool)) or isinstance(needed, (str, bool)):
        return given is needed or given == needed
    try:
        ours, theirs = (torch.as_tensor(value, dtype=torch.float64).cpu() for value in (given, needed))
        return bool((ours == theirs).all())
    except (TypeError, ValueError, RuntimeError):
        return given is needed
