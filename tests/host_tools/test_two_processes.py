"""Training in two processes (gloo) equals training in one: spikes, weights, and checkpoints of sharded weights."""

from __future__ import annotations

from pathlib import Path

import fresh
import pytest
from places import SUPPORT

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.wide,
    pytest.mark.skipif(
        not (torch.distributed.is_available() and torch.distributed.is_gloo_available()), reason="torch without gloo"
    ),
]

LIMIT = 60  # seconds, of either process


def train(tool: str, host: str, name: str, folder: Path) -> None:
    pytest.importorskip(host)
    done = fresh.run_with_torch(
        SUPPORT / "two_processes.py", tool, host, name, folder,
        cwd=folder, OMP_NUM_THREADS="1", TWO_PROCESSES_LIMIT=str(LIMIT), PYTHONPATH=str(SUPPORT),
    )  # fmt: skip
    other = folder / "rank1"
    said = f"rank 0:\n{done.stdout}\n{done.stderr}\nrank 1:\n{other.read_text() if other.exists() else None}"
    assert done.returncode == 0, f"ended with {done.returncode}\n{said}"
    assert "rank 0: equal" in done.stdout, said
    assert "rank 1: equal" in other.read_text(), said


@pytest.mark.feature("DistributedDataParallel, two processes", host="SpikingJelly", neuron="{name}")
@pytest.mark.parametrize("name", ["DendSN", "LNM"])
def test_ddp_equals_one_process_in_spikingjelly(name, tmp_path):
    train("ddp", "spikingjelly", name, tmp_path)


@pytest.mark.feature("DistributedDataParallel, two processes", host="snnTorch", neuron="{name}")
@pytest.mark.parametrize("name", ["Dendritic", "LNM"])
def test_ddp_equals_one_process_in_snntorch(name, tmp_path):
    train("ddp", "snntorch", name, tmp_path)


@pytest.mark.feature("FSDP2 and distributed checkpoints, two processes", host="SpikingJelly", neuron="{name}")
@pytest.mark.parametrize("name", ["DendSN", "LNM"])
def test_fsdp2_and_its_checkpoints_equal_one_process_in_spikingjelly(name, tmp_path):
    train("fsdp2", "spikingjelly", name, tmp_path)


@pytest.mark.feature("FSDP2 and distributed checkpoints, two processes", host="snnTorch", neuron="{name}")
@pytest.mark.parametrize("name", ["Dendritic", "LNM"])
def test_fsdp2_and_its_checkpoints_equal_one_process_in_snntorch(name, tmp_path):
    train("fsdp2", "snntorch", name, tmp_path)
