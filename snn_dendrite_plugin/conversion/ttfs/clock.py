"""A time-coded network put on a clock: binary spikes through a host's own layers and ``TTFS`` neurons."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from ...adapters.base import Kit
from ...kernels.ttfs import Settings
from ...layers import (
    ClockedDecoder,
    ClockedEncoder,
    ClockedMaxPool,
    ClockedReadout,
    ClockedScale,
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
from ...layers.ttfs.clocked import Clocked
from ...layers.ttfs.pooling import is_identity
from ...neurons.base import Firing
from ...neurons.ttfs import TTFS
from ...plugins import adapters

if TYPE_CHECKING:
    from .network import TTFSNetwork

__all__ = ["ClockDriven", "clock_driven"]


class ClockDriven(nn.Module):
    """A ReLU network in binary first spikes, made by :meth:`TTFSNetwork.clock_driven`.

    ``forward`` takes images ``[N, C, *]``. In multi-step mode (the default in hosts that have it) it runs all windows
    layer by layer and returns the outputs ``[N, *]``. In single-step mode every call is one time step, all layers at
    once, and returns the output's potential so far: the outputs after ``latency`` calls. :meth:`run` does what is right
    in both.

    It trains like any network of its host; the gradient is straight through the rounding of spike times to bins.

    Attributes:
        steps: time steps per window. windows: number of windows until the output is complete. latency: their product.
        host: name of a host, or None.
        sequences: whether the host has a multi-step mode; snnTorch has none.
        net: the layers, a :class:`torch.fx.GraphModule`.
    """

    def __init__(self, net: fx.GraphModule, steps: int, windows: int, host: str | None, sequences: bool) -> None:
        super().__init__()
        self.net, self.steps, self.windows, self.host, self.sequences = net, steps, windows, host, sequences
        self._set("m" if sequences else "s")

    @property
    def latency(self) -> int:
        """Time steps from the image to the output."""
        return self.steps * self.windows

    @property
    def single_step(self) -> bool:
        """Whether a call is one time step."""
        return any(getattr(module, "step_mode", "m") == "s" for module in self.net.modules())

    @single_step.setter
    def single_step(self, value: bool) -> None:
        if not self.sequences and not value:
            raise ValueError(f"single_step is False, but the neurons of {self.host} take one step per call")
        self._set("s" if value else "m")
        self.reset()

    def _set(self, mode: str) -> None:
        for module in self.net.modules():
            if hasattr(module, "step_mode"):
                module.step_mode = mode

    def reset(self) -> None:
        """Reset all states: call it before every new input in single-step mode, as the host's own reset does."""
        for module in self.net.modules():
            if isinstance(module, (Clocked, _Node)):
                module.reset()
        if self.host is not None:
            host_adapter(self.host).before_swap(self.net)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def run(self, x: Tensor) -> Tensor:
        """Outputs for the images ``x [N, C, *]``, from reset states, in either mode."""
        self.reset()
        if not self.single_step:
            return self(x)
        for _ in range(self.latency - 1):
            self(x)
        return self(x)


class _Stepwise(nn.Module):
    """A plain layer on sequences: time and batch together in multi-step mode."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.step_mode = layer, "m"

    def forward(self, x: Tensor) -> Tensor:
        if self.step_mode == "s":
            return self.layer(x)
        return self.layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class _Node(nn.Module):
    """The TTFS model with its states, where no host has a shell for it."""

    def __init__(self, model: TTFS) -> None:
        super().__init__()
        self.model, self.step_mode = model, "m"
        self.firing, self.states = Firing(), None

    def reset(self) -> None:
        self.states = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "states": None}

    def forward(self, x: Tensor) -> Tensor:
        if self.step_mode == "m":
            return self.model.run(x, None, self.firing)[0]
        states = self.model.init_states(x) if self.states is None else self.states
        spikes, self.states = self.model.advance(x, states, self.firing)
        return spikes


class _TorchKit(Kit):
    """Plain torch layers and the bare model, for no host; as :class:`~snn_dendrite_plugin.adapters.base.Kit`."""

    sequences = True

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def layer(self, plain: nn.Module) -> nn.Module:
        return _Stepwise(plain)

    def neuron(self, window: float, input_window: float, bias: Tensor | None) -> nn.Module:
        return _Node(TTFS(self.steps, window, input_window, bias))


def host_adapter(host: str) -> Any:
    """The registered adapter of a host, which is imported for the purpose."""
    found = {spec.host: spec for spec in adapters().values()}
    if host not in found:
        raise ValueError(f"host is {host!r}; it must be one of {', '.join(map(repr, (None, *found)))}")
    return found[host].load()


@dataclasses.dataclass
class _Value:
    """A value of the time-coded network on the clock: a spike stream with its window, or a current with its bias."""

    node: fx.Node
    window: float
    binary: bool = True
    layers: tuple[nn.Module, ...] = ()  # whose weights make this current
    bias: Tensor | None = None
    shape: tuple[int, ...] = ()


def clock_driven(network: TTFSNetwork, steps: int, host: str | None = None) -> ClockDriven:
    """See :meth:`TTFSNetwork.clock_driven`; raises ValueError for an unknown host, or a pooling that has no spikes."""
    Settings(steps)
    kit = _TorchKit(steps) if host is None else host_adapter(host).kit(steps)
    like = next(network.parameters())
    net = _Builder(network, kit).run().to(device=like.device, dtype=like.dtype)
    return ClockDriven(net.train(network.training), steps, network.windows, host, kit.sequences)


class _Builder:
    """Walks a time-coded graph; every layer becomes the host's, biases move into the neurons they feed."""

    def __init__(self, network: TTFSNetwork, kit: Kit) -> None:
        self.source, self.shapes, self.kit = network.graph_module, network.shapes, kit
        self.root, self.graph = nn.Module(), fx.Graph()
        self.values: dict[fx.Node, _Value] = {}

    def run(self) -> fx.GraphModule:
        for node in self.source.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = _Value(self.graph.placeholder("x"), 1.0)
            elif node.op == "output":
                self.graph.output(self._output(self.values[node.args[0]]).node)
            elif node.op == "call_function":
                self.values[node] = self._add([self.values[a] for a in node.args])
            else:
                module = self.source.get_submodule(node.target)
                convert = next(f for kind, f in _LAYERS if isinstance(module, kind))
                self.values[node] = convert(self, node, module, self.values[node.args[0]])
        self.graph.lint()
        return fx.GraphModule(self.root, self.graph)

    def _make(self, node: fx.Node | str, module: nn.Module, source: _Value, **changes: Any) -> _Value:
        name = node if isinstance(node, str) else str(node.target)
        self.root.add_module(name, module)
        shape = self.shapes.get(node.name, source.shape) if isinstance(node, fx.Node) else source.shape
        return dataclasses.replace(source, node=self.graph.call_module(name, (source.node,)), shape=shape, **changes)

    def _output(self, value: _Value) -> _Value:
        if not value.layers:
            return value
        return self._make("readout", self.kit.clocked(ClockedReadout, value.window, value.bias), value)

    def _encode(self, node: fx.Node, module: TTFSEncode, source: _Value) -> _Value:
        return self._make(node, self.kit.clocked(ClockedEncoder, module.low, module.high), source)

    def _decode(self, node: fx.Node, module: TTFSDecode, source: _Value) -> _Value:
        return self._make(node, self.kit.clocked(ClockedDecoder, source.window), source)

    def _fire(self, node: fx.Node, module: TTFSFire, source: _Value) -> _Value:
        window = module.window.item()
        neuron = self.kit.neuron(window, source.window, source.bias)
        return self._make(node, neuron, source, window=window, binary=True, layers=(), bias=None)

    def _relay(self, node: fx.Node, module: TTFSRelay, source: _Value) -> _Value:
        return self._make(node, self.kit.neuron(source.window, source.window, None), source)

    def _synapse(self, node: fx.Node, module: Any, source: _Value) -> _Value:
        weight = module.effective_weight().detach()
        if isinstance(module, TTFSLinear):
            layer: Any = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        else:
            kind = nn.Conv1d if isinstance(module, TTFSConv1d) else nn.Conv2d
            layer = kind(
                weight.shape[1] * module.groups, weight.shape[0], tuple(weight.shape[2:]), module.stride,
                module.padding, module.dilation, module.groups, bias=False,
            )  # fmt: skip
        layer.weight = nn.Parameter(weight.clone())
        made = self.kit.layer(layer)
        return self._make(node, made, source, layers=(made,), bias=_copy(module.bias))

    def _scale(self, node: fx.Node, module: TTFSScale, source: _Value) -> _Value:
        if is_identity(module):  # the spikes themselves are the current; a layer to scale where windows differ
            module = TTFSScale(torch.ones_like(module.weight))
        layer = self.kit.clocked(ClockedScale, module.weight)
        return self._make(node, layer, source, layers=(layer,), bias=_copy(module.bias))

    def _max_pool(self, node: fx.Node, module: TTFSMaxPool, source: _Value) -> _Value:
        if not source.binary:
            raise ValueError(
                f"cannot put {node.target!r} (max pooling) on a clock: it pools averages, which are no single spikes"
            )
        latest = None if module.sign is None else module.sign > 0
        return self._make(node, self.kit.clocked(ClockedMaxPool, **module.options, latest=latest), source)

    def _avg_pool(self, node: fx.Node, module: TTFSAvgPool, source: _Value) -> _Value:
        shape, bias = source.shape, source.bias
        dims = len(shape) - 1
        if bias is not None:
            bias = bias.reshape(*bias.shape, *[1] * (len(shape) - bias.dim())).expand(shape)
            bias = module.pool(bias.unsqueeze(0))[0]
        if isinstance(module, TTFSAdaptiveAvgPool):
            layer: nn.Module = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)[dims - 1](**module.options)
        else:
            layer = (nn.AvgPool1d, nn.AvgPool2d)[dims - 1](**module.options)
        return self._make(node, self.kit.layer(layer), source, binary=False, bias=bias)

    def _flatten(self, node: fx.Node, module: TTFSFlatten, source: _Value) -> _Value:
        bias = source.bias
        if bias is not None:
            shape = source.shape
            bias = bias.reshape(*bias.shape, *[1] * (len(shape) - bias.dim())).expand(shape).flatten()
        return self._make(node, self.kit.layer(nn.Flatten()), source, bias=bias)

    def _add(self, terms: list[_Value]) -> _Value:
        first, second = terms
        if second.window != first.window:  # one charge rate per neuron: the weights take over the ratio
            for layer in second.layers:
                weight = next(layer.parameters())
                weight.data.mul_(second.window / first.window)
        biases = [t.bias for t in terms if t.bias is not None]
        dims = max((b.dim() for b in biases), default=0)
        biases = [b.reshape(*b.shape, *[1] * (dims - b.dim())) for b in biases]
        return dataclasses.replace(
            first,
            node=self.graph.call_function(operator.add, (first.node, second.node)),
            layers=first.layers + second.layers,
            bias=sum(biases[1:], biases[0]) if biases else None,
        )


def _copy(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.detach().clone()


_LAYERS: list[tuple[Any, Callable[..., _Value]]] = [
    (TTFSEncode, _Builder._encode),
    (TTFSDecode, _Builder._decode),
    (TTFSRelay, _Builder._relay),
    (TTFSFire, _Builder._fire),
    ((TTFSLinear, TTFSConv1d, TTFSConv2d), _Builder._synapse),
    (TTFSScale, _Builder._scale),
    (TTFSMaxPool, _Builder._max_pool),
    (TTFSAvgPool, _Builder._avg_pool),
    (TTFSFlatten, _Builder._flatten),
]
