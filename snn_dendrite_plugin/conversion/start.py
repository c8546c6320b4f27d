"""What a converted neuron starts from: the function it replaces, the paper's values, or the model's own defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..neurons.base import NeuronModel

__all__ = ["STARTS", "no_place_for_current", "start_arguments"]

STARTS = ("preserve", "published", "fresh")

# Host arguments that training sees and the forward function does not.
_HARMLESS = ("surrogate_function", "spike_grad", "store_v_seq", "detach_reset", "surrogate_disable")


def start_arguments(
    model_class: type[NeuronModel],
    name: str,
    start: str,
    given: Mapping[str, Any],
    branches: int | None = None,
    current: float | None = None,
) -> dict[str, Any]:
    """The model's arguments for a start, the user's over ours.

    Args:
        model_class: the model; name: what messages call it.
        start: one of ``STARTS``.
        given: the user's arguments.
        branches: number of channels that the neuron's layer sends it, None for the one of a point neuron.
        current: decay of the synaptic current that the point neuron has, None where it has none.

    Raises:
        ValueError: the start is unknown or the model has none such, or an argument contradicts ``start="preserve"``.
    """
    if start not in STARTS:
        raise ValueError(f"start is {start!r}; it must be one of {', '.join(STARTS)}")
    wired = {} if branches is None else dict(model_class.wired(branches) or {})
    if start == "fresh":
        return {**wired, **given}
    if start == "published":
        published = model_class.published_start()
        if published is None:
            raise ValueError(f"start is 'published', which is not known for {name}; use 'preserve' or 'fresh'")
        return {**wired, **published, **given}
    preserving = model_class.preserving_start()
    if preserving is None:
        raise ValueError(
            f"start is 'preserve', but {name} does not say how it keeps the function of a point neuron (class method "
            f"preserving_start); pass start='fresh' to start from its defaults"
        )
    if current is not None:
        preserving = {**preserving, **(model_class.filtered(current) or {})}
    needed = {**preserving, "fire_once": False}
    for argument, value in given.items():
        if argument in needed and not _same(value, needed[argument]):
            raise ValueError(
                f"{argument} is {value!r}, which changes what the network computes; start='preserve' needs "
                f"{argument}={needed[argument]!r}; pass start='fresh' to take it as given"
            )
    return {**wired, **{key: value for key, value in preserving.items() if value is not None}, **given}


def no_place_for_current(model_class: type[NeuronModel], name: str, current: float | None) -> str | None:
    """The reason why the model cannot take the place of a point neuron with this synaptic current, or None."""
    if current is None or model_class.filtered(current) is not None:
        return None
    return f"has a synaptic current, for which {name} has no place"


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
