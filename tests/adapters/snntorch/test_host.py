"""snnTorch around the nodes: surrogate closures, backprop, and which of its neurons convert to which arguments."""

from __future__ import annotations

import contextlib
import copy
import functools
import types

import pytest
import torch
from torch import nn

snn = pytest.importorskip("snntorch")

from snntorch import functional, surrogate, utils  # noqa: E402
from snntorch.functional import quant  # noqa: E402

from snn_dendrite_plugin.adapters.snntorch.adapter import adapter  # noqa: E402
from snn_dendrite_plugin.adapters.snntorch.surrogates import DEFAULT_SPIKE_GRAD, read_surrogate  # noqa: E402
from snn_dendrite_plugin.kernels.surrogates import Surrogate  # noqa: E402

with pytest.warns(DeprecationWarning, match="snntorch.backprop"):
    from snntorch import backprop

# -- surrogates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("function", "expected"), [
    (surrogate.atan(alpha=3.0), Surrogate("atan", 3.0)),
    (surrogate.fast_sigmoid(), Surrogate("fast_sigmoid", 25.0)),
    (surrogate.sigmoid(slope=4), Surrogate("sigmoid", 4.0)),
    (surrogate.spike_rate_escape(beta=2, slope=3), Surrogate("spike_rate_escape", 2.0, 3.0)),
    (surrogate.triangular(threshold=0.5), Surrogate("triangular", 0.5)),
    (surrogate.straight_through_estimator(), Surrogate("straight_through")),
    (surrogate.heaviside(), Surrogate("heaviside")),
    (surrogate.SFS(slope=5, B=0.2), Surrogate("sparse_fast_sigmoid", 5.0, 0.2)),
    (DEFAULT_SPIKE_GRAD, Surrogate("atan", 2.0)),
    (Surrogate("erf"), Surrogate("erf")),
    (snn.Leaky(0.5).spike_grad, Surrogate("atan", 2.0)),
])  # fmt: skip
def test_closures_are_read_into_the_table(function, expected):
    assert read_surrogate(function) == expected


@pytest.mark.parametrize("function", [
    surrogate.SSO(), surrogate.LSO(), surrogate.custom_surrogate(lambda x, grad, spikes: grad),
    surrogate.atan(alpha=torch.tensor(2.0)), lambda x: (x > 0).to(x.dtype), torch.sigmoid, nn.Sigmoid(),
])  # fmt: skip
def test_other_functions_are_run_as_they_are(function):
    assert read_surrogate(function) is None


def test_later_forms_of_the_closures_are_read(monkeypatch):
    class Atan:
        def __init__(self, alpha):
            self.alpha = alpha

        def __call__(self, x):
            return surrogate.ATan.apply(x, self.alpha)

    Atan.__name__, Atan.__module__ = "ATan", "snntorch.surrogate"
    assert read_surrogate(Atan(1.5)) == Surrogate("atan", 1.5)

    def fast_sigmoid(x, slope=25):
        return surrogate.FastSigmoid.apply(x, slope)

    fast_sigmoid.__module__ = "snntorch.surrogate"
    assert read_surrogate(functools.partial(fast_sigmoid, slope=7)) == Surrogate("fast_sigmoid", 7.0)


def test_a_formula_that_changed_upstream_is_not_taken_for_the_table_s(monkeypatch):
    closure = surrogate.fast_sigmoid(slope=10)
    monkeypatch.setattr(surrogate.FastSigmoid, "backward", staticmethod(lambda ctx, grad: (grad * 0.5, None)))
    assert read_surrogate(closure) is None


def test_an_exchanged_spike_grad_takes_effect():
    neuron = snn.LNM(0.5)
    x = torch.full((1, 1), 1.5, requires_grad=True)

    def gradient():
        neuron.reset_mem()
        return torch.autograd.grad(neuron(x)[0].sum(), x)[0].item()

    assert gradient() == pytest.approx(1 / (1 + (torch.pi * 0.5) ** 2))
    neuron.spike_grad = surrogate.fast_sigmoid(slope=2)
    assert gradient() == pytest.approx(0.25)
    neuron.spike_grad = surrogate.custom_surrogate(lambda distance, grad, spikes: 7 * grad)
    assert gradient() == 7.0


# -- backprop ---------------------------------------------------------------------------------------------------------


def data():
    x = torch.rand(6, 8, 4, generator=torch.Generator().manual_seed(0))  # [T, N, C]
    return [(x, torch.tensor([0, 1] * 4))] * 2


@pytest.mark.feature("snnTorch: BPTT, TBPTT, RTRL", host="snnTorch", neuron="{name}")
@pytest.mark.parametrize("place", ["last", "hidden"])
@pytest.mark.parametrize(("method", "kwargs"), [("BPTT", {}), ("TBPTT", {"K": 2}), ("TBPTT", {"K": 4}), ("RTRL", {})])
@pytest.mark.parametrize("name", ["Dendritic", "LNM"])
def test_backprop_trains(name, method, kwargs, place):
    torch.manual_seed(0)
    ours, stock = getattr(snn, name), snn.Leaky
    hidden, last = (ours, stock) if place == "hidden" else (ours, ours)
    net = nn.Sequential(
        nn.Linear(4, 8), hidden(0.9, init_hidden=True), nn.Linear(8, 2), last(0.9, init_hidden=True, output=True)
    )
    neuron = net[1]
    before = [parameter.clone() for parameter in neuron.parameters()]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    criterion = functional.ce_rate_loss()
    batch = data()[0][0]
    batches = [(batch[0], targets) for _, targets in data()]
    loss = getattr(backprop, method)(net, batches, optimizer, criterion, num_steps=6, time_var=False, **kwargs)
    assert torch.isfinite(loss)
    assert any(not torch.equal(a, b) for a, b in zip(before, neuron.parameters(), strict=True))
    assert not optimizer._optimizer_step_post_hooks


def test_first_spikes_train_over_windows_not_step_by_step():
    from snntorch import backprop

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 2), snn.TTFS(3, bias=[0.3, 0.4], init_hidden=True, output=True))
    x, optimizer = torch.rand(8, 4), torch.optim.SGD(net.parameters(), lr=0.1)
    batches = [(x, torch.tensor([0, 1] * 4))]
    with pytest.raises(RuntimeError, match="does not require grad"):
        backprop.RTRL(net, batches, optimizer, functional.ce_count_loss(), num_steps=6, time_var=False)
    utils.reset(net)
    spikes = torch.stack([net(x)[0] for _ in range(6)])
    (spikes.flatten(1).sum(1) * torch.arange(6.0)).sum().backward()
    assert net[0].weight.grad.any()


def test_truncation_does_not_outlive_the_call():
    net = nn.Sequential(nn.Linear(4, 2), snn.LNM(0.9, init_hidden=True))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with contextlib.suppress(ValueError):
        backprop.TBPTT(net, data(), optimizer, functional.ce_rate_loss(), num_steps=6)
    net(torch.rand(3, 4))
    optimizer.step()
    assert net[1].mem.requires_grad


def test_final_layer_check_counts_our_outputs():
    ours = nn.Sequential(nn.Linear(2, 2), snn.LNM(0.5))
    assert utils._final_layer_check(ours) == 2
    assert utils._final_layer_check(torch.compile(ours, backend="eager")) == 2
    assert utils._final_layer_check(nn.Sequential(snn.LNMParallel(0.5))) == 1
    assert utils._final_layer_check(nn.Sequential(snn.LNMParallel(0.5, output=True))) == 2
    assert utils._final_layer_check(nn.Sequential(snn.LNM(0.5), nn.Linear(2, 2))) == 1
    assert utils._final_layer_check(nn.Sequential(snn.LNM(0.5), snn.Synaptic(0.5, 0.5))) == 3


# -- conversion -------------------------------------------------------------------------------------------------------


def test_other_neurons_are_refused_with_a_reason():
    refused = {
        "Lapicque": lambda: snn.Lapicque(beta=0.5),
        "Synaptic": lambda: snn.Synaptic(0.5, 0.5),
        "Alpha": lambda: snn.Alpha(0.6, 0.5),
        "RLeaky": lambda: snn.RLeaky(0.5, linear_features=2),
        "RSynaptic": lambda: snn.RSynaptic(0.5, 0.5, linear_features=2),
        "SLSTM": lambda: snn.SLSTM(2, 2),
        "SConv2dLSTM": lambda: snn.SConv2dLSTM(1, 1, 3),
        "DeltaLeaky": lambda: snn.DeltaLeaky(0.5, 0.9),
        "StateLeaky": lambda: snn.StateLeaky(0.5, 2),
        "LinearLeaky": lambda: snn.LinearLeaky(0.5, 2, 2),
        "LeakyParallel": lambda: snn.LeakyParallel(2, 2),
        "AssociativeLeaky": lambda: snn.AssociativeLeaky(2, 4, 4, 16),
    }
    reasons = set()
    for name, build in refused.items():
        module = build()
        adapter.forget(module)  # snnTorch cannot reset a fresh DeltaLeaky, and tries to whenever it resets a Leaky
        assert adapter.is_neuron(module)
        reason = adapter.why_not(module)
        assert reason.startswith(f"{name} ")
        assert "what it computes is not known" not in reason
        reasons.add(reason)
    assert len(reasons) == len(refused)
    for name in ("Dendritic", "LNM", "DendriticParallel"):
        assert adapter.is_neuron(getattr(snn, name)(0.5))
        assert adapter.why_not(getattr(snn, name)(0.5)) == f"is already a {name}"
    assert not adapter.is_neuron(nn.Linear(2, 2))

    class Mine(snn.Leaky):
        pass

    assert adapter.why_not(Mine(0.5)) == "Mine is a subclass of Leaky: what it computes is not known"
    assert adapter.why_not(snn.Leaky(torch.rand(3, 4))).startswith("Leaky has a beta of shape (3, 4)")


def test_lapicque_is_no_leaky_neuron():
    lapicque, leaky = snn.Lapicque(beta=0.5), snn.Leaky(0.5)
    x = torch.full((1, 1), 0.25)
    assert lapicque(x)[1].item() != pytest.approx(leaky(x)[1].item(), rel=0.1)


@pytest.mark.parametrize("target", ["Dendritic", "LNM"])
@pytest.mark.parametrize("kwargs", [
    {}, {"learn_beta": True, "learn_threshold": True, "threshold": 0.7},
    {"reset_mechanism": "zero", "reset_delay": False, "init_hidden": True, "output": True},
    {"spike_grad": surrogate.fast_sigmoid(slope=5), "graded_spikes_factor": 2.0, "learn_graded_spikes_factor": True},
    {"surrogate_disable": True, "state_quant": quant.state_quant(num_bits=3)},
])  # fmt: skip
def test_leaky_is_read_and_built_anew(target, kwargs):
    stock = snn.Leaky(0.8, **kwargs)
    assert adapter.why_not(stock) is None
    arguments = adapter.read(stock)
    own = {"strength_init": 0.0} if target == "Dendritic" else {}
    spec = {"Dendritic": "DendSN", "LNM": "LNM"}[target]
    node = adapter.build(spec, {**arguments, **own})
    assert type(node) is getattr(snn, target)
    back = adapter.read(node)
    assert back.pop("learn_beta") is (True if target == "LNM" else arguments.pop("learn_beta"))  # LNM learns it anyway
    for key, value in back.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(value, arguments[key])
        elif key != "spike_grad":
            assert value == arguments[key], key
    assert read_surrogate(back["spike_grad"]) == read_surrogate(arguments["spike_grad"])
    x = torch.rand(6, 4, 3) + 0.3
    for step in x:
        out, out_stock = node(step), stock(step)
        spk, spk_stock = (o[0] if isinstance(o, tuple) else o for o in (out, out_stock))
        assert torch.equal(spk, spk_stock)
        torch.testing.assert_close(node.mem, stock.mem)


def test_the_reset_that_leaky_carries_out_is_read():
    changed = snn.Leaky(0.5)
    changed.reset_mechanism = "zero"  # snnTorch goes on subtracting
    x = torch.full((1, 1), 3.0)
    assert [changed(x)[1].item() for _ in range(2)] == [3.0, 3.5]
    assert adapter.read(changed)["reset_mechanism"] == "subtract"
    assert adapter.why_not(changed) is None
    half = snn.Leaky(0.5, reset_delay=False)
    half.reset_mechanism = "zero"
    assert adapter.why_not(half).endswith("of which snnTorch applies only one half")


def test_a_beta_out_of_range_is_read_as_it_is_used():
    stock = snn.Leaky(1.5)
    assert stock(torch.zeros(1, 1), torch.ones(1, 1) / 2)[1].item() == 0.5
    assert adapter.read(stock)["beta"].item() == 1.0


def test_before_swap_leaves_states_that_can_be_copied():
    net = nn.Sequential(
        nn.Linear(3, 3), snn.Leaky(0.5, init_hidden=True), snn.Synaptic(0.5, 0.5, init_hidden=True),
        snn.Dendritic(0.5, init_hidden=True),
    )  # fmt: skip
    net(torch.rand(2, 3))
    with pytest.raises(RuntimeError, match="graph leaves"):
        copy.deepcopy(net)
    adapter.before_swap(net)
    copy.deepcopy(net)
    assert net[1].mem.shape == (2, 3)
    assert all(state.abs().sum() == 0 for state in (net[1].mem, net[2].syn, net[3].mem, net[3].v_dend))


def test_replaced_neurons_are_forgotten_and_remembered():
    stock = snn.Leaky(0.5)
    listed = snn.SpikingNeuron.instances

    def count():
        return sum(item is stock for item in listed)

    adapter.forget(stock)
    assert count() == 0
    adapter.remember(stock)
    adapter.remember(stock)
    assert count() == 1
    adapter.remember(snn.LNM(0.5))
    assert not any(isinstance(item, snn.LNM) for item in listed)


def test_names_are_taken_back_and_never_overwritten(monkeypatch):
    from snn_dendrite_plugin import plugins
    from snn_dendrite_plugin.adapters.snntorch.adapter import SnnTorchAdapter

    space = types.ModuleType("space")
    space.LNM = "the host's own"
    fresh = SnnTorchAdapter()
    monkeypatch.setattr(fresh, "namespaces", lambda: (space,))
    monkeypatch.setattr(fresh, "unpatch", lambda: None)
    for spec in plugins.models().values():
        fresh.install(spec)
        fresh.install(spec)
    assert space.LNM == "the host's own"
    assert sorted(fresh.installed) == ["Dendritic", "DendriticParallel", "LNMParallel", "TTFS"]
    fresh.uninstall()
    assert {name for name in vars(space) if not name.startswith("_")} == {"LNM"}
