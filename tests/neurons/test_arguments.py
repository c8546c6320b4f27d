"""Arguments that make no neuron are refused by name, and neurons are made where tensors have no values."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from snn_dendrite_plugin import Firing
from snn_dendrite_plugin.neurons.dendsn import DendSN
from snn_dendrite_plugin.neurons.lnm import LNM
from snn_dendrite_plugin.neurons.ttfs import TTFS


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: DendSN(branches=0), "branches is 0"),
        (lambda: DendSN(branches=2.5), "branches is 2.5"),
        (lambda: DendSN(activation="cube"), "activation is 'cube'"),
        (lambda: DendSN(wiring="star"), "wiring is 'star'"),
        (lambda: DendSN(strength="hard"), "strength is 'hard'"),
        (lambda: DendSN(alpha=1.5), "alpha is 1.5"),
        (lambda: DendSN(branches=2, alpha=[0.1, 0.2, 0.3]), r"alpha has shape \(3,\)"),
        (lambda: DendSN(channels=0), "channels is 0"),
        (lambda: DendSN(beta=1.2), "beta is 1.2"),
        (lambda: DendSN(degree=0), "degree is 0"),
        (lambda: LNM(degree=0), "degree is 0"),
        (lambda: LNM(clamp=(1, -1)), "clamp is"),
        (lambda: LNM(clamp=3), "clamp is 3"),
        (lambda: LNM(degree=True), "degree is True"),
        (lambda: LNM(channels=True), "channels is True"),
        (lambda: LNM(theta=[0.0, float("nan"), 0.0, 0.0]), "theta is"),
        (lambda: DendSN(strength_init=float("nan")), "strength is nan"),
        (lambda: DendSN(direct=float("inf")), "direct is inf"),
        (lambda: LNM(theta_scale=0), "theta_scale is 0"),
        (lambda: DendSN(3, "fold").run(torch.rand(2, 1, 4)), "4 channels, which branches=3 does not divide"),
        (lambda: DendSN(3, "fold").run(torch.rand(2, 3)), "needs"),
        (lambda: LNM().run(torch.rand(0, 1, 4)), "empty sequence"),
        (lambda: Firing(reset="maybe"), "reset is 'maybe'"),
        (lambda: Firing(timing="never"), "timing is 'never'"),
    ],
)
def test_bad_arguments_are_named(build, text):
    with pytest.raises(ValueError, match=text):
        build()


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: DendSN(beta="a"), "beta is 'a'"),
        (lambda: DendSN(gain="a"), "gain is 'a'"),
        (lambda: TTFS(4, bias="a"), "bias is 'a'"),
    ],
)
def test_what_is_no_number_is_named(build, text):
    with pytest.raises(TypeError, match=text):
        build()


def test_a_refused_call_leaves_the_channel_count_open():
    model = LNM(per_channel=True)
    threshold = torch.ones(4)
    with pytest.raises(ValueError, match="threshold has 4 values; the neuron has 7 channels"):
        model.run(torch.rand(3, 2, 7), firing=Firing(threshold=threshold))
    model.run(torch.rand(3, 2, 4), firing=Firing(threshold=threshold))
    assert model.theta.shape == (4, 4)


@pytest.mark.parametrize("make", [lambda: DendSN(branches=3), LNM, lambda: TTFS(4)])
def test_made_and_run_without_data(make):
    """Under FakeTensorMode, which tools use to plan a network that they do not want to compute."""
    with FakeTensorMode():
        spikes, _ = make().run(torch.rand(4, 2, 3))
    assert spikes.shape == (4, 2, 3)


MADE = [
    lambda: DendSN(),
    lambda: DendSN(per_channel=True, learn_alpha=True, degree=2),
    lambda: DendSN(channels=3, learn_beta=True),
    lambda: DendSN(branches=3, wiring="fold", strength="softmax"),
    lambda: DendSN(beta=[0.1, 0.2, 0.3]),
    lambda: LNM(per_channel=True, decay_input=True),
    lambda: LNM(beta=torch.tensor([0.1, 0.2, 0.3], device="cpu"), decay_input=True),
]


@pytest.mark.parametrize("make", MADE)
def test_made_on_the_meta_device(make):
    with torch.device("meta"):
        model = make()
        spikes, states = model.run(torch.rand(5, 2, 3))
    assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"meta"}
    on_cpu, expected = make(), torch.rand(5, 2, 3)
    on_cpu_spikes, _ = on_cpu.run(expected)
    assert spikes.shape == on_cpu_spikes.shape
    assert spikes.is_meta
    assert all(state.is_meta for state in states)
    shapes = {key: value.shape for key, value in on_cpu.state_dict().items()}
    assert {key: value.shape for key, value in model.state_dict().items()} == shapes


def test_ranges_are_checked_on_the_meta_device_too():
    with torch.device("meta"):
        with pytest.raises(ValueError, match="alpha is"):
            DendSN(branches=2, alpha=[0.5, 1.5])
        with pytest.raises(ValueError, match="beta is"):
            LNM(beta=2.0)
