"""Running a model on an example input without leaving a trace in it, and recording what its neurons send."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

__all__ = ["Recording", "call", "describe", "first_tensor", "frozen", "record"]


class Recording:
    """Spikes that each neuron sent, call by call, and the tensors that the model returned."""

    def __init__(self) -> None:
        self.spikes: dict[str, list[Tensor]] = {}
        self.outputs: list[Tensor] = []

    def flips(self, other: Recording, name: str) -> tuple[int, int] | None:
        """Compared neuron-steps and how many differ; None where the neuron did not run alike in both, or on "meta"."""
        ours, theirs = self.spikes.get(name, []), other.spikes.get(name, [])
        if not ours or [s.shape for s in ours] != [s.shape for s in theirs] or any(s.is_meta for s in ours):
            return None
        flipped = sum(int((a != b).sum()) for a, b in zip(ours, theirs, strict=True))
        return sum(s.numel() for s in ours), flipped

    def output_difference(self, other: Recording) -> float | None:
        """Largest absolute difference of the outputs, None where there are none, without data or of other shapes."""
        if not self.outputs or [o.shape for o in self.outputs] != [o.shape for o in other.outputs]:
            return None
        if any(o.is_meta for o in self.outputs):
            return None
        pairs = zip(self.outputs, other.outputs, strict=True)
        return max(float((a.double() - b.double()).abs().max()) if a.numel() else 0.0 for a, b in pairs)


def call(model: nn.Module, example: Any) -> Any:
    """The model's output on an example: a tensor, a tuple or dict of arguments, or a function that runs the model."""
    if isinstance(example, Tensor):
        return model(example)
    if isinstance(example, Mapping):
        return model(**example)
    if isinstance(example, (tuple, list)):
        return model(*example)
    if callable(example):
        return example(model)
    raise TypeError(
        f"example_input is {type(example).__name__}; it must be a tensor, a tuple or dict of arguments of the model, "
        f"or a function that takes the model and runs it"
    )


def describe(example: Any) -> str:
    """Shapes and dtypes of an example, for messages."""
    if isinstance(example, Tensor):
        return f"{tuple(example.shape)} {str(example.dtype).removeprefix('torch.')} on {example.device}"
    if isinstance(example, Mapping):
        return ", ".join(f"{key}={describe(value)}" for key, value in example.items())
    if isinstance(example, (tuple, list)):
        return ", ".join(describe(value) for value in example)
    return type(example).__name__


@contextlib.contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients, random numbers as before; training flags and buffers are put back afterwards."""
    training = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, key, buffer, buffer.detach().clone())
        for module in model.modules()
        for key, buffer in module._buffers.items()
        if buffer is not None and not buffer.is_meta
    ]
    cuda = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=list(cuda)):
            for module, _ in training:
                module.training = False
            yield
    finally:
        for module, flag in training:
            module.training = flag
        with torch.no_grad():
            for module, key, buffer, value in buffers:
                if key in module._buffers:
                    if not torch.equal(buffer, value):
                        buffer.copy_(value)
                    module._buffers[key] = buffer


def record(model: nn.Module, example: Any, neurons: Mapping[str, nn.Module]) -> Recording:
    """Run the model on the example; spikes (non-zero outputs) of ``neurons`` and the model's outputs."""
    recording = Recording()

    def listen(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            spikes = first_tensor(output)
            if spikes is not None:
                recording.spikes.setdefault(name, []).append(_at_hand(spikes != 0))

        return hook

    handles = [module.register_forward_hook(listen(name)) for name, module in neurons.items()]
    try:
        with frozen(model):
            output = call(model, example)
    finally:
        for handle in handles:
            handle.remove()
    recording.outputs = [_at_hand(leaf.detach()) for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    return recording


def _at_hand(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_meta else tensor.cpu()


def first_tensor(output: Any) -> Tensor | None:
    """A neuron's spikes: its output, or the first of the tensors it returns."""
    return next((leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)), None)
