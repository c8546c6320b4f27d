"""The two figures of docs/ttfs.md, on scikit-learn's digits.

    python examples/ttfs_figures.py docs/images

ttfs_potentials.svg: potentials of one layer's neurons over two windows, until they cross the threshold.
ttfs_clock_error.svg: error of the clock-driven network against time steps per window, three seeds; prints the table.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path

import matplotlib
import torch
from torch import nn
from torch.nn import functional as F

from snn_dendrite_plugin.conversion.ttfs.relu import TTFSNetwork, convert_relu

matplotlib.use("svg")
from matplotlib import pyplot as plt  # noqa: E402

os.environ.pop("SNN_DENDRITE_DATA", None)  # the figures are those that everyone can make
from ttfs_data import accuracy, epochs, load, machine  # noqa: E402

STEPS = (4, 8, 16, 32, 64, 128)


def train(seed: int) -> tuple[nn.Module, TTFSNetwork, tuple]:
    torch.manual_seed(seed)
    x, y, x_val, y_val, _ = load()
    relu = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(relu.parameters(), lr=2e-3)
    for a, b in epochs(x, y, 64, 15):
        optimizer.zero_grad()
        F.cross_entropy(relu(a), b).backward()
        optimizer.step()
    relu.eval()
    return relu, convert_relu(relu, calibration=x, margin=0.0), (x_val, y_val)


def potentials(path: Path, timed: TTFSNetwork, image: torch.Tensor) -> None:
    """Neurons of the second layer: piecewise linear while spikes come in, then the ramp of slope 1."""
    inputs = list(timed.spike_times(image).values())[1]
    inputs = inputs._replace(times=inputs.times.detach())
    layer = timed.graph_module.get_submodule("3")
    weight, bias = layer.effective_weight().detach(), layer.bias.detach()
    first, second = [fire.window.item() for _, fire in timed.fires()]
    final = weight @ inputs.values[0] + bias
    ranked = final.argsort(descending=True)
    picks = [int(ranked[i]) for i in (0, 4, 14)] + [int(ranked[-1])]  # early, later, latest, silent
    figure, axes = plt.subplots(figsize=(7.0, 3.6))
    now = torch.linspace(0, first, 400)
    for i, colour in zip(picks, ("#1f77b4", "#2ca02c", "#ff7f0e", "#7f7f7f"), strict=True):
        sum_ = (weight[i] * (now[:, None] - inputs.times[0]).clamp(min=0)).sum(1)
        start = float(sum_[-1])
        threshold = second - float(bias[i])
        crossing = max(0.0, threshold - start)
        fires = crossing < second
        end = crossing if fires else second
        axes.plot(now, sum_ + float(bias[i]), color=colour)
        axes.plot([first, first + end], [start + float(bias[i]), start + end + float(bias[i])], color=colour)
        label = f"neuron {i}, value {max(0.0, float(final[i])):.2f}" if fires else f"neuron {i}, silent"
        mark = "o" if fires else "x"
        axes.plot([first + end], [start + end + float(bias[i])], mark, color=colour, label=label)
    axes.axhline(second, color="black", linewidth=0.8, linestyle="--")
    axes.axvline(first, color="black", linewidth=0.8)
    axes.text(0.01 * first, second * 1.03, "threshold R", fontsize=8)
    axes.set_xlabel("time (window of the layer before | own window)")
    axes.set_ylabel("potential plus bias")
    axes.legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def clock(path: Path, results: list[tuple[nn.Module, TTFSNetwork, tuple]]) -> None:
    errors: dict[int, list[float]] = {steps: [] for steps in STEPS}
    agreements: dict[int, list[float]] = {steps: [] for steps in STEPS}
    for relu, timed, (x, _) in results:
        with torch.no_grad():
            wanted = relu(x)
            for steps in STEPS:
                got = timed.clock_driven(steps).run(x)
                errors[steps].append(float((got - wanted).norm() / wanted.norm()))
                agreements[steps].append(float((got.argmax(1) == wanted.argmax(1)).double().mean()))
    print(f"{machine()}, matplotlib {matplotlib.__version__}; 64-128-64-10, three seeds, mean (smallest-largest)")
    for steps in STEPS:
        error, same = errors[steps], agreements[steps]
        print(f"| {steps} | {statistics.mean(error):.4f} ({min(error):.4f}-{max(error):.4f}) "
              f"| {statistics.mean(same):.4f} ({min(same):.4f}-{max(same):.4f}) |")  # fmt: skip
    means = [statistics.mean(errors[steps]) for steps in STEPS]
    figure, axes = plt.subplots(figsize=(5.0, 3.4))
    axes.fill_between(STEPS, [min(errors[s]) for s in STEPS], [max(errors[s]) for s in STEPS], alpha=0.3)
    axes.loglog(STEPS, means, "o-", label="measured, three seeds")
    axes.loglog(STEPS, [means[-1] * STEPS[-1] / s for s in STEPS], "k--", linewidth=0.8, label="1 / T")
    axes.set_xticks(STEPS, [str(s) for s in STEPS])
    axes.minorticks_off()
    axes.set_xlabel("time steps per window T")
    axes.set_ylabel("relative error of the outputs")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("."), help="where the two pictures go")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    plt.rcParams["svg.hashsalt"] = "ttfs"
    results = [train(seed) for seed in range(3)]
    for relu, timed, (x, y) in results:
        print(f"ReLU accuracy {accuracy(relu, x, y):.4f}, agreement {timed.report.agreement:.4f}")
    potentials(folder / "ttfs_potentials.svg", results[0][1], results[0][2][0][:1])
    clock(folder / "ttfs_clock_error.svg", results)
