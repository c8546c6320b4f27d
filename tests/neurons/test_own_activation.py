"""A dendrite with a function of the user's own: the reference path, in both hosts, in conversion, said once."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import snn_dendrite_plugin as sdp
from snn_dendrite_plugin.kernels import providers
from snn_dendrite_plugin.neurons.base import Firing
from snn_dendrite_plugin.neurons.dendsn import DendSN

FIRING = Firing(reset="soft", timing="at_once_retested", fire_once=True)


def squared(v):
    return v * v.abs()


def inputs():
    return torch.rand(6, 2, 3, 4) * 2 - 0.5


def test_a_function_that_is_also_in_the_table_gives_the_same():
    x = inputs().double().requires_grad_()
    results = []
    for activation in ("silu", nn.functional.silu, nn.SiLU()):
        model = DendSN(branches=3, activation=activation, strength_init=0.4).double()
        spikes, (v, dendrite, _) = model.run(x, firing=FIRING)
        loss = spikes.sum() + v.square().sum() + dendrite.sum()
        results.append((spikes, v, dendrite, *torch.autograd.grad(loss, [x, *model.parameters()])))
    assert results[0][0].any()
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b)


def test_gradient_of_a_function_outside_the_table_is_that_of_differences():
    model = DendSN(branches=2, activation=squared, strength_init=0.3).double()
    x = inputs().double().requires_grad_()

    def potential(x):
        return model.run(x, firing=Firing(threshold=100.0))[1][0]

    assert torch.autograd.gradcheck(potential, x)


def test_a_module_learns_moves_and_is_saved_with_the_neuron():
    model = DendSN(activation=nn.PReLU(), strength_init=0.3)
    model.run(inputs())[1][0].sum().backward()
    assert model.activation.weight.grad.abs() > 0
    assert "activation.weight" in model.state_dict()
    twin = copy.deepcopy(model).double()
    assert twin.activation.weight.dtype == torch.float64
    assert "activation=PReLU" in repr(model)


def test_it_is_said_once(caplog, monkeypatch):
    monkeypatch.setattr(providers, "_said", set())
    for _ in range(2):
        DendSN(activation=squared).run(inputs())
    said = [record.getMessage() for record in caplog.records if "reference path" in record.getMessage()]
    assert len(said) == 1
    assert "squared" in said[0]


@pytest.mark.parametrize("bad", ["cube", 3])
def test_what_is_no_function_is_refused(bad):
    with pytest.raises(ValueError, match=rf"activation is {bad!r}; .*gelu or a function"):
        DendSN(activation=bad)


def test_a_function_that_changes_the_shape_is_named():
    model = DendSN(activation=lambda v: v.sum(2))
    with pytest.raises(ValueError, match=r"activation <lambda> gives shape \(2, 3, 4\) for branches \(2, 3, 4, 4\)"):
        model.run(inputs())


def test_it_compiles():
    model = DendSN(activation=nn.Tanh(), strength_init=0.3)
    compiled = torch.compile(lambda x: model.run(x)[0], fullgraph=True, backend="aot_eager")
    x = inputs()
    assert torch.equal(compiled(x), model.run(x)[0])


def test_spikingjelly_single_and_multi_step_agree():
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    one = neuron.DendSN(activation=squared, strength_init=0.4)
    many = neuron.DendSN(activation=squared, strength_init=0.4, step_mode="m")
    x = inputs()
    spikes = many(x)
    assert spikes.any()
    assert torch.equal(spikes, torch.stack([one(step) for step in x]))


def test_snntorch():
    snn = pytest.importorskip("snntorch")
    node = snn.Dendritic(beta=0.9, activation=squared, strength_init=0.4)
    plain = DendSN(activation=squared, strength_init=0.4, beta=0.9, decay_input=False)
    firing = Firing(reset="soft", timing="next_step", strict=True)
    x = inputs() * 4
    state, spikes = (), []
    for step in x:
        out, *state = node(step, *state)
        spikes.append(out)
    wanted = plain.run(x, firing=firing)[0]
    assert wanted.any()
    assert torch.equal(torch.stack(spikes), wanted)


def test_conversion_keeps_the_function_and_gives_every_neuron_its_own_module():
    pytest.importorskip("spikingjelly.activation_based")
    from spikingjelly.activation_based import functional, layer, neuron

    net = nn.Sequential(layer.Linear(4, 5), neuron.LIFNode(), layer.Linear(5, 3), neuron.LIFNode())
    functional.set_step_mode(net, "m")
    for parameter in net.parameters():
        parameter.data.abs_()
    x = torch.rand(6, 2, 4) * 4
    before = net(x)
    assert before.any()
    functional.reset_net(net)
    sdp.convert(net, to="DendSN", activation=nn.PReLU())
    assert torch.equal(net(x), before)
    first, second = net[1].model.activation, net[3].model.activation
    assert first is not second
    functional.reset_net(net)
    net(x).sum().backward()
    assert net[3].model.strength.grad.abs().sum() > 0
    sdp.revert(net)
    assert type(net[1]) is neuron.LIFNode
