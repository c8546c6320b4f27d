"""A recurrent task in snnTorch with dendritic neurons: digits read row by row, one row per time step.

Run: python examples/snntorch_dendritic.py [--epochs 10]
"""

import argparse

import snntorch as snn
import torch
from sklearn.datasets import load_digits
from snntorch import utils

import snn_dendrite_plugin  # noqa: F401  adds snn.Dendritic, snn.LNM, snn.TTFS and the whole-sequence classes

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=10, help="passes over the images")
parser.add_argument("--images", type=int, default=1797, help="how many of the 1,797 digits to use")
arguments = parser.parse_args()

torch.manual_seed(0)
digits = load_digits()
rows = torch.tensor(digits.images[: arguments.images], dtype=torch.float32).transpose(0, 1) / 16  # [T = 8, N, 8]
labels = torch.tensor(digits.target[: arguments.images])
held_out = torch.arange(len(labels)) % 3 == 2

network = torch.nn.Sequential(
    torch.nn.Linear(8, 64),
    snn.Dendritic(beta=0.9, branches=4, init_hidden=True),
    torch.nn.Linear(64, 64),
    snn.Dendritic(beta=0.9, branches=4, init_hidden=True),
    torch.nn.Linear(64, 10),
    snn.Leaky(beta=0.9, init_hidden=True, output=True, reset_mechanism="none"),  # its potential is the score
)


def score(x):
    """Class scores ``[N, 10]`` of ``x [T, N, 8]``."""
    utils.reset(network)
    return torch.stack([network(row)[1] for row in x]).mean(0)


optimizer = torch.optim.Adam(network.parameters(), 5e-3)
loss = torch.tensor(float("nan"))
for epoch in range(arguments.epochs):
    for batch in torch.nonzero(~held_out).flatten()[torch.randperm(int((~held_out).sum()))].split(64):
        loss = torch.nn.functional.cross_entropy(score(rows[:, batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        right = score(rows[:, held_out]).argmax(1) == labels[held_out]
    print(f"epoch {epoch}: loss {loss.item():.3f}, validation accuracy {right.double().mean().item():.3f}")
