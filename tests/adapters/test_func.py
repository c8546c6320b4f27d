"""torch.func around the nodes of both hosts: gradients and maps equal to autograd's and to a loop."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jacrev, stack_module_state, vmap

pytest.importorskip("spikingjelly")
pytest.importorskip("snntorch")

import snntorch as snn  # noqa: E402
from spikingjelly.activation_based import neuron  # noqa: E402

import snn_dendrite_plugin  # noqa: E402, F401

NODES = {
    "DendSN": lambda: neuron.DendSN(strength_init=0.3),
    "SpikingJelly LNM": lambda: neuron.LNM(),
    "SpikingJelly TTFS": lambda: neuron.TTFS(3),
    "Dendritic": lambda: snn.Dendritic(0.9, init_hidden=True, strength_init=0.3),
    "snnTorch LNM": lambda: snn.LNM(0.9, init_hidden=True),
    "snnTorch TTFS": lambda: snn.TTFS(3, init_hidden=True),
}
DOUBLE = {"dtype": torch.float64}


@pytest.fixture(params=NODES)
def net(request):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), NODES[request.param]()).double()


@pytest.fixture
def x():
    torch.manual_seed(1)
    return 6 * torch.rand(6, 5, 3, **DOUBLE)


def spikes(net, x, parameters=None):
    net[1].reset() if hasattr(net[1], "reset") else net[1].reset_mem()
    return torch.stack([functional_call(net, parameters or {}, (step,)) for step in x])


def loss(parameters, net, x):
    steps = torch.arange(1.0, len(x) + 1, **DOUBLE).view(-1, 1, 1)
    return (steps * spikes(net, x, parameters)).sum()


def by_autograd(net, x):
    parameters = dict(net.named_parameters())
    found = torch.autograd.grad(loss(parameters, net, x), list(parameters.values()), allow_unused=True)
    zeros = {name: torch.zeros_like(value) for name, value in parameters.items()}
    return {name: zeros[name] if value is None else value for name, value in zip(parameters, found, strict=True)}


@pytest.mark.feature("torch.func: grad, vmap of grad", host="SpikingJelly", neuron="DendSN, LNM, TTFS")
@pytest.mark.feature("torch.func: grad, vmap of grad", host="snnTorch", neuron="Dendritic, LNM, TTFS")
def test_grad_and_gradients_per_sample(net, x):
    expected, parameters = by_autograd(net, x), dict(net.named_parameters())
    assert any(value.any() for value in expected.values())
    torch.testing.assert_close(grad(loss)(parameters, net, x), expected)
    single = vmap(lambda p, x: grad(loss)(p, net, x), in_dims=(None, 1))(parameters, x.unsqueeze(2))
    assert single["0.weight"].shape == (5, 4, 3)
    torch.testing.assert_close({name: value.sum(0) for name, value in single.items()}, expected)


@pytest.mark.feature("torch.func: jacrev", host="SpikingJelly", neuron="DendSN, LNM, TTFS")
@pytest.mark.feature("torch.func: jacrev", host="snnTorch", neuron="Dendritic, LNM, TTFS")
def test_jacrev(net, x):
    weight = net[0].weight
    found = jacrev(lambda weight: spikes(net, x[:, :2], {"0.weight": weight}))(weight)
    rows = spikes(net, x[:, :2])
    for i in torch.randint(rows.numel(), (6,)).tolist():
        row = torch.autograd.grad(rows.flatten()[i], weight, retain_graph=True)[0]
        torch.testing.assert_close(found.reshape(-1, 4, 3)[i], row)


@pytest.mark.feature("torch.func: vmap over inputs", host="SpikingJelly", neuron="DendSN, LNM, TTFS")
@pytest.mark.feature("torch.func: vmap over inputs", host="snnTorch", neuron="Dendritic, LNM, TTFS")
def test_maps_over_inputs_leave_the_neuron_usable(net, x):
    expected = spikes(net, x)
    found = vmap(lambda x: spikes(net, x), in_dims=1, out_dims=1)(x.unsqueeze(2))
    assert torch.equal(found.squeeze(2), expected)
    assert torch.equal(spikes(net, x), expected)


@pytest.mark.feature("torch.func: vmap over stacked parameters", host="SpikingJelly", neuron="DendSN, LNM, TTFS")
@pytest.mark.feature("torch.func: vmap over stacked parameters", host="snnTorch", neuron="Dendritic, LNM, TTFS")
def test_maps_over_stacked_parameters(net, x):
    nets = [net, copy.deepcopy(net)]
    with torch.no_grad():
        nets[1][0].weight.mul_(1.5)
    expected = torch.stack([spikes(one, x) for one in nets])
    parameters, buffers = stack_module_state(nets)
    found = vmap(lambda p, b: spikes(net, x, {**p, **b}))(parameters, buffers)
    assert torch.equal(found, expected)
    assert not torch.equal(*expected)
