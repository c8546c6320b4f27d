// The engine: runs one chunk of blocks, forward or backward. Compiled once per instruction set, everything inside a
// namespace of its own, so that the linker cannot mix code for different processors. Within a block time is outermost
// and every inner loop runs over the block's neurons: states and one step's rows stay in the first-level cache.
#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef SD_X86
#include <immintrin.h>
#endif

#include "soma_dendrite/call.h"

namespace SD_ISA {
namespace {
#include "soma_dendrite/step.h"
#include "soma_dendrite/loops.h"
#include "common/rows.h"

template <class S>
struct Engine_ {
  const Call& call;
  const Grid& grid;
  const Loops<S> loops;
  const bool backwards;
  const int B, fan, K, rows, w, pw;  // w: lanes of a scratch row; pw: of a parameter row
  const int64_t T, M;
  char* memory;  // null while measuring
  int64_t used = 0;

  template <class X>
  X* take_of(int64_t count) {
    const int64_t at = used;
    used += (count * int64_t(sizeof(X)) + 63) / 64 * 64;
    return memory ? (X*)(memory + at) : nullptr;
  }
  S* take(int64_t lanes) { return take_of<S>(lanes); }

  // parameters, expanded for the block at hand
  S* parameters;
  S *zero, *x_buffer, *y, *h, *s, *u, *fired, *v, *c;
  // backward
  S *gu, *sg, *gv, *gs_buffer, *gx_buffer, *power, *lane_sums, *thresholds;
  double* sums;
  S *us, *vs, *hs, *fs, *xs, *cu, *cv, *cf;
  const S **x_rows, **ahead;
  Sum<S>* g_theta;
  // what the loops are given: made once, since a wide load of a struct just written by parts stalls
  SomaParameters<S> soma;
  BranchParameters<S>* branch;
  BranchSums<S>* branch_sums;
  Sum<S> g_direct, g_threshold;
  S* spike_row;                 // where step() puts the spikes
  const S* upcoming = nullptr;  // where the next block's input starts

  Engine_(const Job& job, char* scratch)
      : call(*job.call),
        grid(*job.grid),
        loops(choose<S>(call, grid.per_lane)),
        backwards(job.backward),
        B(int(call.B)),
        fan(int(call.fan)),
        K(int(call.degree)),
        rows(grid.rows),
        w(grid.width),
        pw(grid.per_lane ? w : 1),
        T(call.T),
        M(call.N * call.C * call.L),
        memory(scratch) {
    parameters = take(int64_t(rows + 1) * pw + 16);
    zero = take(w), x_buffer = take(fan * w), y = take(w), h = take(w), s = take(w), u = take(w), fired = take(w);
    v = take(B * w), c = take(w);
    if (job.backward) {
      const int64_t length = grid.segment, segments = (T + length - 1) / length;
      gu = take(w), sg = take(w), gv = take(B * w), gs_buffer = take(w), gx_buffer = take(TILE * fan * w);
      power = take(w), thresholds = take(w);
      lane_sums = take(grid.per_lane ? int64_t(rows) * w : 0);
      sums = take_of<double>(rows);
      us = take((length + 1) * w), vs = take((length + 1) * B * w), hs = take(length * w);
      fs = take(call.fire_once ? (length + 1) * w : 0), xs = take(length * fan * w);
      cu = take(segments * w), cv = take(segments * B * w), cf = take(call.fire_once ? segments * w : 0);
      g_theta = take_of<Sum<S>>(K + 1);
    }
    x_rows = take_of<const S*>((job.backward ? grid.segment : 1) * fan);
    ahead = take_of<const S*>(fan);
    branch = take_of<BranchParameters<S>>(B), branch_sums = take_of<BranchSums<S>>(B);
    if (!memory) return;
    memset(zero, 0, size_t(w) * sizeof(S));
    soma = {row(4 * B + 1), row(rows - 1), row(rows), pw, K, S(call.v_reset), S(call.clamp_low), S(call.clamp_high)};
    for (int b = 0; b < B; ++b) branch[b] = {row(b), row(B + b), row(2 * B + b), row(3 * B + b), row(4 * B)};
    if (!job.backward) return;
    for (int b = 0; b < B; ++b) branch_sums[b] = {sum(b), sum(B + b), sum(2 * B + b), sum(3 * B + b), sum(4 * B)};
    for (int k = 0; k <= K; ++k) g_theta[k] = sum(4 * B + 1 + k);
    g_direct = sum(4 * B), g_threshold = sum(rows - 1);
  }

  // Parameter rows: alpha, gain, offset, strength (B each), direct, theta (K + 1), threshold; then the level to reach.
  S* row(int index) const { return parameters + int64_t(index) * pw; }
  void expand(int index, const void* from, int64_t channel_stride, int64_t element, S otherwise, const Box& box) {
    S* to = row(index);
    const S* p = (const S*)from;
    if (!grid.per_lane) {
      to[0] = p ? p[box.c * channel_stride + element] : otherwise;
      return;
    }
    for (int n = 0; n < box.dn; ++n)
      for (int k = 0; k < box.dc; ++k, to += box.dl) {
        const S value = p ? p[(box.c + k) * channel_stride + element] : otherwise;
        for (int l = 0; l < box.dl; ++l) to[l] = value;
      }
  }
  void expand(const Box& box) {
    for (int b = 0; b < B; ++b) {
      expand(b, call.alpha, call.alpha_c, b, S(0), box);
      expand(B + b, call.gain, call.gain_c, b, S(1), box);
      expand(2 * B + b, call.offset, call.offset_c, b, S(0), box);
      expand(3 * B + b, call.strength, call.strength_c, b, S(0), box);
    }
    expand(4 * B, call.direct, call.direct_c, 0, S(0), box);
    for (int k = 0; k <= K; ++k) expand(4 * B + 1 + k, call.theta, call.theta_c, k, S(0), box);
    const int threshold = rows - 1, neurons = box.dn * box.dc * box.dl, lanes = grid.per_lane ? neurons : 1;
    expand(threshold, call.threshold, call.threshold_c, 0, S(0), box);
    for (int i = 0; i < lanes; ++i) {
      const S t = row(threshold)[i];
      if (!call.strict) row(rows)[i] = t;
      else row(rows)[i] = sizeof(S) == 4 ? S(nextafterf(float(t), INFINITY)) : S(nextafter(double(t), INFINITY));
    }
    if (backwards)
      for (int i = 0; i < neurons; ++i) thresholds[i] = row(threshold)[grid.per_lane ? i : 0];
  }
  Sum<S> sum(int index) const { return {sums + index, lane_sums + int64_t(index) * w}; }

  Rows<S> state_rows(const void* p, const Box& box, int64_t per_neuron) const {
    return Rows<S>(p, Rows<S>::own(), box, {call.C * per_neuron * call.L, per_neuron * call.L, 1}, true);
  }
  void read_state(const void* p, bool one, const Box& box, int64_t per_neuron, S* to) const {
    if (one) {
      const S value = *(const S*)p;
      for (int64_t i = 0; i < per_neuron * w; ++i) to[i] = value;
      return;
    }
    const Rows<S> from = state_rows(p, box, per_neuron);
    for (int64_t b = 0; b < per_neuron; ++b) from.read(b * call.L, to + b * w);
  }
  void write_state(void* p, const Box& box, int64_t per_neuron, const S* from) const {
    const Rows<S> to = state_rows(p, box, per_neuron);
    for (int64_t b = 0; b < per_neuron; ++b) to.write(b * call.L, from + b * w);
  }

  // Sees to it that the rows of step t are on their way: at once, or while the branches of the step before are at work.
  // Past the end those are the next block's first.
  void prefetch(const Rows<S>& x, int64_t t, const S* const* now) {
    const bool later = B && t < T && x.direct, next = x.direct && t >= T && upcoming;
    for (int b = 0; b < fan; ++b) {
      ahead[b] = later ? now[b] + call.x_t : next ? upcoming + b * call.x_c : now[b];
      if (t < T && !later) x.prefetch(t * call.x_t + b * call.x_c);
    }
  }

  // y and h, v, u after a step on the rows x[0..fan); all but h may alias their successors
  void step(int n, const S* const* x, const S* u_in, const S* v_in, const S* fired_in, S* v_out, S* h_out, S* u_out) {
    if (fan != B) loops.scale(n, row(4 * B), x[0], y);
    const S* y_in = fan != B ? y : zero;
    if (loops.neuron_forward) {
      loops.neuron_forward(n, B, branch, soma, x, v_in, w, y_in, v_out, y, ahead, u_in, fired_in, h_out, spike_row,
                           u_out);
      return;
    }
    if (B) loops.branch_forward(n, B, branch, x, v_in, w, y_in, v_out, y, ahead);
    if (K != 1 && K != 3) loops.polynomial_forward(n, soma, u_in, c, h_out);
    loops.soma_forward(n, soma, u_in, y, fired_in, h_out, spike_row, u_out);
  }

  void load_state(const Box& box, S* u_to, S* v_to, S* fired_to) const {
    read_state(call.u, call.one_u, box, 1, u_to);
    if (B) read_state(call.v, call.one_v, box, B, v_to);
    if (call.fire_once) read_state(call.fired, call.one_fired, box, 1, fired_to);
  }

  void forward(const Box& box) {
    const int n = box.dn * box.dc * box.dl;
    const Rows<S> x(call.x, call.io, box, {call.x_n, call.x_c * fan, call.x_l});
    const Strides flat = {call.C * call.L, call.L, 1};
    Rows<S> spikes(call.spikes, call.io, box, flat);
    spikes.stream(T * M);
    const Rows<S> sequence(call.u_sequence, Rows<S>::own(), box, flat, true);
    load_state(box, u, v, fired);
    const S* before = call.fire_once ? fired : zero;
    for (int64_t t = 0; t < T; ++t) {
      for (int b = 0; b < fan; ++b) x_rows[b] = x.read(t * call.x_t + b * call.x_c, x_buffer + int64_t(b) * w);
      prefetch(x, t + 1, x_rows);
      spike_row = spikes.target(t * M, s);
      step(n, x_rows, u, v, before, v, h, u);
      if (call.fire_once) remember_fired(n, spike_row, fired, fired);
      spikes.write(t * M, s);
      if (call.u_sequence) sequence.write(t * M, u);
    }
    write_state(call.u_out, box, 1, u);
    if (B) write_state(call.v_out, box, B, v);
    if (call.fire_once) write_state(call.fired_out, box, 1, fired);
  }

  void copy(int count, const S* from, S* to) const { memcpy(to, from, size_t(count) * size_t(w) * sizeof(S)); }

  void backward(const Box& box) {
    const int n = box.dn * box.dc * box.dl;
    const bool once = call.fire_once;
    const Rows<S> x(call.x, call.io, box, {call.x_n, call.x_c * fan, call.x_l});
    const Rows<S> gs(call.g_spikes, call.g_io, box, {call.gs_n, call.gs_c, call.gs_l});
    Rows<S> gx(call.gx, call.io, box, {call.C * fan * call.L, fan * call.L, 1});
    gx.stream(T * M * fan);
    const Rows<S> g_sequence(call.g_u_sequence, Rows<S>::own(), box, {call.C * call.L, call.L, 1});
    const int64_t length = grid.segment, segments = (T + length - 1) / length;
    const bool whole = segments == 1;  // then the states go where they are wanted at once
    load_state(box, whole ? us : u, whole ? vs : v, whole ? fs : fired);
    spike_row = s;
    for (int64_t g = 0; g < segments && !whole; ++g) {
      copy(1, u, cu + g * w), copy(B, v, cv + g * B * w);
      if (once) copy(1, fired, cf + g * w);
      if (g + 1 == segments) break;
      for (int64_t t = g * length; t < (g + 1) * length; ++t) {
        for (int b = 0; b < fan; ++b) x_rows[b] = x.read(t * call.x_t + b * call.x_c, x_buffer + int64_t(b) * w);
        prefetch(x, t + 1, x_rows);
        step(n, x_rows, u, v, once ? fired : zero, v, h, u);
        if (once) remember_fired(n, s, fired, fired);
      }
    }
    memset(gu, 0, size_t(w) * sizeof(S)), memset(gv, 0, size_t(B) * size_t(w) * sizeof(S));
    if (call.g_u) read_state(call.g_u, false, box, 1, gu);
    if (call.g_v) read_state(call.g_v, false, box, B, gv);
    for (int64_t g = segments - 1; g >= 0; --g) {
      const int64_t begin = g * length, steps = (T < begin + length ? T : begin + length) - begin;
      if (!whole) {
        copy(1, cu + g * w, us), copy(B, cv + g * B * w, vs);
        if (once) copy(1, cf + g * w, fs);
      }
      for (int64_t i = 0; i < steps; ++i) {
        const S** x_at = x_rows + i * fan;
        for (int b = 0; b < fan; ++b) x_at[b] = x.read((begin + i) * call.x_t + b * call.x_c, xs + (i * fan + b) * w);
        prefetch(x, i + 1 < steps ? begin + i + 1 : T, x_at);
        // the first two to be read only: rows a power of two apart would push each other out of the cache
        if (i + 2 >= steps) gs.prefetch((begin + i) * call.gs_t);
        step(n, x_at, us + i * w, vs + i * B * w, once ? fs + i * w : zero, vs + (i + 1) * B * w, hs + i * w,
             us + (i + 1) * w);
        if (once) remember_fired(n, s, fs + i * w, fs + (i + 1) * w);
      }
      for (int64_t i = steps; i > 0;) {
        const int tile = int(least(TILE, i));
        i -= tile;
        tile_backward(n, tile, begin + i, i, x, gs, gx, g_sequence);
      }
    }
    if (call.g_u_in) write_state(call.g_u_in, box, 1, gu);
    if (call.g_v_in) write_state(call.g_v_in, box, B, gv);
  }

  // The steps t .. t + tile - 1, whose rows are kept from number i on. h of a step gives way to gh.
  void tile_backward(int n, int tile, int64_t t, int64_t i, const Rows<S>& x, const Rows<S>& gs, const Rows<S>& gx,
                     const Rows<S>& g_sequence) {
    BranchRows<S> of = {};
    of.x_t = x.direct ? call.x_t : int64_t(fan) * w, of.v_t = int64_t(B) * w, of.gh_t = w;
    of.gx_t = gx.direct ? M * fan : int64_t(fan) * w;
    for (int k = tile - 1; k >= 0; --k) {
      const int64_t at = t + k, j = i + k;
      if (j >= 2) gs.prefetch((at - 2) * call.gs_t);
      if (call.g_u_sequence) add_row(n, g_sequence.read(at * M, gs_buffer), gu);
      S *h = hs + j * w, *u_in = us + j * w;
      const S *gs_row = gs.read(at * call.gs_t, gs_buffer), *fired_in = call.fire_once ? fs + j * w : zero;
      loops.surrogate(n, thresholds, h, S(call.surrogate_a), S(call.surrogate_b), sg);
      if (loops.soma_backward) {
        loops.soma_backward(n, soma, gs_row, gu, h, u_in, fired_in, sg, h, g_threshold, g_theta);
      } else {
        loops.fire_backward(n, soma, gs_row, gu, h, u_in, fired_in, sg, h, g_threshold);
        loops.polynomial_backward(n, soma, h, u_in, c, power, gu, g_theta);
      }
      if (fan != B) {
        S* row_of = gx.target(at * M, gx_buffer + int64_t(k) * w);
        loops.direct_backward(n, row(4 * B), h, x_rows[j], row_of, g_direct);
      }
    }
    of.gh = hs + i * w;
    for (int b = 0; b < B; ++b) {
      const int k = fan > 1 ? b : 0;
      of.x = x_rows[i * fan + k], of.v = vs + (i * B + b) * w, of.gv = gv + int64_t(b) * w;
      of.gx = gx.target(t * M * fan + k * call.L, gx_buffer + int64_t(k) * w);
      loops.branch_backward(n, tile, branch[b], of, branch_sums[b]);
    }
    for (int k = 0; k < tile; ++k)
      for (int b = 0; b < fan; ++b) gx.write((t + k) * M * fan + b * call.L, gx_buffer + (int64_t(k) * fan + b) * w);
  }

  // Adds the sums of the blocks done since the last time to the chunk's own rows of the partial sums.
  void flush(const Box& box, double* partial) {
    if (!grid.per_lane) {
      const int64_t column = grid.columns > 1 ? box.c : 0;
      for (int r = 0; r < rows; ++r) partial[r * grid.columns + column] += sums[r], sums[r] = 0;
      return;
    }
    for (int r = 0; r < rows; ++r) {
      S* lanes = lane_sums + int64_t(r) * w;
      double* to = partial + r * grid.columns + box.c;
      int i = 0;
      for (int n = 0; n < box.dn; ++n)
        for (int k = 0; k < box.dc; ++k)
          for (int l = 0; l < box.dl; ++l) to[k] += double(lanes[i++]);
      memset(lanes, 0, size_t(w) * sizeof(S));
    }
  }

  void run(const Job& job, int64_t index) {
    const int64_t jl = index % grid.chunks_l, jc = index / grid.chunks_l % grid.chunks_c;
    const int64_t jn = index / grid.chunks_l / grid.chunks_c;
    const int64_t slot = grid.columns == 1 ? index : jn * grid.chunks_l + jl;
    double* partial = job.backward ? job.partial + slot * rows * grid.columns : nullptr;
    if (job.backward) {
      memset(sums, 0, size_t(rows) * sizeof(double));
      if (grid.per_lane) memset(lane_sums, 0, size_t(rows) * size_t(w) * sizeof(S));
    }
    for (int64_t bc = grid.blocks_c * jc / grid.chunks_c; bc < grid.blocks_c * (jc + 1) / grid.chunks_c; ++bc) {
      Box box = {}, last = {};
      int since = 0;
      for (int64_t bn = grid.blocks_n * jn / grid.chunks_n; bn < grid.blocks_n * (jn + 1) / grid.chunks_n; ++bn)
        for (int64_t bl = grid.blocks_l * jl / grid.chunks_l; bl < grid.blocks_l * (jl + 1) / grid.chunks_l; ++bl) {
          box.n = bn * grid.dn, box.c = bc * grid.dc, box.l = bl * grid.dl;
          box.dn = int(least(grid.dn, call.N - box.n)), box.dc = int(least(grid.dc, call.C - box.c));
          box.dl = int(least(grid.dl, call.L - box.l));
          const bool along = bl + 1 < grid.blocks_l * (jl + 1) / grid.chunks_l;
          const int64_t n = along ? box.n : box.n + grid.dn;
          const int64_t l = along ? box.l + grid.dl : grid.blocks_l * jl / grid.chunks_l * grid.dl;
          upcoming = n < call.N ? (const S*)call.x + n * call.x_n + box.c * call.x_c * fan + l * call.x_l : nullptr;
          if (box.dn != last.dn) {  // the first block, or a smaller one at the end
            if (last.dn && job.backward) flush(last, partial);
            expand(box), last = box, since = 0;
          }
          if (!job.backward) {
            forward(box);
            continue;
          }
          backward(box);
          if (grid.per_lane && ++since == 64) flush(box, partial), since = 0;  // float sums stay short
        }
      if (last.dn && job.backward) flush(last, partial);
    }
#ifdef SD_X86
    _mm_sfence();  // rows that were streamed are there before anyone is told that this chunk is done
#endif
  }
  static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
};

int64_t scratch(const Job& job) {
  if (job.call->io == FLOAT64) return Engine_<double>(job, nullptr).used;
  return Engine_<float>(job, nullptr).used;
}

void chunk(const Job& job, int64_t index, char* memory) {
  if (job.call->io == FLOAT64) Engine_<double>(job, memory).run(job, index);
  else Engine_<float>(job, memory).run(job, index);
}
}  // namespace

extern const Engine engine;
const Engine engine = {scratch, chunk};
}  // namespace SD_ISA
