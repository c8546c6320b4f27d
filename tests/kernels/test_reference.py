"""The reference against hand-computed traces, itself (backward by hand against autograd) and the closed forms."""

import dataclasses
import math

import pytest
import torch
from at_threshold import check_spikes, threshold_case
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import random_inputs

from snn_dendrite_plugin.kernels.activations import ACTIVATIONS
from snn_dendrite_plugin.kernels.soma_dendrite.contract import Inputs, OutputGradients, Settings
from snn_dendrite_plugin.kernels.soma_dendrite.cpu import provider as cpu_provider
from snn_dendrite_plugin.kernels.soma_dendrite.reference import TorchProvider, polynomial, run
from snn_dendrite_plugin.kernels.surrogates import KINDS, Surrogate, derivative, spike

F64 = torch.float64


def one_neuron(x, settings, *, alpha=None, gain=None, offset=None, strength=None, direct=1.0, theta=(0.0, 0.5),
               threshold=1.0, u=0.0, v=None, fired=None):  # fmt: skip
    """A single neuron's call: scalars and lists to the contract's shapes."""

    def row(values):
        return None if values is None else torch.tensor([values], dtype=F64)

    x = torch.tensor(x, dtype=F64).reshape(len(x), 1, -1)
    b = settings.branches
    return Inputs(
        x,
        torch.full((1, 1), u, dtype=F64),
        torch.tensor([[v or [0.0] * b]], dtype=F64) if b else None,
        None if fired is None else torch.full((1, 1), fired, dtype=F64),
        row(alpha), row(gain), row(offset), row(strength),
        torch.tensor([direct], dtype=F64), row(list(theta)), torch.tensor([threshold], dtype=F64),
    )  # fmt: skip


def trace(inputs, settings):
    out = run(inputs, dataclasses.replace(settings, record=True))
    return out.spikes.flatten().tolist(), pytest.approx(out.u_sequence.flatten().tolist(), abs=1e-12), out


class TestHandTraces:
    """Every number below is worked out by hand from the equations in the contract."""

    def test_lif_hard_reset(self):
        # h: .6 | .3+.6=.9 | .45+.6=1.05 fires -> 0 | .6
        spikes, u, _ = trace(one_neuron([0.6] * 4, Settings()), Settings())
        assert spikes == [0, 0, 1, 0]
        assert u == [0.6, 0.9, 0.0, 0.6]

    def test_lif_soft_reset(self):
        # h: 1.2 fires -> .2 | .1+1.2=1.3 fires -> .3 | .15+1.2=1.35 fires -> .35
        spikes, u, _ = trace(one_neuron([1.2] * 3, Settings(reset="soft")), Settings(reset="soft"))
        assert spikes == [1, 1, 1]
        assert u == [0.2, 0.3, 0.35]

    def test_delayed_soft_reset_is_subtracted_one_step_later(self):
        # h: 1.2 (fires, kept) | .6+0-1=-.4 | -.2+1.5=1.3 fires | .65+0-1=-.35
        s = Settings(reset="soft", timing="next_step", strict=True)
        spikes, u, _ = trace(one_neuron([1.2, 0.0, 1.5, 0.0], s), s)
        assert spikes == [1, 0, 1, 0]
        assert u == [1.2, -0.4, 1.3, -0.35]

    def test_delayed_hard_reset_clears_the_memory_only(self):
        # h: 1.2 fires | P(0)+.3=.3 | .15+.9=1.05 fires | P(0)+.1=.1
        s = Settings(reset="hard", timing="next_step", strict=True)
        spikes, u, _ = trace(one_neuron([1.2, 0.3, 0.9, 0.1], s), s)
        assert spikes == [1, 0, 1, 0]
        assert u == [1.2, 0.3, 1.05, 0.1]

    def test_snntorch_timing_tests_the_stored_potential_again(self):
        # 2.5 fires -> 1.5 stored, above threshold: r=1 | h=.75+0-1=-.25 silent, u=h+1=.75 | r=0: h=.375
        s = Settings(reset="soft", timing="at_once_retested", strict=True)
        spikes, u, _ = trace(one_neuron([2.5, 0.0, 0.0], s), s)
        assert spikes == [1, 0, 0]
        assert u == [1.5, 0.75, 0.375]

    def test_threshold_itself_fires_unless_strict(self):
        assert trace(one_neuron([1.0], Settings()), Settings())[0] == [1]
        strict = Settings(strict=True)
        assert trace(one_neuron([1.0], strict), strict)[0] == [0]

    def test_fire_once_is_silent_and_unreset_after_the_first_spike(self):
        # 1.2 fires -> 0 | 1.2 would fire, is silent, not reset | .6+1.2=1.8
        s = Settings(fire_once=True)
        spikes, u, out = trace(one_neuron([1.2] * 3, s, fired=0.0), s)
        assert spikes == [1, 0, 0]
        assert u == [0.0, 1.2, 1.8]
        assert out.fired.item() == 1

    def test_polynomial_soma(self):
        # P(u) = .1 + .5u + .2u^2 - .1u^3: h = .1+.8=.9 | .1+.45+.162-.0729+.1=.7391
        s = Settings()
        spikes, u, _ = trace(one_neuron([0.8, 0.1], s, theta=(0.1, 0.5, 0.2, -0.1)), s)
        assert spikes == [0, 0]
        assert u == [0.9, 0.7391]

    def test_beyond_the_limits_the_polynomial_goes_on_as_a_line(self):
        # u=-3, c=-1: P = .1 - .5*3 + .25*1 + .125*1 = -1.025 | u=-1.025, c=-1: P = .1 - .5125 + .375 = -.0375
        s = Settings(clamp_low=-1.0, clamp_high=1.0)
        assert trace(one_neuron([0.0, 0.0], s, theta=(0.1, 0.5, 0.25, -0.125), u=-3.0), s)[1] == [-1.025, -0.0375]

    def test_the_line_is_not_steeper_than_1(self):
        # u=-3, c=-1, tail 1: P = .1 - 3 + (1.5 - 1)*-1 + .5*1 - .25*-1 = -2.65; for -1.5: .1 + 3 + .5 + .5 + .25 = 4.35
        s = Settings(clamp_low=-1.0, clamp_high=2.0, reset="none")
        assert trace(one_neuron([0.0], s, theta=(0.1, 1.5, 0.5, -0.25), u=-3.0), s)[1] == [-2.65]
        assert trace(one_neuron([0.0], s, theta=(0.1, -1.5, 0.5, -0.25), u=-3.0), s)[1] == [4.35]

    @pytest.mark.parametrize("provider", ["torch", "cpu"])
    def test_gradients_beyond_the_limits_and_on_their_border(self, provider):
        # dP/du is the line's slope, dP/dtheta = (1, u, c^2, c^3), or c for theta_1 where the slope is limited
        s = Settings(clamp_low=-1.0, clamp_high=1.0, reset="none", surrogate="heaviside")
        rows = [((0.1, 0.5, 0.25, -0.125), -3.0, 0.5, [1, -3, 1, -1]), ((0.1, 1.5, 0.5, 0.25), -3.0, 1, [1, -1, 1, -1]),
                ((0.1, 0.5, 0.25, -0.125), -1.0, 0.5, [1, -1, 1, -1]), ((0.0, 1.0, 0.0, 0.0), -3.0, 1, [1, -3, 1, -1]),
                ((0.1, 0.5, 0.25, -0.125), -0.5, 0.15625, [1, -0.5, 0.25, -0.125])]  # fmt: skip
        runs = TorchProvider() if provider == "torch" else cpu_provider
        if runs.why_not(torch.device("cpu"), F64, s):
            pytest.skip("no C++ library")
        for theta, u, slope, by_theta in rows:
            call = one_neuron([0.0], s, theta=theta, u=u)
            incoming = OutputGradients(torch.zeros(1, 1, 1, dtype=F64), u=torch.ones(1, 1, dtype=F64))
            found = runs.backward(call, s, incoming)
            assert found.u.item() == slope
            assert found.theta.flatten().tolist() == by_theta

    def test_a_line_stays_the_line_to_the_last_bit(self):
        u = 20 * torch.randn(1000, 1, generator=torch.Generator().manual_seed(0))
        for theta in ([0.0, 0.95, 0.0, 0.0], [0.05, 1.0, 0.0], [0.3, -0.7, 0.0, 0.0, 0.0]):
            line = u * theta[1] + theta[0]
            assert torch.equal(polynomial(u, torch.tensor([theta]), -1.0, 1.0), line)

    def test_no_theta_lets_a_potential_run_away(self):
        s = Settings(clamp_low=-1.0, clamp_high=1.0, reset="soft")
        call = one_neuron([-1.0] * 2000, s, theta=(-0.5, 3.0, -4.0, 5.0))
        assert run(call, s).u.abs().item() < (1 + 0.5 + 3 + 4 + 5) * 2000  # at most so much per step
        assert not run(call, Settings(reset="soft")).u.isfinite().item()  # without limits

    def test_fold_dendrite(self):
        # v1: .5*0+.4=.4 | .5*.4-.4=-.2 ; v2: 1 | .25*1+0=.25 ; leaky_relu ; k=(.5,.25), delta 0
        # y: .2+.25=.45 | .5*-.002+.0625=.0615 ; h: .45 | .225+.0615=.2865
        s = Settings(branches=2, wiring="fold")
        x = [[0.4, 1.0], [-0.4, 0.0]]
        spikes, u, out = trace(one_neuron(x, s, alpha=[0.5, 0.25], strength=[0.5, 0.25], direct=0.0), s)
        assert u == [0.45, 0.2865]
        assert out.v.flatten().tolist() == pytest.approx([-0.2, 0.25])

    def test_shared_dendrite_with_gain_offset_and_direct_input(self):
        # x=1: v1=2*1+.5=2.5, v2=-1*1+0=-1 -> f=-.01 ; y=1*1+.1*2.5+.5*-.01=1.245 fires -> 0
        # x=0: v1=.5*2.5+.5=1.75, v2=0*-1+0=0 ; y=.175
        s = Settings(branches=2)
        call = one_neuron([1.0, 0.0], s, alpha=[0.5, 0.0], gain=[2.0, -1.0], offset=[0.5, 0.0], strength=[0.1, 0.5])
        spikes, u, out = trace(call, s)
        assert spikes == [1, 0]
        assert u == [0.0, 0.175]
        assert out.v.flatten().tolist() == pytest.approx([1.75, 0.0])

    def test_silent_mexican_hat_neuron_fires_every_step(self):
        # f(0) = 3/(s sqrt(2 pi s)) = 1.8426 > 1 with strengths that sum to one: published behaviour
        s = Settings(branches=2, wiring="fold", activation="mexican_hat")
        call = one_neuron([[0.0, 0.0]] * 3, s, alpha=[0.5, 0.5], strength=[0.5, 0.5], direct=0.0)
        spikes, _, _ = trace(call, s)
        assert spikes == [1, 1, 1]


def test_mexican_hat_values():
    f = ACTIVATIONS["mexican_hat"].value
    assert f(torch.zeros(1, dtype=F64)).item() == pytest.approx(1.842598611752048, abs=1e-12)
    assert f(torch.tensor([0.866031], dtype=F64)).item() == pytest.approx(0.0, abs=1e-5)
    assert f(torch.tensor([1.5], dtype=F64)).item() == pytest.approx(-0.8223, abs=1e-4)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_derivative_is_the_derivative(name):
    v = torch.linspace(-3, 3, 61, dtype=F64) + 0.0123
    v.requires_grad_()
    (g,) = torch.autograd.grad(ACTIVATIONS[name].value(v).sum(), v)
    torch.testing.assert_close(ACTIVATIONS[name].derivative(v.detach()), g, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("name", KINDS)
def test_surrogate_is_a_step_forward_and_the_table_backward(name):
    x = torch.tensor([-2.0, -0.3, 0.0, 0.4, 1.7], dtype=F64, requires_grad=True)
    s = Surrogate(name)
    out = spike(x, s)
    assert out.tolist() == [0, 0, 1, 1, 1]
    assert spike(x, s, strict=True).tolist() == [0, 0, 0, 1, 1]
    (g,) = torch.autograd.grad(out.sum(), x)
    assert torch.equal(g, derivative(x.detach(), s))
    assert torch.isfinite(g).all()


@settings(max_examples=120)
@given(
    seed=st.integers(0, 10**6),
    t=st.sampled_from([1, 2, 5, 37]),
    shape=st.sampled_from([(2, 3), (1, 1), (2, 3, 4), (1, 2, 2, 3)]),
    b=st.sampled_from([0, 1, 3]),
    wiring=st.sampled_from(["shared", "fold"]),
    degree=st.sampled_from([0, 1, 3]),
    per_channel=st.booleans(),
    activation=st.sampled_from(list(ACTIVATIONS)),
    reset=st.sampled_from(["hard", "soft", "none"]),
    timing=st.sampled_from(["at_once", "next_step", "at_once_retested"]),
    v_reset=st.sampled_from([0.0, -0.3]),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
    surrogate=st.sampled_from(list(KINDS)),
)
def test_hand_written_backward_equals_autograd(
    seed, t, shape, b, wiring, degree, per_channel, activation, reset, timing, v_reset, flags, surrogate
):
    strict, detach, fire_once, record = flags
    sg = Surrogate(surrogate)
    s = Settings(
        branches=b, wiring=wiring if b else "shared", activation=activation, reset=reset, timing=timing,
        v_reset=v_reset, strict=strict, detach=detach, fire_once=fire_once, record=record, surrogate=surrogate,
        surrogate_a=sg.a, surrogate_b=sg.b, clamp_low=-2.0 if degree > 1 else -math.inf, clamp_high=2.0,
    )  # fmt: skip
    own = {"per_channel": per_channel, "gain": bool(seed % 3), "offset": bool(seed % 2), "seed": seed}
    inputs = random_inputs(s, shape=(t, *shape), degree=degree, **own)
    out = run(inputs, s)
    outs = [getattr(out, name) for name in OutputGradients._fields]
    grads = OutputGradients(*(None if o is None else torch.randn_like(o) for o in outs))
    leaves = {name: value for name, value in inputs._asdict().items() if value is not None and value.requires_grad}
    expected = torch.autograd.grad(
        [o for o in outs if o is not None],
        list(leaves.values()),
        [g for g in grads if g is not None],
        allow_unused=True,
    )
    found = TorchProvider().backward(inputs, s, grads)
    for (name, leaf), gradient in zip(leaves.items(), expected, strict=True):
        gradient = torch.zeros_like(leaf) if gradient is None else gradient
        error = (getattr(found, name) - gradient).norm() / (gradient.norm() + 1e-9)
        assert error < 1e-7, (name, error.item())


@pytest.mark.parametrize("t", [1, 8, 33])
def test_dendrite_equals_the_matrix_form(t):
    """V = A X with A[i, j] = alpha^(i-j): the published parallel form of the dendrite."""
    s = Settings(branches=3, wiring="fold", reset="none", activation="identity")
    inputs = random_inputs(s, shape=(t, 2, 3, 5), seed=4)
    inputs = inputs._replace(v=torch.zeros_like(inputs.v), u=torch.zeros_like(inputs.u), gain=None, offset=None,
                             direct=torch.zeros(1, dtype=F64))  # fmt: skip
    i = torch.arange(t)
    lag = (i[:, None] - i[None, :]).to(F64)
    a = torch.where(lag[..., None] >= 0, inputs.alpha[0] ** lag.clamp(min=0)[..., None], 0.0)  # [T, T, B]
    x = inputs.x.reshape(t, 2, 3, 3, 5)
    v = torch.einsum("tsb,sncbl->tncbl", a, x)
    y = torch.einsum("b,tncbl->tncl", inputs.strength[0], v)
    theta0, beta = inputs.theta[0]
    u, expected = inputs.u, []
    for t_ in range(t):
        u = theta0 + beta * u + y[t_]
        expected.append(u)
    out = run(inputs, dataclasses.replace(s, record=True))
    torch.testing.assert_close(out.u_sequence, torch.stack(expected))
    torch.testing.assert_close(out.v, v[-1])


def test_backward_recomputes_the_spikes_that_were_emitted():
    for seed in range(5):
        check_spikes(TorchProvider(), threshold_case(seed))
