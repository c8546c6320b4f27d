"""A look, now and then while training, at whether potentials are still numbers: said once, with the layer's name."""

from __future__ import annotations

import gc
import math
import warnings
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn

__all__ = ["EVERY", "NonFiniteWarning", "layer_name", "look", "lost"]

EVERY = 64  # time steps between two looks: one sum of a state, against the passes over it of so many steps
_lost: WeakSet[nn.Module] = WeakSet()
_names: list[str] = []
_on_the_way: WeakKeyDictionary[nn.Module, tuple[Tensor, torch.cuda.Event]] = WeakKeyDictionary()


class NonFiniteWarning(RuntimeWarning):
    """A neuron's potential became NaN or infinite in training."""


def lost() -> list[str]:
    """Layers of this process whose potentials became NaN or infinite in training, as the warnings name them."""
    return list(_names)


def look(model: nn.Module, state: Tensor, steps: int) -> None:
    """Warn, once per model, where its potential ``state`` after ``steps`` more time steps holds NaN or infinity.

    Looks every :data:`EVERY` steps of training and costs nothing else. On a GPU the sum comes over by itself and is
    read at a later look, so that nothing waits for it.
    """
    if torch.compiler.is_compiling() or not model.training or not torch.is_grad_enabled():
        return
    own = model.__dict__  # past nn.Module's own __setattr__, which costs more than all the rest
    unseen = own.get("_unseen", 0) + steps
    own["_unseen"] = unseen if unseen < EVERY else 0
    if unseen < EVERY or not state.numel() or model in _lost:
        return
    if torch._C._len_torch_dispatch_stack() or torch._C._functorch.is_functorch_wrapped_tensor(state) or state.is_meta:
        return  # counters, fake tensors, transforms: what looks on is not to see this, or there is no number
    if state.device.type != "cuda":
        total = float(state.detach().sum())
    else:
        arrived = _from_gpu(model, state)
        if arrived is None:
            return
        total = arrived
    if math.isfinite(total):
        return
    _lost.add(model)
    name = f"{layer_name(model)!r} ({type(model).__name__})"
    _names.append(name)
    warnings.warn(
        f"layer {name}: its potential has become NaN or infinite in training, and it no longer fires as it should. "
        f"Said once; snn_dendrite_plugin.check_finite(net) raises at the first such step, whatever layer it is",
        NonFiniteWarning,
        stacklevel=2,
    )


def _from_gpu(model: nn.Module, state: Tensor) -> float | None:
    """The sum sent at an earlier look if it has arrived, and the present one on its way."""
    if torch.cuda.is_current_stream_capturing():
        return None
    found = None
    before = _on_the_way.get(model)
    if before is not None:
        if not before[1].query():
            return None
        found = float(before[0])
    to = torch.empty((), dtype=state.dtype, pin_memory=True)
    to.copy_(state.detach().sum(), non_blocking=True)
    sent = torch.cuda.Event()
    sent.record()
    _on_the_way[model] = (to, sent)
    return found


def layer_name(model: nn.Module) -> str:
    """Path of a model in the network around it, without the model's own part; its class where there is no network.

    No module knows its name: this goes through all modules that there are, so it is for use in messages.
    """
    longest = ""
    for thing in gc.get_objects():
        if issubclass(type(thing), nn.Module) and "_modules" in thing.__dict__:
            for name, module in thing.named_modules():
                if module is model and name.count(".") >= longest.count(".") and len(name) > len(longest):
                    longest = name
    return longest.removesuffix("model").rstrip(".") or type(model).__name__
