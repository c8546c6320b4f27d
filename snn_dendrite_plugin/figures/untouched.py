"""Running a model so that nothing in it is another afterwards: states, graphs, flags, parameters yet to be made."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

__all__ = ["untouched"]


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients, the same random numbers afterwards; tensors that are no parameters are copies.

    Whatever the run stores in a module (a state, a cache, a parameter made at the first input) is gone afterwards; what
    was there is there again, the same objects, a state's graph included.
    """
    modules = list(model.modules())
    held = [(module, type(module), dict(module.__dict__), _containers(module)) for module in modules]
    copies: dict[int, Any] = {}

    def stand_in(value: Any) -> Any:
        if not isinstance(value, Tensor) or (isinstance(value, nn.Parameter) and not is_lazy(value)):
            return value
        if id(value) not in copies:
            copies[id(value)] = copy.deepcopy(value) if is_lazy(value) else value.detach().clone()
        return copies[id(value)]

    cuda = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        for module in modules:
            module.training = False
            for key, value in list(module.__dict__.items()):
                module.__dict__[key] = stand_in(value)
                if isinstance(value, dict):
                    value.update({name: stand_in(item) for name, item in value.items() if isinstance(item, Tensor)})
        with torch.no_grad(), torch.random.fork_rng(devices=list(cuda)), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for module, cls, attributes, containers in held:
            if type(module) is not cls:  # a lazy module that became another at its first input
                module.__class__ = cls
            module.__dict__.clear()
            module.__dict__.update(attributes)
            for key, content in containers.items():
                container = attributes[key]
                container.clear()
                container.extend(content) if isinstance(container, list) else container.update(content)


def _containers(module: nn.Module) -> dict[str, Any]:
    return {key: copy.copy(value) for key, value in module.__dict__.items() if isinstance(value, (dict, list, set))}
