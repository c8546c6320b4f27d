"""The clock-driven TTFS pair on CUDA devices through CuPy: CUDA C++ (``csrc/ttfs/kernels.cu``) compiled by NVRTC.

The text shares the steps with the CPU library. One thread runs one window of one neuron, the window's steps inside;
tensors are passed as pointers and launched on the current stream of torch. The gradient of the bias is summed by torch,
in double precision.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from ..dtypes import state_dtype
from ..launch import cupy as nvrtc
from .contract import Gradients, Inputs, OutputGradients, Outputs, Saved, Settings
from .layout import Layout

__all__ = ["CupyProvider", "defines", "provider", "source"]

THREADS = 128


def source() -> str:
    """The CUDA text with its own headers written in."""
    return nvrtc.source("ttfs/kernels.cu")


def defines(dtype: torch.dtype, count: int) -> tuple[str, ...]:
    """Compiler options of a call with ``count`` windows of neurons in all. Nothing is contracted: see ttfs/step.h."""
    macros = {
        "STATE": nvrtc.SCALARS[state_dtype(dtype)],
        "IO": nvrtc.SCALARS[dtype],
        "INDEX": "unsigned" if count < 2**31 else "index_t",
        "THREADS": THREADS,
    }
    return ("--std=c++17", "--fmad=false", *(f"-DSD_{name}={value}" for name, value in macros.items()))


class CupyProvider(nvrtc.NvrtcProvider):
    """The CUDA pair; arguments as of :class:`~..launch.cupy.NvrtcProvider`."""

    text, threads = "ttfs/kernels.cu", THREADS

    def _run(
        self, kernel: str, layout: Layout, settings: Settings, windows: Tensor, *rest: Tensor | int | None
    ) -> None:
        x, windows = layout.x, windows.contiguous()
        count = layout.W * layout.N * layout.C * layout.L
        arguments: list[int | float] = [settings.steps, layout.W, layout.N, layout.C, layout.L, x.data_ptr()]
        arguments += [*x.stride(), windows.data_ptr()]
        arguments += [0 if t is None else t if isinstance(t, int) else t.data_ptr() for t in rest]
        if count:
            self._launch(defines(x.dtype, count), kernel, -(-count // THREADS), arguments, x.device)

    @torch.no_grad()
    def forward(self, inputs: Inputs, settings: Settings) -> Outputs:
        x, bias, windows = inputs
        layout = Layout(x, bias, settings.steps)
        spikes = layout.empty(len(x), x.dtype)
        potentials = layout.empty(layout.W, windows.dtype)
        of_bias = (layout.bias, layout.bias_c, layout.bias_l)
        self._run("ttfs_forward", layout, settings, windows, *of_bias, spikes, potentials)
        return Outputs(layout.shaped(spikes), layout.shaped(potentials))

    @torch.no_grad()
    def backward(
        self, saved: Saved, settings: Settings, gradients: OutputGradients, wanted: Collection[str] = Gradients._fields
    ) -> Gradients:
        g_spikes, g_potentials = gradients
        layout = Layout(g_spikes, saved.bias if "bias" in wanted else None, settings.steps)
        gx = layout.empty(len(g_spikes), g_spikes.dtype)
        more = None if g_potentials is None else layout.potentials(g_potentials)
        potentials = layout.potentials(saved.potentials)
        gv = None if layout.bias is None else layout.empty(layout.W, potentials.dtype)
        self._run("ttfs_backward", layout, settings, saved.windows, potentials, more, gx, gv)
        if gv is None:
            return Gradients(layout.shaped(gx), None)
        summed = [0, 1, *([] if layout.bias_c else [2]), *([] if layout.bias_l else [3])]
        sums = gv.sum(summed, dtype=torch.float64).to(gv.dtype)
        return Gradients(layout.shaped(gx), layout.bias_gradient(sums))


provider = CupyProvider()
