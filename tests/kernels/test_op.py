"""The registered operator: opcheck, torch.compile, autocast, second order, provider choice, bad input."""

import itertools

import pytest
import torch
from kernel_cases import random_inputs

from snn_dendrite_plugin import use_provider
from snn_dendrite_plugin.kernels.providers import ProviderError, explain
from snn_dendrite_plugin.kernels.soma_dendrite import Inputs, Settings, soma_dendrite
from snn_dendrite_plugin.kernels.soma_dendrite.op import _STATIC
from snn_dendrite_plugin.kernels.soma_dendrite.reference import run

STATIC = [
    Settings(branches=0, reset="soft", fire_once=True),
    Settings(branches=2, wiring="fold", reset="hard", record=True),
    Settings(branches=3, reset="hard", timing="next_step", strict=True),
]


def call(i=0, dtype=torch.float32, shape=(2, 3, 4), t=5):
    inputs = random_inputs(STATIC[i], shape=(t, *shape), per_channel=True, seed=7)
    cast = [None if v is None else v.detach().to(dtype).requires_grad_(v.requires_grad) for v in inputs]
    return Inputs(*cast), STATIC[i]


def arguments(inputs, settings):
    return (*inputs, *(getattr(settings, name) for name in _STATIC))


@pytest.mark.parametrize("i", range(len(STATIC)))
def test_opcheck(i):
    torch.library.opcheck(torch.ops.snn_dendrite.soma_dendrite.default, arguments(*call(i)))


@pytest.mark.parametrize("i", range(len(STATIC)))
def test_compiles_to_one_graph_forward_and_backward(i):
    inputs, settings = call(i)

    def loss(*tensors):
        out = soma_dendrite(Inputs(*tensors), settings)
        return out.spikes.sum() + (out.u**2).sum()

    leaves = [v for v in inputs if v is not None and v.requires_grad]
    expected = loss(*inputs)
    expected_grads = torch.autograd.grad(expected, leaves)
    got = torch.compile(loss, fullgraph=True, backend="aot_eager")(*inputs)
    assert torch.equal(got, expected)
    for a, b in zip(torch.autograd.grad(got, leaves), expected_grads, strict=True):
        torch.testing.assert_close(a, b)


def test_op_equals_reference_loop_and_is_deterministic():
    for i in range(len(STATIC)):
        inputs, settings = call(i, torch.float64)
        out, ref = soma_dendrite(inputs, settings), run(inputs, settings)
        for a, b in zip(out, ref, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b)
        again = soma_dendrite(inputs, settings)
        assert torch.equal(out.spikes, again.spikes)
        assert torch.equal(out.u, again.u)


def test_second_order_gradients_are_those_of_the_reference():
    inputs, settings = call(1, torch.float64)
    gradients = []
    for function in (soma_dendrite, run):
        out = function(inputs, settings)
        (g,) = torch.autograd.grad((out.spikes.sum() + out.u.square().sum()), inputs.x, create_graph=True)
        gradients.append(torch.autograd.grad(g.square().sum(), [inputs.x, inputs.alpha, inputs.strength]))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_input_keeps_float32_states(dtype):
    inputs, settings = call(1)
    out = soma_dendrite(inputs._replace(x=inputs.x.detach().to(dtype)), settings)
    assert out.spikes.dtype == dtype
    assert out.u.dtype == out.v.dtype == out.u_sequence.dtype == torch.float32


@pytest.mark.parametrize(("i", "memory_format"), list(itertools.product([0, 1], [torch.channels_last])))
def test_channels_last_stays_channels_last(i, memory_format):
    inputs, settings = call(i, shape=(2, 6, 4, 3))
    x = inputs.x.detach().flatten(0, 1).to(memory_format=memory_format).unflatten(0, inputs.x.shape[:2])
    x.requires_grad_()
    out = soma_dendrite(inputs._replace(x=x), settings)
    assert torch.equal(out.spikes, soma_dendrite(inputs, settings).spikes)
    assert out.spikes.flatten(0, 1).is_contiguous(memory_format=memory_format)
    out.u.sum().backward()
    assert x.grad.shape == x.shape


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda i: i._replace(x=i.x.detach()[:0]), ValueError, "empty sequence"),
        (lambda i: i._replace(x=i.x.detach().long()), TypeError, "x has dtype"),
        (lambda i: i._replace(x=i.x.detach()[:, :, :5]), ValueError, "does not divide"),
        (lambda i: i._replace(u=i.u.detach()[:1]), ValueError, "state u has shape"),
        (lambda i: i._replace(v=None), ValueError, "state v has shape None"),
        (lambda i: i._replace(alpha=i.alpha.detach()[:, :1]), ValueError, "alpha has shape"),
        (lambda i: i._replace(strength=None), ValueError, "strength is None"),
        (lambda i: i._replace(theta=i.theta.detach().double()), TypeError, "theta has dtype"),
        (lambda i: i._replace(u=i.u.detach().to("meta")), ValueError, "u is on meta"),
    ],
)
def test_bad_input_names_the_tensor(change, error, text):
    inputs, settings = call(1)
    with pytest.raises(error, match=text):
        soma_dendrite(change(inputs), settings)


@pytest.mark.parametrize(
    "field", [{"wiring": "star"}, {"activation": "cube"}, {"reset": "maybe"}, {"surrogate": "none"}, {"branches": -1}]
)
def test_bad_settings_name_the_field(field):
    with pytest.raises(ValueError, match=next(iter(field))):
        Settings(**field)


def test_zero_sized_batch():
    inputs, settings = call(1)
    small = inputs._replace(
        x=inputs.x.detach()[:, :0].requires_grad_(), u=inputs.u.detach()[:0], v=inputs.v.detach()[:0]
    )
    out = soma_dendrite(small, settings)
    assert out.spikes.shape == (5, 0, 3, 4)
    out.spikes.sum().backward()
    assert torch.equal(small.alpha.grad, torch.zeros_like(small.alpha))


def test_nan_and_infinity_pass_through_without_a_crash():
    inputs, settings = call(0)
    x = inputs.x.detach().clone()
    x[0, 0, 0, 0], x[0, 0, 1, 0] = float("nan"), float("inf")
    out = soma_dendrite(inputs._replace(x=x), settings)
    assert out.spikes[0, 0, 0, 0] == 0  # NaN is not above the threshold
    assert out.u[0, 0, 0].isnan()
    assert torch.equal(out.spikes[:, 1], soma_dendrite(inputs, settings).spikes[:, 1])


def test_explicit_provider_runs_or_raises(monkeypatch):
    inputs, settings = call(0)
    with use_provider("torch"):
        assert soma_dendrite(inputs, settings).spikes.shape == (5, 2, 3, 4)
    with pytest.raises(ProviderError, match="registered providers are"), use_provider("abacus"):
        pass
    monkeypatch.setenv("SNN_DENDRITE_PROVIDER", "abacus")
    with pytest.raises(ProviderError, match="'abacus' is not registered"):
        soma_dendrite(inputs, settings)
    if not torch.cuda.is_available():
        monkeypatch.setenv("SNN_DENDRITE_PROVIDER", "cupy")
        with pytest.raises(ProviderError, match="'cupy' was chosen explicitly but cannot run"):
            soma_dendrite(inputs, settings)


def test_explain_names_every_provider_and_torch_always_runs():
    reasons = dict(explain("soma_dendrite", torch.device("cpu"), torch.float32, Settings()))
    assert {"torch", "cpu", "triton", "cupy"} <= set(reasons)
    assert reasons["torch"] is None
    assert all(reason is None or reason for reason in reasons.values())


def test_a_registered_provider_is_chosen_and_forgotten_with_its_plugin():
    from snn_dendrite_plugin import hookimpl, plugins
    from snn_dendrite_plugin.kernels.soma_dendrite.reference import TorchProvider

    calls = []

    class Counting(TorchProvider):
        name = "counting"

        def forward(self, inputs, settings):
            calls.append("forward")
            return super().forward(inputs, settings)

    class Plugin:
        @hookimpl
        def snn_dendrite_register_providers(self, register):
            register(name="counting", op="soma_dendrite", target=Counting(), priority=99)

    inputs, settings = call(0)
    soma_dendrite(inputs, settings)
    plugin = Plugin()
    plugins.register_plugin(plugin)
    try:
        soma_dendrite(inputs, settings)
        assert calls == ["forward"]
        with use_provider("torch"):
            soma_dendrite(inputs, settings)
        assert calls == ["forward"]
    finally:
        plugins.unregister_plugin(plugin)
    soma_dendrite(inputs, settings)
    assert calls == ["forward"]
