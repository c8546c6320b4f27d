"""Complementary leaky integrate-and-fire neuron (Huang et al., ICML 2024, arXiv 2402.04663)."""

import torch

import snn_dendrite_plugin as sdp


class CLIF(sdp.NeuronModel):
    r"""LIF neuron with a complementary potential m, which remembers spikes for as long as the soma is excited.

    h[t] = beta u[t-1] + x[t],  m[t] = m[t-1] sigmoid((1 - beta) h[t]) + s[t]

    A soft reset subtracts v_th + sigmoid(m[t]). The published neuron has that one, ``v_reset=None`` in SpikingJelly.

    Args:
        beta: decay of the soma's potential per step.
    """

    states = {"v": 0.0, "m": 0.0}

    def __init__(self, beta: float = 0.5):
        super().__init__()
        self.beta = beta

    def step(self, x, states, firing):
        u, m = states
        h = firing.integrate(self.beta * u, x, by=firing.threshold + torch.sigmoid(m))
        s = firing.fire(h)
        m = m * torch.sigmoid((1 - self.beta) * h) + s
        return s, (firing.reset(h, s, by=firing.threshold + torch.sigmoid(m)), m)
