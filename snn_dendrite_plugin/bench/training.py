"""``snn-dendrite bench --preset training``: what a training step of a converted network costs."""

from __future__ import annotations

import copy
import math
import statistics

import torch
from torch import nn
from torch.nn import functional as functional_nn

from ..conversion import convert
from .measure import Case, Result, time_of

__all__ = ["training_step"]


def training_step(device: torch.device, rounds: int, shape: tuple[int, ...] = (4, 8, 3, 64, 64)) -> list[Result]:
    """Training steps of SpikingJelly's SEW-ResNet-18 with point neurons and of its conversions, in turn.

    One step: reset, forward, cross entropy, backward, SGD. ``ratio`` is to the point network's median; bandwidth and
    memory are not measured.

    Args:
        shape: of the input, ``[T, N, 3, H, W]``.

    Raises:
        ImportError: SpikingJelly is not installed.
    """
    from spikingjelly.activation_based import functional, neuron, surrogate
    from spikingjelly.activation_based.model import sew_resnet

    def lif(**_: object) -> nn.Module:
        return neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan(), detach_reset=True, step_mode="m")

    torch.manual_seed(0)
    case = Case("SEW-ResNet-18", shape)
    x = torch.rand(case.shape, device=device)
    labels = torch.arange(case.shape[1], device=device) % 10
    point = sew_resnet.sew_resnet18(num_classes=10, cnf="ADD", spiking_neuron=lif)
    functional.set_step_mode(point, "m")
    point.to(device)
    nets = {"point network (LIFNode)": point}
    for label, arguments in (
        ("DendSN shared, 4 branches", {"to": "DendSN", "branches": 4}),
        ("DendSN partition, 4 branches", {"to": "DendSN", "branches": 4, "wiring": "partition", "example_input": x}),
        ("LNM", {"to": "LNM"}),
    ):
        functional.reset_net(point)
        nets[label] = convert(copy.deepcopy(point), **arguments)

    def step(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        functional.reset_net(net)
        optimizer.zero_grad()
        functional_nn.cross_entropy(net(x).mean(0), labels).backward()
        optimizer.step()

    pairs = {label: (net.train(), torch.optim.SGD(net.parameters(), lr=1e-3)) for label, net in nets.items()}
    times: dict[str, list[float]] = {label: [] for label in pairs}
    for i in range(rounds + 2):
        for label, pair in pairs.items():
            elapsed = time_of(lambda pair=pair: step(*pair), device)
            if i >= 2:
                times[label].append(elapsed)
    base = statistics.median(times["point network (LIFNode)"])
    results = []
    for label, values in times.items():
        low, _, _, high = statistics.quantiles(values, n=5, method="inclusive")
        median = statistics.median(values)
        results.append(Result(case, label, "training step", low, median, high, median / base, math.nan, math.nan))
    return results
