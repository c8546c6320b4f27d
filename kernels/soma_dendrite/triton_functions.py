"""Pieces of the Triton kernels: one time step forward and backward, the activation and surrogate tables, tiles.

A program holds one lane per neuron. Whatever there is per branch, per coefficient or per step of a segment is a tuple of
lanes: Triton has no indexed registers, tuples under ``tl.static_range`` are its unrolled arrays. Names: ``p_`` pointer,
``i_`` index; ``S`` is the :class:`Static` a kernel is compiled for.
"""

import math
from dataclasses import dataclass

import triton
import triton.language as tl

from ..activations import LEAKY_SLOPE, MEXICAN_HAT_VARIANCE

HALF_PI = tl.constexpr(math.pi / 2)
TWO_PI = tl.constexpr(2 * math.pi)
SQRT_PI = tl.constexpr(math.sqrt(math.pi))
SQRT_HALF = tl.constexpr(math.sqrt(0.5))
SQRT_TWO_PI = tl.constexpr(math.sqrt(2 * math.pi))
SLOPE = tl.constexpr(LEAKY_SLOPE)
VARIANCE = tl.constexpr(MEXICAN_HAT_VARIANCE)
HAT_SCALE = tl.constexpr(math.sqrt(2 * math.pi * MEXICAN_HAT_VARIANCE))

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
def _expm1(v, S: tl.constexpr):
    value = tl.exp(v) - 1.0
    if not S.double:  # float32 loses digits near 0; its own series there
        series = v * (1.0 + v / 2 * (1.0 + v / 3 * (1.0 + v / 4 * (1.0 + v / 5 * (1.0 + v / 6 * (1.0 + v / 7))))))
        value = tl.where(tl.abs(v) < 0.5, series, value)
    return value


@triton.jit
def _tanh(v, S: tl.constexpr):
    e = _expm1(-2.0 * tl.abs(v), S)
    value = -e / (2.0 + e)
    return tl.where(v < 0, -value, value)


@triton.jit
def _sigmoid(v):
    return 1.0 / (1.0 + tl.exp(-v))


@triton.jit
def activation_value(v, S: tl.constexpr):
    if S.activation == "identity":
        return v
    elif S.activation == "relu":
        return tl.where(v < 0, 0.0, v)
    elif S.activation == "leaky_relu":
        return tl.where(v > 0, v, v * SLOPE)
    elif S.activation == "mexican_hat":
        return 3.0 * (1.0 - v * v / VARIANCE) * (tl.exp(-v * v / (2.0 * VARIANCE)) / HAT_SCALE) / VARIANCE
    elif S.activation == "tanh":
        return _tanh(v, S)
    elif S.activation == "sigmoid":
        return _sigmoid(v)
    elif S.activation == "elu":
        return tl.where(v > 0, v, _expm1(v, S))
    elif S.activation == "softplus":
        return tl.where(v > 20.0, v, tl.where(v > 0, v, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(v))))
    elif S.activation == "silu":
        return v * _sigmoid(v)
    else:
        tl.static_assert(S.activation == "gelu", "unknown activation")
        return 0.5 * v * (1.0 + tl.erf(v * SQRT_HALF))


@triton.jit
def activation_derivative(v, S: tl.constexpr):
    if S.activation == "identity":
        return tl.full(v.shape, 1.0, S.dtype)
    elif S.activation == "relu":
        return tl.where(v > 0, 1.0, 0.0).to(S.dtype)
    elif S.activation == "leaky_relu":
        return tl.where(v > 0, tl.full(v.shape, 1.0, S.dtype), tl.full(v.shape, SLOPE, S.dtype))
    elif S.activation == "mexican_hat":
        return 3.0 * v / (VARIANCE * VARIANCE) * (v * v / VARIANCE - 3.0) * (tl.exp(-v * v / (2.0 * VARIANCE)) / HAT_SCALE)
    elif S.activation == "tanh":
        value = _tanh(v, S)
        return 1.0 - value * value
    elif S.activation == "sigmoid":
        value = _sigmoid(v)
        return value * (1.0 - value)
    elif S.activation == "elu":
        return tl.where(v > 0, 1.0, tl.exp(v))
    elif S.activation == "softplus":
        return _sigmoid(v)
    elif S.activation == "silu":
        value = _sigmoid(v)
        return value * (1.0 + v * (1.0 - value))
    else:
        tl.static_assert(S.activation == "gelu", "unknown activation")
        return 0.5 * (1.0 + tl.erf(v * SQRT_HALF)) + v * tl.exp(-v * v / 2.0) / SQRT_TWO_PI


@triton.jit
def surrogate_derivative(x, a, b, S: tl.constexpr):
    """The derivative that stands for the step's own, at ``x = h - threshold``; ``a``, ``b`` in the state dtype."""
    zero = tl.zeros_like(x)
    size = tl.abs(x)
    if S.surrogate == "sigmoid":
        value = _sigmoid(a * x)
        return a * value * (1.0 - value)
    elif S.surrogate == "atan":
        z = a * HALF_PI * x
        return (a / 2) / (1.0 + z * z)
    elif S.surrogate == "piecewise_quadratic":
        return tl.where(size > 1.0 / a, zero, a - a * a * size)
    elif S.surrogate == "piecewise_exp":
        return a / 2 * tl.exp(-a * size)
    elif S.surrogate == "soft_sign":
        z = 1.0 / a + size
        return 1.0 / (2.0 * a * z * z)
    elif S.surrogate == "super_spike":
        return a / ((1.0 + size) * (1.0 + size))
    elif S.surrogate == "erf":
        return a / SQRT_PI * tl.exp(-(a * x) * (a * x))
    elif S.surrogate == "nonzero_sign_log_abs":
        return 1.0 / (1.0 / a + size)
    elif S.surrogate == "piecewise_leaky_relu":
        return tl.where(size < a, zero + 1.0 / (2.0 * a), zero + b)
    elif S.surrogate == "s2nn":
        value = _sigmoid(a * x)
        return tl.where(x < 0, a * value * (1.0 - value), b / (tl.maximum(x, zero) + 1.0))
    elif S.surrogate == "q_pseudo_spike":
        return tl.exp(-a * tl.log(1.0 + 2.0 / (a - 1.0) * size))
    elif S.surrogate == "leaky_k_relu":
        return tl.where(x >= 0, zero + b, zero + a)
    elif S.surrogate == "fake_numerical_gradient":
        return tl.minimum(1.0 / size, zero + a)
    elif S.surrogate == "log_tailed_relu":
        return tl.where(x > 0, 1.0 / tl.maximum(x, zero + 1.0), zero + a)
    elif S.surrogate == "straight_through":
        return zero + 1.0
    elif S.surrogate == "rect":
        return tl.where(size < 0.5 / a, zero + a, zero)
    elif S.surrogate == "fast_sigmoid":
        return 1.0 / ((1.0 + a * size) * (1.0 + a * size))
    elif S.surrogate == "triangular":
        return tl.where(x >= 0, zero - a, zero + a)
    elif S.surrogate == "heaviside":
        return tl.where(x > 0, zero + 1.0, zero)
    elif S.surrogate == "spike_rate_escape":
        return b * tl.exp(-a * tl.abs(x - 1.0))
    elif S.surrogate == "sparse_fast_sigmoid":
        return tl.where(x > b, 1.0 / ((1.0 + a * size) * (1.0 + a * size)), zero)
    else:
        tl.static_assert(S.surrogate == "squarewave_fourier_series", "unknown surrogate")
        value = zero
        for i in range(1, tl.cast(a, tl.int32)):
            value += tl.cos(x * TWO_PI / b * (2 * i - 1))
        return value * (4.0 / b)


@triton.jit
def heaviside(x, S: tl.constexpr):
    fires = x > 0 if S.strict else x >= 0
    return fires.to(S.dtype)


@triton.jit
def carry(u, parameters, S: tl.constexpr):
    """The delayed reset: r, u after a hard one, and that clamped, the polynomial's argument."""
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
    for i in tl.static_range(LAST - 1, -1, -1):
        h = h * clamped + theta[i]
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
        g_theta = g_theta + (sums[S.at_theta + i] + power,)
        power = power * clamped
    slope = tl.zeros_like(gu)
    for i in tl.static_range(LAST, 0, -1):
        slope = tl.fma(slope, clamped, i * theta[i])
    gu = gh * slope
    if S.clamp:
        gu = tl.where((carried >= low) & (carried <= high), gu, 0.0)
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
