"""The table writer: plain columns, folded to a width, and Markdown."""

from __future__ import annotations

import hypothesis
import pytest
from hypothesis import strategies

from snn_dendrite_plugin import tables

WORDS = strategies.text("abcdef._/", min_size=1, max_size=14)
CELLS = strategies.lists(WORDS, max_size=8).map(" ".join)
COLUMNS = ["name", "what it is", "notes"]


@hypothesis.given(strategies.lists(strategies.tuples(CELLS, CELLS, CELLS), max_size=6), strategies.integers(22, 90))
def test_every_cell_is_whole_and_no_line_is_longer_than_the_width(rows, width):
    text = tables.plain(COLUMNS, rows, width=width)
    lines = text.splitlines()
    assert all(len(line) <= width and line == line.rstrip() for line in lines)
    used = [i for i in range(3) if not rows or any(row[i] for row in rows)] or [0]
    wanted = [COLUMNS[i] + row[i] for row in [[""] * 3] for i in used] + [row[i] for row in rows for i in used]
    assert sorted(text.replace("\n", "").replace(" ", "")) == sorted("".join(wanted).replace(" ", ""))


def test_words_are_folded_before_they_are_broken():
    rows = [["layer1.0.downsample_sn1", "some words that can be folded"]]
    at_45 = tables.plain(["neuron", "notes"], rows, width=45).splitlines()
    assert at_45[1].split() == ["layer1.0.downsample_sn1", "some", "words", "that", "can"]
    at_20 = tables.plain(["neuron", "notes"], rows, width=20).splitlines()
    assert at_20[1].startswith("layer1.0.")  # broken after a mark, not in the midst of a name
    assert max(map(len, at_20)) <= 20


def test_columns_without_content_are_left_out_but_a_table_without_rows_has_its_header():
    assert tables.plain(["a", "b"], [["x", ""], ["y", ""]]) == "a\nx\ny"
    assert tables.plain(["a", "b"], []) == "a  b"


def test_numbers_align_right_and_cells_may_hold_anything():
    assert tables.plain(["a", "count"], [["[red]x|", 7]], right=["count"]).splitlines()[1] == "[red]x|      7"


@pytest.mark.parametrize("padded", [True, False])
def test_markdown_keeps_bars_out_of_the_cells(padded):
    lines = tables.markdown(["a", "n"], [["x|y", 3]], right=["n"], padded=padded).splitlines()
    assert len(lines) == 3
    assert lines[2].replace("\\|", "").count("|") == 3
    assert lines[1].rstrip("| ").endswith(":")
