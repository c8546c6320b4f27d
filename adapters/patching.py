"""Replacing what a host has no hook for, in modules that are loaded or will be, so that it can be put back.

A host's tools (its counters, its NIR exchange) live in modules that most programs never import. A :class:`Patches`
holds one function per such module, which runs when the module is, or gets, imported while the patches are wanted.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import wrapt

__all__ = ["Patches"]

log = logging.getLogger("snn_dendrite_plugin")


class Patches:
    """What is replaced in a host's modules; ``table`` maps a module's name to the function that replaces things in it.

    The function gets this object and the module, and calls :meth:`replace` or :meth:`undo`.
    """

    def __init__(self, table: Mapping[str, Callable[[Patches, ModuleType], None]]) -> None:
        self.table = dict(table)
        self.active = False
        self._waiting: set[str] = set()
        self._applied: set[str] = set()
        self._undo: list[Callable[[], None]] = []

    def patch(self) -> None:
        """Apply to every module that is loaded, and to the others when they are; does nothing the second time."""
        self.active = True
        for name in self.table:
            if name in sys.modules:
                self._on_import(name, sys.modules[name])
            elif name not in self._waiting:
                self._waiting.add(name)  # wrapt's hooks fire once and cannot be taken back
                wrapt.register_post_import_hook(functools.partial(self._on_import, name), name)

    def unpatch(self) -> None:
        """Put everything back. What others have wrapped since stays, and does as the original did."""
        self.active = False
        while self._undo:
            self._undo.pop()()
        self._applied.clear()

    def _on_import(self, name: str, module: ModuleType) -> None:
        self._waiting.discard(name)
        if self.active and name not in self._applied:
            self._applied.add(name)
            try:
                self.table[name](self, module)
            except Exception as error:  # another version of the host: its own module goes on without us
                log.warning("%s is left as it is: %s: %s", name, type(error).__name__, error)

    def replace(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Put ``make(original)`` in the place of ``owner.name``; ``owner`` is a module or a class that has it."""
        if name not in vars(owner):
            raise AttributeError(f"{owner.__name__} has no {name} of its own to replace")
        original = vars(owner)[name]
        ours = make(original)
        setattr(owner, name, ours)

        def back() -> None:
            if vars(owner).get(name) is ours:
                setattr(owner, name, original)

        self.undo(back)

    def undo(self, action: Callable[[], None]) -> None:
        """Have ``action`` run when the patches are taken back, the latest first."""
        self._undo.append(action)
