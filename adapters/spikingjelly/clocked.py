"""What a clock-driven TTFS network is built of in SpikingJelly; imported only when such a network is asked for."""

from __future__ import annotations

from typing import Any

from spikingjelly.activation_based import base, layer
from torch import Tensor, nn

from ...layers import TTFSEncoder, TTFSReadout, TTFSSpikeDecoder, TTFSSpikeMaxPool, TTFSSpikeScale

__all__ = ["Kit"]


# MemoryModules, so that SpikingJelly's reset_net and set_step_mode take them for their own.
class Encoder(TTFSEncoder, base.MemoryModule):
    """:class:`TTFSEncoder` as a SpikingJelly module."""


class Readout(TTFSReadout, base.MemoryModule):
    """:class:`TTFSReadout` as a SpikingJelly module."""


class SpikeDecoder(TTFSSpikeDecoder, base.MemoryModule):
    """:class:`TTFSSpikeDecoder` as a SpikingJelly module."""


class SpikeMaxPool(TTFSSpikeMaxPool, base.MemoryModule):
    """:class:`TTFSSpikeMaxPool` as a SpikingJelly module."""


class SpikeScale(TTFSSpikeScale, base.MemoryModule):
    """:class:`TTFSSpikeScale` as a SpikingJelly module."""


_CLOCKED = {kind.__mro__[1]: kind for kind in (Encoder, Readout, SpikeDecoder, SpikeMaxPool, SpikeScale)}
_STEPWISE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)


class Kit:
    """SpikingJelly's layers and neurons, in multi-step mode."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def layer(self, plain: nn.Module) -> nn.Module:
        """The host's stateless layer of the same name, with the plain one's weights and options."""
        name = type(plain).__name__
        if isinstance(plain, nn.Flatten):
            return layer.Flatten(plain.start_dim, plain.end_dim, step_mode="m")
        assert type(plain) in _STEPWISE, name
        made = getattr(layer, name).__new__(getattr(layer, name))
        made.__dict__.update(plain.__dict__)
        made.step_mode = "m"
        return made

    def clocked(self, kind: type, *arguments: Any, **options: Any) -> nn.Module:
        return _CLOCKED[kind](self.steps, *arguments, **options)

    def neuron(self, window: float, input_window: float, bias: Tensor | None) -> nn.Module:
        from ...conversion.ttfs.clock import host_adapter

        arguments = {"steps": self.steps, "window": window, "input_window": input_window, "bias": bias}
        return host_adapter("spikingjelly").build("TTFS", {**arguments, "step_mode": "m"})
