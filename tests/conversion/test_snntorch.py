"""Conversion of snnTorch networks, written as in its tutorials."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

snn = pytest.importorskip("snntorch")
from snntorch import surrogate, utils  # noqa: E402

import snn_dendrite_plugin as sdp  # noqa: E402
from snn_dendrite_plugin.conversion.example import first_tensor  # noqa: E402


class Float64(nn.Module):
    """snnTorch's spikes are float32 whatever its input is."""

    def forward(self, x):
        return x.double()


class Explicit(nn.Module):
    """Tutorial 5: states are passed by hand, over time in forward."""

    def __init__(self, **options):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(12, 16), snn.Leaky(beta=0.9, threshold=0.7, **options)
        self.fc2, self.lif2 = nn.Linear(16, 5), snn.Leaky(beta=0.8, threshold=0.3, **options)

    def forward(self, x):
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spikes, membranes = [], []
        for step in x:
            spk1, mem1 = self.lif1(self.fc1(step), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1.to(x.dtype)), mem2)
            spikes.append(spk2)
            membranes.append(mem2)
        return torch.stack(spikes), torch.stack(membranes)


def sequential(cast=Float64, **options):
    """Tutorial 6: hidden states in a convolutional Sequential."""
    gradient = surrogate.fast_sigmoid(slope=25)

    def lif(**more):
        return snn.Leaky(beta=0.7, threshold=0.4, spike_grad=gradient, init_hidden=True, **options, **more)

    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(2), lif(), cast(),
        nn.Conv2d(4, 8, 3, padding=1), nn.AvgPool2d(2), lif(), cast(),
        nn.Flatten(), nn.Linear(8 * 2 * 2, 5), lif(output=True),
    )  # fmt: skip


def over_time(net, x):
    utils.reset(net)
    spikes, membranes = zip(*(net(step) for step in x), strict=True)
    return torch.stack(spikes), torch.stack(membranes)


def vectors(dtype=torch.float64):
    return 2 * torch.rand(8, 4, 12, dtype=dtype, generator=torch.Generator().manual_seed(0))


def images(dtype=torch.float64):
    return 3 * torch.rand(6, 3, 1, 8, 8, dtype=dtype, generator=torch.Generator().manual_seed(0))


RESETS = [
    {"reset_mechanism": mechanism, "reset_delay": delay}
    for mechanism in ("subtract", "zero", "none")
    for delay in (True, False)
]


def compare(point, converted, run, x):
    """Spikes of all neurons, outputs, and gradients of the shared parameters."""
    seen = []

    def watch(net, name):
        spikes = []
        handles = [
            module.register_forward_hook(lambda module, args, out: spikes.append(first_tensor(out).double()))
            for key, module in net.named_modules()
            if key in name
        ]
        out = run(net, x)
        for handle in handles:
            handle.remove()
        seen.append(spikes)
        return out

    names = [line.name for line in sdp.report(converted).converted]
    expected, got = watch(point, names), watch(converted, names)
    assert len(seen[0]) == len(seen[1]) == len(x) * len(names)
    assert 0.02 < torch.cat([s.flatten() for s in seen[0]]).mean() < 0.98
    for ours, theirs in zip(seen[1], seen[0], strict=True):
        assert torch.equal(ours, theirs)
    torch.testing.assert_close(got[1], expected[1], rtol=1e-9, atol=1e-12)
    for out, net in ((expected, point), (got, converted)):
        net.zero_grad()
        (out[0].mean() + out[1].pow(2).mean()).backward()
    theirs = dict(point.named_parameters())
    ours = {name: p for name, p in converted.named_parameters() if name in theirs}
    assert ours.keys() == theirs.keys()
    for name, parameter in ours.items():
        # the host sends its gradients through float32 spikes
        torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("options", RESETS, ids=str)
@pytest.mark.parametrize(("to", "arguments"), [("DendSN", {"branches": 3}), ("LNM", {})])
def test_explicit_state_net(options, to, arguments):
    torch.manual_seed(0)
    point = Explicit(**options).double()
    converted = sdp.convert(copy.deepcopy(point), to=to, example_input=vectors(), **arguments)
    assert sdp.report(converted).flips == 0
    compare(point, converted, lambda net, x: net(x), vectors())


@pytest.mark.parametrize("options", [*RESETS, {"graded_spikes_factor": 0.6}], ids=str)
def test_hidden_state_net(options):
    torch.manual_seed(0)
    point = sequential(**options).double()
    converted = sdp.convert(copy.deepcopy(point), branches=2, example_input=lambda net: over_time(net, images()))
    assert [type(converted[i]).__name__ for i in (2, 6, 10)] == ["Dendritic"] * 3
    assert converted[10].output
    assert sdp.report(converted).flips == 0
    compare(point, converted, over_time, images())


@pytest.mark.parametrize("wiring", ["partition", "expand"])
def test_wirings(wiring):
    torch.manual_seed(0)
    point = sequential().double()
    converted = sdp.convert(
        copy.deepcopy(point), branches=2, wiring=wiring, example_input=lambda net: over_time(net, images())
    )
    wirings = [line.wiring for line in sdp.report(converted).converted]
    assert wirings == (["shared", wiring, wiring] if wiring == "partition" else [wiring] * 3)
    for ours, theirs in zip(over_time(converted, images()), over_time(point, images()), strict=True):
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=1e-9, atol=1e-12)


def test_float32_flips_are_counted_and_revert_gives_the_same_bits():
    torch.manual_seed(0)
    net = sequential(cast=nn.Identity)
    expected = over_time(net, images(torch.float32))
    sdp.convert(net, branches=2, example_input=lambda net: over_time(net, images(torch.float32)))
    report = sdp.report(net)
    assert report.flip_share < 1e-3
    utils.reset(net)
    again = over_time(sdp.revert(net), images(torch.float32))
    assert all(torch.equal(a, b) for a, b in zip(again, expected, strict=True))


def test_learned_values_carry_over_and_come_back():
    torch.manual_seed(0)
    net = Explicit(learn_beta=True, learn_threshold=True).double()
    sdp.convert(net, branches=2)
    untouched = net.lif2.beta.item()
    with torch.no_grad():
        net.lif1.threshold.fill_(0.55)
        net.lif1.beta = 0.7
    sdp.revert(net)
    assert isinstance(net.lif1.beta, nn.Parameter)
    assert net.lif1.beta.item() == pytest.approx(0.7)
    assert net.lif2.beta.item() == pytest.approx(untouched)
    assert isinstance(net.lif1.threshold, nn.Parameter)
    assert net.lif1.threshold.item() == 0.55


def test_point_weights_load_strictly():
    torch.manual_seed(0)
    converted = sdp.convert(Explicit().double(), branches=2)
    point = Explicit().double()
    with torch.no_grad():
        point.lif1.beta.fill_(0.6)
        point.lif2.threshold.fill_(0.2)
    converted.load_state_dict(point.state_dict())
    assert torch.equal(converted(vectors())[0].bool(), point(vectors())[0].bool())


def test_recurrent_neurons_are_kept_with_the_reason():
    net = nn.Sequential(nn.Linear(4, 4), snn.RLeaky(beta=0.9, linear_features=4, init_hidden=True),
                        nn.Linear(4, 4), snn.Leaky(beta=0.9, init_hidden=True))  # fmt: skip
    sdp.convert(net)
    assert [(line.name, line.reason) for line in sdp.report(net).skipped] == [
        ("1", "RLeaky contains recurrent synapses")
    ]
    with pytest.raises(ValueError, match="Synaptic filters its input"):
        sdp.convert(nn.Sequential(snn.Synaptic(alpha=0.9, beta=0.9, init_hidden=True)))


def test_replaced_neurons_leave_the_hosts_list():
    net = Explicit()
    old = [net.lif1, net.lif2]
    sdp.convert(net)
    listed = {id(neuron) for neuron in snn.SpikingNeuron.instances}
    assert not any(id(neuron) in listed for neuron in old)
    sdp.revert(net)
    listed = {id(neuron) for neuron in snn.SpikingNeuron.instances}
    assert all(id(neuron) in listed for neuron in old)


def test_other_hosts_leave_the_model_alone(monkeypatch):
    pytest.importorskip("spikingjelly.activation_based.neuron")
    from snn_dendrite_plugin.adapters.spikingjelly.adapter import adapter

    def fail(root):
        raise AssertionError("not a model of this host")

    monkeypatch.setattr(adapter, "before_swap", fail)
    monkeypatch.setattr(adapter, "after_swap", fail)
    net = sdp.convert(
        sequential(cast=nn.Identity), to="Dendritic", example_input=lambda net: over_time(net, images(torch.float32))
    )
    assert type(sdp.revert(net)[2]) is snn.Leaky


@pytest.mark.feature("pickle of a converted network", host="snnTorch", neuron="Dendritic, LNM")
@pytest.mark.parametrize("to", ["DendSN", "LNM"])
@pytest.mark.parametrize("options", [{}, {"spike_grad": surrogate.fast_sigmoid(slope=10)}, {"surrogate_disable": True},
                                     {"reset_mechanism": "zero", "reset_delay": False}])  # fmt: skip
def test_a_converted_network_can_be_pickled_and_reverted_afterwards(to, options, tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 6), snn.Leaky(0.9, init_hidden=True, learn_beta=True, **options))
    x = 2 * torch.rand(7, 3, 5)

    def run(net):
        utils.reset(net)
        for module in net:
            if isinstance(module, snn.Leaky):
                module.mem = torch.zeros(0)
        return torch.stack([net(step) for step in x])

    expected = run(net)
    original = net[1]
    sdp.convert(net, to=to, **({} if options else {"spike_grad": surrogate.atan(alpha=3.0)}))
    path = tmp_path / "net.pt"
    torch.save(net, path)
    for other in (torch.load(path, weights_only=False), pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        assert torch.equal(run(other), expected)
        reverted = sdp.revert(other)
        assert type(reverted[1]) is snn.Leaky
        assert reverted[1] is not original
        spikes = run(reverted)
        assert torch.equal(spikes, expected)
        if not options.get("surrogate_disable"):
            gradient = torch.autograd.grad(spikes.sum(), reverted[0].weight)[0]
            assert gradient.any()
    assert sdp.revert(net)[1] is original  # saving leaves what is there alone
