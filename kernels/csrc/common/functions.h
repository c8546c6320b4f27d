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

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#include "common/math_gpu.h"
#else
#include "common/math_cpu.h"
#endif
