"""When a neuron is reset, and to what: the rule of :mod:`.contract` as pure functions, for the reference and for models
written in Python.

``r`` is the reset that the step before still owes (delayed timings): 1 where its stored potential lies at or above the
threshold, without a gradient; None where every reset is carried out at once. A step goes ::

    r = owed(u, threshold, rule)
    h = charged(P(carried(u, r, rule)) + y, r, by, rule)
    s = Theta(h - threshold)
    u = after_reset(h, s, r, by, rule)

``by`` is what a soft reset subtracts: the threshold, or what a model puts in its place.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

__all__ = ["Rule", "after_reset", "carried", "charged", "owed"]


class Rule(Protocol):
    """The fields of ``Settings`` and of ``neurons.Firing`` that these functions read."""

    @property
    def reset(self) -> str: ...
    @property
    def timing(self) -> str: ...
    @property
    def v_reset(self) -> float: ...
    @property
    def strict(self) -> bool: ...
    @property
    def detach(self) -> bool: ...


def owed(u: Tensor, threshold: Tensor | float, rule: Rule) -> Tensor | None:
    """``r`` of the stored potential ``u [N, C, *]``, in its dtype."""
    if rule.timing == "at_once" or rule.reset == "none":
        return None
    distance = (u - threshold).detach()
    return (distance > 0 if rule.strict else distance >= 0).to(u.dtype)


def carried(u: Tensor, r: Tensor | None, rule: Rule) -> Tensor:
    """``u`` as the soma's own dynamics see it: a delayed hard reset comes before them, at any ``v_reset``."""
    return u if r is None or rule.reset != "hard" else (1 - r) * u + r * rule.v_reset


def charged(h: Tensor, r: Tensor | None, by: Tensor | float, rule: Rule) -> Tensor:
    """``h = P(u) + y`` as it is compared with the threshold: a delayed soft reset comes after the dynamics."""
    return h if r is None or rule.reset != "soft" else h - r * by


def after_reset(h: Tensor, s: Tensor, r: Tensor | None, by: Tensor | float, rule: Rule) -> Tensor:
    """The potential that is stored, from ``h`` and the spikes."""
    if rule.timing == "next_step" or rule.reset == "none":
        return h
    reset = s.detach() if rule.detach else s
    reset = reset if r is None else reset - r
    return h - reset * by if rule.reset == "soft" else (1 - reset) * h + reset * rule.v_reset
