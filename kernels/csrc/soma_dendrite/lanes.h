// What the lane loops are made of. A loop is one phase of a step over the neurons of a block, whose rows lie in the
// first-level cache; it is specialised for what it alone depends on, so that the settings multiply nowhere.
//
// Names, here and in the files that include this: n lanes, i a lane, b a branch, k a coefficient, t a step. A pointer
// bears the name of the state whose row it is (u, v, h, fired, ...), g_ before it for its gradient; v_out is the row
// that v becomes. x_t is the distance to x's row of the next step, and so on. Template arguments: A activation, G
// surrogate, R reset, W its timing, K degree, P whether parameters are Uniform or Lanes, S the state scalar.
#pragma once
#include "soma_dendrite/call.h"
#include "soma_dendrite/step.h"

// A parameter within a block: one number, or one per lane.
template <class S>
struct Uniform {
  const S value;
  explicit Uniform(const S* p) : value(*p) {}
  S operator[](int) const { return value; }
  enum { PER_LANE = 0 };
};
template <class S>
struct Lanes {
  const S* const value;
  explicit Lanes(const S* p) : value(p) {}
  S operator[](int i) const { return value[i]; }
  enum { PER_LANE = 1 };
};

// Sums of parameter gradients: `sum` where the parameter is one number, else `lanes`.
template <class S>
struct Sum {
  double* sum;
  S* lanes;
};

template <class S>
struct BranchParameters {
  const S *alpha, *gain, *offset, *strength, *direct;
};
template <class S>
struct BranchSums {
  Sum<S> alpha, gain, offset, strength, direct;
};
template <class S>
struct SomaParameters {
#define SD_ROW_OF(name, rows, absent) const S* name;
  SD_SOMA_PARAMETERS(SD_ROW_OF)  // a parameter's rows lie `width` apart
  const S *level, *tail;
  int width, degree;
  S v_reset, low, high;
};
template <class S>
struct SomaSums {
#define SD_SUM_OF(name, rows, absent) Sum<S>* name;
  SD_SOMA_PARAMETERS(SD_SUM_OF)
};

// The soma's parameters as a loop holds them; [i] are those of a lane.
template <class P, class S>
struct SomaLanes {
  const P threshold, level, tail;
  const S v_reset, low, high;
  explicit SomaLanes(const SomaParameters<S>& p)
      : threshold(p.threshold), level(p.level), tail(p.tail), v_reset(p.v_reset), low(p.low), high(p.high) {}
  Soma<S> operator[](int i) const { return {threshold[i], level[i], tail[i], v_reset, low, high}; }
};

// The rows of one step. Those of the branches lie `width` apart; what comes out may lie where its predecessor was.
template <class S>
struct StepRows {
  const S* const* x;      // one row, or in `fold` wiring one per branch
  const S* const* ahead;  // likewise: what the next step will read
  const S *y, *u, *v, *fired;
  S *y_out, *h, *spike, *u_out, *v_out;
  int64_t width;
};

// Branches that one loop takes together, so that what they share stays in registers.
template <int...>
struct Group {};
// Elsewhere one at a time will do: parameters per lane take the registers, float64 is there to check against, and
// 128-bit vectors are for processors that are old.
#ifdef __AVX2__
template <class P, class S>
constexpr bool grouped = sizeof(S) == 4 && !P::PER_LANE;
#else
template <class P, class S>
constexpr bool grouped = false;
#endif

#define SD_INLINE __attribute__((always_inline))
#define SD_LANES _Pragma("omp simd") for (int i = 0; i < n; ++i)
// Adds a value, or a product, to the sum that is kept of a parameter's gradient.
#define SD_ADD(total, to, value)                   \
  if constexpr (P::PER_LANE) to.lanes[i] += value; \
  else total += value
#define SD_ADD_PRODUCT(total, to, a, b)                               \
  if constexpr (P::PER_LANE) to.lanes[i] = sd_fma(a, b, to.lanes[i]); \
  else total = sd_fma(a, b, total)
