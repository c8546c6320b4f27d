// Entry points of the TTFS pair in the CPU build: plain C functions on data pointers, loaded with ctypes.
#include <stdint.h>
#include <stdlib.h>

#include "common/team.h"
#include "ttfs/call.h"

namespace baseline {
extern const TtfsChunk ttfs_chunk;
}
#ifdef SD_X86
namespace avx2 {
extern const TtfsChunk ttfs_chunk;
}
namespace avx512 {
extern const TtfsChunk ttfs_chunk;
}
#endif

namespace {

TtfsChunk chunk_of(int level) {
  level = usable_level(level);
#ifdef SD_X86
  if (level == 2) return avx512::ttfs_chunk;
  if (level == 1) return avx2::ttfs_chunk;
#endif
  return baseline::ttfs_chunk;
}

struct Work {
  const TtfsJob* job;
  TtfsChunk chunk;
};
void chunk(const void* work, int64_t index, char* scratch) {
  const Work& w = *(const Work*)work;
  w.chunk(*w.job, index, scratch);
}

// The cut depends on sizes alone, never on the number of threads, so that sums come out the same.
TtfsGrid cut(const TtfsCall& c) {
  TtfsGrid g = {};
  const int64_t lanes = TTFS_LANES;
  g.dn = g.dc = 1;
  if (c.L > lanes / 2) {
    g.dl = int(least(lanes, pieces(pieces(c.L, pieces(c.L, lanes)), 16) * 16));
  } else if (c.C * c.L > lanes / 2) {
    g.dl = int(c.L), g.dc = int(pieces(c.C, pieces(c.C, lanes / c.L)));
  } else {
    g.dl = int(c.L), g.dc = int(c.C), g.dn = int(pieces(c.N, pieces(c.N, lanes / (c.C * c.L))));
  }
  g.blocks_n = pieces(c.N, g.dn), g.blocks_c = pieces(c.C, g.dc), g.blocks_l = pieces(c.L, g.dl);
  g.along = (c.bias_c ? g.blocks_c : 1) * (c.bias_l ? g.blocks_l : 1);
  g.across = c.W * g.blocks_n * (c.bias_c ? 1 : g.blocks_c) * (c.bias_l ? 1 : g.blocks_l);
  const int64_t target = most(1, least(256, c.W * c.T * c.N * c.C * c.L / 32768));
  g.chunks_along = least(g.along, target);
  g.chunks_across = least(g.across, pieces(target, g.chunks_along));
  return g;
}

int run(const TtfsCall& call, bool backward) {
  const int64_t neurons = call.W * call.N * call.C * call.L;
  const int64_t columns = call.bias_c ? call.C : call.bias_l ? call.L : 1;
  TtfsGrid grid = {};
  if (neurons) grid = cut(call);
  grid.columns = columns;
  const int64_t slots = most(1, grid.chunks_across);
  TtfsJob job = {&call, &grid, nullptr, backward};
  if (call.g_bias && !(job.partial = (double*)calloc(size_t(slots * columns), sizeof(double)))) return columns != 0;
  const Work work = {&job, chunk_of(call.level)};
  const int64_t scratch = TTFS_ROWS * TTFS_WIDTH * (call.io == FLOAT64 ? 8 : 4);
  Team team = {chunk, &work, grid.chunks_along * grid.chunks_across, scratch};
  if (neurons) run_team(team, neurons * call.T < 30000 ? 1 : int(least(call.threads, team.chunks)));
  if (job.partial) {
    for (int64_t slot = 1; slot < slots; ++slot)  // slot 0 collects the others in order
      for (int64_t i = 0; i < columns; ++i) job.partial[i] += job.partial[slot * columns + i];
    for (int64_t i = 0; i < columns; ++i) {
      if (call.io == FLOAT64) ((double*)call.g_bias)[i] = job.partial[i];
      else ((float*)call.g_bias)[i] = float(job.partial[i]);
    }
    free(job.partial);
  }
  return team.failed;
}

}  // namespace

extern "C" {
__attribute__((visibility("default"))) int64_t ttfs_call_size() { return int64_t(sizeof(TtfsCall)); }
// 0, or 1 when memory ran out
__attribute__((visibility("default"))) int ttfs_forward(const TtfsCall* call) { return run(*call, false); }
__attribute__((visibility("default"))) int ttfs_backward(const TtfsCall* call) { return run(*call, true); }
}
