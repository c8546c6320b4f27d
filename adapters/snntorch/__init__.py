"""snnTorch: every registered neuron model as ``snntorch.<Name>``, a native neuron of the host.

``snn.Dendritic``, ``snn.LNM`` and ``snn.TTFS`` take one time step per call, ``snn.DendriticParallel`` and
``snn.LNMParallel`` a whole sequence. ``snntorch.utils.reset`` and ``snntorch.backprop`` know them.

The classes are made on demand: editors and pickles look for them here.
"""

from __future__ import annotations

import importlib
from typing import Any

import snntorch  # noqa: F401  before any module here: its import installs the models, by way of the adapter


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(".adapter", __name__).adapter.resolve(name)
