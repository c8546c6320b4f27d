"""One hand-over of states for all hosts, and what the shells read of a model."""

import logging
import sys

import pytest
import torch

pytest.importorskip("spikingjelly")
pytest.importorskip("snntorch")

import snntorch as snn
from places import SUPPORT
from spikingjelly.activation_based import functional, neuron, surrogate

from snn_dendrite_plugin import Firing, NeuronModel
from snn_dendrite_plugin.adapters import base
from snn_dendrite_plugin.adapters.base import accepts, states_for
from snn_dendrite_plugin.adapters.snntorch.factory import node_class as snntorch_class
from snn_dendrite_plugin.adapters.spikingjelly.shell import PluginNode
from snn_dendrite_plugin.adapters.spikingjelly.shell import node_class as spikingjelly_class
from snn_dendrite_plugin.kernels.soma_dendrite.contract import one_number
from snn_dendrite_plugin.neurons import core
from snn_dendrite_plugin.neurons.dendsn import DendSN

sys.path.insert(0, str(SUPPORT))
from toy_host import ToyNode  # noqa: E402


class Warm(NeuronModel):
    """Starts from potentials of its own, by its threshold and its channel."""

    states = {"v": -1.0, "w": 0.5}

    def init_states(self, x, firing=None):
        start = 0.25 * firing.threshold + 0.1 * torch.arange(x.shape[1], dtype=x.dtype, device=x.device)
        states = (start.expand_as(x), torch.full_like(x, 2.0))
        return (*states, torch.zeros_like(x)) if firing.fire_once else states

    def step(self, x, states, firing):
        v, w = states
        spikes, v = firing.update(memory=0.5 * v, drive=x - w)
        return spikes, (v, w)


@pytest.fixture
def handed_down(monkeypatch):
    """Inputs of every call of the fused op."""
    calls, op = [], core.soma_dendrite

    def recorded(inputs, *arguments):
        calls.append(inputs)
        return op(inputs, *arguments)

    monkeypatch.setattr(core, "soma_dendrite", recorded)
    return calls


@pytest.mark.parametrize("options", [{}, {"fire_once": True}, {"v_reset": -0.3}, {"v_reset": None}])
@pytest.mark.parametrize("step_mode", ["s", "m"])
@pytest.mark.parametrize("store", [False, True])
def test_reset_states_stay_one_number_down_to_the_kernel(handed_down, options, step_mode, store):
    for node in (neuron.DendSN(branches=3, **options), neuron.LNM(**options)):
        node.step_mode, node.store_v_seq = step_mode, store
        x = torch.rand(4, 2, 3)
        outputs = []
        for _ in range(2):  # the first call, and the first after a reset
            handed_down.clear()
            outputs.append(node(x))
            first = handed_down[0]
            assert one_number(first.u, first.v, first.fired)
            assert first.u.shape == (x[0].shape if step_mode == "m" else x.shape)
            handed_down.clear()
            node(x)
            assert not one_number(handed_down[0].u)  # it goes on from there
            functional.reset_net(node)
        assert torch.equal(*outputs)


def test_snntorch_hands_down_one_number_too(handed_down):
    for node, x in (
        (snn.DendriticParallel(beta=0.9), torch.rand(4, 2, 3)),
        (snn.Dendritic(beta=0.9), torch.rand(2, 3)),
    ):
        node(x)
        assert one_number(handed_down[-1].u, handed_down[-1].v)


def test_a_models_own_start_counts_in_every_host():
    x = torch.rand(5, 2, 3) * 3 + 1
    soft = Firing(reset="soft")
    expected, _ = Warm().run(x, firing=soft)
    assert not torch.equal(expected, Warm().sequence(x, (torch.zeros(2, 3), torch.full((2, 3), 0.5)), soft)[0])
    for step_mode in ("m", "s"):
        node = spikingjelly_class("Warm", Warm)(v_reset=None, step_mode=step_mode)
        for _ in range(2):
            assert torch.equal(node(x) if step_mode == "m" else torch.stack([node(step) for step in x]), expected)
            functional.reset_net(node)
    delayed, _ = Warm().run(x, firing=Firing(reset="soft", timing="next_step", strict=True))
    lif = snntorch_class("Warm", Warm)(init_hidden=True)
    for _ in range(2):
        assert torch.equal(torch.stack([lif(step) for step in x]), delayed)
        lif.reset_mem()
    toy = type("Toy", (ToyNode,), {"model_class": Warm})()
    assert torch.equal(toy(x), expected)


def test_numbers_tensors_and_none():
    model, x = DendSN(branches=2), torch.rand(4, 3)
    firing = lambda: Firing(v_reset=-0.5)  # noqa: E731
    kept = torch.rand(4, 3, 2)
    v, v_dend = states_for(model, x, (0.25, kept), firing)
    assert v.unique().tolist() == [0.25]
    assert v_dend.data_ptr() == kept.data_ptr()
    v, v_dend = states_for(model, x, (None, kept), firing)
    assert v.unique().tolist() == [-0.5]
    assert torch.equal(v_dend, kept)
    v, v_dend = states_for(model, x, (torch.rand(5, 3), kept), firing)  # another potential: all afresh
    assert v.unique().tolist() == [-0.5]
    assert not v_dend.any()
    v, v_dend = states_for(model, x.double(), (torch.ones(4, 3), torch.rand(1)), firing)
    assert (v.dtype, v_dend.dtype, v_dend.shape) == (torch.float64, torch.float64, (4, 3, 2))
    assert v.all()

    class Wrong(DendSN):
        def init_states(self, x, firing=None):
            return super().init_states(x[:1], firing)

    with pytest.raises(ValueError, match=r"Wrong.init_states and Wrong.state_shapes disagree for x \(4, 3\)"):
        states_for(Wrong(2), x, (None, None), firing)


def test_firing_is_read_once_per_call(monkeypatch):
    reads, firing = [], PluginNode.firing
    node, x = neuron.DendSN(step_mode="m"), torch.rand(3, 2, 4)
    monkeypatch.setattr(PluginNode, "firing", lambda self: reads.append(self) or firing(self))
    for call in range(1, 3):
        node(x)
        assert len(reads) == call


def test_a_slow_surrogate_is_said_at_one_level_in_both_hosts(caplog, monkeypatch):
    monkeypatch.setattr(base, "_said", set())

    class Mine(surrogate.ATan):
        pass

    node, lif = neuron.LNM(surrogate_function=Mine()), snn.LNM(beta=0.5, spike_grad=lambda d: (d > 0).to(d))
    for _ in range(2):
        node(torch.rand(2, 3))
        lif(torch.rand(2, 3))
    messages = [r for r in caplog.records if "not in the surrogate table" in r.message]
    assert [r.levelno for r in messages] == [logging.WARNING] * 2


# -- attributes of LIFNode that belong to the model -------------------------------------------------------------------


def change_tau(node):
    node.tau = 4.0


def change_reset(node):
    node.v_reset = 0.5


def to_soft(node):
    node.v_reset = None


def change_input(node):
    node.decay_input = False


@pytest.mark.feature("tau, v_reset, decay_input set in place", host="SpikingJelly", neuron="DendSN, LNM")
@pytest.mark.parametrize("change", [change_tau, change_reset, to_soft, change_input])
@pytest.mark.parametrize("make", [
    lambda **k: neuron.LNM(**k), lambda **k: neuron.DendSN(3, **k), lambda **k: neuron.DendSN(3, degree=2, **k),
    lambda **k: neuron.LNM(per_channel=True, **k), lambda **k: neuron.DendSN(3, learn_beta=True, **k),
])  # fmt: skip
@pytest.mark.parametrize("when", ["at once", "after a call"])
def test_attributes_set_in_place_take_effect_as_in_lifnode(make, change, when):
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    try:
        arguments = {"tau": 2.5, "v_reset": -0.1, "surrogate_function": surrogate.ATan(), "step_mode": "m"}
        host, ours = neuron.LIFNode(**arguments), make(**arguments)
        x = torch.rand(20, 2, 4) * 3
        before = host(x)
        if when == "after a call":
            assert torch.equal(ours(x), before)
        functional.reset_net(host), functional.reset_net(ours)
        change(host), change(ours)
        after = host(x)
        assert not torch.equal(after, before)
        assert torch.equal(ours(x), after)
        torch.testing.assert_close(ours.v, host.v)
    finally:
        torch.set_default_dtype(torch.float32)


def test_tau_is_the_models_decay():
    assert neuron.DendSN(tau=3.0).tau == 3.0
    assert neuron.DendSN(beta=0.9).tau == pytest.approx(10.0)
    assert "tau=3.0" in repr(neuron.DendSN(tau=3.0))
    node = neuron.LNM()
    node.model.set_decay(0.75)
    assert node.tau == 4.0
    other = neuron.LNM(tau=8.0)
    other.load_state_dict(node.state_dict())
    assert other.tau == 4.0
    assert neuron.DendSN(beta=[0.5, 0.75, 0.9]).tau.tolist() == pytest.approx([2.0, 4.0, 10.0])
    assert neuron.TTFS(4).tau is None
    with pytest.raises(AttributeError, match="TTFS has no tau"):
        neuron.TTFS(4).tau = 2.0
    with pytest.raises(ValueError, match=r"tau is 0.5"):
        node.tau = 0.5


def test_what_a_model_does_not_offer_is_refused_when_set():
    class Leak(NeuronModel):
        def __init__(self, beta=0.5, decay_input=True, rest=0.0):
            super().__init__()
            self.beta, self.decay_input, self.rest = beta, decay_input, rest

        def step(self, x, states, firing):
            s, u = firing.update(memory=self.beta * states[0], drive=x)
            return s, (u,)

    node = spikingjelly_class("Leak", Leak)()
    node.tau = 4.0
    assert node.model.beta == 0.75
    for name, value in (("decay_input", False), ("v_reset", 0.5)):
        with pytest.raises(AttributeError, match=f"{name} of Leak cannot be set"):
            setattr(node, name, value)
    assert node.v_reset == 0.0


def test_a_model_says_which_arguments_the_hosts_fill_in():
    class Other(NeuronModel):
        """``beta`` is the strength of an adaptation here."""

        from_host = ()

        def __init__(self, beta=0.1):
            super().__init__()
            self.beta = beta

        def step(self, x, states, firing):
            s, u = firing.update(memory=states[0] * 0.5, drive=x * self.beta)
            return s, (u,)

    assert accepts(DendSN, "beta")
    assert not accepts(Other, "beta")
    node = spikingjelly_class("Other", Other)(beta=0.3)
    assert node.model.beta == 0.3
    assert node.tau is None
    assert "tau" not in type(node).__signature__.parameters
    lif = snntorch_class("Other", Other)(beta=0.3)
    assert lif.model.beta == 0.3
    assert "learn_beta" not in type(lif).__signature__.parameters


@pytest.mark.parametrize(
    ("build", "error", "text"),
    [
        (lambda: neuron.DendSN(surrogate_function="atan"), TypeError, "surrogate_function is 'atan'"),
        (lambda: neuron.LNM(detach_reset="no"), TypeError, "detach_reset is 'no'"),
        (lambda: neuron.LNM(fire_once="no"), TypeError, "fire_once is 'no'"),
        (lambda: snn.LNM(beta=0.9, init_hidden="no"), TypeError, "init_hidden is 'no'"),
        (lambda: snn.LNM(beta=0.9, threshold=float("nan")), ValueError, "threshold is nan"),
        (lambda: snn.LNM(beta=0.9)(torch.rand(2, 3), 0.0), TypeError, "mem is 0.0"),
    ],
)
def test_what_hosts_arguments_cannot_be_is_said_when_the_node_is_made(build, error, text):
    with pytest.raises(error, match=text):
        build()


def test_tau_and_beta_together_are_refused_and_the_repr_shows_what_was_given():
    with pytest.raises(TypeError, match=r"tau is 5 and beta is 0.9; give one of them"):
        neuron.DendSN(tau=5, beta=0.9)
    assert "beta=0.9" in repr(neuron.DendSN(beta=0.9))
    assert "tau=" not in repr(neuron.DendSN(beta=0.9))
    node = neuron.LNM(tau=3.0)
    assert "tau=3.0" in repr(node)
    node.model.set_decay(0.75)
    assert "beta=0.75" in repr(node)
    assert repr(snn.LNM(beta=0.9)).startswith("LNM(\n  beta=0.9, threshold=1,")
    with torch.device("meta"):
        assert "beta=" in repr(snn.Dendritic(beta=0.9))
