// The TTFS pair on one chunk of blocks; compiled once per instruction set.
#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef SD_X86
#include <immintrin.h>
#endif

#include "ttfs/call.h"

namespace SD_ISA {
namespace {
#include "common/rows.h"
#include "ttfs/step.h"

template <class S>
struct Ttfs {
  const TtfsCall& call;
  const int64_t M;
  const TtfsScales<S> scales;
  const Strides flat, strides;
  S *buffer, *sum, *level, *bias, *out, *second;

  Ttfs(const TtfsCall& c, char* scratch)
      : call(c),
        M(c.N * c.C * c.L),
        scales(TtfsScales<S>::of(((const S*)c.windows)[0], ((const S*)c.windows)[1], c.T)),
        flat{c.C * c.L, c.L, 1},
        strides{c.x_n, c.x_c, c.x_l} {
    S* rows = (S*)scratch;
    buffer = rows, sum = rows + TTFS_WIDTH, level = rows + 2 * TTFS_WIDTH, bias = rows + 3 * TTFS_WIDTH;
    out = rows + 4 * TTFS_WIDTH, second = rows + 5 * TTFS_WIDTH;
  }

  void load_bias(const Box& box) const {
    if (!call.has_bias) return;
    const S* from = (const S*)call.bias + box.c * call.bias_c + box.l * call.bias_l;
    read_runs(from, Runs(box, {0, call.bias_c, call.bias_l}), bias);
  }

  void forward(const Box& box, int64_t w) const {
    const int n = box.dn * box.dc * box.dl;
    const int64_t T = call.T;
    const Rows<S> x(call.x, call.io, box, strides), spikes(call.out, call.io, box, flat);
    const Rows<S> potentials(call.potentials, Rows<S>::own(), box, flat);
    for (int64_t k = 0; k < T; ++k) {
      const S* row = x.read((w * T + k) * call.x_t, buffer);
      if (k + 1 < T) x.prefetch((w * T + k + 1) * call.x_t);
      const S weight = ttfs_weight<S>(k, T);
      S* to = sum;
      if (k) {
#pragma omp simd
        for (int i = 0; i < n; ++i) to[i] = to[i] + row[i] * weight;
      } else {
#pragma omp simd
        for (int i = 0; i < n; ++i) to[i] = row[i] * weight;
      }
    }
    S *potential = potentials.target(w * M, out), *to = level;
    const S *from = sum, *add = bias, charge = scales.charge, rate = scales.rate;
    if (call.has_bias) {
#pragma omp simd
      for (int i = 0; i < n; ++i) potential[i] = from[i] * charge + add[i];
    } else {
#pragma omp simd
      for (int i = 0; i < n; ++i) potential[i] = from[i] * charge;
    }
#pragma omp simd
    for (int i = 0; i < n; ++i) to[i] = potential[i] * rate;
    potentials.write(w * M, out);
    for (int64_t k = 0; k < T; ++k) {
      S* spike = spikes.target((w * T + k) * M, out);
      const S below = S(T - k - 1), above = S(T - k);
      if (k) {
#pragma omp simd
        for (int i = 0; i < n; ++i) spike[i] = ttfs_spike<false>(to[i], below, above);
      } else {
#pragma omp simd
        for (int i = 0; i < n; ++i) spike[i] = ttfs_spike<true>(to[i], below, above);
      }
      spikes.write((w * T + k) * M, out);
    }
  }

  void backward(const Box& box, int64_t w, double* partial) const {
    const int n = box.dn * box.dc * box.dl;
    const int64_t T = call.T;
    const Rows<S> gs(call.x, call.io, box, strides), gx(call.out, call.io, box, flat);
    const Rows<S> potentials(call.potentials, Rows<S>::own(), box, flat);
    const Rows<S> g_potentials(call.g_potentials, Rows<S>::own(), box, flat);
    const TtfsScales<S> s = scales;
    const S* first = gs.read(w * T * call.x_t, buffer);
    const S* potential = potentials.read(w * M, level);
    S* gv = sum;
    if (T > 1) {
      const S* last = gs.read((w * T + T - 1) * call.x_t, second);
#pragma omp simd
      for (int i = 0; i < n; ++i) gv[i] = (first[i] - last[i]) * ttfs_slope(potential[i], s);
    } else {
#pragma omp simd
      for (int i = 0; i < n; ++i) gv[i] = first[i] * ttfs_slope(potential[i], s);
    }
    if (call.g_potentials) {
      const S* more = g_potentials.read(w * M, second);
#pragma omp simd
      for (int i = 0; i < n; ++i) gv[i] += more[i];
    }
    for (int64_t k = 0; k < T; ++k) {
      S* to = gx.target((w * T + k) * M, out);
      const S weight = ttfs_weight<S>(k, T) * s.charge;
#pragma omp simd
      for (int i = 0; i < n; ++i) to[i] = gv[i] * weight;
      gx.write((w * T + k) * M, out);
    }
    if (partial) add(box, gv, partial + box.c * call.bias_c + box.l * call.bias_l);
  }

  void add(const Box& box, const S* gv, double* to) const {
    for (int i = 0; i < box.dn; ++i)
      for (int c = 0; c < box.dc; ++c, gv += box.dl) {
        if (call.bias_l) {
#pragma omp simd
          for (int l = 0; l < box.dl; ++l) to[l] += double(gv[l]);
        } else {
          double total = 0;
#pragma omp simd reduction(+ : total)
          for (int l = 0; l < box.dl; ++l) total += double(gv[l]);
          to[c * call.bias_c] += total;
        }
      }
  }
};

template <class S>
void run(const TtfsJob& job, int64_t index, char* scratch) {
  const TtfsCall& call = *job.call;
  const TtfsGrid& g = *job.grid;
  const Ttfs<S> ttfs(call, scratch);
  const int64_t i = index % g.chunks_along, j = index / g.chunks_along;
  double* partial = job.partial ? job.partial + j * g.columns : nullptr;
  for (int64_t across = g.across * j / g.chunks_across; across < g.across * (j + 1) / g.chunks_across; ++across)
    for (int64_t along = g.along * i / g.chunks_along; along < g.along * (i + 1) / g.chunks_along; ++along) {
      int64_t rest = across, bc = along, bl = along;
      if (!call.bias_l) bl = rest % g.blocks_l, rest /= g.blocks_l;
      if (!call.bias_c) bc = rest % g.blocks_c, rest /= g.blocks_c;
      Box box = {rest % g.blocks_n * g.dn, bc * g.dc, bl * g.dl, 0, 0, 0};
      box.dn = int(call.N - box.n < g.dn ? call.N - box.n : g.dn);
      box.dc = int(call.C - box.c < g.dc ? call.C - box.c : g.dc);
      box.dl = int(call.L - box.l < g.dl ? call.L - box.l : g.dl);
      const int64_t w = rest / g.blocks_n;
      if (job.backward) {
        ttfs.backward(box, w, partial);
      } else {
        ttfs.load_bias(box);
        ttfs.forward(box, w);
      }
    }
}

void chunk(const TtfsJob& job, int64_t index, char* scratch) {
  if (job.call->io == FLOAT64) run<double>(job, index, scratch);
  else run<float>(job, index, scratch);
}
}  // namespace

extern const TtfsChunk ttfs_chunk;
const TtfsChunk ttfs_chunk = chunk;
}  // namespace SD_ISA
