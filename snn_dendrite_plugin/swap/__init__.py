"""Exchanging the neurons of a script that nobody edits: ``snn-dendrite run --swap``."""

from .rules import SwapRule, plan_swaps, swappable
from .stand_in import swapping

__all__ = ["SwapRule", "plan_swaps", "swappable", "swapping"]
