"""Each example runs as a user would run it, with less work to do."""

from __future__ import annotations

import pytest
from fresh import run_with_torch
from places import EXAMPLES

QUICK = {  # example -> arguments that make it short, and what it must print
    "spikingjelly_dendsn.py": (["--epochs", "1", "--images", "200"], ["epoch 0: loss", "strengths of the first layer"]),
    "snntorch_dendritic.py": (["--epochs", "2", "--images", "200"], ["epoch 1: loss"]),
    "convert_zoo_model.py": (
        [],
        ["20 neurons to convert to DendSN, 0 kept", "15 neurons converted to DendSN, 5 kept", "reverted: LIFNode"],
    ),
    "lnm_training.py": (
        ["--seeds", "1", "--iterations", "2"],
        ["0.0005  LNM", "0.01  LNM", "0.001  LNM", "0 of 1"],
    ),
    "write_a_neuron.py": ([], ["SpikingJelly: spikes", "snnTorch:     spikes", "converted:    ALIF"]),
}


def test_every_example_is_tested():
    found = {path.name for path in EXAMPLES.glob("*.py") if not path.name.startswith("ttfs_")}
    assert found == set(QUICK)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_help_says_what_it_is_and_runs_nothing(path, tmp_path):
    if path.name == "ttfs_data.py":  # what the others import
        return
    done = run_with_torch("-P", path, "--help", cwd=tmp_path, PYTHONPATH=str(EXAMPLES))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage:")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", QUICK)
def test_example_runs(name, tmp_path):
    for host in ("spikingjelly", "snntorch", "sklearn"):
        pytest.importorskip(host)
    arguments, wanted = QUICK[name]
    done = run_with_torch("-P", EXAMPLES / name, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "PluginWarning" not in done.stderr
    for text in wanted:
        assert text in done.stdout
    assert list(tmp_path.iterdir()) == []  # leaves nothing behind
