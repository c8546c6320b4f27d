"""Conversion of networks to dendritic, learned-dynamics and time-to-first-spike neurons, and back."""

from .api import convert, report, revert
from .report import ConversionReport, Report

__all__ = ["ConversionReport", "Report", "convert", "report", "revert"]
