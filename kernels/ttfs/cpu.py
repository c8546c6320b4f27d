"""The clock-driven TTFS pair on the CPU: compiled C++ (``csrc/ttfs``) in the library of :mod:`..launch.cpu`.

Neurons in memory order make a block; the window is the loop around a block, so sums and potentials stay in cache. Every
product and sum is rounded as in the reference, so forward gives its bits. The sum for the bias has the same order for
any number of threads.
"""

from __future__ import annotations

import ctypes
from collections.abc import Collection

import torch
from torch import Tensor

from ..launch.cpu import SCALARS, CompiledProvider
from .contract import Gradients, Inputs, OutputGradients, Outputs, Saved, Settings
from .layout import Layout

__all__ = ["CpuProvider", "provider"]


class _Call(ctypes.Structure):
    """``TtfsCall`` in csrc/ttfs/call.h."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("W", "T", "N", "C", "L", "bias_c", "bias_l")),
        *((name, ctypes.c_int32) for name in ("io", "has_bias", "threads", "level")),
        *((name, ctypes.c_void_p) for name in ("windows", "x")),
        *((name, ctypes.c_int64) for name in ("x_t", "x_n", "x_c", "x_l")),
        *((name, ctypes.c_void_p) for name in ("bias", "out", "potentials", "g_potentials", "g_bias")),
    ]


class CpuProvider(CompiledProvider):
    """The compiled pair; arguments and errors as of :class:`~..launch.cpu.CompiledProvider`."""

    prefix, call = "ttfs", _Call

    def _run(self, way: str, layout: Layout, settings: Settings, windows: Tensor, **tensors: Tensor | None) -> None:
        library = self._library()
        windows = windows.contiguous()
        call = _Call(
            W=layout.W,
            T=settings.steps,
            N=layout.N,
            C=layout.C,
            L=layout.L,
            bias_c=layout.bias_c,
            bias_l=layout.bias_l,
            io=SCALARS[layout.x.dtype],
            has_bias=layout.bias is not None,
            threads=torch.get_num_threads(),
            level=self._level,
            windows=windows.data_ptr(),
            x=layout.x.data_ptr(),
            bias=None if layout.bias is None else layout.bias.data_ptr(),
            **{name: None if tensor is None else tensor.data_ptr() for name, tensor in tensors.items()},
        )
        call.x_t, call.x_n, call.x_c, call.x_l = layout.x.stride()
        if getattr(library, f"ttfs_{way}")(ctypes.addressof(call)):
            raise MemoryError("the cpu provider could not allocate its scratch memory")

    @torch.no_grad()
    def forward(self, inputs: Inputs, settings: Settings) -> Outputs:
        x, bias, windows = inputs
        layout = Layout(x, bias, settings.steps)
        spikes = layout.empty(len(x), x.dtype)
        potentials = layout.empty(layout.W, windows.dtype)
        self._run("forward", layout, settings, windows, out=spikes, potentials=potentials)
        return Outputs(layout.shaped(spikes), layout.shaped(potentials))

    @torch.no_grad()
    def backward(
        self, saved: Saved, settings: Settings, gradients: OutputGradients, wanted: Collection[str] = Gradients._fields
    ) -> Gradients:
        g_spikes, g_potentials = gradients
        layout = Layout(g_spikes, saved.bias if "bias" in wanted else None, settings.steps)
        gx = layout.empty(len(g_spikes), g_spikes.dtype)
        sums = None if layout.bias is None else torch.empty(layout.columns, dtype=saved.potentials.dtype)
        self._run(
            "backward",
            layout,
            settings,
            saved.windows,
            out=gx,
            potentials=layout.potentials(saved.potentials),
            g_potentials=None if g_potentials is None else layout.potentials(g_potentials),
            g_bias=sums,
        )
        return Gradients(layout.shaped(gx), None if sums is None else layout.bias_gradient(sums))


provider = CpuProvider()
