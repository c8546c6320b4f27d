// The loops over somata, forward and backward, and the one over whole neurons.
#pragma once
#include "soma_dendrite/branch_loops.h"

template <int R, int W, class S>
SD_FN void fire_lane(int i, S h, S pending, Soma<S> soma, const StepRows<S>& rows) {
  const Fired<S> now = fire<R, W>(h, pending, S(1) - rows.fired[i], soma);
  rows.h[i] = now.h;
  rows.spike[i] = now.spike;
  rows.u_out[i] = now.u;
}

// From y and u to h, the spike and u. K is the polynomial's degree, 1 or 3; K == 0: any degree, h holds P(u) already.
template <int R, int W, int K, class P, class S>
static void soma_forward(int n, const SomaParameters<S>& p, const S* y, const StepRows<S>& rows) {
  const SomaLanes<P, S> soma(p);
  const P theta0(p.theta), theta1(p.theta + (K > 0 ? 1 : 0) * p.width), theta2(p.theta + (K == 3 ? 2 : 0) * p.width),
      theta3(p.theta + (K == 3 ? 3 : 0) * p.width);
  SD_LANES {
    const S r = pending<R, W>(rows.u[i], soma[i]), u = carried<R, W>(rows.u[i], r, soma[i]);
    S h;
    if constexpr (K == 0) h = rows.h[i];
    if constexpr (K == 1) h = sd_horner(u, theta0[i], theta1[i]);
    if constexpr (K == 3) {
      const S limited = clamped(u, soma.low, soma.high);
      h = polynomial(u, limited, sd_horner(limited, theta2[i], theta3[i]), theta0[i], theta1[i], soma[i]);
    }
    fire_lane<R, W>(i, h + y[i], r, soma[i], rows);
  }
}

// Branches and a linear soma in one: the sum goes from the last group's registers into the soma. For an even number of
// branches whose activation is so cheap that memory is what counts.
template <int A, bool FOLD, int R, int W, class S>
static void neuron_forward(int n, int B, const BranchParameters<S>* branch, const SomaParameters<S>& p,
                           const StepRows<S>& rows) {
  typedef Uniform<S> P;
  const SomaLanes<P, S> soma(p);
  const P theta0(p.theta), theta1(p.theta + p.width);
  const auto finish = [&](int i, S y) SD_INLINE {
    const S r = pending<R, W>(rows.u[i], soma[i]), u = carried<R, W>(rows.u[i], r, soma[i]);
    fire_lane<R, W>(i, sd_horner(u, theta0[i], theta1[i]) + y, r, soma[i], rows);
  };
  const int last = B % 4 ? 2 : 4, b = B - last;
  if (b) branch_forward<A, FOLD, P>(n, b, branch, rows);
  const S* y = b ? rows.y_out : rows.y;
  if (last == 4) branches_forward<A, FOLD, P>(n, b, branch, rows, y, finish, Group<0, 1, 2, 3>());
  else branches_forward<A, FOLD, P>(n, b, branch, rows, y, finish, Group<0, 1>());
}

// P(u) of any degree but 1, into h
template <int R, int W, class P, class S>
static void polynomial_forward(int n, const SomaParameters<S>& p, const S* u, S* limited, S* h) {
  const SomaLanes<P, S> soma(p);
  const P top(p.theta + p.degree * p.width);
  SD_LANES {
    limited[i] = clamped(carried<R, W>(u[i], pending<R, W>(u[i], soma[i]), soma[i]), soma.low, soma.high);
    h[i] = top[i];
  }
  if (p.degree == 0) return;
  for (int k = p.degree - 1; k >= 2; --k) {
    const P theta(p.theta + k * p.width);
    SD_LANES h[i] = sd_fma(h[i], limited[i], theta[i]);
  }
  const P theta0(p.theta), theta1(p.theta + p.width);
  SD_LANES {
    const S r = pending<R, W>(u[i], soma[i]);
    h[i] = polynomial(carried<R, W>(u[i], r, soma[i]), limited[i], h[i], theta0[i], theta1[i], soma[i]);
  }
}

template <class S>
static void remember_fired(int n, const S* spike, const S* fired, S* fired_out) {
  SD_LANES fired_out[i] = spike[i] > fired[i] ? spike[i] : fired[i];
}

template <int G, class S>
static void surrogate_row(int n, const S* threshold, const S* h, S a, S b, S* slope) {
  SD_LANES slope[i] = surrogate<G>(h[i] - threshold[i], a, b);
}

// The rows of one step backward: `slope` is the surrogate derivative; g_u goes from u after the step to u before it;
// g_h may lie where h was.
template <class S>
struct SomaRows {
  const S *u, *h, *fired, *slope, *g_spike;
  S *g_u, *g_h;
};

// g_h from g_spike and g_u; adds to the threshold's gradient
template <int R, int W, bool DETACH, class P, class S>
static void fire_backward_row(int n, const SomaParameters<S>& p, const SomaRows<S>& rows_, const SomaSums<S>& sums) {
  const SomaLanes<P, S> soma(p);
  const SomaRows<S> rows = rows_;  // a copy vectorises together with a reduction
  const Sum<S>& g_threshold = *sums.threshold;
  S all_threshold = 0;
#pragma omp simd reduction(+ : all_threshold)
  for (int i = 0; i < n; ++i) {
    const S r = pending<R, W>(rows.u[i], soma[i]);
    const FireGradients<S> g = fire_backward<R, W, DETACH>(rows.g_spike[i], rows.g_u[i], rows.h[i], r,
                                                           S(1) - rows.fired[i], rows.slope[i], soma[i]);
    rows.g_h[i] = g.h;
    SD_ADD(all_threshold, g_threshold, g.threshold);
  }
  if (!P::PER_LANE) *g_threshold.sum += double(all_threshold);
}

// The same, and on to g_u of u before the step, with a polynomial of degree K, 1 or 3; adds to theta's gradients, too.
template <int R, int W, bool DETACH, int K, class P, class S>
static void soma_backward(int n, const SomaParameters<S>& p, const SomaRows<S>& rows_, const SomaSums<S>& sums) {
  const SomaLanes<P, S> soma(p);
  const SomaRows<S> rows = rows_;  // a copy vectorises together with a reduction
  const P theta1(p.theta + p.width), theta2(p.theta + (K == 3 ? 2 : 0) * p.width),
      theta3(p.theta + (K == 3 ? 3 : 0) * p.width);
  const Sum<S>&g0 = sums.theta[0], &g1 = sums.theta[1], &g2 = sums.theta[K == 3 ? 2 : 0],
        &g3 = sums.theta[K == 3 ? 3 : 0], &g_threshold = *sums.threshold;
  S all_threshold = 0, all0 = 0, all1 = 0, all2 = 0, all3 = 0;
#pragma omp simd reduction(+ : all_threshold, all0, all1, all2, all3)
  for (int i = 0; i < n; ++i) {
    const S r = pending<R, W>(rows.u[i], soma[i]);
    const FireGradients<S> g = fire_backward<R, W, DETACH>(rows.g_spike[i], rows.g_u[i], rows.h[i], r,
                                                           S(1) - rows.fired[i], rows.slope[i], soma[i]);
    const S u = carried<R, W>(rows.u[i], r, soma[i]);
    S slope = theta1[i];
    SD_ADD(all_threshold, g_threshold, g.threshold);
    SD_ADD(all0, g0, g.h);
    if constexpr (K == 1) {
      SD_ADD_PRODUCT(all1, g1, g.h, u);
    } else {
      const S c = clamped(u, soma.low, soma.high);
      slope = slope_at(sd_horner(c, theta1[i], S(2) * theta2[i], S(3) * theta3[i]), u, soma[i]);
      SD_ADD_PRODUCT(all1, g1, g.h, by_theta1(u, c, theta1[i], soma[i]));
      SD_ADD_PRODUCT(all2, g2, g.h * c, c);
      SD_ADD_PRODUCT(all3, g3, g.h * c * c, c);
    }
    rows.g_h[i] = g.h;
    rows.g_u[i] = carry_backward<R, W>(g.h * slope, r);
  }
  if (P::PER_LANE) return;
  *g_threshold.sum += double(all_threshold), *g0.sum += double(all0), *g1.sum += double(all1);
  if (K == 3) *g2.sum += double(all2), *g3.sum += double(all3);
}

// g_u (of u before the step) from g_h, and the gradients of theta, for a polynomial of any degree but 1
template <int R, int W, class P, class S>
static void polynomial_backward(int n, const SomaParameters<S>& p, const SomaRows<S>& rows, S* limited, S* power,
                                const SomaSums<S>& sums) {
  const SomaLanes<P, S> soma(p);
  const P theta1(p.theta + (p.degree ? p.width : 0));
  const S *u = rows.u, *g_h = rows.g_h;
  S* g_u = rows.g_u;
  SD_LANES {
    limited[i] = clamped(carried<R, W>(u[i], pending<R, W>(u[i], soma[i]), soma[i]), soma.low, soma.high);
    power[i] = g_h[i];
    g_u[i] = S(0);  // collects P'
  }
  for (int k = 0; k <= p.degree; ++k) {
    const Sum<S>& g_theta = sums.theta[k];
    S all = 0;
#pragma omp simd reduction(+ : all)
    for (int i = 0; i < n; ++i) {
      SD_ADD(all, g_theta, power[i]);
      const S r = pending<R, W>(u[i], soma[i]);
      power[i] *= k == 0 ? by_theta1(carried<R, W>(u[i], r, soma[i]), limited[i], theta1[i], soma[i]) : limited[i];
    }
    if (!P::PER_LANE) *g_theta.sum += double(all);
    if (k == 1) SD_LANES power[i] = g_h[i] * limited[i] * limited[i];
  }
  for (int k = p.degree; k >= 1; --k) {
    const P theta(p.theta + k * p.width);
    const S factor = S(k);
    SD_LANES g_u[i] = sd_fma(g_u[i], limited[i], factor * theta[i]);
  }
  SD_LANES {
    const S r = pending<R, W>(u[i], soma[i]);
    if (p.degree) g_u[i] = slope_at(g_u[i], carried<R, W>(u[i], r, soma[i]), soma[i]);
    g_u[i] = carry_backward<R, W>(g_h[i] * g_u[i], r);
  }
}

template <class S>
static void add_row(int n, const S* from, S* to) {
  SD_LANES to[i] += from[i];
}
