"""What a clock-driven TTFS network is built of in SpikingJelly; imported only when such a network is asked for."""

from __future__ import annotations

from typing import Any

from spikingjelly.activation_based import base
from torch import nn

from ...layers import ClockedDecoder, ClockedEncoder, ClockedMaxPool, ClockedReadout, ClockedScale
from ..base import Kit

__all__ = ["ClockedKit"]


# MemoryModules, so that SpikingJelly's reset_net and set_step_mode take them for their own.
class Encoder(ClockedEncoder, base.MemoryModule):
    """:class:`ClockedEncoder` as a SpikingJelly module."""


class Readout(ClockedReadout, base.MemoryModule):
    """:class:`ClockedReadout` as a SpikingJelly module."""


class Decoder(ClockedDecoder, base.MemoryModule):
    """:class:`ClockedDecoder` as a SpikingJelly module."""


class MaxPool(ClockedMaxPool, base.MemoryModule):
    """:class:`ClockedMaxPool` as a SpikingJelly module."""


class Scale(ClockedScale, base.MemoryModule):
    """:class:`ClockedScale` as a SpikingJelly module."""


_CLOCKED = {kind.__mro__[1]: kind for kind in (Encoder, Readout, Decoder, MaxPool, Scale)}


class ClockedKit(Kit):
    """SpikingJelly's layers and neurons."""

    sequences = True

    def clocked(self, kind: type, *arguments: Any, **options: Any) -> nn.Module:
        return _CLOCKED[kind](self.steps, *arguments, **options)
