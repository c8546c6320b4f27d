"""DendSN and LNM as SpikingJelly nodes, on SpikingJelly's own machinery."""

import copy
import io
import itertools
import math
import pickle

import pytest
import torch
from torch import nn

pytest.importorskip("spikingjelly")

from spikingjelly.activation_based import base, functional, layer, monitor, neuron, surrogate

import snn_dendrite_plugin as sdp
from snn_dendrite_plugin.adapters.spikingjelly.adapter import adapter
from snn_dendrite_plugin.adapters.spikingjelly.surrogates import read_surrogate
from snn_dendrite_plugin.kernels.surrogates import derivative

NODES = {
    "DendSN": lambda **k: neuron.DendSN(branches=3, **k),
    "grown": lambda **k: neuron.DendSN(branches=3, strength_init=0.3, learn_alpha=True, **k),
    "LNM": lambda **k: neuron.LNM(degree=3, **k),
    "LNM_per_channel": lambda **k: neuron.LNM(degree=2, per_channel=True, **k),
    "learned_leak": lambda **k: neuron.DendSN(branches=2, learn_beta=True, **k),
}
TABLE_SURROGATES = [
    surrogate.Sigmoid(3.0), surrogate.ATan(), surrogate.PiecewiseQuadratic(), surrogate.PiecewiseExp(),
    surrogate.SoftSign(), surrogate.SuperSpike(), surrogate.Erf(), surrogate.NonzeroSignLogAbs(),
    surrogate.PiecewiseLeakyReLU(), surrogate.S2NN(), surrogate.QPseudoSpike(), surrogate.LeakyKReLU(0.1, 0.8),
    surrogate.FakeNumericalGradient(), surrogate.LogTailedReLU(0.1), surrogate.DeterministicPass(), surrogate.Rect(),
    surrogate.SquarewaveFourierSeries(3, 6.0),
]  # fmt: skip


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_nodes_are_native():
    for name in ("DendSN", "LNM"):
        cls = getattr(neuron, name)
        assert issubclass(cls, neuron.BaseNode)
        assert not issubclass(cls, (neuron.LIFNode, neuron.IFNode))
        assert isinstance(cls(), base.MemoryModule)
    assert list(neuron.DendSN()._memories) == ["v", "v_dend"]
    assert list(neuron.LNM(fire_once=True)._memories) == ["v", "fired"]
    assert "tau" in str(neuron.DendSN.__signature__)
    assert "branches" in neuron.DendSN.__doc__


@pytest.mark.parametrize("f", TABLE_SURROGATES, ids=lambda f: type(f).__name__)
def test_every_surrogate_of_the_host_is_read_exactly(f, double):
    x = torch.tensor([-2.3, -0.7, -0.2, 0.0, 0.1, 0.6, 1.4], requires_grad=True)
    known = read_surrogate(f)
    assert known is not None
    (g,) = torch.autograd.grad(f(x).sum(), x)
    torch.testing.assert_close(derivative(x.detach(), known), g)


def test_surrogates_outside_the_table_run_with_their_own_function(double):
    class Mine(surrogate.ATan):
        pass

    assert read_surrogate(Mine()) is None
    assert read_surrogate(surrogate.Sigmoid(spiking=False)) is None
    x = torch.rand(4, 2, 3, requires_grad=True)
    for f in (Mine(), surrogate.Sigmoid(spiking=False)):
        ours, host = (n(surrogate_function=f, step_mode="m") for n in (neuron.LNM, neuron.LIFNode))
        a, b = ours(x), host(x)
        torch.testing.assert_close(a, b)
        torch.testing.assert_close(torch.autograd.grad(a.sum(), x)[0], torch.autograd.grad(b.sum(), x)[0])


@pytest.mark.parametrize(
    ("v_reset", "tau", "decay_input", "detach", "f"),
    list(
        itertools.product(
            [0.0, None, -0.2], [2.0, 3.0], [True, False], [True, False], [surrogate.Sigmoid(), surrogate.Erf()]
        )
    ),
)
def test_lif_special_case_equals_lifnode(double, v_reset, tau, decay_input, detach, f):
    arguments = {
        "tau": tau, "decay_input": decay_input, "v_reset": v_reset, "surrogate_function": f, "detach_reset": detach,
        "step_mode": "m", "store_v_seq": True,
    }  # fmt: skip
    host = neuron.LIFNode(**arguments)
    x = torch.rand(9, 3, 4, 2) * 3
    a = x.clone().requires_grad_()
    expected = host(a)
    (expected.sum() + host.v.square().sum()).backward()
    for ours in (neuron.DendSN(3, **arguments), neuron.LNM(3, **arguments)):
        b = x.clone().requires_grad_()
        spikes = ours(b)
        (spikes.sum() + ours.v.square().sum()).backward()
        assert torch.equal(spikes, expected)
        torch.testing.assert_close(ours.v_seq, host.v_seq, atol=1e-12, rtol=0)
        torch.testing.assert_close(b.grad, a.grad, atol=1e-11, rtol=1e-9)


def test_lif_special_case_in_float32_away_from_threshold():
    x = torch.rand(16, 8, 32) * 3
    host = neuron.LIFNode(tau=3.0, step_mode="m", store_v_seq=True, surrogate_function=surrogate.ATan())
    ours = neuron.DendSN(tau=3.0, step_mode="m", surrogate_function=surrogate.ATan())
    exact = neuron.LIFNode(tau=3.0, step_mode="m", store_v_seq=True, surrogate_function=surrogate.ATan())
    exact(x.double())
    expected, spikes = host(x), ours(x)
    # charge before the reset, from the post-reset potentials of the float64 run
    before = torch.cat((torch.zeros_like(exact.v_seq[:1]), exact.v_seq[:-1]))
    h = before + (x.double() - before) / 3
    near = ((h - 1).abs() < 1e-5).cumsum(0) > 0
    assert near.float().mean() < 0.01
    assert torch.equal(spikes[~near], expected[~near])


def test_if_and_plif_special_cases(double):
    x = torch.rand(9, 3, 4) * 2
    assert torch.equal(neuron.LNM(tau=math.inf, decay_input=False, step_mode="m")(x), neuron.IFNode(step_mode="m")(x))
    plif = neuron.ParametricLIFNode(init_tau=2.5, step_mode="m")
    ours = adapter.build("DendSN", adapter.read(plif))
    a, b = plif(x), ours(x)
    assert torch.equal(a, b)
    (ga,) = torch.autograd.grad(a.sum(), plif.w)
    (gb,) = torch.autograd.grad(b.sum(), ours.model.beta_logit)
    torch.testing.assert_close(ga, -gb.squeeze())  # 1/tau = sigmoid(w), beta = 1 - 1/tau = sigmoid(-w)


@pytest.mark.parametrize("name", NODES)
@pytest.mark.parametrize(
    "options", [{}, {"v_reset": None}, {"fire_once": True}, {"detach_reset": True, "v_reset": -0.1}]
)
def test_single_step_equals_multi_step(name, options, double):
    x = torch.randn(6, 2, 4, 3) * 2
    multi, single = NODES[name](step_mode="m", **options), NODES[name](step_mode="s", **options)
    multi.store_v_seq = single.store_v_seq = True
    spikes = multi(x)
    assert torch.equal(torch.stack([single(t) for t in x]), spikes)
    torch.testing.assert_close(single.v_seq, multi.v_seq)
    for m in multi._memories:
        torch.testing.assert_close(multi._memories[m], single._memories[m])
    first = multi.v_seq
    functional.reset_net(multi)
    assert all(isinstance(value, float) for value in multi._memories.values())
    assert torch.equal(multi(x), spikes)
    torch.testing.assert_close(multi.v_seq, first)


@pytest.mark.parametrize("name", NODES)
def test_functional_forward_is_pure_and_backs_the_regular_one(name):
    node = NODES[name](step_mode="m")
    x = torch.rand(4, 2, 3)
    node.model.run(x)  # creates per-channel parameters
    before = dict(node._memories)
    states = node.materialize_states((x,), tuple(node._memories.values()), "m")
    (out,), new = node.functional_forward((x,), states)
    assert dict(node._memories) == before
    assert all(s.dtype == torch.float32 for s in states)
    assert torch.equal(node(x), out)
    for value, state in zip(node._memories.values(), new, strict=True):
        assert torch.equal(value, state)
    pure = base.to_functional_forward(NODES["LNM"](step_mode="m"))
    assert pure is not None


def test_states_are_float32_for_half_inputs_and_autocast():
    for dtype in (torch.float16, torch.bfloat16):
        node = neuron.DendSN(step_mode="m")
        out = node(torch.rand(3, 2, 4, dtype=dtype))
        assert out.dtype == dtype
        assert node.v.dtype == node.v_dend.dtype == torch.float32
    net = nn.Sequential(layer.Linear(4, 4, step_mode="m"), neuron.DendSN(step_mode="m"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = net(torch.rand(3, 2, 4))
    assert out.dtype == torch.bfloat16
    assert net[1].v.dtype == torch.float32


def test_hosts_own_tools_find_the_node():
    net = nn.Sequential(layer.Linear(4, 6), neuron.DendSN(), nn.Sequential(layer.Linear(6, 3), neuron.LNM()))
    functional.set_step_mode(net, "m")
    assert net[1].step_mode == net[2][1].step_mode == "m"
    outputs = monitor.OutputMonitor(net, neuron.BaseNode)
    potentials = monitor.AttributeMonitor("v", False, net, neuron.DendSN)
    x = torch.rand(5, 2, 4)
    net(x).sum().backward()
    assert len(outputs.records) == 2
    assert potentials.records[0].shape == (2, 6)
    functional.detach_net(net)
    assert not net[1].v.requires_grad
    net(x).sum().backward()
    functional.reset_net(net)
    assert net[1].v == 0.0
    net(x).sum().backward()
    functional.reset_net(net)


def test_memory_optimisation_checkpoints_the_node():
    from spikingjelly.activation_based import memopt

    node = neuron.DendSN(branches=2, strength_init=0.4, step_mode="m")
    wrapped = memopt.checkpoint_module(copy.deepcopy(node))
    x = torch.rand(5, 2, 4)
    grads = []
    for module in (node, wrapped):
        y = x.clone().requires_grad_()
        module(y).sum().backward()
        grads.append(y.grad)
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("name", NODES)
def test_copy_pickle_and_state_dict(name):
    node = NODES[name](step_mode="m", surrogate_function=surrogate.ATan(3.0), v_threshold=0.8)
    x = torch.rand(4, 2, 3)
    node.model.run(x)
    expected = node(x)
    functional.reset_net(node)
    buffer = io.BytesIO()
    torch.save(node, buffer)
    buffer.seek(0)
    other = NODES[name](step_mode="m", surrogate_function=surrogate.ATan(3.0), v_threshold=0.8)
    other.load_state_dict(node.state_dict())
    twins = (copy.deepcopy(node), pickle.loads(pickle.dumps(node)), torch.load(buffer, weights_only=False), other)
    for twin in twins:
        assert type(twin) is type(node)
        assert torch.equal(twin(x), expected)


def test_pickle_loads_in_a_fresh_process(run_python, tmp_path):
    path = tmp_path / "node.pt"
    torch.save(neuron.DendSN(branches=2), path)
    load = f"import torch; node = torch.load({str(path)!r}, weights_only=False)"
    code = f"{load}; print(type(node).__name__, node.model.branches)"
    assert run_python(code, torch=True) == "DendSN 2"


@pytest.mark.parametrize("name", NODES)
def test_compiles_to_one_graph(name):
    node = NODES[name](step_mode="m")
    x = torch.rand(4, 2, 3)
    node.model.run(x)
    expected = node(x)
    functional.reset_net(node)
    assert torch.equal(torch.compile(node, fullgraph=True, backend="aot_eager")(x), expected)


def test_learned_and_per_channel_thresholds():
    threshold = nn.Parameter(torch.tensor([0.5, 1.0, 1.5]))
    node = neuron.LNM(v_threshold=threshold, step_mode="m", v_reset=None)
    x = torch.rand(6, 2, 3) * 2
    node(x).sum().backward()
    assert "v_threshold" in dict(node.named_parameters())
    assert (threshold.grad != 0).all()
    functional.reset_net(node)
    alone = neuron.LNM(v_threshold=1.5, step_mode="m", v_reset=None)
    assert torch.equal(node(x)[..., 2], alone(x)[..., 2])


@pytest.mark.parametrize("fire_once", [False, True])
def test_ttfs_node_fires_the_same_spikes_in_both_modes_one_window_later(fire_once):
    steps = 8
    build = {"window": 2.0, "input_window": 1.0, "bias": torch.tensor([0.1, -0.2, 0.3]), "fire_once": fire_once}
    multi, single = neuron.TTFS(steps, step_mode="m", **build), neuron.TTFS(steps, **build)
    x = (torch.rand(2 * steps, 4, 3) < 0.2).float()
    spikes = multi(x)
    steps_out = torch.stack([single(t) for t in torch.cat((x, torch.zeros(steps, 4, 3)))])
    assert spikes.sum() > 0
    assert torch.equal(steps_out[steps:], spikes)
    assert steps_out[:steps].sum() == 0
    assert (spikes.reshape(2, steps, 4, 3).sum(1) <= 1).all()
    net = nn.Sequential(layer.Linear(3, 5, bias=False, step_mode="m"), neuron.TTFS(steps, bias=True, step_mode="m"))
    net(x).sum().backward()
    functional.reset_net(net)
    with pytest.raises(ValueError, match="steps"):
        multi(x[:5])
    reset_elsewhere = neuron.TTFS(steps, step_mode="m", v_reset=0.5, **build)
    assert reset_elsewhere.v == 0.0  # the host's reset potential is none of its business
    assert torch.equal(reset_elsewhere(x), spikes)
    functional.reset_net(reset_elsewhere)
    assert torch.equal(reset_elsewhere(x), spikes)


def test_input_of_another_batch_size_starts_from_reset():
    node = neuron.DendSN(step_mode="m")
    node(torch.rand(3, 4, 5))
    x = torch.rand(3, 2, 5)
    fresh = neuron.DendSN(step_mode="m")
    assert torch.equal(node(x), fresh(x))


def test_int_threshold_works_and_wiring_fold_shrinks_the_channels():
    assert neuron.LNM(v_threshold=2, v_reset=0).v_threshold == 2.0
    node = neuron.DendSN(branches=2, wiring="fold", strength="softmax", alpha=0.5, direct=0, step_mode="m")
    assert node(torch.rand(3, 2, 6, 4, 4)).shape == (3, 2, 3, 4, 4)
    assert node.v.shape == (2, 3, 4, 4)
    assert node.v_dend.shape == (2, 3, 2, 4, 4)
    assert node.model.decay_input is False


@pytest.mark.parametrize(
    ("build", "error", "text"),
    [
        (lambda: neuron.DendSN(tau=1.0), ValueError, "tau is 1.0"),
        (lambda: neuron.DendSN(v_threshold="high"), TypeError, "v_threshold is 'high'"),
        (lambda: neuron.DendSN(v_reset=True), TypeError, "v_reset is True"),
        (lambda: neuron.DendSN(branch=3), TypeError, "unexpected argument 'branch'"),
        (lambda: neuron.DendSN(branches=0), ValueError, "branches is 0"),
        (lambda: neuron.DendSN(step_mode="x"), ValueError, "step_mode"),
        (lambda: neuron.DendSN(step_mode="m")(torch.rand(0, 2, 3)), ValueError, "empty sequence"),
        (lambda: neuron.DendSN(step_mode="m")(torch.ones(2, 2, 3, dtype=torch.int64)), TypeError, "floating point"),
        (lambda: neuron.DendSN(2, wiring="fold", step_mode="m")(torch.rand(2, 2, 3)), ValueError, "does not divide"),
    ],
)
def test_bad_arguments_are_named(build, error, text):
    with pytest.raises(error, match=text):
        build()


def test_registration_never_overwrites_and_can_be_undone():
    ours = neuron.DendSN
    sdp.deactivate()
    try:
        assert not hasattr(neuron, "DendSN")
        neuron.DendSN = "the host's own"
        sdp.activate()
        assert neuron.DendSN == "the host's own"
        sdp.deactivate()
        assert neuron.DendSN == "the host's own"
    finally:
        del neuron.DendSN
        sdp.activate()
    assert neuron.DendSN is ours


def test_tau_and_repr_where_tensors_have_no_values():
    with torch.device("meta"):
        node = neuron.DendSN(tau=4.0)
    assert node.to("meta").tau.is_meta
    with torch._subclasses.FakeTensorMode():
        assert "DendSN" in repr(neuron.DendSN(tau=4.0))
