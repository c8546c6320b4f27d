"""Pieces of the Triton kernels: one time step forward and backward, and how a neuron's branches are loaded and stored.

A program holds one lane per neuron. Whatever there is per branch, per coefficient or per step of a segment is a tuple
of lanes: Triton has no indexed registers, tuples under ``tl.static_range`` are its unrolled arrays. Names: ``p_``
pointer, ``o_`` offset, ``i_`` index, ``g`` gradient; ``S`` is the :class:`Static` a kernel is compiled for.
"""

from dataclasses import dataclass

import triton
import triton.language as tl

from .tables import activation_derivative, activation_value, surrogate_derivative

ABSENT, PER_LAYER, PER_CHANNEL = 0, 1, 2


@dataclass(frozen=True)
class Static:
    """What a kernel is compiled for. Parameters are ABSENT, PER_LAYER or PER_CHANNEL."""

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
    alpha: int
    gain: int
    offset: int
    strength: int
    direct: int
    theta: int
    threshold: int
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
        modes = (self.alpha, self.gain, self.offset, self.strength, self.direct, self.theta, self.threshold)
        return PER_CHANNEL in modes

    # Where the parameter gradients of one neuron lie: alpha, gain, offset, strength, direct, theta, threshold.

    @property
    def at_offset(self) -> int:
        return self.branches * (1 + (self.gain != ABSENT))

    @property
    def at_strength(self) -> int:
        return self.at_offset + self.branches * (self.offset != ABSENT)

    @property
    def at_theta(self) -> int:
        return self.at_strength + self.branches + 1

    @property
    def sums(self) -> int:
        return self.at_theta + self.coefficients + 1

    @property
    def slots(self) -> int:
        """Values in a checkpoint of one neuron."""
        return 1 + self.branches + self.fire_once


@triton.jit
def heaviside(x, S: tl.constexpr):
    fires = x > 0 if S.strict else x >= 0
    return fires.to(S.dtype)


@triton.jit
def carry(u, parameters, S: tl.constexpr):
    """The delayed reset: r, u after a hard one, and that within the polynomial's limits."""
    alpha, gain, offset, strength, direct, theta, threshold, v_reset, low, high = parameters
    r = tl.zeros_like(u)
    if S.delayed:
        r = heaviside(u - threshold[0], S)
    carried = u
    if S.delayed_hard:
        carried = (1.0 - r) * u + r * v_reset
    clamped = carried
    if S.clamp:  # comparisons, not minimum and maximum: a NaN stays one
        clamped = tl.where(clamped < low, low, clamped)
        clamped = tl.where(clamped > high, high, clamped)
    return r, carried, clamped


@triton.jit
def tail_slope(theta_1):
    """Slope of a polynomial of degree 2 or more beyond its limits: theta_1, not steeper than 1."""
    tail = tl.where(theta_1 < -1.0, -1.0, theta_1)
    return tl.where(tail > 1.0, 1.0, tail)


@triton.jit
def advance(x, u, v, fired, parameters, S: tl.constexpr):
    """One step of the contract. Returns the new s, u, v, fired, and h and sum_b x_b for the backward pass.

    The order of operations is that of the reference, and the compiler may not contract it: forward, backward and the
    reference see the same spikes.
    """
    alpha, gain, offset, strength, direct, theta, threshold, v_reset, low, high = parameters
    B: tl.constexpr = S.branches
    FAN: tl.constexpr = S.fan
    LAST: tl.constexpr = S.coefficients - 1
    summed = x[0]
    for b in tl.static_range(1, FAN):
        summed = summed + x[b]
    y = direct[0] * summed
    v_new = ()
    if B > 0:
        dendrite = tl.zeros_like(u)
        for b in tl.static_range(B):
            drive = x[b if FAN > 1 else 0]
            if S.gain:
                drive = gain[b] * drive
            if S.offset:
                drive = drive + offset[b]
            v_b = alpha[b] * v[b] + drive
            dendrite = dendrite + strength[b] * activation_value(v_b, S)
            v_new = v_new + (v_b,)
        y = y + dendrite
    r, carried, clamped = carry(u, parameters, S)
    h = theta[LAST] + tl.zeros_like(u)
    if LAST <= 1 or not S.clamp:
        for i in tl.static_range(LAST - 1, -1, -1):
            h = h * carried + theta[i]
    else:
        tail = tail_slope(theta[1])
        for i in tl.static_range(LAST - 1, 1, -1):
            h = h * clamped + theta[i]
        h = h * clamped + (theta[1] - tail)
        h = h * clamped + (tail * carried + theta[0])
    h = h + y
    if S.delayed_soft:
        h = h - r * threshold[0]
    s = heaviside(h - threshold[0], S)
    if S.fire_once:
        s = s * (1.0 - fired)
        fired = tl.maximum(fired, s)
    u_new = h
    if S.resets:
        reset = s - r
        u_new = h - reset * threshold[0] if S.reset == "soft" else (1.0 - reset) * h + reset * v_reset
    return s, u_new, v_new, fired, h, summed


@triton.jit
def retreat(gs, gu, gv, sums, x, summed, u, v, v_new, fired, h, a, b, parameters, S: tl.constexpr):
    """One step backward: gradients of x (a tuple), u, v, and ``sums`` with the parameters' gradients added.

    ``u``, ``v``, ``fired`` are the states before the step, ``v_new`` and ``h`` its results, ``gu`` and ``gv`` the
    gradients of the states after it. Nothing here decides a spike, so products and sums are fused.
    """
    alpha, gain, offset, strength, direct, theta, threshold, v_reset, low, high = parameters
    B: tl.constexpr = S.branches
    FAN: tl.constexpr = S.fan
    LAST: tl.constexpr = S.coefficients - 1
    r, carried, clamped = carry(u, parameters, S)
    s = heaviside(h - threshold[0], S)
    if S.fire_once:
        s = s * (1.0 - fired)
    gh = gu
    g_threshold = sums[S.sums - 1]
    if S.resets:
        reset = s - r
        through = gu
        if S.reset == "soft":
            g_threshold = tl.fma(-gu, reset, g_threshold)
            through = -gu * threshold[0]
        else:
            gh = gu * (1.0 - reset)
            through = gu * (v_reset - h)
        if not S.detach:
            gs = gs + through
    if S.fire_once:
        gs = gs * (1.0 - fired)
    gd = gs * surrogate_derivative(h - threshold[0], a, b, S)
    gh = gh + gd
    g_threshold = g_threshold - gd
    if S.delayed_soft:
        g_threshold = tl.fma(-gh, r, g_threshold)

    power = gh
    g_theta = ()
    for i in tl.static_range(LAST + 1):
        amount = power
        if i == 1:
            amount = gh * carried
            if LAST > 1 and S.clamp:
                amount = tl.where((theta[1] >= -1.0) & (theta[1] <= 1.0), amount, power)
        g_theta = g_theta + (sums[S.at_theta + i] + amount,)
        power = power * clamped
    slope = tl.zeros_like(gu)
    for i in tl.static_range(LAST, 0, -1):
        slope = tl.fma(slope, clamped, i * theta[i])
    if LAST > 1 and S.clamp:
        slope = tl.where((carried > low) & (carried < high), slope, tail_slope(theta[1]))
    gu = gh * slope
    if S.delayed_hard:
        gu = gu * (1.0 - r)

    somatic = direct[0] * gh
    shared = somatic
    gx, gv_old, g_alpha, g_gain, g_offset, g_strength = (), (), (), (), (), ()
    for i in tl.static_range(B):
        gv_i = tl.fma(gh * strength[i], activation_derivative(v_new[i], S), gv[i])
        g_strength = g_strength + (tl.fma(gh, activation_value(v_new[i], S), sums[S.at_strength + i]),)
        g_alpha = g_alpha + (tl.fma(gv_i, v[i], sums[i]),)
        gx_i = gv_i
        if S.gain:
            g_gain = g_gain + (tl.fma(gv_i, x[i if FAN > 1 else 0], sums[B + i]),)
            gx_i = gv_i * gain[i]
        if S.offset:
            g_offset = g_offset + (sums[S.at_offset + i] + gv_i,)
        gv_old = gv_old + (gv_i * alpha[i],)
        if FAN > 1:
            gx = gx + (somatic + gx_i,)
        else:
            shared = shared + gx_i
    if FAN == 1:
        gx = (shared,)
    g_direct = tl.fma(gh, summed, sums[S.at_theta - 1])
    return gx, gu, gv_old, g_alpha + g_gain + g_offset + g_strength + (g_direct,) + g_theta + (g_threshold,)


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
def load_parameter(p, i_c, MODE: tl.constexpr, COUNT: tl.constexpr):
    """COUNT values: numbers when per layer, lanes when per channel; none when absent."""
    values = ()
    if MODE == 1:
        for i in tl.static_range(COUNT):
            values = values + (tl.load(p + i),)
    elif MODE == 2:
        for i in tl.static_range(COUNT):
            values = values + (tl.load(p + i_c * COUNT + i),)
    return values
