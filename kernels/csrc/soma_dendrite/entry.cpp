// Entry points of the CPU build: plain C functions on data pointers, loaded with ctypes; no Python, no torch ABI.
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "soma_dendrite/call.h"
#include "common/team.h"

namespace baseline {
extern const Engine engine;
}
#ifdef SD_X86
namespace avx2 {
extern const Engine engine;
}
namespace avx512 {
extern const Engine engine;
}
#endif

namespace {

const Engine& engine_of(int level) {
  level = usable_level(level);
#ifdef SD_X86
  if (level == 2) return avx512::engine;
  if (level == 1) return avx2::engine;
#endif
  return baseline::engine;
}

// Scratch that the states of a backward segment may fill: half of a second-level cache of 1 MB.
const int64_t BUDGET = 512 * 1024;

// Lanes of a block at most, and of one that runs on over channels.
const int64_t MOST_LANES = 256, WIDE = 512;

Grid cut(const Call& c, bool backward) {
  Grid g = {};
  const int64_t scalar = c.io == FLOAT64 ? 8 : 4;
  const bool per_channel = c.per_channel();
  // where the rows of neighbouring channels adjoin, a block may run on over them
  const bool flat = !per_channel && c.fan == 1 && c.L < WIDE;
  int64_t lanes = flat || (c.fan == 1 && c.L < 48) ? WIDE : MOST_LANES;
  g.segment = c.T;
  if (backward) {
    const int64_t per_step = (c.B + 2 + (c.fire_once ? 1 : 0)) * scalar;  // bytes of a lane
    while (lanes > 64 && c.T * per_step * lanes > BUDGET) lanes /= 2;
    if (c.T * per_step * lanes > 2 * BUDGET) {
      lanes = 128;
      g.segment = most(16, int64_t(sqrt(double(c.T))));
    }
  }
  g.dn = g.dc = 1;
  if (c.L >= 48 && !flat) {
    g.dl = int(pieces(pieces(c.L, pieces(c.L, lanes)), 16) * 16);
  } else if (c.C * c.L > lanes / 2) {
    const int64_t channels = most(1, lanes / c.L);
    g.dl = int(c.L), g.dc = int(pieces(c.C, pieces(c.C, channels)));
  } else {
    const int64_t entries = most(1, lanes / (c.C * c.L));
    g.dl = int(c.L), g.dc = int(c.C), g.dn = int(pieces(c.N, pieces(c.N, entries)));
  }
  g.blocks_n = pieces(c.N, g.dn), g.blocks_c = pieces(c.C, g.dc), g.blocks_l = pieces(c.L, g.dl);
  const int64_t work = c.T * c.N * c.C * c.L * most(1, c.B);
  g.columns = per_channel ? c.C : 1;
  g.per_lane = per_channel && g.dc > 1;
  // parameters laid out per lane, and their sums, are a cost per chunk
  const int64_t target = most(1, least(256, work / (g.per_lane ? 131072 : 16384)));
  if (backward) {  // channels apart first: their sums need no slots of their own
    g.chunks_c = least(g.blocks_c, target);
    g.chunks_n = least(g.blocks_n, pieces(target, g.chunks_c));
  } else {
    g.chunks_n = least(g.blocks_n, target);
    g.chunks_c = least(g.blocks_c, pieces(target, g.chunks_n));
  }
  g.chunks_l = least(g.blocks_l, pieces(target, g.chunks_c * g.chunks_n));
  g.width = int(pieces(int64_t(g.dn) * g.dc * g.dl, 16) * 16 + 16);  // rows in different cache sets
  return g;
}

struct Work {
  const Job* job;
  const Engine* engine;
};
void chunk(const void* work, int64_t index, char* scratch) {
  const Work& w = *(const Work*)work;
  w.engine->chunk(*w.job, index, scratch);
}

template <class S>
void put(void* to, int64_t channel_stride, int64_t elements, const double* sums, int64_t columns, int64_t C) {
  if (!to) return;
  S* out = (S*)to;
  for (int64_t e = 0; e < elements; ++e, sums += columns) {
    if (channel_stride) {
      for (int64_t c = 0; c < C; ++c) out[c * channel_stride + e] = S(sums[c]);
    } else {
      double total = 0;
      for (int64_t c = 0; c < columns; ++c) total += sums[c];
      out[e] = S(total);
    }
  }
}

template <class S>
void put_all(const Call& c, const Grid& g, const double* sums) {
  const ParameterRows rows = c.rows();
  for (int p = 0; p < PARAMETERS; ++p)
    put<S>(c.g_parameter[p], c.parameter_c[p], rows.count(p), sums + rows.first(p) * g.columns, g.columns, c.C);
}

int run(const Call& call, bool backward) {
  const int64_t neurons = call.N * call.C * call.L;
  Grid grid = {};
  int64_t chunks = 0, slots = 1, columns = 1;
  const int64_t rows = call.rows().count();
  if (neurons) {
    grid = cut(call, backward);
    chunks = grid.chunks_n * grid.chunks_c * grid.chunks_l;
    columns = grid.columns;
    slots = columns == 1 ? chunks : grid.chunks_n * grid.chunks_l;
  } else {
    grid.columns = columns = most(1, call.C);
  }
  Job job = {&call, &grid, nullptr, backward};
  if (backward && !(job.partial = (double*)calloc(size_t(slots * rows * columns), sizeof(double)))) return 1;
  const Work work = {&job, &engine_of(call.level)};
  Team team = {chunk, &work, chunks, 0};
  if (neurons) {
    team.scratch = work.engine->scratch(job);
    const int64_t values = call.T * neurons * call.fan;
    run_team(team, values < 30000 ? 1 : int(least(call.threads, chunks)));
  }
  if (backward) {
    double* sums = job.partial;  // slot 0 collects the others in order
    for (int64_t slot = 1; slot < slots; ++slot)
      for (int64_t i = 0; i < rows * columns; ++i) sums[i] += job.partial[slot * rows * columns + i];
    if (!team.failed) {
      if (call.io == FLOAT64) put_all<double>(call, grid, sums);
      else put_all<float>(call, grid, sums);
    }
    free(job.partial);
  }
  return team.failed;
}

}  // namespace

extern "C" {
__attribute__((visibility("default"))) int64_t sd_call_size() { return int64_t(sizeof(Call)); }
__attribute__((visibility("default"))) int sd_best_level() { return best_level(); }
__attribute__((visibility("default"))) void sd_use_openmp(void* function) { parallel = (Parallel)function; }
// 0, or 1 when memory ran out
__attribute__((visibility("default"))) int sd_forward(const Call* call) { return run(*call, false); }
__attribute__((visibility("default"))) int sd_backward(const Call* call) { return run(*call, true); }
}
