"""SpikingJelly: every registered neuron model as ``spikingjelly.activation_based.neuron.<Name>``, layers in ``layer``.

The classes are made on demand: editors and pickles look for them here.
"""

from __future__ import annotations

import importlib
from typing import Any

import spikingjelly.activation_based.neuron  # noqa: F401  before any module here: its import installs the models


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(".adapter", __name__).adapter.resolve(name)
