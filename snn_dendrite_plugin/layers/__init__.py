"""Synaptic layers that know no host framework."""

from .ttfs.clocked import TTFSEncoder, TTFSReadout, TTFSSpikeDecoder, TTFSSpikeMaxPool, TTFSSpikeScale
from .ttfs.pooling import TTFSAdaptiveAvgPool, TTFSAvgPool, TTFSFlatten, TTFSMaxPool, TTFSRelay, TTFSResidual
from .ttfs.synapses import TTFSConv1d, TTFSConv2d, TTFSLinear, TTFSScale
from .ttfs.times import SpikeTimes, TTFSDecode, TTFSEncode, TTFSFire
from .ttfs.windows import ActivityPenalty, LayerActivity, activity, calibrate, perturb, saturation

__all__ = [
    "ActivityPenalty",
    "LayerActivity",
    "SpikeTimes",
    "TTFSAdaptiveAvgPool",
    "TTFSAvgPool",
    "TTFSConv1d",
    "TTFSConv2d",
    "TTFSDecode",
    "TTFSEncode",
    "TTFSEncoder",
    "TTFSFire",
    "TTFSFlatten",
    "TTFSLinear",
    "TTFSMaxPool",
    "TTFSReadout",
    "TTFSRelay",
    "TTFSResidual",
    "TTFSScale",
    "TTFSSpikeDecoder",
    "TTFSSpikeMaxPool",
    "TTFSSpikeScale",
    "activity",
    "calibrate",
    "perturb",
    "saturation",
]
