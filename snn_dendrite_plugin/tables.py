"""The one writer of text tables: plain columns, folded to a width where one is given, and Markdown."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

__all__ = ["markdown", "plain"]

_GAP = "  "
_NARROWEST = 6  # columns are not folded below this
_BREAKS = "._/-:,="  # a word that is too long for its column is broken after one of these, if it has one
_PARTS = re.compile(rf"[^\s{re.escape(_BREAKS)}]*[{re.escape(_BREAKS)}]?")


def plain(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    right: Collection[str] = (),
    width: int | None = None,
    rule: bool = False,
) -> str:
    """A table of columns that blanks keep apart; a column that is empty in every row is left out.

    Args:
        columns: the header, one text per column.
        rows: cells, as many per row as there are columns; ``str`` makes them text.
        right: the columns to align right.
        width: fold cells between words, so that no line is longer (as far as ``6`` characters per column allow). None:
            one line per row.
        rule: draw a line under the header.

    Example:
        >>> print(plain(["layer", "spikes", "note"], [["conv1", 12, ""], ["fc", 3, ""]], right=["spikes"]))
        layer  spikes
        conv1      12
        fc          3
        >>> print(plain(["layer", "note"], [["block1.conv", "is made of several words"]], width=20, rule=True))
        layer        note
        -----------  -------
        block1.conv  is made
                     of
                     several
                     words
    """
    body = [[str(cell) for cell in row] for row in rows]
    used = [i for i in range(len(columns)) if not body or any(row[i] for row in body)] or [0]
    header = [columns[i] for i in used]
    body = [[row[i] for i in used] for row in body]
    widths = _widths([header, *body], width)
    flush = [column in right for column in header]
    lines = _row(header, widths, flush)
    if rule:
        lines.append(_GAP.join("-" * w for w in widths))
    for row in body:
        lines += _row(row, widths, flush)
    return "\n".join(lines)


def markdown(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], right: Collection[str] = (), padded: bool = True
) -> str:
    """The same table in Markdown, one line per row; ``padded`` gives the cells of a column the same width.

    Example:
        >>> print(markdown(["layer", "spikes"], [["conv1", 12], ["fc", 3]], right=["spikes"]))
        | layer | spikes |
        |-------|-------:|
        | conv1 |     12 |
        | fc    |      3 |
    """
    lines = [[str(cell).replace("|", "\\|") for cell in row] for row in [columns, *rows]]
    if not padded:
        marks = ["--:" if column in right else "---" for column in columns]
        return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], marks, *lines[1:]])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    flush = [column in right for column in columns]
    marks = ["-" * (w + 1) + ":" if r else "-" * (w + 2) for w, r in zip(widths, flush, strict=True)]
    drawn = ["| " + " | ".join(_aligned(line, widths, flush)) + " |" for line in lines]
    return "\n".join([drawn[0], "|" + "|".join(marks) + "|", *drawn[1:]])


def _aligned(cells: Sequence[str], widths: Sequence[int], flush: Sequence[bool]) -> list[str]:
    return [cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(cells, widths, flush, strict=True)]


def _row(cells: Sequence[str], widths: Sequence[int], flush: Sequence[bool]) -> list[str]:
    """The lines of one row: its cells folded side by side."""
    folded = [_fold(cell, w) for cell, w in zip(cells, widths, strict=True)]
    height = max(map(len, folded), default=0)
    padded = [lines + [""] * (height - len(lines)) for lines in folded]
    return [_GAP.join(_aligned(line, widths, flush)).rstrip() for line in zip(*padded, strict=True)]


def _widths(lines: Sequence[Sequence[str]], limit: int | None) -> list[int]:
    """Widths of the columns: what they hold, or less where that is longer than ``limit``."""
    columns = list(zip(*lines, strict=True))
    widths = [max(map(len, column)) for column in columns]
    if limit is None:
        return widths
    room = limit - len(_GAP) * (len(widths) - 1)
    # Folded first between words; then, if need be, in the midst of them, after a mark; and then anywhere.
    words = [max((len(word) for cell in column for word in cell.split()), default=0) for column in columns]
    parts = [max((len(part) for cell in column for part in _PARTS.findall(cell)), default=0) for column in columns]
    for least in (words, parts, [min(_NARROWEST, w) for w in words]):
        while sum(widths) > room:
            wide = [i for i in range(len(widths)) if widths[i] > least[i]]
            if not wide:
                break
            widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def _fold(cell: str, width: int) -> list[str]:
    """The lines of a cell, none longer than ``width``, broken between words where they are short enough."""
    lines, line = [], ""
    for word in cell.split(" "):
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = ""
        line = f"{line} {word}" if line else word
        while len(line) > width:
            head = line[:width]
            cut = max(head.rfind(mark) for mark in _BREAKS) + 1 or width
            lines.append(line[:cut])
            line = line[cut:]
    return [*lines, line]
