"""A potential that becomes NaN or infinite in training is said once, with the layer's name, and looked for rarely."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from snn_dendrite_plugin.neurons.base import DEFAULT_FIRING, NeuronModel
from snn_dendrite_plugin.neurons.dendsn import DendSN
from snn_dendrite_plugin.neurons.lnm import LNM
from snn_dendrite_plugin.neurons.ttfs import TTFS
from snn_dendrite_plugin.neurons.watch import EVERY, NonFiniteWarning


class Leak(NeuronModel):
    def step(self, x, states, firing):
        spikes, v = firing.update(memory=0.5 * states[0], drive=x)
        return spikes, (v,)


MODELS = {"LNM": LNM, "DendSN": DendSN, "own step": Leak, "TTFS": lambda: TTFS(steps=4)}
X = torch.rand(4, 2, 3)


def train(net: nn.Module, x: torch.Tensor, calls: int = EVERY) -> list[str]:
    """Messages of so many calls on a sequence."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(calls):
            net.neuron.run(x)
    return [str(warning.message) for warning in caught if issubclass(warning.category, NonFiniteWarning)]


@pytest.mark.parametrize("name", MODELS)
def test_said_once_with_the_layer(name):
    net = nn.ModuleDict({"neuron": MODELS[name]()})
    outer = nn.Sequential(nn.Identity(), net)
    assert train(net, X) == []
    (message,) = train(net, X.index_fill(2, torch.tensor([1]), float("nan")))
    assert message.startswith(f"layer '1.neuron' ({type(net['neuron']).__name__}): its potential has become NaN")
    assert train(net, X * float("nan")) == []
    assert len(outer) == 2


def test_steps_one_by_one_are_looked_at_too():
    model = LNM()
    states = model.init_states(X[0])
    for _ in range(EVERY - 1):
        _, states = model.advance(X[0], states, DEFAULT_FIRING)
    with pytest.warns(NonFiniteWarning, match=r"layer 'LNM' \(LNM\)"):
        model.advance(X[0] * float("nan"), states, DEFAULT_FIRING)


def test_only_in_training():
    net = nn.ModuleDict({"neuron": LNM()})
    with torch.no_grad():
        assert train(net, X * float("nan")) == []
    net.eval()
    assert train(net, X * float("nan")) == []
    net.train()
    assert len(train(net, X * float("nan"))) == 1


def test_one_look_in_so_many_steps_and_none_where_others_count(monkeypatch):
    from snn_dendrite_plugin.neurons import watch

    sums = []
    monkeypatch.setattr(watch.math, "isfinite", lambda total: sums.append(total) or True)
    net = nn.ModuleDict({"neuron": LNM()})
    train(net, X, calls=10 * EVERY // len(X))
    assert len(sums) == 10
    with FlopCounterMode(display=False):
        train(net, X, calls=10 * EVERY // len(X))
    assert len(sums) == 10
