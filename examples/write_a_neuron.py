"""A neuron model of one's own, native in both hosts: adaptive threshold, ALIF.

Here the model is registered at run time. A package does the same with an entry point, see CONTRIBUTING.md.

Run: python examples/write_a_neuron.py
"""

import argparse

import torch

import snn_dendrite_plugin as sdp
from snn_dendrite_plugin import plugins

argparse.ArgumentParser(description=__doc__).parse_args()  # no options but --help


class ALIF(sdp.NeuronModel):
    """Leaky integrate-and-fire neuron that tires: each spike makes the next one harder, for a while.

    v[t] = beta v[t-1] + x[t] - a[t-1];  a[t] = rho a[t-1] + jump s[t]
    """

    states = {"v": 0.0, "a": 0.0}  # reset values, the soma's potential first

    def __init__(self, beta: float = 0.9, rho: float = 0.95, jump: float = 0.3):
        super().__init__()
        self.beta, self.rho = beta, rho
        self.jump = torch.nn.Parameter(torch.tensor(jump))  # learned

    def step(self, x, states, firing):  # x and both states [N, C, *]
        v, a = states
        spikes, v = firing.update(memory=self.beta * v, drive=x - a)  # integrate, fire, reset as the host says
        return spikes, (v, self.rho * a + self.jump * spikes)


class Plugin:
    @staticmethod
    @sdp.hookimpl
    def snn_dendrite_register_models(register):
        register(name="ALIF", target=ALIF, summary="adaptive leaky integrate-and-fire neuron")


plugins.register_plugin(Plugin, name="alif")

import snntorch as snn  # noqa: E402  the order does not matter
from spikingjelly.activation_based import functional, neuron  # noqa: E402

x = torch.full((30, 1, 4), 1.0)  # [T, N, C], constant current

node = neuron.ALIF(step_mode="m", jump=0.3)
spikes = node(x)
print("SpikingJelly: spikes in thirds of the time", spikes[..., 0].reshape(3, 10).sum(1).tolist())
spikes.sum().backward()
print("              gradient of the jump", round(node.model.jump.grad.item(), 3))
functional.reset_net(node)

lif = snn.ALIF(beta=0.9, init_hidden=True)
train = torch.stack([lif(step) for step in x])
print("snnTorch:     spikes in thirds of the time", train[..., 0].reshape(3, 10).sum(1).tolist())

net = torch.nn.Sequential(torch.nn.Linear(4, 4), neuron.LIFNode(step_mode="m"))
print("converted:   ", type(sdp.convert(net, to="ALIF", start="fresh")[1]).__name__)
