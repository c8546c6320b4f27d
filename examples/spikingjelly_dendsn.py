"""A zoo model of SpikingJelly built with dendritic neurons, trained on handwritten digits.

Run: python examples/spikingjelly_dendsn.py [--epochs 4]
"""

import argparse

import torch
from sklearn.datasets import load_digits
from spikingjelly.activation_based import functional, neuron, surrogate
from spikingjelly.activation_based.model.ms_resnet import MSResNet

import snn_dendrite_plugin  # noqa: F401  adds neuron.DendSN, neuron.LNM and neuron.TTFS

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=4, help="passes over the images")
parser.add_argument("--images", type=int, default=1797, help="how many of the 1,797 digits to use")
arguments = parser.parse_args()

torch.manual_seed(0)
digits = load_digits()
images = torch.tensor(digits.images[: arguments.images], dtype=torch.float32).unsqueeze(1) / 16  # [N, 1, 8, 8]
labels = torch.tensor(digits.target[: arguments.images])
held_out = torch.arange(len(labels)) % 3 == 2

# The model builder gets the class and its arguments, as it would get neuron.LIFNode.
network = MSResNet(
    T=4, in_channels=1, num_classes=10, layers=(1, 1, 1), base_channels=16, stem_kernel_size=3, stem_stride=1,
    spiking_neuron=neuron.DendSN, branches=4, surrogate_function=surrogate.ATan(), detach_reset=True,
)  # fmt: skip
optimizer = torch.optim.Adam(network.parameters(), 5e-3)
loss = torch.tensor(float("nan"))

for epoch in range(arguments.epochs):
    network.train()
    for batch in torch.nonzero(~held_out).flatten()[torch.randperm(int((~held_out).sum()))].split(32):
        loss = torch.nn.functional.cross_entropy(network(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        functional.reset_net(network)
    network.eval()
    with torch.no_grad():
        right = network(images[held_out]).argmax(1) == labels[held_out]
        functional.reset_net(network)
    print(f"epoch {epoch}: loss {loss.item():.3f}, validation accuracy {right.double().mean().item():.3f}")

node = next(module for module in network.modules() if isinstance(module, neuron.DendSN))
strengths = [round(k, 3) for k in node.model.strength[0].tolist()]
print("strengths of the first layer's branches, which started at 0:", strengths)
