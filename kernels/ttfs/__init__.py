"""The clock-driven TTFS pair: one registered op, one contract, several providers."""

from .contract import Settings
from .op import ttfs

__all__ = ["Settings", "ttfs"]
