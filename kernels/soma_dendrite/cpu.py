"""The soma-dendrite pair on the CPU: compiled C++ (``csrc/``), loaded with ctypes.

The library is built with the wheel where a C++ compiler is at hand; without it the provider's ``why_not`` says so. It
runs in the OpenMP threads torch already has, at most ``torch.get_num_threads()`` of them, and picks its instruction set
when it is called (x86-64 baseline, AVX2 or AVX-512). Neurons in memory order make a block; time is the loop around a
block, so one step's rows and all states stay in cache. Channels-last input is walked as it lies, and the results follow
its layout.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Collection

import torch
from torch import Tensor

from ..activations import ACTIVATIONS
from ..dtypes import state_dtype
from ..launch.cpu import SCALARS, CompiledProvider
from ..surrogates import KINDS
from .contract import (
    PARAMETERS,
    RESETS,
    STATES,
    TIMINGS,
    Gradients,
    Inputs,
    OutputGradients,
    Outputs,
    Settings,
    one_number,
)
from .layout import Layout

__all__ = ["CpuProvider", "provider"]


def _fields() -> list[tuple[str, type]]:
    """The fields of ``Call`` in csrc/soma_dendrite/call.h, in order."""
    integers = ["T", "N", "C", "B", "L", "fan", "degree"]
    switches = [
        "activation",
        "reset",
        "timing",
        "surrogate",
        "strict",
        "detach",
        "fire_once",
        "io",
        "g_io",
        "threads",
        "level",
        "one_u",
        "one_v",
        "one_fired",
        "reserved",
    ]
    numbers = ["v_reset", "surrogate_a", "surrogate_b", "clamp_low", "clamp_high"]
    fields: list[tuple[str, type]] = [(name, ctypes.c_int64) for name in integers]
    fields += [(name, ctypes.c_int32) for name in switches]
    fields += [(name, ctypes.c_double) for name in numbers]
    for kind, names in (
        (ctypes.c_void_p, ("x",)),
        (ctypes.c_int64, ("x_t", "x_n", "x_c", "x_l")),
        (ctypes.c_void_p, PARAMETERS),
        (ctypes.c_int64, [name + "_c" for name in PARAMETERS]),
        (ctypes.c_void_p, [*STATES, "spikes", *(name + "_out" for name in STATES), "u_sequence", "g_spikes"]),
        (ctypes.c_int64, ("gs_t", "gs_n", "gs_c", "gs_l")),
        (ctypes.c_void_p, ["g_u_sequence", "g_u", "g_v", "gx", "g_u_in", "g_v_in"]),
        (ctypes.c_void_p, ["g_" + name for name in PARAMETERS]),
    ):
        fields += [(name, kind) for name in names]
    return fields


class _Call(ctypes.Structure):
    _fields_ = _fields()


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


@functools.lru_cache
def _static(settings: Settings, dtype: torch.dtype, level: int) -> _Call:
    """A call with the fields that no tensor decides."""
    return _Call(
        B=settings.branches,
        activation=ACTIVATIONS[settings.activation].index,
        reset=RESETS[settings.reset],
        timing=TIMINGS[settings.timing],
        surrogate=KINDS[settings.surrogate].index,
        strict=settings.strict,
        detach=settings.detach,
        fire_once=settings.fire_once,
        io=SCALARS[dtype],
        level=level,
        v_reset=settings.v_reset,
        surrogate_a=settings.surrogate_a,
        surrogate_b=settings.surrogate_b,
        clamp_low=settings.clamp_low,
        clamp_high=settings.clamp_high,
    )


class CpuProvider(CompiledProvider):
    """The compiled pair; arguments and errors as of :class:`~..launch.cpu.CompiledProvider`."""

    prefix, call = "sd", _Call

    def _call(self, p: Inputs, settings: Settings, layout: Layout) -> tuple[_Call, list[Tensor | None]]:
        """The part of the call that both directions share, and the tensors it points to."""
        dtype = state_dtype(p.x.dtype)
        parameters = [None if q is None else q.contiguous() for q in p.parameters]  # in the state dtype already
        states = [layout.initial(state, dtype) for state in p.states]
        x = layout.x
        call = _Call.from_buffer_copy(_static(settings, p.x.dtype, self._level))
        call.T, call.N, call.C, call.L, call.fan = layout.T, x.shape[1], layout.C, x.shape[3], layout.fan
        call.degree, call.threads, call.x = p.theta.shape[1] - 1, torch.get_num_threads(), x.data_ptr()
        call.x_t, call.x_n, call.x_c, call.x_l = x.stride()
        for name, q in zip(PARAMETERS, parameters, strict=True):
            setattr(call, name, _address(q))
            setattr(call, name + "_c", 0 if q is None or q.shape[0] == 1 else q.stride(0))
        call.u, call.v, call.fired = map(_address, states)
        call.one_u, call.one_v, call.one_fired = (one_number(state) for state in states)
        return call, [x, *parameters, *states]

    @torch.no_grad()
    def forward(self, inputs: Inputs, settings: Settings) -> Outputs:
        library, layout = self._library(), Layout(inputs.x, settings)
        call, held = self._call(inputs, settings, layout)
        dtype = state_dtype(inputs.x.dtype)
        steps, entry, neuron = (layout.T, layout.N), (layout.N,), (layout.C,)
        spikes = layout.empty(steps, neuron, inputs.x.dtype)
        u = layout.empty(entry, neuron, dtype)
        v = layout.empty(entry, (layout.C, settings.branches), dtype) if settings.branches else None
        fired = layout.empty(entry, neuron, dtype) if settings.fire_once else None
        u_sequence = layout.empty(steps, neuron, dtype) if settings.record else None
        call.spikes, call.u_out, call.v_out = _address(spikes), _address(u), _address(v)
        call.fired_out, call.u_sequence = _address(fired), _address(u_sequence)
        if library.sd_forward(ctypes.addressof(call)):
            raise MemoryError("the cpu provider could not allocate its scratch memory")
        del held
        last = (layout.shaped(state, 1) for state in (u, v, fired))
        return Outputs(layout.shaped(spikes, 2), *last, layout.shaped(u_sequence, 2))

    @torch.no_grad()
    def backward(
        self, saved: Inputs, settings: Settings, gradients: OutputGradients, wanted: Collection[str] = Gradients._fields
    ) -> Gradients:
        library, layout = self._library(), Layout(saved.x, settings)
        call, held = self._call(saved, settings, layout)
        dtype = state_dtype(saved.x.dtype)
        steps, entry = (layout.T, layout.N), (layout.N,)
        g_spikes, g_states, g_u_sequence = layout.gradients(gradients, dtype)
        call.g_io, call.g_spikes = SCALARS[g_spikes.dtype], g_spikes.data_ptr()
        call.gs_t, call.gs_n, call.gs_c, call.gs_l = g_spikes.stride()
        call.g_u_sequence, call.g_u, call.g_v = map(_address, (g_u_sequence, *g_states))
        gx = layout.empty(steps, (layout.C * layout.fan,), saved.x.dtype)
        gu = layout.empty(entry, (layout.C,), dtype) if "u" in wanted else None
        gv = layout.empty(entry, (layout.C, settings.branches), dtype) if "v" in wanted and settings.branches else None
        call.gx, call.g_u_in, call.g_v_in = _address(gx), _address(gu), _address(gv)
        sums: dict[str, Tensor | None] = {}
        for name in PARAMETERS:
            q = getattr(saved, name)
            sums[name] = torch.empty(q.shape, dtype=dtype) if q is not None and name in wanted else None
            setattr(call, "g_" + name, _address(sums[name]))
        if library.sd_backward(ctypes.addressof(call)):
            raise MemoryError("the cpu provider could not allocate its scratch memory")
        del held
        return Gradients(layout.shaped(gx, 2), layout.shaped(gu, 1), layout.shaped(gv, 1), **sums)


provider = CpuProvider()
