"""What a clock-driven TTFS network is built of in SpikingJelly; imported only when such a network is asked for."""

from __future__ import annotations

from typing import Any

from spikingjelly.activation_based import base
from torch import nn

from ...layers import TTFSEncoder, TTFSReadout, TTFSSpikeDecoder, TTFSSpikeMaxPool, TTFSSpikeScale
from ..base import Kit

__all__ = ["ClockedKit"]


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


class ClockedKit(Kit):
    """SpikingJelly's layers and neurons."""

    sequences = True

    def clocked(self, kind: type, *arguments: Any, **options: Any) -> nn.Module:
        return _CLOCKED[kind](self.steps, *arguments, **options)
