"""Images for the TTFS examples: MNIST where SNN_DENDRITE_DATA names a folder with mnist10k.npz, else small digits."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch
from torch import Tensor


def load(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor, str]:
    """Training images ``[N, 1, H, W]`` in [0, 1], their labels, validation images and labels, and the data's name.

    MNIST: the first 8,000 images train, the last 2,000 validate. scikit-learn's digits (8x8): 1,437 and 360.
    """
    folder = os.environ.get("SNN_DENDRITE_DATA")
    if folder:
        import numpy

        with numpy.load(Path(folder) / "mnist10k.npz") as data:
            images = torch.from_numpy(data["images"]).unsqueeze(1).to(dtype) / 255
            labels = torch.from_numpy(data["labels"]).long()
        cut, name = 8000, "MNIST, 8,000 training images"
    else:
        from sklearn.datasets import load_digits

        digits = load_digits()
        order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
        images = (torch.from_numpy(digits.images).unsqueeze(1).to(dtype) / 16)[order]
        labels = torch.from_numpy(digits.target).long()[order]
        cut, name = 1437, "scikit-learn digits, 1,437 training images"
    return images[:cut], labels[:cut], images[cut:], labels[cut:], name


@torch.no_grad()
def accuracy(net: torch.nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of right answers, in batches of 250."""
    right = sum(int((net(a).argmax(1) == b).sum()) for a, b in zip(x.split(250), y.split(250), strict=True))
    return right / len(y)


def epochs(x: Tensor, y: Tensor, batch: int, number: int):
    """Shuffled batches of ``number`` epochs."""
    for _ in range(number):
        order = torch.randperm(len(y))
        for i in order.split(batch):
            yield x[i], y[i]


def machine() -> str:
    """What ran: processor, threads, versions."""
    return f"{platform.machine()} CPU, {torch.get_num_threads()} thread(s), torch {torch.__version__.split('+')[0]}"
