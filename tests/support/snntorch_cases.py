"""Neurons that the tests of the snnTorch nodes share: the built-in models, and a stranger's with two states."""

from __future__ import annotations

import snntorch as snn
import torch
from torch import nn

import snn_dendrite_plugin as sdp
from snn_dendrite_plugin.adapters.snntorch.factory import node_class

STEP = {"Dendritic": {"strength_init": 0.5}, "LNM": {"theta": [0.0, 0.8, 0.1, -0.05]}}


class Adaptive(sdp.NeuronModel):
    """A stranger's model: two states, one with a reset value that is not 0, no beta, loops over step."""

    states = {"v": 0.0, "w": 0.25}

    def __init__(self, a: float = 0.5, gain: float = 1.0) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a))
        self.gain = gain

    def step(self, x, states, firing):
        v, w = states
        spikes, v = firing.update(memory=self.a * v, drive=self.gain * x - w)
        return spikes, (v, 0.9 * w + 0.1 * spikes)


AdaptiveNode = node_class("AdaptiveNode", Adaptive)
AdaptiveSequence = node_class("AdaptiveSequence", Adaptive, whole_sequence=True)


def make(name, **kwargs):
    if name == "Adaptive":
        return AdaptiveNode(**kwargs)
    return getattr(snn, name)(0.8, **{**STEP[name], **kwargs})


def make_sequence(name, **kwargs):
    if name == "Adaptive":
        return AdaptiveSequence(**kwargs)
    return getattr(snn, {"Dendritic": "DendriticParallel", "LNM": "LNMParallel"}[name])(0.8, **{**STEP[name], **kwargs})


ALL = ("Dendritic", "LNM", "Adaptive")


def loop(neuron, x):
    """Spikes and potentials of a loop with explicit states."""
    mem, spikes, trace = neuron.reset_mem(), [], []
    for step in x:
        spk, mem = neuron(step, mem)
        spikes.append(spk)
        trace.append(mem)
    return torch.stack(spikes), torch.stack(trace)
