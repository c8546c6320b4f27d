"""Checkpoints of the point-neuron model load into the converted one, ``strict=True`` included."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .. import plugins
from .surgery import has_lazy
from .undo import Replaced, replaced

__all__ = ["PointWeights", "build_node", "default_dtype"]


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """New parameters are created in ``dtype``."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def build_node(adapter: Any, model: str, arguments: Mapping[str, Any], dtype: torch.dtype) -> nn.Module:
    """A node whose parameters are ``dtype``; modules among the arguments (surrogates) are copied, not shared."""
    own = {key: copy.deepcopy(value) if isinstance(value, nn.Module) else value for key, value in arguments.items()}
    with default_dtype(dtype):
        return adapter.build(model, own)


class PointWeights:
    """``load_state_dict`` pre-hook of a converted neuron, for checkpoints in which the point neuron still stands.

    A checkpoint that has the node's own keys loads as always. One that has only keys of the neuron it replaced (often
    none) sets the node up anew from them: a learned time constant of the checkpoint becomes the node's, and parameters
    that the point neuron does not have keep their present values, which is the function-preserving start right after
    conversion.
    """

    in_checkpoints = True

    def __call__(
        self, module: nn.Module, state_dict: dict[str, Any], prefix: str, metadata: Any, strict: bool,
        missing: list[str], unexpected: list[str], errors: list[str],
    ) -> None:  # fmt: skip
        held = replaced(module)
        if held is None:
            return
        own = module.state_dict(keep_vars=True)
        present = {key.removeprefix(prefix) for key in state_dict if key.startswith(prefix)}
        if set(own) <= present or not present <= set(held.original.state_dict()):
            return
        if has_lazy(module):
            errors.append(
                f"neuron {prefix.rstrip('.') or '(root)'} has per-channel parameters that its first forward pass "
                f"creates: run one, or convert with example_input, before loading weights of the point-neuron model"
            )
            return
        given = {key: state_dict.pop(prefix + key) for key in present}
        values: dict[str, Any] = {**module.state_dict(), **(_translate(module, held, given) if given else {})}
        state_dict.update({prefix + key: value for key, value in values.items()})


def _translate(module: nn.Module, held: Replaced, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the node's state would be, had it been built from the point neuron with the weights ``given``."""
    adapter = plugins.adapters()[held.adapter].load()
    before = adapter.read(held.original)
    original = copy.deepcopy(held.original)
    original.load_state_dict(given, strict=False)
    after = adapter.read(original)
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.get_default_dtype())
    # Of what the adapter reads, what this node takes.
    used = ({key: read[key] for key in held.arguments if key in read} for read in (before, after))
    old, new = (build_node(adapter, held.model, {**read, **held.own}, dtype).state_dict() for read in used)
    # Only what the point neuron's weights decide: the rest is the converted network's own.
    return {
        key: value.expand_as(module.state_dict()[key])
        for key, value in new.items()
        if isinstance(value, Tensor) and not is_lazy(value) and not torch.equal(value, old[key])
    }
