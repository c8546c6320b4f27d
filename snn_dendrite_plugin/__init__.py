"""Dendritic, learned-dynamics and time-to-first-spike neurons as native nodes of SpikingJelly and snnTorch.

Importing this package adds the neurons to the hosts, ``spikingjelly.activation_based.neuron`` and ``snntorch``, whether
those are imported before or after it. It loads neither them nor torch: the names below are imported when first used.

Example:
    >>> import snn_dendrite_plugin as sdp
    >>> from snntorch import Dendritic
    >>> neuron = Dendritic(beta=0.9, branches=4)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .activation import activate, deactivate
from .hookspecs import hookimpl

if TYPE_CHECKING:
    from . import conversion as conversion
    from . import layers as layers
    from . import plotting as plotting
    from . import swap as swap
    from .conversion.api import ConversionReport, convert, report, revert
    from .figures.api import summary
    from .kernels.providers import use_provider
    from .neurons.base import Firing, NeuronModel
    from .neurons.finite import check_finite

    __version__: str

__all__ = [
    "ConversionReport",
    "Firing",
    "NeuronModel",
    "__version__",
    "activate",
    "check_finite",
    "convert",
    "deactivate",
    "hookimpl",
    "report",
    "revert",
    "summary",
    "use_provider",
]

_HOMES = {
    "ConversionReport": ".conversion",
    "convert": ".conversion",
    "check_finite": ".neurons.finite",
    "Firing": ".neurons.base",
    "NeuronModel": ".neurons.base",
    "report": ".conversion",
    "revert": ".conversion",
    "summary": ".figures",
    "use_provider": ".kernels.providers",
}
_MODULES = ("conversion", "layers", "plotting", "swap")  # sdp.plotting.raster(...), without an import of its own


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = importlib.import_module("importlib.metadata").version("snn-dendrite-plugin")
    elif name in _MODULES:
        value = importlib.import_module(f".{name}", __name__)
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name], __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})


activate()
