"""The Triton provider of the clock-driven TTFS pair: which tile to build for a call, and its launch.

Importing this module does not import triton. Under ``TRITON_INTERPRET=1`` (set before triton is imported) the same
kernels run on CPU tensors, slowly: that is how they are tested without a GPU.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from types import ModuleType
from typing import Any

import torch

from ...launch.triton import LaunchedProvider, on
from ..contract import Gradients, Inputs, OutputGradients, Outputs, Saved, Settings
from ..layout import Layout

__all__ = ["TritonProvider", "provider"]

WARPS = 4
BLOCK = 1024  # neurons of a tile, 8 per thread
UNROLL = 8  # steps whose loads are in flight together


@functools.cache
def _kernels() -> ModuleType:
    from . import kernels as triton_kernels

    return triton_kernels


def _next_power(n: int) -> int:
    return 1 << max(0, n - 1).bit_length()


def _run(kernel: Any, programs: int, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return kernel[(programs,)](*arguments, **options)


class _Tiles:
    """How a call's neurons are cut, and what its kernels are compiled for."""

    def __init__(self, layout: Layout, settings: Settings) -> None:
        import triton.language as tl

        rows, x = layout.N * layout.C, layout.x
        self.block_l = min(BLOCK, _next_power(layout.L))
        self.block_r = min(BLOCK // self.block_l, _next_power(rows))
        self.blocks_l, self.blocks_r = -(-layout.L // self.block_l), -(-rows // self.block_r)
        self.programs = layout.W * self.blocks_l * self.blocks_r
        reach = sum((size - 1) * stride for size, stride in zip(x.shape[1:], x.stride()[1:], strict=True))
        self.sizes = (settings.steps, layout.N, layout.C, layout.L, *x.stride())
        double = x.dtype == torch.float64
        self.options = {
            "DTYPE": tl.float64 if double else tl.float32,
            "WIDE": max(reach, rows * layout.L) >= 2**30,
            "UNROLL": min(settings.steps, UNROLL),
            "BLOCK_R": self.block_r,
            "BLOCK_L": self.block_l,
            "num_warps": WARPS,
            # no contraction into fused multiply-adds: spikes must fall into the reference's bins
            "enable_fp_fusion": False,
        }


class TritonProvider(LaunchedProvider):
    """The fused kernels on CUDA devices; on CPU tensors under Triton's interpreter."""

    kernels = staticmethod(_kernels)

    @torch.no_grad()
    def forward(self, inputs: Inputs, settings: Settings) -> Outputs:
        x, bias, windows = inputs
        layout = Layout(x, bias, settings.steps)
        spikes = layout.empty(len(x), x.dtype)
        potentials = layout.empty(layout.W, windows.dtype)
        if spikes.numel():
            tiles = _Tiles(layout, settings)
            arguments = (
                layout.x, layout.bias, windows.contiguous(), spikes, potentials,
                *tiles.sizes, layout.bias_c, layout.bias_l, tiles.blocks_r, tiles.blocks_l,
            )  # fmt: skip
            with on(x.device):
                _run(_kernels().forward_kernel, tiles.programs, arguments, tiles.options)
        return Outputs(layout.shaped(spikes), layout.shaped(potentials))

    @torch.no_grad()
    def backward(
        self, saved: Saved, settings: Settings, gradients: OutputGradients, wanted: Collection[str] = Gradients._fields
    ) -> Gradients:
        g_spikes, g_potentials = gradients
        bias = saved.bias if "bias" in wanted else None
        layout = Layout(g_spikes, bias, settings.steps)
        gx = layout.empty(len(g_spikes), g_spikes.dtype)
        if not gx.numel():
            return Gradients(layout.shaped(gx), None if bias is None else torch.zeros_like(bias))
        tiles = _Tiles(layout, settings)
        more = None if g_potentials is None else layout.potentials(g_potentials)
        along_l, sums, dtype = bool(layout.bias_l), None, saved.potentials.dtype
        if bias is not None:
            shape = (layout.W, tiles.blocks_r, layout.L)
            shape = shape if along_l else (layout.W, layout.N, layout.C, tiles.blocks_l)
            sums = gx.new_empty(shape, dtype=dtype)
        arguments = (
            layout.x, saved.windows.contiguous(), layout.potentials(saved.potentials), more, gx, sums,
            *tiles.sizes, tiles.blocks_r, tiles.blocks_l, along_l,
        )  # fmt: skip
        with on(gx.device):
            _run(_kernels().backward_kernel, tiles.programs, arguments, tiles.options)
        if sums is None:
            return Gradients(layout.shaped(gx), None)
        summed = (0, 1) if along_l else (0, 1, 3) if layout.bias_c else (0, 1, 2, 3)
        sums = sums.sum(summed, dtype=torch.float64).to(dtype)
        return Gradients(layout.shaped(gx), layout.bias_gradient(sums))


provider = TritonProvider()
