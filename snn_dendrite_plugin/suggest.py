"""What a misspelt name was meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["did_you_mean", "one_of"]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'b'?"`` for the known name that is most like ``name``, or nothing where none is.

    Example:
        >>> did_you_mean("branhces", ["branches", "beta"])
        "; did you mean 'branches'?"
        >>> did_you_mean("lifnode", ["LIFNode"]), did_you_mean("xyz", ["branches"])
        ("; did you mean 'LIFNode'?", '')
    """
    spelled = {word.lower(): word for word in known}
    found = difflib.get_close_matches(name.lower(), spelled, n=1)
    return f"; did you mean {spelled[found[0]]!r}?" if found else ""


def one_of(what: str, value: str, known: Iterable[str]) -> str:
    """The value, where it is one of those known.

    Raises:
        ValueError: it is not; the message lists them, and the one that was probably meant.
    """
    known = list(known)
    if value not in known:
        raise ValueError(f"{what} is {value!r}; it must be one of {', '.join(known)}{did_you_mean(value, known)}")
    return value
