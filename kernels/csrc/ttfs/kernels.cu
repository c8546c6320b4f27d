// The TTFS pair for NVRTC: one thread runs one window of one neuron. Macros (see ttfs/cupy.py): SD_STATE, the stored
// scalar SD_IO, SD_INDEX, which counts the windows of all neurons, and SD_THREADS per block.
#include "ttfs/step.h"

typedef long long index_t;
typedef SD_STATE S;
typedef SD_IO IO;

#define CALL                                                                                                 \
  index_t T, index_t W, index_t N, index_t C, index_t L, const IO *__restrict__ x, index_t x_t, index_t x_n, \
      index_t x_c, index_t x_l, const S *__restrict__ windows
#define PASS T, W, N, C, L, x, x_t, x_n, x_c, x_l

// Where a thread's neuron is: `x` and `out` at the window's first step.
struct Place {
  bool there;
  index_t i, x, out, c, l;
  __device__ Place(index_t T, index_t W, index_t N, index_t C, index_t L, const IO*, index_t x_t, index_t x_n,
                   index_t x_c, index_t x_l) {
    const SD_INDEX index = SD_INDEX(blockIdx.x) * SD_THREADS + threadIdx.x, M = SD_INDEX(N * C * L);
    const SD_INDEX w = index / M, m = index - w * M, nc = m / SD_INDEX(L), n = nc / SD_INDEX(C);
    there = w < SD_INDEX(W);
    i = index, l = m - nc * SD_INDEX(L), c = nc - n * SD_INDEX(C);
    x = index_t(w) * T * x_t + n * x_n + c * x_c + l * x_l;
    out = index_t(w) * T * M + m;
  }
};

extern "C" __global__ void __launch_bounds__(SD_THREADS)
    ttfs_forward(CALL, const S* __restrict__ bias, index_t bias_c, index_t bias_l, IO* __restrict__ spikes,
                 S* __restrict__ potentials) {
  const Place place(PASS);
  if (!place.there) return;
  const TtfsScales<S> scales = TtfsScales<S>::of(windows[0], windows[1], T);
  const index_t M = N * C * L;
  S sum = S(0);
#pragma unroll 8
  for (index_t k = 0; k < T; ++k) {
    const S charge = S(widen(x[place.x + k * x_t])) * ttfs_weight<S>(k, T);
    sum = k ? sum + charge : charge;
  }
  S potential = sum * scales.charge;
  if (bias) potential = potential + bias[place.c * bias_c + place.l * bias_l];
  potentials[place.i] = potential;
  const S level = potential * scales.rate;
  spikes[place.out] = Narrow<IO, S>::of(ttfs_spike<true>(level, S(T - 1), S(T)));
#pragma unroll 8
  for (index_t k = 1; k < T; ++k)
    spikes[place.out + k * M] = Narrow<IO, S>::of(ttfs_spike<false>(level, S(T - k - 1), S(T - k)));
}

// x is the gradient of the spikes; gv, where given, takes that of the potentials for the sum over the bias.
extern "C" __global__ void __launch_bounds__(SD_THREADS)
    ttfs_backward(CALL, const S* __restrict__ potentials, const S* __restrict__ g_potentials, IO* __restrict__ gx,
                  S* __restrict__ gv) {
  const Place place(PASS);
  if (!place.there) return;
  const TtfsScales<S> scales = TtfsScales<S>::of(windows[0], windows[1], T);
  const index_t M = N * C * L;
  S g = S(widen(x[place.x]));
  if (T > 1) g = g - S(widen(x[place.x + (T - 1) * x_t]));
  g = g * ttfs_slope(potentials[place.i], scales);
  if (g_potentials) g = g + g_potentials[place.i];
  if (gv) gv[place.i] = g;
#pragma unroll 8
  for (index_t k = 0; k < T; ++k) gx[place.out + k * M] = Narrow<IO, S>::of(g * (ttfs_weight<S>(k, T) * scales.charge));
}
