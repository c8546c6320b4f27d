"""DendSN and LNM as models: states, steps, parameters, precision, copies, the symmetry trap, bad arguments."""

import copy
import io
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_dendrite_plugin import Firing, NeuronModel
from snn_dendrite_plugin.kernels.surrogates import Surrogate
from snn_dendrite_plugin.neurons.dendsn import DendSN, spread_decays, spread_offsets
from snn_dendrite_plugin.neurons.lnm import LNM

VARIANTS = {
    "dendsn": lambda: DendSN(branches=3, strength_init=0.3, learn_alpha=True),
    "published": lambda: DendSN(branches=3, wiring="fold", strength="softmax", alpha=0.5, direct=0),
    "per_channel": lambda: DendSN(branches=3, per_channel=True, strength_init=0.2, degree=2),
    "learn_beta": lambda: DendSN(branches=3, learn_beta=True, wiring="fold"),
    "lnm": lambda: LNM(degree=3),
    "lnm_per_channel": lambda: LNM(degree=2, per_channel=True),
}


def firings(surrogate):
    return st.builds(
        Firing,
        threshold=st.sampled_from([0.7, 1.0]),
        reset=st.sampled_from(["hard", "soft", "none"]),
        v_reset=st.sampled_from([0.0, -0.2]),
        timing=st.sampled_from(["at_once", "next_step", "at_once_retested"]),
        strict=st.booleans(),
        detach=st.booleans(),
        fire_once=st.booleans(),
        surrogate=st.just(surrogate),
    )


@settings(max_examples=60)
@given(
    variant=st.sampled_from(list(VARIANTS)),
    firing=firings(Surrogate("atan")),
    shape=st.sampled_from([(2, 6), (1, 3, 5), (2, 3, 2, 3)]),
    t=st.integers(2, 7),
    cut=st.integers(1, 6),
)
def test_step_equals_sequence_and_states_carry(variant, firing, shape, t, cut):
    torch.manual_seed(t)
    model = VARIANTS[variant]().double()
    x = torch.randn(t, *shape, dtype=torch.float64) * 2
    spikes, states = model.run(x, firing=firing)
    carried = model.init_states(x[0], firing)
    steps = []
    for x_t in x:
        s, carried = model.advance(x_t, carried, firing)
        steps.append(s)
    assert torch.equal(torch.stack(steps), spikes)
    for a, b in zip(carried, states, strict=True):
        torch.testing.assert_close(a, b)
    cut = min(cut, t - 1)
    first, between = model.run(x[:cut], firing=firing)
    second, last = model.run(x[cut:], between, firing=firing)
    assert torch.equal(torch.cat((first, second)), spikes)
    for a, b in zip(last, states, strict=True):
        torch.testing.assert_close(a, b)


@settings(max_examples=40)
@given(firing=firings(Surrogate("sigmoid")), beta=st.sampled_from([0.0, 0.5, 0.9, 1.0]), t=st.integers(1, 6))
def test_special_cases_are_one_lif(firing, beta, t):
    """No dendrite, a passive branch without memory, and silent dendrites are all the same LIF neuron."""
    torch.manual_seed(t)
    x = (torch.randn(t, 2, 3, dtype=torch.float64) * 2).requires_grad_()
    torch.set_default_dtype(torch.float64)  # learned parameters are created in the default dtype
    try:
        models = (
            LNM(degree=1, beta=beta),
            LNM(degree=3, beta=beta),
            DendSN(1, activation="identity", alpha=0.0, strength_init=1.0, offset=0.0, direct=0, beta=beta,
                   decay_input=False),
            DendSN(4, beta=beta, decay_input=False, activation="tanh"),
        )  # fmt: skip
    finally:
        torch.set_default_dtype(torch.float32)
    results = []
    for model in models:
        spikes, states = model.run(x, firing=firing)
        (g,) = torch.autograd.grad(spikes.sum() + states[0].square().sum(), x)
        results.append((spikes, states[0], g))
    for other in results[1:]:
        assert torch.equal(other[0], results[0][0])
        torch.testing.assert_close(other[1], results[0][1])
        torch.testing.assert_close(other[2], results[0][2])


@pytest.mark.parametrize(("dtype", "beta", "rest"), [(torch.float32, 0.95, 0.3), (torch.float64, 0.9375, 0.3125)])
@pytest.mark.parametrize("made", [LNM, lambda **k: DendSN(decay_input=False, **k)])
def test_a_cubic_soma_starts_as_the_line_to_the_last_bit(made, dtype, beta, rest):
    """Also beyond its limits, and with a rest that theta_scale divides. (Learned parameters are made in float32.)"""
    x = 3 * torch.randn(40, 4, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    firing = Firing(reset="soft", timing="next_step")
    line, cubic = (made(degree=degree, beta=beta, rest=rest).to(dtype).run(x, firing=firing) for degree in (1, 3))
    assert line[1][0].abs().max() > 3
    assert torch.equal(line[0], cubic[0])
    assert torch.equal(line[1][0], cubic[1][0])


def test_theta_scale_scales_the_gradients_of_all_but_theta_1():
    x = torch.randn(10, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = LNM(theta=[0.05, 0.6, -0.1, 0.05], theta_scale=1).double()
    parts = LNM(theta=[0.4, 0.6, -0.8, 0.4]).double()
    assert torch.equal(whole.coefficients, parts.coefficients)
    for model in (whole, parts):
        model.run(x)[1][0].sum().backward()
    torch.testing.assert_close(parts.theta.grad, whole.theta.grad * torch.tensor([0.125, 1, 0.125, 0.125]).double())


def test_decay_and_rest_are_set_in_units_of_the_potential():
    for model in (LNM(), LNM(per_channel=True), LNM(learn_theta=False), DendSN(degree=3)):
        model.set_decay(0.75)
        model.set_rest(0.5)
        model.run(torch.rand(2, 3, 4))
        assert model.coefficients[0].tolist() == [0.125, 0.75, 0, 0]
        model.set_decay(0.5)
        assert model.coefficients[0].tolist() == [0.25, 0.5, 0, 0]


def test_a_learned_line_is_not_steeper_than_1():
    model = LNM(degree=1, theta=[[0.0, 1.5], [0.0, 1.0], [0.0, -2.0]], channels=3)
    assert model.coefficients[:, 1].tolist() == [1, 1, -1]
    model.run(torch.full((500, 1, 3), -1.0), firing=Firing(reset="none"))[1][0].sum().backward()
    assert (model.theta.grad[:, 1] != 0).tolist() == [False, True, False]  # 1 itself, an IF neuron, can still learn
    assert LNM(degree=1, theta=[0.0, 1.5], clamp=None).coefficients[0, 1] == 1.5


def test_default_sequence_of_a_new_model_follows_every_firing_rule():
    class Leak(NeuronModel):
        def step(self, x, states, firing):
            (v,) = states
            spikes, v = firing.update(memory=0.5 * v, drive=x)
            return spikes, (v,)

    torch.manual_seed(0)
    x = torch.randn(9, 2, 3, dtype=torch.float64) * 2
    for reset in ("hard", "soft", "none"):
        for timing in ("at_once", "next_step", "at_once_retested"):
            for once in (False, True):
                firing = Firing(reset=reset, timing=timing, v_reset=0.0, fire_once=once, strict=True)
                ours, states = Leak().run(x, firing=firing)
                core, core_states = LNM(degree=1, beta=0.5).double().run(x, firing=firing)
                assert torch.equal(ours, core), (reset, timing, once)
                for a, b in zip(states, core_states, strict=True):
                    torch.testing.assert_close(a, b)


def test_a_users_own_spike_function_runs_with_its_own_gradient():
    class Box(torch.autograd.Function):
        @staticmethod
        def forward(ctx, d):
            ctx.save_for_backward(d)
            return (d >= 0).to(d)

        @staticmethod
        def backward(ctx, g):
            (d,) = ctx.saved_tensors
            return g * (d.abs() < 0.5)

    x = torch.randn(6, 2, 3, requires_grad=True)
    model = DendSN(2, strength_init=0.5)
    grads = []
    for surrogate in (Box.apply, Surrogate("rect", 1.0)):
        spikes, _ = model.run(x, firing=Firing(surrogate=surrogate))
        grads.append(torch.autograd.grad(spikes.sum(), [x, *model.parameters()]))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_preserving_start_grows_its_dendrites_and_branches_become_different():
    torch.manual_seed(0)
    model = DendSN(branches=4, learn_alpha=True)
    x = torch.rand(10, 8, 5) * 2
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    assert torch.equal(model.strength, torch.zeros(1, 4))
    for _ in range(20):
        optimiser.zero_grad()
        spikes, _ = model.run(x)
        (spikes.mean() - 0.9).square().backward()
        optimiser.step()
    for name in ("strength", "gain", "alpha_logit"):
        values = getattr(model, name)[0]
        assert len(set(values.tolist())) == 4, name
    assert model.strength.abs().min() > 0


def test_equal_branches_stay_equal_which_is_why_the_start_is_spread():
    torch.manual_seed(0)
    model = DendSN(branches=2, alpha=0.5, offset=0.0, strength_init=0.1, learn_alpha=True)
    x = torch.rand(6, 4, 5) * 2
    spikes, _ = model.run(x)
    spikes.sum().backward()
    assert model.gain.grad[0, 0] == model.gain.grad[0, 1] != 0
    assert len(set(spread_decays(4))) == len(set(spread_offsets(4))) == 4


def test_fixed_parameters_keep_double_precision_through_dtype_changes():
    model = LNM(degree=1, beta=1 - 1 / 3, learn_theta=False)
    for change in (model.float, model.half, model.double):
        change()
        assert model.theta.dtype == torch.float64
        assert model.theta[0, 1].item() == 1 - 1 / 3
    assert model.run(torch.rand(2, 1, 3).half())[0].dtype == torch.float16


class Same(torch.nn.Module):
    def forward(self, value):
        return 1.0 * value


@pytest.mark.parametrize(
    "name", ["gain", "offset", "strength", "alpha", "alpha_logit", "direct", "theta", "beta_logit"]
)
@pytest.mark.parametrize("make", [
    lambda: DendSN(branches=3, strength_init=0.3), lambda: LNM(degree=2),
    lambda: DendSN(3, degree=2, beta=0.7, strength_init=0.2),
    lambda: DendSN(branches=3, strength_init=0.3, learn_alpha=True, learn_beta=True),
])  # fmt: skip
def test_every_parameter_may_have_a_parametrization(make, name):
    torch.manual_seed(0)
    x = torch.rand(6, 2, 4) * 2
    plain, model = make(), make()
    if name not in dict([*plain.named_parameters(), *plain.named_buffers()]):
        pytest.skip("this variant does not have it")
    torch.nn.utils.parametrize.register_parametrization(model, name, Same())
    results = []
    for neuron in (plain, model):
        spikes, (u, *_) = neuron.run(x)
        (spikes.sum() + u.square().sum()).backward()
        results.append((spikes, u))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    learned = dict(plain.named_parameters()).get(name)
    if learned is not None:
        assert learned.grad.abs().sum() > 0
        torch.testing.assert_close(model.parametrizations[name].original.grad, learned.grad)
    assert torch.equal(model.decay, plain.decay)


def test_a_parametrized_decay_is_not_set_over_the_head_of_its_parametrization():
    model = LNM()
    torch.nn.utils.parametrize.register_parametrization(model, "theta", Same())
    with pytest.raises(ValueError, match="theta has a parametrization"):
        model.set_decay(0.3)


@pytest.mark.parametrize("degree", [1, 3])
def test_learn_beta_learns_the_decay_at_every_degree(degree):
    model = DendSN(branches=2, learn_beta=True, degree=degree)
    before = model.decay.item()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    _, (u, _) = model.run(torch.full((3, 2, 4), 0.4))
    u.sum().backward()
    optimiser.step()
    assert model.decay.item() != before


@pytest.mark.parametrize("variant", VARIANTS)
def test_copies_pickles_and_state_dicts(variant):
    model = VARIANTS[variant]()
    x = torch.rand(3, 2, 6)
    fresh = copy.deepcopy(model)  # before per-channel parameters exist
    pickle.loads(pickle.dumps(model))
    spikes, _ = model.run(x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    expected, _ = model.run(x)
    fresh.load_state_dict(model.state_dict())
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    for twin in (fresh, copy.deepcopy(model), torch.load(buffer, weights_only=False)):
        assert torch.equal(twin.run(x)[0], expected)
        assert set(twin.state_dict()) == set(model.state_dict())
    assert spikes.shape == expected.shape


def test_per_channel_parameters_have_a_row_per_channel_and_their_own_gradient():
    model = DendSN(branches=2, per_channel=True, strength_init=0.5)
    x = torch.rand(4, 2, 3, 5) * 2
    model.run(x)[0][:, :, 1].sum().backward()
    assert model.strength.shape == (3, 2)
    assert model.strength.grad[1].abs().sum() > 0
    assert model.strength.grad[[0, 2]].abs().sum() == 0


@pytest.mark.parametrize("shape", [(5,), (5, 4), (5, 2, 3), (5, 2, 3, 4), (5, 2, 3, 2, 2, 2)])
def test_shared_wiring_takes_any_shape(shape):
    for model in (DendSN(2, strength_init=0.4), LNM()):
        x = torch.rand(shape)
        spikes, states = model.run(x)
        assert spikes.shape == shape
        assert states[0].shape == shape[1:]


def test_what_is_kept_of_fixed_parameters_follows_every_change_to_them():
    x = torch.rand(5, 2, 3) * 2
    model = DendSN(branches=2, strength_init=0.5)
    before, _ = model.run(x)
    with torch.no_grad():
        model.alpha.fill_(0.1)  # in place
        model.direct.fill_(0.2)
    fresh = DendSN(branches=2, strength_init=0.5, alpha=0.1, direct=0.2)
    assert torch.equal(model.run(x)[0], fresh.run(x)[0])
    assert not torch.equal(before, fresh.run(x)[0])
    model.load_state_dict(DendSN(branches=2, strength_init=0.5).state_dict())
    assert torch.equal(model.run(x)[0], before)
    model.alpha = torch.full((1, 2), 0.1, dtype=torch.float64)  # another tensor
    model.direct = torch.full((1, 1), 0.2, dtype=torch.float64)
    assert torch.equal(model.run(x)[0], fresh.run(x)[0])
    assert copy.deepcopy(model)._kept == {}
    with torch.inference_mode():
        assert torch.equal(DendSN(branches=2, strength_init=0.5).run(x)[0], before)
