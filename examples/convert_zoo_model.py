"""Convert a zoo model whose weights exist already: the function stays, the dendrites can then be trained, and undone.

Run: python examples/convert_zoo_model.py
"""

import argparse

import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from spikingjelly.activation_based.model.sew_resnet import sew_resnet18

import snn_dendrite_plugin as sdp

argparse.ArgumentParser(description=__doc__).parse_args()  # no options but --help
torch.manual_seed(0)
network = sew_resnet18(
    cnf="ADD", num_classes=10, spiking_neuron=neuron.LIFNode, surrogate_function=surrogate.ATan(), detach_reset=True
)
functional.set_step_mode(network, "m")
network.eval()
x = torch.rand(2, 1, 3, 32, 32)  # [T, N, C, H, W]; stands for a batch of your data
with torch.no_grad():
    before = network(x)
functional.reset_net(network)

print(sdp.convert(network, to="DendSN", branches=4, dry_run=True).summary())  # what would happen

network = sdp.convert(network, to="DendSN", branches=4, exclude="layer4.*", example_input=x)
print(sdp.report(network))

with torch.no_grad():
    after = network(x)
functional.reset_net(network)
print(f"largest difference of the outputs: {(after - before).abs().max().item():.2g}")

# One training step: the dendrites, whose strengths started at 0, get a gradient.
network.train()
network(x).sum().backward()
functional.reset_net(network)
strength = network.layer1[0].sn1.model.strength
print(f"largest gradient of a branch strength in layer1.0.sn1: {strength.grad.abs().max().item():.2g}")

sdp.revert(network)
print("reverted:", type(network.layer1[0].sn1).__name__)
