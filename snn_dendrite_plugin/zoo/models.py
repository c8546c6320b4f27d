"""SpikingJelly's model zoo: every constructor, and a small network of each family that computes something.

The tests and the zoo page take their models from here, so that what is documented is what is tested. Needs SpikingJelly
2.0.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from spikingjelly.activation_based import functional, layer, neuron
from spikingjelly.activation_based.model import (
    masnn,
    maxformer,
    ms_resnet,
    parametric_lif_net,
    qkformer,
    sew_resnet,
    snas_net,
    spike_dhs,
    spike_driven_transformer,
    spikformer,
    spiking_resnet,
    spiking_vgg,
    spiking_vggws_ottt,
)
from torch import Tensor, nn

__all__ = ["CONSTRUCTORS", "TINY", "Case", "data", "first", "make"]


@dataclass(frozen=True)
class Case:
    """How to build a model with a given neuron (None: its own), and the shape of one input.

    Attributes:
        build: neuron class or None -> model, ready to run on ``shape``.
        shape: of the input, ``[T, N, C, H, W]`` or what the model takes.
        own_neuron: the model has a neuron of its own and takes none.
    """

    build: Callable[[Any], nn.Module]
    shape: tuple[int, ...]
    own_neuron: bool = False


def multi(build: Callable[[Any], nn.Module]) -> Callable[[Any], nn.Module]:
    """Constructors of the zoo that leave the step mode to the caller."""

    def built(kind: Any) -> nn.Module:
        model = build(kind or neuron.LIFNode)
        functional.set_step_mode(model, "m")
        return model

    return built


def _vgg(kind: Any) -> nn.Module:
    """SpikingVGG's own features before a classifier that is smaller than its 120 million weights."""
    model = spiking_vgg.SpikingVGG.__new__(spiking_vgg.SpikingVGG)
    nn.Module.__init__(model)
    model.features = spiking_vgg.SpikingVGG.make_layers(
        cfg=[8, "M", 16, 16, "M"], batch_norm=True, norm_layer=None, neuron=kind, detach_reset=True
    )
    model.avgpool = layer.AdaptiveAvgPool2d((2, 2))
    model.classifier = nn.Sequential(
        layer.Linear(64, 32), kind(detach_reset=True), layer.Dropout(), layer.Linear(32, 10)
    )
    return model


LINKS = np.array([[0, 2, 1, 3], [0, 0, 4, 2], [0, 0, 0, 3], [0, 0, 0, 0]])


def _snas(kind: Any) -> nn.Module:
    options = types.SimpleNamespace(
        timestep=2, second_avgpooling=4, dataset="cifar10", celltype="forward", threshold=0.5, tau=4 / 3
    )
    return snas_net.SNASNet(options, LINKS)


def _snas_cell(kind: Any) -> nn.Module:
    options = types.SimpleNamespace(threshold=0.5, tau=4 / 3)
    cell = snas_net.Neuronal_Cell(options, 8, 8, LINKS)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), cell)


def _dhs(width: int) -> Callable[[Any], nn.Module]:
    def build(kind: Any) -> nn.Module:
        options = types.SimpleNamespace(
            fea_step=3, fea_num_layers=8, fea_block_multiplier=3, fea_filter_multiplier=width
        )
        model = spike_dhs.SpikeDHS(3, options)
        if width != 48:
            model.classifier = spike_dhs.SpikingLinear(12 * width, 10, spiking=False)
            model.feature.auxiliary_head = spike_dhs.AuxiliaryHeadCIFAR(12 * width, 10)
        functional.set_step_mode(model, "m")
        return model

    return build


IMAGE, SMALL = (2, 1, 3, 32, 32), (3, 2, 3, 16, 16)
LIF = {"detach_reset": True}

TINY: dict[str, Case] = {
    "SpikingResNet": Case(
        multi(lambda kind: spiking_resnet.SpikingResNet(
            spiking_resnet.Bottleneck, [1, 1, 1, 1], 10, width_per_group=8, spiking_neuron=kind, **LIF)), SMALL),
    "SEWResNet": Case(
        multi(lambda kind: sew_resnet.SEWResNet(
            sew_resnet.Bottleneck, [1, 1, 1, 1], 10, width_per_group=8, cnf="ADD", spiking_neuron=kind, **LIF)), SMALL),
    "SpikingVGG": Case(multi(_vgg), SMALL),
    "MNISTNet": Case(
        multi(lambda kind: parametric_lif_net.MNISTNet(8, spiking_neuron=kind, v_threshold=0.7)), (3, 2, 1, 28, 28)),
    "CIFAR10Net": Case(multi(lambda kind: parametric_lif_net.CIFAR10Net(8, spiking_neuron=kind)), IMAGE),
    "DVSGestureNet": Case(
        multi(lambda kind: parametric_lif_net.DVSGestureNet(4, spiking_neuron=kind)), (3, 1, 2, 128, 128)),
    "Spikformer": Case(
        lambda kind: spikformer.Spikformer(
            T=3, img_size_h=32, img_size_w=32, patch_size=4, num_classes=10, embed_dims=32, num_heads=4, depths=1,
            spiking_neuron=kind), (3, 1, 3, 32, 32)),
    "QKFormer": Case(
        lambda kind: qkformer.QKFormer(
            T=2, num_classes=10, embed_dims=32, num_heads=(1, 2, 4), depths=(1, 1, 1), spiking_neuron=kind), IMAGE),
    "MaxFormer": Case(
        lambda kind: maxformer.MaxFormer(
            T=2, num_classes=10, embed_dims=32, depths=(1, 1, 1), spiking_neuron=kind), IMAGE),
    "MSResNet": Case(
        lambda kind: ms_resnet.MSResNet(
            T=3, num_classes=10, layers=(1, 1, 1, 1), base_channels=8, stem_kernel_size=3, spiking_neuron=kind), IMAGE),
    "MaxResNet": Case(
        lambda kind: ms_resnet.MaxResNet(
            T=3, num_classes=10, layers=(1, 1, 1, 1), base_channels=8, stem_kernel_size=3, spiking_neuron=kind), IMAGE),
    "SpikeDrivenTransformer": Case(
        lambda kind: spike_driven_transformer.SpikeDrivenTransformer(
            T=2, num_classes=10, embed_dims=32, num_heads=4, depths=1, spiking_neuron=kind), IMAGE),
    "MASNN": Case(
        lambda kind: masnn.MASNN(
            T=5, input_size=(8, 8), channels=(8, 8, 8), fc_hidden=16, spiking_neuron=kind,
            **({"step_mode": "m"} if kind else {})), (5, 2, 2, 8, 8)),
    "AttMSResNet": Case(
        lambda kind: masnn.AttMSResNet(
            T=2, num_classes=10, layers=(1, 1, 1, 1), base_channels=8, stem_kernel_size=3, spiking_neuron=kind),
        IMAGE),
    "SNASNet cell": Case(_snas_cell, (2, 3, 8, 8), own_neuron=True),
    "SpikeDHS": Case(_dhs(4), (2, 3, 32, 32), own_neuron=True),
}  # fmt: skip

QUIET = {"SpikingVGG", "MNISTNet", "CIFAR10Net", "DVSGestureNet"}
LARGE = (2, 1, 3, 32, 32)


def _named(module: Any, names: str, shape: tuple[int, ...] = LARGE, **options: Any) -> dict[str, Case]:
    """Constructors of one module that differ by name alone."""

    def case(name: str) -> Case:
        return Case(multi(lambda kind: getattr(module, name)(spiking_neuron=kind, **options)), shape)

    return {name: case(name) for name in names.split()}


def _online(name: str, kind: Any) -> nn.Module:
    """OTTT's networks run one step per call; their own neuron has no counterpart, so LIF stands for it."""
    return getattr(spiking_vggws_ottt, name)(num_classes=10, spiking_neuron=kind or neuron.LIFNode)


_RES = "resnet18 resnet34 resnet50 resnet101 resnet152 "
_RES += "resnext50_32x4d resnext101_32x8d wide_resnet50_2 wide_resnet101_2"
_VGG = "spiking_vgg11 spiking_vgg13 spiking_vgg16 spiking_vgg19"
_OTTT = "vggws vgg11 vgg11_ws vgg13 vgg13_ws vgg16 vgg16_ws vgg19 vgg19_ws"

CONSTRUCTORS: dict[str, Case] = {
    **_named(spiking_resnet, " ".join(f"spiking_{name}" for name in _RES.split()), num_classes=10, **LIF),
    **_named(sew_resnet, " ".join(f"sew_{name}" for name in _RES.split()), num_classes=10, cnf="ADD", **LIF),
    **_named(spiking_vgg, f"{_VGG} " + " ".join(f"{name}_bn" for name in _VGG.split()), num_classes=10, **LIF),
    **_named(parametric_lif_net, "MNISTNet FashionMNISTNet", (2, 1, 1, 28, 28)),
    **_named(parametric_lif_net, "NMNISTNet", (2, 1, 2, 34, 34)),
    **_named(parametric_lif_net, "CIFAR10Net"),
    **_named(parametric_lif_net, "CIFAR10DVSNet DVSGestureNet", (2, 1, 2, 128, 128)),
    "spikformer_ti": Case(lambda kind: spikformer.spikformer_ti(T=2, spiking_neuron=kind), (2, 1, 3, 224, 224)),
    "spikformer_s": Case(lambda kind: spikformer.spikformer_s(T=2, spiking_neuron=kind), (2, 1, 3, 224, 224)),
    "spikformer_cifar10": Case(lambda kind: spikformer.spikformer_cifar10(T=2, spiking_neuron=kind), LARGE),
    "qkformer_10_384": Case(lambda kind: qkformer.qkformer_10_384(T=2, spiking_neuron=kind), (2, 1, 3, 224, 224)),
    "maxformer_10_384": Case(lambda kind: maxformer.maxformer_10_384(T=2, spiking_neuron=kind), (2, 1, 3, 224, 224)),
    "maxformer_cifar": Case(lambda kind: maxformer.maxformer_cifar(T=2, spiking_neuron=kind), LARGE),
    "ms_resnet18": Case(lambda kind: ms_resnet.ms_resnet18(T=2, spiking_neuron=kind), LARGE),
    "ms_resnet34": Case(lambda kind: ms_resnet.ms_resnet34(T=2, spiking_neuron=kind), LARGE),
    "max_resnet18": Case(lambda kind: ms_resnet.max_resnet18(T=2, spiking_neuron=kind), LARGE),
    "sdt_8_384": Case(lambda kind: spike_driven_transformer.sdt_8_384(T=2, spiking_neuron=kind), (2, 1, 3, 224, 224)),
    "masnn_dvs128_gesture": Case(
        lambda kind: masnn.masnn_dvs128_gesture(T=10, spiking_neuron=kind, **({"step_mode": "m"} if kind else {})),
        (10, 1, 2, 32, 32)),
    "att_ms_resnet18": Case(lambda kind: masnn.att_ms_resnet18(T=2, spiking_neuron=kind), LARGE),
    **{
        name: Case(functools.partial(_online, name), (2, 3, 32, 32))
        for name in (f"ottt_spiking_{net}" for net in _OTTT.split())
    },
    "SNASNet": Case(_snas, (2, 3, 32, 32), own_neuron=True),
    "SpikeDHS": Case(_dhs(48), (2, 3, 32, 32), own_neuron=True),
}  # fmt: skip


def data(shape: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return 2 * torch.rand(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def make(name: str, kind: Any = None, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor]:
    """A small model in evaluation mode whose neurons fire, and an input."""
    case = TINY[name]
    torch.manual_seed(0)
    model = case.build(kind).to(dtype)
    x = data(case.shape, dtype=dtype)
    for module in model.modules():
        if isinstance(module, nn.Linear):  # behind sparse spikes
            with torch.no_grad():
                module.weight.mul_(6 if name in QUIET else 1)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
            if module.affine:
                nn.init.uniform_(module.weight, 1.0, 3.0)
                nn.init.uniform_(module.bias, -0.2, 1.0)
    with torch.no_grad():
        model.train()(x)  # running statistics of real activity
    functional.reset_net(model)
    return model.eval(), x


def first(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else first(output[0])
