"""Does LNM train where the point neuron trains? Usual scripts of both hosts, over learning rates and seeds.

    python examples/lnm_training.py [tutorial bptt spikingjelly finetune] [--rates 5e-4 1e-2] [--seeds 3]
                                    [--neurons point LNM ...] [--images report]

`tutorial`: snnTorch, explicit states, beta 0.95, a fully connected net, 25 steps, loss on the potential. `bptt`:
snnTorch, hidden states in an nn.Sequential, a convolutional net under `snntorch.backprop.BPTT`. `spikingjelly`: two
hidden layers of LIFNode, 8 steps. `finetune`: `tutorial`'s net trained with Leaky, converted to LNM, trained on. Every
run takes --iterations steps of Adam. Without SNN_DENDRITE_DATA on scikit-learn's digits, with it on MNIST; accuracies
are of images that no run trains on: those to choose by, or those to report.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Iterator
from pathlib import Path

import snntorch as snn
import torch
from snntorch import backprop, surrogate, utils
from snntorch import functional as SF
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn
from torch.nn import functional as F

import snn_dendrite_plugin as sdp

# What takes the point neuron's place: arguments of LNM. `polynomial` has neither limits nor scale.
NEURONS = {
    "point": None,
    "LNM": {},
    "limits alone": {"theta_scale": 1},
    "scale alone": {"clamp": None},
    "polynomial": {"clamp": None, "theta_scale": 1},
}


class Tutorial(nn.Module):
    """snnTorch, step by step, every state in a variable."""

    batch, steps = 128, 25
    hidden = 1000

    def __init__(self, pixels: int, arguments: dict | None) -> None:
        super().__init__()
        hidden = self.hidden
        spike_grad = surrogate.fast_sigmoid(slope=25)
        kind = snn.Leaky if arguments is None else snn.LNM
        self.fc1, self.fc2 = nn.Linear(pixels, hidden), nn.Linear(hidden, 10)
        self.lif1, self.lif2 = (kind(beta=0.95, spike_grad=spike_grad, **(arguments or {})) for _ in range(2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spikes, potentials = [], []
        current = self.fc1(x.flatten(1))
        for _ in range(self.steps):
            spk1, mem1 = self.lif1(current, mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spikes.append(spk2)
            potentials.append(mem2)
        return torch.stack(spikes), torch.stack(potentials)

    def fit(self, x: Tensor, y: Tensor, optimizer: torch.optim.Optimizer) -> None:
        loss = sum(F.cross_entropy(potential, y) for potential in self(x)[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def answers(self, x: Tensor) -> Tensor:
        return self(x)[0].sum(0).argmax(1)


class Bptt(nn.Module):
    """snnTorch, hidden states, the host's own training loop."""

    batch, steps = 64, 25

    def __init__(self, pixels: int, arguments: dict | None) -> None:
        super().__init__()

        def spiking(**options) -> nn.Module:
            kind = snn.Leaky if arguments is None else snn.LNM
            spike_grad = surrogate.fast_sigmoid(slope=25)
            return kind(beta=0.5, spike_grad=spike_grad, init_hidden=True, **options, **(arguments or {}))

        side = round(pixels**0.5)
        first, second = (5, 5) if side > 20 else (3, 2)
        left = ((side - first + 1) // 2 - second + 1) // 2
        self.net = nn.Sequential(
            nn.Conv2d(1, 8, first), nn.MaxPool2d(2), spiking(),
            nn.Conv2d(8, 16, second), nn.MaxPool2d(2), spiking(),
            nn.Flatten(), nn.Linear(16 * left * left, 10), spiking(output=True),
        )  # fmt: skip

    def fit(self, x: Tensor, y: Tensor, optimizer: torch.optim.Optimizer) -> None:
        backprop.BPTT(self.net, [(x, y)], optimizer, SF.ce_rate_loss(), self.steps, time_var=False)

    def answers(self, x: Tensor) -> Tensor:
        utils.reset(self.net)
        return sum(self.net(x)[0] for _ in range(self.steps)).argmax(1)


class SpikingJelly(nn.Module):
    """SpikingJelly, multi-step."""

    batch, steps = 64, 8

    def __init__(self, pixels: int, arguments: dict | None, hidden: int = 200) -> None:
        super().__init__()

        def spiking() -> nn.Module:
            return neuron.LIFNode() if arguments is None else neuron.LNM(**arguments)

        self.net = nn.Sequential(
            layer.Flatten(), layer.Linear(pixels, hidden), spiking(),
            layer.Linear(hidden, hidden), spiking(), layer.Linear(hidden, 10), spiking(),
        )  # fmt: skip
        functional.set_step_mode(self.net, "m")

    def rates(self, x: Tensor) -> Tensor:
        functional.reset_net(self.net)
        return self.net(x.expand(self.steps, *x.shape)).mean(0)

    def fit(self, x: Tensor, y: Tensor, optimizer: torch.optim.Optimizer) -> None:
        loss = F.cross_entropy(self.rates(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def answers(self, x: Tensor) -> Tensor:
        return self.rates(x).argmax(1)


SCRIPTS = {"tutorial": Tutorial, "bptt": Bptt, "spikingjelly": SpikingJelly}
RATES = {"tutorial": 5e-4, "bptt": 1e-2, "spikingjelly": 1e-3, "finetune": 5e-4}
ITERATIONS = {"tutorial": 60, "bptt": 24, "spikingjelly": 60, "finetune": 60}


class Data:
    """Images to train on (70 %), to choose by (10 %), and to report (20 %)."""

    def __init__(self) -> None:
        folder = os.environ.get("SNN_DENDRITE_DATA")
        if folder:
            import numpy

            self.name = "MNIST"
            with numpy.load(Path(folder) / "mnist10k.npz") as arrays:
                x, y = torch.from_numpy(arrays["images"]).float() / 255, torch.from_numpy(arrays["labels"]).long()
        else:
            from sklearn.datasets import load_digits

            self.name, digits = "scikit-learn digits", load_digits()
            x, y = torch.from_numpy(digits.images).float() / 16, torch.from_numpy(digits.target).long()
            order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
            x, y = x[order], y[order]
        x, first, second = x.unsqueeze(1), len(y) * 7 // 10, len(y) * 8 // 10
        self.train = x[:first], y[:first]
        self.parts = {"choose": (x[first:second], y[first:second]), "report": (x[second:], y[second:])}
        self.pixels = x[0].numel()

    def batches(self, size: int, number: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        x, y = self.train
        draw, left = torch.Generator().manual_seed(seed), torch.empty(0, dtype=torch.long)
        for _ in range(number):
            if len(left) < size:
                left = torch.randperm(len(y), generator=draw)
            chosen, left = left[:size], left[size:]
            yield x[chosen], y[chosen]


def train(net: nn.Module, data: Data, rate: float, iterations: int, seed: int) -> int | None:
    """Train in place; the iteration at which a parameter stopped being finite, None when none did."""
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    for i, (x, y) in enumerate(data.batches(net.batch, iterations, seed)):
        net.fit(x, y, optimizer)
        if not all(bool(parameter.isfinite().all()) for parameter in net.parameters()):
            return i
    return None


@torch.no_grad()
def accuracy(net: nn.Module, data: Data, images: str) -> float:
    """Per cent of right answers."""
    x, y = data.parts[images]
    right = sum(int((net.answers(a) == b).sum()) for a, b in zip(x.split(250), y.split(250), strict=True))
    return 100 * right / len(y)


def once(script: str, name: str, rate: float, seed: int, data: Data, iterations: int, images: str):
    """One run: accuracies after (and for `finetune` before), and when it was lost."""
    torch.manual_seed(seed)
    if script != "finetune":
        net = SCRIPTS[script](data.pixels, NEURONS[name])
        lost = train(net, data, rate, iterations, seed)
        return [accuracy(net, data, images)], lost
    net = Tutorial(data.pixels, None)
    train(net, data, rate, iterations, seed)
    before = accuracy(net, data, images)
    if NEURONS[name] is not None:
        net = sdp.convert(net, to="LNM", **NEURONS[name])
    assert accuracy(net, data, images) == before
    lost = train(net, data, rate, iterations, seed + 1000)
    return [before, accuracy(net, data, images)], lost


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):5.1f} +- {statistics.stdev(values) if len(values) > 1 else 0:4.1f}"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scripts", nargs="*", default=list(RATES), help=f"of {', '.join(RATES)}; all by default")
    parser.add_argument("--rates", type=float, nargs="+", help="of Adam; the usual one of each script by default")
    parser.add_argument("--neurons", nargs="+", default=["point", "LNM"], choices=list(NEURONS), help="which to train")
    parser.add_argument("--seeds", type=int, default=3, help="networks per row")
    parser.add_argument("--iterations", type=int, help="the script's own number by default")
    parser.add_argument("--hidden", type=int, default=Tutorial.hidden, help="hidden neurons of `tutorial`")
    parser.add_argument(
        "--images", choices=["choose", "report"], default="choose", help="validation images, or held-out ones"
    )
    options = parser.parse_args(argv)
    Tutorial.hidden = options.hidden
    data = Data()
    print(f"{data.name}, {options.seeds} seeds, accuracy in % (mean +- standard deviation)")
    print(f"{'script':13} {'rate':>7}  {'neuron':13} {'accuracy':13}  {'before':13}  lost")
    for script in options.scripts:
        for rate in options.rates or [RATES[script]]:
            for name in options.neurons:
                iterations = options.iterations or ITERATIONS[script]
                runs = [once(script, name, rate, s, data, iterations, options.images) for s in range(options.seeds)]
                lost = [at for _, at in runs if at is not None]
                before = spread([a[0] for a, _ in runs]) if script == "finetune" else ""
                row = f"{script:13} {rate:7g}  {name:13} {spread([a[-1] for a, _ in runs]):13}  {before:13}"
                print(row, f" {len(lost)} of {len(runs)}", flush=True)


if __name__ == "__main__":
    main()
