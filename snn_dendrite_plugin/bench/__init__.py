"""Measurements behind ``snn-dendrite bench``."""

from .measure import bench, environment, plot, table, write_csv

__all__ = ["bench", "environment", "plot", "table", "write_csv"]
