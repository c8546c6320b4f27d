"""What needs a GPU, hours or data runs when it is named, and only then."""

from __future__ import annotations

import pytest
import torch
from places import TESTS

MARKED = """
import pytest

def test_plain(): pass

@pytest.mark.gpu
def test_gpu(): pass

@pytest.mark.long
def test_long(): pass

@pytest.mark.gpu
@pytest.mark.long
def test_both(): pass

@pytest.mark.data
def test_data(): pass
"""


@pytest.fixture
def ours(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A test folder with this project's conftest.py and one test of each kind."""
    monkeypatch.syspath_prepend("")  # puts sys.path back at the end
    monkeypatch.delenv("SNN_DENDRITE_DATA", raising=False)
    pytester.makeconftest((TESTS / "conftest.py").read_text())
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider\nmarkers =\n  gpu\n  long\n  data\n")
    pytester.makepyfile(MARKED)
    return pytester


@pytest.mark.parametrize(
    ("expression", "run"),
    [
        ("", {"plain"}),
        ("not data", {"plain"}),
        ("long", {"long"}),
        ("gpu", {"gpu"}),
        ("gpu and long", {"both"}),
        ("gpu or long", {"gpu", "long", "both"}),
    ],
)
def test_only_what_is_named(ours: pytest.Pytester, expression: str, run: set[str]) -> None:
    listed = ours.runpytest_inprocess("--collect-only", "-q", "-m", expression).outlines
    assert {line.partition("::test_")[2] for line in listed if "::" in line} == run


def test_what_is_named_and_cannot_run_fails(ours: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = ours.runpytest_inprocess("-m", "gpu or data")
    result.assert_outcomes(errors=2, deselected=3)
    result.stdout.fnmatch_lines(["*torch finds none on this machine*", "*needs SNN_DENDRITE_DATA*"])
