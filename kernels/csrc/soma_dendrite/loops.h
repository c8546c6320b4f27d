// The lane loops: each is one phase of a step over the neurons of a block, whose rows lie in the first-level cache. A
// loop is specialised for what it alone depends on, so that the settings multiply nowhere; `choose` picks a call's.
#pragma once
#include "soma_dendrite/call.h"
#include "soma_dendrite/step.h"

// A parameter within a block: one number, or one per lane.
template <class S>
struct Uniform {
  const S value;
  explicit Uniform(const S* p) : value(*p) {}
  S operator[](int) const { return value; }
  enum { LANES = 0 };
};
template <class S>
struct Lanes {
  const S* const value;
  explicit Lanes(const S* p) : value(p) {}
  S operator[](int i) const { return value[i]; }
  enum { LANES = 1 };
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
  const S *theta, *threshold, *level;
  int width, degree;
  S v_reset, low, high;
};

// Branches that one loop takes together, so that what they share stays in registers.
template <int...>
struct Group {};
// Elsewhere one at a time will do: parameters per lane take the registers, float64 is there to check against, and
// 128-bit vectors are for processors that are old.
#ifdef __AVX2__
template <class P, class S>
constexpr bool grouped = sizeof(S) == 4 && !P::LANES;
#else
template <class P, class S>
constexpr bool grouped = false;
#endif

#define SD_LANES _Pragma("omp simd") for (int i = 0; i < n; ++i)
#define SD_ADD(total, to, value)                \
  if constexpr (P::LANES) to.lanes[i] += value; \
  else total += value

template <class P, class S>
static void scale(int n, const S* factor, const S* x, S* y) {
  const P f(factor);
  SD_LANES y[i] = f[i] * x[i];
}

// A group of branches at once, so that y stays in a register: v_new from v and x; y = y_in + the sum over the group of
// strength f(v_new) (+ direct x), which finish(i, y) takes. Branch g's rows lie `width` apart. FOLD: every branch has a
// row of x and its own direct term; else they share x[0], and the direct term is taken once, apart. `ahead`: rows that
// the next call will read, asked for a line at a time: all at once they would hold up the loads of this one.
template <int A, bool FOLD, class P, class S, class Finish, int... g>
SD_FN void branches_forward(int n, const BranchParameters<S>* p, const S* const* x, const S* v, int64_t width,
                            const S* y_in, S* v_new, const S* const* ahead, const Finish& finish, Group<g...>) {
  const P alpha[] = {P(p[g].alpha)...}, gain[] = {P(p[g].gain)...}, offset[] = {P(p[g].offset)...},
          strength[] = {P(p[g].strength)...}, direct(p->direct);
  const S* const x_of[] = {x[FOLD ? g : 0]...};
  const S* const x_ahead[] = {ahead[FOLD ? g : 0]...};
  const S* const v_of[] = {v + g * width...};
  S* const v_to[] = {v_new + g * width...};
  const auto lane = [&](int i) __attribute__((always_inline)) {
    S y = y_in[i], slope;
    const S shared = x_of[0][i];
    const S x_now[] = {FOLD && g ? x_of[g][i] : shared...};
    const S v_now[] = {integrate(x_now[g], v_of[g][i], alpha[g][i], gain[g][i], offset[g][i])...};
    ((y += strength[g][i] * activate<A>(v_now[g], slope)), ...);
    if constexpr (FOLD) ((y += direct[i] * x_now[g]), ...);
    ((v_to[g][i] = v_now[g]), ...);
    finish(i, y);
  };
  enum { LINE = 64 / sizeof(S) };
  int j = 0;
  for (; j + LINE <= n; j += LINE) {
    ((FOLD || !g ? __builtin_prefetch(x_ahead[g] + j) : void()), ...);
#pragma omp simd
    for (int i = 0; i < LINE; ++i) lane(j + i);
  }
#pragma omp simd
  for (int i = j; i < n; ++i) lane(i);
}

template <int A, bool FOLD, class P, class S>
static void branch_forward(int n, int B, const BranchParameters<S>* p, const S* const* x, const S* v, int64_t width,
                           const S* y_in, S* v_new, S* y_out, const S* const* ahead) {
  int b = 0;
  const auto run = [&](auto group) {
    const int row = FOLD ? b : 0;
    const auto keep = [y_out](int i, S y) __attribute__((always_inline)) { y_out[i] = y; };
    branches_forward<A, FOLD, P, S>(n, p + b, x + row, v + b * width, width, y_in, v_new + b * width, ahead + row, keep,
                                    group);
    y_in = y_out;
  };
  if constexpr (grouped<P, S>) {
    for (; b + 4 <= B; b += 4) run(Group<0, 1, 2, 3>());
    for (; b + 2 <= B; b += 2) run(Group<0, 1>());
  }
  for (; b < B; ++b) run(Group<0>());
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
      const S raw = carried<R, W>(u[i], r, v_reset);
      if constexpr (K == 1) h = theta1[i] * raw + theta0[i];
      else {
        const S c = clamped(raw, low, high), tail = tail_slope(theta1[i]);
        h = ((theta3[i] * c + theta2[i]) * c + (theta1[i] - tail)) * c + (tail * raw + theta0[i]);
      }
    }
    h = subtract_pending<R, W>(h + y[i], r, threshold[i]);
    const S s = (h >= level[i] ? S(1) : S(0)) * (S(1) - fired[i]);
    h_out[i] = h;
    s_out[i] = s;
    u_out[i] = reset_state<R, W>(h, s, r, threshold[i], v_reset);
  }
}

// Branches and a linear soma in one: the sum goes from the last group's registers into the soma. For an even number of
// branches whose activation is so cheap that memory is what counts.
template <int A, bool FOLD, int R, int W, class S>
static void neuron_forward(int n, int B, const BranchParameters<S>* p, const SomaParameters<S>& of, const S* const* x,
                           const S* v, int64_t width, const S* y_in, S* v_new, S* y_out, const S* const* ahead,
                           const S* u, const S* fired, S* h_out, S* s_out, S* u_out) {
  typedef Uniform<S> P;
  const P threshold(of.threshold), level(of.level), theta0(of.theta), theta1(of.theta + of.width);
  const S v_reset = of.v_reset;
  const auto soma = [=](int i, S y) __attribute__((always_inline)) {
    const S r = pending<R, W>(u[i], level[i]);
    const S h = subtract_pending<R, W>(theta1[i] * carried<R, W>(u[i], r, v_reset) + theta0[i] + y, r, threshold[i]);
    const S s = (h >= level[i] ? S(1) : S(0)) * (S(1) - fired[i]);
    h_out[i] = h;
    s_out[i] = s;
    u_out[i] = reset_state<R, W>(h, s, r, threshold[i], v_reset);
  };
  const int last = B % 4 ? 2 : 4, b = B - last, row = FOLD ? b : 0;
  if (b) branch_forward<A, FOLD, P, S>(n, b, p, x, v, width, y_in, v_new, y_out, ahead), y_in = y_out;
  const auto run = [&](auto group) {
    branches_forward<A, FOLD, P, S>(n, p + b, x + row, v + b * width, width, y_in, v_new + b * width, ahead + row, soma,
                                    group);
  };
  if (last == 4) run(Group<0, 1, 2, 3>());
  else run(Group<0, 1>());
}

// P(u) of any degree but 1, into h
template <int R, int W, class P, class S>
static void polynomial_forward(int n, const SomaParameters<S>& p, const S* u, S* c, S* h) {
  const P level(p.level), top(p.theta + p.degree * p.width);
  const S v_reset = p.v_reset, low = p.low, high = p.high;
  SD_LANES {
    c[i] = clamped(carried<R, W>(u[i], pending<R, W>(u[i], level[i]), v_reset), low, high);
    h[i] = top[i];
  }
  if (p.degree == 0) return;
  for (int k = p.degree - 1; k >= 2; --k) {
    const P theta(p.theta + k * p.width);
    SD_LANES h[i] = h[i] * c[i] + theta[i];
  }
  const P theta0(p.theta), theta1(p.theta + p.width);
  SD_LANES {
    const S raw = carried<R, W>(u[i], pending<R, W>(u[i], level[i]), v_reset), tail = tail_slope(theta1[i]);
    h[i] = (h[i] * c[i] + (theta1[i] - tail)) * c[i] + (tail * raw + theta0[i]);
  }
}

template <class S>
static void remember_fired(int n, const S* s, const S* before, S* after) {
  SD_LANES after[i] = s[i] > before[i] ? s[i] : before[i];
}

template <int G, class S>
static void surrogate_row(int n, const S* threshold, const S* h, S a, S b, S* out) {
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

// The same, and on to gu of u before the step, with a polynomial of degree K, 1 or 3; adds to the gradients of theta,
// too.
template <int R, int W, bool DETACH, int K, class P, class S>
static void soma_backward(int n, const SomaParameters<S>& p, const S* gs, S* gu, const S* h, const S* u, const S* fired,
                          const S* sg, S* gh, const Sum<S>& g_threshold, const Sum<S>* g_theta) {
  const P threshold(p.threshold), level(p.level), theta1(p.theta + p.width),
      theta2(p.theta + (K == 3 ? 2 : 0) * p.width), theta3(p.theta + (K == 3 ? 3 : 0) * p.width);
  const Sum<S>&g0 = g_theta[0], &g1 = g_theta[1], &g2 = g_theta[K == 3 ? 2 : 0], &g3 = g_theta[K == 3 ? 3 : 0];
  const S v_reset = p.v_reset, low = p.low, high = p.high;
  S total = 0, t0 = 0, t1 = 0, t2 = 0, t3 = 0;
#pragma omp simd reduction(+ : total, t0, t1, t2, t3)
  for (int i = 0; i < n; ++i) {
    const S r = pending<R, W>(u[i], level[i]), allowed = S(1) - fired[i];
    const S s = (h[i] >= level[i] ? S(1) : S(0)) * allowed;
    S of_threshold;
    const S g =
        fire_backward<R, W, DETACH>(gs[i], gu[i], h[i], s, r, sg[i], allowed, threshold[i], v_reset, of_threshold);
    const S raw = carried<R, W>(u[i], r, v_reset);
    S slope = theta1[i];
    SD_ADD(total, g_threshold, of_threshold);
    SD_ADD(t0, g0, g);
    if constexpr (K == 1) SD_ADD(t1, g1, g * raw);
    else {
      const S c = clamped(raw, low, high);
      slope = slope_at((S(3) * theta3[i] * c + S(2) * theta2[i]) * c + slope, raw, low, high, tail_slope(theta1[i]));
      SD_ADD(t1, g1, g * by_theta1(raw, c, theta1[i]));
      SD_ADD(t2, g2, g * c * c);
      SD_ADD(t3, g3, g * c * c * c);
    }
    gh[i] = g;
    gu[i] = carry_backward<R, W>(g * slope, r);
  }
  if (!P::LANES) {
    *g_threshold.sum += double(total), *g0.sum += double(t0), *g1.sum += double(t1);
    if (K == 3) *g2.sum += double(t2), *g3.sum += double(t3);
  }
}

// gu (of u before the step) from gh, and the gradients of theta, for a polynomial of any degree but 1
template <int R, int W, class P, class S>
static void polynomial_backward(int n, const SomaParameters<S>& p, const S* gh, const S* u, S* c, S* power, S* gu,
                                const Sum<S>* g_theta) {
  const P level(p.level), theta1(p.theta + (p.degree ? p.width : 0));
  const S v_reset = p.v_reset, low = p.low, high = p.high;
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
      power[i] *=
          k == 0 ? by_theta1(carried<R, W>(u[i], pending<R, W>(u[i], level[i]), v_reset), c[i], theta1[i]) : c[i];
    }
    if (!P::LANES) *g.sum += double(total);
    if (k == 1) SD_LANES power[i] = gh[i] * c[i] * c[i];
  }
  for (int k = p.degree; k >= 1; --k) {
    const P theta(p.theta + k * p.width);
    const S factor = S(k);
    SD_LANES gu[i] = gu[i] * c[i] + factor * theta[i];
  }
  SD_LANES {
    const S r = pending<R, W>(u[i], level[i]), raw = carried<R, W>(u[i], r, v_reset);
    if (p.degree) gu[i] = slope_at(gu[i], raw, low, high, tail_slope(theta1[i]));
    gu[i] = carry_backward<R, W>(gh[i] * gu[i], r);
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

// The rows of one branch over a few neighbouring steps, the first step's: x, gx, gh, and v before the step, whose next
// row is v after it. Strides lead to the next step's.
template <class S>
struct BranchRows {
  const S *x, *v, *gh;
  S *gx, *gv;
  int64_t x_t, v_t, gh_t, gx_t;
};

// One branch over STEPS steps, the last one first, so that gv stays in a register: from gh and gv (of v after the last
// step) to gv (of v before the first); gx = gain gv + direct gh, or with a shared x what other branches left there +
// gain gv. SUMS: whose gradients are summed up, of the strength; also of alpha and direct; also of gain and offset,
// which are there only then.
enum Sums { STRENGTH, DECAY, AFFINE };
template <int A, bool FOLD, int SUMS, int STEPS, class P, class S>
static void branch_steps_backward(int n, const BranchParameters<S>& p, const BranchRows<S>& rows,
                                  const BranchSums<S>& sums) {
  const P alpha(p.alpha), gain(p.gain), strength(p.strength), direct(p.direct);
  const BranchRows<S> to = rows;
  S ta = 0, tg = 0, to_ = 0, ts = 0, td = 0;
#pragma omp simd reduction(+ : ta, tg, to_, ts, td)
  for (int i = 0; i < n; ++i) {
    S gv = to.gv[i], v_after = to.v[STEPS * to.v_t + i];
    S sa = 0, sg = 0, so = 0, ss = 0, sd = 0;
    for (int t = STEPS - 1; t >= 0; --t) {
      const S g = to.gh[t * to.gh_t + i], v_before = to.v[t * to.v_t + i];
      S slope;
      const S f = activate<A>(v_after, slope), gb = gv + g * strength[i] * slope;
      ss += g * f;
      if constexpr (SUMS >= DECAY) sa += gb * v_before;
      S gx = gb;
      if constexpr (SUMS >= AFFINE) {
        sg += gb * to.x[t * to.x_t + i];
        so += gb;
        gx *= gain[i];
      }
      if constexpr (FOLD) {
        if constexpr (SUMS >= DECAY) sd += g * to.x[t * to.x_t + i];
        gx += direct[i] * g;
      } else {
        gx += to.gx[t * to.gx_t + i];
      }
      to.gx[t * to.gx_t + i] = gx;
      gv = gb * alpha[i];
      v_after = v_before;
    }
    to.gv[i] = gv;
    SD_ADD(ts, sums.strength, ss);
    if constexpr (SUMS >= DECAY) {
      SD_ADD(ta, sums.alpha, sa);
      if constexpr (FOLD) { SD_ADD(td, sums.direct, sd); }
    }
    if constexpr (SUMS >= AFFINE) {
      SD_ADD(tg, sums.gain, sg);
      SD_ADD(to_, sums.offset, so);
    }
  }
  if (!P::LANES) {
    *sums.strength.sum += double(ts);
    if (SUMS >= DECAY) *sums.alpha.sum += double(ta);
    if (SUMS >= DECAY && FOLD) *sums.direct.sum += double(td);
    if (SUMS >= AFFINE) *sums.gain.sum += double(tg), *sums.offset.sum += double(to_);
  }
}

enum { TILE = 4 };  // steps that are taken backward together

template <int A, bool FOLD, int SUMS, class P, class S>
static void branch_backward(int n, int steps, const BranchParameters<S>& p, const BranchRows<S>& rows,
                            const BranchSums<S>& sums) {
  if (grouped<P, S> && steps == TILE)
    return branch_steps_backward<A, FOLD, SUMS, grouped<P, S> ? TILE : 1, P, S>(n, p, rows, sums);
  BranchRows<S> one = rows;
  for (int t = steps - 1; t >= 0; --t) {
    one.x = rows.x + t * rows.x_t, one.v = rows.v + t * rows.v_t;
    one.gh = rows.gh + t * rows.gh_t, one.gx = rows.gx + t * rows.gx_t;
    branch_steps_backward<A, FOLD, SUMS, 1, P, S>(n, p, one, sums);
  }
}

template <class S>
static void add_row(int n, const S* from, S* to) {
  SD_LANES to[i] += from[i];
}

// The loops of one call.
template <class S>
struct Loops {
  void (*scale)(int, const S*, const S*, S*);
  void (*branch_forward)(int, int, const BranchParameters<S>*, const S* const*, const S*, int64_t, const S*, S*, S*,
                         const S* const*);
  void (*neuron_forward)(int, int, const BranchParameters<S>*, const SomaParameters<S>&, const S* const*, const S*,
                         int64_t, const S*, S*, S*, const S* const*, const S*, const S*, S*, S*,
                         S*);  // null: the three around it do it
  void (*polynomial_forward)(int, const SomaParameters<S>&, const S*, S*, S*);
  void (*soma_forward)(int, const SomaParameters<S>&, const S*, const S*, const S*, S*, S*, S*);
  void (*surrogate)(int, const S*, const S*, S, S, S*);
  void (*fire_backward)(int, const SomaParameters<S>&, const S*, const S*, const S*, const S*, const S*, const S*, S*,
                        const Sum<S>&);
  void (*soma_backward)(int, const SomaParameters<S>&, const S*, S*, const S*, const S*, const S*, const S*, S*,
                        const Sum<S>&, const Sum<S>*);  // null: the next two do it
  void (*polynomial_backward)(int, const SomaParameters<S>&, const S*, const S*, S*, S*, S*, const Sum<S>*);
  void (*direct_backward)(int, const S*, const S*, const S*, S*, const Sum<S>&);
  void (*branch_backward)(int, int, const BranchParameters<S>&, const BranchRows<S>&, const BranchSums<S>&);
};

template <class P, int A, class S>
static void choose_activation(const Call& call, Loops<S>& loops) {
  if constexpr (A < ACTIVATIONS) {
    if (call.activation != A) return choose_activation<P, A + 1>(call, loops);
    const bool direct = call.fan == call.B;  // `shared`: the direct term is taken once, apart
    loops.branch_forward = direct ? branch_forward<A, true, P, S> : branch_forward<A, false, P, S>;
    if (call.gain || call.offset)
      loops.branch_backward = direct ? branch_backward<A, true, AFFINE, P, S> : branch_backward<A, false, AFFINE, P, S>;
    else if (call.g_alpha || call.g_direct)
      loops.branch_backward = direct ? branch_backward<A, true, DECAY, P, S> : branch_backward<A, false, DECAY, P, S>;
    else
      loops.branch_backward =
          direct ? branch_backward<A, true, STRENGTH, P, S> : branch_backward<A, false, STRENGTH, P, S>;
  }
}

template <int G, class S>
static void choose_surrogate(const Call& call, Loops<S>& loops) {
  if constexpr (G < SURROGATES) {
    if (call.surrogate != G) return choose_surrogate<G + 1>(call, loops);
    loops.surrogate = surrogate_row<G, S>;
  }
}

template <class P, int R, int W, class S>
static void choose_soma(const Call& call, Loops<S>& loops) {
  const bool cubic = call.degree == 3, linear = call.degree == 1;
  loops.polynomial_forward = polynomial_forward<R, W, P, S>;
  loops.soma_forward = linear  ? soma_forward<R, W, 1, P, S>
                       : cubic ? soma_forward<R, W, 3, P, S>
                               : soma_forward<R, W, 0, P, S>;
  if (linear && call.detach) loops.soma_backward = soma_backward<R, W, true, 1, P, S>;
  else if (linear) loops.soma_backward = soma_backward<R, W, false, 1, P, S>;
  else if (cubic && call.detach) loops.soma_backward = soma_backward<R, W, true, 3, P, S>;
  else if (cubic) loops.soma_backward = soma_backward<R, W, false, 3, P, S>;
  loops.fire_backward = call.detach ? fire_backward_row<R, W, true, P, S> : fire_backward_row<R, W, false, P, S>;
  loops.polynomial_backward = polynomial_backward<R, W, P, S>;
}

template <int R, int W, class S>
static void choose_neuron(const Call& call, Loops<S>& loops) {
  const bool fold = call.fan == call.B;
  if (call.activation == IDENTITY)
    loops.neuron_forward = fold ? neuron_forward<IDENTITY, true, R, W, S> : neuron_forward<IDENTITY, false, R, W, S>;
  if (call.activation == RELU)
    loops.neuron_forward = fold ? neuron_forward<RELU, true, R, W, S> : neuron_forward<RELU, false, R, W, S>;
  if (call.activation == LEAKY_RELU)
    loops.neuron_forward =
        fold ? neuron_forward<LEAKY_RELU, true, R, W, S> : neuron_forward<LEAKY_RELU, false, R, W, S>;
}

template <class P, class S>
static void choose(const Call& call, Loops<S>& loops) {
  loops.scale = scale<P, S>;
  loops.direct_backward = direct_backward<P, S>;
  choose_activation<P, 0>(call, loops);
  const int timing = call.timing;
  if (call.reset == RESET_NONE) choose_soma<P, RESET_NONE, AT_ONCE>(call, loops);
  else if (call.reset == RESET_HARD && timing == AT_ONCE) choose_soma<P, RESET_HARD, AT_ONCE>(call, loops);
  else if (call.reset == RESET_HARD && timing == NEXT_STEP) choose_soma<P, RESET_HARD, NEXT_STEP>(call, loops);
  else if (call.reset == RESET_HARD) choose_soma<P, RESET_HARD, AT_ONCE_RETESTED>(call, loops);
  else if (timing == AT_ONCE) choose_soma<P, RESET_SOFT, AT_ONCE>(call, loops);
  else if (timing == NEXT_STEP) choose_soma<P, RESET_SOFT, NEXT_STEP>(call, loops);
  else choose_soma<P, RESET_SOFT, AT_ONCE_RETESTED>(call, loops);
  if constexpr (grouped<P, S>) {  // the usual resets of both hosts
    if (call.degree != 1 || call.B == 0 || call.B % 2) return;
    if (call.reset == RESET_HARD && timing == AT_ONCE) choose_neuron<RESET_HARD, AT_ONCE>(call, loops);
    if (call.reset == RESET_HARD && timing == NEXT_STEP) choose_neuron<RESET_HARD, NEXT_STEP>(call, loops);
    if (call.reset == RESET_SOFT && timing == AT_ONCE) choose_neuron<RESET_SOFT, AT_ONCE>(call, loops);
    if (call.reset == RESET_SOFT && timing == NEXT_STEP) choose_neuron<RESET_SOFT, NEXT_STEP>(call, loops);
  }
}

template <class S>
static Loops<S> choose(const Call& call, bool per_lane) {
  Loops<S> loops = {};
  choose_surrogate<0>(call, loops);
  if (per_lane) choose<Lanes<S>>(call, loops);
  else choose<Uniform<S>>(call, loops);
  return loops;
}
