// One call of the TTFS pair, as the Python side fills it in (ttfs/cpu.py mirrors the fields in this order), and as it
// is cut up.
#pragma once
#include <stdint.h>

#include "common/dtypes.h"

struct TtfsCall {
  int64_t W, T, N, C, L;   // windows, steps per window, neurons in three dimensions
  int64_t bias_c, bias_l;  // strides of the bias, 1 along at most one of the two, else 0
  int32_t io, has_bias;    // io: the scalar of x, spikes and their gradients
  int32_t threads, level;
  const void* windows;         // R_in, R
  const void* x;               // forward: x; backward: the gradient of the spikes
  int64_t x_t, x_n, x_c, x_l;  // its strides in elements
  const void* bias;
  void* out;                 // [W * T, N, C, L]: spikes, or the gradient of x
  void* potentials;          // [W, N, C, L]: written by forward, read by backward
  const void* g_potentials;  // [W, N, C, L], or null
  void* g_bias;              // as many as the bias has, or null
};

// A block is a box of neurons whose rows lie in the first-level cache; a chunk is what a thread takes at a time: some
// blocks along the dimensions in which the bias varies (`along`), some of all others (`across`).
struct TtfsGrid {
  int dn, dc, dl;
  int64_t blocks_n, blocks_c, blocks_l;
  int64_t along, across, chunks_along, chunks_across;
  int64_t columns;  // numbers in the bias
};

struct TtfsJob {
  const TtfsCall* call;
  const TtfsGrid* grid;
  double* partial;  // backward: [chunks_across][columns], or null without a bias
  bool backward;
};

enum { TTFS_LANES = 1024, TTFS_WIDTH = TTFS_LANES + 16, TTFS_ROWS = 6 };

typedef void (*TtfsChunk)(const TtfsJob&, int64_t index, char* scratch);
