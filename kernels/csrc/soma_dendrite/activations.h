// The activations of the branches, by the indices of activations.py: a row is a name and a case of `activate`.
#pragma once
#include "common/functions.h"

enum Activation { IDENTITY, RELU, LEAKY_RELU, MEXICAN_HAT, TANH, SIGMOID, ELU, SOFTPLUS, SILU, GELU, ACTIVATIONS };

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
    slope = sd_fma(-t, t, S(1));
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
    slope = s * sd_fma(v, S(1) - s, S(1));
    return v * s;
  }
  if constexpr (A == GELU) {
    const S bell = sd_exp(S(-0.5) * v * v);
    const S half = sd_fma(S(0.5), sd_erf(v * sqrt_half, bell), S(0.5));
    slope = sd_fma(v * bell, root, half);
    return v * half;
  }
}
