"""Layers with a channel per branch: what their branches see, and that they sum to the layer they came from."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from snn_dendrite_plugin.layers.branched import (
    BranchedBatchNorm,
    PartitionedConv,
    PartitionedLinear,
    expanded,
    partitioned,
)


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
