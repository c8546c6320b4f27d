"""Time-coded networks on a clock: rounded ReLU networks, in both hosts and both step modes."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from ttfs_networks import FAMILIES, network

from snn_dendrite_plugin.conversion.ttfs.relu import convert_relu
from snn_dendrite_plugin.layers import (
    ClockedDecoder,
    ClockedEncoder,
    ClockedMaxPool,
    ClockedReadout,
    ClockedScale,
    SpikeTimes,
    TTFSEncode,
    TTFSFire,
    TTFSRelay,
)

DOUBLE = torch.float64


def images(n=12):
    return torch.rand(n, 1, 8, 8, dtype=DOUBLE)


class Round(torch.autograd.Function):
    """x in [0, R] to (m - 1/2) dt, straight through on (0, R]."""

    @staticmethod
    def forward(ctx, x, window, steps):
        ctx.save_for_backward(x)
        ctx.window = window
        m = torch.ceil(x * (steps / window)).clamp(0, steps)
        return torch.where(m > 0, (m - 0.5) * (window / steps), 0.0)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * ((x > 0) & (x <= ctx.window)), None, None


def rounded(timed, steps):
    """The time-coded network with every spike time rounded to its bin's centre: the rounded ReLU network."""
    timed = copy.deepcopy(timed)

    def hook(module, arguments, out):
        if isinstance(module, TTFSRelay):  # relays pass rounded values on unchanged
            return None
        values = out.values if isinstance(module, TTFSEncode) else arguments[0]
        return SpikeTimes(out.window - Round.apply(values, float(out.window), steps), out.window)

    for module in timed.modules():
        if isinstance(module, (TTFSEncode, TTFSFire)):
            module.register_forward_hook(hook)
    return timed


@pytest.mark.parametrize("name", list(FAMILIES))
@pytest.mark.parametrize("steps", [1, 5, 16])
def test_equals_the_rounded_relu_network_in_value_and_gradient(name, steps):
    x = images()
    timed = convert_relu(network(name), calibration=x, margin=-0.1)  # some neurons saturate
    clocked = timed.clock_driven(steps)
    wanted, found = rounded(timed, steps), clocked.run(x)
    reference = wanted(x)
    torch.testing.assert_close(found, reference, rtol=0, atol=1e-9)
    cotangent = torch.randn_like(found)
    (found * cotangent).sum().backward()
    (reference * cotangent).sum().backward()
    twins = dict(wanted.graph_module.named_parameters())
    weights = [(key.replace(".layer.weight", ".weight"), p) for key, p in clocked.net.named_parameters()]
    same = [(p, twins[key]) for key, p in weights if key in twins]
    assert len(same) >= 2
    for parameter, twin in same:  # times the weight: a stream with another window has its ratio in the weights
        torch.testing.assert_close(parameter.grad * parameter, twin.grad * twin, rtol=0, atol=1e-8)
    biases = [p.grad for key, p in clocked.net.named_parameters() if key.endswith("bias")]
    assert len(biases) == {"mlp": 3, "vgg": 5, "resnet": 6, "functional": 3, "allconv": 2}[name]  # one per firing layer
    assert all(g is not None for g in biases)


@pytest.mark.parametrize("name", list(FAMILIES))
@pytest.mark.parametrize("host", [None, "spikingjelly", "snntorch"])
def test_hosts_and_step_modes_give_the_same_output(name, host):
    x = images(6).float()
    timed = convert_relu(network(name, torch.float32), calibration=x)
    wanted = timed.clock_driven(4).run(x)
    clocked = timed.clock_driven(4, host)
    assert torch.equal(clocked.run(x), wanted)
    assert torch.equal(clocked.run(x), wanted)  # resets itself
    assert clocked.latency == 4 * timed.windows
    if host == "snntorch":
        assert clocked.single_step
        with pytest.raises(ValueError, match="single_step is False"):
            clocked.single_step = False
        return
    clocked.single_step = True
    assert torch.equal(clocked.run(x), wanted)
    clocked.single_step = False
    assert torch.equal(clocked.run(x), wanted)


def record_spikes(clocked, x):
    """Spikes of every neuron and pool, stacked over time."""
    kinds, trains = ("TTFS", "_Node", "MaxPool", "ClockedMaxPool"), {}

    def hook(name):
        def keep(module, arguments, out):
            trains.setdefault(name, []).append(out.detach())

        return keep

    handles = [m.register_forward_hook(hook(n)) for n, m in clocked.net.named_modules() if type(m).__name__ in kinds]
    clocked.run(x)
    for handle in handles:
        handle.remove()
    return trains


@pytest.mark.parametrize("host", ["spikingjelly", "snntorch"])
def test_same_spikes_one_window_later_per_layer_and_at_most_one(host):
    x, steps = images(6), 6
    timed = convert_relu(network("vgg"), calibration=x)
    whole = {k: v[0] for k, v in record_spikes(timed.clock_driven(steps), x).items()}
    clocked = timed.clock_driven(steps, host)
    if host == "spikingjelly":
        clocked.single_step = True
    by_step = record_spikes(clocked, x)
    assert set(by_step) == set(whole)
    depth = dict(timed.depths)
    last = 0
    for name, spikes in whole.items():
        last = depth.get(name, last)  # pools fire with the layer before them
        train = torch.stack(by_step[name])
        window = slice(last * steps, (last + 1) * steps)
        assert torch.equal(train[window], spikes)
        # windows before may hold spikes too: the bias alone fires neurons whose input has not come yet
        counts = spikes.sum(0)
        assert set(counts.unique().tolist()) <= {0.0, 1.0}
        assert counts.any()


def test_spikingjelly_resets_and_switches_it(caplog):
    from spikingjelly.activation_based import functional

    x = images(4)
    clocked = convert_relu(network("vgg"), calibration=x).clock_driven(4, "spikingjelly")
    wanted = clocked(x)
    functional.set_step_mode(clocked, "s")
    functional.reset_net(clocked)
    for _ in range(clocked.latency):
        out = clocked(x)
    assert torch.equal(out, wanted)
    functional.set_step_mode(clocked, "m")
    functional.reset_net(clocked)
    assert torch.equal(clocked(x), wanted)
    assert not caplog.records
    clone = pickle.loads(pickle.dumps(clocked))
    assert torch.equal(clone(x), wanted)
    clocked.reset()
    assert torch.equal(copy.deepcopy(clocked)(x), wanted)


@pytest.mark.parametrize("host", [None, "spikingjelly", "snntorch"])
def test_single_step_gradients_equal_multi_step(host):
    x = images(4)
    timed = convert_relu(network("vgg"), calibration=x)
    reference = timed.clock_driven(3)
    cotangent = torch.randn(4, 10, dtype=DOUBLE)
    (reference.run(x) * cotangent).sum().backward()
    clocked = timed.clock_driven(3, host)
    if host != "snntorch":
        clocked.single_step = True
    (clocked.run(x) * cotangent).sum().backward()
    for p, q in zip(reference.parameters(), clocked.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad, rtol=0, atol=1e-10)


def test_error_halves_as_the_steps_double():
    x = images(64)
    relu = network("mlp")
    timed = convert_relu(relu, calibration=x, margin=0.0)
    wanted = relu(x)
    with torch.no_grad():
        errors = [float((timed.clock_driven(t).run(x) - wanted).norm() / wanted.norm()) for t in (16, 32, 64, 128, 256)]
    ratios = [a / b for a, b in zip(errors, errors[1:], strict=False)]
    assert all(1.5 < r < 2.7 for r in ratios), ratios
    assert 1.8 < (errors[0] / errors[-1]) ** 0.25 < 2.2


def test_encoder_and_decoder():
    x = torch.tensor([[0.0, 1e-9, 0.25, 0.26, 1.0, 2.0, -1.0]])
    encoder = ClockedEncoder(4)
    spikes = encoder(x)
    bins = [None if not s.any() else int(s.argmax()) for s in spikes[:, 0].T]
    assert bins == [None, 3, 3, 2, 0, 0, None]
    assert (int(encoder.saturated), int(encoder.seen)) == (2, 7)
    values = ClockedDecoder(4)(spikes)
    torch.testing.assert_close(values, torch.tensor([[0.0, 0.125, 0.125, 0.375, 0.875, 0.875, 0.0]]))
    stepwise = ClockedEncoder(4, step_mode="s")
    assert torch.equal(torch.stack([stepwise(x) for _ in range(4)]), spikes)
    assert not stepwise(x).any()  # silent until reset
    stepwise.reset()
    assert torch.equal(stepwise(x), spikes[0])
    pipelined = ClockedEncoder(2, step_mode="s", repeat=True)
    a, b = torch.tensor([[0.9]]), torch.tensor([[0.2]])
    assert [float(pipelined(i)) for i in (a, a, b, b, a)] == [1, 0, 0, 1, 1]
    with pytest.raises(ValueError, match="NaN"):
        encoder(x * torch.nan)
    with pytest.raises(ValueError, match="step_mode is 'x'"):
        encoder.step_mode = "x"


def test_readout_over_windows_and_steps():
    x = (torch.rand(8, 2, 3) < 0.3).float()
    readout = ClockedReadout(4, window=2.0, bias=torch.tensor([1.0, 2.0, 3.0]))
    whole = readout(x)
    assert whole.shape == (2, 2, 3)
    weights = torch.tensor([3.5, 2.5, 1.5, 0.5]).reshape(4, 1, 1) * 0.5
    torch.testing.assert_close(whole[1], (x[4:] * weights).sum(0) + torch.tensor([1.0, 2.0, 3.0]))
    readout.step_mode = "s"
    steps = torch.stack([readout(x_t) for x_t in x])
    assert not steps[:3].any()
    assert torch.equal(steps[3], whole[0])
    assert torch.equal(steps[6], whole[0])
    assert torch.equal(steps[7], whole[1])
    assert ClockedReadout(4, window=1 / 3).half().window.item() == 1 / 3
    with pytest.raises(ValueError, match="whole windows of steps=4"):
        ClockedReadout(4)(x[:6])
    with pytest.raises(ValueError, match="window is 0"):
        ClockedReadout(4, window=0)


@pytest.mark.parametrize("options", [{"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1}])
@pytest.mark.parametrize("latest", [None, torch.tensor([False, True, True])])
def test_max_pool_of_spikes(options, latest):
    steps = 5
    x = torch.rand(4, 3, 7, 6, dtype=DOUBLE) - 0.2
    spikes = ClockedEncoder(steps)(x).requires_grad_()
    pool = ClockedMaxPool(steps, **options, latest=latest)
    out = pool(spikes)
    decode = ClockedDecoder(steps)
    values = decode(spikes.detach())
    sign = torch.ones(3, 1, 1, dtype=DOUBLE)
    if latest is not None:
        sign[latest] = -1
    wanted = F.max_pool2d(values * sign, **options) * sign
    torch.testing.assert_close(decode(out), wanted, rtol=0, atol=1e-12)
    assert float(out.detach().sum(0).max()) == 1
    cotangent = torch.randn_like(out)
    (whole,) = torch.autograd.grad((out * cotangent).sum(), spikes)
    pool.step_mode = "s"
    by_step = torch.stack([pool(s) for s in spikes])
    assert torch.equal(by_step, out)
    (found,) = torch.autograd.grad((by_step * cotangent).sum(), spikes)
    assert torch.equal(found, whole)


def test_pooling_every_step_would_break_the_rule():
    """The reason for a pool of its own."""
    spikes = ClockedEncoder(8)(torch.rand(4, 1, 8, 8))
    naive = torch.stack([F.max_pool2d(s, 2) for s in spikes]).sum(0)
    assert float(naive.max()) > 1
    assert float(ClockedMaxPool(8, 2)(spikes).sum(0).max()) == 1


def test_pool_needs_the_whole_window_for_backward():
    pool = ClockedMaxPool(4, 2, step_mode="s")
    x = torch.ones(1, 1, 2, 2, requires_grad=True)
    with pytest.raises(RuntimeError, match="needs a whole window"):
        pool(x).sum().backward()


def test_fine_tuning_improves_a_short_window():
    torch.manual_seed(0)
    x = torch.rand(64, 1, 8, 8, dtype=DOUBLE)
    y = (x.flatten(1) @ torch.randn(64, 4, dtype=DOUBLE)).argmax(1)
    timed = convert_relu(network("mlp"), calibration=x)
    clocked = timed.clock_driven(4, "spikingjelly").train()
    optimizer = torch.optim.Adam(clocked.parameters(), lr=1e-2)
    losses = []
    for _ in range(80):
        loss = F.cross_entropy(clocked(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_wrong_use():
    timed = convert_relu(network("mlp"), calibration=images())
    with pytest.raises(ValueError, match="steps is 0"):
        timed.clock_driven(0)
    with pytest.raises(ValueError, match="host is 'brian'"):
        timed.clock_driven(4, "brian")
    pooled = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.MaxPool2d(3), nn.Flatten(), nn.Linear(4, 2)
    )
    averaged = convert_relu(pooled.double().eval(), calibration=images())
    with pytest.raises(ValueError, match="'_?3' .max pooling. on a clock"):
        averaged.clock_driven(4)
    with pytest.raises(ValueError, match="pooling got spikes of step shape"):
        ClockedMaxPool(2, 2)(torch.zeros(2, 3, 4))
    scale = ClockedScale(2, torch.tensor([2.0]), step_mode="s")
    assert scale(torch.ones(1, 1, 3)).tolist() == [[[2.0, 2.0, 2.0]]]
