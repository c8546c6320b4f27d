"""Point networks trained on real digits, converted, and trained on, beside the point network trained on as long.

A long experiment: `pytest -m long tests/test_convert_training.py -s` prints the table.
"""

from __future__ import annotations

import copy
import statistics

import pytest
import torch
from torch.nn import functional as F

pytest.importorskip("spikingjelly")
sklearn_datasets = pytest.importorskip("sklearn.datasets")
from spikingjelly.activation_based import functional, neuron, surrogate  # noqa: E402
from spikingjelly.activation_based.model import sew_resnet, spikformer  # noqa: E402

import snn_dendrite_plugin as sdp  # noqa: E402

T, BATCH = 4, 64
TRAINED, TUNED, SEEDS = 16, 6, 3


def digits(seed):
    """Scikit-learn's 1797 handwritten digits, 16 x 16, half of them for training."""
    data = sklearn_datasets.load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    images = F.interpolate(images, size=16, mode="bilinear")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    images, labels = images[order], torch.tensor(data.target)[order]
    cut = len(images) // 2
    return (images[:cut], labels[:cut]), (images[cut:], labels[cut:])


def lif(**_):
    return neuron.LIFNode(
        tau=2.0, v_threshold=0.5, surrogate_function=surrogate.ATan(), detach_reset=True, step_mode="m"
    )


def sew_resnet18():
    net = sew_resnet.sew_resnet18(num_classes=10, cnf="ADD", spiking_neuron=lif)
    functional.set_step_mode(net, "m")
    return net


def spikformer_small():
    return spikformer.Spikformer(
        T=T, img_size_h=16, img_size_w=16, patch_size=4, num_classes=10, embed_dims=64, num_heads=4, depths=1,
        spiking_neuron=lif,
    )  # fmt: skip


def answer(net, images):
    functional.reset_net(net)
    return net(images.expand(-1, 3, -1, -1).unsqueeze(0).repeat(T, 1, 1, 1, 1)).mean(0)


def train(net, data, epochs, rate, seed):
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate)
    net.train()
    torch.manual_seed(seed)
    for _ in range(epochs):
        for chosen in torch.randperm(len(data[0])).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(answer(net, data[0][chosen]), data[1][chosen]).backward()
            optimizer.step()
    return net


def accuracy(net, data):
    net.eval()
    with torch.no_grad():
        return float((answer(net, data[0]).argmax(1) == data[1]).float().mean()) * 100


VARIANTS = {
    "DendSN shared": {"to": "DendSN", "branches": 4},
    "DendSN partition": {"to": "DendSN", "branches": 4, "wiring": "partition"},
    "LNM": {"to": "LNM"},
}


@pytest.mark.long
@pytest.mark.parametrize("make", [sew_resnet18, spikformer_small])
def test_accuracy_does_not_drop_at_conversion(make):
    rows = {name: [] for name in ("point network", *VARIANTS)}
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        training, held_out = digits(seed)
        point = train(make(), training, TRAINED, 2e-3, seed)
        before = accuracy(point, held_out)
        example = held_out[0][:8].expand(-1, 3, -1, -1).unsqueeze(0).repeat(T, 1, 1, 1, 1)
        functional.reset_net(point)
        for name in rows:
            net = copy.deepcopy(point)
            if name in VARIANTS:
                sdp.convert(net, example_input=example, **VARIANTS[name])
            at = accuracy(net, held_out)
            # One of the 899 held-out digits may cross the line with a rounding.
            assert abs(at - before) < 0.5
            rows[name].append((before, at, accuracy(train(net, training, TUNED, 5e-4, seed), held_out)))
    print(f"\n{make.__name__}: accuracy in % on {len(held_out[0])} held-out digits, {SEEDS} seeds")
    for name, results in rows.items():
        before, at, after = ([result[i] for result in results] for i in range(3))
        print(
            f"  {name:18s} trained {statistics.mean(before):5.2f}  at conversion {statistics.mean(at):5.2f}  "
            f"after {TUNED} more epochs {statistics.mean(after):5.2f} +- {statistics.stdev(after):.2f}"
        )
    assert statistics.mean(result[0] for result in rows["point network"]) > 85
