"""One small network of each neuron in each host, behind one interface, for what is tested of all of them alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

import snn_dendrite_plugin  # noqa: F401

STEPS, BATCH, INPUTS = 4, 3, 5


@dataclass(frozen=True)
class Subject:
    """A host, by the name users call it, and a neuron, by its name there."""

    host: str
    neuron: str

    def __str__(self) -> str:
        return f"{self.host}-{self.neuron}"

    def node(self) -> nn.Module:
        options = {"steps": STEPS} if self.neuron == "TTFS" else {}
        if self.neuron in ("DendSN", "Dendritic"):
            options = {"branches": 3, "strength_init": 0.4}
        if self.host == "SpikingJelly":
            from spikingjelly.activation_based import neuron

            return getattr(neuron, self.neuron)(v_threshold=0.4, **options)
        import snntorch as snn

        beta = {} if self.neuron == "TTFS" else {"beta": 0.8}
        return getattr(snn, self.neuron)(**beta, threshold=0.4, init_hidden=True, **options)

    def net(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> Sequence:
        torch.manual_seed(seed)
        layers = nn.Sequential(nn.Linear(INPUTS, 6), self.node(), nn.Linear(6, 4), self.node())
        if self.host == "SpikingJelly":
            from spikingjelly.activation_based import functional

            functional.set_step_mode(layers, "m")
        net = Sequence(self.host, layers)
        return net if dtype == torch.float32 else net.to(dtype)  # a parameter that is fake cannot be moved


class Sequence(nn.Module):
    """A network over a whole sequence ``[T, N, C]``, from fresh states."""

    def __init__(self, host: str, layers: nn.Sequential) -> None:
        super().__init__()
        self.whole, self.layers = host == "SpikingJelly", layers

    def reset(self) -> None:
        if self.whole:
            from spikingjelly.activation_based import functional

            functional.reset_net(self.layers)
        else:
            from snntorch import utils

            utils.reset(self.layers)

    def forward(self, x: Tensor) -> Tensor:
        self.reset()
        return self.go_on(x)

    def go_on(self, x: Tensor) -> Tensor:
        if self.whole:
            return self.layers(x)
        steps = [self.layers(step) for step in torch.cat((x, torch.zeros_like(x)))]
        return torch.stack(steps)  # a TTFS neuron fires one window later here


def inputs(dtype: torch.dtype = torch.float64, batch: int = BATCH, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(STEPS, batch, INPUTS, generator=generator, dtype=torch.float64) * 2).to(dtype)


SUBJECTS = [
    Subject(host, neuron)
    for host, neurons in (("SpikingJelly", ("DendSN", "LNM", "TTFS")), ("snnTorch", ("Dendritic", "LNM", "TTFS")))
    for neuron in neurons
]
