"""The soma-dendrite pair on CUDA devices through CuPy: CUDA C++ compiled by NVRTC for the call's settings.

The text (``csrc/soma_dendrite/kernels.cu``) shares the step and its derivatives with the CPU library. One thread runs
one neuron with time inside and its states in registers. Tensors are passed as pointers, launched on the current stream
of torch; nothing is copied. Backward recomputes a few steps at a time into registers, from checkpoints in scratch
memory of bounded size; parameter gradients are summed per thread or block, and those sums by torch, so the same call
gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor

from ..activations import ACTIVATIONS
from ..dtypes import state_dtype
from ..launch import cupy as nvrtc
from ..surrogates import KINDS
from .contract import (
    PARAMETERS,
    RESETS,
    TIMINGS,
    Gradients,
    Inputs,
    OutputGradients,
    Outputs,
    Settings,
    columns,
    one_number,
)
from .layout import Layout

__all__ = ["CupyProvider", "defines", "provider", "source"]

THREADS = 128
SLOTS = (2**14, 2**17)  # threads of a backward launch, at least and at most where checkpoints take memory
CHECKPOINT_BYTES = 64 * 2**20


def source() -> str:
    """The CUDA text with its own headers written in."""
    return nvrtc.source("soma_dendrite/kernels.cu")


def segment(branches: int) -> int:
    """Steps whose states backward keeps in registers: about 50 numbers."""
    return 8 if branches <= 4 else 4 if branches <= 8 else 2


def defines(
    settings: Settings, dtype: torch.dtype, g_dtype: torch.dtype, degree: int, by_channel: bool, fresh: bool
) -> tuple[str, ...]:
    """The macros that fix everything static in a call, as compiler options."""
    macros = {
        "STATE": nvrtc.SCALARS[state_dtype(dtype)],
        "IO": nvrtc.SCALARS[dtype],
        "G_IO": nvrtc.SCALARS[g_dtype],
        "BRANCHES": settings.branches,
        "FAN": settings.branches if settings.wiring == "fold" else 1,
        "DEGREE": degree,
        "ACTIVATION": ACTIVATIONS[settings.activation].index,
        "RESET": RESETS[settings.reset],
        "TIMING": TIMINGS[settings.timing],
        "SURROGATE": KINDS[settings.surrogate].index,
        "DETACH": int(settings.detach),
        "STRICT": int(settings.strict),
        "ONCE": int(settings.fire_once),
        "RECORD": int(settings.record),
        "SEGMENT": segment(settings.branches),
        "THREADS": THREADS,
        "BY_CHANNEL": int(by_channel),
        "FRESH": int(fresh),
    }
    # nothing is contracted, see csrc/common/functions.h: backward recomputes the spikes that forward emitted
    return ("--std=c++17", "--fmad=false", *(f"-DSD_{name}={value}" for name, value in macros.items()))


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


class CupyProvider(nvrtc.NvrtcProvider):
    """The CUDA pair; arguments as of :class:`~..launch.cupy.NvrtcProvider`."""

    text, threads = "soma_dendrite/kernels.cu", THREADS

    def _shared(self, p: Inputs, settings: Settings, layout: Layout) -> tuple[list[int | float], list[Tensor | None]]:
        """The arguments both kernels start with, and the tensors they point to."""
        dtype = state_dtype(p.x.dtype)
        parameters = [None if q is None else q.to(dtype).contiguous() for q in p.parameters]
        read = layout.initial if one_number(*p.states) else layout.state
        states = [read(state, dtype) for state in p.states]
        x = layout.x
        arguments: list[int | float] = [layout.T, x.shape[1], layout.C, x.shape[3], x.data_ptr(), *x.stride()]
        arguments += [_address(q) for q in parameters]
        arguments += [0 if q is None or q.shape[0] == 1 else q.stride(0) for q in parameters]
        arguments += [float(settings.v_reset), float(settings.surrogate_a), float(settings.surrogate_b)]
        arguments += [float(settings.clamp_low), float(settings.clamp_high)]
        arguments += [_address(s) for s in states]
        return arguments, [x, *parameters, *states]

    @torch.no_grad()
    def forward(self, inputs: Inputs, settings: Settings) -> Outputs:
        layout, dtype = Layout(inputs.x, settings), state_dtype(inputs.x.dtype)
        arguments, held = self._shared(inputs, settings, layout)
        steps, entry, neuron = (layout.T, layout.N), (layout.N,), (layout.C,)
        spikes, u = layout.empty(steps, neuron, inputs.x.dtype), layout.empty(entry, neuron, dtype)
        v = layout.empty(entry, (layout.C, settings.branches), dtype) if settings.branches else None
        fired = layout.empty(entry, neuron, dtype) if settings.fire_once else None
        u_sequence = layout.empty(steps, neuron, dtype) if settings.record else None
        arguments += [_address(result) for result in (spikes, u, v, fired, u_sequence)]
        if u.numel():
            degree, fresh = inputs.theta.shape[1] - 1, one_number(*inputs.states)
            options = defines(settings, inputs.x.dtype, inputs.x.dtype, degree, False, fresh)
            self._launch(options, "sd_forward", -(-u.numel() // THREADS), arguments, inputs.x.device)
        del held
        last = (layout.shaped(state, 1) for state in (u, v, fired))
        return Outputs(layout.shaped(spikes, 2), *last, layout.shaped(u_sequence, 2))

    @torch.no_grad()
    def backward(
        self, saved: Inputs, settings: Settings, gradients: OutputGradients, wanted: Collection[str] = Gradients._fields
    ) -> Gradients:
        layout, dtype = Layout(saved.x, settings), state_dtype(saved.x.dtype)
        arguments, held = self._shared(saved, settings, layout)
        branches, degree = settings.branches, saved.theta.shape[1] - 1
        g_spikes, g_states, g_u_sequence = layout.gradients(gradients, dtype)
        gx = layout.empty((layout.T, layout.N), (layout.C * layout.fan,), saved.x.dtype)
        gu = layout.empty((layout.N,), (layout.C,), dtype) if "u" in wanted else None
        gv = layout.empty((layout.N,), (layout.C, branches), dtype) if "v" in wanted and branches else None

        entries, channels, positions = layout.x.shape[1], layout.C, layout.x.shape[3]
        rows, segments = sum(_rows(saved, settings)), -(-layout.T // segment(branches))
        kept = (segments - 1) * (1 + branches + settings.fire_once)
        slots = min(SLOTS[1], max(SLOTS[0], CHECKPOINT_BYTES // (dtype.itemsize * kept))) if kept else SLOTS[1]
        by_channel = positions < 32
        if by_channel:
            across = -(-channels * positions // THREADS)
            groups = max(1, min(entries, slots // max(1, across * THREADS)))
            blocks, width = across * groups, channels * positions
        else:
            groups = max(1, min(-(-entries * positions // THREADS), slots // max(1, channels * THREADS)))
            blocks, width = groups * channels, channels
        partial = torch.empty((groups, rows, width), dtype=dtype, device=gx.device)
        checkpoints = torch.empty(kept * blocks * THREADS, dtype=dtype, device=gx.device)
        arguments += [g_spikes.data_ptr(), *g_spikes.stride(), *map(_address, (g_u_sequence, *g_states))]
        arguments += [_address(t) for t in (gx, gu, gv, checkpoints, partial)] + [groups]
        if g_spikes.numel():
            fresh = one_number(*saved.states)
            options = defines(settings, saved.x.dtype, g_spikes.dtype, degree, by_channel, fresh)
            self._launch(options, "sd_backward", blocks, arguments, saved.x.device)
        else:
            partial.zero_()
        del held
        sums = partial.double().sum(0)  # [rows, C * L] or [rows, C]
        sums = sums.reshape(rows, channels, -1).sum(2) if by_channel else sums
        return Gradients(
            layout.shaped(gx, 2),
            layout.shaped(gu, 1),
            layout.shaped(gv, 1),
            **_parameter_gradients(sums, saved, settings),
        )


def _rows(inputs: Inputs, settings: Settings) -> list[int]:
    """How many numbers per channel each parameter has, absent ones counted too."""
    return [math.prod(columns(name, settings.branches, inputs.theta.shape[1])) for name in PARAMETERS]


def _parameter_gradients(sums: Tensor, inputs: Inputs, settings: Settings) -> dict[str, Tensor | None]:
    """The rows of ``sums [rows, C]``, in the order of ``PARAMETERS``, in the parameters' shapes."""
    result: dict[str, Tensor | None] = {}
    for name, q, part in zip(PARAMETERS, inputs.parameters, sums.split(_rows(inputs, settings)), strict=True):
        if q is None:
            result[name] = None
            continue
        part = part.sum(1, keepdim=True) if q.shape[0] == 1 else part
        result[name] = part.T.reshape(q.shape).to(state_dtype(inputs.x.dtype))
    return result


provider = CupyProvider()
