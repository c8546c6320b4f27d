"""The soma-dendrite pair: one registered op, one contract, several providers."""

from .contract import Inputs, Outputs, Settings
from .op import soma_dendrite

__all__ = ["Inputs", "Outputs", "Settings", "soma_dendrite"]
