"""Activations and surrogate derivatives in Triton: the rows of :mod:`..activations` and :mod:`..surrogates` by name.

A row is one branch of a chain. ``S`` is the :class:`~.functions.Static` a kernel is compiled for; only the chosen row
ends up in the kernel.
"""

import math

import triton
import triton.language as tl

from ...activations import LEAKY_SLOPE, MEXICAN_HAT_VARIANCE

HALF_PI = tl.constexpr(math.pi / 2)
TWO_PI = tl.constexpr(2 * math.pi)
SQRT_PI = tl.constexpr(math.sqrt(math.pi))
SQRT_HALF = tl.constexpr(math.sqrt(0.5))
SQRT_TWO_PI = tl.constexpr(math.sqrt(2 * math.pi))
SLOPE = tl.constexpr(LEAKY_SLOPE)
VARIANCE = tl.constexpr(MEXICAN_HAT_VARIANCE)
HAT_SCALE = tl.constexpr(math.sqrt(2 * math.pi * MEXICAN_HAT_VARIANCE))


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
def activation(v, S: tl.constexpr):
    """f(v) and f'(v); what a caller ignores is not computed."""
    one = tl.full(v.shape, 1.0, S.dtype)
    zero = tl.zeros_like(v)
    if S.activation == "identity":
        return v, one
    elif S.activation == "relu":
        return tl.where(v < 0, 0.0, v), tl.where(v > 0, one, zero)
    elif S.activation == "leaky_relu":
        return tl.where(v > 0, v, v * SLOPE), tl.where(v > 0, one, zero + SLOPE)
    elif S.activation == "mexican_hat":
        gauss = tl.exp(-v * v / (2.0 * VARIANCE)) / HAT_SCALE
        value = 3.0 * (1.0 - v * v / VARIANCE) * gauss / VARIANCE
        return value, 3.0 * v / (VARIANCE * VARIANCE) * (v * v / VARIANCE - 3.0) * gauss
    elif S.activation == "tanh":
        value = _tanh(v, S)
        return value, 1.0 - value * value
    elif S.activation == "sigmoid":
        value = _sigmoid(v)
        return value, value * (1.0 - value)
    elif S.activation == "elu":
        return tl.where(v > 0, v, _expm1(v, S)), tl.where(v > 0, 1.0, tl.exp(v))
    elif S.activation == "softplus":
        value = tl.where(v > 0, v, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(v)))
        return tl.where(v > 20.0, v, value), _sigmoid(v)
    elif S.activation == "silu":
        value = _sigmoid(v)
        return v * value, value * (1.0 + v * (1.0 - value))
    elif S.activation == "gelu":
        half = 0.5 * (1.0 + tl.erf(v * SQRT_HALF))
        return v * half, half + v * tl.exp(-v * v / 2.0) / SQRT_TWO_PI
    else:
        tl.static_assert(False, "unknown activation")


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
    elif S.surrogate == "squarewave_fourier_series":
        value = zero
        for i in range(1, tl.cast(a, tl.int32)):
            value += tl.cos(x * TWO_PI / b * (2 * i - 1))
        return value * (4.0 / b)
    else:
        tl.static_assert(False, "unknown surrogate")
