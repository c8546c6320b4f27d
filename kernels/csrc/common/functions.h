// What a function of scalars needs to be the same text for g++ and for NVRTC: its qualifiers, and elementary functions.
#pragma once

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define SD_FN static __device__ __forceinline__
#else
#define SD_FN static inline __attribute__((always_inline))
#endif

template <class S>
SD_FN S sd_abs(S x) {
  return x < S(0) ? -x : x;
}

// a b + c. Everything is compiled without contraction, which would be the compiler's choice anew in every loop that the
// same text is inlined into: what is fused is written so. Rounded once where the processor has an instruction for it.
#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
SD_FN float sd_fma(float a, float b, float c) { return fmaf(a, b, c); }
SD_FN double sd_fma(double a, double b, double c) { return fma(a, b, c); }
#elif defined(__FMA__) || defined(__FP_FAST_FMAF) || defined(__ARM_FEATURE_FMA)
SD_FN float sd_fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
SD_FN double sd_fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
#else
SD_FN float sd_fma(float a, float b, float c) { return a * b + c; }
SD_FN double sd_fma(double a, double b, double c) { return a * b + c; }
#endif

// c0 + c1 x + c2 x^2 + ... by Horner's scheme
template <class S>
SD_FN S sd_horner(S, S c0) {
  return c0;
}
template <class S, class... More>
SD_FN S sd_horner(S x, S c0, S c1, More... more) {
  return sd_fma(sd_horner(x, c1, more...), x, c0);
}

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#include "common/math_gpu.h"
#else
#include "common/math_cpu.h"
#endif
