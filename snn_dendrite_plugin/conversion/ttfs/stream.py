"""What the conversion of ReLU networks tracks: one stream per value of the network, and the traced graph."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, fx, nn

__all__ = ["DOUBLE", "Stream", "affine", "narrow", "plain", "set_weights", "trace"]

DOUBLE = torch.float64


@dataclasses.dataclass
class Stream:
    """One value of the network in the new graph.

    Attributes:
        node: the new graph's node, spike times or potentials.
        shape: without the batch.
        depth: the window in which the spikes come, the encoder's being 0; for potentials, the window they integrate.
        scale: ``[C]`` or None for 1; spike streams only. shift: ``[C, *]`` or None for 0.
        synapses: the layers whose potentials are summed here, with their sources; potential streams only.
        layer: the layer that alone makes this potential, into which a batch norm can be folded.
        nonnegative: potentials that cannot be negative (sums of spikes' values), which a ReLU would leave as they are.
    """

    node: fx.Node
    shape: tuple[int, ...]
    depth: int
    spikes: bool
    scale: Tensor | None = None
    shift: Tensor | None = None
    synapses: tuple[tuple[fx.Node, Stream], ...] = ()
    layer: nn.Module | None = None
    nonnegative: bool = False

    def __post_init__(self) -> None:
        self.node.meta["shape"] = self.shape


def trace(model: nn.Module, example: Tensor) -> fx.GraphModule:
    """The model's graph with the shape of every value on ``example``; raises ValueError where it cannot be traced."""
    from torch.fx.passes.shape_prop import ShapeProp

    try:
        traced = fx.symbolic_trace(model)
    except Exception as error:
        raise ValueError(
            f"model {type(model).__name__} cannot be traced by torch.fx ({type(error).__name__}: {error}); "
            "its forward must not depend on the values of tensors"
        ) from error
    traced.graph.eliminate_dead_code()
    try:
        with torch.no_grad():
            ShapeProp(traced).propagate(example)
    except Exception as error:
        raise ValueError(f"example of shape {tuple(example.shape)} does not run through the model: {error}") from error
    return traced


def set_weights(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    layer.weight = nn.Parameter(weight)
    layer.bias = None if bias is None else nn.Parameter(bias)


def narrow(shift: Tensor | None) -> Tensor | None:
    """A shift ``[C, *]`` as ``[C]`` where it is the same at all positions."""
    if shift is None or shift.dim() == 1:
        return shift
    flat = shift.flatten(1)
    return flat[:, 0] if bool((flat == flat[:, :1]).all()) else shift


def plain(stream: Stream) -> Stream:
    """Without a scale of 1 and a shift of 0."""
    if stream.scale is not None and bool((stream.scale == 1).all()):
        stream.scale = None
    if stream.shift is not None and not bool(stream.shift.any()):
        stream.shift = None
    return stream


def affine(stream: Stream, factor: Tensor, offset: Tensor) -> Stream:
    """``factor * (the stream) + offset``, per channel."""
    column = [-1, *[1] * (len(stream.shape) - 1)]
    scale = factor if stream.scale is None else factor * stream.scale
    shift = offset.reshape(column).expand(stream.shape)
    if stream.shift is not None:
        shift = shift + factor.reshape(column) * stream.shift
    return plain(dataclasses.replace(stream, scale=scale, shift=shift.clone()))
