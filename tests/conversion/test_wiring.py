"""Wirings that rewrite layers: what is found by following the data, what stays the same, and what falls back."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from toy_host import Point, ToyAdapter, plugin

import snn_dendrite_plugin as sdp
from snn_dendrite_plugin import plugins


@pytest.fixture(autouse=True)
def host():
    registered = plugin(ToyAdapter())
    plugins.register_plugin(registered, "toy")
    yield
    plugins.unregister_plugin(registered)
    del sys.modules["toy_neurons"]


class Sequence(nn.Module):
    """Runs a layer on [T, N, *] step by step at once."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class Net(nn.Module):
    """Private layers, batch norm, pooling, a residual sum, a shared layer, a permuted path."""

    def __init__(self):
        super().__init__()
        self.conv1 = Sequence(nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.point1 = Point()
        self.conv2 = Sequence(nn.Conv2d(8, 8, 3, padding=1), nn.AvgPool2d(2), nn.BatchNorm2d(8), nn.Dropout(0.3))
        self.point2 = Point(threshold=0.3)
        self.conv3 = nn.Conv2d(8, 8, 1)
        self.norm3 = nn.BatchNorm2d(8)
        self.point3 = Point(threshold=0.3)
        self.conv4 = Sequence(nn.Conv2d(8, 8, 3, padding=1), nn.MaxPool2d(2))
        self.point4 = Point(threshold=0.1)
        self.fc = nn.Linear(8, 12)
        self.point5 = Point(threshold=0.1)
        self.read = nn.Linear(12, 4, bias=False)
        self.point6 = Point(threshold=0.05)

    def forward(self, x):
        s = self.point2(self.conv2(self.point1(self.conv1(x))))
        y = self.norm3(self.conv3(s.flatten(0, 1))).unflatten(0, s.shape[:2])
        s = self.point3(y + s)
        s = self.point4(self.conv4(s)).flatten(2)
        return self.point6(self.read(self.point5(self.fc(s))))


def net(seed=0):
    torch.manual_seed(seed)
    model = Net().double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 1, 2)
            nn.init.uniform_(module.bias, -0.2, 0.5)
    return model


def drive(seed=1):
    return 2 * torch.rand(4, 3, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def run(model, x):
    for module in model.modules():
        if hasattr(module, "memory"):
            module.memory = None
    return model(x)


REASONS = {
    "partition": {
        "point1": "conv1.layers.0 (Conv2d): 2 input channels per output cannot be split evenly over 4 branches",
        "point3": "its input is a sum",
        "point4": "conv4.layers.1 (MaxPool2d) lies between: a maximum of sums is no sum of maxima",
    },
    "expand": {"point3": "its input is a sum"},
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("wiring", ["partition", "expand"])
def test_function_is_kept(wiring, training):
    model = net().train(training)
    model.conv2.layers[3].eval()
    point = copy.deepcopy(model)
    expected = run(point, drive())
    assert 0.02 < expected.mean() < 0.98
    x = drive()
    dry = sdp.convert(model, wiring=wiring, branches=4, example_input=x, dry_run=True)
    sdp.convert(model, wiring=wiring, branches=4, example_input=x)
    report = sdp.report(model)
    shared = {line.name: line.notes[0].removeprefix("shared: ") for line in report.converted if line.wiring == "shared"}
    assert shared == REASONS[wiring]
    assert {line.layer for line in report.converted if line.wiring == wiring} >= {"conv2.layers.0", "fc", "read"}
    assert report.flips == 0
    assert dry.parameters_after == report.parameters_after == sum(p.numel() for p in model.parameters())
    assert torch.equal(run(model, x), expected)
    own = sum(line.parameters_after for line in report.converted)
    if wiring == "partition":
        assert report.parameters_after == report.parameters_before + own
        assert dict(model.named_parameters()).keys() >= dict(point.named_parameters()).keys()
    else:
        assert report.parameters_after > report.parameters_before + own


def test_partition_gradients_are_those_of_the_point_network():
    class Smooth(nn.Module):
        """Gradients need a path through the spikes: take the layer's output instead."""

        def __init__(self, model):
            super().__init__()
            self.conv, self.norm = model.conv2.layers[0], model.conv2.layers[2]

        def forward(self, x):
            return self.norm(self.conv(x))

    model = net()
    point = Smooth(copy.deepcopy(model))
    sdp.convert(model, wiring="partition", branches=4, example_input=drive())
    split = Smooth(model)
    x = torch.randn(3, 8, 4, 4, dtype=torch.float64)
    weights = torch.randn(3, 8, 4, 4, dtype=torch.float64)
    (point(x) * weights).sum().backward()
    (split(x).unflatten(1, (-1, 4)).sum(2) * weights).sum().backward()
    for ours, theirs in zip(split.parameters(), point.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("wiring", ["partition", "expand"])
def test_branches_become_different(wiring):
    """Expanded branches start from equal weights: their time constants alone must set them apart."""

    class Gate(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return (x >= 0).to(x.dtype)

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    model = nn.Sequential(nn.Linear(8, 6, dtype=torch.float64), Point())
    x = torch.rand(5, 3, 8, dtype=torch.float64)
    sdp.convert(model, wiring=wiring, branches=4, example_input=x)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(3):
        model[1].memory = None
        optimizer.zero_grad()
        (run(model, x).mean() - 0.5).pow(2).backward()
        optimizer.step()
    strength = model[1].model.strength.detach().flatten()
    assert (strength[:, None] - strength[None]).abs().add(torch.eye(4)).min() > 1e-6


@pytest.mark.parametrize("wiring", ["partition", "expand"])
def test_revert_and_weights(wiring):
    model, x = net(), drive()
    point = copy.deepcopy(model)
    expected = run(point.eval(), x)
    layer, norm = model.conv2.layers[0], model.conv2.layers[2]
    sdp.convert(model, wiring=wiring, branches=4, example_input=x)
    assert model.conv2.layers[0] is not layer
    other = net(seed=5)
    model.load_state_dict(other.state_dict())  # weights of a point network, strictly
    assert torch.equal(run(model.eval(), x), run(other.eval(), x))
    again = sdp.convert(net(), wiring=wiring, branches=4, example_input=x)
    again.load_state_dict(model.state_dict())
    assert torch.equal(run(again.eval(), x), run(model, x))
    model.load_state_dict(point.state_dict())
    assert sdp.revert(model) is model
    assert model.conv2.layers[0] is layer
    assert model.conv2.layers[2] is norm
    assert torch.equal(run(model.eval(), x), expected)


def test_partition_trains_the_same_weights():
    model = nn.Sequential(nn.Linear(8, 6), Point())
    weight = model[0].weight
    sdp.convert(model, wiring="partition", branches=2, example_input=torch.rand(2, 3, 8))
    assert model[0].weight is weight
    with torch.no_grad():
        model[0].weight.mul_(2)
    copied = copy.deepcopy(model).double()
    assert torch.equal(sdp.revert(copied)[0].weight, weight.double())
    assert sdp.revert(model)[0].weight is weight


class Twice(nn.Module):
    """Layers whose output goes elsewhere too."""

    def __init__(self, case):
        super().__init__()
        self.case = case
        self.layer, self.norm, self.other = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 8)
        self.a, self.b = Point(), Point()

    def forward(self, x):
        y = self.layer(x)
        if self.case == "added":
            return self.a(y) + y
        if self.case == "output":
            return self.a(y), y
        if self.case == "two neurons":
            return self.a(y) + self.b(y)
        if self.case == "relu":
            return self.a(F.relu(y))
        if self.case == "half":
            return self.a(y[..., :4])
        if self.case == "turned":
            return self.a(y.transpose(1, 2))
        if self.case == "reordered":
            return self.a(y.unflatten(-1, (2, 4)).transpose(-1, -2).flatten(-2))
        if self.case == "called twice":
            return self.a(self.layer(self.b(y)))
        if self.case == "one neuron, two layers":
            return self.a(self.other(self.a(y)))
        if self.case == "shared norm":
            return self.a(self.norm(y.flatten(0, 1)).unflatten(0, y.shape[:2])) + self.norm(x.flatten(0, 1)).unflatten(
                0, y.shape[:2]
            )
        if self.case == "in place":
            y[..., :2].mul_(2)
            return self.a(y)
        if self.case == "no layer":
            return self.a(x)
        return self.a(y) + self.other(y)


@pytest.mark.parametrize(("case", "reason"), [
    ("added", "the output of layer also goes into a sum"),
    ("output", "the output of layer also goes into the model's output"),
    ("two neurons", "its layer layer feeds several neurons: a, b"),
    ("relu", "its input is the result of `relu`"),
    ("half", "do not arrive whole and in order"),
    ("turned", "do not arrive whole and in order"),
    ("reordered", "do not arrive whole and in order"),
    ("called twice", "its layer layer feeds several neurons: a, b"),
    ("one neuron, two layers", "several layers feed it: layer, other"),
    ("shared norm", "norm (BatchNorm1d) also works for other layers"),
    ("in place", "the output of layer also goes into a product"),
    ("no layer", "its input does not come from a layer"),
    ("layer", "the output of layer also goes into the layer other"),
])  # fmt: skip
def test_falls_back_with_the_reason(case, reason):
    torch.manual_seed(0)
    model = Twice(case).double().eval()
    x = 3 * torch.rand(5, 8, 8, dtype=torch.float64)
    expected = run(model, x)
    sdp.convert(model, wiring="partition", branches=2, example_input=x)
    line = sdp.report(model).converted[0]
    assert line.wiring == "shared"
    assert reason in line.notes[0]
    assert isinstance(model.layer, nn.Linear)
    got = run(model, x)
    if case == "output":
        got, expected = torch.cat(got), torch.cat(expected)
    assert torch.equal(got, expected)


def test_layers_that_are_more_than_their_name():
    model = nn.Sequential(nn.Linear(8, 8), Point(), nn.Linear(8, 8), Point())
    model[0].register_forward_hook(lambda *_: None)
    nn.utils.parametrizations.weight_norm(model[2])
    x = torch.rand(3, 2, 8)
    sdp.convert(model, wiring="partition", branches=2, example_input=x)
    reasons = [line.notes[0] for line in sdp.report(model).converted]
    assert reasons == [
        "shared: 0 (Linear) has hooks, which a rewritten layer would lose",
        "shared: its layer 2 is a ParametrizedLinear, which cannot be split",
    ]
