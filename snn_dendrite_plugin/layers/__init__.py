"""Synaptic layers that know no host framework."""

from .ttfs import TTFSConv1d, TTFSConv2d, TTFSLinear, TTFSScale
from .ttfs_clock import TTFSEncoder, TTFSReadout, TTFSSpikeDecoder, TTFSSpikeMaxPool, TTFSSpikeScale
from .ttfs_pool import TTFSAdaptiveAvgPool, TTFSAvgPool, TTFSFlatten, TTFSMaxPool, TTFSRelay, TTFSResidual
from .ttfs_spikes import SpikeTimes, TTFSDecode, TTFSEncode, TTFSFire
from .ttfs_windows import ActivityPenalty, LayerActivity, activity, calibrate, perturb, saturation

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
