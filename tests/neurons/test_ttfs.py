"""The clock-driven TTFS node: hand-computed traces, the rounded ReLU network it must equal, and its two clocks."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from snn_dendrite_plugin.kernels.providers import use_provider
from snn_dendrite_plugin.kernels.ttfs import Settings, ttfs
from snn_dendrite_plugin.neurons.base import Firing
from snn_dendrite_plugin.neurons.ttfs import TTFS

FIRING = Firing()


class Rounded(torch.autograd.Function):
    """ReLU clipped at R and rounded to dt (m - 1/2); straight-through gradient on (0, R]."""

    @staticmethod
    def forward(ctx, v, window, steps):
        ctx.save_for_backward(v)
        ctx.window = window
        m = torch.ceil(v / (window / steps)).clamp(0, steps)
        return torch.where(m > 0, (m - 0.5) * (window / steps), 0.0)

    @staticmethod
    def backward(ctx, g):
        (v,) = ctx.saved_tensors
        return g * ((v > 0) & (v <= ctx.window)), None, None


def encode(x: torch.Tensor, steps: int) -> torch.Tensor:
    """Values in [0, 1] as spikes ``[T, ...]``, silent zero."""
    m = torch.ceil(x * steps).clamp(0, steps)
    return torch.stack([(m == steps - k).to(x.dtype) for k in range(steps)])


def per_step(node: TTFS, x_seq: torch.Tensor, extra: int) -> torch.Tensor:
    """Step by step, ``extra`` silent steps appended so that the last window fires too."""
    states = node.init_states(x_seq[0])
    out = []
    for x in itertools.chain(x_seq, [torch.zeros_like(x_seq[0])] * extra):
        s, states = node.advance(x, states, FIRING)
        out.append(s)
    return torch.stack(out)


def test_trace_by_hand():
    node = TTFS(steps=4, window=2.0, input_window=1.0, bias=[0.1])
    x = torch.zeros(4, 1, 1, dtype=torch.float64)
    x[1] = 2.0  # weight 2, spike in bin 1 of [0, 1]: 2 (4 - 1 - 1/2) / 4 = 1.25, with the bias 1.35
    spikes, (v, charge, clock) = node.run(x)
    assert v.item() == pytest.approx(1.35)
    # bins of 0.5 that end at 2: V in (1.0, 1.5] fires in bin 1
    assert spikes.flatten().tolist() == [0, 1, 0, 0]
    assert charge.item() == clock.item() == 0
    assert node.init_states(x[0])[2].shape == (1, 1)


@pytest.mark.parametrize(
    ("value", "bin_"),
    [(-0.3, None), (0.0, None), (1e-9, 3), (0.25, 3), (0.2501, 2), (0.5, 2), (1.0, 0), (0.7501, 0), (7.0, 0)],
)
def test_which_bin(value, bin_):
    node = TTFS(steps=4, bias=[value])
    spikes, _ = node.run(torch.zeros(4, 1, 1, dtype=torch.float64))
    expected = [0.0] * 4 if bin_ is None else [float(k == bin_) for k in range(4)]
    assert spikes.flatten().tolist() == expected


def test_state_machine_by_hand():
    node = TTFS(steps=2)
    x = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 0.0]).reshape(6, 1, 1)  # window 1: 3/4, window 2: 1/4, window 3: silent
    states, trail = node.init_states(x[0]), []
    for x_t in x:
        s, states = node.advance(x_t, states, FIRING)
        trail.append((s.item(), *(state.item() for state in states)))
    assert trail == [
        (0.0, 0.0, 3.0, 1.0), (0.0, 0.75, 0.0, 0.0),
        (1.0, 0.75, 0.0, 1.0), (0.0, 0.25, 0.0, 0.0),
        (0.0, 0.25, 0.0, 1.0), (1.0, 0.0, 0.0, 0.0),
    ]  # fmt: skip


@pytest.mark.parametrize("steps", [1, 2, 7, 16])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_steps_equal_the_sequence_one_window_later(steps, dtype):
    node = TTFS(steps, window=1.3, bias=True)
    x = (torch.randn(3 * steps, 5, 4, 6, dtype=torch.float64) * 0.3).to(dtype)
    node.prepare(4)
    with torch.no_grad():
        node.bias.uniform_(-0.2, 0.4)
    spikes, (v, *_) = node.run(x)
    assert spikes.dtype == dtype
    assert v.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    by_step = per_step(node, x, steps)
    assert not by_step[:steps].any()
    assert torch.equal(by_step[steps:], spikes)
    per_window = spikes.reshape(3, steps, *spikes.shape[1:]).sum(1)
    assert set(per_window.unique().tolist()) == {0.0, 1.0}


def chain(dtype=torch.float64):
    torch.manual_seed(1)
    first = nn.Linear(9, 12, bias=False, dtype=dtype)
    second = nn.Linear(12, 5, bias=False, dtype=dtype)
    b1, b2 = torch.rand(12, dtype=dtype) * 0.2, torch.rand(5, dtype=dtype) * 0.1
    return first, second, b1, b2


@pytest.mark.parametrize("steps", [1, 3, 8])
def test_equals_the_rounded_relu_network(steps):
    first, second, b1, b2 = chain()
    windows = (0.6, 0.5)  # tight: some neurons saturate
    one = TTFS(steps, windows[0], 1.0, bias=b1)
    two = TTFS(steps, windows[1], windows[0], bias=b2)
    x = torch.rand(6, 9, dtype=torch.float64)
    spikes, _ = one.run(first(encode(x, steps)))
    _, (v, *_) = two.run(second(spikes))
    loss = v.square().sum()
    gradients = torch.autograd.grad(loss, [first.weight, second.weight, one.bias, two.bias])

    c1, c2 = b1.clone().requires_grad_(), b2.clone().requires_grad_()
    values = Rounded.apply(x, 1.0, steps)
    hidden = F.linear(values, first.weight, c1)
    assert ((hidden > windows[0]).any(), (hidden <= 0).any()) == (True, True)
    expected = F.linear(Rounded.apply(hidden, windows[0], steps), second.weight, c2)
    wanted = torch.autograd.grad(expected.square().sum(), [first.weight, second.weight, c1, c2])
    torch.testing.assert_close(v, expected, rtol=0, atol=1e-12)
    for found, want in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(found, want, rtol=0, atol=1e-12)
    assert wanted[0].abs().sum() > 0


@pytest.mark.parametrize("steps", [1, 4])
def test_single_step_gradient_equals_multi_step(steps):
    first, second, b1, b2 = chain()
    x = encode(torch.rand(6, 9, dtype=torch.float64), steps)

    def nodes():
        return TTFS(steps, 0.6, 1.0, bias=b1), TTFS(steps, 0.5, 0.6, bias=b2)

    one, two = nodes()
    spikes, _ = two.run(second(one.run(first(x))[0]))
    cotangent = torch.randn_like(spikes)
    leaves = [first.weight, second.weight, one.bias, two.bias]
    wanted = torch.autograd.grad((spikes * cotangent).sum(), leaves)

    silent = torch.zeros_like(x[0])
    s1, s2, out = one.init_states(first(silent)), two.init_states(second(first(silent))), []
    for x_t in [*x, *[silent] * (2 * steps)]:  # the spikes of `two` come two windows later
        s, s1 = one.advance(first(x_t), s1, FIRING)
        s, s2 = two.advance(second(s), s2, FIRING)
        out.append(s)
    by_step = torch.stack(out[2 * steps :])
    assert torch.equal(by_step, spikes)
    found = torch.autograd.grad((by_step * cotangent).sum(), leaves)
    for f, w in zip(found, wanted, strict=True):
        torch.testing.assert_close(f, w, rtol=0, atol=1e-12)


def test_registered_op():
    x = (torch.randn(8, 3, 4, 2) * 0.5).requires_grad_()
    bias = (torch.rand(1, 4, 1) * 0.2).requires_grad_()
    windows = torch.tensor([1.0, 0.8])
    torch.library.opcheck(torch.ops.snn_dendrite.ttfs, (x, bias, windows, 4))
    torch.library.opcheck(torch.ops.snn_dendrite.ttfs, (x, None, windows, 8))


def test_second_order_is_that_of_the_straight_through_formula():
    x = (torch.randn(4, 3, 4, dtype=torch.float64) * 0.5).requires_grad_()
    scale = torch.rand(3, 4, dtype=torch.float64, requires_grad=True)
    spikes, _ = ttfs(x, None, torch.tensor([1.0, 1.0], dtype=torch.float64), 4)
    weights = torch.arange(4, 0, -1, dtype=torch.float64).reshape(4, 1, 1)
    (gx,) = torch.autograd.grad((spikes * weights * scale).sum(), x, create_graph=True)
    (gs,) = torch.autograd.grad(gx.sum(), scale)
    v = ((x.detach() * (weights - 0.5)).sum(0)) / 4
    active = ((v > 0) & (v <= 1)).double()
    # dL/dV = scale (4 - 1) / 3 * 4 per active neuron, and sum_k dV/dx[k] = (3.5 + 2.5 + 1.5 + 0.5) / 4 = 2
    torch.testing.assert_close(gs, active * 8)


def test_compiles_in_one_graph():
    node = TTFS(4, bias=True, channels=5)
    x = torch.randn(8, 2, 5) * 0.5

    def run(x):
        return node.run(x)[0]

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), run(x))
    compiled(x).pow(2).sum().backward()
    assert node.bias.grad is not None


def test_bias_is_created_loaded_and_may_be_a_map():
    node = TTFS(4, bias=True)
    assert isinstance(node.bias, nn.parameter.UninitializedParameter)
    node.run(torch.zeros(4, 2, 3, 5))
    assert node.bias.shape == (3,)
    fresh = TTFS(4, window=2.0, bias=True)
    fresh.load_state_dict(TTFS(4, window=3.0, bias=[1.0, 2.0]).state_dict())
    assert fresh.bias.tolist() == [1.0, 2.0]
    assert fresh.window.item() == 3.0
    field = torch.tensor([[0.1, 0.9], [0.6, -1.0]])  # [C, L]
    spikes, (v, *_) = TTFS(2, bias=field).run(torch.zeros(2, 1, 2, 2))
    assert torch.equal(v[0], field)
    assert spikes[:, 0].tolist() == [[[0, 1], [1, 0]], [[1, 0], [0, 0]]]
    with pytest.raises(ValueError, match=r"does not fit the bias \(2, 2\)"):
        TTFS(2, bias=field).run(torch.zeros(2, 1, 2, 3))


def test_nan_is_not_silence():
    x = torch.zeros(4, 1, 3)
    x[2, 0, 1] = torch.nan
    node = TTFS(4)
    spikes, _ = node.run(x)
    assert spikes[0].isnan().tolist() == [[False, True, False]]
    assert per_step(node, x, 4)[4].isnan().tolist() == [[False, True, False]]


def test_durations_keep_their_precision():
    node = TTFS(4, window=1 / 3).float()
    assert node.window.dtype == torch.float64
    assert node.half().window.item() == 1 / 3
    _, _, trace = node.sequence(torch.zeros(8, 1, 2), node.init_states(torch.zeros(1, 2)), FIRING, record=True)
    assert trace.shape == (8, 1, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"steps": 2.0}, "steps is 2.0"),
        ({"steps": 4, "window": 0.0}, "window is 0.0"),
        ({"steps": 4, "window": float("inf")}, "window is inf"),
        ({"steps": 4, "input_window": -1.0}, "input_window is -1.0"),
        ({"steps": 4, "channels": 0}, "channels is 0"),
        ({"steps": 4, "bias": [0.0, 1.0], "channels": 3}, r"bias has shape \(2,\)"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        TTFS(**arguments)


def test_wrong_sequences():
    node = TTFS(4, bias=True)
    with pytest.raises(ValueError, match="multiple of steps=4"):
        node.run(torch.zeros(6, 1, 2))
    with pytest.raises(ValueError, match="0 time steps"):
        node.run(torch.zeros(0, 1, 2))
    with pytest.raises(ValueError, match="needs \\[N, C, \\*\\]"):
        node.run(torch.zeros(4, 2))
    _, states = node.advance(torch.zeros(1, 2), node.init_states(torch.zeros(1, 2)), FIRING)
    with pytest.raises(ValueError, match="step 1 of a window"):
        node.sequence(torch.zeros(4, 1, 2), states, FIRING)
    windows = torch.ones(2)
    with pytest.raises(TypeError, match="dtype torch.int64"):
        ttfs(torch.zeros(4, 1, 2, dtype=torch.int64), None, windows, 4)
    with pytest.raises(TypeError, match="windows has dtype"):
        ttfs(torch.zeros(4, 1, 2), None, windows.double(), 4)
    with pytest.raises(ValueError, match="bias has shape"):
        ttfs(torch.zeros(4, 1, 2), torch.zeros(1, 3), windows, 4)
    with pytest.raises(ValueError, match="steps is 0"):
        Settings(0)


def test_explicit_provider():
    with use_provider("torch"):
        spikes, _ = TTFS(2).run(torch.ones(2, 1, 1))
    assert spikes.flatten().tolist() == [1, 0]
