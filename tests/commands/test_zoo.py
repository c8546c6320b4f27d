"""SpikingJelly's model zoo: built with our neurons, and converted, with the function kept."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

pytest.importorskip("spikingjelly")
from spikingjelly.activation_based import base, functional, layer, neuron, surrogate  # noqa: E402

import snn_dendrite_plugin as sdp  # noqa: E402
from snn_dendrite_plugin.zoo import models as zoo  # noqa: E402


def run(model, x):
    functional.reset_net(model)
    return zoo.first(model(x))


def spikes(model, x):
    """Every output of every neuron, in order."""
    seen = []
    neurons = [m for m in model.modules() if isinstance(m, neuron.BaseNode)]
    handles = [module.register_forward_hook(lambda module, args, out: seen.append(out)) for module in neurons]
    out = run(model, x)
    for handle in handles:
        handle.remove()
    return seen, out


@pytest.mark.parametrize("name", zoo.TINY)
def test_every_wiring_keeps_the_function(name):
    """Every spike of every neuron in float64; and revert gives the same bits."""
    model, x = zoo.make(name)
    modules = list(model.modules())
    with torch.no_grad():
        before, expected = spikes(model, x)
        assert torch.cat([s.flatten() for s in before]).mean() > 0.05
        for wiring in ("shared", "partition", "expand"):
            sdp.convert(model, to="DendSN", branches=4, wiring=wiring, example_input=x)
            after, got = spikes(model, x)
            assert len(before) == len(after)
            assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-9)
            report = sdp.report(model)
            assert report.flips == 0
            assert report.parameters_after == sum(p.numel() for p in model.parameters())
            applied = [line for line in report.converted if line.wiring == wiring]
            own = sum(line.parameters_after for line in report.converted)
            if wiring != "shared":
                assert all(line.layer for line in applied)
                assert all(line.notes for line in report.converted if line.wiring == "shared")
                # Attention that rectifies, cells that sum: no neuron there has a layer to itself.
                none = {"MASNN", "SNASNet cell"} | ({"SpikeDHS"} if wiring == "partition" else set())
                assert bool(applied) == (name not in none)
            if wiring != "expand" or not applied:
                assert report.parameters_after == report.parameters_before + own
            else:
                assert report.parameters_after > report.parameters_before + own
            sdp.revert(model)
            assert list(model.modules()) == modules
            assert torch.equal(run(model, x), expected)


@pytest.mark.parametrize("name", ["SEWResNet", "QKFormer", "DVSGestureNet", "AttMSResNet"])
def test_lnm_keeps_every_spike(name):
    model, x = zoo.make(name)
    sdp.convert(model, to="LNM", example_input=x)
    assert sdp.report(model).flips == 0
    assert sdp.report(model).output_difference < 1e-12


@pytest.mark.parametrize("wiring", ["shared", "partition", "expand"])
@pytest.mark.parametrize("name", ["Spikformer", "MSResNet", "DVSGestureNet"])
def test_point_weights_load_strictly(name, wiring):
    model, x = zoo.make(name)
    point = copy.deepcopy(model)
    with torch.no_grad():
        expected = run(point, x)
        other = copy.deepcopy(point)
        for parameter in other.parameters():
            parameter.mul_(1.2)
        sdp.convert(model, branches=2, wiring=wiring, example_input=x)
        model.load_state_dict(other.state_dict())
        torch.testing.assert_close(run(model, x), run(other, x), rtol=0, atol=1e-9)
        model.load_state_dict(point.state_dict())
        torch.testing.assert_close(run(model, x), expected, rtol=0, atol=1e-9)
        again = sdp.convert(other, branches=2, wiring=wiring, example_input=x)
        again.load_state_dict(model.state_dict())
        assert torch.equal(run(again, x), run(model, x))


@pytest.mark.parametrize("name", ["SEWResNet", "SpikingVGG", "QKFormer", "MASNN"])
@pytest.mark.parametrize("wiring", ["shared", "partition"])
def test_gradients_are_those_of_the_point_network(name, wiring):
    model, x = zoo.make(name)
    point = copy.deepcopy(model)
    sdp.convert(model, branches=4, wiring=wiring, example_input=x)
    for net in (point, model):
        run(net, x).pow(2).mean().backward()
    theirs = dict(point.named_parameters())
    ours = {key: value for key, value in model.named_parameters() if key in theirs}
    assert ours.keys() == theirs.keys()
    compared = 0
    for key, parameter in ours.items():
        if theirs[key].grad is not None:
            scale = float(theirs[key].grad.abs().max())
            torch.testing.assert_close(parameter.grad, theirs[key].grad, rtol=1e-6, atol=1e-9 * max(scale, 1e-12))
            compared += scale > 0
    assert compared > len(ours) / 2
    dendrites = [m.model.strength.grad for m in model.modules() if isinstance(m, neuron.DendSN)]
    assert all(grad is not None and grad.abs().max() > 0 for grad in dendrites)


@pytest.mark.parametrize("name", ["SEWResNet", "MSResNet", "Spikformer"])
def test_float32_flips_are_few_and_counted(name):
    model, x = zoo.make(name, dtype=torch.float32)
    sdp.convert(model, branches=4, example_input=x)
    report = sdp.report(model)
    assert report.flips is not None
    assert report.flip_share < 1e-2
    assert {p.dtype for p in model.parameters()} == {torch.float32}


EIGHT = ["SpikingResNet", "SEWResNet", "SpikingVGG", "MNISTNet", "Spikformer", "QKFormer", "MSResNet", "MASNN"]


@pytest.mark.parametrize("name", [*EIGHT, "MaxFormer", "SpikeDrivenTransformer", "AttMSResNet"])
@pytest.mark.parametrize("kind", ["DendSN", "LNM"])
def test_builds_with_our_neuron(name, kind):
    model, x = zoo.make(name, getattr(neuron, kind))
    found = [m for m in model.modules() if isinstance(m, getattr(neuron, kind))]
    assert found
    assert not any(isinstance(m, (neuron.LIFNode, neuron.IFNode)) for m in model.modules())
    model.train()
    out = run(model, x)
    out.pow(2).mean().backward()
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    functional.reset_net(model)
    assert all(isinstance(m.v, float) for m in found)


SAMPLE = {
    "spiking_resnet50", "sew_resnet18", "spiking_vgg11_bn", "CIFAR10DVSNet", "spikformer_cifar10", "maxformer_cifar",
    "max_resnet18", "ms_resnet18", "att_ms_resnet18", "masnn_dvs128_gesture", "ottt_spiking_vgg11_ws", "SNASNet",
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [name if name in SAMPLE else pytest.param(name, marks=pytest.mark.long) for name in zoo.CONSTRUCTORS]
)
def test_every_constructor(name):
    """Built without storage, so that the deepest take no memory: shapes go through, with our neuron and converted."""
    case = zoo.CONSTRUCTORS[name]
    x = torch.empty(case.shape, device="meta")
    with torch.device("meta"):
        point = case.build(None)
        model = None if case.own_neuron else case.build(neuron.DendSN)
    expected = run(point.eval(), x)
    if model is not None:
        assert run(model.eval(), x).shape == expected.shape
        assert not any(isinstance(m, (neuron.LIFNode, neuron.IFNode)) for m in model.modules())
    converted = sdp.convert(point, to="DendSN")
    assert {p.device.type for p in converted.parameters()} == {"meta"}
    assert run(converted, x).shape == expected.shape
    if not case.own_neuron:
        assert not any(isinstance(m, (neuron.LIFNode, neuron.IFNode)) for m in converted.modules())


# -- what only this host has ---------------------------------------------------------------------------------------


NODES = [
    lambda: neuron.LIFNode(tau=3.0, v_threshold=0.6, v_reset=None, detach_reset=True),
    lambda: neuron.LIFNode(tau=3.0, v_threshold=0.6, v_reset=-0.3, decay_input=False),
    lambda: neuron.LIFNode(tau=1.5, v_threshold=0.4, surrogate_function=surrogate.ATan(alpha=3.0), store_v_seq=True),
    lambda: neuron.IFNode(v_threshold=0.9, surrogate_function=surrogate.SoftSign()),
    lambda: neuron.IFNode(v_threshold=0.9, v_reset=None),
    lambda: neuron.ParametricLIFNode(init_tau=2.5, v_threshold=0.5),
    lambda: neuron.ParametricLIFNode(init_tau=2.5, v_threshold=0.5, v_reset=None, decay_input=False),
]


@pytest.mark.parametrize("step_mode", ["s", "m"])
@pytest.mark.parametrize("make", NODES)
@pytest.mark.parametrize("to", ["DendSN", "LNM"])
def test_nodes_carry_over(make, step_mode, to):
    torch.manual_seed(0)
    model = nn.Sequential(layer.Linear(6, 8), make(), layer.Linear(8, 5), make()).double()
    functional.set_step_mode(model, step_mode)
    with torch.no_grad():
        model[2].weight.mul_(4)
    point = copy.deepcopy(model)
    x = 6 * torch.rand(8, 4, 6, dtype=torch.float64)

    def over_time(net):
        functional.reset_net(net)
        return net(x) if step_mode == "m" else torch.stack([net(step) for step in x])

    sdp.convert(model, to=to, example_input=over_time)
    expected, got = over_time(point), over_time(model)
    assert 0.02 < expected.mean() < 0.98
    assert torch.equal(got, expected)
    assert sdp.report(model).flips == 0
    for net, out in ((point, expected), (model, got)):
        (out * torch.arange(5.0, dtype=torch.float64)).mean().backward()
        assert net[0].weight.grad.abs().max() > 0
    for index in (0, 2):
        torch.testing.assert_close(model[index].weight.grad, point[index].weight.grad, rtol=1e-8, atol=1e-12)
    for ours, theirs in ((model[1], point[1]), (model[3], point[3])):
        for name in ("v_threshold", "v_reset", "detach_reset", "step_mode"):
            assert getattr(ours, name) == getattr(theirs, name)
        assert type(ours.surrogate_function) is type(theirs.surrogate_function)
        assert ours.surrogate_function is not theirs.surrogate_function


@pytest.mark.parametrize(
    "arguments",
    [
        {"activation": "mexican_hat", "branches": 1},
        {"activation": "sigmoid", "learn_alpha": True, "alpha": [0.2, 0.9], "branches": 2},
        {"degree": 3},
        {"per_channel": True},
        {"per_channel": True, "wiring": "partition", "learn_alpha": True, "degree": 2},
        {"per_channel": True, "wiring": "expand"},
        {
            "wiring": "partition",
            "learn_gain": True,
            "gain": 0.5,
            "offset": 0.1,
            "strength_init": [0.0, 0.0],
            "branches": 2,
        },
        {"to": "LNM", "per_channel": True, "degree": 5, "clamp": (-5, 5)},
        {"v_threshold": 1.0, "tau": 2.0, "surrogate_function": surrogate.ATan()},
    ],
    ids=str,
)
def test_arguments_that_keep_the_function(arguments):
    model, x = zoo.make("DVSGestureNet")
    report = sdp.report(sdp.convert(model, example_input=x, **arguments))
    assert report.flips == 0
    assert report.output_difference < 1e-9
    assert report.parameters_after == sum(p.numel() for p in model.parameters())
    if "wiring" in arguments:
        assert sum(line.wiring == arguments["wiring"] for line in report.converted) > 5


@pytest.mark.parametrize("wiring", ["shared", "partition", "expand"])
def test_an_example_without_data_rewires_and_counts_no_flips(wiring):
    model, x = zoo.make("SEWResNet")
    with torch.device("meta"):
        deep = zoo.TINY["SEWResNet"].build(None)
    report = sdp.report(sdp.convert(deep, wiring=wiring, example_input=torch.empty(x.shape, device="meta")))
    assert report.flips is None
    assert report.output_difference is None
    computed = sdp.report(sdp.convert(model, wiring=wiring, example_input=x))
    assert computed.flips == 0
    assert [line.layer for line in report.converted] == [line.layer for line in computed.converted]
    assert report.parameters_after == computed.parameters_after


def test_step_mode_set_since_comes_back():
    model = sdp.convert(nn.Sequential(layer.Linear(3, 3), neuron.LIFNode()))
    functional.set_step_mode(model, "m")
    assert sdp.revert(model)[1].step_mode == "m"


def test_reset_reaches_the_new_neurons():
    model, x = nn.Sequential(nn.Linear(3, 3), neuron.LIFNode()), torch.rand(2, 3)
    old = model[1]
    functional.reset_net(model)  # from here on the host remembers the neurons of this model
    sdp.convert(model)
    model(x)
    assert isinstance(model[1].v, torch.Tensor)
    functional.reset_net(model)
    assert model[1].v == 0
    sdp.revert(model)
    model(x)
    functional.reset_net(model)
    assert model[1] is old
    assert old.v == 0


def test_states_left_over_do_not_disturb():
    model = nn.Sequential(nn.Linear(3, 3), neuron.LIFNode())
    model(torch.rand(2, 3))
    sdp.convert(model, example_input=torch.rand(7, 3))
    assert all(m.v == 0 for m in model.modules() if isinstance(m, base.MemoryModule))


def test_learned_time_constant_loads_from_the_point_checkpoint():
    def net():
        torch.manual_seed(0)
        return nn.Sequential(layer.Linear(6, 8), neuron.ParametricLIFNode(init_tau=2.0, v_threshold=0.4)).double()

    point, x = net(), 3 * torch.rand(8, 4, 6, dtype=torch.float64)
    with torch.no_grad():
        point[1].w.fill_(0.7)
    converted = sdp.convert(net(), branches=2)
    converted.load_state_dict(point.state_dict())
    for model in (point, converted):
        functional.set_step_mode(model, "m")
    assert torch.equal(run(converted, x), run(point, x))


def test_other_neurons_are_kept_with_the_reason():
    model = nn.Sequential(nn.Linear(3, 3), neuron.IzhikevichNode(), nn.Linear(3, 3), neuron.LIFNode())
    report = sdp.report(sdp.convert(model))
    assert [line.name for line in report.skipped] == ["1"]
    assert "its dynamics would change" in report.skipped[0].reason


@pytest.mark.parametrize("step_mode", ["s", "m"])
@pytest.mark.parametrize("decay_input", [True, False])
@pytest.mark.parametrize("v_reset", [None, -0.1])
def test_spike_dhs_s_observed_lif_is_lif(step_mode, decay_input, v_reset):
    from spikingjelly.activation_based.model import spike_dhs

    make = lambda: spike_dhs.save_v_LIFNode(  # noqa: E731
        tau=1.25, decay_input=decay_input, v_threshold=0.5, v_reset=v_reset, surrogate_function=spike_dhs.DSpike()
    )
    model = nn.Sequential(layer.Linear(6, 8), make(), layer.Linear(8, 5), make()).double()
    functional.set_step_mode(model, step_mode)
    with torch.no_grad():
        model[2].weight.mul_(4)
        model[2].bias.fill_(0.3)
    point = copy.deepcopy(model)
    x = 6 * torch.rand(8, 4, 6, dtype=torch.float64)

    def over_time(net):
        functional.reset_net(net)
        return net(x) if step_mode == "m" else torch.stack([net(step) for step in x])

    report = sdp.report(sdp.convert(model, example_input=over_time))
    assert report.flips == 0
    assert all(line.notes == ("v_before_spike not carried over: DendSN has none",) for line in report.converted)
    expected = over_time(point)
    assert 0.02 < expected.mean() < 0.98
    assert torch.equal(over_time(model), expected)
    for net in (point, model):
        over_time(net).mean().backward()
    assert point[0].weight.grad.abs().max() > 0
    torch.testing.assert_close(model[0].weight.grad, point[0].weight.grad, rtol=1e-8, atol=1e-12)
    assert type(sdp.revert(model)[1]) is spike_dhs.save_v_LIFNode


def test_an_observation_that_is_asked_for_keeps_the_neuron():
    from spikingjelly.activation_based.model import spike_dhs

    observed = spike_dhs.save_v_LIFNode(store_v_seq=True)
    report = sdp.report(sdp.convert(nn.Sequential(neuron.LIFNode(), observed)))
    assert [line.name for line in report.skipped] == ["1"]
    assert "before the spike" in report.skipped[0].reason


def test_containers_of_the_host():
    inner = neuron.LIFNode(v_threshold=0.3)
    model = nn.Sequential(
        layer.SeqToANNContainer(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)),
        layer.MultiStepContainer(nn.Conv2d(4, 4, 1)),
        layer.MultiStepContainer(inner),
        layer.SeqToANNContainer(nn.Flatten(), nn.Linear(16, 4)),
        layer.ElementWiseRecurrentContainer(neuron.LIFNode(), lambda x, y: x + y, step_mode="m"),
    ).double().eval()  # fmt: skip
    x = 3 * torch.rand(5, 2, 2, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        expected = run(model, x)
        sdp.convert(model, example_input=x, branches=2, wiring="partition")
        assert torch.equal(run(model, x), expected)
    wirings = {line.name: (line.wiring, *line.notes) for line in sdp.report(model).converted}
    assert wirings["2.0"] == ("partition",)
    assert wirings["4.sub_module"] == ("shared", "shared: its input is a sum")


def test_a_whole_converted_model_can_be_pickled(tmp_path):
    model, x = zoo.make("MSResNet")
    with torch.no_grad():
        expected = run(model, x)
        sdp.convert(model, branches=2, wiring="partition", example_input=x)
        functional.reset_net(model)
        torch.save(model, tmp_path / "model.pt")
        loaded = torch.load(tmp_path / "model.pt", weights_only=False)
        torch.testing.assert_close(run(loaded, x), expected, rtol=0, atol=1e-9)
        assert sdp.report(loaded) == sdp.report(model)
        assert torch.equal(run(sdp.revert(loaded), x), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models(dtype):
    model = nn.Sequential(layer.Linear(6, 8), neuron.LIFNode(step_mode="m")).to(dtype)
    x = 4 * torch.rand(4, 3, 6, dtype=dtype)
    sdp.convert(model, branches=2, wiring="partition", example_input=x)
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert run(model, x).dtype == dtype
    assert torch.get_default_dtype() == torch.float32
