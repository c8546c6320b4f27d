"""A training that began with point neurons goes on under ``snn-dendrite run --swap``, its optimizer included."""

from __future__ import annotations

import pytest
import snntorch as snn
import torch
from spikingjelly.activation_based import functional, layer, neuron

from snn_dendrite_plugin import swap

X = torch.rand(4, 6)


def network(cell):
    torch.manual_seed(1)
    return torch.nn.Sequential(layer.Linear(6, 5), cell(), layer.Linear(5, 4), cell(), layer.Linear(4, 2))


def train(net, optimizer, steps=3):
    for _ in range(steps):
        functional.reset_net(net)
        snn.utils.reset(net)
        optimizer.zero_grad()
        net(X).square().sum().backward()
        optimizer.step()


OPTIMIZERS = {
    "Adam": lambda net: torch.optim.Adam(net.parameters(), lr=0.01),
    "SGD": lambda net: torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9),
    "named": lambda net: torch.optim.AdamW(net.named_parameters(), lr=0.01),
    "two groups": lambda net: torch.optim.Adam(
        [{"params": net[:3].parameters(), "lr": 0.001}, {"params": net[3:].parameters()}]
    ),
}


@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize("cell", ["LIFNode", "ParametricLIFNode", "Leaky"])
def test_state_of_the_point_network_is_taken_up_and_new_parameters_start_afresh(make, cell, caplog):
    def build():
        if cell == "Leaky":
            return network(lambda: snn.Leaky(beta=0.9, init_hidden=True, learn_beta=True))
        return network(getattr(neuron, cell))

    point = build()
    before = OPTIMIZERS[make](point)
    train(point, before)
    saved = before.state_dict()
    with swap.swapping(swap.plan_swaps({cell: "Dendritic" if cell == "Leaky" else "DendSN"}, {"branches": 2})):
        net = build()
        net.load_state_dict(point.state_dict())
        optimizer = OPTIMIZERS[make](net)
        optimizer.load_state_dict(saved)
        assert "start without a state" in caplog.text
        assert optimizer.param_groups[0]["lr"] == before.param_groups[0]["lr"]
        for old, new in ((point[i], net[i]) for i in (0, 2, 4)):
            for a, b in zip(old.parameters(), new.parameters(), strict=True):
                assert a.shape == b.shape
                for key, value in before.state[a].items():
                    assert torch.equal(torch.as_tensor(optimizer.state[b][key]), torch.as_tensor(value)), key
        for node in (net[1], net[3]):
            assert all(not optimizer.state[p] for p in node.parameters())
        train(net, optimizer)
        again = OPTIMIZERS[make](net)
        again.load_state_dict(optimizer.state_dict())  # from then on it is its own
        assert again.state_dict()["state"].keys() == optimizer.state_dict()["state"].keys()


def test_state_of_another_network_is_refused_as_ever():
    with swap.swapping(swap.plan_swaps({"LIFNode": "DendSN"})):
        net = network(neuron.LIFNode)
        other = torch.nn.Linear(3, 2)
        optimizer = torch.optim.Adam(net.parameters())
        with pytest.raises(ValueError, match="doesn't match the size"):
            optimizer.load_state_dict(torch.optim.Adam(other.parameters()).state_dict())
        load = torch.optim.Optimizer.load_state_dict
    assert torch.optim.Optimizer.load_state_dict is not load
    with pytest.raises(ValueError, match="doesn't match the size"):
        optimizer.load_state_dict(torch.optim.Adam(other.parameters()).state_dict())
