"""snnTorch's nodes: names, signatures, the forward protocol, whole sequences, compilation, dtypes, bad input."""

from __future__ import annotations

import copy
import doctest
import inspect

import pytest
import torch
from torch import nn

snn = pytest.importorskip("snntorch")

from snntorch import surrogate, utils  # noqa: E402
from snntorch.functional import probe, quant  # noqa: E402
from snntorch_cases import ALL, AdaptiveNode, loop, make, make_sequence  # noqa: E402

import snn_dendrite_plugin as sdp  # noqa: E402
from snn_dendrite_plugin.adapters import snntorch as ours  # noqa: E402
from snn_dendrite_plugin.adapters.snntorch.adapter import adapter  # noqa: E402
from snn_dendrite_plugin.adapters.snntorch.factory import node_class  # noqa: E402

# -- registration and signatures --------------------------------------------------------------------------------------


def test_classes_are_native_neurons():
    for name in ("Dendritic", "LNM", "TTFS", "DendriticParallel", "LNMParallel"):
        cls = getattr(snn, name)
        assert issubclass(cls, snn.SpikingNeuron)
        assert not issubclass(cls, snn.Leaky)
        assert cls.__module__ == "snn_dendrite_plugin.adapters.snntorch"
        assert getattr(ours, name) is cls is adapter.resolve(name)
        assert name in cls.__doc__
    with pytest.raises(AttributeError, match="no registered neuron model or layer is called 'Nothing'"):
        ours.Nothing  # noqa: B018


def test_leaky_s_arguments_keep_name_order_and_default():
    stock = list(inspect.signature(snn.Leaky).parameters.values())
    for cls in (snn.Dendritic, snn.LNM):
        parameters = list(inspect.signature(cls).parameters.values())[: len(stock)]
        assert [(p.name, p.default, p.kind) for p in parameters] == [(p.name, p.default, p.kind) for p in stock]
    sequence = list(inspect.signature(snn.DendriticParallel).parameters)[: len(stock) - 1]
    assert sequence == [p.name for p in stock if p.name != "init_hidden"]


def test_positional_arguments_reach_the_right_place():
    neuron = snn.LNM(0.7, 2.0, surrogate.sigmoid(), False, True)
    assert neuron.beta.item() == pytest.approx(0.7)
    assert neuron.threshold.item() == 2.0
    assert neuron.init_hidden is True
    assert neuron._read_spike_grad().kind == "sigmoid"


def test_a_model_without_beta_has_its_own_arguments_first():
    parameters = list(inspect.signature(AdaptiveNode).parameters.values())
    assert [p.name for p in parameters[:3]] == ["a", "gain", "threshold"]
    assert parameters[2].kind is inspect.Parameter.KEYWORD_ONLY
    neuron = AdaptiveNode(0.25, 3.0, threshold=0.5)
    assert (neuron.model.a.item(), neuron.model.gain, neuron.threshold.item()) == (0.25, 3.0, 0.5)
    assert not hasattr(neuron, "beta")
    assert next(iter(inspect.signature(snn.TTFS).parameters)) == "steps"


def test_ttfs_keeps_its_clock_among_the_states():
    neuron = snn.TTFS(4, init_hidden=True)
    x = torch.zeros(8, 1, 2)
    x[1, 0, 0] = x[3, 0, 1] = 1.0
    spikes = torch.stack([neuron(step) for step in x])
    assert spikes[:, 0].T.tolist() == [[0, 0, 0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0, 0, 1]]
    assert neuron.clock.item() == 0
    neuron(x[1])
    utils.reset(nn.Sequential(neuron))
    assert torch.equal(torch.stack([neuron(step) for step in x]), spikes)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, TypeError, "missing a required argument: 'beta'"),
        ({"beta": 0.5, "bta": 1}, TypeError, "LNM got an unexpected argument 'bta'; it takes beta, threshold"),
        ({"beta": 0.5, "decay_input": True}, TypeError, "LNM takes no decay_input: snnTorch never scales"),
        ({"beta": 1.5}, ValueError, "must lie between 0 and 1"),
        ({"beta": 0.5, "reset_mechanism": "soft"}, ValueError, "reset_mechanism is 'soft'; it must be one of subtract"),
        ({"beta": 0.5, "spike_grad": "atan"}, TypeError, "spike_grad is 'atan'; it must be a function"),
        ({"beta": 0.5, "state_quant": 8}, TypeError, "state_quant is 8; it must be a function"),
        ({"beta": 0.5, "degree": 0}, ValueError, "degree is 0"),
        (
            {"beta": 0.5, "learn_beta": True, "learn_theta": False},
            ValueError,
            "learn_beta is True, but LNM has nothing",
        ),
    ],
)
def test_wrong_arguments_are_named(arguments, error, message):
    before = len(snn.SpikingNeuron.instances)
    with pytest.raises(error, match=message):
        snn.LNM(**arguments)
    assert len(snn.SpikingNeuron.instances) == before


def test_state_with_the_name_of_an_attribute_is_refused():
    class Clash(sdp.NeuronModel):
        states = {"v": 0.0, "threshold": 0.0}

    with pytest.raises(ValueError, match="state 'threshold' of Clash is the name of an attribute"):
        node_class("ClashNode", Clash)()
    with pytest.raises(TypeError, match="must be a subclass of NeuronModel"):
        node_class("Linear", nn.Linear)


# -- the protocol -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_outputs_depend_on_init_hidden_and_output(name):
    x = torch.rand(2, 3)
    spk, mem = make(name)(x)
    assert spk.shape == mem.shape == x.shape
    assert isinstance(make(name, init_hidden=True)(x), torch.Tensor)
    assert len(make(name, init_hidden=True, output=True)(x)) == 2
    with pytest.raises(TypeError, match="`mem` should not be passed as an argument while `init_hidden=True`"):
        make(name, init_hidden=True)(x, mem)


@pytest.mark.parametrize("name", ALL)
def test_hidden_states_equal_explicit_ones(name):
    x = torch.randn(7, 4, 3) + 0.5
    hidden, explicit = make(name, init_hidden=True), make(name)
    spikes, trace = loop(explicit, x)
    assert spikes.sum() > 0
    for t, step in enumerate(x):
        assert torch.equal(hidden(step), spikes[t])
        assert torch.equal(hidden.mem, trace[t])


def test_network_with_explicit_states_starts_afresh_at_init():
    neuron = make("Dendritic")
    x = torch.randn(5, 4, 3)

    def forward():
        mem = neuron.init_leaky()
        for step in x:
            spk, mem = neuron(step, mem)
        return spk, mem

    first, second = forward(), forward()
    assert torch.equal(first[1], second[1])
    (second[1].sum()).backward()
    third = forward()
    third[1].sum().backward()  # a history that went over init_leaky would raise here
    assert neuron.init_dendritic() is neuron.mem
    assert neuron.v_dend.abs().sum() == 0
    assert snn.LNM(0.5).init_lnm().numel() == 0


def test_a_mem_that_was_set_is_used_and_other_states_go_on():
    neuron = make("Dendritic", reset_mechanism="none")
    x = torch.rand(2, 3)
    neuron(x)
    before = neuron.v_dend.clone()
    neuron.mem = torch.full((2, 3), 0.25)
    _, mem = neuron(torch.zeros(2, 3))
    model = neuron.model
    v_dend = model.alpha.float()[0].view(1, 1, -1) * before + (1 - model.alpha.float()[0]) * model.offset[0]
    torch.testing.assert_close(neuron.v_dend, v_dend)
    expected = 0.8 * 0.25 + (0.5 * torch.nn.functional.leaky_relu(v_dend, 0.01)).sum(-1)
    torch.testing.assert_close(mem, expected)


@pytest.mark.parametrize("name", ALL)
def test_another_batch_size_starts_afresh(name):
    neuron = make(name)
    loop(neuron, torch.rand(4, 5, 3))
    x = torch.rand(2, 3)
    _, mem = neuron(x)
    fresh = make(name)(x)[1]
    assert torch.equal(mem, fresh)
    _, mem = neuron(x, torch.zeros(0))  # a potential that does not fit
    assert torch.equal(mem, fresh)


@pytest.mark.parametrize("name", ["Dendritic", "LNM"])
@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_input_of_any_rank(name, shape):
    spk, mem = make(name)(torch.rand(shape))
    assert spk.shape == mem.shape == shape


def test_fold_wiring_takes_more_channels_than_it_gives():
    neuron = snn.Dendritic(0.5, branches=2, wiring="fold", init_hidden=True, output=True)
    spk, mem = neuron(torch.rand(4, 6, 5, 5))
    assert spk.shape == mem.shape == (4, 3, 5, 5)
    assert neuron.v_dend.shape == (4, 3, 2, 5, 5)
    with pytest.raises(ValueError, match="5 channels, which branches=2 does not divide"):
        neuron(torch.rand(4, 5))


def test_fire_once_fires_once_until_reset():
    neuron = snn.LNM(0.9, fire_once=True)
    x = torch.full((5, 1, 2), 2.0)
    spikes, _ = loop(neuron, x)
    assert spikes.sum(0).tolist() == [[1.0, 1.0]]
    assert neuron.fired.tolist() == [[1.0, 1.0]]
    assert torch.equal(loop(neuron, x)[0], spikes)


def test_reset_mechanism_takes_effect_at_once():
    x = torch.full((1, 1), 3.0)
    neuron = snn.LNM(0.5)
    for mechanism, expected in (("subtract", 3.5), ("zero", 3.0), ("none", 4.5)):
        neuron.reset_mechanism = mechanism
        neuron.reset_mem()
        neuron(x)
        assert neuron(x)[1].item() == expected
        assert neuron.reset_mechanism_val.item() == neuron.reset_dict[mechanism]


@pytest.mark.parametrize("bad", [torch.ones(2, 3, dtype=torch.long), 1.0])
def test_input_that_is_no_floating_tensor_is_refused(bad):
    with pytest.raises(TypeError, match="input_ of LNM is of .*; it must be a floating point tensor"):
        snn.LNM(0.5)(bad)


def test_inhibition_needs_a_dense_layer():
    with pytest.warns(UserWarning, match="Inhibition"):
        neuron, sequence = snn.LNM(0.5, inhibition=True), snn.LNMParallel(0.5, inhibition=True)
    assert neuron(torch.tensor([[3.0, 4.0, 2.0]]))[0].tolist() == [[0.0, 1.0, 0.0]]
    with pytest.raises(ValueError, match=r"input_ has shape \(2, 3, 4, 4\); inhibition picks one winner"):
        neuron(torch.rand(2, 3, 4, 4))
    with pytest.raises(ValueError, match=r"of a dense layer: \[T, N, C\]"):
        sequence(torch.rand(5, 2, 3, 4, 4))


def test_slow_paths_are_said_once(caplog, monkeypatch):
    from snn_dendrite_plugin.adapters import base

    monkeypatch.setattr(base, "_said", set())
    for _ in range(2):
        snn.LNM(0.5, state_quant=quant.state_quant(num_bits=2))
        snn.LNM(0.5, spike_grad=surrogate.SSO())
        snn.LNM(0.5, spike_grad=surrogate.fast_sigmoid())
    said = [record.getMessage() for record in caplog.records if record.name == "snn_dendrite_plugin"]
    assert len([line for line in said if "reference path" in line]) == 2


def test_integer_thresholds_can_be_learned():
    neuron = snn.Dendritic(0.5, threshold=1, learn_threshold=True, graded_spikes_factor=2)
    assert isinstance(neuron.threshold, nn.Parameter)
    assert neuron.threshold.dtype == neuron.graded_spikes_factor.dtype == torch.float32


def test_learned_parameters_get_gradients():
    neuron = snn.Dendritic(0.5, learn_beta=True, learn_threshold=True, learn_alpha=True)
    spikes, _ = loop(neuron, torch.randn(6, 4, 3) + 0.5)
    spikes.sum().backward()
    assert neuron.beta.requires_grad
    for name, parameter in neuron.named_parameters():
        assert parameter.grad is not None, name
    assert neuron.model.strength.grad.abs().sum() > 0
    assert len(neuron.model.strength.grad.unique()) == 4  # branches start apart


def test_beta_can_be_set():
    neuron = snn.Dendritic(0.5)
    neuron.beta = 0.25
    assert neuron.beta.item() == 0.25
    assert neuron(torch.zeros(1, 1), torch.full((1, 1), 0.5))[1].item() == 0.125


# -- whole sequences --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kwargs", [
    {}, {"reset_delay": False, "reset_mechanism": "zero"}, {"reset_mechanism": "none", "threshold": 2.0},
    {"graded_spikes_factor": 2.0, "fire_once": True}, {"state_quant": quant.state_quant(num_bits=4, threshold=1)},
])  # fmt: skip
def test_sequence_equals_loop(name, kwargs):
    x = (torch.randn(9, 4, 3) + 0.4).requires_grad_()
    step, whole = make(name, **kwargs), make_sequence(name, output=True, **kwargs)
    whole.load_state_dict(step.state_dict())
    spikes, trace = loop(step, x)
    spk, mem = whole(x)
    assert spikes.sum() > 0
    assert torch.equal(spk, spikes)
    torch.testing.assert_close(mem, trace, rtol=1e-5, atol=1e-6)
    weights = torch.randn(2, *x.shape)
    (g1,) = torch.autograd.grad((spikes * weights[0] + trace * weights[1]).sum(), x)
    (g2,) = torch.autograd.grad((spk * weights[0] + mem * weights[1]).sum(), x)
    torch.testing.assert_close(g2, g1, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_sequence_is_stateless_unless_it_carries(name):
    x = torch.randn(8, 4, 3) + 0.5
    whole = make_sequence(name)
    spk = whole(x)
    assert torch.equal(whole(x), spk)
    carrying = make_sequence(name, carry_states=True)
    assert torch.equal(torch.cat((carrying(x[:3]), carrying(x[3:]))), spk)
    assert not torch.equal(carrying(x), spk)
    utils.reset(nn.Sequential(carrying))
    assert torch.equal(carrying(x), spk)


def test_sequence_needs_time_steps():
    with pytest.raises(ValueError, match=r"input_ has shape \(0, 2, 3\); a sequence is \[T, N, C, \*\]"):
        snn.LNMParallel(0.5)(torch.zeros(0, 2, 3))
    with pytest.raises(TypeError, match="unexpected argument 'init_hidden'"):
        snn.LNMParallel(0.5, init_hidden=True)


# -- probes, compilation, dtypes --------------------------------------------------------------------------------------


def test_probes_see_states():
    net = nn.Sequential(nn.Linear(3, 4), make("Dendritic", init_hidden=True))
    mem = probe.AttributeMonitor("mem", False, net, snn.Dendritic)
    dendrite = probe.AttributeMonitor("v_dend", False, net, snn.Dendritic)
    spikes = probe.OutputMonitor(net, snn.Dendritic)
    for _ in range(3):
        net(torch.rand(2, 3))
    assert [r.shape for r in mem.records] == [(2, 4)] * 3
    assert [r.shape for r in dendrite.records] == [(2, 4, 4)] * 3
    assert [r.shape for r in spikes.records] == [(2, 4)] * 3


@pytest.mark.parametrize(("name", "kwargs"), [
    ("Dendritic", {}), ("LNM", {"surrogate_disable": True}), ("LNM", {"graded_spikes_factor": 2.0, "reset_delay": 0}),
    ("Adaptive", {"reset_mechanism": "zero"}),
])  # fmt: skip
def test_compiles_without_graph_breaks(name, kwargs):
    torch._dynamo.reset()
    neuron = make(name, init_hidden=True, **kwargs)
    x = torch.rand(2, 3) + 0.5
    assert torch._dynamo.explain(neuron)(x).graph_break_count == 0
    neuron.reset_mem()
    plain = copy.deepcopy(neuron)
    run = torch.compile(neuron, fullgraph=True, backend="aot_eager")
    for _ in range(3):
        assert torch.equal(run(x), plain(x))
    torch.testing.assert_close(neuron.mem, plain.mem)


def test_compiled_sequence_and_loop_have_the_same_gradients():
    torch._dynamo.reset()
    neuron, whole = make("Dendritic"), make_sequence("Dendritic")
    x = (torch.randn(4, 2, 3) + 0.5).requires_grad_()
    runs = (
        lambda: loop(neuron, x)[0],
        torch.compile(lambda: loop(neuron, x)[0], fullgraph=True, backend="aot_eager"),
        torch.compile(lambda: whole(x), fullgraph=True, backend="aot_eager"),
    )
    gradients = [torch.autograd.grad(run().sum(), x)[0] for run in runs]
    assert gradients[0].abs().sum() > 0
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0])


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16, torch.float32, torch.float64])
def test_spikes_have_the_input_s_dtype_and_states_are_wide(name, dtype):
    neuron = make(name)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for _ in range(2):
        spk, mem = neuron(torch.rand(2, 3, dtype=dtype))
        assert (spk.dtype, mem.dtype) == (dtype, wide)
    low = make(name).to(dtype)
    assert low(torch.rand(2, 3, dtype=dtype))[1].dtype == wide


def test_autocast_leaves_states_wide():
    net = nn.Sequential(nn.Linear(3, 4), make("Dendritic", init_hidden=True, output=True))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for _ in range(2):
            spk, mem = net(torch.rand(2, 3))
    assert (spk.dtype, mem.dtype) == (torch.bfloat16, torch.float32)
    spk.float().sum().backward()
    assert net[0].weight.grad.abs().sum() > 0


def test_states_follow_the_module_to_another_device():
    neuron = make("Dendritic")
    neuron(torch.rand(2, 3))
    assert neuron.to("meta").v_dend.device.type == "meta"


@pytest.mark.parametrize("name", ["Dendritic", "LNM", "TTFS", "DendriticParallel", "LNMParallel"])
def test_examples_of_generated_documentation_run(name):
    cls = getattr(snn, name)
    assert "Args:" in cls.__doc__
    assert "Raises:" in cls.__doc__
    globs = {cls.model_class.__name__: cls.model_class}
    test = doctest.DocTestParser().get_doctest(cls.__doc__, globs, name, None, None)
    result = doctest.DocTestRunner().run(test)
    assert result.attempted > 2
    assert result.failed == 0
