"""Pieces of the Triton kernels: one time step forward and backward, and how a neuron's branches are loaded and stored.

A program holds one lane per neuron. Whatever there is per branch, per coefficient or per step of a segment is a tuple
of lanes: Triton has no indexed registers, tuples under ``tl.static_range`` are its unrolled arrays.

Names, here and in :mod:`.kernels`: ``p_`` pointer, ``o_`` offset, ``i_`` index, ``g_`` gradient of what follows;
capitals are sizes and what is known when a kernel is compiled. ``p`` alone are the lanes' :class:`Parameters`, ``S`` is
the :class:`Static` a kernel is compiled for. A plain name is a value per lane, or a tuple of them.
"""

import math
from dataclasses import dataclass, make_dataclass
from typing import Any, NamedTuple

import triton
import triton.language as tl

from ..contract import PARAMETERS, columns
from .tables import activation, surrogate_derivative

ABSENT, PER_LAYER, PER_CHANNEL = 0, 1, 2


def _of(self: Any, i: int) -> int:
    """The number of ``PARAMETERS[i]``."""
    return getattr(self, PARAMETERS[i])


PerParameter = make_dataclass(
    "PerParameter", [(name, int) for name in PARAMETERS], frozen=True, namespace={"__getitem__": _of}
)


def per_parameter(modes: dict[str, int], branches: int, coefficients: int) -> dict[str, Any]:
    """The fields of :class:`Static` that number the parameters, from their modes: how many values a neuron has of each,
    and where they lie among the values of all, the sums of their gradients."""
    count = {name: math.prod(columns(name, branches, coefficients)) * (modes[name] != ABSENT) for name in PARAMETERS}
    at, sums = {}, 0
    for name in PARAMETERS:
        at[name] = sums
        sums += count[name]
    return {"mode": PerParameter(**modes), "count": PerParameter(**count), "at": PerParameter(**at), "sums": sums}


class Parameters(NamedTuple):
    """What the equations are given: a tuple of values for each parameter, and numbers."""

    alpha: Any
    gain: Any
    offset: Any
    strength: Any
    direct: Any
    theta: Any
    threshold: Any
    v_reset: Any
    low: Any
    high: Any


@dataclass(frozen=True)
class Static:
    """What a kernel is compiled for. Triton keeps compiled kernels by the fields alone, not by the properties' text:
    what a property is made of may not change without a new field."""

    branches: int
    fan: int  # inputs per neuron: the branches in `fold` wiring, else 1
    activation: str
    reset: str
    timing: str
    strict: bool
    detach: bool
    fire_once: bool
    clamp: bool
    surrogate: str
    coefficients: int  # K + 1
    mode: PerParameter  # ABSENT, PER_LAYER or PER_CHANNEL
    count: PerParameter  # values of a neuron
    at: PerParameter  # where they lie among `sums` in all
    sums: int
    double: bool
    channels_fast: bool  # neighbouring lanes are neighbouring channels, not positions
    packed_x: bool  # a neuron's inputs are contiguous, see triton._Grid.packed
    packed_gx: bool
    packed_v: bool
    wide: bool  # offsets within one time step need 64 bits
    block: int
    block_c: int  # channels of a block; block // block_c positions
    segment: int  # steps unrolled and held in registers
    even: bool  # segment divides T
    long: bool  # T is longer than one segment
    fresh: bool  # each state starts as one number

    @property
    def dtype(self):
        return tl.float64 if self.double else tl.float32

    @property
    def delayed(self) -> bool:
        return self.timing != "at_once" and self.reset != "none"

    @property
    def delayed_hard(self) -> bool:
        return self.delayed and self.reset == "hard"

    @property
    def delayed_soft(self) -> bool:
        return self.delayed and self.reset == "soft"

    @property
    def resets(self) -> bool:
        """Whether the spike of a step resets the potential of the same step."""
        return self.timing != "next_step" and self.reset != "none"

    @property
    def per_channel(self) -> bool:
        return any(getattr(self.mode, name) == PER_CHANNEL for name in PARAMETERS)

    @property
    def slots(self) -> int:
        """Values in a checkpoint of one neuron."""
        return 1 + self.branches + self.fire_once


@triton.jit
def heaviside(x, S: tl.constexpr):
    fires = x > 0 if S.strict else x >= 0
    return fires.to(S.dtype)


@triton.jit
def carry(u, p, S: tl.constexpr):
    """The delayed reset: r, u after a hard one, and that within the polynomial's limits."""
    r = tl.zeros_like(u)
    if S.delayed:
        r = heaviside(u - p.threshold[0], S)
    carried = u
    if S.delayed_hard:
        carried = (1.0 - r) * u + r * p.v_reset
    clamped = carried
    if S.clamp:  # comparisons, not minimum and maximum: a NaN stays one
        clamped = tl.where(clamped < p.low, p.low, clamped)
        clamped = tl.where(clamped > p.high, p.high, clamped)
    return r, carried, clamped


@triton.jit
def tail_slope(theta_1):
    """Slope of a polynomial of degree 2 or more beyond its limits: theta_1, not steeper than 1."""
    tail = tl.where(theta_1 < -1.0, -1.0, theta_1)
    return tl.where(tail > 1.0, 1.0, tail)


@triton.jit
def advance(x, u, v, fired, p, S: tl.constexpr):
    """One step of the contract. Returns the new s, u, v, fired, and h and sum_b x_b for the backward pass.

    The order of operations is that of the reference, and the compiler may not contract it: forward, backward and the
    reference see the same spikes.
    """
    B: tl.constexpr = S.branches
    FAN: tl.constexpr = S.fan
    LAST: tl.constexpr = S.coefficients - 1
    summed = x[0]
    for b in tl.static_range(1, FAN):
        summed = summed + x[b]
    y = p.direct[0] * summed
    v_new = ()
    if B > 0:
        dendrite = tl.zeros_like(u)
        for b in tl.static_range(B):
            drive = x[b if FAN > 1 else 0]
            if S.mode.gain:
                drive = p.gain[b] * drive
            if S.mode.offset:
                drive = drive + p.offset[b]
            v_b = p.alpha[b] * v[b] + drive
            dendrite = dendrite + p.strength[b] * activation(v_b, S)[0]
            v_new = v_new + (v_b,)
        y = y + dendrite
    r, carried, clamped = carry(u, p, S)
    h = p.theta[LAST] + tl.zeros_like(u)
    if LAST <= 1 or not S.clamp:
        for i in tl.static_range(LAST - 1, -1, -1):
            h = h * carried + p.theta[i]
    else:
        tail = tail_slope(p.theta[1])
        for i in tl.static_range(LAST - 1, 1, -1):
            h = h * clamped + p.theta[i]
        h = h * clamped + (p.theta[1] - tail)
        h = h * clamped + (tail * carried + p.theta[0])
    h = h + y
    if S.delayed_soft:
        h = h - r * p.threshold[0]
    s = heaviside(h - p.threshold[0], S)
    if S.fire_once:
        s = s * (1.0 - fired)
        fired = tl.maximum(fired, s)
    u_new = h
    if S.resets:
        reset = s - r
        u_new = h - reset * p.threshold[0] if S.reset == "soft" else (1.0 - reset) * h + reset * p.v_reset
    return s, u_new, v_new, fired, h, summed


@triton.jit
def retreat(g_spike, g_u, g_v, sums, x, summed, u, v, v_new, fired, h, a, b, p, S: tl.constexpr):
    """One step backward: gradients of x (a tuple), u, v, and ``sums`` with the parameters' gradients added.

    ``u``, ``v``, ``fired`` are the states before the step, ``v_new`` and ``h`` its results, ``g_u`` and ``g_v`` the
    gradients of the states after it. Nothing here decides a spike, so products and sums are fused.
    """
    B: tl.constexpr = S.branches
    FAN: tl.constexpr = S.fan
    LAST: tl.constexpr = S.coefficients - 1
    r, carried, clamped = carry(u, p, S)
    s = heaviside(h - p.threshold[0], S)
    if S.fire_once:
        s = s * (1.0 - fired)
    g_h = g_u
    g_threshold = sums[S.at.threshold]
    if S.resets:
        reset = s - r
        through = g_u
        if S.reset == "soft":
            g_threshold = tl.fma(-g_u, reset, g_threshold)
            through = -g_u * p.threshold[0]
        else:
            g_h = g_u * (1.0 - reset)
            through = g_u * (p.v_reset - h)
        if not S.detach:
            g_spike = g_spike + through
    if S.fire_once:
        g_spike = g_spike * (1.0 - fired)
    g_fire = g_spike * surrogate_derivative(h - p.threshold[0], a, b, S)
    g_h = g_h + g_fire
    g_threshold = g_threshold - g_fire
    if S.delayed_soft:
        g_threshold = tl.fma(-g_h, r, g_threshold)

    power = g_h
    g_theta = ()
    for i in tl.static_range(LAST + 1):
        amount = power
        if i == 1:
            amount = g_h * carried
            if LAST > 1 and S.clamp:
                amount = tl.where((p.theta[1] >= -1.0) & (p.theta[1] <= 1.0), amount, power)
        g_theta = g_theta + (sums[S.at.theta + i] + amount,)
        power = power * clamped
    slope = tl.zeros_like(g_u)
    for i in tl.static_range(LAST, 0, -1):
        slope = tl.fma(slope, clamped, i * p.theta[i])
    if LAST > 1 and S.clamp:
        slope = tl.where((carried > p.low) & (carried < p.high), slope, tail_slope(p.theta[1]))
    g_u = g_h * slope
    if S.delayed_hard:
        g_u = g_u * (1.0 - r)

    somatic = p.direct[0] * g_h
    shared = somatic
    g_x, g_v_old, g_alpha, g_gain, g_offset, g_strength = (), (), (), (), (), ()
    for i in tl.static_range(B):
        value, slope = activation(v_new[i], S)
        g_v_i = tl.fma(g_h * p.strength[i], slope, g_v[i])
        g_strength = g_strength + (tl.fma(g_h, value, sums[S.at.strength + i]),)
        g_alpha = g_alpha + (tl.fma(g_v_i, v[i], sums[S.at.alpha + i]),)
        g_x_i = g_v_i
        if S.mode.gain:
            g_gain = g_gain + (tl.fma(g_v_i, x[i if FAN > 1 else 0], sums[S.at.gain + i]),)
            g_x_i = g_v_i * p.gain[i]
        if S.mode.offset:
            g_offset = g_offset + (sums[S.at.offset + i] + g_v_i,)
        g_v_old = g_v_old + (g_v_i * p.alpha[i],)
        if FAN > 1:
            g_x = g_x + (somatic + g_x_i,)
        else:
            shared = shared + g_x_i
    if FAN == 1:
        g_x = (shared,)
    g_direct = tl.fma(g_h, summed, sums[S.at.direct])
    return g_x, g_u, g_v_old, g_alpha + g_gain + g_offset + g_strength + (g_direct,) + g_theta + (g_threshold,)


@triton.jit
def choose(condition, new, old, COUNT: tl.constexpr):
    """``tl.where`` over tuples."""
    result = ()
    for i in tl.static_range(COUNT):
        result = result + (tl.where(condition, new[i], old[i]),)
    return result


@triton.jit
def _unpack(tile, COUNT: tl.constexpr):
    """``[BLOCK, COUNT]`` -> COUNT lanes; a thread keeps what it loaded."""
    BLOCK: tl.constexpr = tile.shape[0]
    if COUNT == 2:
        first, second = tl.split(tile)
        return (first, second)
    elif COUNT == 4:
        even, odd = tl.split(tl.reshape(tile, [BLOCK, 2, 2]))
        x0, x2 = tl.split(even)
        x1, x3 = tl.split(odd)
        return (x0, x1, x2, x3)
    else:
        even, odd = tl.split(tl.reshape(tile, [BLOCK, 2, 2, 2]))
        even_low, even_high = tl.split(even)
        odd_low, odd_high = tl.split(odd)
        x0, x4 = tl.split(even_low)
        x2, x6 = tl.split(even_high)
        x1, x5 = tl.split(odd_low)
        x3, x7 = tl.split(odd_high)
        return (x0, x1, x2, x3, x4, x5, x6, x7)


@triton.jit
def _pack(x, COUNT: tl.constexpr):
    """The inverse of ``_unpack``."""
    BLOCK: tl.constexpr = x[0].shape[0]
    if COUNT == 2:
        return tl.join(x[0], x[1])
    elif COUNT == 4:
        return tl.reshape(tl.join(tl.join(x[0], x[2]), tl.join(x[1], x[3])), [BLOCK, 4])
    else:
        even = tl.join(tl.join(x[0], x[4]), tl.join(x[2], x[6]))
        odd = tl.join(tl.join(x[1], x[5]), tl.join(x[3], x[7]))
        return tl.reshape(tl.join(even, odd), [BLOCK, 8])


@triton.jit
def load_branches(p, offset, stride, COUNT: tl.constexpr, PACKED: tl.constexpr, S: tl.constexpr):
    """COUNT lanes in the state dtype; offsets lie within the tensor, so nothing is masked."""
    if PACKED:
        tile = tl.load(p + (offset[:, None] + tl.arange(0, COUNT)[None, :]))
        return _unpack(tile.to(S.dtype), COUNT)
    else:
        values = ()
        for b in tl.static_range(COUNT):
            values = values + (tl.load(p + (offset + b * stride)).to(S.dtype),)
        return values


@triton.jit
def store_branches(p, offset, stride, values, mask, COUNT: tl.constexpr, PACKED: tl.constexpr):
    if PACKED:
        tile = _pack(values, COUNT).to(p.dtype.element_ty)
        tl.store(p + (offset[:, None] + tl.arange(0, COUNT)[None, :]), tile, mask=mask[:, None])
    else:
        for b in tl.static_range(COUNT):
            tl.store(p + (offset + b * stride), values[b].to(p.dtype.element_ty), mask=mask)


@triton.jit
def _load_parameter(p, i_c, MODE: tl.constexpr, COUNT: tl.constexpr):
    """COUNT values: numbers when per layer, lanes when per channel; none when absent."""
    values = ()
    if MODE == 1:
        for i in tl.static_range(COUNT):
            values = values + (tl.load(p + i),)
    elif MODE == 2:
        for i in tl.static_range(COUNT):
            values = values + (tl.load(p + i_c * COUNT + i),)
    return values


@triton.jit
def load_parameters(p_parameters, v_reset, low, high, c, S: tl.constexpr):
    """A neuron's parameters; ``p_parameters`` are their pointers, in the order of ``PARAMETERS``."""
    values = ()
    for i in tl.static_range(len(p_parameters)):
        values = values + (_load_parameter(p_parameters[i], c, S.mode[i], S.count[i]),)
    return Parameters(
        *values,
        tl.full((), v_reset, S.dtype),
        tl.full((), low, S.dtype),
        tl.full((), high, S.dtype),
    )
