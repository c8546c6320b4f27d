"""The walk over a ReLU network's graph (torch.fx) that builds its time-coded twin.

Every value of the network becomes a stream. A *spike* stream carries first spikes of values x and stands for
``scale_c x + shift``, per channel and per position: the input range and batch norms after the ReLU live there until the
next layer's weights and bias take them over. A *potential* stream is what synapses have summed, until a ReLU makes it
fire.
"""

from __future__ import annotations

import dataclasses
import operator

import torch
from torch import fx, nn

from ...layers import TTFSDecode, TTFSEncode, TTFSFire, TTFSFlatten, TTFSRelay, TTFSScale
from .stream import DOUBLE, Stream, narrow, plain

__all__ = ["Walk"]


class Walk:
    """Builds the time-coded graph; :attr:`root` and :attr:`graph` make a GraphModule of it.

    A subclass says in :meth:`convert` what becomes of each operation.
    """

    def __init__(
        self, traced: fx.GraphModule, low: float, high: float, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.traced, self.low, self.high = traced, low, high
        self.like = {"dtype": dtype, "device": device}
        self.root, self.graph = nn.Module(), fx.Graph()
        self.streams: dict[fx.Node, Stream] = {}
        self.relayed: dict[tuple[fx.Node, int], Stream] = {}
        self.depth_of: dict[str, int] = {}
        self.modules = dict(traced.named_modules())

    def run(self) -> fx.GraphModule:
        """The time-coded network as a GraphModule, eval mode."""
        for node in self.traced.graph.nodes:
            if node.op == "output":
                self._output(node)
            elif node.op == "placeholder":
                self._placeholder(node)
            elif node.op != "get_attr" and node.target not in ("size", getattr, operator.getitem):  # of views only
                self.streams[node] = self.convert(node)
        self.graph.lint()
        for name, module in self.root.named_children():
            module.to(**self.like)
            self.root.add_module(name, module)
        return fx.GraphModule(self.root, self.graph).eval()

    def depths(self) -> dict[str, int]:
        """The window of every emitting layer, by its name in the GraphModule; the encoder's is 0."""
        return dict(self.depth_of)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every node's values without the batch, by the node's name."""
        return {node.name: node.meta["shape"] for node in self.graph.nodes if "shape" in node.meta}

    def convert(self, node: fx.Node) -> Stream:
        """What an operation makes of its inputs; raises ValueError for one without a TTFS form."""
        raise NotImplementedError(f"{type(self).__name__} must implement convert(node)")

    # -- helpers ---------------------------------------------------------------------------------------------------

    def refuse(self, node: fx.Node, why: str) -> ValueError:
        if node.op == "call_module":
            kind = type(self.modules[node.target]).__name__
            return ValueError(f"cannot map module {node.target!r} ({kind}) to TTFS: {why}")
        name = getattr(node.target, "__name__", node.target)
        return ValueError(f"cannot map operation {node.name!r} ({name}) to TTFS: {why}")

    def input(self, node: fx.Node) -> Stream:
        found = node.args[0] if node.args else next(iter(node.kwargs.values()), None)
        if not isinstance(found, fx.Node) or found not in self.streams:
            raise self.refuse(node, "its input is not a value of the network")
        return self.streams[found]

    def add(self, name: str, module: nn.Module, source: fx.Node) -> fx.Node:
        name = name.replace(".", "_")
        while hasattr(self.root, name):
            name += "_"
        self.root.add_module(name, module)
        return self.graph.call_module(name, (source,))

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        meta = node.meta.get("tensor_meta")
        if meta is None or not hasattr(meta, "shape"):
            raise self.refuse(node, "it does not return one tensor")
        return tuple(meta.shape[1:])

    def name(self, node: fx.Node) -> str:
        return str(node.target) if node.op == "call_module" else node.name

    # -- ends ------------------------------------------------------------------------------------------------------

    def _placeholder(self, node: fx.Node) -> None:
        if self.streams:
            raise ValueError(f"model has a second input {node.target!r}; a TTFS network takes one")
        shape = self.shape(node)
        if not shape:
            raise ValueError("input must be [N, C, *]")
        source = self.add("encode", TTFSEncode(self.low, self.high), self.graph.placeholder("x"))
        self.depth_of[str(source.target)] = 0
        scale = torch.full((shape[0],), self.high - self.low, dtype=DOUBLE)
        shift = torch.full(shape, self.low, dtype=DOUBLE)
        self.streams[node] = plain(Stream(source, shape, 0, True, scale, shift))

    def _output(self, node: fx.Node) -> None:
        found = node.args[0]
        if not isinstance(found, fx.Node) or found not in self.streams:
            raise ValueError("model must return one tensor that its layers compute; it returns something else")
        stream = self.streams[found]
        if stream.spikes:
            if stream.scale is not None or stream.shift is not None:
                stream = self.potential(self.name(found) + "_readout", stream)
            else:
                stream = dataclasses.replace(stream, node=self.add("decode", TTFSDecode(), stream.node))
        self.graph.output(stream.node)

    # -- from potentials to spikes and back ------------------------------------------------------------------------

    def spikes(self, node: fx.Node, source: Stream) -> Stream:
        if source.spikes:
            return source
        if source.nonnegative:  # a sum of activations: neurons that fire pass it on unchanged
            return self.fire(f"{self.name(node)}_sum", source)
        raise self.refuse(node, "it follows another linear layer with no ReLU between them; merge the two first")

    def fire(self, name: str, source: Stream) -> Stream:
        made = self.add(name, TTFSFire(adaptive=False), source.node)
        self.depth_of[str(made.target)] = source.depth + 1
        return Stream(made, source.shape, source.depth + 1, True)

    def potential(self, name: str, source: Stream) -> Stream:
        """A spike stream as potentials, one synapse per neuron."""
        if not source.spikes:
            return source
        channels = source.shape[0]
        scale = torch.ones(channels, dtype=DOUBLE) if source.scale is None else source.scale
        made = self.add(name, TTFSScale(scale, narrow(source.shift)), source.node)
        nonnegative = all(t is None or bool((t >= 0).all()) for t in (source.scale, source.shift))
        return Stream(made, source.shape, source.depth, False, synapses=((made, source),), nonnegative=nonnegative)

    def flat(self, name: str, source: Stream) -> Stream:
        scale, shift = source.scale, source.shift
        shape = (torch.Size(source.shape).numel(),)
        if scale is not None:
            scale = scale.repeat_interleave(shape[0] // scale.numel())
        shift = None if shift is None else shift.flatten()
        made = self.add(name, TTFSFlatten(), source.node)
        return dataclasses.replace(source, node=made, shape=shape, scale=scale, shift=shift, layer=None)

    # -- streams of different depth --------------------------------------------------------------------------------

    def align(self, stream: Stream, depth: int) -> Stream:
        """The stream in window ``depth``: relay neurons carry its spikes through the windows between."""
        if stream.depth == depth:
            return stream
        if stream.spikes:
            return self._relay(stream, depth)
        synapses = []
        for made, source in stream.synapses:
            relayed = self._relay(source, depth)
            made.args = (relayed.node,)
            synapses.append((made, relayed))
        return dataclasses.replace(stream, depth=depth, synapses=tuple(synapses))

    def _relay(self, stream: Stream, depth: int) -> Stream:
        while stream.depth < depth:
            key = (stream.node, stream.depth)
            if key not in self.relayed:
                with self.graph.inserting_after(stream.node):
                    node = self.add(f"{stream.node.name}_relay", TTFSRelay(), stream.node)
                self.depth_of[str(node.target)] = stream.depth + 1
                self.relayed[key] = dataclasses.replace(stream, node=node, depth=stream.depth + 1)
            stream = dataclasses.replace(self.relayed[key], scale=stream.scale, shift=stream.shift)
        return stream
