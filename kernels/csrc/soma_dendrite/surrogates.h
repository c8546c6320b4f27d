// The surrogate derivatives, by the indices of surrogates.py: a row is a name and a case of `surrogate`.
#pragma once
#include "soma_dendrite/activations.h"

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
    return a / sd_fma(S(2) * z, z, S(2));
  }
  if constexpr (G == SG_PIECEWISE_QUADRATIC) return m > S(1) / a ? S(0) : sd_fma(-a * a, m, a);
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
  if constexpr (G == SG_Q_PSEUDO_SPIKE) return sd_pow(sd_fma(S(2) / (a - S(1)), m, S(1)), -a);
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
    const S z = sd_fma(a, m, S(1));
    return S(1) / (z * z);
  }
  if constexpr (G == SG_TRIANGULAR) return x >= S(0) ? -a : a;
  if constexpr (G == SG_HEAVISIDE) return x > S(0) ? S(1) : S(0);
  if constexpr (G == SG_RATE_ESCAPE) return b * sd_exp(-a * sd_abs(x - S(1)));
  if constexpr (G == SG_SPARSE_FAST_SIGMOID) {
    const S z = sd_fma(a, m, S(1));
    return x > b ? S(1) / (z * z) : S(0);
  }
  if constexpr (G == SG_FOURIER) {
    const S w = S(6.28318530717958647692) / b;
    S total = S(0);
    for (int i = 1; i < int(a); ++i) total += sd_cos(S(2 * i - 1) * w * x);
    return total * (S(4) / b);
  }
}
