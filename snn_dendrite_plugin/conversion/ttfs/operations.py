"""What becomes of each operation of a ReLU network: one method per torch operation, for modules and functions."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from ...layers import TTFSAdaptiveAvgPool, TTFSAvgPool, TTFSConv1d, TTFSConv2d, TTFSLinear, TTFSMaxPool
from .stream import DOUBLE, Stream, affine, set_weights
from .walk import Walk

__all__ = ["Operations"]


class Operations(Walk):
    """The walk over a graph of the operations that have a TTFS form."""

    def convert(self, node: fx.Node) -> Stream:
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
                ((nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.Identity), lambda n, m: self.input(n)),
            ]
            for kind, convert in kinds:
                if type(module) in (kind if isinstance(kind, tuple) else (kind,)):
                    return convert(node, module)
            raise self.refuse(
                node,
                "only Linear, Conv1d/2d, BatchNorm1d/2d, ReLU, MaxPool, AvgPool, AdaptiveAvgPool, Dropout, Flatten, "
                "Identity and residual additions have a TTFS form",
            )
        convert = _FUNCTIONS.get(node.target)
        if convert is None:
            raise self.refuse(node, "it has no TTFS form")
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
        source = self.spikes(node, self.input(node))
        if module.padding_mode != "zeros":
            raise self.refuse(node, f"padding_mode is {module.padding_mode!r}; only 'zeros' (silence) has a TTFS form")
        if len(source.shape) != len(module.kernel_size) + 1:
            raise self.refuse(node, f"its input has the shape {source.shape} without the batch")
        weight, bias = self._weights(node, source, module)
        kind = TTFSConv1d if isinstance(module, nn.Conv1d) else TTFSConv2d
        layer = kind(
            module.in_channels, module.out_channels, module.kernel_size, module.stride, module.padding,
            module.dilation, module.groups, bias=False, fire=False,
        )  # fmt: skip
        return self._synapse(node, layer, source, weight, bias)

    def _linear(self, node: fx.Node, module: nn.Linear) -> Stream:
        source = self.spikes(node, self.input(node))
        if len(source.shape) != 1:
            raise self.refuse(node, f"its input has the shape {source.shape} without the batch; flatten it first")
        weight, bias = self._weights(node, source, module)
        layer = TTFSLinear(module.in_features, module.out_features, bias=False, fire=False)
        return self._synapse(node, layer, source, weight, bias)

    def _synapse(self, node: fx.Node, layer: nn.Module, source: Stream, weight: Tensor, bias: Tensor | None) -> Stream:
        set_weights(layer, weight, bias)
        made = self.add(self.name(node), layer, source.node)
        return Stream(made, self.shape(node), source.depth, False, synapses=((made, source),), layer=layer)

    def _batch_norm(self, node: fx.Node, module: nn.BatchNorm1d | nn.BatchNorm2d) -> Stream:
        if module.running_mean is None or module.running_var is None:
            raise self.refuse(node, "it has no running statistics, so it is not a fixed function in eval mode")
        source = self.input(node)
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
            raise self.refuse(
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
        source = self.input(node)
        if source.spikes and source.scale is None and source.shift is None:
            return source  # values of spikes are not negative
        if source.spikes:
            source = self.potential(self.name(node) + "_in", source)
        return self.fire(self.name(node), source)

    def _max_pool(self, node: fx.Node, module: Any) -> Stream:
        if module.return_indices:
            raise self.refuse(node, "return_indices is set; spike times carry no indices")
        options = (module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode)
        return self._pool_max(node, *options)

    def _pool_max(
        self, node: fx.Node, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
        ceil_mode: bool = False, return_indices: bool = False,
    ) -> Stream:  # fmt: skip
        source = self.input(node)
        if source.nonnegative:
            source = self.spikes(node, source)
        if not source.spikes:  # max and ReLU commute: fire first, then pool the spikes; the ReLU has nothing left to do
            users = list(node.users)
            if not users or not all(self._is_relu(user) for user in users):
                raise self.refuse(node, "it pools potentials, and no ReLU follows; pool after the ReLU")
            source = self.fire(self.name(users[0]), source)
        if len(source.shape) == 1:
            raise self.refuse(node, f"its input has the shape {source.shape} without the batch")
        latest = None
        if source.scale is not None and bool((source.scale < 0).any()):
            latest = source.scale < 0
        shift = source.shift
        if shift is not None:
            flat = shift.flatten(1)
            if not torch.allclose(flat, flat[:, :1].expand_as(flat), rtol=0, atol=1e-12):
                raise self.refuse(node, "it pools values whose constants differ from place to place")
            shift = flat[:, :1].reshape(-1, *[1] * (len(source.shape) - 1)).expand(self.shape(node)).clone()
        pool = TTFSMaxPool(kernel_size, stride or kernel_size, padding, dilation, ceil_mode, latest)
        made = self.add(self.name(node), pool, source.node)
        return Stream(made, self.shape(node), source.depth, True, source.scale, shift)

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
        source = self.input(node)
        if len(source.shape) == 1:
            raise self.refuse(node, f"its input has the shape {source.shape} without the batch")
        shift = None if source.shift is None else pool.pool(source.shift.unsqueeze(0))[0]
        made = self.add(self.name(node), pool, source.node)
        shape = (*source.shape[:1], *pool.pool(torch.empty(1, *source.shape, device="meta")).shape[2:])
        return dataclasses.replace(source, node=made, shape=shape, shift=shift, layer=None)

    def _flatten_module(self, node: fx.Node, module: nn.Flatten) -> Stream:
        if module.start_dim != 1 or module.end_dim not in (-1, len(self.input(node).shape)):
            raise self.refuse(node, f"it flattens dims {module.start_dim} to {module.end_dim}, not 1 to -1")
        return self._flatten(node)

    def _flatten(self, node: fx.Node) -> Stream:
        source, shape = self.input(node), self.shape(node)
        if len(shape) != 1 or torch.Size(source.shape).numel() != shape[0]:
            raise self.refuse(node, f"it turns {source.shape} into {shape}; only all but the batch can be flattened")
        return source if len(source.shape) == 1 else self.flat(self.name(node), source)

    def _plus(self, node: fx.Node) -> Stream:
        found = [a for a in node.args[:2] if isinstance(a, fx.Node) and a in self.streams]
        if len(found) != 2 or node.kwargs.get("alpha", 1) != 1:
            raise self.refuse(node, "only the sum of two values of the network has a TTFS form")
        terms = [self.streams[a] for a in found]
        if terms[0].shape != terms[1].shape:
            raise self.refuse(node, f"it adds {terms[0].shape} and {terms[1].shape}; broadcasting has no TTFS form")
        depth = max(term.depth for term in terms)
        parts = []
        for i, (argument, term) in enumerate(zip(found, terms, strict=True)):
            if term.depth < depth and not term.spikes and len(argument.users) > 1:
                raise self.refuse(node, f"{argument.name!r}, which it adds, is used elsewhere too, in another window")
            aligned = self.align(term, depth)
            parts.append(self.potential(f"{self.name(node)}_shortcut{i}", aligned))
        made = self.graph.call_function(operator.add, (parts[0].node, parts[1].node))
        synapses = parts[0].synapses + parts[1].synapses
        nonnegative = parts[0].nonnegative and parts[1].nonnegative
        return Stream(made, parts[0].shape, depth, False, synapses=synapses, nonnegative=nonnegative)

    def _call_avg(self, node: fx.Node) -> Stream:
        return self._average(node, TTFSAvgPool(*node.args[1:], **_rest(node)))

    def _call_adaptive(self, node: fx.Node) -> Stream:
        return self._average(node, TTFSAdaptiveAvgPool(*node.args[1:], **_rest(node)))

    def _call_max(self, node: fx.Node) -> Stream:
        return self._pool_max(node, *node.args[1:], **_rest(node))

    def _call_flatten(self, node: fx.Node) -> Stream:
        return self._flatten(node)

    def _call_pass(self, node: fx.Node) -> Stream:
        return self.input(node)

    def _call_dropout(self, node: fx.Node) -> Stream:
        if node.args[2] if len(node.args) > 2 else node.kwargs.get("training", True):
            raise self.refuse(node, "it drops values also in eval mode; call it with training=self.training")
        return self.input(node)

    def _call_mean(self, node: fx.Node) -> Stream:
        source = self.input(node)
        dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        dims = [dims] if isinstance(dims, int) else list(dims or [])
        total = len(source.shape) + 1
        if sorted(d % total for d in dims) != list(range(2, total)) or total == 2:
            raise self.refuse(node, "only the mean over all spatial dimensions has a TTFS form")
        pooled = self._average(node, TTFSAdaptiveAvgPool(1))
        keep = node.kwargs.get("keepdim", len(node.args) > 2 and node.args[2])
        return pooled if keep else self.flat(f"{self.name(node)}_flat", pooled)


_FUNCTIONS: dict[Any, Callable[[Operations, fx.Node], Stream]] = {
    **dict.fromkeys((F.relu, torch.relu, F.relu_, torch.relu_, "relu", "relu_"), Operations._relu),
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), Operations._plus),
    **dict.fromkeys((torch.flatten, "flatten", "view", "reshape", torch.reshape), Operations._call_flatten),
    **dict.fromkeys((F.max_pool2d, F.max_pool1d, torch.max_pool2d, torch.max_pool1d), Operations._call_max),
    **dict.fromkeys((F.avg_pool2d, F.avg_pool1d), Operations._call_avg),
    **dict.fromkeys((F.adaptive_avg_pool2d, F.adaptive_avg_pool1d), Operations._call_adaptive),
    **dict.fromkeys((F.dropout, F.dropout1d, F.dropout2d), Operations._call_dropout),
    "contiguous": Operations._call_pass,
    **dict.fromkeys((torch.mean, "mean"), Operations._call_mean),
}


def _rest(node: fx.Node) -> dict[str, Any]:
    return {key: value for key, value in node.kwargs.items() if key != "input"}
