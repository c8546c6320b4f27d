"""``check_finite`` names the layer and the state that is NaN or infinite."""

import math

import pytest
import torch

from snn_dendrite_plugin.neurons.lnm import LNM
from snn_dendrite_plugin.neurons.ttfs import TTFS


def test_check_finite_sees_a_time_to_first_spike_neuron_too():
    from snn_dendrite_plugin import check_finite

    model, x = TTFS(4), torch.full((4, 1, 2), math.nan)
    assert model.run(x)[0].nansum() == 0  # no spike, and no word
    with check_finite(model), pytest.raises(FloatingPointError, match="values of its state 'v'"):
        model.run(x)


def test_check_finite_names_the_layer_whose_potential_diverges():
    from snn_dendrite_plugin import check_finite

    net = torch.nn.ModuleDict({"calm": LNM(), "wild": LNM(theta=[0.0, 0.5, -4.0, 8.0], clamp=None)})
    x = torch.full((20, 1, 3), -3.0)
    spikes, (v,) = net["wild"].run(x)
    assert not torch.isfinite(v).any()
    assert spikes.sum() == 0  # silently
    with check_finite(net):
        net["calm"].run(x)
        with pytest.raises(FloatingPointError, match=r"layer 'wild' \(LNM\): 3 of 3 values of its state 'v'"):
            net["wild"].run(x)
    net["wild"].run(x)
    with pytest.raises(ValueError, match="has no neuron"), check_finite(torch.nn.Linear(2, 2)):
        pass
