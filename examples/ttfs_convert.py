"""Convert a trained ReLU network to first spikes, put it on a clock, fine-tune it there, and perturb it.

    python examples/ttfs_convert.py [--network mlp|vgg|resnet] [--epochs 3] [--seeds 1] [--host spikingjelly]
    python examples/ttfs_convert.py --show exact clock tune perturb

Without SNN_DENDRITE_DATA it runs on scikit-learn's digits, with it on MNIST. Windows and fine-tuning use training
images only; the validation images are looked at for the figures. Sections:

    exact    largest difference and agreement with the ReLU network on all images, and the conversion's report
    clock    error of the clock-driven network against time steps per window (first 500 validation images)
    tune     accuracy at 8 and 16 steps before and after fine-tuning through binary spikes
    perturb  accuracy under spike-time noise, coarse times and weights, shorter windows, before and after fine-tuning
"""

from __future__ import annotations

import argparse
import copy

import torch
from torch import nn
from torch.nn import functional as F
from ttfs_data import accuracy, epochs, load, machine

from snn_dendrite_plugin.conversion.ttfs.relu import TTFSNetwork, convert_relu
from snn_dendrite_plugin.layers import calibrate, perturb


def mlp(size: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(size * size, 340), nn.ReLU(), nn.Linear(340, 10))


def vgg(size: int) -> nn.Module:
    """Batch norm before the ReLU in the first block, after it in the second."""
    final = size // 4
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(16),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(16), nn.MaxPool2d(2), nn.Dropout(0.2),
        nn.Flatten(), nn.Linear(16 * final * final, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


class Block(nn.Module):
    """ResNet's basic block."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.shortcut = nn.Identity()
        if stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def resnet(size: int) -> nn.Module:
    """Two basic blocks, 8 and 16 channels."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        Block(8, 8, 1), Block(8, 16, 2), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


NETWORKS = {"mlp": mlp, "vgg": vgg, "resnet": resnet}


def train_relu(name: str, x, y, number: int) -> nn.Module:
    net = NETWORKS[name](x.shape[-1])
    batches = number * -(-len(y) // 64)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, batches)
    for a, b in epochs(x, y, 64, number):
        optimizer.zero_grad()
        F.cross_entropy(net(a), b).backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def fine_tune(net: nn.Module, x, y, steps: int, rate: float) -> None:
    """A few optimiser steps through spikes; ``net`` is any TTFS network."""
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for i, (a, b) in enumerate(epochs(x, y, 64, 1000)):
        if i == steps:
            return
        optimizer.zero_grad()
        F.cross_entropy(net.run(a) if hasattr(net, "run") else net(a), b).backward()
        optimizer.step()
        schedule.step()


def exact(relu: nn.Module, timed: TTFSNetwork, x, everything) -> None:
    print(timed.report)
    for dtype in (torch.float32, torch.float64):
        a = copy.deepcopy(relu).to(dtype)
        b = convert_relu(a, calibration=x.to(dtype))  # batch norms are folded in the network's own precision
        same, apart, largest = 0, 0.0, 0.0
        with torch.no_grad():
            for part in everything.to(dtype).split(500):
                p, q = a(part), b(part)
                same += int((p.argmax(1) == q.argmax(1)).sum())
                apart = max(apart, float((p - q).abs().max()))
                largest = max(largest, float(p.abs().max()))
        text = f"{apart:.2e}, relative {apart / largest:.2e}"
        agreement = same / len(everything)
        print(f"  {dtype}: {len(everything)} images, argmax agreement {agreement}, largest difference {text}")


def clock(relu: nn.Module, timed: TTFSNetwork, x, y, host: str | None) -> None:
    x, y = x[:500], y[:500]
    with torch.no_grad():
        wanted = relu(x)
        for steps in (4, 8, 16, 32, 64, 128):
            net = timed.clock_driven(steps, host)
            got = torch.cat([net.run(part) for part in x.split(100)])
            error = float((got - wanted).norm() / wanted.norm())
            same = float((got.argmax(1) == wanted.argmax(1)).double().mean())
            right = float((got.argmax(1) == y).double().mean())
            print(f"  T {steps:4d}: relative error {error:.4f}, agreement {same:.4f}, accuracy {right:.4f}, "
                  f"latency {net.latency} steps")  # fmt: skip


def tune(relu: nn.Module, timed: TTFSNetwork, data, host: str | None, number: int) -> None:
    x, y, x_val, y_val = data
    plain = accuracy(relu, x_val, y_val)
    for steps in (8, 16):
        net = timed.clock_driven(steps, host)
        before = accuracy(net, x_val, y_val)
        fine_tune(net.train(), x, y, number, 5e-4)
        after = accuracy(net.eval(), x_val, y_val)
        print(f"  T {steps:3d}: ReLU {plain:.4f}, converted {before:.4f}, after {number} steps {after:.4f}")


def perturbations(timed: TTFSNetwork, data, number: int) -> None:
    x, y, x_val, y_val = data
    window = min(fire.window.item() for _, fire in timed.fires())
    for what, options in {
        "noise of 5 % of the shortest window": {"noise": 0.05 * window},
        "times of 3 bits": {"time_bits": 3},
        "weights of 3 bits": {"weight_bits": 3},
        "windows shortened to 40 %": {"shorten": 0.4},
    }.items():
        net = copy.deepcopy(timed)
        with perturb(net, **options):
            before = accuracy(net, x_val, y_val)
            fine_tune(net, x, y, number, 5e-4)
            print(f"  {what}: accuracy {before:.4f}, fine-tuned {accuracy(net, x_val, y_val):.4f}")


def main(options: argparse.Namespace) -> None:
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        x, y, x_val, y_val, name = load()
        relu = train_relu(options.network, x, y, options.epochs)
        right = accuracy(relu, x_val, y_val)
        print(f"{options.network}, seed {seed}, {name}, {machine()}: ReLU accuracy {right:.4f}", flush=True)
        timed = convert_relu(relu, calibration=x)
        if "exact" in options.show:
            exact(relu, timed, x, torch.cat([x, x_val]))
        if "perturb" in options.show:
            perturbations(timed, (x, y, x_val, y_val), options.steps)
        if "clock" in options.show:
            calibrate(timed, x, margin=0.0)  # no activation of the training images saturates
            clock(relu, timed, x_val, y_val, options.host)
        if "tune" in options.show:
            calibrate(timed, x, quantile=options.quantile, margin=0.0)  # smaller bins, some saturation
            tune(relu, timed, (x, y, x_val, y_val), options.host, options.steps)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=list(NETWORKS), default="mlp", help="what to convert")
    parser.add_argument("--epochs", type=int, default=3, help="of the ReLU network")
    parser.add_argument("--seeds", type=int, default=1, help="networks to train")
    parser.add_argument("--steps", type=int, default=100, help="optimiser steps of fine-tuning")
    parser.add_argument("--quantile", type=float, default=0.999, help="of the activations, for the windows of `tune`")
    parser.add_argument("--host", choices=["spikingjelly", "snntorch"], help="whose layers run on the clock")
    parser.add_argument("--show", nargs="+", default=["exact", "clock", "tune", "perturb"], help="which tables")
    main(parser.parse_args())
