"""Time-coded layers against the ReLU network and against an event-driven simulation."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from snn_dendrite_plugin.layers import (
    ActivityPenalty,
    SpikeTimes,
    TTFSAdaptiveAvgPool,
    TTFSAvgPool,
    TTFSConv1d,
    TTFSConv2d,
    TTFSDecode,
    TTFSEncode,
    TTFSFire,
    TTFSFlatten,
    TTFSLinear,
    TTFSMaxPool,
    TTFSRelay,
    TTFSResidual,
    TTFSScale,
    activity,
    calibrate,
    perturb,
    saturation,
)

DOUBLE = torch.float64


def event_driven(times, window_in, weights, bias, window):
    """First spike of one neuron from sorted input spikes and a piecewise-linear potential; None where it stays silent.

    dV/dt = sum of the weights of the spikes so far until the input window ends, then 1; fires at V = R - b, gated until
    the own window begins. Returns the time from the own window's start and whether V crossed the threshold before it.
    """
    threshold = window - bias
    order = sorted(range(len(times)), key=lambda j: times[j])
    now, potential, slope, crossed = 0.0, 0.0, 0.0, False
    for j in order:
        if times[j] >= window_in:
            break
        potential += slope * (times[j] - now)
        crossed = crossed or potential >= threshold
        now, slope = times[j], slope + weights[j]
    potential += slope * (window_in - now)
    crossed = crossed or (potential >= threshold and bool(order))
    at = max(0.0, threshold - potential)  # the ramp of slope 1
    return (at if at < window else None), crossed


def mlp(sizes, dtype=DOUBLE):
    torch.manual_seed(3)
    layers = [nn.Linear(a, b, dtype=dtype) for a, b in zip(sizes[:-1], sizes[1:], strict=True)]
    timed = [TTFSLinear(m.in_features, m.out_features, fire=m is not layers[-1]) for m in layers]
    for layer, time in zip(layers, timed, strict=True):
        time.to(dtype)
        time.set_weight(layer.weight)
        with torch.no_grad():
            time.bias.copy_(layer.bias)
    relu = nn.Sequential(*[m for layer in layers[:-1] for m in (layer, nn.ReLU())], layers[-1])
    return relu, nn.Sequential(TTFSEncode(), *timed)


def pair_of_parameters(relu, timed):
    return list(zip(relu.parameters(), timed.parameters(), strict=True))


def test_equals_relu_in_value_and_gradient():
    relu, timed = mlp([20, 32, 24, 10])
    calibrate(timed, torch.rand(200, 20, dtype=DOUBLE))
    x, y = torch.rand(64, 20, dtype=DOUBLE), torch.randint(10, (64,))
    a, b = relu(x), timed(x)
    torch.testing.assert_close(b, a, rtol=0, atol=1e-12)
    assert not any(s for s, _ in saturation(timed).values())
    F.cross_entropy(a, y).backward()
    F.cross_entropy(b, y).backward()
    for p, q in pair_of_parameters(relu, timed):
        torch.testing.assert_close(q.grad, p.grad, rtol=0, atol=1e-12)


def test_float32_stays_close():
    relu, timed = mlp([20, 32, 24, 10], torch.float32)
    x = torch.rand(256, 20)
    calibrate(timed, x)
    a, b = relu(x), timed(x)
    assert float(((a - b).abs().max() / a.abs().max()).detach()) < 1e-5
    assert torch.equal(a.argmax(1), b.argmax(1))


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_training_trajectories_coincide(optimizer):
    relu, timed = mlp([12, 24, 16, 4])
    start = [p.clone() for p in relu.parameters()]
    rate = 0.1 if optimizer is torch.optim.SGD else 0.003
    optimizers = [optimizer(net.parameters(), lr=rate) for net in (relu, timed)]
    for _ in range(200):
        x, y = torch.rand(16, 12, dtype=DOUBLE), torch.randint(4, (16,))
        for net, opt in zip((relu, timed), optimizers, strict=True):
            opt.zero_grad()
            F.cross_entropy(net(x), y).backward()
            opt.step()
    assert max(float((p - s).detach().abs().max()) for p, s in zip(relu.parameters(), start, strict=True)) > 0.05
    for p, q in pair_of_parameters(relu, timed):
        torch.testing.assert_close(q, p, rtol=0, atol=1e-9)
    assert timed[1].fire.window.item() > 1


def test_event_driven_simulation_gives_the_same_spike_times():
    _, timed = mlp([10, 14, 8, 3])
    x = torch.rand(6, 10, dtype=DOUBLE)
    calibrate(timed, x, margin=-0.2)  # some neurons saturate
    fired = transient = 0
    with torch.no_grad():
        spikes = timed[0](x)
        for layer in timed[1:3]:
            out = layer(spikes)
            for n in range(x.shape[0]):
                for i in range(out.times.shape[1]):
                    at, crossed = event_driven(
                        spikes.times[n].tolist(), float(spikes.window), layer.weight[i].tolist(),
                        float(layer.bias[i]), float(out.window),
                    )  # fmt: skip
                    found = float(out.times[n, i])
                    assert found == pytest.approx(float(out.window) if at is None else at, abs=1e-12)
                    fired += at is not None
                    transient += crossed
            spikes = out
    assert 0 < fired < 6 * 22
    assert sum(s for s, _ in saturation(timed).values()) > 0
    assert transient > 0


def test_a_transient_crossing_is_gated():
    # V rises to 3.75 > 1.5 and is back below 0 when the window begins (numbers exact in binary)
    at, crossed = event_driven([0.0, 0.75], 1.0, [5.0, -24.0], 0.0, 1.5)
    assert (at, crossed) == (None, True)
    layer = TTFSLinear(2, 1, bias=False, fire=TTFSFire(1.5, adaptive=False))
    layer.set_weight(torch.tensor([[5.0, -24.0]]))
    assert layer(SpikeTimes(torch.tensor([[0.0, 0.75]]), torch.tensor(1.0))).times.item() == 1.5


@pytest.mark.parametrize(
    "options",
    [
        {"padding": 1},
        {"stride": 2, "padding": (2, 1)},
        {"dilation": 2, "padding": "same"},
        {"groups": 2, "stride": (1, 2)},
        {"bias": False},
    ],
)
def test_conv2d(options):
    relu = nn.Conv2d(4, 6, 3, dtype=DOUBLE, **options)
    timed = TTFSConv2d(4, 6, 3, **options).to(DOUBLE)
    timed.set_weight(relu.weight)
    if relu.bias is not None:
        timed.bias.data.copy_(relu.bias)
    x = torch.rand(3, 4, 9, 8, dtype=DOUBLE)
    timed.train()
    out = timed(TTFSEncode()(x))
    torch.testing.assert_close(out.values, F.relu(relu(x)), rtol=0, atol=1e-12)


def test_conv1d_and_pools():
    relu = nn.Conv1d(2, 4, 3, stride=2, padding=1, dtype=DOUBLE)
    timed = TTFSConv1d(2, 4, 3, stride=2, padding=1).to(DOUBLE)
    timed.set_weight(relu.weight)
    timed.bias.data.copy_(relu.bias)
    x = torch.rand(3, 2, 21, dtype=DOUBLE)
    spikes, values = timed(TTFSEncode()(x)), F.relu(relu(x))
    for pool, wanted in (
        (TTFSMaxPool(3, 2, 1), F.max_pool1d(values, 3, 2, 1)),
        (TTFSAvgPool(3, 2, 1), F.avg_pool1d(values, 3, 2, 1)),
        (TTFSAvgPool(3, 2, 1, count_include_pad=False), F.avg_pool1d(values, 3, 2, 1, count_include_pad=False)),
        (TTFSAdaptiveAvgPool(4), F.adaptive_avg_pool1d(values, 4)),
        (TTFSFlatten(), values.flatten(1)),
    ):
        torch.testing.assert_close(pool(spikes).values, wanted, rtol=0, atol=1e-12)


def test_max_pool_takes_the_latest_where_a_negative_factor_follows():
    x = torch.rand(2, 3, 7, 6, dtype=DOUBLE)
    factor = torch.tensor([0.7, -1.3, 0.0], dtype=DOUBLE).reshape(3, 1, 1)
    spikes = TTFSMaxPool(3, 2, 1, latest=factor.flatten() < 0)(TTFSEncode()(x))
    torch.testing.assert_close(spikes.values * factor, F.max_pool2d(x * factor, 3, 2, 1), rtol=0, atol=1e-12)


def test_residual_addition_through_aligned_windows():
    torch.manual_seed(0)
    a, b = nn.Linear(6, 8, dtype=DOUBLE), nn.Linear(8, 6, dtype=DOUBLE)
    body = nn.Sequential(TTFSLinear(6, 8), TTFSLinear(8, 6, fire=False)).to(DOUBLE)
    for layer, plain in zip(body, (a, b), strict=True):
        layer.set_weight(plain.weight)
        layer.bias.data.copy_(plain.bias)
    x = torch.rand(5, 6, dtype=DOUBLE)
    block = TTFSResidual(body)
    wanted = F.relu(b(F.relu(a(x))) + x)
    torch.testing.assert_close(block(TTFSEncode()(x)).values, wanted, rtol=0, atol=1e-12)
    assert [type(m) for m in block.relays] == [TTFSRelay]
    scaled = TTFSResidual(body, shortcut=TTFSScale(torch.full((6,), 0.5, dtype=DOUBLE)), fire=False)
    torch.testing.assert_close(scaled(TTFSEncode()(x)), b(F.relu(a(x))) + 0.5 * x, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="body gives"):
        TTFSResidual(nn.Sequential(TTFSLinear(6, 8), TTFSLinear(8, 5, fire=False)))(TTFSEncode()(x.float()))
    with pytest.raises(TypeError, match="must be made with fire=False"):
        TTFSResidual(TTFSLinear(6, 6))(TTFSEncode()(x.float()))


def test_other_parametrizations():
    torch.manual_seed(1)
    weight = torch.randn(5, 7, dtype=DOUBLE) * 0.2
    x = torch.rand(9, 7, dtype=DOUBLE)
    spikes = TTFSEncode()(x)
    plain = weight.clone().requires_grad_()
    cotangent = torch.randn(9, 5, dtype=DOUBLE)
    (wanted,) = torch.autograd.grad((F.linear(x, plain) * cotangent).sum(), plain)

    general = TTFSLinear(7, 5, bias=False, fire=False, parametrization="general", slope=2.3).to(DOUBLE)
    general.set_weight(weight)
    out = general(spikes)
    torch.testing.assert_close(out, F.linear(x, weight), rtol=0, atol=1e-12)
    (found,) = torch.autograd.grad((out * cotangent).sum(), general.weight)
    torch.testing.assert_close(found * 2.3, wanted, rtol=0, atol=1e-12)

    alpha1 = TTFSLinear(7, 5, bias=False, fire=False, parametrization="alpha1").to(DOUBLE)
    alpha1.set_weight(weight)
    out = alpha1(spikes)
    torch.testing.assert_close(out, F.linear(x, weight), rtol=0, atol=1e-12)
    (found,) = torch.autograd.grad((out * cotangent).sum(), alpha1.weight)
    # dL/dJ = (dL/dW - sum_k W_k dL/dW_k) / (alpha + S): not the ReLU gradient
    slope = 1 + alpha1.weight.detach().sum(1, keepdim=True)
    metric = (wanted - (weight * wanted).sum(1, keepdim=True)) / slope
    torch.testing.assert_close(found, metric, rtol=0, atol=1e-12)
    assert float((found - wanted).norm() / wanted.norm()) > 0.1
    with pytest.raises(ValueError, match=r"rows \[0\] sum to 1 or more"):
        alpha1.set_weight(torch.cat([torch.ones(1, 7), weight[1:]]))
    assert bool((TTFSLinear(30, 9, parametrization="alpha1").effective_weight().sum(1) < 1).all())


def test_windows():
    _, timed = mlp([8, 12, 6, 3])
    fires = [timed[1].fire, timed[2].fire]
    x = torch.rand(128, 8, dtype=DOUBLE)
    timed.train()
    before = timed(x)
    assert all(f.window.item() > 1 for f in fires)
    largest = timed[1](timed[0](x)).values.detach().max().item()
    assert fires[0].window.item() == pytest.approx(10 * largest)  # the adaptive rule
    calibrate(timed, x, margin=0.5)
    assert fires[0].window.item() == pytest.approx(1.5 * largest)
    assert timed.training
    torch.testing.assert_close(timed(x), before, rtol=0, atol=1e-12)  # the function does not depend on the windows
    saturation(timed, reset=True)
    calibrate(timed, x, quantile=0.9, margin=0.0)
    timed(x)
    share = {name: s / n for name, (s, n) in saturation(timed).items()}
    assert share["0"] == 0
    assert 0 < share["1.fire"] < 0.1
    assert 0 < share["2.fire"] < 0.1
    windows = [f.window.item() for f in fires]
    with pytest.raises(ValueError, match="NaN"):
        calibrate(timed, x * torch.nan)
    with torch.no_grad():
        timed[1].weight[0, 0] = torch.inf
    with pytest.raises(ValueError, match=r"layer '1.fire' has NaN"):
        calibrate(timed, x)
    assert [f.window.item() for f in fires] == windows


def test_counts_what_leaves_the_range():
    encode = TTFSEncode(-1.0, 1.0)
    spikes = encode(torch.tensor([[-2.0, -1.0, 0.0, 1.0, 3.0]]))
    assert spikes.times.tolist() == [[1.0, 1.0, 0.5, 0.0, 0.0]]
    assert (int(encode.saturated), int(encode.seen)) == (2, 5)
    with pytest.raises(ValueError, match="NaN"):
        encode(torch.tensor([[torch.nan]]))
    with pytest.raises(TypeError, match="torch.int64"):
        encode(torch.zeros(1, 2, dtype=torch.int64))


def test_activity_and_penalty():
    relu, timed = mlp([8, 12, 6, 3])
    x = torch.rand(50, 8, dtype=DOUBLE)
    calibrate(timed, x)
    lines = activity(timed, [(x[:20],), (x[20:],)])
    hidden = relu[:2](x)
    assert [line.neurons for line in lines] == [8, 12, 6]
    assert lines[1].spikes_per_neuron == pytest.approx(float((hidden > 0).double().mean()))
    assert lines[1].never == pytest.approx(float((hidden <= 0).all(0).double().mean()))
    with ActivityPenalty(timed) as penalty:
        with pytest.raises(RuntimeError, match="before a forward pass"):
            penalty()
        timed(x)
        value = penalty()
        assert float(value) == pytest.approx(float((hidden.mean() + relu[:4](x).mean()) / 2))
        value.backward()
    assert timed[1].weight.grad.abs().sum() > 0
    assert not timed[1].fire._forward_hooks


def test_perturbations():
    _, timed = mlp([8, 12, 6, 3])
    x = torch.rand(40, 8, dtype=DOUBLE)
    calibrate(timed, x, margin=0.0)
    clean = timed(x)
    silent = timed[1](timed[0](x)).times >= timed[1].fire.window
    with perturb(timed, noise=0.05):
        noisy = timed[1](timed[0](x))
        assert not torch.equal(timed(x), clean)
    assert bool((noisy.times <= noisy.window).all() & (noisy.times >= 0).all())
    with perturb(timed, time_bits=3):
        spikes = timed[1](timed[0](x))
        levels = spikes.times / (spikes.window / 7)
        torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-9)
        assert bool((spikes.times[silent & (spikes.times > 0.9 * spikes.window)] == spikes.window).all())
        timed(x).sum().backward()  # straight through
        assert timed[1].weight.grad.abs().sum() > 0
    with perturb(timed, weight_bits=2):
        weight = timed[1].effective_weight()
        assert weight.unique().numel() <= 4
        assert float(weight.max()) == pytest.approx(float(timed[1].weight.abs().max()))
    saturation(timed, reset=True)
    with perturb(timed, shorten=0.5):
        timed(x)
    assert saturation(timed)["1.fire"][0] > 0
    assert torch.equal(timed(x), clean)
    for options, message in (
        ({"noise": -1.0}, "noise is -1.0"),
        ({"time_bits": 0}, "time_bits is 0"),
        ({"weight_bits": 2.5}, "weight_bits is 2.5"),
        ({"shorten": 0.0}, "shorten is 0.0"),
    ):
        with pytest.raises(ValueError, match=message), perturb(timed, **options):
            pass


def test_zero_potentials_get_no_gradient_like_relu():
    potential = torch.tensor([[0.0, -0.0, 1e-30, 2.0]], requires_grad=True)
    TTFSFire(1.0, adaptive=False)(potential).values.sum().backward()
    assert potential.grad.tolist() == [[0.0, 0.0, 1.0, 0.0]]


def test_copies_and_dtypes():
    _, timed = mlp([8, 12, 3])
    timed[1].fire.window.fill_(1 / 3)
    clone = copy.deepcopy(timed).float()
    assert clone[1].fire.window.item() == 1 / 3
    other = nn.Sequential(TTFSEncode(), TTFSLinear(8, 12), TTFSLinear(12, 3, fire=False))
    other.load_state_dict(clone.state_dict())
    x = torch.rand(4, 8)
    assert torch.equal(other.eval()(x), clone.eval()(x))
    torch._dynamo.reset()
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), clone(x))


def test_wrong_use():
    with pytest.raises(TypeError, match="TTFSLinear got a Tensor; it takes SpikeTimes"):
        TTFSLinear(3, 2)(torch.rand(1, 3))
    for build, message in (
        (lambda: TTFSLinear(3, 2, parametrization="b1"), "parametrization is 'b1'"),
        (lambda: TTFSLinear(3, 2, slope=0.0), "slope is 0.0"),
        (lambda: TTFSConv2d(3, 4, 3, groups=2), "groups is 2"),
        (lambda: TTFSFire(window=0.0), "window is 0.0"),
        (lambda: TTFSFire(margin=0.5), "margin is 0.5"),
        (lambda: TTFSEncode(1.0, 1.0), "input range is"),
        (lambda: calibrate(nn.Linear(2, 2), torch.rand(1, 2)), "no time-coded layer"),
        (lambda: calibrate(TTFSEncode(), []), "calibration is empty"),
        (lambda: calibrate(TTFSEncode(), torch.rand(2, 2), quantile=0.0), "quantile is 0.0"),
        (lambda: TTFSMaxPool(2)(TTFSEncode()(torch.rand(2, 2))), "pooling got times of shape"),
    ):
        with pytest.raises(ValueError, match=message):
            build()
    with pytest.raises(TypeError, match="calibration is int"):
        calibrate(TTFSEncode(), 3)
    assert TTFSDecode()(TTFSEncode()(torch.tensor([[0.5]]))).item() == 0.5
