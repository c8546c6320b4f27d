"""A host framework made up for the tests, with an adapter as a stranger would write one."""

from __future__ import annotations

import math
import sys
import types

import torch
from torch import nn

from snn_dendrite_plugin import Firing, hookimpl
from snn_dendrite_plugin.adapters.base import HostAdapter, accepts, split_arguments, states_for


class Point(nn.Module):
    """Leaky integrate-and-fire over a sequence [T, N, C, *]."""

    def __init__(self, decay=0.5, threshold=1.0):
        super().__init__()
        self.decay, self.threshold = decay, threshold
        self.memory = None

    def forward(self, x_seq):
        u = torch.zeros_like(x_seq[0]) if self.memory is None else self.memory
        spikes = []
        for x in x_seq:
            h = self.decay * u + x
            s = (h >= self.threshold).to(h.dtype)
            u = h - s * self.threshold
            spikes.append(s)
        self.memory = u
        return torch.stack(spikes)


class LearnedPoint(Point):
    """Its decay is a parameter, stored as a logit."""

    def __init__(self, decay=0.5, threshold=1.0):
        super().__init__(decay, threshold)
        del self.decay
        self.w = nn.Parameter(torch.tensor(math.log(decay / (1 - decay))))

    @property
    def decay(self):
        return torch.sigmoid(self.w)

    @decay.setter
    def decay(self, value):
        self.__dict__["_start"] = value

    @decay.deleter
    def decay(self):
        pass


class Odd(Point):
    """A neuron that the adapter declines."""


class Block(nn.Module):
    """Neurons in a list and a dict, one of them shared."""

    def __init__(self):
        super().__init__()
        shared = Point(threshold=0.8)
        self.layers = nn.ModuleList([nn.Linear(6, 6), shared, nn.Linear(6, 6), Point(decay=0.7)])
        self.heads = nn.ModuleDict({"a": shared, "b": Odd(threshold=0.5)})

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.heads["b"](self.heads["a"](x))


def network(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), Block(), nn.Linear(6, 4), nn.Dropout(0.5), Point(threshold=0.2)).to(dtype)


def run(model, x):
    for module in model.modules():
        if hasattr(module, "memory"):
            module.memory = None
    return model(x)


def drive(dtype=torch.float64, seed=1):
    return 6 * torch.randn(7, 3, 5, dtype=dtype, generator=torch.Generator().manual_seed(seed))


class ToyNode(nn.Module):
    """A registered model as a node of this host."""

    model_class: type

    def __init__(self, decay=0.5, threshold=1.0, **arguments):
        super().__init__()
        split_arguments(self.model_class, arguments, ("decay", "threshold"), type(self).__name__)
        if accepts(self.model_class, "beta"):
            arguments["beta"] = decay
        if accepts(self.model_class, "decay_input"):
            arguments.setdefault("decay_input", False)
        self.decay, self.threshold = decay, threshold
        self.model = self.model_class(**arguments)
        self.memory = None

    def forward(self, x_seq):
        firing = Firing(threshold=self.threshold, reset="soft")
        held = self.memory or [None] * len(self.model.state_names(firing))
        states = states_for(self.model, x_seq[0], held, lambda: firing)
        spikes, self.memory = self.model.sequence(x_seq, states, firing)
        return spikes


class ToyAdapter(HostAdapter):
    host = "toy"

    def __init__(self):
        super().__init__()
        self.swaps = 0

    def namespaces(self):
        return [sys.modules["toy_neurons"]]

    def classes(self, spec):
        name = spec.name_in("toy")
        return {name: self.cached_class(name, spec, lambda: type(name, (ToyNode,), {"model_class": spec.load()}))}

    def is_neuron(self, module):
        return isinstance(module, (Point, ToyNode))

    def why_not(self, module):
        return "Odd has no counterpart" if isinstance(module, Odd) else None

    def read(self, module):
        return {"decay": float(torch.as_tensor(module.decay).detach()), "threshold": module.threshold}

    def channel_axis(self, module):
        return 2  # always whole sequences here

    def before_swap(self, root):
        for module in root.modules():
            if self.is_neuron(module):
                module.memory = None

    def after_swap(self, root):
        self.swaps += 1


def plugin(adapter):
    """A plugin module that registers the adapter, and the host's module that triggers it."""
    sys.modules["toy_neurons"] = types.ModuleType("toy_neurons")

    class Plugin:
        @hookimpl
        def snn_dendrite_register_adapters(self, register):
            register(name="toy", host="toy", trigger="toy_neurons", target=adapter)

    return Plugin()
