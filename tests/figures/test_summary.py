"""``sdp.summary``: figures by layer, in both hosts, and nothing left behind."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

pytest.importorskip("spikingjelly")
snn = pytest.importorskip("snntorch")

from spikingjelly.activation_based import functional, layer, neuron  # noqa: E402

import snn_dendrite_plugin as sdp  # noqa: E402
from snn_dendrite_plugin.kernels.operations import total  # noqa: E402
from snn_dendrite_plugin.kernels.ttfs.operations import forward as ttfs_operations  # noqa: E402

T, N = 5, 2


def jelly(node=None):
    node = node or (lambda: neuron.DendSN(branches=2, strength_init=0.3))
    net = nn.Sequential(
        layer.Conv2d(1, 3, 3, padding=1), node(), layer.Flatten(), layer.Linear(48, 4), node(), layer.Linear(4, 2)
    )
    functional.set_step_mode(net, "m")
    return net


def torchy(node=None):
    node = node or (lambda: snn.Dendritic(beta=0.8, branches=2, strength_init=0.3, init_hidden=True))
    return nn.Sequential(nn.Linear(6, 5), node(), nn.Linear(5, 4), node())


X = torch.rand(T, N, 1, 4, 4, generator=torch.Generator().manual_seed(1)) * 4
STEPS = torch.rand(T, N, 6, generator=torch.Generator().manual_seed(1)) * 4


def loop(net):
    return [net(x) for x in STEPS]


def test_figures_of_a_spikingjelly_network():
    net = jelly()
    found = {line.name: line for line in sdp.summary(net, X).layers}
    assert list(found) == ["0", "1", "3", "4", "5"]  # Flatten has nothing to say
    with torch.no_grad():
        first = net[1](net[0](X))
        second = net[4](net[3](net[2](first)))
    assert 0 < first.mean() < 1
    assert found["0"].multiply_accumulates == N * T * 3 * (4 * 9 - 4 * 3 * 2 + 4 * 16 + 24)  # a 4x4 image, 3x3 windows
    assert found["0"].accumulates == 0
    assert (found["1"].spikes, found["1"].neuron_steps) == (int(first.sum()), first.numel())
    assert found["3"].accumulates == 4 * int(first.sum())
    assert found["4"].firing_rate == pytest.approx(second.mean().item())
    assert found["5"].accumulates == 2 * int(second.sum())
    assert found["1"].output_shape == (T, N, 3, 4, 4)
    assert found["1"].parameters == sum(p.numel() for p in net[1].parameters()) == 6
    assert found["0"].parameters == 30


@pytest.mark.parametrize("mode", ["init_hidden", "explicit"])
def test_figures_of_a_snntorch_network(mode):
    if mode == "init_hidden":
        net, run = torchy(), loop
    else:
        net = torchy(lambda: snn.Dendritic(beta=0.8, branches=2, strength_init=0.3))

        def run(net):
            first, second = net[1].reset_mem(), net[3].reset_mem()
            for x in STEPS:
                spikes, first = net[1](net[0](x), first)
                spikes, second = net[3](net[2](spikes), second)

    found = {line.name: line for line in sdp.summary(net, run).layers}
    assert [line.calls for line in found.values()] == [T] * 4
    assert found["0"].multiply_accumulates == T * N * 6 * 5
    assert 0 < found["1"].spikes < found["1"].neuron_steps == T * N * 5
    assert found["2"].accumulates == 4 * found["1"].spikes


def test_hosts_and_modes_agree():
    """The same network in both hosts, whole sequences and single steps."""
    a = nn.Sequential(layer.Linear(6, 5), neuron.DendSN(branches=2, tau=5.0, decay_input=False, v_reset=None))
    functional.set_step_mode(a, "m")
    dendritic = snn.Dendritic(0.8, branches=2, reset_delay=False, init_hidden=True)
    b = nn.Sequential(nn.Linear(6, 5), dendritic)
    b[0].load_state_dict(a[0].state_dict())
    first, second = sdp.summary(a, STEPS), sdp.summary(b, loop)
    assert first.multiply_accumulates == second.multiply_accumulates
    assert first.firing_rate == pytest.approx(second.firing_rate)
    assert first.parameters == second.parameters


@pytest.mark.parametrize("step_mode", ["s", "m"])
def test_neuron_operations_by_hand(step_mode):
    """LIFNode, hard reset: 10 per neuron and step, as its formulas are written. Published LNM, input scaled: 14."""
    run = STEPS if step_mode == "m" else loop
    for node, per_step in ((neuron.LIFNode, 10), (lambda: neuron.LNM(clamp=None, theta_scale=1.0), 14)):
        net = nn.Sequential(layer.Linear(6, 5), node())
        functional.set_step_mode(net, step_mode)
        line = sdp.summary(net, run).layers[1]
        assert line.operations == per_step * T * N * 5
    node = neuron.TTFS(steps=T, step_mode="m")
    line = sdp.summary(nn.Sequential(node), STEPS).layers[0]
    by_hand = total(ttfs_operations(N * 6, 1, T, bias=False))
    assert (line.additions, line.multiplications, line.functions) == (by_hand.additions, by_hand.multiplications, 0)
    assert 0 <= line.comparisons - by_hand.comparisons < N * 6  # checks of single numbers, less than one per neuron


def test_a_dendritic_network_is_no_cheaper():
    point, dendritic = (sdp.summary(jelly(node), X) for node in (neuron.LIFNode, neuron.DendSN))
    assert dendritic.operations > point.operations
    assert dendritic.multiply_accumulates == point.multiply_accumulates
    leaky = sdp.summary(torchy(lambda: snn.Leaky(beta=0.8, init_hidden=True)), loop)
    assert sdp.summary(torchy(), loop).operations > leaky.operations > 0


def test_attention_and_shared_modules():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.lif = neuron.LIFNode(step_mode="m")
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x):
            q = self.lif(x)
            return q @ q.transpose(-1, -2) * self.scale

    net = Attention()
    found = sdp.summary(net, X)
    assert [line.name for line in found.layers] == ["(root)", "lif"]
    assert found.layers[0].accumulates > 0
    assert found.layers[0].parameters == 1


def _everything(module):
    """Every attribute of every module, tensors by object, version and value."""
    found = []
    for name, part in module.named_modules():
        for key, value in part.__dict__.items():
            items = value.items() if isinstance(value, dict) else [("", value)]
            for inner, item in items:
                if isinstance(item, torch.Tensor):
                    lazy = type(item).__name__.startswith("Uninitialized")
                    content = None if lazy else item.detach().clone()
                    found.append((name, key, inner, id(item), type(item), item.requires_grad, content))
                else:
                    found.append((name, key, inner, id(item), type(item), None, None))
    return found


@pytest.mark.parametrize("host", ["spikingjelly", "snntorch", "stock spikingjelly", "stock snntorch", "lazy"])
def test_the_model_is_left_as_it_was(host):
    if "snntorch" in host:
        net = torchy(None if host == "snntorch" else lambda: snn.Leaky(beta=0.8, init_hidden=True))
        run = forward = loop
    else:
        nodes = {"stock spikingjelly": neuron.LIFNode, "lazy": lambda: neuron.DendSN(branches=2, per_channel=True)}
        net, run = jelly(nodes.get(host)), X

        def forward(net):
            return [net(X)]

    net.train()
    before_random = torch.get_rng_state()
    if host != "lazy":  # amid a sequence, with a graph
        out = forward(net)[-1]
    before = _everything(net)
    first, second = str(sdp.summary(net, run)), str(sdp.summary(net, run))
    assert first == second
    after = _everything(net)
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        assert old[:-1] == new[:-1]
        assert old[-1] is None or torch.equal(old[-1], new[-1])
    assert torch.equal(torch.get_rng_state(), before_random)
    if host != "lazy":
        (out.sum() + forward(net)[-1].sum()).backward()  # the graph went on
        assert net[0].weight.grad is not None
    else:
        copy.deepcopy(net)(X)


def test_it_prints_and_converts():
    found = sdp.summary(jelly(), X)
    lines = str(found).splitlines()
    assert lines[0].split()[:4] == ["layer", "type", "output", "parameters"]
    assert lines[1].split()[:2] == ["0", "Conv2d"]
    assert lines[-2].split()[0] == "total"
    data = json.loads(json.dumps(found.to_dict()))
    assert data["parameters"] == found.parameters
    assert data["layers"][1]["firing_rate"] == found.layers[1].firing_rate
    assert sum(line["accumulates"] for line in data["layers"]) == data["accumulates"]


def test_a_library_s_own_kernel_is_not_taken_for_free():
    library = torch.library.Library("somebody", "DEF")
    library.define("neuron(Tensor x) -> Tensor")
    library.impl("neuron", lambda x: (x > 1).float(), "CompositeExplicitAutograd")

    class Opaque(neuron.LIFNode):
        def multi_step_forward(self, x):
            return torch.ops.somebody.neuron(x)

    found = sdp.summary(nn.Sequential(layer.Linear(6, 5, step_mode="m"), Opaque(step_mode="m")), STEPS)
    assert found.layers[1].operations is None
    assert found.operations is None
    assert str(found).splitlines()[2].endswith("?")


def test_what_it_refuses():
    with pytest.raises(TypeError, match="model is int"):
        sdp.summary(3, X)
    with pytest.raises(TypeError, match="example_input is int"):
        sdp.summary(jelly(), 3)
    with pytest.raises(ValueError, match='device "meta"'):
        sdp.summary(jelly().to("meta"), X)
    net = jelly()
    with pytest.raises(ValueError, match="expected x with shape"):
        sdp.summary(net, torch.rand(3))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def command():
    from typer.testing import CliRunner

    from snn_dendrite_plugin.cli import app

    return lambda *args: CliRunner().invoke(app, ["summary", *map(str, args)])


def test_command_on_a_checkpoint(command, tmp_path):
    torch.save(jelly(), tmp_path / "net.pt")
    done = command(tmp_path / "net.pt", "--shape", "5,2,1,4,4")
    assert done.exit_code == 0, done.output
    assert "DendSN" in done.output
    assert "total" in done.output


def test_command_on_two_networks_by_steps_as_json(command, tmp_path):
    torch.save({"a": torchy(), "epoch": 3}, tmp_path / "net.pt")
    done = command(tmp_path / "net.pt", "--shape", "2,6", "--steps", "4", "--rate", "0.5", "--json", "--unsafe")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout[done.stdout.index("{") :])
    assert list(found) == ["a"]
    assert found["a"]["layers"][0]["calls"] == 4
    assert found["a"]["layers"][0]["accumulates"] > 0
    assert found["a"]["layers"][0]["multiply_accumulates"] == 0


def test_command_refuses(command, tmp_path):
    torch.save(jelly(), tmp_path / "net.pt")
    for arguments, code, words in (
        (("missing.pt", "--shape", "1"), 2, "does not exist"),
        ((tmp_path / "net.pt", "--shape", "a,b"), 2, "--shape is 'a,b'"),
        ((tmp_path / "net.pt", "--shape", "3"), 1, "does not run on (3,)"),
    ):
        done = command(*arguments)
        assert done.exit_code == code
        assert words in done.output
