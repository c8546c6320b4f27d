"""Quadratic integrate-and-fire neuron: v[t] = v[t-1] + a (v[t-1] - v_rest) (v[t-1] - v_c) + x[t], with a learned."""

import torch

import snn_dendrite_plugin as sdp


class QIF(sdp.NeuronModel):
    states = {"v": 0.0}

    def __init__(self, a: float = 0.25, v_rest: float = 0.0, v_c: float = 0.8):
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor(a))
        self.v_rest, self.v_c = v_rest, v_c

    def step(self, x, states, firing):
        (v,) = states
        spikes, v = firing.update(memory=v + self.a * (v - self.v_rest) * (v - self.v_c), drive=x)
        return spikes, (v,)
