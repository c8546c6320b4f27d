"""Random programs of host operations agree with a plain loop; planted faults are found."""

from __future__ import annotations

from collections import Counter

import pytest

pytest.importorskip("spikingjelly")
pytest.importorskip("snntorch")

from programs.mutations import MUTATIONS
from programs.operations import outcome

pytestmark = pytest.mark.wide

COUNT, LONG = 200, 5000
# Of a hundred programs, at most so many in which a rounding may have decided, or a potential left for infinity.
UNDECIDED = 5


def check(seeds: range) -> None:
    results = [outcome(seed) for seed in seeds]
    counts = Counter(kind for kind, _ in results)
    print(dict(counts))
    wrong = [text for kind, text in results if kind == "disagree"]
    assert not wrong, f"{len(wrong)} of {len(seeds)} programs disagree\n" + "\n".join(wrong[:5])
    assert (counts["ambiguous"] + counts["diverged"]) * 100 <= UNDECIDED * len(seeds), counts


def test_programs_agree_with_the_plain_loop():
    check(range(COUNT))


@pytest.mark.long
def test_many_programs_agree_with_the_plain_loop():
    check(range(1000, 1000 + LONG))


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_planted_fault_is_found(mutation, monkeypatch):
    mutation(monkeypatch)
    assert any(outcome(seed)[0] == "disagree" for seed in range(COUNT)), f"{mutation.__name__} passes {COUNT} programs"
