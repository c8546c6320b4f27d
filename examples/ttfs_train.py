"""Train a time-coded network from scratch next to its ReLU twin: the same weights all the way, and few spikes.

    python examples/ttfs_train.py [--epochs 5] [--penalty 0.0] [--seeds 1] [--cost]

Without SNN_DENDRITE_DATA it runs on scikit-learn's digits (64-340-10), with it on MNIST (784-340-10, the network of
Stanojevic et al. 2024), in float64. --cost instead times a training step of both kinds of network, in turns.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import nn
from torch.nn import functional as F
from ttfs_data import accuracy, epochs, load, machine

from snn_dendrite_plugin.layers import (
    ActivityPenalty,
    TTFSConv2d,
    TTFSEncode,
    TTFSFlatten,
    TTFSLinear,
    TTFSMaxPool,
    activity,
    calibrate,
)


def twins(pixels: int, hidden: int = 340) -> tuple[nn.Module, nn.Module]:
    """A ReLU network and the time-coded network with the same weights."""
    timed = nn.Sequential(TTFSEncode(), TTFSFlatten(), TTFSLinear(pixels, hidden), TTFSLinear(hidden, 10, fire=False))
    relu = nn.Sequential(nn.Flatten(), nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    with torch.no_grad():
        for ours, theirs in ((timed[2], relu[1]), (timed[3], relu[3])):
            theirs.weight.copy_(ours.weight)
            theirs.bias.copy_(ours.bias)
    return relu.double(), timed.double()


def train(seed: int, number: int, penalty: float) -> None:
    torch.manual_seed(seed)
    x, y, x_val, y_val, name = load(torch.float64)
    relu, timed = twins(x[0].numel())
    nets = (relu, timed)
    optimizers = [torch.optim.Adam(net.parameters(), lr=5e-4) for net in nets]
    with ActivityPenalty(timed) as measure:
        for a, b in epochs(x, y, 32, number):
            for net, optimizer in zip(nets, optimizers, strict=True):
                if net is relu and penalty:
                    continue
                loss = F.cross_entropy(net(a), b)
                if penalty:
                    loss = loss + penalty * measure()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    calibrate(timed, x)
    timed.eval()
    hidden = activity(timed, x_val)[1]
    text = f"seed {seed}, {name}: time-coded accuracy {accuracy(timed, x_val, y_val):.4f}, "
    if not penalty:
        pairs = zip(relu.parameters(), timed.parameters(), strict=True)
        apart = max(float((p - q).detach().abs().max()) for p, q in pairs)
        text += f"ReLU {accuracy(relu, x_val, y_val):.4f}, weights apart by {apart:.1e}, "
    print(text + f"hidden spikes per neuron {hidden.spikes_per_neuron:.4f}, never fire {hidden.never:.4f}, "
          f"window {hidden.window:.2f}, saturated {hidden.saturated:.1e}")  # fmt: skip


def convolutional() -> tuple[nn.Module, nn.Module]:
    """A small convolutional pair for the cost."""
    relu = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1568, 10),
    )  # fmt: skip
    timed = nn.Sequential(
        TTFSEncode(), TTFSConv2d(1, 16, 3, padding=1), TTFSConv2d(16, 16, 3, padding=1), TTFSMaxPool(2),
        TTFSConv2d(16, 32, 3, padding=1), TTFSMaxPool(2), TTFSFlatten(), TTFSLinear(1568, 10, fire=False),
    )  # fmt: skip
    return relu, timed


def cost(rounds: int = 100) -> None:
    """Median CPU time of a training step, both kinds of network in turns, float32, one thread."""
    torch.set_num_threads(1)
    print(machine())
    for name, (relu, timed), batch in (
        ("784-340-10", tuple(net.float() for net in twins(784)), 128),
        ("convolutional", convolutional(), 32),
    ):
        x, y = torch.rand(batch, 1, 28, 28), torch.randint(10, (batch,))
        nets = {"relu": relu, "time-coded": timed}
        optimizers = {key: torch.optim.SGD(net.parameters(), lr=1e-3) for key, net in nets.items()}
        times: dict[str, list[float]] = {key: [] for key in nets}
        for i in range(rounds + 5):
            for key, net in nets.items():
                start = time.process_time()
                optimizers[key].zero_grad()
                F.cross_entropy(net(x), y).backward()
                optimizers[key].step()
                if i >= 5:
                    times[key].append(time.process_time() - start)
        median = {key: statistics.median(values) for key, values in times.items()}
        quartiles = {key: statistics.quantiles(values, n=4) for key, values in times.items()}
        ratio = median["time-coded"] / median["relu"]
        spread = ", ".join(f"{k} {1e3 * m:.2f} ms ({1e3 * quartiles[k][0]:.2f}-{1e3 * quartiles[k][2]:.2f})"
                           for k, m in median.items())  # fmt: skip
        print(f"{name}, batch {batch}: {spread}, ratio {ratio:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5, help="passes over the images")
    parser.add_argument("--penalty", type=float, default=0.0, help="weight of the mean activation in the loss")
    parser.add_argument("--seeds", type=int, default=1, help="networks to train")
    parser.add_argument("--cost", action="store_true", help="time a training step instead")
    options = parser.parse_args()
    if options.cost:
        cost()
    else:
        for seed in range(options.seeds):
            train(seed, options.epochs, options.penalty)
