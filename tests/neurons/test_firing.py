"""Firing in three verbs: one rule for the core and for models written in Python, in every reset and timing."""

import itertools
import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from places import SAMPLE

from snn_dendrite_plugin import Firing, NeuronModel
from snn_dendrite_plugin.neurons.dendsn import DendSN
from snn_dendrite_plugin.neurons.lnm import LNM

THETA = [0.2, 0.6, -0.1]  # P(0) is not 0: what a delayed reset puts in place of u, and what of P(u), differ
RESETS = ("hard", "soft", "none")
TIMINGS = ("at_once", "next_step", "at_once_retested")


class Polynomial(NeuronModel):
    """LNM as a stranger would write it."""

    def step(self, x, states, firing):
        (u,) = states
        spikes, u = firing.update(memory=THETA[0] + THETA[1] * u + THETA[2] * u * u, drive=x)
        return spikes, (u,)


class ByHand(NeuronModel):
    """The same in the three verbs, with a distance of its own."""

    def step(self, x, states, firing):
        (u,) = states
        h = firing.integrate((THETA[2] * u + THETA[1]) * u + THETA[0], x)
        s = firing.spike(h - firing.threshold)
        return s, (firing.reset(h, s),)


class Through(LNM):
    """A subclass of the core that overrides ``step`` and changes nothing."""

    def step(self, x, states, firing):
        return super().step(x, states, firing)


class ThroughDendrite(DendSN):
    def step(self, x, states, firing):
        return super().step(x, states, firing)


RULES = st.builds(
    Firing,
    threshold=st.sampled_from([0.7, 1.0]),
    reset=st.sampled_from(RESETS),
    v_reset=st.sampled_from([0.0, 0.3, -0.2]),
    timing=st.sampled_from(TIMINGS),
    strict=st.booleans(),
    detach=st.booleans(),
    fire_once=st.booleans(),
)


def outcome(model, x, firing):
    """Spikes, last states, gradient of the input."""
    x = x.clone().requires_grad_()
    spikes, states = model.run(x, firing=firing)
    weight = torch.linspace(0.5, 1.5, spikes.numel(), dtype=x.dtype).reshape(spikes.shape)
    (gradient,) = torch.autograd.grad((spikes * weight).sum() + states[0].square().sum(), x)
    return spikes, states, gradient


def assert_same(one, other):
    assert torch.equal(one[0], other[0])
    for a, b in zip(one[1], other[1], strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(one[2], other[2])


@settings(max_examples=80)
@given(firing=RULES, seed=st.integers(0, 5))
def test_a_model_in_python_and_the_core_obey_one_rule(firing, seed):
    torch.manual_seed(seed)
    x = torch.randn(9, 2, 3, dtype=torch.float64) * 2
    core = outcome(LNM(degree=2, theta=THETA, learn_theta=False, clamp=None, theta_scale=1), x, firing)
    assert_same(outcome(Polynomial(), x, firing), core)
    assert_same(outcome(ByHand(), x, firing), core)


@settings(max_examples=60)
@given(firing=RULES, seed=st.integers(0, 5))
def test_a_step_of_ones_own_is_called_by_the_sequence_and_may_use_the_cores(firing, seed):
    torch.manual_seed(seed)
    x = torch.randn(6, 2, 3, dtype=torch.float64) * 2
    arguments = {"degree": 2, "theta": THETA, "learn_theta": False}
    assert_same(outcome(Through(**arguments), x, firing), outcome(LNM(**arguments), x, firing))
    plain, own = DendSN(2, strength_init=0.4).double(), ThroughDendrite(2, strength_init=0.4).double()
    assert_same(outcome(own, x, firing), outcome(plain, x, firing))


def test_overriding_step_changes_what_run_and_sequence_compute():
    class Deaf(DendSN):
        def step(self, x, states, firing):
            return super().step(0 * x, states, firing)

    x = torch.full((6, 1, 2), 2.0)
    assert DendSN(2).run(x)[0].sum() > 0
    model = Deaf(2)
    states = model.init_states(x[0])
    spikes, _, trace = model.sequence(x, states, Firing(), record=True)
    assert spikes.sum() == model.run(x)[0].sum() == model.advance(x[0], states, Firing())[0].sum() == 0
    assert trace.shape == x.shape


@pytest.mark.parametrize(
    "model", [Polynomial(), LNM(degree=2, theta=THETA, learn_theta=False, clamp=None, theta_scale=1)]
)
def test_a_delayed_hard_reset_comes_before_the_dynamics_by_hand(model):
    """v_reset = 0.5, P(u) = 0.2 + 0.6 u - 0.1 u^2, threshold 1: u = 1.2 fires, then P(0.5), not 0.5 or P(1.2)."""
    firing = Firing(reset="hard", v_reset=0.5, timing="next_step", strict=True)
    x = torch.tensor([1.2 - 0.475, 0.0], dtype=torch.float64).reshape(2, 1, 1)  # P(0.5) = 0.475
    spikes, states, trace = model.sequence(x, model.init_states(x[0], firing), firing, record=True)
    assert spikes.flatten().tolist() == [1.0, 0.0]
    torch.testing.assert_close(trace.flatten(), torch.tensor([1.2, 0.475], dtype=torch.float64))
    torch.testing.assert_close(states[0], trace[-1])


def test_fire_once_holds_whatever_the_step_does():
    class Graded(NeuronModel):  # makes its spikes without asking the rule
        def step(self, x, states, firing):
            return (x > 0).to(x.dtype), states

    x = torch.full((5, 1, 2), 3.0)
    for model, reset, timing in itertools.product((Polynomial(), ByHand(), Graded()), RESETS, TIMINGS):
        firing = Firing(reset=reset, timing=timing, fire_once=True)
        spikes, states = model.run(x, firing=firing)
        assert spikes.sum(0).tolist() == [[1.0, 1.0]], (type(model).__name__, reset, timing)
        assert states[-1].tolist() == [[1.0, 1.0]]


# -- CLIF, a stranger's model with a reset of its own -----------------------------------------------------------------

sys.path.insert(0, str(SAMPLE))
from sample_neurons.clif import CLIF  # noqa: E402


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def clif_by_hand(x, reset, timing="at_once", beta=0.5, v_th=1.0, strict=False):
    """Spikes and the two potentials of one CLIF neuron, in plain arithmetic."""
    u = m = 0.0
    trace = []
    for value in x:
        r = timing != "at_once" and reset != "none" and (u > v_th if strict else u >= v_th)
        if r and reset == "hard":
            u = 0.0
        h = beta * u + value
        if r and reset == "soft":
            h -= v_th + sigmoid(m)
        s = h > v_th if strict else h >= v_th
        m = m * sigmoid((1 - beta) * h) + s
        u = h
        if timing != "next_step":
            if reset == "soft":
                u -= (s - r) * (v_th + sigmoid(m))
            elif reset == "hard":
                u -= (s - r) * h
        trace.append((float(s), u, m))
    return trace


def test_clif_by_hand():
    """Three steps of the published neuron: 0.8 is silent; 0.4 + 0.9 fires, m = 1, less 1 + sigmoid(1); then silence."""
    model, firing = CLIF(), Firing(reset="soft")
    x = torch.tensor([0.8, 0.9, 0.2], dtype=torch.float64).reshape(3, 1, 1)
    states = model.init_states(x[0], firing)
    rows = []
    for step in x:
        s, states = model.advance(step, states, firing)
        rows.append([s.item(), states[0].item(), states[1].item()])
    u = 1.3 - 1.7310585786300049  # = -0.431058..., and then half of it plus 0.2
    expected = [[0.0, 0.8, 0.0], [1.0, u, 1.0], [0.0, u / 2 + 0.2, 0.4980588]]  # sigmoid(0.5 * -0.0155293)
    torch.testing.assert_close(torch.tensor(rows), torch.tensor(expected))


@pytest.mark.parametrize("timing", TIMINGS)
@pytest.mark.parametrize("reset", RESETS)
def test_clif_in_every_reset(reset, timing):
    torch.manual_seed(3)
    x = torch.rand(12, dtype=torch.float64) * 1.5
    firing = Firing(reset=reset, timing=timing, strict=True)
    spikes, states, u = CLIF().sequence(
        x.reshape(-1, 1, 1), CLIF().init_states(x[:1].reshape(1, 1), firing), firing, record=True
    )
    expected = torch.tensor(clif_by_hand(x.tolist(), reset, timing, strict=True), dtype=torch.float64)
    assert spikes.sum() > 1
    torch.testing.assert_close(spikes.flatten(), expected[:, 0])
    torch.testing.assert_close(u.flatten(), expected[:, 1])
    torch.testing.assert_close(states[1].flatten(), expected[-1:, 2])
    once, _ = CLIF().run(x.reshape(-1, 1, 1), firing=Firing(reset=reset, timing=timing, fire_once=True))
    assert once.sum() == 1


@pytest.fixture
def registered():
    from sample_neurons import plugin

    from snn_dendrite_plugin import plugins

    plugins.register_plugin(plugin, name="sample")
    yield
    plugins.unregister_plugin(plugin)


def test_clif_is_native_in_both_hosts(registered):
    pytest.importorskip("spikingjelly")
    pytest.importorskip("snntorch")
    import snntorch as snn
    from spikingjelly.activation_based import functional, neuron

    torch.manual_seed(4)
    x = torch.rand(12, 1, 1) * 1.5
    node = neuron.CLIF(tau=2.0, v_reset=None, step_mode="m")
    expected = clif_by_hand(x.flatten().tolist(), "soft")
    assert node(x).flatten().tolist() == [s for s, _, _ in expected]
    assert node.m.item() == pytest.approx(expected[-1][2], abs=1e-5)
    functional.reset_net(node)
    lif = snn.CLIF(beta=0.5, init_hidden=True)  # subtract, one step later
    spikes = [lif(step).item() for step in x]
    expected = clif_by_hand(x.flatten().tolist(), "soft", "next_step", strict=True)
    assert spikes == [s for s, _, _ in expected]
    once = neuron.CLIF(v_reset=None, step_mode="m", fire_once=True)
    assert once(x).sum() == 1
