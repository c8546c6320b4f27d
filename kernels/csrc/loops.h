// The lane loops: each is one phase of a step over the neurons of a block, whose rows lie in the first-level cache. A
// loop is specialised for what it alone depends on, so that the settings multiply nowhere; `choose` picks a call's.
#pragma once
#include "call.h"
#include "step.h"

// A parameter within a block: one number, or one per lane.
template <class S> struct Uniform {
  const S value;
  explicit Uniform(const S* p) : value(*p) {}
  S operator[](int) const { return value; }
  enum { LANES = 0 };
};
template <class S> struct Lanes {
  const S* const value;
  explicit Lanes(const S* p) : value(p) {}
  S operator[](int i) const { return value[i]; }
  enum { LANES = 1 };
};

// Sums of parameter gradients: `sum` where the parameter is one number, else `lanes`.
template <class S> struct Sum { double* sum; S* lanes; };

template <class S> struct BranchParameters { const S *alpha, *gain, *offset, *strength, *direct; };
template <class S> struct BranchSums { Sum<S> alpha, gain, offset, strength, direct; };
template <class S> struct SomaParameters {
  const S *theta, *threshold, *level;
  int width, degree;
  S v_reset, low, high;
};

#define SD_LANES _Pragma("omp simd") for (int i = 0; i < n; ++i)
#define SD_ADD(total, to, value) if constexpr (P::LANES) to.lanes[i] += value; else total += value

template <class P, class S> static void scale(int n, const S* factor, const S* x, S* y) {
  const P f(factor);
  SD_LANES y[i] = f[i] * x[i];
}

// v_new from v and x; y_out = y_in + strength f(v_new) (+ direct x)
template <int A, bool DIRECT, class P, class S>
static void branch_forward(int n, const BranchParameters<S>& p, const S* x, const S* v, const S* y_in, S* v_new,
                           S* y_out) {
  const P alpha(p.alpha), gain(p.gain), offset(p.offset), strength(p.strength), direct(p.direct);
  SD_LANES {
    const S xi = x[i], vi = integrate(xi, v[i], alpha[i], gain[i], offset[i]);
    S slope, y = y_in[i] + strength[i] * activate<A>(vi, slope);
    if constexpr (DIRECT) y += direct[i] * xi;
    v_new[i] = vi;
    y_out[i] = y;
  }
}

// K is the polynomial's degree, 1 or 3; K == 0: any degree, `h` already holds P(u).
template <int R, int W, int K, class P, class S>
static void soma_forward(int n, const SomaParameters<S>& p, const S* u, const S* y, const S* fired, S* h_out, S* s_out,
                         S* u_out) {
  const P threshold(p.threshold), level(p.level), theta0(p.theta), theta1(p.theta + (K > 0 ? 1 : 0) * p.width),
      theta2(p.theta + (K == 3 ? 2 : 0) * p.width), theta3(p.theta + (K == 3 ? 3 : 0) * p.width);
  const S v_reset = p.v_reset, low = p.low, high = p.high;
  SD_LANES {
    const S r = pending<R, W>(u[i], level[i]);
    S h;
    if constexpr (K == 0) h = h_out[i];
    else {
      const S c = clamped(carried<R, W>(u[i], r, v_reset), low, high);
      if constexpr (K == 1) h = theta1[i] * c + theta0[i];
      else h = ((theta3[i] * c + theta2[i]) * c + theta1[i]) * c + theta0[i];
    }
    h = subtract_pending<R, W>(h + y[i], r, threshold[i]);
    const S s = (h >= level[i] ? S(1) : S(0)) * (S(1) - fired[i]);
    h_out[i] = h;
    s_out[i] = s;
    u_out[i] = reset_state<R, W>(h, s, r, threshold[i], v_reset);
  }
}

// P(u) of any degree, into h
template <int R, int W, class P, class S>
static void polynomial_forward(int n, const SomaParameters<S>& p, const S* u, S* c, S* h) {
  const P level(p.level), top(p.theta + p.degree * p.width);
  const S v_reset = p.v_reset, low = p.low, high = p.high;
  SD_LANES {
    c[i] = clamped(carried<R, W>(u[i], pending<R, W>(u[i], level[i]), v_reset), low, high);
    h[i] = top[i];
  }
  for (int k = p.degree - 1; k >= 0; --k) {
    const P theta(p.theta + k * p.width);
    SD_LANES h[i] = h[i] * c[i] + theta[i];
  }
}

template <class S> static void remember_fired(int n, const S* s, const S* before, S* after) {
  SD_LANES after[i] = s[i] > before[i] ? s[i] : before[i];
}

template <int G, class S> static void surrogate_row(int n, const S* threshold, const S* h, S a, S b, S* out) {
  SD_LANES out[i] = surrogate<G>(h[i] - threshold[i], a, b);
}

// gh from gs and gu; adds to the threshold's gradient
template <int R, int W, bool DETACH, class P, class S>
static void fire_backward_row(int n, const SomaParameters<S>& p, const S* gs, const S* gu, const S* h, const S* u,
                              const S* fired, const S* sg, S* gh, const Sum<S>& g_threshold) {
  const P threshold(p.threshold), level(p.level);
  const S v_reset = p.v_reset;
  S total = 0;
#pragma omp simd reduction(+ : total)
  for (int i = 0; i < n; ++i) {
    const S r = pending<R, W>(u[i], level[i]), allowed = S(1) - fired[i];
    const S s = (h[i] >= level[i] ? S(1) : S(0)) * allowed;
    S g;
    gh[i] = fire_backward<R, W, DETACH>(gs[i], gu[i], h[i], s, r, sg[i], allowed, threshold[i], v_reset, g);
    SD_ADD(total, g_threshold, g);
  }
  if (!P::LANES) *g_threshold.sum += double(total);
}

// gu (of u before the step) from gh, and the gradients of theta; K as in soma_forward
template <int R, int W, int K, class P, class S>
static void polynomial_backward(int n, const SomaParameters<S>& p, const S* gh, const S* u, S* c, S* power, S* gu,
                                const Sum<S>* g_theta) {
  const P level(p.level);
  const S v_reset = p.v_reset, low = p.low, high = p.high;
  if constexpr (K > 0) {
    const P theta1(p.theta + p.width), theta2(p.theta + (K == 3 ? 2 : 0) * p.width),
        theta3(p.theta + (K == 3 ? 3 : 0) * p.width);
    const Sum<S>&g0 = g_theta[0], &g1 = g_theta[1], &g2 = g_theta[K == 3 ? 2 : 0], &g3 = g_theta[K == 3 ? 3 : 0];
    S t0 = 0, t1 = 0, t2 = 0, t3 = 0;
#pragma omp simd reduction(+ : t0, t1, t2, t3)
    for (int i = 0; i < n; ++i) {
      const S r = pending<R, W>(u[i], level[i]), raw = carried<R, W>(u[i], r, v_reset), x = clamped(raw, low, high);
      const S g = gh[i];
      S slope = theta1[i];
      SD_ADD(t0, g0, g);
      SD_ADD(t1, g1, g * x);
      if constexpr (K == 3) {
        slope = (S(3) * theta3[i] * x + S(2) * theta2[i]) * x + slope;
        SD_ADD(t2, g2, g * x * x);
        SD_ADD(t3, g3, g * x * x * x);
      }
      gu[i] = carry_backward<R, W>(g * slope, raw, r, low, high);
    }
    if (!P::LANES) {
      *g0.sum += double(t0), *g1.sum += double(t1);
      if (K == 3) *g2.sum += double(t2), *g3.sum += double(t3);
    }
  } else {
    SD_LANES {
      c[i] = clamped(carried<R, W>(u[i], pending<R, W>(u[i], level[i]), v_reset), low, high);
      power[i] = gh[i];
      gu[i] = S(0);  // collects P'
    }
    for (int k = 0; k <= p.degree; ++k) {
      const Sum<S>& g = g_theta[k];
      S total = 0;
#pragma omp simd reduction(+ : total)
      for (int i = 0; i < n; ++i) {
        SD_ADD(total, g, power[i]);
        power[i] *= c[i];
      }
      if (!P::LANES) *g.sum += double(total);
    }
    for (int k = p.degree; k >= 1; --k) {
      const P theta(p.theta + k * p.width);
      const S factor = S(k);
      SD_LANES gu[i] = gu[i] * c[i] + factor * theta[i];
    }
    SD_LANES {
      const S r = pending<R, W>(u[i], level[i]);
      gu[i] = carry_backward<R, W>(gh[i] * gu[i], carried<R, W>(u[i], r, v_reset), r, low, high);
    }
  }
}

// Without branches: gx = direct gh, and direct's gradient.
template <class P, class S>
static void direct_backward(int n, const S* direct_, const S* gh, const S* x, S* gx, const Sum<S>& g_direct) {
  const P direct(direct_);
  S total = 0;
#pragma omp simd reduction(+ : total)
  for (int i = 0; i < n; ++i) {
    const S g = gh[i];
    SD_ADD(total, g_direct, g * x[i]);
    gx[i] = direct[i] * g;
  }
  if (!P::LANES) *g_direct.sum += double(total);
}

// One branch: from gh and gv (of v after the step) to gv (of v before it); gx_out = gx_in + gain gv (+ direct gh, and
// direct's gradient). AFFINE: gain and offset are there and want gradients.
template <int A, bool DIRECT, bool AFFINE, class P, class S>
static void branch_backward(int n, const BranchParameters<S>& p, const S* x, const S* v, const S* v_new, const S* gh,
                            const S* gx_in, S* gv, S* gx_out, const BranchSums<S>& sums) {
  const P alpha(p.alpha), gain(p.gain), strength(p.strength), direct(p.direct);
  S ta = 0, tg = 0, to = 0, ts = 0, td = 0;
#pragma omp simd reduction(+ : ta, tg, to, ts, td)
  for (int i = 0; i < n; ++i) {
    const S g = gh[i], xi = x[i];
    S slope;
    const S f = activate<A>(v_new[i], slope);
    const S gb = gv[i] + g * strength[i] * slope;
    SD_ADD(ts, sums.strength, g * f);
    SD_ADD(ta, sums.alpha, gb * v[i]);
    S gx = gb;
    if constexpr (AFFINE) {
      SD_ADD(tg, sums.gain, gb * xi);
      SD_ADD(to, sums.offset, gb);
      gx *= gain[i];
    }
    if constexpr (DIRECT) {
      SD_ADD(td, sums.direct, g * xi);
      gx += direct[i] * g;
    } else {
      gx += gx_in[i];
    }
    gx_out[i] = gx;
    gv[i] = gb * alpha[i];
  }
  if (!P::LANES) {
    *sums.strength.sum += double(ts), *sums.alpha.sum += double(ta);
    if (AFFINE) *sums.gain.sum += double(tg), *sums.offset.sum += double(to);
    if (DIRECT) *sums.direct.sum += double(td);
  }
}

template <class S> static void add_row(int n, const S* from, S* to) { SD_LANES to[i] += from[i]; }

// The loops of one call.
template <class S> struct Loops {
  void (*scale)(int, const S*, const S*, S*);
  void (*branch_forward)(int, const BranchParameters<S>&, const S*, const S*, const S*, S*, S*);
  void (*polynomial_forward)(int, const SomaParameters<S>&, const S*, S*, S*);
  void (*soma_forward)(int, const SomaParameters<S>&, const S*, const S*, const S*, S*, S*, S*);
  void (*surrogate)(int, const S*, const S*, S, S, S*);
  void (*fire_backward)(int, const SomaParameters<S>&, const S*, const S*, const S*, const S*, const S*, const S*, S*,
                        const Sum<S>&);
  void (*polynomial_backward)(int, const SomaParameters<S>&, const S*, const S*, S*, S*, S*, const Sum<S>*);
  void (*direct_backward)(int, const S*, const S*, const S*, S*, const Sum<S>&);
  void (*branch_backward)(int, const BranchParameters<S>&, const S*, const S*, const S*, const S*, const S*, S*, S*,
                          const BranchSums<S>&);
};

template <class P, int A, class S> static void choose_activation(const Call& call, Loops<S>& loops) {
  if constexpr (A < ACTIVATIONS) {
    if (call.activation != A) return choose_activation<P, A + 1>(call, loops);
    const bool direct = call.fan == call.B;  // `shared`: the direct term is taken once, apart
    loops.branch_forward = direct ? branch_forward<A, true, P, S> : branch_forward<A, false, P, S>;
    if (call.gain || call.offset)
      loops.branch_backward = direct ? branch_backward<A, true, true, P, S> : branch_backward<A, false, true, P, S>;
    else
      loops.branch_backward = direct ? branch_backward<A, true, false, P, S> : branch_backward<A, false, false, P, S>;
  }
}

template <int G, class S> static void choose_surrogate(const Call& call, Loops<S>& loops) {
  if constexpr (G < SURROGATES) {
    if (call.surrogate != G) return choose_surrogate<G + 1>(call, loops);
    loops.surrogate = surrogate_row<G, S>;
  }
}

template <class P, int R, int W, class S> static void choose_soma(const Call& call, Loops<S>& loops) {
  const bool cubic = call.degree == 3, linear = call.degree == 1;
  loops.polynomial_forward = polynomial_forward<R, W, P, S>;
  loops.soma_forward = linear  ? soma_forward<R, W, 1, P, S>
                       : cubic ? soma_forward<R, W, 3, P, S>
                               : soma_forward<R, W, 0, P, S>;
  loops.polynomial_backward = linear  ? polynomial_backward<R, W, 1, P, S>
                              : cubic ? polynomial_backward<R, W, 3, P, S>
                                      : polynomial_backward<R, W, 0, P, S>;
  loops.fire_backward = call.detach ? fire_backward_row<R, W, true, P, S> : fire_backward_row<R, W, false, P, S>;
}

template <class P, class S> static void choose(const Call& call, Loops<S>& loops) {
  loops.scale = scale<P, S>;
  loops.direct_backward = direct_backward<P, S>;
  choose_activation<P, 0>(call, loops);
  const int timing = call.timing;
  if (call.reset == RESET_NONE) choose_soma<P, RESET_NONE, AT_ONCE>(call, loops);
  else if (call.reset == RESET_HARD && timing == AT_ONCE) choose_soma<P, RESET_HARD, AT_ONCE>(call, loops);
  else if (call.reset == RESET_HARD && timing == NEXT_STEP) choose_soma<P, RESET_HARD, NEXT_STEP>(call, loops);
  else if (call.reset == RESET_HARD) choose_soma<P, RESET_HARD, SNNTORCH>(call, loops);
  else if (timing == AT_ONCE) choose_soma<P, RESET_SOFT, AT_ONCE>(call, loops);
  else if (timing == NEXT_STEP) choose_soma<P, RESET_SOFT, NEXT_STEP>(call, loops);
  else choose_soma<P, RESET_SOFT, SNNTORCH>(call, loops);
}

template <class S> static Loops<S> choose(const Call& call, bool per_lane) {
  Loops<S> loops = {};
  choose_surrogate<0>(call, loops);
  if (per_lane) choose<Lanes<S>>(call, loops);
  else choose<Uniform<S>>(call, loops);
  return loops;
}
