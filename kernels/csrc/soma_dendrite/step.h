// The step of the soma-dendrite pair, as functions of one neuron's scalars: dendrite, soma, fire, reset, and their
// derivatives. The same text is compiled by g++ (inside lane loops that it vectorises) and by NVRTC (one thread per
// neuron). The equations are those of soma_dendrite/contract.py; table indices are those of activations.py and
// surrogates.py. S is the state scalar, float or double.
#pragma once

#include "common/functions.h"

enum Activation { IDENTITY, RELU, LEAKY_RELU, MEXICAN_HAT, TANH, SIGMOID, ELU, SOFTPLUS, SILU, GELU, ACTIVATIONS };
enum Reset { RESET_NONE, RESET_HARD, RESET_SOFT };
enum Timing { AT_ONCE, NEXT_STEP, AT_ONCE_RETESTED };
enum SurrogateKind {
  SG_SIGMOID,
  SG_ATAN,
  SG_PIECEWISE_QUADRATIC,
  SG_PIECEWISE_EXP,
  SG_SOFT_SIGN,
  SG_SUPER_SPIKE,
  SG_ERF,
  SG_LOG_ABS,
  SG_PIECEWISE_LEAKY_RELU,
  SG_S2NN,
  SG_Q_PSEUDO_SPIKE,
  SG_LEAKY_K_RELU,
  SG_FAKE_NUMERICAL,
  SG_LOG_TAILED_RELU,
  SG_STRAIGHT_THROUGH,
  SG_RECT,
  SG_FAST_SIGMOID,
  SG_TRIANGULAR,
  SG_HEAVISIDE,
  SG_RATE_ESCAPE,
  SG_SPARSE_FAST_SIGMOID,
  SG_FOURIER,
  SURROGATES
};

template <class S>
SD_FN S sd_logistic(S x) {
  return S(1) / (S(1) + sd_exp(-x));
}

template <class S>
SD_FN S sd_tanh_of(S v) {
  const S e = sd_expm1(S(-2) * sd_abs(v));  // tanh |v| = (1 - exp(-2|v|)) / (1 + exp(-2|v|))
  const S t = -e / (S(2) + e);
  return v < S(0) ? -t : t;
}

// f(v); `slope` becomes f'(v). Callers that ignore the slope pay nothing: it is dead code after inlining.
template <int A, class S>
SD_FN S activate(S v, S& slope) {
  const S variance = S(0.75 + 1e-5), sqrt_half = S(0.70710678118654752440), root = S(0.39894228040143267794);
  if constexpr (A == IDENTITY) {
    slope = S(1);
    return v;
  }
  if constexpr (A == RELU) {
    slope = v > S(0) ? S(1) : S(0);
    return v < S(0) ? S(0) : v;
  }
  if constexpr (A == LEAKY_RELU) {
    slope = v > S(0) ? S(1) : S(0.01);
    return slope * v;
  }
  if constexpr (A == MEXICAN_HAT) {
    const S square = v * v / variance;
    const S gauss = sd_exp(S(-0.5) * square) * S(0.46065579493338453);  // 1 / sqrt(2 pi variance)
    slope = S(3) * v / (variance * variance) * (square - S(3)) * gauss;
    return S(3) * (S(1) - square) * gauss / variance;
  }
  if constexpr (A == TANH) {
    const S t = sd_tanh_of(v);
    slope = S(1) - t * t;
    return t;
  }
  if constexpr (A == SIGMOID) {
    const S s = sd_logistic(v);
    slope = s * (S(1) - s);
    return s;
  }
  if constexpr (A == ELU) {
    const S e = sd_expm1(v > S(0) ? S(0) : v);
    slope = e + S(1);
    return v > S(0) ? v : e;
  }
  if constexpr (A == SOFTPLUS) {
    slope = sd_logistic(v);
    return (v > S(0) ? v : S(0)) + sd_log1p(sd_exp(-sd_abs(v)));
  }
  if constexpr (A == SILU) {
    const S s = sd_logistic(v);
    slope = s * (S(1) + v * (S(1) - s));
    return v * s;
  }
  if constexpr (A == GELU) {
    const S bell = sd_exp(S(-0.5) * v * v);
    const S half = S(0.5) * (S(1) + sd_erf(v * sqrt_half, bell));
    slope = half + v * bell * root;
    return v * half;
  }
}

// The surrogate derivative at x = h - threshold.
template <int G, class S>
SD_FN S surrogate(S x, S a, S b) {
  const S m = sd_abs(x);
  if constexpr (G == SG_SIGMOID) {
    const S s = sd_logistic(a * x);
    return a * s * (S(1) - s);
  }
  if constexpr (G == SG_ATAN) {
    const S z = S(1.57079632679489661923) * a * x;
    return a / (S(2) + S(2) * z * z);
  }
  if constexpr (G == SG_PIECEWISE_QUADRATIC) return m > S(1) / a ? S(0) : a - a * a * m;
  if constexpr (G == SG_PIECEWISE_EXP) return a / S(2) * sd_exp(-a * m);
  if constexpr (G == SG_SOFT_SIGN) {
    const S z = S(1) / a + m;
    return S(1) / (S(2) * a * z * z);
  }
  if constexpr (G == SG_SUPER_SPIKE) {
    const S z = S(1) + m;
    return a / (z * z);
  }
  if constexpr (G == SG_ERF) {
    const S z = a * x;
    return a * S(0.56418958354775628695) * sd_exp(-z * z);
  }
  if constexpr (G == SG_LOG_ABS) return S(1) / (S(1) / a + m);
  if constexpr (G == SG_PIECEWISE_LEAKY_RELU) return m < a ? S(1) / (S(2) * a) : b;
  if constexpr (G == SG_S2NN) {
    const S s = sd_logistic(a * x), z = x < S(0) ? S(0) : x;
    return x < S(0) ? a * s * (S(1) - s) : b / (z + S(1));
  }
  if constexpr (G == SG_Q_PSEUDO_SPIKE) return sd_pow(S(1) + S(2) / (a - S(1)) * m, -a);
  if constexpr (G == SG_LEAKY_K_RELU) return x >= S(0) ? b : a;
  if constexpr (G == SG_FAKE_NUMERICAL) {
    const S z = S(1) / m;
    return z > a ? a : z;
  }
  if constexpr (G == SG_LOG_TAILED_RELU) {
    const S z = x < S(1) ? S(1) : x;
    return x > S(0) ? S(1) / z : a;
  }
  if constexpr (G == SG_STRAIGHT_THROUGH) return S(1);
  if constexpr (G == SG_RECT) return m < S(0.5) / a ? a : S(0);
  if constexpr (G == SG_FAST_SIGMOID) {
    const S z = S(1) + a * m;
    return S(1) / (z * z);
  }
  if constexpr (G == SG_TRIANGULAR) return x >= S(0) ? -a : a;
  if constexpr (G == SG_HEAVISIDE) return x > S(0) ? S(1) : S(0);
  if constexpr (G == SG_RATE_ESCAPE) return b * sd_exp(-a * sd_abs(x - S(1)));
  if constexpr (G == SG_SPARSE_FAST_SIGMOID) {
    const S z = S(1) + a * m;
    return x > b ? S(1) / (z * z) : S(0);
  }
  if constexpr (G == SG_FOURIER) {
    const S w = S(6.28318530717958647692) / b;
    S total = S(0);
    for (int i = 1; i < int(a); ++i) total += sd_cos(S(2 * i - 1) * w * x);
    return total * (S(4) / b);
  }
}

// v <- alpha v + (gain x + offset)
template <class S>
SD_FN S integrate(S x, S v, S alpha, S gain, S offset) {
  return alpha * v + (gain * x + offset);
}

template <int R, int W>
constexpr bool delayed = W != AT_ONCE && R != RESET_NONE;
template <int R, int W>
constexpr bool resets_at_once = W != NEXT_STEP && R != RESET_NONE;

// The spike of the step before, where the reset waits for this one. `level` is what h must reach: the threshold, or for
// a strict comparison the next number above it, which is the same as h > threshold.
template <int R, int W, class S>
SD_FN S pending(S u, S level) {
  if constexpr (delayed<R, W>) return u >= level ? S(1) : S(0);
  return S(0);
}

// What the polynomial is applied to, before and after the limits.
template <int R, int W, class S>
SD_FN S carried(S u, S r, S v_reset) {
  if constexpr (delayed<R, W> && R == RESET_HARD) return r != S(0) ? v_reset : u;
  return u;
}
template <class S>
SD_FN S clamped(S u, S low, S high) {
  const S c = u < low ? low : u;
  return c > high ? high : c;
}

// Slope of a polynomial of degree 2 or more beyond its limits: theta_1, not steeper than 1.
template <class S>
SD_FN S tail_slope(S theta1) {
  return clamped(theta1, S(-1), S(1));
}

// dP/du from P's derivative at c, the limited u. The borders belong to the line, as with torch.clamp.
template <class S>
SD_FN S slope_at(S slope, S u, S low, S high, S tail) {
  return u > low && u < high ? slope : tail;
}

// dP/dtheta_1, from u and the limited u
template <class S>
SD_FN S by_theta1(S u, S c, S theta1) {
  return theta1 >= S(-1) && theta1 <= S(1) ? u : c;
}

// h from P(u) + y
template <int R, int W, class S>
SD_FN S subtract_pending(S h, S r, S threshold) {
  if constexpr (delayed<R, W> && R == RESET_SOFT) return h - r * threshold;
  return h;
}

// u after the step. `s` is already masked by fire-once.
template <int R, int W, class S>
SD_FN S reset_state(S h, S s, S r, S threshold, S v_reset) {
  if constexpr (!resets_at_once<R, W>) return h;
  if constexpr (R == RESET_SOFT) return h - (s - r) * threshold;
  if constexpr (W == AT_ONCE) return s != S(0) ? v_reset : h;
  return (S(1) - (s - r)) * h + (s - r) * v_reset;
}

// gh, the gradient of h, from those of the spike (gs) and of u after the step (gu). `sg` is the surrogate derivative,
// `allowed` is 1 - fired. `g_threshold` becomes the neuron's contribution to the threshold's gradient.
template <int R, int W, bool DETACH, class S>
SD_FN S fire_backward(S gs, S gu, S h, S s, S r, S sg, S allowed, S threshold, S v_reset, S& g_threshold) {
  S gh = gu;
  g_threshold = S(0);
  if constexpr (resets_at_once<R, W>) {
    const S amount = s - r;
    if constexpr (R == RESET_SOFT) {
      g_threshold = -gu * amount;
      if constexpr (!DETACH) gs -= gu * threshold;
    } else {
      gh = gu * (S(1) - amount);
      if constexpr (!DETACH) gs += gu * (v_reset - h);
    }
  }
  const S gd = gs * allowed * sg;
  gh += gd;
  g_threshold -= gd;
  if constexpr (delayed<R, W> && R == RESET_SOFT) g_threshold -= gh * r;
  return gh;
}

// The gradient of u before the step from that of P's argument.
template <int R, int W, class S>
SD_FN S carry_backward(S g, S r) {
  if constexpr (delayed<R, W> && R == RESET_HARD) return r != S(0) ? S(0) : g;
  return g;
}
