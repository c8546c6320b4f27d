"""One training run in two processes, by DDP or FSDP2 over gloo, against the same run in one process.

``python two_processes.py TOOL HOST NEURON FOLDER``, TOOL being ``ddp`` or ``fsdp2``. It forks: both train on their
half of every batch, compare weights and spikes with a run of the whole batch, and print ``rank R: equal``. What rank 1
says is in ``FOLDER/rank1``. The exit code is 0 where both found everything equal; 124 after the limit.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, distributed, nn

LIMIT = float(os.environ.get("TWO_PROCESSES_LIMIT", "60"))  # seconds
STEPS, BATCH, FEATURES = 3, 4, 6
COUNT = int(os.environ.get("TWO_PROCESSES_STEPS", "3"))  # training steps

Net = nn.Module


class SpikingJellyNet(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        from spikingjelly.activation_based import functional, layer, neuron

        options = {"strength_init": 0.4} if name == "DendSN" else {}
        node = lambda: getattr(neuron, name)(tau=2.0, v_threshold=0.3, **options)  # noqa: E731
        self.layers = nn.Sequential(layer.Linear(FEATURES, 8), node(), layer.Linear(8, 4), node())
        functional.set_step_mode(self, "m")
        self.restart, self.cut = functional.reset_net, functional.detach_net

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class SnnTorchNet(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        import snntorch as snn

        options = {"strength_init": 0.4} if name == "Dendritic" else {}
        node = lambda: getattr(snn, name)(beta=0.8, threshold=0.6, init_hidden=True, **options)  # noqa: E731
        self.layers = nn.Sequential(nn.Linear(FEATURES, 8), node(), nn.Linear(8, 4), node())

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.layers(step) for step in x])

    def restart(self, net: Net) -> None:
        for module in net.modules():
            if hasattr(module, "reset_mem"):
                module.reset_mem()

    def cut(self, net: Net) -> None:
        for module in net.modules():
            if hasattr(module, "detach_mem"):
                module.detach_mem()


NETS = {"spikingjelly": SpikingJellyNet, "snntorch": SnnTorchNet}


def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(STEPS, BATCH, FEATURES, generator=generator, dtype=torch.float64) * 2 for _ in range(COUNT)]


def made(host: str, name: str) -> Net:
    """The network in float64, its per-layer parameters made, without states."""
    torch.manual_seed(0)
    net = NETS[host](name).double()
    with torch.no_grad():
        net(batches()[0][:, :1])
    net.restart(net)
    return net


def trained(run: Net, own: Net, part: slice) -> list[Tensor]:
    """Train on ``part`` of each batch, states carried from one to the next, cut from the graph; spikes of each step."""
    optimizer = torch.optim.SGD(run.parameters(), lr=0.5)
    spikes = []
    for x in batches():
        y = run(x[:, part])
        loss = ((y.mean(0) - 0.3) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        own.cut(own)
        spikes.append(y.detach())
    return spikes


def whole(value: Tensor) -> Tensor:
    return (value.full_tensor() if hasattr(value, "full_tensor") else value).detach()


def same(what: str, found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11, msg=lambda m: f"{what}: {m}")


def compare(tool: str, host: str, name: str, rank: int, folder: Path) -> None:
    alone = made(host, name)
    start = [parameter.detach().clone() for parameter in alone.parameters()]
    expected = trained(alone, alone, slice(None))
    assert any(step.any() for step in expected), "no spikes: nothing was compared"
    assert any(not torch.equal(a, b) for a, b in zip(start, alone.parameters(), strict=True)), "nothing was learned"

    distributed.init_process_group(
        "gloo", f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=LIMIT)
    )
    net = made(host, name)
    part = slice(rank * BATCH // 2, (rank + 1) * BATCH // 2)
    if tool == "ddp":
        run = nn.parallel.DistributedDataParallel(net)
    else:
        from torch.distributed.fsdp import fully_shard

        mesh = distributed.init_device_mesh("cpu", (2,))
        for layer in net.layers:
            if any(True for _ in layer.parameters()):
                fully_shard(layer, mesh=mesh)
        run = fully_shard(net, mesh=mesh)
    found = trained(run, net, part)
    for step, (y, reference) in enumerate(zip(found, expected, strict=True)):
        same(f"spikes of batch {step}", y, reference[:, part])
    for (key, value), reference in zip(net.named_parameters(), alone.parameters(), strict=True):
        same(key, whole(value), reference.detach())
    if tool == "fsdp2":
        through_checkpoint(run, alone, lambda: made(host, name), folder)
    distributed.barrier()
    distributed.destroy_process_group()
    print(f"rank {rank}: equal", flush=True)


def through_checkpoint(run: Net, alone: Net, fresh, folder: Path) -> None:
    """The sharded weights, saved by both, are read into a sharded and into a plain network, and are the same."""
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict
    from torch.distributed.fsdp import fully_shard

    checkpoint.save(get_model_state_dict(run), checkpoint_id=folder / "checkpoint")
    for again in (fully_shard(fresh(), mesh=distributed.init_device_mesh("cpu", (2,))), fresh()):
        state = get_model_state_dict(again)
        checkpoint.load(state, checkpoint_id=folder / "checkpoint")
        set_model_state_dict(again, state)
        for (key, value), reference in zip(again.named_parameters(), alone.parameters(), strict=True):
            same(f"{key} from the checkpoint", whole(value), reference.detach())


def main(tool: str, host: str, name: str, folder: str) -> int:
    torch.set_num_threads(1)
    NETS[host](name)  # imports the host
    place = Path(folder)
    child = os.fork()
    if not child:
        descriptor = os.open(place / "rank1", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
    faulthandler.enable()
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    compare(tool, host, name, 1 if not child else 0, place)
    if not child:
        sys.stdout.flush()
        return 0
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return abs(os.waitstatus_to_exitcode(status))
        time.sleep(0.01)
    return 124


if __name__ == "__main__":
    import snn_dendrite_plugin  # noqa: F401

    sys.exit(main(*sys.argv[1:]))
