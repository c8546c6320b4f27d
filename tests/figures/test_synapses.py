"""Synaptic operations against counting one synapse at a time."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from snn_dendrite_plugin.figures import synapses


class Counting(TorchDispatchMode):
    """Counts every product with weights, as it is dispatched."""

    def __init__(self):
        super().__init__()
        self.accumulates = self.multiplies = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = synapses.count(func, args, kwargs or {})
        if found is not None:
            self.accumulates += found[0]
            self.multiplies += found[1]
        return func(*args, **(kwargs or {}))


def counted(function, *inputs):
    mode = Counting()
    with torch.no_grad(), mode:
        function(*inputs)
    return mode.accumulates, mode.multiplies


def brute_force(layer, x):
    """Spikes, or inputs, that reach an output through a weight: one input alone at a time, weights all 1."""
    spikes = bool(((x == 0) | (x.abs() == 1)).all())
    plain = type(layer)(
        layer.in_channels, layer.out_channels, layer.kernel_size, stride=layer.stride, padding=layer.padding,
        dilation=layer.dilation, groups=layer.groups, bias=False,
    ).double()  # fmt: skip
    nn.init.ones_(plain.weight)
    reached = 0
    for index in itertools.product(*map(range, x.shape)):
        if not spikes or x[index] != 0:
            alone = torch.zeros_like(x, dtype=torch.float64)
            alone[index] = 1
            reached += int(plain(alone).sum())
    return reached


CONVOLUTIONS = [
    (nn.Conv1d, (2, 4, 7), {"kernel_size": 3}),
    (nn.Conv1d, (2, 4, 7), {"kernel_size": 3, "padding": 1, "stride": 2}),
    (nn.Conv2d, (1, 2, 5, 6), {"kernel_size": 3}),
    (nn.Conv2d, (2, 2, 5, 6), {"kernel_size": 3, "padding": 1}),
    (nn.Conv2d, (1, 4, 5, 5), {"kernel_size": 3, "padding": 2, "stride": 2, "groups": 2}),
    (nn.Conv2d, (1, 4, 5, 5), {"kernel_size": (3, 2), "padding": (1, 0), "dilation": 2, "groups": 4}),
    (nn.Conv3d, (1, 2, 3, 3, 3), {"kernel_size": 2, "padding": 1}),
    (nn.ConvTranspose2d, (1, 4, 3, 3), {"kernel_size": 3, "stride": 2, "padding": 1, "groups": 2}),
]


@pytest.mark.parametrize(("cls", "shape", "options"), CONVOLUTIONS)
@pytest.mark.parametrize("spikes", [True, False])
def test_convolutions_by_brute_force(cls, shape, options, spikes):
    layer = cls(shape[1], 8, **options)
    x = (torch.rand(shape) < 0.4).float() if spikes else torch.rand(shape) + 0.1
    found = counted(layer, x)
    assert found == ((brute_force(layer, x), 0) if spikes else (0, brute_force(layer, x)))
    assert sum(found) > 0


def test_a_spike_in_the_corner_reaches_fewer():
    layer = nn.Conv2d(1, 3, 3, padding=1)
    corner, inside = torch.zeros(2, 1, 1, 5, 5).unbind()
    corner[..., 0, 0] = 1
    inside[..., 2, 2] = 1
    assert counted(layer, corner) == (4 * 3, 0)
    assert counted(layer, inside) == (9 * 3, 0)


@pytest.mark.parametrize("shape", [(6,), (2, 6), (3, 2, 6), (4, 3, 2, 6)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(shape, bias):
    layer = nn.Linear(6, 5, bias=bias)
    x = (torch.rand(shape) < 0.5).float()
    assert counted(layer, x) == (5 * int(x.sum()), 0)
    assert counted(layer, x + 0.5) == (0, 5 * x.numel())
    assert counted(layer, -x) == (5 * int(x.sum()), 0)  # inhibitory spikes are spikes


def test_products_of_spikes():
    q, k = ((torch.rand(2, 3, 4) < 0.5).float() for _ in range(2))
    pairs = sum(int(q[b, i, c] * k[b, j, c]) for b in range(2) for i in range(3) for j in range(3) for c in range(4))
    assert counted(lambda: q @ k.transpose(1, 2)) == (pairs, 0)
    assert counted(lambda: torch.rand(2, 3, 4) @ k.transpose(1, 2)) == (3 * int(k.sum()), 0)


def test_other_operators_are_none():
    assert synapses.count(torch.ops.aten.add.Tensor, (torch.ones(2), torch.ones(2)), {}) is None
