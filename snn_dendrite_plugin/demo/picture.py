"""The demo's picture: rasters of point and dendritic neurons, one neuron's branches, the learned polynomials."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..plotting import COLORS, branch_activity, polynomial, raster
from .studies import STUDIES, Digits, Result, SpikeCounter

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw"]

_ROWS = 64  # neurons in a raster


def draw(path: Path, results: list[Result], digits: Digits) -> Figure:
    """Draw and save the picture of one seed's networks: of snnTorch's where there are some (more time steps), else the
    other host's, with the polynomials of every host that ran."""
    from matplotlib.figure import Figure  # not pyplot: needs no display, and leaves the user's backend alone

    host = "snntorch" if any(r.host == "snntorch" for r in results) else results[0].host
    study = STUDIES[host]()
    mine = [r for r in results if r.host == host]
    point, dendritic, learned = mine
    labels = digits.validation_labels
    chosen = torch.stack([(labels == digit).nonzero()[0, 0] for digit in labels.unique()])
    images = digits.validation_images[chosen]

    figure = Figure(figsize=(10, 9.2), dpi=110, layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.75, 1))
    axes = top.subplots(3, 1, gridspec_kw={"height_ratios": (0.32, 1, 1)}, sharex=True)
    layer = len(study.neurons(point.network)) - 1
    for ax, result, color in ((axes[1], point, COLORS[0]), (axes[2], dendritic, COLORS[1])):
        train = SpikeCounter.trains(study, result.network, images)[layer].flatten(2)  # [T, N, neurons]
        _raster(ax, train, result, color)
    axes[1].set_xlabel("")
    axes[1].tick_params(labelbottom=False)
    _show_images(axes[0], images, labels[chosen], study.steps)
    top.suptitle(f"{host}: last hidden layer, trained, on ten validation images ({study.input})", fontsize=11)

    left, right = bottom.subplots(1, 2, gridspec_kw={"width_ratios": (1.55, 1)})
    _branches(left, study, dendritic, layer, images)
    _polynomials(right, [r for r in results if r.neuron == learned.neuron])
    figure.savefig(path)
    return figure


def _raster(ax: Any, train: Tensor, result: Result, color: str) -> None:
    """One raster of all images one after the other, a step apart."""
    steps, count, neurons = train.shape
    if neurons > _ROWS:  # evenly spread ones
        train = train[:, :, torch.linspace(0, neurons - 1, _ROWS).long()]
    padded = torch.cat((train, train.new_zeros(1, *train.shape[1:])))  # the gap
    raster(padded.transpose(0, 1).flatten(0, 1)[:-1], ax, color=color)
    shown = "" if neurons <= _ROWS else f", {_ROWS} of {neurons} neurons"
    rate = train.sum().item() / train[0].numel()
    ax.set_title(
        f"{result.neuron}: {100 * result.accuracy:.1f} % right, {rate:.2f} spikes per neuron and image here{shown}",
        fontsize=10,
        loc="left",
    )
    for i in range(1, count):
        ax.axvline(i * (steps + 1) - 1, color="#cccccc", linewidth=0.6, zorder=0)


def _show_images(ax: Any, images: Tensor, labels: Tensor, steps: int) -> None:
    """The digits, each above its stretch of time."""
    ax.set_axis_off()
    ax.set_ylim(0, 1)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        middle = i * (steps + 1) + (steps - 1) / 2
        inset = ax.inset_axes((middle - steps / 2, 0, steps, 1), transform=ax.transData)
        inset.imshow(image[0].numpy(), cmap="gray_r", interpolation="nearest")
        inset.set(xticks=[], yticks=[])
        inset.set_ylabel(int(label), rotation=0, labelpad=6, va="center", fontsize=9)


def _branches(ax: Any, study: Any, result: Result, layer: int, images: Tensor) -> None:
    """The branches of the neuron that gets most from them, over three images."""
    node: Any = study.neurons(result.network)[layer]
    with SpikeCounter.attached([node]) as counter, torch.no_grad():
        study.logits(result.network, images)
    x_seq = counter.joined(counter.inputs[0])
    spikes = counter.joined(counter.outputs[0])
    samples = list(range(min(3, x_seq.shape[1])))
    # a neuron that fires at times, not always: there is something to see
    rate = spikes[:, samples].mean(dim=(0, 1)).flatten()
    neuron = int((rate - 0.2).abs().argmin())
    branch_activity(node, x_seq, ax, neuron=neuron, sample=samples)
    learned = ", ".join(f"{k:+.2f}" for k in node.model.strength.detach()[0].tolist())
    title = f"{result.neuron}, neuron {neuron}, first {len(samples)} images: branches\n(learned strengths {learned})"
    ax.set_title(title, fontsize=10, loc="left")


def _polynomials(ax: Any, results: list[Result]) -> None:
    """What the LNM layers of each host learned, and the LIF lines they started from."""
    for result, color in zip(results, COLORS, strict=False):
        study = STUDIES[result.host]()
        nodes: list[Any] = study.neurons(result.network)
        for i, node in enumerate(nodes):
            label = f"{result.host}, {len(nodes)} layers" if i == 0 else None
            polynomial(node, ax, beta=study.beta, color=color, label=label)
    ax.set_title("LNM: learned dynamics", fontsize=10, loc="left")
