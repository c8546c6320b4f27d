"""The special case that is leaky integrate-and-fire equals ``snntorch.Leaky``: spikes, potentials, gradients."""

from __future__ import annotations

import contextlib
import itertools

import hypothesis
import pytest
import torch
from hypothesis import strategies as st

snn = pytest.importorskip("snntorch")

from snntorch import surrogate  # noqa: E402
from snntorch.functional import quant  # noqa: E402

import snn_dendrite_plugin  # noqa: E402, F401
from snn_dendrite_plugin.adapters.snntorch.surrogates import TableSpike  # noqa: E402
from snn_dendrite_plugin.kernels.surrogates import Surrogate  # noqa: E402

MECHANISMS = ("subtract", "zero", "none")
# snnTorch's own closures round spikes and their gradients to float32: these compute the same in float64.
FLOAT64 = {
    "atan": TableSpike(Surrogate("atan", 2.0)),
    "fast_sigmoid": TableSpike(Surrogate("fast_sigmoid", 25.0)),
    "sigmoid": TableSpike(Surrogate("sigmoid", 4.0)),
}
POINT = {
    "LNM1": lambda *args, **kw: snn.LNM(*args, degree=1, **kw),
    "LNM2": lambda *args, **kw: snn.LNM(*args, degree=2, **kw),
    "LNM3": lambda *args, **kw: snn.LNM(*args, degree=3, **kw),
    "Dendritic": lambda *args, **kw: snn.Dendritic(*args, strength_init=0.0, direct=1.0, **kw),
}


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def run(neuron, x, weights):
    """Spikes, potentials and the input's gradient of a loss on both, over a loop with explicit states."""
    x = x.clone().requires_grad_()
    mem = neuron.reset_mem()
    spikes, trace = [], []
    for step in x:
        spk, mem = neuron(step, mem)
        spikes.append(spk)
        trace.append(mem)
    spikes, trace = torch.stack(spikes), torch.stack(trace)
    loss = (spikes * weights[0]).sum() + (trace * weights[1]).sum()
    neuron.zero_grad()
    loss.backward()
    return spikes.detach(), trace.detach(), x.grad


def beta_gradient(neuron):
    """dL/dbeta of any of the three."""
    if isinstance(neuron, snn.Leaky):
        return neuron.beta.grad
    if isinstance(neuron, snn.LNM):
        return neuron.model.theta.grad[:, 1].squeeze()
    beta = neuron.beta.detach()
    return (neuron.model.beta_logit.grad[:, 0] / (beta * (1 - beta))).squeeze()


def inputs(shape, dtype=torch.float64, scale=1.5):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(shape, generator=generator, dtype=dtype) * scale + 0.4
    return x, torch.randn((2, *shape), generator=generator, dtype=dtype)


@pytest.mark.parametrize("kind", FLOAT64)
@pytest.mark.parametrize("reset_delay", [True, False])
@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("point", POINT)
def test_equals_leaky_in_float64(float64, point, mechanism, reset_delay, kind):
    kwargs = {
        "spike_grad": FLOAT64[kind], "learn_beta": True, "learn_threshold": True,
        "reset_mechanism": mechanism, "reset_delay": reset_delay,
    }  # fmt: skip
    ours, stock = POINT[point](0.85, 0.9, **kwargs), snn.Leaky(0.85, 0.9, **kwargs)
    x, weights = inputs((12, 3, 5))
    (s, u, gx), (s_stock, u_stock, gx_stock) = run(ours, x, weights), run(stock, x, weights)
    assert 0.1 < s_stock.mean() < 0.9
    assert torch.equal(s, s_stock)
    close = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(u, u_stock, **close)
    torch.testing.assert_close(gx, gx_stock, **close)
    # a learned decay of Dendritic passes through its logit, which costs a few more roundings
    torch.testing.assert_close(beta_gradient(ours), beta_gradient(stock), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(ours.threshold.grad, stock.threshold.grad, **close)


@pytest.mark.parametrize(("mechanism", "reset_delay"), list(itertools.product(MECHANISMS, [True, False])))
@pytest.mark.parametrize("point", ["LNM3", "Dendritic"])
def test_equals_leaky_in_float32(point, mechanism, reset_delay):
    kwargs = {"reset_mechanism": mechanism, "reset_delay": reset_delay}
    ours, stock = POINT[point](0.85, **kwargs), snn.Leaky(0.85, **kwargs)
    x, weights = inputs((12, 64, 5), torch.float32)
    (s, u, gx), (s_stock, u_stock, gx_stock) = run(ours, x, weights), run(stock, x, weights)
    # a rounding at threshold may flip a spike: compare the samples in which no potential came close to it
    away = ((u_stock - 1).abs() > 1e-5).all(0).all(-1)
    assert away.sum() > 32
    assert torch.equal(s[:, away], s_stock[:, away])
    torch.testing.assert_close(u[:, away], u_stock[:, away], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gx[:, away], gx_stock[:, away], rtol=1e-4, atol=1e-4)


CLOSURES = {
    "atan": surrogate.atan(alpha=3.0),
    "fast_sigmoid": surrogate.fast_sigmoid(slope=10),
    "sigmoid": surrogate.sigmoid(slope=5),
    "spike_rate_escape": surrogate.spike_rate_escape(beta=2, slope=3),
    "triangular": surrogate.triangular(threshold=0.5),
    "straight_through_estimator": surrogate.straight_through_estimator(),
    "heaviside": surrogate.heaviside(),
    "SFS": surrogate.SFS(slope=5, B=0.25),
    "custom": surrogate.custom_surrogate(lambda x, grad, spikes: grad / (1 + x.abs())),
}


@pytest.mark.parametrize("closure", CLOSURES)
@pytest.mark.parametrize("reset_delay", [True, False])
def test_snntorch_s_surrogates_have_their_gradients(closure, reset_delay):
    kwargs = {"spike_grad": CLOSURES[closure], "reset_delay": reset_delay}
    ours, stock = snn.Dendritic(0.5, strength_init=0.0, **kwargs), snn.Leaky(0.5, **kwargs)
    x, weights = inputs((5, 40, 4), torch.float32, scale=1.0)
    (s, u, gx), (s_stock, u_stock, gx_stock) = run(ours, x, weights), run(stock, x, weights)
    away = ((u_stock - 1).abs() > 1e-5).all(0).all(-1)
    assert torch.equal(s[:, away], s_stock[:, away])
    torch.testing.assert_close(u[:, away], u_stock[:, away], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gx[:, away], gx_stock[:, away], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("reset_delay", [True, False])
@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("extra", ["inhibition", "state_quant", "both"])
def test_inhibition_and_quantised_states_equal_leaky(float64, extra, mechanism, reset_delay):
    kwargs = {"spike_grad": FLOAT64["atan"], "reset_mechanism": mechanism, "reset_delay": reset_delay}
    if extra != "state_quant":
        kwargs["inhibition"] = True
    if extra != "inhibition":
        kwargs["state_quant"] = quant.state_quant(num_bits=4, threshold=1, upper_limit=0.5, lower_limit=0.5)
    warns = contextlib.nullcontext() if extra == "state_quant" else pytest.warns(UserWarning, match="Inhibition")
    with warns:
        ours, stock = snn.LNM(0.8, **kwargs), snn.Leaky(0.8, **kwargs)
    x, weights = inputs((10, 4, 6))
    (s, u, gx), (s_stock, u_stock, gx_stock) = run(ours, x, weights), run(stock, x, weights)
    assert s_stock.sum() > 0
    assert torch.equal(s, s_stock)
    torch.testing.assert_close(u, u_stock, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gx, gx_stock, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("reset_delay", [True, False])
def test_graded_spikes_equal_leaky_with_their_gradient(float64, reset_delay):
    kwargs = {
        "spike_grad": FLOAT64["atan"], "graded_spikes_factor": 3.0, "learn_graded_spikes_factor": True,
        "reset_delay": reset_delay,
    }  # fmt: skip
    ours, stock = snn.LNM(0.8, **kwargs), snn.Leaky(0.8, **kwargs)
    x, weights = inputs((10, 4, 6))
    (s, u, gx), (s_stock, u_stock, gx_stock) = run(ours, x, weights), run(stock, x, weights)
    assert set(s.unique().tolist()) == {0.0, 3.0}
    torch.testing.assert_close(s, s_stock, rtol=0, atol=0)
    torch.testing.assert_close(u, u_stock, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gx, gx_stock, rtol=1e-11, atol=1e-11)
    # Leaky's own gradient divides by the factor again in its reset, which cancels up to roundings
    torch.testing.assert_close(ours.graded_spikes_factor.grad, stock.graded_spikes_factor.grad, rtol=1e-9, atol=1e-9)


def test_a_factor_written_in_place_counts():
    neuron = snn.LNM(0.5)
    assert neuron(torch.full((1, 2), 2.0))[0].tolist() == [[1.0, 1.0]]
    neuron.graded_spikes_factor.fill_(2.5)
    assert neuron(torch.full((1, 2), 2.0))[0].tolist() == [[2.5, 2.5]]


def test_surrogate_disable_cuts_the_gradient_of_spikes_only():
    neuron = snn.Dendritic(0.5, surrogate_disable=True, strength_init=0.0)
    x = torch.full((1, 2), 2.0, requires_grad=True)
    spk, mem = neuron(x)
    assert spk.tolist() == [[1.0, 1.0]]
    (gradient,) = torch.autograd.grad(spk.sum(), x, retain_graph=True)
    assert gradient.tolist() == [[0.0, 0.0]]
    assert torch.autograd.grad(mem.sum(), x)[0].tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("make", [snn.LNM, snn.Dendritic])
def test_one_beta_and_threshold_per_channel(float64, make):
    beta, threshold = torch.tensor([0.1, 0.5, 0.9]), torch.tensor([0.5, 1.0, 1.5])
    kwargs = {"threshold": threshold, "spike_grad": FLOAT64["atan"], "learn_beta": True, "learn_threshold": True}
    kwargs["reset_delay"] = False
    own = {"strength_init": 0.0} if make is snn.Dendritic else {}
    ours, stock = make(beta, **kwargs, **own), snn.Leaky(beta.clone(), **{**kwargs, "threshold": threshold.clone()})
    x, weights = inputs((9, 4, 3))
    (s, u, gx), (s_stock, u_stock, gx_stock) = run(ours, x, weights), run(stock, x, weights)
    assert torch.equal(s, s_stock)
    torch.testing.assert_close(u, u_stock, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gx, gx_stock, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(beta_gradient(ours), beta_gradient(stock), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours.threshold.grad, stock.threshold.grad, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(ours.beta, beta, rtol=1e-12, atol=1e-12)


@hypothesis.settings(max_examples=25)
@hypothesis.given(
    beta=st.floats(0, 1, width=32),
    threshold=st.floats(0.125, 3, width=32),
    mechanism=st.sampled_from(MECHANISMS),
    reset_delay=st.booleans(),
    shape=st.sampled_from([(1, 1), (2, 3), (2, 3, 2, 2), (4,)]),
    seed=st.integers(0, 1000),
)
def test_equals_leaky_for_any_settings(beta, threshold, mechanism, reset_delay, shape, seed):
    kwargs = {"reset_mechanism": mechanism, "reset_delay": reset_delay}
    ours = snn.Dendritic(beta, threshold, strength_init=0.0, **kwargs)
    stock = snn.Leaky(beta, threshold, **kwargs).double()
    x = torch.randn((6, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + threshold / 2
    mem = mem_stock = None
    for step in x:
        spk, mem = ours(step, mem)
        spk_stock, mem_stock = stock(step, mem_stock)
        hypothesis.assume(bool(((mem_stock - threshold).abs() > 1e-9).all()))
        assert torch.equal(spk, spk_stock.double())
        torch.testing.assert_close(mem, mem_stock, rtol=1e-10, atol=1e-10)
