// The step of the soma-dendrite pair, as functions of one neuron's scalars: dendrite, soma, fire, reset, and their
// derivatives. The same text is compiled by g++ (inside lane loops that it vectorises) and by NVRTC (one thread per
// neuron), both without contraction: a spike that backward recomputes is the one that forward emitted, bit for bit,
// whichever loop the two took. The equations are those of soma_dendrite/contract.py. S is the state scalar, float or
// double; R and W are the reset and its timing. Gradients are called g_ and the name of what they belong to.
#pragma once
#include "soma_dendrite/activations.h"
#include "soma_dendrite/surrogates.h"

enum Reset { RESET_NONE, RESET_HARD, RESET_SOFT };
enum Timing { AT_ONCE, NEXT_STEP, AT_ONCE_RETESTED };

// ---- dendrite

// v <- alpha v + (gain x + offset)
template <class S>
SD_FN S integrate(S x, S v, S alpha, S gain, S offset) {
  return sd_fma(alpha, v, sd_fma(gain, x, offset));
}

// ---- soma

// What the soma of a neuron needs besides its polynomial. `level` is what h must reach to fire: the threshold, or for a
// strict comparison the next number above it, which is the same as h > threshold. `tail` is the slope of a polynomial
// of degree 2 or more beyond its limits: theta_1, not steeper than 1.
template <class S>
struct Soma {
  S threshold, level, tail, v_reset, low, high;
};

template <int R, int W>
constexpr bool delayed = W != AT_ONCE && R != RESET_NONE;
template <int R, int W>
constexpr bool resets_at_once = W != NEXT_STEP && R != RESET_NONE;

template <class S>
SD_FN S reaches(S h, S level) {
  return h >= level ? S(1) : S(0);
}

// How the potential enters a step. The spike of the step before, where the reset waits for this one; u after a hard
// one; and that within the polynomial's limits. Scalars, not a struct of them, which GCC may keep in memory.
template <int R, int W, class S>
SD_FN S pending(S u, Soma<S> soma) {
  if constexpr (delayed<R, W>) return reaches(u, soma.level);
  return S(0);
}
template <int R, int W, class S>
SD_FN S carried(S u, S pending, Soma<S> soma) {
  if constexpr (delayed<R, W> && R == RESET_HARD) return pending != S(0) ? soma.v_reset : u;
  return u;
}
template <class S>
SD_FN S clamped(S u, S low, S high) {
  const S above = u < low ? low : u;
  return above > high ? high : above;
}

// P(u) of degree 2 or more: from u, from u within the limits, and theta_2 + theta_3 limited + ... there.
template <class S>
SD_FN S polynomial(S u, S limited, S higher, S theta0, S theta1, Soma<S> soma) {
  return sd_fma(sd_fma(higher, limited, theta1 - soma.tail), limited, sd_fma(soma.tail, u, theta0));
}

// dP/du from the derivative within the limits. The borders belong to the line, as with torch.clamp.
template <class S>
SD_FN S slope_at(S slope, S u, Soma<S> soma) {
  return u > soma.low && u < soma.high ? slope : soma.tail;
}

// dP/dtheta_1
template <class S>
SD_FN S by_theta1(S u, S limited, S theta1, Soma<S> soma) {
  return theta1 == soma.tail ? u : limited;
}

// The end of a step: h, the spike and u after the reset, from P(u) + y. `allowed` is 1 - fired.
template <class S>
struct Fired {
  S h, spike, u;
};
template <int R, int W, class S>
SD_FN Fired<S> fire(S h, S pending, S allowed, Soma<S> soma) {
  if constexpr (delayed<R, W> && R == RESET_SOFT) h = sd_fma(-pending, soma.threshold, h);
  const S spike = reaches(h, soma.level) * allowed;
  S u = h;
  if constexpr (resets_at_once<R, W>) {
    const S amount = spike - pending;
    if constexpr (R == RESET_SOFT) u = sd_fma(-amount, soma.threshold, h);
    else if constexpr (W == AT_ONCE) u = spike != S(0) ? soma.v_reset : h;
    else u = sd_fma(S(1) - amount, h, amount * soma.v_reset);
  }
  return {h, spike, u};
}

// The gradient of h, and what the neuron adds to the threshold's, from those of the spike and of u after the step.
// `slope` is the surrogate derivative at h - threshold.
template <class S>
struct FireGradients {
  S h, threshold;
};
template <int R, int W, bool DETACH, class S>
SD_FN FireGradients<S> fire_backward(S g_spike, S g_u, S h, S pending, S allowed, S slope, Soma<S> soma) {
  const S spike = reaches(h, soma.level) * allowed;
  S g_h = g_u, g_threshold = S(0);
  if constexpr (resets_at_once<R, W>) {
    const S amount = spike - pending;
    if constexpr (R == RESET_SOFT) {
      g_threshold = -g_u * amount;
      if constexpr (!DETACH) g_spike = sd_fma(-g_u, soma.threshold, g_spike);
    } else {
      g_h = g_u * (S(1) - amount);
      if constexpr (!DETACH) g_spike = sd_fma(g_u, soma.v_reset - h, g_spike);
    }
  }
  const S through_spike = g_spike * allowed * slope;
  g_h += through_spike;
  g_threshold -= through_spike;
  if constexpr (delayed<R, W> && R == RESET_SOFT) g_threshold = sd_fma(-g_h, pending, g_threshold);
  return {g_h, g_threshold};
}

// The gradient of u before the step from that of P's argument.
template <int R, int W, class S>
SD_FN S carry_backward(S g, S pending) {
  if constexpr (delayed<R, W> && R == RESET_HARD) return pending != S(0) ? S(0) : g;
  return g;
}
