// The clock-driven TTFS pair as functions of one neuron's scalars, with the equations of ttfs/contract.py. The same
// text is compiled by g++ (inside lane loops that it vectorises) and by NVRTC (one thread per neuron), both without
// contraction to fused multiply-adds: every product and sum is rounded as in the reference, so that spikes fall into
// the same bins. S is the state scalar, float or double.
#pragma once
#include "common/scalars.h"

// The window's end, seen from the centre of step k, in half steps.
template <class S>
SD_FN S ttfs_weight(long long k, long long T) {
  return S(2 * (T - k) - 1);
}

// What follows from the two durations; a number over a tensor is its reciprocal times the number, as torch has it.
template <class S>
struct TtfsScales {
  S charge, rate, window, slope;
  SD_FN TtfsScales of(S window_in, S window, long long T) {
    return {window_in / S(2 * T), S(1) / window * S(T), window,
            T == 1 ? S(1) / window * S(2) : S(1) / (S(T - 1) * window) * S(T)};
  }
};

// The spike at step k of a potential times T / R: ceil(level) == T - k, without ceil. The first step also takes what
// lies above the window, and passes NaN on.
template <bool FIRST, class S>
SD_FN S ttfs_spike(S level, S below, S above) {
  const S spike = level > below && (FIRST || level <= above) ? S(1) : S(0);
  return FIRST && level != level ? level : spike;
}

template <class S>
SD_FN S ttfs_slope(S potential, const TtfsScales<S>& scales) {
  return potential > S(0) && potential <= scales.window ? scales.slope : S(0);
}
