"""Stateless layers with SpikingJelly's manners: a ``step_mode``, in which ``"m"`` takes ``[T, N, C, *]``."""

from __future__ import annotations

import inspect
from typing import Any

from spikingjelly.activation_based import base, functional
from torch import Tensor, nn

__all__ = ["Stepwise", "layer_class"]


class StepLayer(base.StepModule):
    """What :func:`layer_class` puts in front of a plain layer."""

    def __init__(self, *arguments: Any, step_mode: str = "s", **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.step_mode = step_mode

    def forward(self, x: Tensor) -> Tensor:
        if self.step_mode == "s":
            return super().forward(x)  # type: ignore[misc]
        if x.dim() < 3:
            raise ValueError(f"x has shape {tuple(x.shape)}; in step mode 'm' {type(self).__name__} takes [T, N, C, *]")
        return functional.seq_to_ann_forward(x, super().forward)  # type: ignore[misc]

    def extra_repr(self) -> str:
        return ", ".join(filter(None, (super().extra_repr(), f"step_mode={self.step_mode}")))  # type: ignore[misc]


def layer_class(name: str, plain: type[nn.Module]) -> type:
    """SpikingJelly's form of a layer that takes one step ``[N, C, *]``; its name is what pickles look for."""
    signature = inspect.signature(plain)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    rest = [p for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD]
    mode = inspect.Parameter("step_mode", inspect.Parameter.KEYWORD_ONLY, default="s")
    body = {
        "__module__": __package__,
        "__doc__": f"{inspect.getdoc(plain) or name}\n\n``step_mode``: 's' for a step [N, C, *], 'm' for [T, N, C, *].",
        "__signature__": signature.replace(parameters=[*own, mode, *rest]),
    }
    return type(name, (StepLayer, plain), body)


class Stepwise(nn.Module, base.StepModule):
    """Any other stateless layer, which keeps its own class inside."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.step_mode = layer, "s"

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if self.step_mode == "s" else functional.seq_to_ann_forward(x, self.layer)
