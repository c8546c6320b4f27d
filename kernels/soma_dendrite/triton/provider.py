"""The Triton provider of the soma-dendrite pair: which kernel to build for a call, and its launch.

Importing this module does not import triton. Under ``TRITON_INTERPRET=1`` (set before triton is imported) the same
kernels run on CPU tensors, slowly: that is how they are tested without a GPU. Spikes and the gradient of ``x`` are
dense, channels last when ``x`` is; states and their gradients are contiguous. ``x`` and the gradient of the spikes are
read through their strides; they are copied only if their positions cannot be numbered by one stride.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...launch.triton import LaunchedProvider, on
from ..contract import PARAMETERS, Gradients, Inputs, OutputGradients, Outputs, Settings, dimensions, one_number

__all__ = ["TritonProvider", "provider"]

MOST_BRANCHES = 16  # code and registers grow with every branch
WARPS = 4
BLOCK = 128  # one neuron per thread: a segment of states must fit into its registers
MOST_REGISTERS = 128  # of a backward thread, so that four programs are resident on a processor
STATES = 20  # potentials of a segment that the backward kernel holds per neuron; fits MOST_REGISTERS by inspection
LOADS = 16  # inputs per neuron that the forward kernel loads ahead
LONGEST_SEGMENT = {"forward": 16, "backward": 8}
PROGRAMS_PER_PROCESSOR = 8  # two rounds at four resident programs
PACKABLE = (2, 4, 8)  # branch counts that one tile loads and stores at once


def _next_power(n: int) -> int:
    return 1 << max(0, n - 1).bit_length()


def _previous_power(n: int) -> int:
    return 1 << max(1, n).bit_length() - 1


@functools.cache
def _kernels() -> ModuleType:
    from . import kernels as triton_kernels

    return triton_kernels


class _Grid(NamedTuple):
    """How neurons are laid over lanes: sizes and strides as the kernels see them, after merging dimensions."""

    n: int
    c: int
    positions: int
    channels_fast: bool
    x: tuple[int, ...]  # strides t, n, c, b, l
    gs: tuple[int, ...]  # strides t, n, c, l
    block_c: int
    wide: bool
    packed: bool  # a neuron's inputs are contiguous: the other strides of x are in units of them

    @property
    def blocks_c(self) -> int:
        return -(-self.c // self.block_c)

    @property
    def blocks_j(self) -> int:
        return -(-self.n * self.positions // (BLOCK // self.block_c))


def _position_stride(tensor: Tensor, lead: int) -> int | None:
    """The one stride that numbers all dimensions from ``lead`` on, or None."""
    stride, size = None, 1
    for extent, step in zip(reversed(tensor.shape[lead:]), reversed(tensor.stride()[lead:]), strict=True):
        if extent == 1:
            continue
        if stride is None:
            stride = step
        elif step != stride * size:
            return None
        size *= extent
    return 1 if stride is None else stride


def _readable(tensor: Tensor) -> tuple[Tensor, int]:
    """The tensor, copied if it must be, and its position stride."""
    stride = _position_stride(tensor, 3)
    return (tensor, stride) if stride is not None else (tensor.contiguous(), 1)


def _merges(sizes: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether dimensions, outermost first, are one dimension of the last stride."""
    expected = strides[-1]
    for size, stride in zip(reversed(sizes), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected = expected * size if size != 1 else expected
    return True


def _innermost(sizes: tuple[int, ...], strides: tuple[int, ...]) -> int:
    return next((stride for size, stride in zip(reversed(sizes), reversed(strides), strict=True) if size != 1), 1)


def _tile(c: int, positions: int, channels_fast: bool) -> int:
    """Channels of a block, when a block may not mix channels freely: few lanes idle, neighbours in memory together."""
    if c == 1:
        return 1
    if channels_fast:
        for width in (128, 64, 32, 16):
            if width <= BLOCK and -(-c // width) * width <= 1.125 * c:
                return width
        return min(BLOCK, _next_power(c))
    return min(BLOCK // min(BLOCK, _next_power(positions)), _next_power(c))


def _grid(x: Tensor, x_l: int, gs: Tensor | None, gs_l: int, settings: Settings, per_channel: bool) -> _Grid:
    _, n, c, fan, positions = dimensions(x, settings)
    xt, xn, xc = x.stride()[:3]
    xs = (xt, xn, xc * fan, xc, x_l)
    gss = (0, 0, 0, 0) if gs is None else (*gs.stride()[:3], gs_l)
    channels_fast = positions == 1 or (fan * c > 1 and abs(xc) < x_l)
    extent = sum((size - 1) * stride for size, stride in zip((n, c, fan, positions), xs[1:], strict=True))
    extent = max(extent, sum((size - 1) * stride for size, stride in zip((n, c, positions), gss[1:], strict=True)))
    wide = max(extent, n * c * positions * max(1, settings.branches)) >= 2**30
    pairs = (xs[1:3], gss[1:3])
    if not per_channel and all(_merges((n, c), pair) for pair in pairs) and (positions == 1 or not channels_fast):
        xs = (xt, _innermost((n, c), xs[1:3]), 0, xc, x_l)
        gss = (gss[0], _innermost((n, c), gss[1:3]), 0, gss[3])
        n, c = n * c, 1
        whole = all(_merges((n, positions), (strides[1], strides[-1])) for strides in (xs, gss))
        if settings.branches == 0 and positions > 1 and whole:
            xs = (xt, 0, 0, xc, x_l)
            n, positions = 1, n * positions
    packed = xs[3] == 1 and fan in PACKABLE and all(stride % fan == 0 for stride in (*xs[:3], xs[4] * (positions > 1)))
    if packed:
        xs = (xs[0] // fan, xs[1] // fan, xs[2] // fan, 1, xs[4] // fan)
    return _Grid(n, c, positions, channels_fast, xs, gss, _tile(c, positions, channels_fast), wide, packed)


def _dense(x: Tensor, channels: int, channels_fast: bool) -> Tensor:
    """An uninitialised ``[T, N, channels, *]`` like x, dense, channels innermost or not."""
    t, n, _, *space = x.shape
    if channels_fast and space:
        return x.new_empty((t, n, *space, channels)).movedim(-1, 2)
    return x.new_empty((t, n, channels, *space))


def _mode(parameter: Tensor | None, channels: int) -> int:
    if parameter is None:
        return 0
    return 1 if parameter.shape[0] == 1 or channels == 1 else 2


def _static(inputs: Inputs, settings: Settings, grid: _Grid, fan: int, modes: dict[str, int], backward: bool) -> Any:
    from .functions import Static, per_parameter

    t_steps, b = inputs.x.shape[0], settings.branches
    halved = 2 if inputs.u.dtype == torch.float64 else 1
    most = STATES // (b + 1) // halved if backward else LOADS // fan
    longest = min(_previous_power(most), LONGEST_SEGMENT["backward" if backward else "forward"])
    segment = min(_next_power(t_steps), longest)
    return Static(
        branches=b,
        fan=fan,
        activation=settings.activation if b else "identity",
        reset=settings.reset,
        timing=settings.timing,
        strict=settings.strict,
        detach=settings.detach and backward,
        fire_once=settings.fire_once,
        clamp=settings.clamp_low != -math.inf or settings.clamp_high != math.inf,
        surrogate=settings.surrogate if backward else "",
        coefficients=inputs.theta.shape[1],
        **per_parameter(modes, b, inputs.theta.shape[1]),
        double=inputs.u.dtype == torch.float64,
        channels_fast=grid.channels_fast,
        packed_x=grid.packed,
        packed_gx=fan in PACKABLE and grid.channels_fast,
        packed_v=b in PACKABLE and grid.positions == 1,
        wide=grid.wide,
        block=BLOCK,
        block_c=grid.block_c,
        segment=segment,
        even=t_steps % segment == 0,
        long=backward and t_steps > segment,
        fresh=one_number(*inputs.states),
    )


@functools.cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def _launch(kernel: Any, programs: int, *arguments: Any) -> Any:
    """Run ``kernel``; its last argument is the :class:`Static` it is compiled for."""
    # no contraction into fused multiply-adds: forward, backward and the reference must round alike at the threshold
    options = {"num_warps": WARPS, "num_stages": 1, "enable_fp_fusion": False}
    if torch.version.hip is None and not arguments[-1].double:
        options["maxnreg"] = MOST_REGISTERS
    return _run(kernel, programs, arguments, options)


def _run(kernel: Any, programs: int, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return kernel[(programs,)](*arguments, **options)


class TritonProvider(LaunchedProvider):
    """The fused kernels on CUDA devices; on CPU tensors under Triton's interpreter."""

    kernels = staticmethod(_kernels)

    def why_not(
        self, device: torch.device, dtype: torch.dtype, settings: Settings, steps: int = 1, degree: int = 1
    ) -> str | None:
        if settings.branches > MOST_BRANCHES:
            return f"branches is {settings.branches}; the triton kernels hold at most {MOST_BRANCHES} in registers"
        return super().why_not(device, dtype, settings, steps, degree)

    @torch.no_grad()
    def forward(self, inputs: Inputs, settings: Settings) -> Outputs:
        x, x_l = _readable(inputs.x)
        t, n, c, fan, _ = dimensions(x, settings)
        inputs = _prepared(inputs, x)
        modes = {name: _mode(getattr(inputs, name), c) for name in PARAMETERS}
        # forward sums nothing per channel, but a lane must find its channel
        grid = _grid(x, x_l, None, 0, settings, 2 in modes.values())
        spikes = _dense(x, c, grid.channels_fast)
        u, v, fired = (None if state is None else state.new_empty(state.shape) for state in inputs.states)
        u_sequence = inputs.u.new_empty((t, *inputs.u.shape)) if settings.record else None
        if spikes.numel():
            static = _static(inputs, settings, grid, fan, modes, backward=False)
            with on(x.device):
                _launch(
                    _kernels().forward_kernel, grid.blocks_c * grid.blocks_j,
                    inputs.x, *inputs.states, inputs.parameters, spikes, u, v, fired, u_sequence,
                    t, grid.n, grid.c, grid.positions, grid.n * grid.positions, u.numel(), *grid.x,
                    float(settings.v_reset), float(settings.clamp_low), float(settings.clamp_high),
                    grid.blocks_c, static,
                )  # fmt: skip
        return Outputs(spikes, u, v, fired if settings.fire_once else None, u_sequence)

    @torch.no_grad()
    def backward(
        self, saved: Inputs, settings: Settings, gradients: OutputGradients, wanted: Collection[str] = Gradients._fields
    ) -> Gradients:
        x, x_l = _readable(saved.x)
        t, _, c, fan, _ = dimensions(x, settings)
        inputs = _prepared(saved, x)
        g_spikes, gs_l = _readable(gradients.spikes)
        g_u, g_v, g_u_sequence = (None if g is None else g.contiguous() for g in gradients[1:])
        modes = {name: _mode(getattr(inputs, name), c) for name in PARAMETERS}
        grid = _grid(x, x_l, g_spikes, gs_l, settings, 2 in modes.values())
        gx = _dense(x, x.shape[2], grid.channels_fast)
        gu = inputs.u.new_empty(inputs.u.shape) if "u" in wanted else None
        gv = inputs.v.new_empty(inputs.v.shape) if "v" in wanted and inputs.v is not None else None
        if not g_spikes.numel():
            parameters = ((name, getattr(inputs, name)) for name in PARAMETERS)
            return Gradients(gx, gu, gv, **{k: None if p is None else torch.zeros_like(p) for k, p in parameters})
        static = _static(inputs, settings, grid, fan, modes, backward=True)
        most = max(1, PROGRAMS_PER_PROCESSOR * _processors(x.device) // grid.blocks_c)
        chunks = -(-grid.blocks_j // -(-grid.blocks_j // most))  # as many as needed for equal shares
        programs = grid.blocks_c * chunks
        sums = inputs.u.new_empty((static.sums, programs, BLOCK if static.per_channel else 1))
        scratch = None
        if static.long:
            scratch = inputs.u.new_empty(programs * -(-t // static.segment) * static.slots * BLOCK)
        with on(x.device):
            _launch(
                _kernels().backward_kernel, programs,
                inputs.x, *inputs.states, inputs.parameters,
                g_spikes, g_u, g_v, g_u_sequence, gx, gu, gv, sums, scratch,
                t, grid.n, grid.c, grid.positions, grid.n * grid.positions, inputs.u.numel(), *grid.x, *grid.gs,
                float(settings.v_reset), float(settings.clamp_low), float(settings.clamp_high),
                float(settings.surrogate_a), float(settings.surrogate_b),
                grid.blocks_c, grid.blocks_j, chunks, static,
            )  # fmt: skip
        return Gradients(gx, gu, gv, **_parameter_gradients(sums, inputs, grid, chunks, static))


def _prepared(inputs: Inputs, x: Tensor) -> Inputs:
    """States and parameters contiguous, save fresh states; x as it is read."""
    states = inputs.states
    if not one_number(*states):
        states = tuple(None if state is None else state.contiguous() for state in states)
    return Inputs(x, *states, *(None if p is None else p.contiguous() for p in inputs.parameters))


def _parameter_gradients(
    sums: Tensor, inputs: Inputs, grid: _Grid, chunks: int, static: Any
) -> dict[str, Tensor | None]:
    """``[sums, programs, lanes]`` -> each parameter's gradient in its shape; always added in the same order."""
    if static.per_channel:
        lanes = (BLOCK // grid.block_c, grid.block_c) if grid.channels_fast else (grid.block_c, BLOCK // grid.block_c)
        parts = sums.view(static.sums, chunks, grid.blocks_c, *lanes)
        parts = parts.sum((1, 3)) if grid.channels_fast else parts.sum((1, 4))
        per_channel = parts.reshape(static.sums, -1)[:, : grid.c]
    else:
        per_channel = sums.sum((1, 2)).unsqueeze(1)
    gradients: dict[str, Tensor | None] = {}
    start = 0
    for name in PARAMETERS:
        parameter = getattr(inputs, name)
        if parameter is None:
            gradients[name] = None
            continue
        size = parameter[0].numel()
        part = per_channel[start : start + size]
        start += size
        part = part if parameter.shape[0] == part.shape[1] else part.sum(1, keepdim=True)
        gradients[name] = part.t().reshape(parameter.shape)
    return gradients


provider = TritonProvider()
