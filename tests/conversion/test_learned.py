"""What a point neuron of SpikingJelly's has learned comes over with conversion, and back with ``revert``."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("spikingjelly")
from spikingjelly.activation_based import neuron  # noqa: E402

import snn_dendrite_plugin as sdp  # noqa: E402


def test_a_learned_time_constant_of_a_point_checkpoint_loads_into_either_model():
    def build():
        return torch.nn.Sequential(torch.nn.Linear(4, 3), neuron.ParametricLIFNode(init_tau=3.0))

    weights = build().state_dict()
    weights["1.w"] = weights["1.w"] + 0.5
    beta = 1 - torch.sigmoid(weights["1.w"])
    lnm = sdp.convert(build(), to="LNM")  # which has no learn_beta to carry over
    lnm.load_state_dict(weights)
    torch.testing.assert_close(lnm[1].model.theta[0, 1], beta)
    dendritic = sdp.convert(build(), to="DendSN")
    dendritic.load_state_dict(weights)
    torch.testing.assert_close(dendritic[1].model.beta_logit.sigmoid().squeeze(), beta)


@pytest.mark.parametrize("to", ["DendSN", "LNM"])
def test_revert_gives_back_a_learned_decay_and_the_same_bits_without_one(to):
    for trained in (False, True):
        node = neuron.ParametricLIFNode(init_tau=3.0)
        before = node.w.detach().clone()
        model = sdp.convert(torch.nn.Sequential(torch.nn.Linear(4, 3), node), to=to)
        if trained:
            model[1].model.set_decay(0.8)  # tau 5
        sdp.revert(model)
        assert model[1] is node
        if trained:
            torch.testing.assert_close(1 / node.w.sigmoid().double(), torch.tensor(5.0, dtype=torch.float64))
            assert node.w.requires_grad
        else:
            assert torch.equal(node.w, before)
