"""The walk over a ReLU network's graph (torch.fx) that builds its time-coded twin.

Every value of the network becomes a stream. A *spike* stream carries first spikes of values x and stands for
``scale_c x + shift``, per channel and per position: the input range and batch norms after the ReLU live there until the
next layer's weights and bias take them over. A *potential* stream is what synapses have summed, until a ReLU makes it
fire.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from ...layers import (
    TTFSAdaptiveAvgPool,
    TTFSAvgPool,
    TTFSConv1d,
    TTFSConv2d,
    TTFSDecode,
    TTFSEncode,
    TTFSFire,
    TTFSFlatten,
    TTFSLinear,
    TTFSMaxPool,
    TTFSRelay,
    TTFSScale,
)
from .stream import Stream, affine, narrow, plain, set_weights

__all__ = ["Walk"]

DOUBLE = torch.float64


class Walk:
    """Builds the time-coded graph; :attr:`root` and :attr:`graph` make a GraphModule of it."""

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
                self.streams[node] = self._convert(node)
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

    # -- helpers ---------------------------------------------------------------------------------------------------

    def _refuse(self, node: fx.Node, why: str) -> ValueError:
        if node.op == "call_module":
            kind = type(self.modules[node.target]).__name__
            return ValueError(f"cannot map module {node.target!r} ({kind}) to TTFS: {why}")
        name = getattr(node.target, "__name__", node.target)
        return ValueError(f"cannot map operation {node.name!r} ({name}) to TTFS: {why}")

    def _input(self, node: fx.Node) -> Stream:
        found = node.args[0] if node.args else next(iter(node.kwargs.values()), None)
        if not isinstance(found, fx.Node) or found not in self.streams:
            raise self._refuse(node, "its input is not a value of the network")
        return self.streams[found]

    def _add(self, name: str, module: nn.Module, source: fx.Node) -> fx.Node:
        name = name.replace(".", "_")
        while hasattr(self.root, name):
            name += "_"
        self.root.add_module(name, module)
        return self.graph.call_module(name, (source,))

    def _shape(self, node: fx.Node) -> tuple[int, ...]:
        meta = node.meta.get("tensor_meta")
        if meta is None or not hasattr(meta, "shape"):
            raise self._refuse(node, "it does not return one tensor")
        return tuple(meta.shape[1:])

    def _name(self, node: fx.Node) -> str:
        return str(node.target) if node.op == "call_module" else node.name

    # -- ends ------------------------------------------------------------------------------------------------------

    def _placeholder(self, node: fx.Node) -> None:
        if self.streams:
            raise ValueError(f"model has a second input {node.target!r}; a TTFS network takes one")
        shape = self._shape(node)
        if not shape:
            raise ValueError("input must be [N, C, *]")
        source = self._add("encode", TTFSEncode(self.low, self.high), self.graph.placeholder("x"))
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
                stream = self._potential(self._name(found) + "_readout", stream)
            else:
                stream = dataclasses.replace(stream, node=self._add("decode", TTFSDecode(), stream.node))
        self.graph.output(stream.node)

    # -- operations ------------------------------------------------------------------------------------------------

    def _convert(self, node: fx.Node) -> Stream:
        if node.op == "call_module":
            module = self.modules[node.target]
            kinds: list[tuple[Any, Callable[..., Stream]]] = [
                ((nn.Conv1d, nn.Conv2d), self._conv),
                (nn.Linear, self._linear),
                ((nn.BatchNorm1d, nn.BatchNorm2d), self._batch_norm),
                (nn.ReLU, lambda n, m: self._relu(n)),
                ((nn.MaxPool1d, nn.MaxPool2d), self._max_pool),
                ((nn.AvgPool1d, nn.AvgPool2d), self._avg_pool),
                ((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d), self._adaptive),
                (nn.Flatten, self._flatten_module),
                ((nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.Identity), lambda n, m: self._input(n)),
            ]
            for kind, convert in kinds:
                if type(module) in (kind if isinstance(kind, tuple) else (kind,)):
                    return convert(node, module)
            raise self._refuse(
                node,
                "only Linear, Conv1d/2d, BatchNorm1d/2d, ReLU, MaxPool, AvgPool, AdaptiveAvgPool, Dropout, Flatten, "
                "Identity and residual additions have a TTFS form",
            )
        convert = _FUNCTIONS.get(node.target)
        if convert is None:
            raise self._refuse(node, "it has no TTFS form")
        return convert(self, node)

    def _weights(self, node: fx.Node, source: Stream, module: nn.Module) -> tuple[Tensor, Tensor | None]:
        """Weight and bias in float64, the source's scale and shift folded in; the bias is a map where it must be."""
        weight = module.weight.detach().to("cpu", DOUBLE)
        bias = None if module.bias is None else module.bias.detach().to("cpu", DOUBLE)
        convolve = isinstance(module, (nn.Conv1d, nn.Conv2d))
        if source.shift is not None:
            shift = source.shift.unsqueeze(0)
            if convolve:
                conv = F.conv1d if weight.dim() == 3 else F.conv2d
                constant = conv(shift, weight, None, module.stride, module.padding, module.dilation, module.groups)[
                    0
                ]  # zero padding cuts the constant off at the border: one value per position
                flat = constant.flatten(1)
                if bool((flat == flat[:, :1]).all()) or float((flat - flat[:, :1]).abs().max()) < 1e-14:
                    constant = flat[:, 0]
            else:
                constant = F.linear(shift, weight)[0]
            bias = constant if bias is None else constant + bias.reshape(-1, *[1] * (constant.dim() - 1))
        if source.scale is not None:
            groups = getattr(module, "groups", 1)
            rows = source.scale.reshape(groups, -1).repeat_interleave(weight.shape[0] // groups, 0)
            weight = weight * rows.reshape(*rows.shape, *[1] * (weight.dim() - 2))
        return weight, bias

    def _conv(self, node: fx.Node, module: nn.Conv1d | nn.Conv2d) -> Stream:
        source = self._spikes(node, self._input(node))
        if module.padding_mode != "zeros":
            raise self._refuse(node, f"padding_mode is {module.padding_mode!r}; only 'zeros' (silence) has a TTFS form")
        if len(source.shape) != len(module.kernel_size) + 1:
            raise self._refuse(node, f"its input has the shape {source.shape} without the batch")
        weight, bias = self._weights(node, source, module)
        kind = TTFSConv1d if isinstance(module, nn.Conv1d) else TTFSConv2d
        layer = kind(
            module.in_channels, module.out_channels, module.kernel_size, module.stride, module.padding,
            module.dilation, module.groups, bias=False, fire=False,
        )  # fmt: skip
        return self._synapse(node, layer, source, weight, bias)

    def _linear(self, node: fx.Node, module: nn.Linear) -> Stream:
        source = self._spikes(node, self._input(node))
        if len(source.shape) != 1:
            raise self._refuse(node, f"its input has the shape {source.shape} without the batch; flatten it first")
        weight, bias = self._weights(node, source, module)
        layer = TTFSLinear(module.in_features, module.out_features, bias=False, fire=False)
        return self._synapse(node, layer, source, weight, bias)

    def _synapse(self, node: fx.Node, layer: nn.Module, source: Stream, weight: Tensor, bias: Tensor | None) -> Stream:
        set_weights(layer, weight, bias)
        made = self._add(self._name(node), layer, source.node)
        return Stream(made, self._shape(node), source.depth, False, synapses=((made, source),), layer=layer)

    def _spikes(self, node: fx.Node, source: Stream) -> Stream:
        if source.spikes:
            return source
        if source.nonnegative:  # a sum of activations: neurons that fire pass it on unchanged
            return self._fire(f"{self._name(node)}_sum", source)
        raise self._refuse(node, "it follows another linear layer with no ReLU between them; merge the two first")

    def _batch_norm(self, node: fx.Node, module: nn.BatchNorm1d | nn.BatchNorm2d) -> Stream:
        if module.running_mean is None or module.running_var is None:
            raise self._refuse(node, "it has no running statistics, so it is not a fixed function in eval mode")
        source = self._input(node)
        variance = module.running_var.detach().to("cpu", DOUBLE)
        factor = (variance + module.eps).rsqrt()
        offset = torch.zeros_like(factor)
        if module.weight is not None:
            factor = factor * module.weight.detach().to("cpu", DOUBLE)
            offset = module.bias.detach().to("cpu", DOUBLE)
        offset = offset - module.running_mean.detach().to("cpu", DOUBLE) * factor
        if source.spikes:
            return affine(source, factor, offset)
        argument = node.args[0]
        if source.layer is None or len(argument.users) > 1:
            raise self._refuse(
                node, "it normalises a sum or a value used elsewhere too, which no single layer's weights can take over"
            )
        weight, bias = source.layer.weight.detach(), source.layer.bias
        rows = factor.reshape(-1, *[1] * (weight.dim() - 1))
        if bias is None:
            bias = offset
        else:
            column = [-1, *[1] * (bias.dim() - 1)]
            bias = bias.detach() * factor.reshape(column) + offset.reshape(column)
        set_weights(source.layer, weight * rows, bias)
        return source

    def _relu(self, node: fx.Node) -> Stream:
        source = self._input(node)
        if source.spikes and source.scale is None and source.shift is None:
            return source  # values of spikes are not negative
        if source.spikes:
            source = self._potential(self._name(node) + "_in", source)
        return self._fire(self._name(node), source)

    def _fire(self, name: str, source: Stream) -> Stream:
        made = self._add(name, TTFSFire(adaptive=False), source.node)
        self.depth_of[str(made.target)] = source.depth + 1
        return Stream(made, source.shape, source.depth + 1, True)

    def _potential(self, name: str, source: Stream) -> Stream:
        """A spike stream as potentials, one synapse per neuron."""
        if not source.spikes:
            return source
        channels = source.shape[0]
        scale = torch.ones(channels, dtype=DOUBLE) if source.scale is None else source.scale
        made = self._add(name, TTFSScale(scale, narrow(source.shift)), source.node)
        nonnegative = all(t is None or bool((t >= 0).all()) for t in (source.scale, source.shift))
        return Stream(made, source.shape, source.depth, False, synapses=((made, source),), nonnegative=nonnegative)

    def _max_pool(self, node: fx.Node, module: Any) -> Stream:
        if module.return_indices:
            raise self._refuse(node, "return_indices is set; spike times carry no indices")
        options = (module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode)
        return self._pool_max(node, *options)

    def _pool_max(
        self, node: fx.Node, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
        ceil_mode: bool = False, return_indices: bool = False,
    ) -> Stream:  # fmt: skip
        source = self._input(node)
        if source.nonnegative:
            source = self._spikes(node, source)
        if not source.spikes:  # max and ReLU commute: fire first, then pool the spikes; the ReLU has nothing left to do
            users = list(node.users)
            if not users or not all(self._is_relu(user) for user in users):
                raise self._refuse(node, "it pools potentials, and no ReLU follows; pool after the ReLU")
            source = self._fire(self._name(users[0]), source)
        if len(source.shape) == 1:
            raise self._refuse(node, f"its input has the shape {source.shape} without the batch")
        latest = None
        if source.scale is not None and bool((source.scale < 0).any()):
            latest = source.scale < 0
        shift = source.shift
        if shift is not None:
            flat = shift.flatten(1)
            if not torch.allclose(flat, flat[:, :1].expand_as(flat), rtol=0, atol=1e-12):
                raise self._refuse(node, "it pools values whose constants differ from place to place")
            shift = flat[:, :1].reshape(-1, *[1] * (len(source.shape) - 1)).expand(self._shape(node)).clone()
        pool = TTFSMaxPool(kernel_size, stride or kernel_size, padding, dilation, ceil_mode, latest)
        made = self._add(self._name(node), pool, source.node)
        return Stream(made, self._shape(node), source.depth, True, source.scale, shift)

    def _is_relu(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return type(self.modules[node.target]) is nn.ReLU
        return node.target in (F.relu, torch.relu, F.relu_, torch.relu_, "relu", "relu_")

    def _avg_pool(self, node: fx.Node, module: Any) -> Stream:
        override = getattr(module, "divisor_override", None)
        pool = TTFSAvgPool(
            module.kernel_size, module.stride, module.padding, module.ceil_mode, module.count_include_pad, override
        )
        return self._average(node, pool)

    def _adaptive(self, node: fx.Node, module: Any) -> Stream:
        return self._average(node, TTFSAdaptiveAvgPool(module.output_size))

    def _average(self, node: fx.Node, pool: TTFSAvgPool) -> Stream:
        source = self._input(node)
        if len(source.shape) == 1:
            raise self._refuse(node, f"its input has the shape {source.shape} without the batch")
        shift = None if source.shift is None else pool.pool(source.shift.unsqueeze(0))[0]
        made = self._add(self._name(node), pool, source.node)
        shape = (*source.shape[:1], *pool.pool(torch.empty(1, *source.shape, device="meta")).shape[2:])
        return dataclasses.replace(source, node=made, shape=shape, shift=shift, layer=None)

    def _flatten_module(self, node: fx.Node, module: nn.Flatten) -> Stream:
        if module.start_dim != 1 or module.end_dim not in (-1, len(self._input(node).shape)):
            raise self._refuse(node, f"it flattens dims {module.start_dim} to {module.end_dim}, not 1 to -1")
        return self._flatten(node)

    def _flatten(self, node: fx.Node) -> Stream:
        source, shape = self._input(node), self._shape(node)
        if len(shape) != 1 or torch.Size(source.shape).numel() != shape[0]:
            raise self._refuse(node, f"it turns {source.shape} into {shape}; only all but the batch can be flattened")
        return source if len(source.shape) == 1 else self._flat(self._name(node), source)

    def _flat(self, name: str, source: Stream) -> Stream:
        scale, shift = source.scale, source.shift
        shape = (torch.Size(source.shape).numel(),)
        if scale is not None:
            scale = scale.repeat_interleave(shape[0] // scale.numel())
        shift = None if shift is None else shift.flatten()
        made = self._add(name, TTFSFlatten(), source.node)
        return dataclasses.replace(source, node=made, shape=shape, scale=scale, shift=shift, layer=None)

    def _plus(self, node: fx.Node) -> Stream:
        found = [a for a in node.args[:2] if isinstance(a, fx.Node) and a in self.streams]
        if len(found) != 2 or node.kwargs.get("alpha", 1) != 1:
            raise self._refuse(node, "only the sum of two values of the network has a TTFS form")
        terms = [self.streams[a] for a in found]
        if terms[0].shape != terms[1].shape:
            raise self._refuse(node, f"it adds {terms[0].shape} and {terms[1].shape}; broadcasting has no TTFS form")
        depth = max(term.depth for term in terms)
        parts = []
        for i, (argument, term) in enumerate(zip(found, terms, strict=True)):
            if term.depth < depth and not term.spikes and len(argument.users) > 1:
                raise self._refuse(node, f"{argument.name!r}, which it adds, is used elsewhere too, in another window")
            aligned = self._align(term, depth)
            parts.append(self._potential(f"{self._name(node)}_shortcut{i}", aligned))
        made = self.graph.call_function(operator.add, (parts[0].node, parts[1].node))
        synapses = parts[0].synapses + parts[1].synapses
        nonnegative = parts[0].nonnegative and parts[1].nonnegative
        return Stream(made, parts[0].shape, depth, False, synapses=synapses, nonnegative=nonnegative)

    def _align(self, stream: Stream, depth: int) -> Stream:
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
                    node = self._add(f"{stream.node.name}_relay", TTFSRelay(), stream.node)
                self.depth_of[str(node.target)] = stream.depth + 1
                self.relayed[key] = dataclasses.replace(stream, node=node, depth=stream.depth + 1)
            stream = dataclasses.replace(self.relayed[key], scale=stream.scale, shift=stream.shift)
        return stream

    # -- functions and methods -------------------------------------------------------------------------------------

    def _call_avg(self, node: fx.Node) -> Stream:
        return self._average(node, TTFSAvgPool(*node.args[1:], **_rest(node)))

    def _call_adaptive(self, node: fx.Node) -> Stream:
        return self._average(node, TTFSAdaptiveAvgPool(*node.args[1:], **_rest(node)))

    def _call_max(self, node: fx.Node) -> Stream:
        return self._pool_max(node, *node.args[1:], **_rest(node))

    def _call_flatten(self, node: fx.Node) -> Stream:
        return self._flatten(node)

    def _call_pass(self, node: fx.Node) -> Stream:
        return self._input(node)

    def _call_dropout(self, node: fx.Node) -> Stream:
        if node.args[2] if len(node.args) > 2 else node.kwargs.get("training", True):
            raise self._refuse(node, "it drops values also in eval mode; call it with training=self.training")
        return self._input(node)

    def _call_mean(self, node: fx.Node) -> Stream:
        source = self._input(node)
        dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        dims = [dims] if isinstance(dims, int) else list(dims or [])
        total = len(source.shape) + 1
        if sorted(d % total for d in dims) != list(range(2, total)) or total == 2:
            raise self._refuse(node, "only the mean over all spatial dimensions has a TTFS form")
        pooled = self._average(node, TTFSAdaptiveAvgPool(1))
        keep = node.kwargs.get("keepdim", len(node.args) > 2 and node.args[2])
        return pooled if keep else self._flat(f"{self._name(node)}_flat", pooled)


_FUNCTIONS: dict[Any, Callable[[Walk, fx.Node], Stream]] = {
    **dict.fromkeys((F.relu, torch.relu, F.relu_, torch.relu_, "relu", "relu_"), Walk._relu),
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), Walk._plus),
    **dict.fromkeys((torch.flatten, "flatten", "view", "reshape", torch.reshape), Walk._call_flatten),
    **dict.fromkeys((F.max_pool2d, F.max_pool1d, torch.max_pool2d, torch.max_pool1d), Walk._call_max),
    **dict.fromkeys((F.avg_pool2d, F.avg_pool1d), Walk._call_avg),
    **dict.fromkeys((F.adaptive_avg_pool2d, F.adaptive_avg_pool1d), Walk._call_adaptive),
    **dict.fromkeys((F.dropout, F.dropout1d, F.dropout2d), Walk._call_dropout),
    "contiguous": Walk._call_pass,
    **dict.fromkeys((torch.mean, "mean"), Walk._call_mean),
}


def _rest(node: fx.Node) -> dict[str, Any]:
    return {key: value for key, value in node.kwargs.items() if key != "input"}
