"""Conversion of networks to dendritic, learned-dynamics and time-to-first-spike neurons.

``snn_dendrite_plugin.convert`` is both this subpackage and the function that users call. The import system binds the
subpackage to that name, so the subpackage can be called: ``sdp.convert(model, to="DendSN")`` is
:func:`snn_dendrite_plugin.convert.api.convert`. Importing it loads no torch.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import ConversionReport, convert, report, revert

__all__ = ["ConversionReport", "convert", "report", "revert"]


class _CallableModule(ModuleType):
    """A module that forwards calls, and its signature, to its function ``convert``."""

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        return self.convert(*args, **keywords)

    def __getattr__(self, name: str) -> Any:
        if name in __all__:
            return getattr(importlib.import_module(f"{__name__}.api"), name)
        if name == "__signature__":
            return importlib.import_module("inspect").signature(self.convert)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        # The import system binds submodules here; a public name stays the function, not the submodule of that name.
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _CallableModule
