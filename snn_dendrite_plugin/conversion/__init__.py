"""Conversion of networks to dendritic, learned-dynamics and time-to-first-spike neurons, and back."""

from .api import convert, report, revert
from .report import ConversionReport

__all__ = ["ConversionReport", "convert", "report", "revert"]
