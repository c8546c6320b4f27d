"""Conversion of ReLU networks: equality in value and gradient, the report, and what is refused."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from ttfs_networks import FAMILIES, ResNet, network

import snn_dendrite_plugin as sdp
from snn_dendrite_plugin.conversion.ttfs.relu import TTFSNetwork, convert_relu
from snn_dendrite_plugin.layers import TTFSConv2d, TTFSMaxPool, TTFSRelay, saturation

DOUBLE = torch.float64


def images(low=0.0, high=1.0, dtype=DOUBLE, n=32):
    return torch.rand(n, 1, 8, 8, dtype=dtype) * (high - low) + low


@pytest.mark.parametrize("name", list(FAMILIES))
@pytest.mark.parametrize("span", [(0.0, 1.0), (-0.5, 1.5)])
def test_equals_the_relu_network(name, span):
    relu, x = network(name), images(*span)
    timed = convert_relu(relu, calibration=x, input_range=span)
    assert float((timed(x) - relu(x)).detach().abs().max()) < 1e-10
    assert timed.report.agreement == 1.0
    assert timed.report.largest_difference < 1e-10
    assert timed.report.saturated == 0


@pytest.mark.parametrize("name", list(FAMILIES))
def test_float32(name):
    relu, x = network(name, torch.float32), images(dtype=torch.float32)
    report = convert_relu(relu, calibration=[(x[:16], None), (x[16:], None)]).report
    assert report.relative_difference < 1e-4
    assert report.agreement == 1.0
    assert report.inputs == 32


@pytest.mark.parametrize("name", ["mlp", "vgg", "resnet"])
def test_gradients_reach_the_inputs_and_weights(name):
    relu, x = network(name), images(n=8)
    timed = convert_relu(relu, calibration=x)
    y = torch.randint(10, (8,))
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    F.cross_entropy(relu(a), y).backward()
    F.cross_entropy(timed(b), y).backward()
    torch.testing.assert_close(b.grad, a.grad, rtol=0, atol=1e-10)
    if name == "resnet":  # nothing is folded into this one's readout
        torch.testing.assert_close(timed.graph_module.fc.weight.grad, relu.fc.weight.grad, rtol=0, atol=1e-10)
    assert all(p.grad is not None for p in timed.parameters())


@pytest.mark.parametrize("name", ["mlp", "vgg"])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_trajectories_stay_together(name, optimizer):
    torch.manual_seed(2)
    plain = {
        "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10)),
        "vgg": lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10),
        ),
    }[name]()  # fmt: skip
    relu = plain.to(DOUBLE).eval()
    timed = convert_relu(relu, calibration=images(), margin=9.0)
    for _, fire in timed.fires():
        fire.adaptive = True
    relu.train()
    timed.train()
    rate = 0.1 if optimizer is torch.optim.SGD else 0.003
    opts = [optimizer(net.parameters(), lr=rate) for net in (relu, timed)]
    start = copy.deepcopy(relu)
    for _ in range(200):
        x, y = images(n=8), torch.randint(10, (8,))
        for net, opt in zip((relu, timed), opts, strict=True):
            opt.zero_grad()
            F.cross_entropy(net(x), y).backward()
            opt.step()
    moved = max(float((p - q).detach().abs().max()) for p, q in zip(relu.parameters(), start.parameters(), strict=True))
    assert moved > 0.05
    for p, q in zip(relu.parameters(), timed.parameters(), strict=True):
        torch.testing.assert_close(q, p, rtol=0, atol=1e-9)


def test_what_the_twin_is_made_of():
    timed = convert_relu(network("vgg"), calibration=images())
    convs = [m for m in timed.modules() if isinstance(m, TTFSConv2d)]
    maps = [m for m in convs if m.bias is not None and m.bias.dim() == 3]
    assert len(maps) == 2  # those that follow a batch norm after the ReLU and pad with zeros
    pools = [m for m in timed.modules() if isinstance(m, TTFSMaxPool)]
    assert any(m.sign is not None and bool((m.sign > 0).any()) for m in pools)
    timed = convert_relu(network("resnet"), calibration=images())
    relays = [n for n, m in timed.graph_module.named_modules() if isinstance(m, TTFSRelay)]
    assert len(relays) == 2  # one window for each block's shortcut
    assert timed.windows == 6
    assert [timed.depths[name] for name in relays] == [2, 4]
    assert timed.latency == pytest.approx(
        1 + sum(max(f.window.item() for n, f in timed.fires() if timed.depths[n] == d) for d in range(1, 6))
    )


def test_relay_may_cross_several_windows_and_shortcuts_of_spikes_add():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x):
            h = F.relu(self.a(x))
            g = F.relu(self.b(h))
            g = F.relu(self.c(g) + x)  # the input, relayed twice
            return self.out(F.relu(g + h))  # two streams of spikes

    torch.manual_seed(0)
    relu, x = Deep().double().eval(), torch.rand(20, 6, dtype=DOUBLE) - 0.3
    timed = convert_relu(relu, calibration=x)
    assert timed.report.largest_difference < 1e-12
    depths = sorted(timed.depths[n] for n, m in timed.graph_module.named_modules() if isinstance(m, TTFSRelay))
    assert depths == [1, 2, 2, 3]
    clocked = timed.clock_driven(64)
    a = clocked.run(x)
    clocked.single_step = True
    assert torch.equal(clocked.run(x), a)


def test_report():
    relu, x = network("mlp"), images()
    timed = convert_relu(relu, calibration=x)
    report = timed.report
    hidden = relu[:3](x)
    line = report.layers[1]
    assert line.neurons == 32
    assert line.spikes_per_neuron == pytest.approx(float((hidden > 0).double().mean()))
    assert line.never == pytest.approx(float((hidden <= 0).all(0).double().mean()))
    assert line.window == pytest.approx(1.5 * float(hidden.detach().max()))
    text = str(report)
    assert "argmax agreement 1.0000" in text
    assert "spikes per neuron" in text
    assert report.windows == 3


def test_outside_the_calibrated_range_is_counted():
    relu, x = network("mlp"), images()
    timed = convert_relu(relu, calibration=x, margin=0.0)
    saturation(timed, reset=True)
    timed(x)
    assert not any(s for s, _ in saturation(timed).values())
    out = timed(x * 3)
    counts = saturation(timed)
    assert counts["graph_module.encode"][0] == int((x * 3 > x.max()).sum())
    assert bool(out.isfinite().all())
    with pytest.raises(ValueError, match="NaN"):
        timed(x * torch.nan)
    short = convert_relu(relu, calibration=x, margin=-0.7)
    assert short.report.saturated > 0
    assert short.report.largest_difference > 1e-3  # and the report says so


def test_image_size_is_checked_where_the_bias_is_a_map():
    timed = convert_relu(network("vgg"), calibration=images())
    with pytest.raises((ValueError, RuntimeError), match="converted for images|shapes cannot be multiplied"):
        timed(torch.rand(1, 1, 12, 12, dtype=DOUBLE))


def test_public_entry_points():
    relu, x = network("mlp"), images()
    timed = sdp.convert(relu, to="TTFS", calibration=x, margin=0.1)
    assert isinstance(timed, TTFSNetwork)
    assert sdp.convert(relu, to="TTFS", example_input=x).report.agreement == 1.0
    assert isinstance(convert_relu(relu, calibration=(b for b in x.split(8))), TTFSNetwork)
    times = timed.spike_times(x)
    assert times["encode"].times.shape == x.shape
    clone = pickle.loads(pickle.dumps(timed))
    assert torch.equal(clone(x), timed(x))
    assert torch.equal(copy.deepcopy(timed)(x), timed(x))


class Weird(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.fc, self.act = nn.Linear(64, 4), act

    def forward(self, x):
        return self.act(self.fc(x.flatten(1)))


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(64, 4)

    def forward(self, x):
        return self.fc(x.flatten(1)) if x.sum() > 0 else x


class Concatenates(Branches):
    def forward(self, x):
        x = x.flatten(1)
        return self.fc(torch.cat([x[:, :32], x[:, 32:]], 1))


class DropsAlways(Branches):
    def forward(self, x):
        return self.fc(F.dropout(x.flatten(1), 0.5))


class PreActivation(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.bn = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x):
        return F.relu(self.bn(self.a(x) + self.b(x)))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: Weird(nn.GELU()), r"module 'act' \(GELU\)"),
        (lambda: Weird(nn.LayerNorm(4)), r"module 'act' \(LayerNorm\)"),
        (lambda: Weird(nn.Linear(4, 4)), r"module 'act' \(Linear\).*no ReLU between"),
        (lambda: Weird(nn.Softmax(1)), r"module 'act' \(Softmax\)"),
        (Branches, "cannot be traced"),
        (Concatenates, "operation 'getitem|operation 'cat"),
        (DropsAlways, "drops values also in eval"),
        (PreActivation, r"module 'bn' \(BatchNorm2d\).*sum"),
        (lambda: nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect"), nn.ReLU()), "padding_mode is"),
        (lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.Flatten(), nn.ReLU()), "no ReLU follows"),
        (lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)), "running statistics"),
        (lambda: nn.Sequential(nn.Linear(8, 4), nn.ReLU()), "flatten it first"),
    ],
)
def test_refuses_what_it_cannot_map(model, message):
    with pytest.raises(ValueError, match=message):
        convert_relu(model().double().eval(), calibration=images())


def test_wrong_arguments():
    relu, x = network("mlp"), images()
    for arguments, message in (
        ({}, "calibration is None"),
        ({"calibration": []}, "calibration is empty"),
        ({"calibration": x * torch.nan}, "NaN"),
        ({"calibration": torch.zeros(3, 1, 8, 8)}, "constant"),
        ({"calibration": x, "input_range": (1.0, 0.0)}, "input range"),
        ({"calibration": x, "quantile": 2.0}, "quantile is 2.0"),
        ({"calibration": x, "margin": -1.0}, "margin is -1.0"),
        ({"calibration": x[:, :, :5]}, "does not run through the model"),
    ):
        with pytest.raises(ValueError, match=message):
            convert_relu(relu, **arguments)
    with pytest.raises(ValueError, match="module '3' is in training mode|it is in training mode"):
        convert_relu(network("mlp").train(), calibration=x)
    with pytest.raises(TypeError, match="model is function"):
        convert_relu(lambda x: x, calibration=x)
    with pytest.raises(ValueError, match="no parameters"):
        convert_relu(nn.ReLU().eval(), calibration=x)
    assert isinstance(ResNet(), nn.Module)
