"""Measurements behind ``snn-dendrite bench``."""

from .measure import TRAINING, bench, check, environment, plot, table, write_csv

__all__ = ["TRAINING", "bench", "check", "environment", "plot", "table", "write_csv"]
