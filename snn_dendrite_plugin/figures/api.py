"""``snn_dendrite_plugin.summary``: a table of what each layer of a network is and does on an example input."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode

from .. import tables
from ..conversion.example import call, describe, first_tensor
from ..conversion.surgery import active_adapters, find_modules, reset_states
from . import elementwise, synapses
from .untouched import untouched

__all__ = ["LayerFigures", "Summary", "summary"]


@dataclasses.dataclass
class LayerFigures:
    """One layer on the example input: sums over all its calls, all steps and the whole batch.

    Attributes:
        name, kind: its qualified name and its class; a module that is used in several places stands once.
        output_shape: shape of what it returned (of its first tensor) at the last call; None where that is no tensor.
        parameters: elements of its own parameters, those of a neuron's parts included.
        neuron: it is a neuron of one of the hosts, or of ours.
        calls: how often it ran: once where it takes sequences, once per step where it takes steps.
        spikes, neuron_steps: non-zero values that a neuron sent, and how many it could have sent.
        accumulates: synaptic operations with spikes: one addition each.
        multiply_accumulates: synaptic operations with real numbers: one multiplication and one addition each.
        additions, multiplications, comparisons, functions: element-wise operations of a neuron, by the equations for
            ours, as torch runs them for the hosts'. None where a library's own kernel runs, which shows none.
    """

    name: str
    kind: str
    parameters: int = 0
    neuron: bool = False
    output_shape: tuple[int, ...] | None = None
    calls: int = 0
    spikes: int = 0
    neuron_steps: int = 0
    accumulates: int = 0
    multiply_accumulates: int = 0
    additions: int | None = 0
    multiplications: int | None = 0
    comparisons: int | None = 0
    functions: int | None = 0

    @property
    def firing_rate(self) -> float | None:
        """Spikes per neuron and step; None for what is no neuron."""
        return self.spikes / self.neuron_steps if self.neuron and self.neuron_steps else None

    @property
    def operations(self) -> int | None:
        """Element-wise operations of a neuron, of every kind."""
        kinds = (self.additions, self.multiplications, self.comparisons, self.functions)
        return None if None in kinds else sum(kinds)  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True)
class Summary:
    """What :func:`summary` found; ``print`` it for a table, ``rich.print`` it for one that fits the terminal.

    Attributes:
        layers: one entry per layer that has parameters, fires or does synaptic operations, in the order of the model.
        parameters, trainable: elements of all parameters of the model, and of those with a gradient; shared ones once.
        example: shapes of the example input.

    Example:
        >>> import torch, snn_dendrite_plugin as sdp
        >>> from spikingjelly.activation_based import neuron
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 3), neuron.DendSN(branches=2))
        >>> found = sdp.summary(net, torch.ones(2, 4))
        >>> [(layer.name, layer.parameters, layer.accumulates) for layer in found.layers]
        [('0', 15, 24), ('1', 6, 0)]
    """

    layers: tuple[LayerFigures, ...]
    parameters: int
    trainable: int
    example: str

    @property
    def accumulates(self) -> int:
        """Synaptic operations with spikes."""
        return sum(layer.accumulates for layer in self.layers)

    @property
    def multiply_accumulates(self) -> int:
        """Synaptic operations with real numbers."""
        return sum(layer.multiply_accumulates for layer in self.layers)

    @property
    def operations(self) -> int | None:
        """Element-wise operations of all neurons; None where those of one are not known."""
        counts = [layer.operations for layer in self.layers if layer.neuron]
        return None if None in counts else sum(counts)  # type: ignore[arg-type]

    @property
    def firing_rate(self) -> float | None:
        """Spikes per neuron and step, over all neurons."""
        steps = sum(layer.neuron_steps for layer in self.layers if layer.neuron)
        return sum(layer.spikes for layer in self.layers if layer.neuron) / steps if steps else None

    def to_dict(self) -> dict[str, Any]:
        """Everything as numbers and texts, for JSON or a data frame."""
        totals = ("parameters", "trainable", "accumulates", "multiply_accumulates", "operations", "firing_rate")
        layers = [
            {**dataclasses.asdict(layer), "firing_rate": layer.firing_rate, "operations": layer.operations}
            for layer in self.layers
        ]
        return {"example": self.example, "layers": layers, **{name: getattr(self, name) for name in totals}}

    columns = ("layer", "type", "calls", "output", "parameters", "rate", "SynOps (add)", "SynOps (mul)", "neuron ops")
    right = ("calls", *columns[4:])

    def rows(self) -> list[tuple[str, ...]]:
        """The table's rows, one text per column; a last one with the totals."""
        found: list[tuple[str, ...]] = []
        for layer in self.layers:
            shape = "" if layer.output_shape is None else "x".join(map(str, layer.output_shape))
            found.append(
                (
                    layer.name,
                    layer.kind,
                    str(layer.calls) if layer.calls != 1 else "",
                    shape,
                    f"{layer.parameters:,}",
                    _rate(layer.firing_rate),
                    "" if layer.neuron and not layer.accumulates else f"{layer.accumulates:,}",
                    "" if layer.neuron and not layer.multiply_accumulates else f"{layer.multiply_accumulates:,}",
                    _number(layer.operations) if layer.neuron else "",
                )
            )
        sums = (f"{self.parameters:,}", _rate(self.firing_rate), f"{self.accumulates:,}")
        found.append(("total", "", "", "", *sums, f"{self.multiply_accumulates:,}", _number(self.operations)))
        return found

    def legend(self) -> str:
        """What is said under the table."""
        fixed = self.parameters - self.trainable
        text = (
            f"example input {self.example}, counted whole (all steps, all samples). rate: spikes per neuron and step. "
            f"SynOps: synaptic operations with spikes (an addition each) and with real numbers (a product and a sum "
            f"each)."
        )
        return text + (f" {fixed:,} parameters are fixed." if fixed else "")

    def __str__(self) -> str:
        return f"{tables.plain(self.columns, self.rows(), self.right)}\n{self.legend()}"

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from rich.text import Text

        width = None if console.soft_wrap else options.max_width
        yield Text(tables.plain(self.columns, self.rows(), self.right, width=width, rule=True))
        yield Text(self.legend())


def _rate(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _number(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


class _Counting(TorchDispatchMode):
    """Adds what every operator does to the layer that is at work, the innermost last in ``stack``."""

    def __init__(self, stack: list[LayerFigures]) -> None:
        super().__init__()
        self.stack = stack

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if self.stack:
            self.count(self.stack[-1], func, args, kwargs, out)
        return out

    @staticmethod
    def count(layer: LayerFigures, func: Any, args: tuple, kwargs: dict, out: Any) -> None:
        found = synapses.count(func, args, kwargs)
        if found is not None:
            layer.accumulates += found[0]
            layer.multiply_accumulates += found[1]
        elif layer.neuron:
            done = elementwise.count(func, args, kwargs, out)
            for kind in ("additions", "multiplications", "comparisons", "functions"):
                before = getattr(layer, kind)
                setattr(layer, kind, None if before is None or done is None else before + getattr(done, kind))


def summary(model: nn.Module, example_input: Any) -> Summary:
    """What each layer is and does on an example: output shape, parameters, spikes, synaptic and neuronal operations.

    The model runs once, in evaluation mode and from reset states, and is afterwards as it was: states, graphs, training
    flags, random numbers, parameters that wait for their first input. Point networks and dendritic ones of both hosts
    are counted alike: the same rules for synapses, and every operation of a neuron.

    Args:
        model: a network of SpikingJelly's or snnTorch's neurons, of ours, or of both.
        example_input: a tensor, a tuple or dict of the model's arguments, or a function that takes the model and runs
            it, for networks that are called once per step: ``lambda net: [net(x) for x in x_seq]``.

    Returns:
        a :class:`Summary`, which prints as a table.

    Raises:
        TypeError: ``model`` is no module, or ``example_input`` none of these.
        ValueError: the model is on the device "meta", where there are no spikes to count.

    Example:
        >>> import torch, snn_dendrite_plugin as sdp
        >>> import snntorch as snn
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 3), snn.Leaky(beta=0.9, init_hidden=True))
        >>> steps = torch.ones(5, 2, 4)
        >>> sdp.summary(net, lambda net: [net(x) for x in steps]).accumulates  # 5 steps of 2 samples, 4 spikes each
        120
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is {type(model).__name__}; it must be a torch.nn.Module")
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        raise ValueError('the model is on the device "meta", where it has no values and sends no spikes; move it first')
    adapters = active_adapters()
    found = find_modules(model, stop=lambda module: any(adapter.is_neuron(module) for adapter in adapters.values()))
    stack: list[LayerFigures] = []
    layers: dict[nn.Module, LayerFigures] = {}

    def enter(module: nn.Module, *_: Any) -> None:
        stack.append(layers[module])

    def leave(module: nn.Module, _args: Any, output: Any) -> None:
        layer = stack.pop()
        layer.calls += 1
        tensor = first_tensor(output)
        layer.output_shape = None if tensor is None else tuple(tensor.shape)
        if layer.neuron and tensor is not None:
            layer.spikes += int(tensor.count_nonzero())
            layer.neuron_steps += tensor.numel()

    with untouched(model):
        for item in found:
            neuron = any(adapter.is_neuron(item.module) for adapter in adapters.values())
            layers[item.module] = LayerFigures(item.name, item.kind, neuron=neuron)
            item.module.register_forward_pre_hook(enter)  # gone with all else that the run leaves
            item.module.register_forward_hook(leave, prepend=True)
        reset_states(model, adapters)
        with _Counting(stack):
            call(model, example_input)
        for module, layer in layers.items():
            layer.parameters = sum(p.numel() for p in module.parameters(recurse=layer.neuron) if not is_lazy(p))
        parameters = [p for p in model.parameters() if not is_lazy(p)]
        totals = sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)
    shown = [x for x in layers.values() if x.neuron or x.parameters or x.accumulates or x.multiply_accumulates]
    text = describe(example_input) if isinstance(example_input, (Tensor, tuple, list, dict)) else "run by a function"
    return Summary(tuple(shown), *totals, text)
