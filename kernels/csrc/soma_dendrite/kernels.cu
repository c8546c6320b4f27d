// The soma-dendrite pair for NVRTC: one thread per neuron, time inside, states in registers. Everything that is static
// in a call is a macro (see soma_dendrite/cupy.py): SD_STATE and the stored scalars SD_IO (x, spikes, gx) and SD_G_IO
// (g_spikes); SD_BRANCHES, SD_FAN (rows of x per neuron), SD_DEGREE, SD_ACTIVATION, SD_RESET, SD_TIMING, SD_DETACH,
// SD_STRICT, SD_ONCE, SD_RECORD, SD_SURROGATE; SD_FRESH: each state starts as one number; SD_SEGMENT, the steps
// backward keeps in registers; SD_THREADS per block; SD_BY_CHANNEL, which way backward's threads lie.
#include "common/scalars.h"
#include "soma_dendrite/parameters.h"
#include "soma_dendrite/step.h"

typedef long long index_t;
typedef SD_STATE S;
typedef SD_IO IO;
typedef SD_G_IO G_IO;
enum {
  NB = SD_BRANCHES > 0 ? SD_BRANCHES : 1,
  LINEAR = SD_DEGREE > 0 ? 1 : 0,  // theta_1, which a constant has not
  ROWS = ParameterRows{SD_BRANCHES, SD_DEGREE}.count(),
};

#define SHAPE                                                                                                  \
  index_t T, index_t N, index_t C, index_t L, const IO *__restrict__ x, index_t x_t, index_t x_n, index_t x_c, \
      index_t x_l
#define STATES const S* __restrict__ u_in, const S* __restrict__ v_in, const S* __restrict__ fired_in

// The parameters as the kernels take them, and as they hand them on: pointers, channel strides, numbers.
#define SD_POINTER(name, rows, absent) const S* __restrict__ name,
#define SD_STRIDE(name, rows, absent) index_t name##_c,
#define SD_PASS_POINTER(name, rows, absent) name,
#define SD_PASS_STRIDE(name, rows, absent) name##_c,
#define SETTINGS \
  SD_PARAMETERS(SD_POINTER) SD_PARAMETERS(SD_STRIDE) double v_reset, double a, double b, double low, double high
#define PASS SD_PARAMETERS(SD_PASS_POINTER) SD_PARAMETERS(SD_PASS_STRIDE) v_reset, a, b, low, high

// A neuron's parameters in registers.
struct Parameters {
#define SD_MEMBER(name, rows, absent) S name[ParameterRows{NB, SD_DEGREE}.count(PARAMETER_##name)];
  SD_PARAMETERS(SD_MEMBER)
  S a, b;
  Soma<S> soma;
  __device__ Parameters(index_t channel, SETTINGS) : a(S(a)), b(S(b)) {
    const ParameterRows at = {SD_BRANCHES, SD_DEGREE};
#define SD_READ(name, rows, absent) \
  for (int k = 0; k < at.count(PARAMETER_##name); ++k) this->name[k] = name ? name[channel * name##_c + k] : S(absent);
    SD_PARAMETERS(SD_READ)
    S level = this->threshold[0];
    const float infinity = sd_from_bits(0x7F800000u);
    if (SD_STRICT && sizeof(S) == 4) level = S(nextafterf(float(level), infinity));
    if (SD_STRICT && sizeof(S) == 8) level = S(nextafter(double(level), double(infinity)));
    soma = {this->threshold[0], level, clamped(this->theta[LINEAR], S(-1), S(1)), S(v_reset), S(low), S(high)};
  }
};

struct State {
  S u, v[NB], fired;
  // neuron m's, whose first branch is number `branches`
  __device__ State(STATES, index_t m, index_t branches, index_t L) {
    u = u_in[SD_FRESH ? 0 : m];
#pragma unroll
    for (int k = 0; k < SD_BRANCHES; ++k) v[k] = v_in[SD_FRESH ? 0 : branches + k * L];
    if (SD_ONCE) fired = fired_in[SD_FRESH ? 0 : m];
  }
  __device__ State() {}
};

// One step in place; returns the spike, h comes out beside it.
SD_FN S step(const Parameters& p, const S* x, State& state, S& h) {
  S sum = 0, slope;
#pragma unroll
  for (int k = 0; k < SD_FAN; ++k) sum += x[k];
  S y = p.direct[0] * sum;
#pragma unroll
  for (int k = 0; k < SD_BRANCHES; ++k) {
    state.v[k] = integrate(x[SD_FAN > 1 ? k : 0], state.v[k], p.alpha[k], p.gain[k], p.offset[k]);
    y = sd_fma(p.strength[k], activate<SD_ACTIVATION>(state.v[k], slope), y);
  }
  const S r = pending<SD_RESET, SD_TIMING>(state.u, p.soma), u = carried<SD_RESET, SD_TIMING>(state.u, r, p.soma);
  const S limited = clamped(u, p.soma.low, p.soma.high);
  S potential = p.theta[SD_DEGREE];
#pragma unroll
  for (int k = SD_DEGREE - 1; k >= 2; --k) potential = sd_fma(potential, limited, p.theta[k]);
  if (SD_DEGREE == 1) potential = sd_horner(u, p.theta[0], p.theta[LINEAR]);
  if (SD_DEGREE > 1) potential = polynomial(u, limited, potential, p.theta[0], p.theta[LINEAR], p.soma);
  const S allowed = SD_ONCE ? S(1) - state.fired : S(1);
  const Fired<S> now = fire<SD_RESET, SD_TIMING>(potential + y, r, allowed, p.soma);
  if (SD_ONCE) state.fired = now.spike > state.fired ? now.spike : state.fired;
  h = now.h, state.u = now.u;
  return now.spike;
}

SD_FN void read_x(const IO* x, index_t x_c, S* to) {
#pragma unroll
  for (int k = 0; k < SD_FAN; ++k) to[k] = S(widen(x[k * x_c]));
}

extern "C" __global__ void __launch_bounds__(SD_THREADS)
    sd_forward(SHAPE, SETTINGS, STATES, IO* __restrict__ spikes, S* __restrict__ u_out, S* __restrict__ v_out,
               S* __restrict__ fired_out, S* __restrict__ u_sequence) {
  const index_t M = N * C * L, m = index_t(blockIdx.x) * SD_THREADS + threadIdx.x;
  if (m >= M) return;
  const index_t l = m % L, c = m / L % C, n = m / L / C, branches = (m - l) * SD_BRANCHES + l;
  const Parameters p(c, PASS);
  State state(u_in, v_in, fired_in, m, branches, L);
  const IO* at = x + n * x_n + c * SD_FAN * x_c + l * x_l;
  S now[SD_FAN], next[SD_FAN], h;
  read_x(at, x_c, next);
  for (index_t t = 0; t < T; ++t) {
#pragma unroll
    for (int k = 0; k < SD_FAN; ++k) now[k] = next[k];
    if (t + 1 < T) read_x(at + (t + 1) * x_t, x_c, next);  // on its way during the step
    spikes[t * M + m] = Narrow<IO, S>::of(step(p, now, state, h));
    if (SD_RECORD) u_sequence[t * M + m] = state.u;
  }
  u_out[m] = state.u;
#pragma unroll
  for (int k = 0; k < SD_BRANCHES; ++k) v_out[branches + k * L] = state.v[k];
  if (SD_ONCE) fired_out[m] = state.fired;
}

// Backward of one step. `before` is the state it started from, `v` the branches after it; g_u and g_v go from after to
// before.
SD_FN void step_backward(const Parameters& p, const S* x, const State& before, const S* v, S h, S g_spike, S& g_u,
                         S* g_v, S* g_x, S* sums) {
  const ParameterRows at = {SD_BRANCHES, SD_DEGREE};
  const S allowed = SD_ONCE ? S(1) - before.fired : S(1);
  const S r = pending<SD_RESET, SD_TIMING>(before.u, p.soma), u = carried<SD_RESET, SD_TIMING>(before.u, r, p.soma);
  const S limited = clamped(u, p.soma.low, p.soma.high);
  const FireGradients<S> g = fire_backward<SD_RESET, SD_TIMING, SD_DETACH>(
      g_spike, g_u, h, r, allowed, surrogate<SD_SURROGATE>(h - p.soma.threshold, p.a, p.b), p.soma);
  sums[at.threshold()] += g.threshold;
  S power = g.h, slope = 0;
#pragma unroll
  for (int k = 0; k <= SD_DEGREE; ++k) {
    const S linear = SD_DEGREE > 1 ? by_theta1(u, limited, p.theta[LINEAR], p.soma) : u;
    sums[at.theta(k)] += k == 1 ? g.h * linear : power;
    power *= limited;
  }
#pragma unroll
  for (int k = SD_DEGREE; k >= 1; --k) slope = sd_fma(slope, limited, S(k) * p.theta[k]);
  if (SD_DEGREE > 1) slope = slope_at(slope, u, p.soma);
  g_u = carry_backward<SD_RESET, SD_TIMING>(g.h * slope, r);
  S sum = 0;
#pragma unroll
  for (int k = 0; k < SD_FAN; ++k) {
    sum += x[k];
    g_x[k] = p.direct[0] * g.h;
  }
  sums[at.direct()] = sd_fma(g.h, sum, sums[at.direct()]);
#pragma unroll
  for (int k = 0; k < SD_BRANCHES; ++k) {
    const int row = SD_FAN > 1 ? k : 0;
    S f_slope;
    const S f = activate<SD_ACTIVATION>(v[k], f_slope), g_b = sd_fma(g.h * p.strength[k], f_slope, g_v[k]);
    sums[at.alpha(k)] = sd_fma(g_b, before.v[k], sums[at.alpha(k)]);
    sums[at.gain(k)] = sd_fma(g_b, x[row], sums[at.gain(k)]);
    sums[at.offset(k)] += g_b;
    sums[at.strength(k)] = sd_fma(g.h, f, sums[at.strength(k)]);
    g_x[row] = sd_fma(g_b, p.gain[k], g_x[row]);
    g_v[k] = g_b * p.alpha[k];
  }
}

struct Gradients {
  const G_IO* gs;
  index_t gs_t, gs_n, gs_c, gs_l;
  const S *g_sequence, *g_u, *g_v;
  IO* gx;
  S *g_u_in, *g_v_in, *checkpoints;
};

// One neuron. States are recomputed SD_SEGMENT steps at a time into registers, from checkpoints a first pass leaves.
SD_FN void neuron_backward(const Parameters& p, index_t n, index_t c, index_t l, index_t slot, index_t slots, SHAPE,
                           STATES, const Gradients& g, S* sums) {
  const index_t M = N * C * L, m = (n * C + c) * L + l, branches = (m - l) * SD_BRANCHES + l;
  const index_t segments = (T + SD_SEGMENT - 1) / SD_SEGMENT;
  const IO* at = x + n * x_n + c * SD_FAN * x_c + l * x_l;
  const G_IO* gs_at = g.gs + n * g.gs_n + c * g.gs_c + l * g.gs_l;
  enum { KEPT = 1 + SD_BRANCHES + SD_ONCE };
  State state(u_in, v_in, fired_in, m, branches, L);
  S xs[SD_SEGMENT][SD_FAN], hs[SD_SEGMENT];
  State trail[SD_SEGMENT + 1];
  for (index_t j = 0; j + 1 < segments; ++j) {
    S* kept = g.checkpoints + j * KEPT * slots + slot;
    kept[0] = state.u;
#pragma unroll
    for (int k = 0; k < SD_BRANCHES; ++k) kept[(1 + k) * slots] = state.v[k];
    if (SD_ONCE) kept[(1 + SD_BRANCHES) * slots] = state.fired;
    for (index_t t = j * SD_SEGMENT; t < (j + 1) * SD_SEGMENT; ++t) {
      read_x(at + t * x_t, x_c, xs[0]);
      step(p, xs[0], state, hs[0]);
    }
  }
  S gu = g.g_u ? g.g_u[m] : S(0), gv[NB], gx[SD_FAN];
#pragma unroll
  for (int k = 0; k < SD_BRANCHES; ++k) gv[k] = g.g_v ? g.g_v[branches + k * L] : S(0);
  for (index_t j = segments - 1; j >= 0; --j) {
    if (j + 1 < segments) {
      const S* kept = g.checkpoints + j * KEPT * slots + slot;
      state.u = kept[0];
#pragma unroll
      for (int k = 0; k < SD_BRANCHES; ++k) state.v[k] = kept[(1 + k) * slots];
      if (SD_ONCE) state.fired = kept[(1 + SD_BRANCHES) * slots];
    }
    const index_t begin = j * SD_SEGMENT;
    const int steps = int(T - begin < SD_SEGMENT ? T - begin : index_t(SD_SEGMENT));
#pragma unroll
    for (int i = 0; i < SD_SEGMENT; ++i)
      if (i < steps) {
        read_x(at + (begin + i) * x_t, x_c, xs[i]);
        trail[i] = state;
        step(p, xs[i], state, hs[i]);
        trail[i + 1] = state;
      }
#pragma unroll
    for (int i = SD_SEGMENT - 1; i >= 0; --i)
      if (i < steps) {
        const index_t t = begin + i;
        if (g.g_sequence) gu += g.g_sequence[t * M + m];
        step_backward(p, xs[i], trail[i], trail[i + 1].v, hs[i], S(widen(gs_at[t * g.gs_t])), gu, gv, gx, sums);
#pragma unroll
        for (int k = 0; k < SD_FAN; ++k) g.gx[(t * M + m - l) * SD_FAN + k * L + l] = Narrow<IO, S>::of(gx[k]);
      }
  }
  if (g.g_u_in) g.g_u_in[m] = gu;  // null: nobody wants it
#pragma unroll
  for (int k = 0; k < SD_BRANCHES; ++k)
    if (g.g_v_in) g.g_v_in[branches + k * L] = gv[k];
}

// The sum over the block, in thread 0, always in the same order.
SD_FN S block_sum(S value) {
  __shared__ S warps[SD_THREADS / 32];
  for (int step = 16; step > 0; step /= 2) value += __shfl_down_sync(0xFFFFFFFFu, value, step);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  value = 0;
  if (threadIdx.x == 0)
    for (int i = 0; i < SD_THREADS / 32; ++i) value += warps[i];
  __syncthreads();
  return value;
}

// SD_BY_CHANNEL: a thread owns (c, l) and walks batch entries, `groups` apart; `partial` is [groups, ROWS, C * L].
// Otherwise a block owns a channel's positions (n, l), `groups` blocks a channel; `partial` is [groups, ROWS, C].
extern "C" __global__ void __launch_bounds__(SD_THREADS)
    sd_backward(SHAPE, SETTINGS, STATES, const G_IO* __restrict__ gs, index_t gs_t, index_t gs_n, index_t gs_c,
                index_t gs_l, const S* __restrict__ g_sequence, const S* __restrict__ g_u, const S* __restrict__ g_v,
                IO* __restrict__ gx, S* __restrict__ g_u_in, S* __restrict__ g_v_in, S* __restrict__ checkpoints,
                S* __restrict__ partial, index_t groups) {
  const Gradients g = {gs, gs_t, gs_n, gs_c, gs_l, g_sequence, g_u, g_v, gx, g_u_in, g_v_in, checkpoints};
  S sums[ROWS];
#pragma unroll
  for (int k = 0; k < ROWS; ++k) sums[k] = 0;
  const index_t slots = index_t(gridDim.x) * SD_THREADS, slot = index_t(blockIdx.x) * SD_THREADS + threadIdx.x;
#if SD_BY_CHANNEL
  const index_t width = C * L, per_group = (width + SD_THREADS - 1) / SD_THREADS * SD_THREADS;
  const index_t j = slot % per_group, group = slot / per_group;
  if (j >= width) return;
  const index_t c = j / L, l = j % L;
  const Parameters p(c, PASS);
  for (index_t n = group; n < N; n += groups)
    neuron_backward(p, n, c, l, slot, slots, T, N, C, L, x, x_t, x_n, x_c, x_l, u_in, v_in, fired_in, g, sums);
#pragma unroll
  for (int k = 0; k < ROWS; ++k) partial[(group * ROWS + k) * width + j] = sums[k];
#else
  const index_t c = blockIdx.x / groups, group = blockIdx.x % groups;
  const Parameters p(c, PASS);
  for (index_t q = group * SD_THREADS + threadIdx.x; q < N * L; q += groups * SD_THREADS)
    neuron_backward(p, q / L, c, q % L, slot, slots, T, N, C, L, x, x_t, x_n, x_c, x_l, u_in, v_in, fired_in, g, sums);
#pragma unroll
  for (int k = 0; k < ROWS; ++k) {
    const S total = block_sum(sums[k]);
    if (threadIdx.x == 0) partial[(group * ROWS + k) * C + c] = total;
  }
#endif
}
