"""States of snnTorch's nodes: resetting at any depth, detaching, copies, pickles, checkpoints."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref

import pytest
import torch
from torch import nn

snn = pytest.importorskip("snntorch")

from snntorch import surrogate, utils  # noqa: E402
from snntorch_cases import ALL, loop, make  # noqa: E402

# -- resetting --------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    """Neurons at three depths, beside a stock one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(3, 4), nn.Sequential(make("Dendritic", init_hidden=True)))
        self.blocks = nn.ModuleDict({"a": nn.ModuleList([nn.Linear(4, 4), make("LNM", init_hidden=True)])})
        self.stock = snn.Leaky(0.9, init_hidden=True)
        self.last = make("Adaptive", init_hidden=True, output=True)

    def forward(self, x):
        x = self.stem(x)
        for layer in self.blocks["a"]:
            x = layer(x)
        return self.last(self.stock(2 * x))


def states_of(net):
    return [
        getattr(m, name) for m in net.modules() if isinstance(m, snn.SpikingNeuron)
        for name in getattr(m, "_state_names", ("mem",))
    ]  # fmt: skip


@pytest.mark.parametrize("way", ["plain", "deepcopied", "compiled", "unpickled"])
def test_utils_reset_reaches_every_neuron_of_this_net_only(way):
    torch.manual_seed(1)
    net, other = Net(), Net()
    if way == "deepcopied":
        net = copy.deepcopy(net)
        net.stock = snn.Leaky(0.9, init_hidden=True)  # snnTorch itself does not reset copies of its own neurons
    elif way == "unpickled":
        net = pickle.loads(pickle.dumps(net.stem))
    x = torch.randn(4, 3)
    run = torch.compile(net, backend="eager") if way == "compiled" else net
    other(x)
    kept = [m.mem.clone() for m in other.modules() if hasattr(m, "model")]

    def outputs():
        out = [run(x) for _ in range(3)]
        return torch.stack([o[0] if isinstance(o, tuple) else o for o in out])

    if way == "compiled":  # its only child is the wrapped net, in which snnTorch does not look for its own neuron
        net.stock = nn.Identity()
    first = outputs()
    first.sum().backward()
    utils.reset(run)
    assert not any(state.requires_grad for state in states_of(net))
    second = outputs()
    assert torch.equal(first, second)
    second.sum().backward()
    assert all(
        torch.equal(m.mem, k) for m, k in zip((m for m in other.modules() if hasattr(m, "model")), kept, strict=True)
    )
    utils.reset(next(m for m in net.modules() if hasattr(m, "model")))  # a neuron by itself
    assert states_of(net)[0].abs().sum() == 0


def test_reset_gives_each_state_its_own_start():
    neuron = make("Adaptive")
    loop(neuron, torch.rand(3, 2, 3))
    neuron.reset_mem()
    assert neuron.mem.tolist() == [[0.0] * 3] * 2
    assert neuron.w.tolist() == [[0.25] * 3] * 2


def test_stock_neurons_are_reset_as_ever(run_python):
    code = """
import torch, snntorch as snn
from snntorch import utils
from snntorch.utils import reset
{plugin}
torch.manual_seed(0)
nested = torch.nn.Sequential(snn.Synaptic(0.5, 0.5, init_hidden=True))
net = torch.nn.Sequential(snn.Leaky(0.9, init_hidden=True), nested)
other = snn.Leaky(0.9, init_hidden=True)
x = torch.rand(2, 3)
net(x), other(x)
reset(net)
print(net[0].mem.tolist(), net[1][0].mem.tolist(), other.mem.tolist(), utils.is_leaky, utils.is_synaptic)
print([utils._final_layer_check(n) for n in (net, nested, torch.nn.Sequential(other))])
"""
    with_plugin = run_python(code.format(plugin="import snn_dendrite_plugin"), torch=True)
    assert with_plugin == run_python(code.format(plugin=""), torch=True)
    assert "True False" in with_plugin


def test_patches_are_undone_and_idempotent():
    from snn_dendrite_plugin.adapters.snntorch import patches

    wrapped = utils._layer_check
    patches.patch()
    assert utils._layer_check is wrapped
    neuron = make("LNM", init_hidden=True)
    net = nn.Sequential(neuron)
    try:
        patches.unpatch()
        assert utils._layer_check is wrapped.__wrapped__
        assert not hasattr(utils._final_layer_check, "__wrapped__")
        neuron(torch.ones(1, 2))
        utils.reset(net)
        assert neuron.mem.sum() > 0
    finally:
        patches.patch()
    utils.reset(net)
    assert neuron.mem.sum() == 0


def test_a_host_that_resets_instances_itself_does_no_harm(monkeypatch):
    from snn_dendrite_plugin.adapters.snntorch import patches

    def future_reset(net):
        for module in net.modules():
            if isinstance(module, snn.SpikingNeuron):
                module.reset_mem()

    patches.unpatch()
    try:
        monkeypatch.delattr(utils, "_layer_check")
        monkeypatch.setattr(utils, "reset", future_reset)
        patches.patch()
        net = nn.Sequential(make("Dendritic", init_hidden=True))
        net(torch.ones(2, 3))
        utils.reset(net)
        assert net[0].mem.abs().sum() == net[0].v_dend.abs().sum() == 0
    finally:
        patches.unpatch()
        monkeypatch.undo()
        patches.patch()
    assert hasattr(utils._layer_check, "__wrapped__")
    assert not hasattr(utils.reset, "__wrapped__")


def test_hidden_states_of_a_class_can_be_reset_and_detached():
    neurons = [make("LNM", init_hidden=True), copy.deepcopy(make("LNM", init_hidden=True)), make("Dendritic")]
    for neuron in neurons:
        neuron(torch.ones(2, 3, requires_grad=True))
    snn.LNM.detach_hidden()
    assert [n.mem.requires_grad for n in neurons] == [False, False, True]
    assert neurons[0].mem.sum() > 0
    snn.LNM.reset_hidden()
    assert [bool(n.mem.abs().sum() == 0) for n in neurons] == [True, True, False]


def test_neurons_are_freed():
    neuron = make("Dendritic")
    assert not any(item is neuron for item in snn.SpikingNeuron.instances)
    gone = weakref.ref(neuron)
    del neuron
    gc.collect()
    assert gone() is None


# -- copies and checkpoints -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Dendritic", "LNM"])
@pytest.mark.parametrize("spike_grad", [None, surrogate.fast_sigmoid(slope=10)])
def test_modules_with_a_history_can_be_copied_and_saved(name, spike_grad):
    neuron = make(name, init_hidden=True, spike_grad=spike_grad)
    x = torch.randn(3, 4) + 0.5
    neuron(x.requires_grad_())
    assert neuron.mem.requires_grad
    buffer = io.BytesIO()
    torch.save(neuron, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(neuron), torch.load(buffer, weights_only=False)):
        assert type(other) is type(neuron)
        assert torch.equal(other.mem, neuron.mem)
        assert not other.mem.requires_grad
        assert other._read_spike_grad() == neuron._read_spike_grad()
        assert torch.equal(other(x.detach()), copy.deepcopy(neuron)(x.detach()))
        utils.reset(nn.Sequential(other))
        assert other.mem.abs().sum() == 0
    assert neuron.mem.requires_grad


def test_pickles_load_in_a_fresh_process(tmp_path, run_python):
    net = nn.Sequential(nn.Linear(3, 4), make("Dendritic", init_hidden=True), make("LNM"))
    path = tmp_path / "net.pt"
    torch.save(net, path)
    code = f"import torch\nnet = torch.load({str(path)!r}, weights_only=False)\n"
    code += "print(type(net[1]).__name__, len(net(torch.rand(2, 3))))"
    assert run_python(code, torch=True) == "Dendritic 2"


@pytest.mark.parametrize("name", ALL)
def test_state_dict_round_trip_is_stable(name):
    neuron = make(name, reset_mechanism="zero", threshold=0.7)
    loop(neuron, torch.rand(3, 2, 4))
    state = neuron.state_dict()
    assert not set(state) & {"mem", "v_dend", "w"}
    other = make(name)
    assert other.load_state_dict(state).missing_keys == []
    assert other.reset_mechanism == "zero"
    x = torch.rand(5, 2, 4) + 0.5
    assert all(torch.equal(a, b) for a, b in zip(loop(other, x), loop(neuron, x), strict=True))
    assert list(other.state_dict()) == list(state)


@pytest.mark.parametrize("learn_beta", [False, True])
@pytest.mark.parametrize(
    ("name", "beta"), [("LNM", 0.25), ("Dendritic", 0.25), ("LNM", [0.1, 0.2]), ("Dendritic", [0.1, 0.2])]
)
def test_checkpoint_of_leaky_loads(name, beta, learn_beta):
    beta = torch.tensor(beta)
    stock = snn.Leaky(beta, threshold=0.75, learn_beta=learn_beta, reset_mechanism="zero")
    start = torch.full_like(beta, 0.5)
    neuron = getattr(snn, name)(start, learn_beta=learn_beta)
    strength = getattr(neuron.model, "strength", torch.zeros(1)).clone()
    net, checkpoint = nn.ModuleDict({"lif": neuron}), nn.ModuleDict({"lif": stock}).state_dict()
    net.load_state_dict(checkpoint, strict=True)
    torch.testing.assert_close(neuron.beta.detach(), beta, rtol=1e-6, atol=1e-6)
    assert (neuron.threshold.item(), neuron.reset_mechanism) == (0.75, "zero")
    assert torch.equal(getattr(neuron.model, "strength", torch.zeros(1)), strength)
    x = torch.rand(6, 3, 2) + 0.3
    assert torch.equal(loop(neuron, x)[0], loop(stock, x)[0])


def test_checkpoint_of_leaky_loads_before_the_channels_are_known():
    neuron = snn.LNM(0.5, per_channel=True)
    neuron.load_state_dict(snn.Leaky(0.25).state_dict())
    neuron(torch.rand(2, 3))
    assert neuron.beta.tolist() == [0.25] * 3


def test_checkpoints_that_do_not_fit_are_refused():
    with pytest.raises(RuntimeError, match="beta has 3 values; theta has rows for 1"):
        snn.LNM(0.5).load_state_dict(snn.Leaky(torch.tensor([0.1, 0.2, 0.3])).state_dict())
    state = snn.LNM(0.5).state_dict()
    del state["model.theta"]
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"model.theta\""):
        snn.LNM(0.5).load_state_dict(state)
    assert snn.LNM(0.5).load_state_dict(state, strict=False).missing_keys == ["model.theta"]


def test_a_neuron_can_be_made_without_memory():
    with torch.device("meta"):
        net = nn.Sequential(nn.Linear(3, 4), snn.Dendritic(0.5, init_hidden=True))
        assert net(torch.rand(2, 3)).is_meta
    assert "threshold" in repr(net)
    net.to_empty(device="cpu").load_state_dict(nn.Sequential(nn.Linear(3, 4), snn.Dendritic(0.5)).state_dict())
    assert net(torch.rand(2, 3)).device.type == "cpu"
    assert net[1].reset_mechanism == "subtract"
