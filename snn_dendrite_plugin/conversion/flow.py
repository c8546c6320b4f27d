"""Which layer feeds a neuron: found by following tensors through one run of the model, not by names.

Layers that could be rewritten mark their output with where it comes from and with an index, a tensor of the same shape
that holds each value's channel. Batch norm, pooling and dropout hand the mark on, and so do operations that only move
values: these are applied to the index as well, so that at a neuron it tells whether the layer's channels arrive
complete, in order, and where the neuron expects its own. Any other operation ends the trail and remains as the reason.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from .example import call, first_tensor, frozen
from .surgery import Found

__all__ = ["Path", "trace_inputs"]

_MARK = "_snn_dendrite_origin"
_MOVES = {
    "_reshape_alias", "_to_copy", "_unsafe_view", "alias", "cat", "chunk", "clone", "contiguous", "detach", "expand",
    "flatten", "lift_fresh", "movedim", "narrow", "permute", "reshape", "select", "slice", "split", "split_with_sizes",
    "squeeze", "stack", "t", "transpose", "unbind", "unflatten", "unsqueeze", "view",
}  # fmt: skip
_CONVS = {"Conv1d": 1, "Conv2d": 2, "Conv3d": 3}
_NORMS = {"BatchNorm1d": nn.BatchNorm1d, "BatchNorm2d": nn.BatchNorm2d, "BatchNorm3d": nn.BatchNorm3d}
_PASSES = (nn.Identity, nn.modules.dropout._DropoutNd)
_AVERAGES = (
    nn.modules.pooling._AvgPoolNd, nn.modules.pooling._AdaptiveAvgPoolNd,
)  # fmt: skip
_MAXIMA = (nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AdaptiveMaxPoolNd)
_NAMES = {"add": "a sum", "sum": "a sum", "sub": "a difference", "mul": "a product", "mm": "a product"}


@dataclasses.dataclass(frozen=True)
class Path:
    """From a layer to a neuron: the modules between, in order."""

    layer: Found
    between: tuple[Found, ...] = ()

    @property
    def key(self) -> tuple[int, ...]:
        return (id(self.layer.module), *(id(item.module) for item in self.between))


@dataclasses.dataclass(frozen=True)
class _Origin:
    path: Path
    index: Tensor


@dataclasses.dataclass(frozen=True)
class _Lost:
    reason: str


def is_norm(module: nn.Module) -> bool:
    """A batch norm by its own name, so that a subclass that computes something else is not taken for one."""
    kind = _NORMS.get(type(module).__name__)
    return kind is not None and isinstance(module, kind)


def is_synaptic(module: nn.Module) -> bool:
    """A linear layer or convolution by its own name; see :func:`is_norm`."""
    name = type(module).__name__
    if name in _CONVS:
        return isinstance(module, nn.modules.conv._ConvNd)
    return name == "Linear" and isinstance(module, nn.Linear)


def is_maximum(module: nn.Module) -> bool:
    return isinstance(module, _MAXIMA)


class _Follow(TorchDispatchMode):
    """Hands marks on through operations outside the modules that are followed as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = 0
        self.uses: dict[int, list[str]] = {}  # layer -> what else its output goes into

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self.depth:
            return result
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        marks = [getattr(tensor, _MARK, None) for tensor in inputs]
        if not outputs or not any(marks):
            return result
        name = func.__name__.split(".")[0]
        origins = [mark for mark in marks if isinstance(mark, _Origin)]
        if name in _MOVES and len(origins) == len(inputs) and len({origin.path.key for origin in origins}) == 1:
            moved_args, moved_kwargs = tree_map(_index_of, (args, kwargs))
            moved_kwargs.pop("dtype", None)  # a cast must not touch the index
            indices = tree_leaves(func(*moved_args, **moved_kwargs))
            for output, index in zip(outputs, indices, strict=True):
                _mark(output, _Origin(origins[0].path, index))
            return result
        known = _NAMES.get(name.rstrip("_"))
        for origin in origins:
            self.used(origin, known or f"`{name}`")
        lost = next((mark for mark in marks if isinstance(mark, _Lost)), None)
        if lost is None or name not in _MOVES:
            lost = _Lost(f"its input is {known or f'the result of `{name}`'}")
        for output in outputs:
            _mark(output, lost)
        return result

    def used(self, origin: _Origin, what: str) -> None:
        self.uses.setdefault(id(origin.path.layer.module), []).append(what)


def _mark(tensor: Tensor, mark: Any) -> None:
    setattr(tensor, _MARK, mark)


def _index_of(leaf: Any) -> Any:
    return getattr(leaf, _MARK).index if isinstance(leaf, Tensor) else leaf


def _index(shape: Iterable[int], axis: int) -> Tensor:
    shape = tuple(shape)
    view = [1] * len(shape)
    view[axis] = shape[axis]
    return torch.arange(shape[axis], dtype=torch.int32).view(view).expand(shape)


def _lies_on(index: Tensor, channels: int, axis: int) -> bool:
    """Whether the values' channels are 0 .. C - 1 along ``axis`` and the same everywhere else."""
    if not 0 <= axis < index.dim() or index.shape[axis] != channels:
        return False
    return bool((index == _index(index.shape, axis)).all())


def _sequence_axis(module: nn.Module) -> int:
    return 2 if getattr(module, "step_mode", "s") == "m" else 1


def trace_inputs(
    model: nn.Module, example: Any, modules: Iterable[Found], neurons: Iterable[Found]
) -> dict[int, Path | str]:
    """For each neuron the path from the one layer that feeds it, or the reason why there is none to rewrite.

    Args:
        model: the network; it is run once, in evaluation mode and without a trace.
        example: see :func:`~snn_dendrite_plugin.conversion.example.call`.
        modules: all modules of the model; neurons: those asked about, with their adapters.

    Returns:
        ``id(neuron module)`` -> path or reason.
    """
    follow = _Follow()
    arrivals: dict[int, list[_Origin | _Lost]] = {}
    channels: dict[int, int] = {}
    passing: dict[int, set[int]] = {}  # module in between -> layers whose values pass; 0 stands for others
    asked = {id(item.module): item for item in neurons}
    handles = []

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        follow.depth += 1

    def leave_layer(item: Found) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            follow.depth -= 1
            take(args, kwargs, f"the layer {item.name}")
            if not isinstance(output, Tensor):
                return
            if not is_synaptic(module):
                _mark(output, _Lost(f"its layer {item.name} is a {item.kind}, which cannot be split"))
                return
            axis = output.dim() - 1 - _CONVS.get(item.kind, 0)
            channels[id(module)] = output.shape[axis]
            _mark(output, _Origin(Path(item), _index(output.shape, axis)))

        return hook

    def leave_between(item: Found) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            follow.depth -= 1
            inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            origin = getattr(inputs[0], _MARK, None) if len(inputs) == 1 else None
            layer = id(origin.path.layer.module) if isinstance(origin, _Origin) else 0
            passing.setdefault(id(module), set()).add(layer)
            if not isinstance(output, Tensor):
                take(args, kwargs, f"{item.name} ({item.kind})")
            elif isinstance(origin, _Origin):
                count = channels[layer]
                axis = _sequence_axis(module) if is_norm(module) else output.dim() - 1 - _dims(module)
                path = Path(origin.path.layer, (*origin.path.between, item))
                if isinstance(module, _PASSES):
                    _mark(output, _Origin(path, origin.index))
                elif _lies_on(origin.index, count, axis):
                    _mark(output, _Origin(path, _index(output.shape, axis)))
                else:
                    follow.used(origin, f"{item.name} along another axis")
                    _mark(
                        output, _Lost(f"{item.name} ({item.kind}) works along another axis than its layer's channels")
                    )
            else:
                _mark(output, origin or _Lost("its input does not come from a layer"))

        return hook

    def enter_neuron(item: Found) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            follow.depth += 1
            tensor = first_tensor((args, kwargs))
            mark = getattr(tensor, _MARK, None)
            if isinstance(mark, _Origin):
                axis = item.adapter.channel_axis(module)
                count = channels[id(mark.path.layer.module)]
                if not _lies_on(mark.index, count, axis):
                    follow.used(mark, item.name)
                    layer = mark.path.layer.name
                    mark = _Lost(f"the channels of {layer} do not arrive whole and in order on its channel axis")
            arrivals.setdefault(id(module), []).append(mark or _Lost("its input does not come from a layer"))

        return hook

    def leave_neuron(item: Found) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            follow.depth -= 1
            for leaf in tree_leaves(output):
                if isinstance(leaf, Tensor):
                    _mark(leaf, _Lost("its input comes from another neuron, not from a layer"))

        return hook

    def take(args: Any, kwargs: Any, what: str) -> None:
        for leaf in tree_leaves((args, kwargs)):
            mark = getattr(leaf, _MARK, None) if isinstance(leaf, Tensor) else None
            if isinstance(mark, _Origin):
                follow.used(mark, what)

    for item in modules:
        module = item.module
        if id(module) in asked:
            pre, post = enter_neuron(asked[id(module)]), leave_neuron(item)
        elif isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)):
            pre, post = enter, leave_layer(item)
        elif is_norm(module) or isinstance(module, (*_PASSES, *_AVERAGES, *_MAXIMA)):
            pre, post = enter, leave_between(item)
        else:
            continue
        handles.append(module.register_forward_pre_hook(pre, with_kwargs=True, prepend=True))
        handles.append(module.register_forward_hook(post, with_kwargs=True))
    try:
        with frozen(model), follow:
            output = call(model, example)
            follow.depth = 0
            take((output,), {}, "the model's output")
    finally:
        for handle in handles:
            handle.remove()
    found = {key: _one_path(arrivals.get(key, []), passing, follow.uses) for key in asked}
    return _exclusive(found, asked)


def _dims(module: nn.Module) -> int:
    """Spatial dimensions of a pooling layer, from the name of its torch class."""
    for cls in type(module).__mro__:
        if cls.__module__.startswith("torch.nn") and cls.__name__[-2:-1].isdigit():
            return int(cls.__name__[-2])
    return 0


def _one_path(marks: list[_Origin | _Lost], passing: dict[int, set[int]], uses: dict[int, list[str]]) -> Path | str:
    """The path that all calls of a neuron agree on, if nothing else depends on what is on it."""
    if not marks:
        return "it did not run on the example input"
    for mark in marks:
        if isinstance(mark, _Lost):
            return mark.reason
    paths = {mark.path.key: mark.path for mark in marks if isinstance(mark, _Origin)}
    if len(paths) > 1:
        return f"several layers feed it: {', '.join(sorted({path.layer.name for path in paths.values()}))}"
    path = next(iter(paths.values()))
    layer = id(path.layer.module)
    if layer in uses:
        return f"the output of {path.layer.name} also goes into {uses[layer][0]}"
    for item in path.between:
        if is_norm(item.module) and passing[id(item.module)] != {layer}:
            return f"{item.name} ({item.kind}) also works for other layers"
    return path


def _exclusive(found: dict[int, Path | str], asked: dict[int, Found]) -> dict[int, Path | str]:
    """A layer that feeds several neurons stays as it is."""
    fed: dict[int, list[int]] = {}
    for key, path in found.items():
        if isinstance(path, Path):
            fed.setdefault(id(path.layer.module), []).append(key)
    for keys in fed.values():
        if len(keys) > 1:
            names = ", ".join(asked[key].name for key in keys)
            for key in keys:
                path = found[key]
                assert isinstance(path, Path)
                found[key] = f"its layer {path.layer.name} feeds several neurons: {names}"
    return found
