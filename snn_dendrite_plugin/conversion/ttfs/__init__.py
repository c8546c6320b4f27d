"""ReLU networks to time-to-first-spike networks (Stanojevic et al. 2024), and these on a clock."""

from .network import TTFSNetwork
from .relu import convert_relu, to_ttfs
from .report import TTFSReport

__all__ = ["TTFSNetwork", "TTFSReport", "convert_relu", "to_ttfs"]
