"""What several commands read and say alike: settings given as ``NAME=VALUE``, and where something comes from."""

from __future__ import annotations

import ast
import importlib.metadata
from collections.abc import Iterable
from typing import Any

__all__ = ["parse_settings", "source", "version_of"]


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """``["branches=4"]`` -> ``{"branches": 4}``; values are Python literals, a bare word is a string.

    Raises:
        ValueError: no ``NAME=VALUE``, or a value that is no literal.

    Example:
        >>> parse_settings(["branches=4", "alpha=[0.5, 0.9]", "activation=relu", "learn_alpha=True"])
        {'branches': 4, 'alpha': [0.5, 0.9], 'activation': 'relu', 'learn_alpha': True}
    """
    settings: dict[str, Any] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not name.isidentifier():
            raise ValueError(f"--set is {text!r}; it must read NAME=VALUE, for example branches=4")
        try:
            settings[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            if not value.isidentifier():
                needed = "it must be a Python literal, such as 4, 0.5 or 'relu'"
                raise ValueError(f"--set {name} is {value!r}; {needed}") from None
            settings[name] = value
    return settings


def version_of(distribution: str) -> str | None:
    """The version of an installed distribution, without importing it; None where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def source(item: dict[str, Any]) -> str:
    """Distribution and version of a model or plugin."""
    return f"{item['distribution']} {item['version']}" if item["distribution"] else "registered at run time"
