"""Wirings that rewrite layers: what is found by following the data, what stays the same, and what falls back."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from toy_host import Point, ToyAdapter, plugin

import snn_dendrite_plugin as sdp
from snn_dendrite_plugin import plugins
from snn_dendrite_plugin.layers.branched import (
    BranchedBatchNorm,
    PartitionedConv,
    PartitionedLinear,
    expanded,
    partitioned,
)


@pytest.fixture(autouse=True)
def host():
    registered = plugin(ToyAdapter())
    plugins.register_plugin(registered, "toy")
    yield
    plugins.unregister_plugin(registered)
    del sys.modules["toy_neurons"]


def summed(y, branches, axis):
    return y.unflatten(axis, (-1, branches)).sum(axis + 1 if axis >= 0 else axis)


LAYERS = [
    (lambda: nn.Linear(12, 5), (3, 2, 12), -1),
    (lambda: nn.Linear(12, 5, bias=False), (12,), -1),
    (lambda: nn.Conv1d(8, 6, 3, padding=1), (2, 8, 7), 1),
    (lambda: nn.Conv2d(8, 6, 3, stride=2, padding=2, dilation=2, groups=2), (2, 8, 9, 7), 1),
    (lambda: nn.Conv2d(8, 6, 3, padding="same", padding_mode="reflect"), (2, 8, 5, 5), 1),
    (lambda: nn.Conv2d(8, 6, 3, padding=1, padding_mode="circular", bias=False), (2, 8, 5, 5), 1),
    (lambda: nn.Conv3d(4, 2, 2), (2, 4, 3, 3, 3), 1),
]


@pytest.mark.parametrize(("make", "shape", "axis"), LAYERS)
@pytest.mark.parametrize("rewrite", [partitioned, expanded])
def test_branches_sum_to_the_layer(make, shape, axis, rewrite):
    torch.manual_seed(0)
    layer, x = make().double(), torch.randn(shape, dtype=torch.float64)
    new = rewrite(layer, 4)
    torch.testing.assert_close(summed(new(x), 4, axis), layer(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("make", "shape", "axis"), LAYERS)
def test_branch_sees_its_group_alone(make, shape, axis):
    torch.manual_seed(0)
    layer = make().double()
    new = partitioned(layer, 4)
    assert new.weight is layer.weight
    groups = getattr(layer, "groups", 1)
    channels = shape[axis] // groups // 4
    x = torch.randn(shape, dtype=torch.float64)
    silent = new(torch.zeros_like(x))
    only = torch.zeros_like(x).unflatten(axis, (groups, 4, channels))
    where = (slice(None),) * (axis if axis >= 0 else only.dim() - 3) + (slice(None), 2)
    only[where] = x.unflatten(axis, (groups, 4, channels))[where]
    change = (new(only.reshape(shape)) - silent).unflatten(axis, (-1, 4)).movedim(axis + 1 if axis >= 0 else axis, 0)
    assert change[2].abs().max() > 0.01
    assert change[[0, 1, 3]].abs().max() == 0


@pytest.mark.parametrize(("make", "shape", "axis"), LAYERS)
def test_partition_has_the_same_multiply_adds(make, shape, axis):
    def count(module):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module(torch.rand(shape))
        return counter.get_total_flops()

    layer = make()
    assert count(partitioned(layer, 4)) == count(layer) > 0


@pytest.mark.parametrize("make", [lambda: nn.Linear(8, 4), lambda: nn.Conv1d(8, 4, 1)])
def test_autocast_as_the_layer_itself(make):
    layer, x = make(), torch.rand(3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert partitioned(layer, 2)(x).dtype == layer(x).dtype == torch.bfloat16


@pytest.mark.parametrize("training", [True, False])
def test_rewritten_layers_compile_without_breaks(training):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8)).double().train(training)
    split = nn.Sequential(partitioned(model[0], 4), BranchedBatchNorm(model[1], 4))
    x = torch.rand(2, 4, 6, 6, dtype=torch.float64)
    expected = copy.deepcopy(split)(x)
    torch.testing.assert_close(torch.compile(split, backend="aot_eager", fullgraph=True)(x), expected)


def test_partition_takes_sequences_and_needs_even_groups():
    conv = nn.Conv2d(4, 2, 3)
    x = torch.rand(3, 2, 4, 5, 5)
    torch.testing.assert_close(PartitionedConv(conv, 2)(x)[1], PartitionedConv(conv, 2)(x[1]))
    with pytest.raises(ValueError, match="3 input features cannot be split evenly over 2 branches"):
        PartitionedLinear(nn.Linear(3, 3), 2)
    with pytest.raises(ValueError, match="1 input channels per output cannot be split"):
        PartitionedConv(nn.Conv2d(4, 4, 3, groups=4), 2)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}])
@pytest.mark.parametrize(("kind", "shape", "axis"), [
    (nn.BatchNorm1d, (5, 12), 1), (nn.BatchNorm1d, (5, 12, 3), 1), (nn.BatchNorm2d, (5, 12, 3, 2), 1),
    (nn.BatchNorm3d, (2, 12, 3, 2, 2), 1),
])  # fmt: skip
def test_batch_norm_of_branches(kind, shape, axis, options, training):
    torch.manual_seed(0)
    norm = kind(3, **options).double().train(training)
    for tensor in (*norm.parameters(), *norm.buffers()):
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 2)
    theirs, ours = copy.deepcopy(norm), BranchedBatchNorm(copy.deepcopy(norm), 4)
    for _ in range(2):
        x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
        ours(x).pow(2).sum()  # runs the branches' own part too
        y, expected = summed(ours(x), 4, axis), None
        for _ in range(2):
            expected = theirs(summed(x, 4, axis))
        torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
        ours_grad = torch.autograd.grad(y.pow(3).sum(), x)[0]
        torch.testing.assert_close(ours_grad, torch.autograd.grad(expected.pow(3).sum(), x)[0], rtol=1e-9, atol=1e-9)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    if not training:
        sequence = BranchedBatchNorm(theirs, 4, sequence=True)  # planned for [T, N, C * B], then used step by step
        torch.testing.assert_close(sequence(x), BranchedBatchNorm(theirs, 4)(x))
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value)


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
    (summed(split(x), 4, 1) * weights).sum().backward()
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
