"""Synaptic layers that know no host framework.

``TTFS...`` are time-coded in continuous time: they pass :class:`SpikeTimes` on. ``Clocked...`` are their counterparts
on a clock: they pass binary spikes on, step by step or a sequence ``[T, N, C, *]`` at once, between a host's ``TTFS``
neurons.
"""

from .ttfs.clocked import ClockedDecoder, ClockedEncoder, ClockedMaxPool, ClockedReadout, ClockedScale
from .ttfs.pooling import TTFSAdaptiveAvgPool, TTFSAvgPool, TTFSFlatten, TTFSMaxPool, TTFSRelay, TTFSResidual
from .ttfs.synapses import TTFSConv1d, TTFSConv2d, TTFSLinear, TTFSScale
from .ttfs.times import SpikeTimes, TTFSDecode, TTFSEncode, TTFSFire
from .ttfs.windows import ActivityPenalty, LayerActivity, activity, calibrate, perturb, saturation

__all__ = [
    "ActivityPenalty",
    "ClockedDecoder",
    "ClockedEncoder",
    "ClockedMaxPool",
    "ClockedReadout",
    "ClockedScale",
    "LayerActivity",
    "SpikeTimes",
    "TTFSAdaptiveAvgPool",
    "TTFSAvgPool",
    "TTFSConv1d",
    "TTFSConv2d",
    "TTFSDecode",
    "TTFSEncode",
    "TTFSFire",
    "TTFSFlatten",
    "TTFSLinear",
    "TTFSMaxPool",
    "TTFSRelay",
    "TTFSResidual",
    "TTFSScale",
    "activity",
    "calibrate",
    "perturb",
    "saturation",
]
