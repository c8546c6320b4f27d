"""What the demo trains: two small networks, one per host, each with point, dendritic and learned-dynamics neurons.

Data: the 1,797 handwritten digits of scikit-learn (8 x 8 pixels, Optical Recognition of Handwritten Digits, UCI). Every
third image, by its number, is for validation. The same writers are in both parts.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["NEURONS", "STUDIES", "Digits", "Result", "SpikeCounter", "Study", "load_digits", "train"]

NEURONS = ("point", "DendSN", "LNM")
BRANCHES = 4


class Digits(NamedTuple):
    """Images ``[N, 1, 8, 8]`` between 0 and 1, and their labels ``[N]``."""

    train_images: Tensor
    train_labels: Tensor
    validation_images: Tensor
    validation_labels: Tensor


def load_digits(limit: int | None = None) -> Digits:
    """The digits, split; ``limit`` keeps the first so many images only.

    Example:
        >>> from snn_dendrite_plugin.demo.studies import load_digits
        >>> digits = load_digits()
        >>> len(digits.train_labels), len(digits.validation_labels)
        (1198, 599)
    """
    from sklearn import datasets

    bunch = datasets.load_digits()
    images = torch.as_tensor(bunch.images, dtype=torch.float32).unsqueeze(1)[:limit] / 16  # 16 grey levels
    labels = torch.as_tensor(bunch.target, dtype=torch.long)[:limit]
    held_out = torch.arange(len(labels)) % 3 == 2
    return Digits(images[~held_out], labels[~held_out], images[held_out], labels[held_out])


class Study(ABC):
    """One network of one host: how it is built with each neuron, and run."""

    host: str
    network: str
    input: str
    epochs: int
    batch: int
    rate: float
    steps: int
    beta: float  # decay per step of the point neurons

    @abstractmethod
    def build(self, neuron: str, seed: int) -> nn.Module:
        """The untrained network with ``neuron`` of :data:`NEURONS`."""

    @abstractmethod
    def logits(self, network: nn.Module, images: Tensor) -> Tensor:
        """Class scores ``[N, 10]`` of images ``[N, 1, 8, 8]``, from reset states."""

    @abstractmethod
    def neurons(self, network: nn.Module) -> list[nn.Module]:
        """The spiking neurons that are compared, from input to output."""


class SpikingJellyStudy(Study):
    """An MS-ResNet of SpikingJelly's model zoo, and copies of it whose neurons are exchanged by ``sdp.convert``."""

    host = "spikingjelly"
    network = "ms_resnet.MSResNet"
    input = "image, shown for 4 steps"
    epochs = 8
    batch = 32
    rate = 5e-3
    steps = 4
    beta = 0.5  # LIFNode's tau of 2

    def build(self, neuron: str, seed: int) -> nn.Module:
        from spikingjelly.activation_based import neuron as nodes
        from spikingjelly.activation_based import surrogate
        from spikingjelly.activation_based.model.ms_resnet import MSResNet

        import snn_dendrite_plugin as sdp

        torch.manual_seed(seed)
        network = MSResNet(
            T=self.steps,
            in_channels=1,
            num_classes=10,
            layers=(1, 1, 1),
            base_channels=16,
            stem_kernel_size=3,
            stem_stride=1,
            spiking_neuron=nodes.LIFNode,
            surrogate_function=surrogate.ATan(),
            detach_reset=True,
        )
        if neuron == "point":
            return network
        options: dict[str, Any] = {"branches": BRANCHES} if neuron == "DendSN" else {"degree": 3}
        return sdp.convert(network, to=neuron, **options)

    def logits(self, network: nn.Module, images: Tensor) -> Tensor:
        from spikingjelly.activation_based import functional

        functional.reset_net(network)
        return network(images)

    def neurons(self, network: nn.Module) -> list[nn.Module]:
        from spikingjelly.activation_based import neuron

        return [module for module in network.modules() if isinstance(module, neuron.BaseNode)]


class SnnTorchStudy(Study):
    """An ``nn.Sequential`` of snnTorch that reads an image row by row; the class of its hidden neurons is exchanged."""

    host = "snntorch"
    network = "nn.Sequential"
    input = "one row of the image per step"
    epochs = 20
    batch = 64
    rate = 5e-3
    hidden = 64
    steps = 8
    beta = 0.9

    def build(self, neuron: str, seed: int) -> nn.Module:
        import snntorch as snn

        import snn_dendrite_plugin  # noqa: F401  adds Dendritic and LNM to snntorch

        def spiking() -> nn.Module:
            if neuron == "point":
                return snn.Leaky(beta=self.beta, init_hidden=True)
            if neuron == "DendSN":
                return snn.Dendritic(beta=self.beta, branches=BRANCHES, init_hidden=True)
            return snn.LNM(beta=self.beta, degree=3, init_hidden=True)

        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(8, self.hidden),
            spiking(),
            nn.Linear(self.hidden, self.hidden),
            spiking(),
            nn.Linear(self.hidden, 10),
            snn.Leaky(beta=self.beta, init_hidden=True, output=True, reset_mechanism="none"),  # reads out its potential
        )

    def logits(self, network: nn.Module, images: Tensor) -> Tensor:
        from snntorch import utils

        utils.reset(network)
        rows = images[:, 0].transpose(0, 1)  # [8, N, 8]
        return torch.stack([network(row)[1] for row in rows]).mean(0)

    def neurons(self, network: nn.Module) -> list[nn.Module]:
        return [network[1], network[3]]  # type: ignore[index]


STUDIES: dict[str, Callable[[], Study]] = {"spikingjelly": SpikingJellyStudy, "snntorch": SnnTorchStudy}


class SpikeCounter:
    """Collects what the neurons of a network are given and emit, in whichever step mode its host runs them."""

    def __init__(self, neurons: list[nn.Module]) -> None:
        self.inputs: list[list[Tensor]] = [[] for _ in neurons]
        self.outputs: list[list[Tensor]] = [[] for _ in neurons]

    @classmethod
    @contextmanager
    def attached(cls, neurons: list[nn.Module]) -> Iterator[SpikeCounter]:
        counter = cls(neurons)

        def hook(i: int) -> Callable[..., None]:
            def keep(module: nn.Module, args: tuple[Tensor, ...], output: Any) -> None:
                counter.inputs[i].append(args[0].detach())
                counter.outputs[i].append((output[0] if isinstance(output, tuple) else output).detach())

            return keep

        handles = [neuron.register_forward_hook(hook(i)) for i, neuron in enumerate(neurons)]
        try:
            yield counter
        finally:
            for handle in handles:
                handle.remove()

    @staticmethod
    def joined(kept: list[Tensor]) -> Tensor:
        """``[T, N, *]`` of what one neuron layer gave: one sequence, or one tensor per step."""
        return kept[0] if len(kept) == 1 else torch.stack(kept)

    @classmethod
    def trains(cls, study: Study, network: nn.Module, images: Tensor) -> list[Tensor]:
        """Spike trains ``[T, N, *]`` of every neuron layer on ``images``."""
        with cls.attached(study.neurons(network)) as counter, torch.no_grad():
            study.logits(network, images)
        return [cls.joined(kept) for kept in counter.outputs]


@dataclass
class Result:
    """One trained network."""

    host: str
    neuron: str
    seed: int
    accuracy: float  # on the validation images, after the last epoch
    spikes: float  # per neuron and image
    parameters: int
    seconds: float  # of training
    start_spikes: int  # of the point network before training, on some validation images
    start_flips: int  # how many spikes of this network differed from those
    network: nn.Module


def train(
    study: Study,
    neuron: str,
    digits: Digits,
    epochs: int,
    seed: int = 0,
    progress: Callable[[float], None] = lambda loss: None,
) -> Result:
    """Build and train one network, Adam on the cross-entropy, the same batches for the same seed; then validate it.

    ``progress`` is called after each batch with the loss.

    Raises:
        FloatingPointError: a parameter is no longer finite.
    """
    start_spikes, start_flips = compare_start(study, neuron, seed, digits.validation_images[:100])
    network = study.build(neuron, seed)
    optimizer = torch.optim.Adam(network.parameters(), study.rate)
    order = torch.Generator().manual_seed(seed)
    network.train()
    start = time.perf_counter()
    for _ in range(epochs):
        for index in torch.randperm(len(digits.train_labels), generator=order).split(study.batch):
            logits = study.logits(network, digits.train_images[index])
            loss = nn.functional.cross_entropy(logits, digits.train_labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            progress(loss.item())
        check_finite(network, f"{neuron} in {study.host}, seed {seed}")
    seconds = time.perf_counter() - start
    network.eval()
    with SpikeCounter.attached(study.neurons(network)) as counter, torch.no_grad():
        predicted = study.logits(network, digits.validation_images).argmax(1)
    trains = [counter.joined(kept) for kept in counter.outputs]
    units = sum(t[0].numel() for t in trains)  # neurons times images
    return Result(
        host=study.host,
        neuron=type(study.neurons(network)[0]).__name__,
        seed=seed,
        accuracy=(predicted == digits.validation_labels).double().mean().item(),
        spikes=sum(t.sum().item() for t in trains) / units,
        parameters=sum(p.numel() for p in network.parameters()),
        seconds=seconds,
        start_spikes=start_spikes,
        start_flips=start_flips,
        network=network,
    )


def compare_start(study: Study, neuron: str, seed: int, images: Tensor) -> tuple[int, int]:
    """Spikes of the untrained point network on ``images``, and how many of the other network's differ from them.

    In training mode: normalised by the batch, the untrained layers do spike.
    """
    point, other = (SpikeCounter.trains(study, study.build(kind, seed), images) for kind in ("point", neuron))
    flips = sum(int((a != b).sum()) for a, b in zip(point, other, strict=True))
    return int(sum(train.sum() for train in point)), flips


def check_finite(network: nn.Module, what: str) -> None:
    """Raise for a parameter that is no longer finite; the loss does not tell, as a potential of NaN gives no spike."""
    for name, parameter in network.named_parameters():
        if not torch.isfinite(parameter).all():
            raise FloatingPointError(f"{name} is no longer finite while training {what}")
