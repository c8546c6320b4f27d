// The loops over branches, forward and backward.
#pragma once
#include "soma_dendrite/lanes.h"

// y = direct x, in `shared` wiring and without branches
template <class P, class S>
static void direct_forward(int n, const S* direct_, const S* x, S* y) {
  const P direct(direct_);
  SD_LANES y[i] = direct[i] * x[i];
}

template <class P, class S>
static void direct_backward(int n, const S* direct_, const S* g_h, const S* x, S* g_x, const Sum<S>& g_direct) {
  const P direct(direct_);
  S total = 0;
#pragma omp simd reduction(+ : total)
  for (int i = 0; i < n; ++i) {
    const S g = g_h[i];
    SD_ADD_PRODUCT(total, g_direct, g, x[i]);
    g_x[i] = direct[i] * g;
  }
  if (!P::PER_LANE) *g_direct.sum += double(total);
}

// The branches b + g of a group at once, so that y stays in a register: v, and y + the sum of strength f(v) (+ direct
// x), which finish(i, y) takes. FOLD: every branch has a row of x and its own direct term; else they share one, and
// the direct term was taken apart. The terms are added branch by branch, whatever the groups. Rows ahead are asked for
// a line at a time: all at once they would hold up the loads of this step.
template <int A, bool FOLD, class P, class S, class Finish, int... g>
SD_FN void branches_forward(int n, int b, const BranchParameters<S>* parameters, const StepRows<S>& rows, const S* y_in,
                            const Finish& finish, Group<g...>) {
  const BranchParameters<S>* p = parameters + b;
  const int first = FOLD ? b : 0;
  const P alpha[] = {P(p[g].alpha)...}, gain[] = {P(p[g].gain)...}, offset[] = {P(p[g].offset)...},
          strength[] = {P(p[g].strength)...}, direct(p->direct);
  const S* const x[] = {rows.x[first + (FOLD ? g : 0)]...};
  const S* const ahead[] = {rows.ahead[first + (FOLD ? g : 0)]...};
  const S* const v[] = {rows.v + (b + g) * rows.width...};
  S* const v_out[] = {rows.v_out + (b + g) * rows.width...};
  const auto lane = [&](int i) SD_INLINE {
    S y = y_in[i], slope;
    const S shared = x[0][i];
    const S x_now[] = {FOLD && g ? x[g][i] : shared...};
    const S v_now[] = {integrate(x_now[g], v[g][i], alpha[g][i], gain[g][i], offset[g][i])...};
    ((y = sd_fma(strength[g][i], activate<A>(v_now[g], slope), y), y = FOLD ? sd_fma(direct[i], x_now[g], y) : y), ...);
    ((v_out[g][i] = v_now[g]), ...);
    finish(i, y);
  };
  enum { LINE = 64 / sizeof(S) };
  int j = 0;
  for (; j + LINE <= n; j += LINE) {
    ((FOLD || !g ? __builtin_prefetch(ahead[g] + j) : void()), ...);
#pragma omp simd
    for (int i = 0; i < LINE; ++i) lane(j + i);
  }
#pragma omp simd
  for (int i = j; i < n; ++i) lane(i);
}

// The first B branches: rows.v to rows.v_out, and their sum added to rows.y gives rows.y_out.
template <int A, bool FOLD, class P, class S>
static void branch_forward(int n, int B, const BranchParameters<S>* p, const StepRows<S>& rows) {
  const S* y = rows.y;
  S* const y_out = rows.y_out;
  const auto keep = [y_out](int i, S sum) SD_INLINE { y_out[i] = sum; };
  int b = 0;
  if constexpr (grouped<P, S>) {
    for (; b + 4 <= B; b += 4, y = y_out) branches_forward<A, FOLD, P>(n, b, p, rows, y, keep, Group<0, 1, 2, 3>());
    for (; b + 2 <= B; b += 2, y = y_out) branches_forward<A, FOLD, P>(n, b, p, rows, y, keep, Group<0, 1>());
  }
  for (; b < B; ++b, y = y_out) branches_forward<A, FOLD, P>(n, b, p, rows, y, keep, Group<0>());
}

// The rows of one branch over a few neighbouring steps, the first step's: x, g_h, and v before the step, whose next
// row is v after it.
template <class S>
struct BranchRows {
  const S *x, *v, *g_h;
  S *g_x, *g_v;
  int64_t x_t, v_t, g_h_t, g_x_t;
  BranchRows at(int64_t t) const {
    return {x + t * x_t, v + t * v_t, g_h + t * g_h_t, g_x + t * g_x_t, g_v, x_t, v_t, g_h_t, g_x_t};
  }
};

// One branch over STEPS steps, the last one first, so that g_v stays in a register: from g_h and g_v (of v after the
// last step) to g_v (of v before the first); g_x = gain g_v + direct g_h, or with a shared x what other branches left
// there + gain g_v. SUMS: whose gradients are summed up, of the strength; also of alpha and direct; also of gain and
// offset, which are there only then.
enum Sums { STRENGTH, DECAY, AFFINE };
template <int A, bool FOLD, int SUMS, int STEPS, class P, class S>
static void branch_steps_backward(int n, const BranchParameters<S>& p, const BranchRows<S>& rows_,
                                  const BranchSums<S>& sums) {
  const P alpha(p.alpha), gain(p.gain), strength(p.strength), direct(p.direct);
  const BranchRows<S> rows = rows_;  // a copy vectorises together with a reduction
  S all_alpha = 0, all_gain = 0, all_offset = 0, all_strength = 0, all_direct = 0;
#pragma omp simd reduction(+ : all_alpha, all_gain, all_offset, all_strength, all_direct)
  for (int i = 0; i < n; ++i) {
    S g_v = rows.g_v[i], v_after = rows.v[STEPS * rows.v_t + i];
    S g_alpha = 0, g_gain = 0, g_offset = 0, g_strength = 0, g_direct = 0;
#pragma GCC unroll 4
    for (int t = STEPS - 1; t >= 0; --t) {
      const S g_h = rows.g_h[t * rows.g_h_t + i], v = rows.v[t * rows.v_t + i];
      S slope;
      const S f = activate<A>(v_after, slope), g = sd_fma(g_h * strength[i], slope, g_v);
      g_strength = sd_fma(g_h, f, g_strength);
      if constexpr (SUMS >= DECAY) g_alpha = sd_fma(g, v, g_alpha);
      S g_x = g;
      if constexpr (SUMS >= AFFINE) {
        g_gain = sd_fma(g, rows.x[t * rows.x_t + i], g_gain);
        g_offset += g;
        g_x *= gain[i];
      }
      if constexpr (FOLD) {
        if constexpr (SUMS >= DECAY) g_direct = sd_fma(g_h, rows.x[t * rows.x_t + i], g_direct);
        g_x = sd_fma(direct[i], g_h, g_x);
      } else {
        g_x += rows.g_x[t * rows.g_x_t + i];
      }
      rows.g_x[t * rows.g_x_t + i] = g_x;
      g_v = g * alpha[i];
      v_after = v;
    }
    rows.g_v[i] = g_v;
    SD_ADD(all_strength, sums.strength, g_strength);
    if constexpr (SUMS >= DECAY) {
      SD_ADD(all_alpha, sums.alpha, g_alpha);
      if constexpr (FOLD) { SD_ADD(all_direct, sums.direct, g_direct); }
    }
    if constexpr (SUMS >= AFFINE) {
      SD_ADD(all_gain, sums.gain, g_gain);
      SD_ADD(all_offset, sums.offset, g_offset);
    }
  }
  if (P::PER_LANE) return;
  *sums.strength.sum += double(all_strength);
  if (SUMS >= DECAY) *sums.alpha.sum += double(all_alpha);
  if (SUMS >= DECAY && FOLD) *sums.direct.sum += double(all_direct);
  if (SUMS >= AFFINE) *sums.gain.sum += double(all_gain), *sums.offset.sum += double(all_offset);
}

enum { TILE = 4 };  // steps that are taken backward together

template <int A, bool FOLD, int SUMS, class P, class S>
static void branch_backward(int n, int steps, const BranchParameters<S>& p, const BranchRows<S>& rows,
                            const BranchSums<S>& sums) {
  if (grouped<P, S> && steps == TILE)
    return branch_steps_backward<A, FOLD, SUMS, grouped<P, S> ? TILE : 1, P, S>(n, p, rows, sums);
  for (int t = steps - 1; t >= 0; --t) branch_steps_backward<A, FOLD, SUMS, 1, P, S>(n, p, rows.at(t), sums);
}
