"""SpikingJelly's ``reset_net`` reaches the neurons that are there now, whatever was converted since its last call."""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip("spikingjelly")

from spikingjelly.activation_based import functional, layer, neuron  # noqa: E402

import snn_dendrite_plugin as sdp  # noqa: E402


def network() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Sequential(layer.Linear(5, 6), neuron.LIFNode()), layer.Linear(6, 3), neuron.LIFNode())
    nn.init.uniform_(net[1].weight, 0, 2)  # both layers fire
    functional.set_step_mode(net, "m")
    return net


def same_twice(net, reset) -> None:
    """The same spikes and gradients on the same data, before and after a reset."""
    x = 5 * torch.randn(6, 2, 5)
    results = []
    for _ in range(2):
        reset()
        net.zero_grad()
        spikes = net(x)
        spikes.sum().backward()
        results.append((spikes.detach(), net[0][0].weight.grad.clone()))
    reset()
    assert results[0][0].any()
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)
    assert not any(isinstance(m.v, torch.Tensor) for m in net.modules() if isinstance(m, neuron.BaseNode))


@pytest.mark.feature("reset after a part was converted or reverted", host="SpikingJelly", neuron="{to}")
@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("to", ["DendSN", "LNM"])
def test_after_a_part_was_converted_or_reverted(to, back):
    net = network()
    if not back:
        functional.reset_net(net)
    net[0] = sdp.convert(net[0], to=to)
    if back:
        functional.reset_net(net)
        net[0] = sdp.revert(net[0])
    same_twice(net, lambda: functional.reset_net(net))


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize(
    "wrap", [lambda net: torch.compile(net, backend="eager"), nn.DataParallel, lambda net: nn.ModuleDict({"net": net})]
)
def test_through_a_wrapper_that_was_reset_before(wrap, back):
    net = network()
    wrapped = wrap(net)
    if not back:
        functional.reset_net(wrapped)
    sdp.convert(net, to="DendSN")
    if back:
        functional.reset_net(wrapped)
        sdp.revert(net)
    same_twice(net, lambda: functional.reset_net(wrapped))


def test_other_networks_are_reset_as_before():
    net, other = network(), network()
    functional.reset_net(other)
    sdp.convert(net, to="DendSN")
    other(torch.rand(2, 3, 5))
    functional.reset_net(other)
    assert other[2].v == 0.0
