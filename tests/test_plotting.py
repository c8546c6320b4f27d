"""The pictures show what they say they show."""

from __future__ import annotations

import sys

import pytest
import torch

from snn_dendrite_plugin import plotting
from snn_dendrite_plugin.neurons.base import Firing
from snn_dendrite_plugin.neurons.dendsn import DendSN
from snn_dendrite_plugin.neurons.lnm import LNM

figure = pytest.importorskip("matplotlib.figure")


@pytest.fixture
def ax():
    return figure.Figure().subplots()


def lines(ax) -> dict:
    return {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}


def test_raster_has_one_mark_per_spike_in_its_place(ax):
    spikes = (torch.rand(15, 3, 4) > 0.8).float()
    assert plotting.raster(spikes, ax, title="t") is ax
    marks = {(segment[0][0], row) for row, c in enumerate(ax.collections) for segment in c.get_segments()}
    assert marks == {(t, n) for t, n in torch.nonzero(spikes.flatten(1)).tolist()}
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("time step", "neuron", "t")
    assert ax.get_xlim() == (-0.5, 14.5)
    assert ax.get_ylim() == (-0.5, 11.5)


@pytest.mark.parametrize("shape", [(5,), (0, 3), (5, 0)])
def test_raster_refuses_what_is_no_spike_train(ax, shape):
    with pytest.raises(ValueError, match=r"spikes has shape .*\[T, neurons"):
        plotting.raster(torch.zeros(shape), ax)


def test_raster_makes_its_own_axes(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    from matplotlib import pyplot

    pyplot.switch_backend("Agg")
    own = plotting.raster(torch.ones(3, 2))
    pyplot.close(own.figure)
    assert own.figure is not None


def test_record_is_the_run_and_keeps_every_state():
    model, x = DendSN(branches=3, strength_init=0.4), torch.rand(12, 2, 5)
    spikes, states = plotting.record(model, x)
    wanted, (v, v_dend) = model.run(x)
    assert torch.equal(spikes, wanted)
    torch.testing.assert_close(states["v"][-1], v)
    torch.testing.assert_close(states["v_dend"][-1], v_dend)
    assert states["v_dend"].shape == (12, 2, 5, 3)
    assert "fired" in plotting.record(model, x, Firing(fire_once=True))[1]


def test_branch_activity_draws_the_recurrence_in_units_of_the_threshold(ax):
    alpha = [0.5, 0.9]
    model = DendSN(branches=2, alpha=alpha, strength_init=0.3, offset=[-0.2, 0.2])
    x = torch.rand(9, 2, 4, dtype=torch.float64)
    plotting.branch_activity(model, x, ax, neuron=3, sample=1, firing=Firing(threshold=2.0))
    drawn = lines(ax)
    assert list(drawn) == ["branch 1 (τ = 2)", "branch 2 (τ = 10)", "soma", "spike"]
    for label, a, c in zip(list(drawn)[:2], alpha, (-0.2, 0.2), strict=True):
        v, trace = 0.0, []
        for value in x[:, 1, 3].tolist():
            v = a * v + (1 - a) * (value + c)
            trace.append(v / 2.0)
        assert drawn[label].get_ydata().tolist() == pytest.approx(trace, rel=1e-6, abs=1e-7)
    assert ax.get_ylabel() == "potential (in thresholds)"


def test_branch_activity_marks_the_spikes_and_separates_samples(ax):
    model, x = DendSN(branches=2), 3 * torch.rand(10, 3, 4)
    spikes, _ = plotting.record(model, x)
    assert spikes[:, [0, 2], 1].sum() > 0
    plotting.branch_activity(model, x, ax, neuron=1, sample=[0, 2])
    marked = {t for line in ax.lines if line.get_marker() == "v" for t in line.get_xdata()}
    fired = [torch.nonzero(spikes[:, n, 1]).flatten().tolist() for n in (0, 2)]
    assert marked == {*fired[0], *(11 + t for t in fired[1])}


def test_weighted_branch_activity_is_what_the_soma_gets(ax):
    model = DendSN(branches=2, strength_init=[0.5, -0.25], activation="tanh", decay_input=False)
    x = torch.rand(6, 1, 2)
    plotting.branch_activity(model, x, ax, weighted=True)
    states = plotting.record(model, x)[1]
    wanted = torch.tanh(states["v_dend"][:, 0, 0]) * torch.tensor([0.5, -0.25])
    for b, line in enumerate(ax.lines[:2]):
        torch.testing.assert_close(torch.as_tensor(line.get_ydata()), wanted[:, b])


def test_branch_activity_draws_nodes_of_both_hosts_as_they_fire(ax):
    snn = pytest.importorskip("snntorch")
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    x = torch.rand(7, 2, 3) * 2
    node = neuron.DendSN(branches=2, v_threshold=0.7, step_mode="m")
    wanted = node(x)
    before = node.v.clone()
    assert torch.equal(plotting.record(node, x)[0], wanted)
    assert torch.equal(node.v, before)
    lif = snn.Dendritic(beta=0.8, branches=2, threshold=0.6, init_hidden=True)
    wanted = torch.stack([lif(step) for step in x])
    assert torch.equal(plotting.record(lif, x)[0], wanted)
    for host_node in (node, lif):
        assert plotting.branch_activity(host_node, x, ax) is ax


@pytest.mark.parametrize(
    ("arguments", "message"), [({"neuron": 6}, "neuron is 6; .* between 0 and 5"), ({"sample": -1}, "sample is -1")]
)
def test_branch_activity_names_a_wrong_index(ax, arguments, message):
    with pytest.raises(ValueError, match=message):
        plotting.branch_activity(DendSN(branches=2), torch.rand(4, 2, 6), ax, **arguments)


def test_only_neurons_with_branches_have_branch_activity(ax):
    with pytest.raises(ValueError, match="LNM, which has no state v_dend"):
        plotting.branch_activity(LNM(), torch.rand(4, 2, 6), ax)
    with pytest.raises(TypeError, match="node is a Linear"):
        plotting.branch_activity(torch.nn.Linear(2, 2), torch.rand(4, 2, 6), ax)
    with pytest.raises(ValueError, match="at least one time step"):
        plotting.record(LNM(), torch.rand(0, 2, 6))


def test_polynomial_draws_p_and_the_lif_line(ax):
    theta = [0.1, 0.6, -0.2, 0.05]
    assert plotting.polynomial(LNM(theta=theta, clamp=None, theta_scale=1), ax, beta=0.5, span=(-2, 1)) is ax
    drawn = lines(ax)
    u = torch.as_tensor(drawn["learned"].get_xdata())
    wanted = sum(c * u**i for i, c in enumerate(theta))
    torch.testing.assert_close(torch.as_tensor(drawn["learned"].get_ydata()), wanted, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(torch.as_tensor(drawn["LIF, 0.5 u"].get_ydata()), 0.5 * u)
    plotting.polynomial(LNM(theta=theta, clamp=(-0.5, 0.5)), ax, span=(-2, 1), label="limited")
    c = u.clamp(-0.5, 0.5)
    wanted = 0.6 * u + 0.125 * (0.1 - 0.2 * c**2 + 0.05 * c**3)
    torch.testing.assert_close(torch.as_tensor(lines(ax)["limited"].get_ydata()), wanted, rtol=1e-6, atol=1e-7)
    plotting.polynomial(LNM(), ax, beta=0.5, label="second")
    assert list(lines(ax)) == ["no change, u", "LIF, 0.5 u", "learned", "limited", "second"]


def test_polynomial_of_a_node_knows_its_lif_line_and_threshold(ax):
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    plotting.polynomial(neuron.LNM(tau=4.0, v_threshold=2.0), ax)
    drawn = lines(ax)
    assert "LIF, 0.75 u" in drawn
    torch.testing.assert_close(
        torch.as_tensor(drawn["learned"].get_ydata()), torch.as_tensor(drawn["LIF, 0.75 u"].get_ydata())
    )


def test_polynomial_of_channels(ax):
    model = LNM(degree=1, theta=[[0.0, 0.5], [0.2, 0.9]], channels=2, theta_scale=1)
    plotting.polynomial(model, ax, channel=1)
    assert lines(ax)["learned"].get_ydata()[-1] == pytest.approx(1.1)
    with pytest.raises(ValueError, match="channel is 2; it must lie between 0 and 1"):
        plotting.polynomial(model, ax, channel=2)
    with pytest.raises(ValueError, match="span is"):
        plotting.polynomial(model, ax, span=(1, 0))
    with pytest.raises(TypeError, match="lnm is a Linear"):
        plotting.polynomial(torch.nn.Linear(2, 2), ax)


def test_without_matplotlib_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"snn-dendrite-plugin\[plot\]"):
        plotting.raster(torch.ones(2, 2))
