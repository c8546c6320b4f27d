"""A converted network, in continuous time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ...layers import SpikeTimes, TTFSFire
from ...layers.ttfs.windows import emitters
from .report import TTFSReport

__all__ = ["TTFSNetwork"]


class TTFSNetwork(nn.Module):
    """A converted network: images in, outputs of the ReLU network out, first spikes in between.

    Made by :func:`convert_relu`. It trains with ordinary optimisers; its parameters are the ReLU network's, batch norms
    and the input range folded in.

    Attributes:
        graph_module: the time-coded layers, a :class:`torch.fx.GraphModule`.
        report: the :class:`TTFSReport` of the conversion.
    """

    report: TTFSReport

    def __init__(self, graph_module: torch.fx.GraphModule, depths: dict[str, int], shapes: dict[str, tuple[int, ...]]):
        super().__init__()
        self.graph_module = graph_module
        self.depths = depths  # emitting layer -> index of its window
        self.shapes = shapes  # node -> shape of its values, without the batch

    def forward(self, x: Tensor) -> Tensor:
        """Outputs for ``x [N, C, *]``; raises ValueError for NaN and for sizes it was not converted for."""
        return self.graph_module(x)

    def fires(self) -> Iterator[tuple[str, TTFSFire]]:
        """Name and module of every firing layer, relays included."""
        for name, module in self.graph_module.named_children():
            if isinstance(module, TTFSFire):
                yield name, module

    @property
    def latency(self) -> float:
        """Summed duration of the windows until the output can be read, in the unit of the activations."""
        longest: dict[int, float] = {0: 1.0}
        for name, fire in self.fires():
            depth = self.depths[name]
            longest[depth] = max(longest.get(depth, 0.0), fire.window.item())
        return sum(longest.values())

    @property
    def windows(self) -> int:
        """Number of windows until the output can be read, the encoder's included."""
        return 1 + max(self.depths.values())

    def spike_times(self, x: Tensor) -> dict[str, SpikeTimes]:
        """The first spikes of every emitting layer for ``x [N, C, *]``."""
        found: dict[str, SpikeTimes] = {}

        def hook(name: str) -> Callable[..., None]:
            return lambda module, arguments, out: found.__setitem__(name, out)

        layers = emitters(self.graph_module)
        handles = [module.register_forward_hook(hook(name)) for name, module in layers]
        try:
            self.graph_module(x)
        finally:
            for handle in handles:
                handle.remove()
        return found

    def clock_driven(self, steps: int, host: str | None = None) -> nn.Module:
        """The same network on a clock: binary spikes, ``steps`` time steps per window.

        Args:
            steps: time steps per window; the error halves as it doubles.
            host: ``"spikingjelly"`` or ``"snntorch"``: that host's layers with its ``TTFS`` neurons between; None for
                plain torch layers. See :class:`snn_dendrite_plugin.conversion.ttfs.clock.ClockDriven`.
        """
        from .clock import clock_driven

        return clock_driven(self, steps, host)
