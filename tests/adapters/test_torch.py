"""torch's own tools around the nodes of both hosts, where their states come in."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

pytest.importorskip("spikingjelly")
pytest.importorskip("snntorch")

import snntorch as snn  # noqa: E402
from spikingjelly.activation_based import functional, memopt, neuron  # noqa: E402

import snn_dendrite_plugin  # noqa: E402, F401

pytestmark = pytest.mark.wide

NODES = {
    "DendSN": lambda: neuron.DendSN(strength_init=0.3),
    "SpikingJelly LNM": lambda: neuron.LNM(),
    "Dendritic": lambda: snn.Dendritic(0.9, init_hidden=True, strength_init=0.3),
    "snnTorch LNM": lambda: snn.LNM(0.9, init_hidden=True),
    "snnTorch TTFS": lambda: snn.TTFS(3, init_hidden=True),
}
SNNTORCH = ["Dendritic", "snnTorch LNM", "snnTorch TTFS"]
LEARNED = [name for name in NODES if "TTFS" not in name]


@pytest.fixture(params=NODES)
def net(request):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), NODES[request.param]())


def reset(net):
    net[1].reset() if hasattr(net[1], "reset") else net[1].reset_mem()


def spikes(net, x):
    return torch.stack([net(step) for step in x])


def test_states_are_no_buffers(net):
    before = [name for name, _ in net.named_buffers()]
    spikes(net, torch.rand(2, 3, 3))
    assert [name for name, _ in net.named_buffers()] == before
    assert not {name.split(".")[-1] for name in before} & {"mem", "v", "v_dend", "charge", "clock"}


@pytest.mark.feature("AveragedModel made before the first call", host="SpikingJelly", neuron="DendSN, LNM")
@pytest.mark.feature("AveragedModel made before the first call", host="snnTorch", neuron="Dendritic, LNM, TTFS")
@pytest.mark.parametrize("use_buffers", [False, True])
def test_averaged_models_may_be_made_at_any_time(net, use_buffers):
    averaged = AveragedModel(net, use_buffers=use_buffers)
    for batch in (2, 5):
        reset(net)
        spikes(net, torch.rand(2, batch, 3))
        averaged.update_parameters(net)
    reset(averaged.module)
    reset(net)
    x = 2 * torch.rand(6, 2, 3)
    assert torch.equal(spikes(averaged, x), spikes(net, x))


@pytest.mark.feature("torch.compile, steps, any batch size", host="SpikingJelly", neuron="DendSN, LNM")
@pytest.mark.feature("torch.compile, steps, any batch size", host="snnTorch", neuron="Dendritic, LNM, TTFS")
@pytest.mark.parametrize("dynamic", [None, True])
def test_compiled_steps_take_batches_of_any_size(net, dynamic):
    torch._dynamo.reset()
    graphs = CompileCounter()
    compiled = torch.compile(net, backend=graphs, dynamic=dynamic)
    for batch in range(2, 9):
        reset(net)
        x = 2 * torch.rand(3, batch, 3)
        found = spikes(compiled, x)
        reset(net)
        assert torch.equal(found, spikes(net, x))
    assert graphs.frame_count <= 4


@pytest.mark.feature("torch.export, dynamic batch", host="SpikingJelly", neuron="DendSN, LNM")
@pytest.mark.feature("torch.export, dynamic batch", host="snnTorch", neuron="Dendritic, LNM")
@pytest.mark.parametrize("net", LEARNED, indirect=True)
def test_export_with_a_batch_of_any_size(net):
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(net, (torch.rand(4, 3),), dynamic_shapes=(batch,)).module()
    x = 3 * torch.rand(7, 3)
    assert torch.equal(program(x), net(x))


@pytest.mark.feature("training after inference mode", host="SpikingJelly", neuron="DendSN, LNM")
@pytest.mark.feature("training after inference mode", host="snnTorch", neuron="Dendritic, LNM, TTFS")
def test_training_goes_on_from_inference_mode(net):
    x = 2 * torch.rand(8, 2, 3)
    whole = spikes(net, x)
    reset(net)
    with torch.inference_mode():
        first = spikes(net, x[:4])
    second = spikes(net, x[4:])
    if second.requires_grad:
        second.sum().backward()
    assert torch.equal(torch.cat([first, second]), whole)


@pytest.mark.feature("deepcopy amid a sequence", host="SpikingJelly", neuron="DendSN, LNM")
@pytest.mark.feature("deepcopy amid a sequence", host="snnTorch", neuron="Dendritic, LNM, TTFS")
def test_copies_amid_a_sequence_go_on(net):
    x = 2 * torch.rand(8, 2, 3)
    whole = spikes(net, x)
    reset(net)
    first = spikes(net, x[:4])
    other = copy.deepcopy(net)
    for one in (net, other):
        assert torch.equal(torch.cat([first, spikes(one, x[4:])]), whole)


@pytest.mark.feature(
    "torch.utils.checkpoint, states from outside", host="SpikingJelly", neuron="DendSN, LNM", result="refused"
)
@pytest.mark.feature(
    "torch.utils.checkpoint, states from outside", host="snnTorch", neuron="Dendritic, LNM", result="refused"
)
@pytest.mark.parametrize("net", LEARNED, indirect=True)
@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_with_states_from_outside_is_refused(net, reentrant):
    x = torch.rand(6, 2, 3, requires_grad=True)
    first = checkpoint(lambda x: spikes(net, x), x[:3], use_reentrant=reentrant)
    second = checkpoint(lambda x: spikes(net, x), x[3:], use_reentrant=reentrant)
    with pytest.raises(RuntimeError, match="runs again in a backward pass"):
        (first.sum() + second.sum()).backward()


@pytest.mark.parametrize("net", LEARNED, indirect=True)
@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_that_resets_inside_is_right(net, reentrant):
    x = torch.rand(6, 2, 3, requires_grad=True)

    def segment(x):
        reset(net)
        return spikes(net, x)

    def gradient(call):
        net.zero_grad()
        (call(segment, x[:3]).sum() + 2 * call(segment, x[3:]).sum()).backward()
        return net[0].weight.grad.clone()

    expected = gradient(lambda f, x: f(x))
    for _ in range(2):
        # one segment after the other, where autograd adds up step by step
        found = gradient(lambda f, x: checkpoint(f, x, use_reentrant=reentrant))
        torch.testing.assert_close(found, expected)


def test_memopt_is_not_refused():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), neuron.DendSN(strength_init=0.3))
    other, x = copy.deepcopy(net), torch.rand(2, 3)
    wrapped = memopt.checkpoint_module(other)
    for network in (net, wrapped):
        (network(x).sum() + network(x).sum()).backward()
        functional.reset_net(network)
    assert torch.equal(net[0].weight.grad, other[0].weight.grad)


# -- two processes -----------------------------------------------------------------------------------------------------

WORKER = """
import subprocess
import sys
import torch, torch.distributed as dist, snntorch as snn, snn_dendrite_plugin
from torch import nn
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
torch.set_num_threads(1)
for make in (lambda: snn.Dendritic(0.9, init_hidden=True, strength_init=0.3), lambda: snn.LNM(0.9, init_hidden=True),
             lambda: snn.DendriticParallel(0.9, strength_init=0.3, carry_states=True)):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), make())
    parallel = nn.parallel.DistributedDataParallel(net)  # with its defaults
    torch.manual_seed(1)
    whole = 2 * torch.rand(2, 4, 6, 3)  # batches, steps, samples, features
    found = []
    for batch in whole[:, :, 3 * rank : 3 * rank + 3]:
        net[1].detach_mem()  # states go on from batch to batch
        parallel.zero_grad()
        steps = [batch] if isinstance(net[1], snn.DendriticParallel) else batch
        spikes = torch.cat([parallel(x).reshape(-1, 3, 4) for x in steps])
        spikes.sum().backward()
        found += [spikes.detach(), net[0].weight.grad.clone()]
    torch.save(found, f"{folder}/{type(net[1]).__name__}{rank}.pt")
dist.destroy_process_group()
"""


def test_two_processes_with_the_defaults_of_ddp_are_as_one(tmp_path):

    (tmp_path / "worker.py").write_text(WORKER)
    workers = [subprocess.Popen([sys.executable, tmp_path / "worker.py", str(rank), tmp_path]) for rank in range(2)]
    try:
        assert [worker.wait(120) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
    for make in (NODES["Dendritic"], NODES["snnTorch LNM"], lambda: snn.DendriticParallel(
        0.9, strength_init=0.3, carry_states=True
    )):  # fmt: skip
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 4), make())
        name = type(net[1]).__name__
        ranks = [torch.load(tmp_path / f"{name}{rank}.pt") for rank in range(2)]
        torch.manual_seed(1)
        for i, batch in enumerate(2 * torch.rand(2, 4, 6, 3)):
            net[1].detach_mem()
            net.zero_grad()
            found = net(batch) if name == "DendriticParallel" else spikes(net, batch)
            found.sum().backward()
            assert torch.equal(torch.cat([rank[2 * i] for rank in ranks], 1), found.detach())
            for rank in ranks:
                torch.testing.assert_close(rank[2 * i + 1], net[0].weight.grad / 2)
