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

// The state of a block's neurons between two steps, a row of each; v has one per branch.
template <class S>
struct State {
  S *u, *v, *fired;
};

template <class S>
struct Engine_ {
  const Call& call;
  const Grid& grid;
  const Loops<S> loops;
  const bool backwards;
  const int B, fan, K;
  const ParameterRows at;                  // of a parameter, among `rows` in all
  const int rows, width, parameter_width;  // width: lanes of a scratch row
  const int64_t T, M;                      // M neurons
  char* memory;                            // null while measuring
  int64_t used = 0;

  template <class X>
  X* take_of(int64_t count) {
    const int64_t at = used;
    used += (count * int64_t(sizeof(X)) + 63) / 64 * 64;
    return memory ? (X*)(memory + at) : nullptr;
  }
  S* take(int64_t count) { return take_of<S>(count * width); }
  State<S> take_states(int64_t count) { return {take(count), take(count * B), take(call.fire_once ? count : 0)}; }

  // parameters, expanded for the block at hand; after them what follows from them, the soma's level and tail
  S* parameters;
  S *zero, *x_buffer, *y, *h, *spike, *limited;
  State<S> state;
  // Backward. The trail is a segment's states before and after every step, with x and h of the steps; h gives way to
  // its gradient. `starts` are the states that the segments start from.
  State<S> trail, starts;
  S *trail_h, *trail_x;
  S *g_u, *g_v, *g_spike_buffer, *g_x_buffer, *slope, *power, *lane_sums, *thresholds;
  double* sums;
  const S **x_rows, **ahead;
  // what the loops are given: made once, since a wide load of a struct just written by parts stalls
  SomaParameters<S> soma;
  SomaSums<S> soma_sums;
  Sum<S>* all_sums;  // of every row
  BranchParameters<S>* branch;
  BranchSums<S>* branch_sums;
  const S* upcoming = nullptr;  // where the next block's input starts

  Engine_(const Job& job, char* scratch)
      : call(*job.call),
        grid(*job.grid),
        loops(choose<S>(call, grid.per_lane)),
        backwards(job.backward),
        B(int(call.B)),
        fan(int(call.fan)),
        K(int(call.degree)),
        at(call.rows()),
        rows(at.count()),
        width(grid.width),
        parameter_width(grid.per_lane ? width : 1),
        T(call.T),
        M(call.N * call.C * call.L),
        memory(scratch) {
    parameters = take_of<S>(int64_t(rows + 2) * parameter_width + 16);
    zero = take(1), x_buffer = take(fan), y = take(1), h = take(1), spike = take(1), limited = take(1);
    state = take_states(1);
    if (backwards) {
      const int64_t length = grid.segment, segments = (T + length - 1) / length;
      g_u = take(1), g_v = take(B), g_spike_buffer = take(1), g_x_buffer = take(TILE * fan);
      slope = take(1), power = take(1), thresholds = take(1);
      lane_sums = take(grid.per_lane ? rows : 0);
      sums = take_of<double>(rows);
      trail = take_states(length + 1), trail_h = take(length), trail_x = take(length * fan);
      starts = take_states(segments);
      all_sums = take_of<Sum<S>>(rows);
    }
    x_rows = take_of<const S*>((backwards ? grid.segment : 1) * fan);
    ahead = take_of<const S*>(fan);
    branch = take_of<BranchParameters<S>>(B), branch_sums = take_of<BranchSums<S>>(B);
    if (!memory) return;
    memset(zero, 0, size_t(width) * sizeof(S));
#define SD_ROW(name, rows, absent) soma.name = row(at.name());
    SD_SOMA_PARAMETERS(SD_ROW)
    soma.level = row(rows), soma.tail = row(rows + 1), soma.width = parameter_width, soma.degree = K;
    soma.v_reset = S(call.v_reset), soma.low = S(call.clamp_low), soma.high = S(call.clamp_high);
    for (int b = 0; b < B; ++b)
      branch[b] = {row(at.alpha(b)), row(at.gain(b)), row(at.offset(b)), row(at.strength(b)), row(at.direct())};
    if (!backwards) return;
    for (int b = 0; b < B; ++b)
      branch_sums[b] = {sum(at.alpha(b)), sum(at.gain(b)), sum(at.offset(b)), sum(at.strength(b)), sum(at.direct())};
    for (int r = 0; r < rows; ++r) all_sums[r] = sum(r);
#define SD_SUM(name, rows, absent) soma_sums.name = all_sums + at.name();
    SD_SOMA_PARAMETERS(SD_SUM)
  }

  S* row(int index) const { return parameters + int64_t(index) * parameter_width; }
  Sum<S> sum(int index) const { return {sums + index, lane_sums + int64_t(index) * width}; }
  void expand(int parameter, int element, const Box& box) {
    S* to = row(at.first(parameter) + element);
    const S* p = (const S*)call.parameter[parameter];
    const int64_t channel_stride = call.parameter_c[parameter];
    const S otherwise = S(value_where_absent(parameter));
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
    for (int parameter = 0; parameter < PARAMETERS; ++parameter)
      for (int element = 0; element < at.count(parameter); ++element) expand(parameter, element, box);
    const int neurons = box.dn * box.dc * box.dl, lanes = grid.per_lane ? neurons : 1;
    const S* threshold = row(at.threshold());
    for (int i = 0; i < lanes; ++i) row(rows + 1)[i] = K ? clamped(row(at.theta(1))[i], S(-1), S(1)) : S(0);
    for (int i = 0; i < lanes; ++i) {
      const S t = threshold[i];
      if (!call.strict) row(rows)[i] = t;
      else row(rows)[i] = sizeof(S) == 4 ? S(nextafterf(float(t), INFINITY)) : S(nextafter(double(t), INFINITY));
    }
    if (backwards)
      for (int i = 0; i < neurons; ++i) thresholds[i] = threshold[grid.per_lane ? i : 0];
  }

  Rows<S> state_rows(const void* p, const Box& box, int64_t per_neuron) const {
    return Rows<S>(p, Rows<S>::own(), box, {call.C * per_neuron * call.L, per_neuron * call.L, 1}, true);
  }
  void read_state(const void* p, bool one, const Box& box, int64_t per_neuron, S* to) const {
    if (one) {
      const S value = *(const S*)p;
      for (int64_t i = 0; i < per_neuron * width; ++i) to[i] = value;
      return;
    }
    const Rows<S> from = state_rows(p, box, per_neuron);
    for (int64_t b = 0; b < per_neuron; ++b) from.read(b * call.L, to + b * width);
  }
  void write_state(void* p, const Box& box, int64_t per_neuron, const S* from) const {
    const Rows<S> to = state_rows(p, box, per_neuron);
    for (int64_t b = 0; b < per_neuron; ++b) to.write(b * call.L, from + b * width);
  }
  void load(const Box& box, const State<S>& to) const {
    read_state(call.u, call.one_u, box, 1, to.u);
    if (B) read_state(call.v, call.one_v, box, B, to.v);
    if (call.fire_once) read_state(call.fired, call.one_fired, box, 1, to.fired);
  }
  // State number i of several that lie one after the other.
  State<S> number(int64_t i, const State<S>& of) const {
    return {of.u + i * width, of.v + i * B * width, call.fire_once ? of.fired + i * width : nullptr};
  }
  void copy(int64_t count, const S* from, S* to) const { memcpy(to, from, size_t(count * width) * sizeof(S)); }
  void copy(const State<S>& from, const State<S>& to) const {
    copy(1, from.u, to.u), copy(B, from.v, to.v);
    if (call.fire_once) copy(1, from.fired, to.fired);
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

  // The step t on the rows of x, kept in `rows_of` and `buffer`: from a state to the next, which may lie where it was.
  void step(int n, const Rows<S>& x, int64_t t, int64_t next, const S** rows_of, S* buffer, const State<S>& from,
            const State<S>& to, S* h_to, S* spike_to) {
    for (int b = 0; b < fan; ++b) rows_of[b] = x.read(t * call.x_t + b * call.x_c, buffer + int64_t(b) * width);
    prefetch(x, next, rows_of);
    StepRows<S> of = {rows_of, ahead, zero, from.u, from.v, zero, y, h_to, spike_to, to.u, to.v, width};
    if (call.fire_once) of.fired = from.fired;
    if (!call.fold()) loops.direct_forward(n, row(at.direct()), rows_of[0], y), of.y = y;
    if (loops.neuron_forward) {
      loops.neuron_forward(n, B, branch, soma, of);
    } else {
      if (B) loops.branch_forward(n, B, branch, of);
      if (K != 1 && K != 3) loops.polynomial_forward(n, soma, from.u, limited, h_to);
      loops.soma_forward(n, soma, y, of);
    }
    if (call.fire_once) remember_fired(n, spike_to, from.fired, to.fired);
  }

  void forward(const Box& box) {
    const int n = box.dn * box.dc * box.dl;
    const Rows<S> x(call.x, call.io, box, {call.x_n, call.x_c * fan, call.x_l});
    const Strides flat = {call.C * call.L, call.L, 1};
    Rows<S> spikes(call.spikes, call.io, box, flat);
    spikes.stream(T * M);
    const Rows<S> sequence(call.u_sequence, Rows<S>::own(), box, flat, true);
    load(box, state);
    for (int64_t t = 0; t < T; ++t) {
      step(n, x, t, t + 1, x_rows, x_buffer, state, state, h, spikes.target(t * M, spike));
      spikes.write(t * M, spike);
      if (call.u_sequence) sequence.write(t * M, state.u);
    }
    write_state(call.u_out, box, 1, state.u);
    if (B) write_state(call.v_out, box, B, state.v);
    if (call.fire_once) write_state(call.fired_out, box, 1, state.fired);
  }

  void backward(const Box& box) {
    const int n = box.dn * box.dc * box.dl;
    const Rows<S> x(call.x, call.io, box, {call.x_n, call.x_c * fan, call.x_l});
    const Rows<S> g_spikes(call.g_spikes, call.g_io, box, {call.gs_n, call.gs_c, call.gs_l});
    Rows<S> g_x(call.gx, call.io, box, {call.C * fan * call.L, fan * call.L, 1});
    g_x.stream(T * M * fan);
    const Rows<S> g_sequence(call.g_u_sequence, Rows<S>::own(), box, {call.C * call.L, call.L, 1});
    const int64_t length = grid.segment, segments = (T + length - 1) / length;
    const bool whole = segments == 1;  // then the states go where they are wanted at once
    load(box, whole ? trail : state);
    for (int64_t g = 0; g < segments && !whole; ++g) {
      copy(state, number(g, starts));
      if (g + 1 == segments) break;
      for (int64_t t = g * length; t < (g + 1) * length; ++t)
        step(n, x, t, t + 1, x_rows, x_buffer, state, state, h, spike);
    }
    memset(g_u, 0, size_t(width) * sizeof(S)), memset(g_v, 0, size_t(B) * size_t(width) * sizeof(S));
    if (call.g_u) read_state(call.g_u, false, box, 1, g_u);
    if (call.g_v) read_state(call.g_v, false, box, B, g_v);
    for (int64_t g = segments - 1; g >= 0; --g) {
      const int64_t begin = g * length, steps = (T < begin + length ? T : begin + length) - begin;
      if (!whole) copy(number(g, starts), trail);
      for (int64_t i = 0; i < steps; ++i) {
        // the first two to be read only: rows a power of two apart would push each other out of the cache
        if (i + 2 >= steps) g_spikes.prefetch((begin + i) * call.gs_t);
        step(n, x, begin + i, i + 1 < steps ? begin + i + 1 : T, x_rows + i * fan, trail_x + i * fan * width,
             number(i, trail), number(i + 1, trail), trail_h + i * width, spike);
      }
      for (int64_t i = steps; i > 0;) {
        const int tile = int(least(TILE, i));
        i -= tile;
        tile_backward(n, tile, begin + i, i, x, g_spikes, g_x, g_sequence);
      }
    }
    if (call.g_u_in) write_state(call.g_u_in, box, 1, g_u);
    if (call.g_v_in) write_state(call.g_v_in, box, B, g_v);
  }

  // The steps t .. t + tile - 1, which are the trail's from number i on.
  void tile_backward(int n, int tile, int64_t t, int64_t i, const Rows<S>& x, const Rows<S>& g_spikes,
                     const Rows<S>& g_x, const Rows<S>& g_sequence) {
    for (int k = tile - 1; k >= 0; --k) {
      const int64_t now = t + k, j = i + k;
      if (j >= 2) g_spikes.prefetch((now - 2) * call.gs_t);
      if (call.g_u_sequence) add_row(n, g_sequence.read(now * M, g_spike_buffer), g_u);
      const State<S> before = number(j, trail);
      S* h = trail_h + j * width;
      const S* g_spike = g_spikes.read(now * call.gs_t, g_spike_buffer);
      const SomaRows<S> of = {before.u, h, call.fire_once ? before.fired : zero, slope, g_spike, g_u, h};
      loops.surrogate(n, thresholds, h, S(call.surrogate_a), S(call.surrogate_b), slope);
      if (loops.soma_backward) {
        loops.soma_backward(n, soma, of, soma_sums);
      } else {
        loops.fire_backward(n, soma, of, soma_sums);
        loops.polynomial_backward(n, soma, of, limited, power, soma_sums);
      }
      if (!call.fold())
        loops.direct_backward(n, row(at.direct()), h, x_rows[j], g_x.target(now * M, g_x_buffer + int64_t(k) * width),
                              sum(at.direct()));
    }
    BranchRows<S> of = {};
    of.x_t = x.direct ? call.x_t : int64_t(fan) * width, of.v_t = int64_t(B) * width, of.g_h_t = width;
    of.g_x_t = g_x.direct ? M * fan : int64_t(fan) * width;
    of.g_h = trail_h + i * width;
    for (int b = 0; b < B; ++b) {
      const int k = fan > 1 ? b : 0;
      of.x = x_rows[i * fan + k], of.v = trail.v + (i * B + b) * width, of.g_v = g_v + int64_t(b) * width;
      of.g_x = g_x.target(t * M * fan + k * call.L, g_x_buffer + int64_t(k) * width);
      loops.branch_backward(n, tile, branch[b], of, branch_sums[b]);
    }
    for (int k = 0; k < tile; ++k)
      for (int b = 0; b < fan; ++b)
        g_x.write((t + k) * M * fan + b * call.L, g_x_buffer + (int64_t(k) * fan + b) * width);
  }

  // Adds the sums of the blocks done since the last time to the chunk's own rows of the partial sums.
  void flush(const Box& box, double* partial) {
    if (!grid.per_lane) {
      const int64_t column = grid.columns > 1 ? box.c : 0;
      for (int r = 0; r < rows; ++r) partial[r * grid.columns + column] += sums[r], sums[r] = 0;
      return;
    }
    for (int r = 0; r < rows; ++r) {
      S* lanes = lane_sums + int64_t(r) * width;
      double* to = partial + r * grid.columns + box.c;
      int i = 0;
      for (int n = 0; n < box.dn; ++n)
        for (int k = 0; k < box.dc; ++k)
          for (int l = 0; l < box.dl; ++l) to[k] += double(lanes[i++]);
      memset(lanes, 0, size_t(width) * sizeof(S));
    }
  }

  void run(const Job& job, int64_t index) {
    const int64_t jl = index % grid.chunks_l, jc = index / grid.chunks_l % grid.chunks_c;
    const int64_t jn = index / grid.chunks_l / grid.chunks_c;
    const int64_t slot = grid.columns == 1 ? index : jn * grid.chunks_l + jl;
    double* partial = job.backward ? job.partial + slot * rows * grid.columns : nullptr;
    if (job.backward) {
      memset(sums, 0, size_t(rows) * sizeof(double));
      if (grid.per_lane) memset(lane_sums, 0, size_t(rows) * size_t(width) * sizeof(S));
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
