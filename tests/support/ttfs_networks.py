"""Small ReLU networks of the families that the conversion takes, with batch norms that do something."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def lively(net: nn.Module) -> nn.Module:
    """Random statistics and factors, some negative, in every batch norm; eval mode."""
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.normal_(0.5, 1)
            module.bias.data.normal_(0, 0.3)
    return net.eval()


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.BatchNorm1d(32), nn.Dropout(),
        nn.Linear(32, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10),
    )  # fmt: skip


def vgg() -> nn.Module:
    """Batch norm before and after the ReLU, every kind of pooling, pooling before the ReLU, groups."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(8), nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.ReLU(), nn.BatchNorm2d(12), nn.AvgPool2d(3, 2, 1),
        nn.Conv2d(12, 12, 3, padding=1, groups=3), nn.MaxPool2d(2), nn.ReLU(), nn.BatchNorm2d(12),
        nn.Flatten(), nn.Linear(12, 10),
    )  # fmt: skip


class Block(nn.Module):
    """ResNet's basic block."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.blocks = nn.Sequential(Block(width, width, 1), Block(width, 2 * width, 2))
        self.fc = nn.Linear(2 * width, 10)

    def forward(self, x):
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))


class Functional(nn.Module):
    """The same operations as functions and methods; the output is a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.fc = nn.Linear(6 * 4, 10)

    def forward(self, x):
        x = F.max_pool2d(self.conv1(x), 2).relu()
        x = F.dropout(F.avg_pool2d(F.relu(self.conv2(x)) + x, 2), 0.5, self.training)
        return F.relu(self.fc(x.view(x.size(0), -1)))


class AllConv(nn.Module):
    """Ends in a convolution and an average of its potentials, without a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 10, 3, padding=1))

    def forward(self, x):
        return torch.flatten(F.adaptive_avg_pool2d(self.body(x), 1), 1)


FAMILIES = {"mlp": mlp, "vgg": vgg, "resnet": ResNet, "functional": Functional, "allconv": AllConv}


def network(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(5)
    return lively(FAMILIES[name]()).to(dtype)
