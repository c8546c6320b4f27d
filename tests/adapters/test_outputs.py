"""What a node returns may be modified in place, as the output of the hosts' own neurons may."""

import pytest
import torch
from torch.nn import functional as F

pytest.importorskip("spikingjelly")
pytest.importorskip("snntorch")

import snntorch as snn
from spikingjelly.activation_based import neuron

import snn_dendrite_plugin as sdp

NODES = {
    "DendSN": lambda: neuron.DendSN(branches=2, strength_init=0.3, step_mode="m", store_v_seq=True),
    "once": lambda: neuron.DendSN(branches=2, fire_once=True, step_mode="m"),
    "LNM": lambda: neuron.LNM(step_mode="m"),
    "TTFS": lambda: neuron.TTFS(4, step_mode="m"),
    "single step": lambda: neuron.DendSN(branches=2, strength_init=0.3),
    "DendriticParallel": lambda: snn.DendriticParallel(beta=0.9),
    "LNMParallel": lambda: snn.LNMParallel(beta=0.9),
    "Dendritic": lambda: snn.Dendritic(beta=0.9, init_hidden=True),
}


@pytest.mark.parametrize("provider", ["cpu", "torch"])
@pytest.mark.parametrize("shape", [(8, 4), (8, 2, 5), (8, 2, 5, 3), (8, 2, 5, 3, 2)], ids=len)
@pytest.mark.parametrize("name", NODES)
def test_the_output_can_be_modified_in_place(name, shape, provider):
    torch.manual_seed(0)
    start, weight = torch.rand(shape) * 2, torch.rand(shape)
    results = []
    with sdp.use_provider(provider):
        for in_place in (False, True):
            node, x = NODES[name](), start.clone().requires_grad_()
            spikes = node(x)
            if in_place:
                spikes += weight
                spikes.mul_(2.0)
                F.relu_(spikes)
            else:
                spikes = F.relu((spikes + weight) * 2.0)
            node(x).sum().backward(retain_graph=True)  # the node goes on from its states
            (spikes.square() * weight).sum().backward()
            results.append((spikes.detach(), x.grad))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_a_residual_connection_in_place_trains_as_with_lifnode():
    x, identity = torch.rand(6, 2, 4) * 2, torch.rand(6, 2, 4, requires_grad=True)
    for node in (neuron.LIFNode(step_mode="m"), neuron.LNM(step_mode="m")):
        out = node(x)  # no gradient flows into the neuron, one flows into what is added
        out += identity
        out.sum().backward()
    assert torch.equal(identity.grad, torch.full_like(identity, 2.0))
