"""LNM trains where the point neuron trains: the table of examples/lnm_training.py."""

from __future__ import annotations

import subprocess
import sys

import pytest
from places import EXAMPLES

pytestmark = [pytest.mark.long, pytest.mark.data]


def table(*arguments: str) -> dict[tuple[str, float, str], tuple[float, float | None, int]]:
    """(script, rate, neuron) -> mean accuracy, mean before (finetune), runs whose parameters were lost."""
    command = [sys.executable, str(EXAMPLES / "lnm_training.py"), *arguments, "--images", "report"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    rows = {}
    for line in done.stdout.splitlines()[2:]:
        script, rate, rest = line.split(maxsplit=2)
        name, rest = rest[:13].strip(), rest[13:].split()
        means = [float(rest[i - 1]) for i, word in enumerate(rest) if word == "+-"]
        rows[script, float(rate), name] = (means[0], means[1] if len(means) > 1 else None, int(rest[-3]))
    return rows


def test_within_three_points_of_the_point_neuron_at_usual_rates():
    rows = table()
    assert len(rows) == 8
    for (script, rate, name), (accuracy, before, lost) in rows.items():
        assert lost == 0
        if name == "LNM":
            assert accuracy > rows[script, rate, "point"][0] - 3
        if script == "finetune":
            assert accuracy > before - 0.5


def test_no_run_is_lost_at_high_rates():
    rows = table("tutorial", "bptt", "spikingjelly", "--rates", "1e-4", "1e-3", "1e-2", "3e-2", "--neurons", "LNM")
    assert len(rows) == 12
    assert not any(lost for _, _, lost in rows.values())


def test_the_polynomial_alone_is_lost():
    (row,) = table("tutorial", "--seeds", "1", "--neurons", "polynomial").values()
    assert row[2] == 1
