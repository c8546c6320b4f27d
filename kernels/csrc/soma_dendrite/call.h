// One call, as the Python side fills it in (soma_dendrite/cpu.py mirrors the fields in this order) and as it is cut up.
#pragma once
#include <stdint.h>

#include "common/dtypes.h"
#include "soma_dendrite/parameters.h"

struct Call {
  int64_t T, N, C, B, L, fan;  // fan: rows of x per neuron, B in `fold`, else 1
  int64_t degree;
  int32_t activation, reset, timing, surrogate;
  int32_t strict, detach, fire_once, io, g_io;  // io: the scalar of x, gx and the spikes; g_io: that of g_spikes
  int32_t threads, level;                       // level: instruction set, see entry.cpp; -1 for the best there is
  int32_t one_u, one_v, one_fired, reserved;    // a state is one number for all neurons, as after a reset
  double v_reset, surrogate_a, surrogate_b, clamp_low, clamp_high;
  const void* x;
  int64_t x_t, x_n, x_c, x_l;         // strides in elements
  const void* parameter[PARAMETERS];  // in the state scalar, null where absent
  int64_t parameter_c[PARAMETERS];    // stride of the channels, 0 for one row for all
  const void *u, *v, *fired;          // [N, C, L], [N, C, B, L], [N, C, L]
  // forward: results, contiguous [T, N, C, L] (spikes, u_sequence) and like the states
  void *spikes, *u_out, *v_out, *fired_out, *u_sequence;
  // backward: gradients of the results (null: zero) ...
  const void* g_spikes;
  int64_t gs_t, gs_n, gs_c, gs_l;
  const void* g_u_sequence;  // [T, N, C, L]
  const void *g_u, *g_v;
  // ... and of the inputs, null where nobody wants them; gx is contiguous [T, N, C, fan, L]
  void *gx, *g_u_in, *g_v_in;
  void* g_parameter[PARAMETERS];

  ParameterRows rows() const { return {int(B), int(degree)}; }
  bool fold() const { return fan == B; }  // a row of x per branch; else (`shared`, or no branches) one for all
  bool per_channel() const {
    for (int64_t stride : parameter_c)
      if (stride) return true;
    return false;
  }
};

// How the neurons are cut. A block is a box of neurons small enough that one step's rows lie in the first-level cache:
// part of one channel's positions where L is large, whole channels where it is small, whole batch entries where those
// are small too. Blocks are grouped into chunks (one unit of work for a thread); the cut depends on sizes alone, never
// on the number of threads, so that sums come out the same.
struct Grid {
  int dn, dc, dl;  // size of a block
  int64_t blocks_n, blocks_c, blocks_l;
  int64_t chunks_n, chunks_c, chunks_l;
  int64_t segment;  // backward: steps whose states are kept at a time
  bool per_lane;    // parameters differ within a block
  int64_t columns;  // channels told apart in the parameter sums: C, or 1
  int width;        // lanes of a row in scratch
};

struct Job {
  const Call* call;
  const Grid* grid;
  double* partial;  // [slots][rows][columns]; no two chunks add to the same place
  bool backward;
};

// Bytes of scratch a thread needs, and the work of one chunk; one set per instruction set.
struct Engine {
  int64_t (*scratch)(const Job&);
  void (*chunk)(const Job&, int64_t index, char* scratch);
};
