// The lane loops of one call: which of them there are, and how they are chosen.
#pragma once
#include "soma_dendrite/soma_loops.h"

template <class S>
struct Loops {
  void (*direct_forward)(int, const S*, const S*, S*);
  void (*branch_forward)(int, int, const BranchParameters<S>*, const StepRows<S>&);
  // null: the loops for branches, polynomial and soma do it
  void (*neuron_forward)(int, int, const BranchParameters<S>*, const SomaParameters<S>&, const StepRows<S>&);
  void (*polynomial_forward)(int, const SomaParameters<S>&, const S*, S*, S*);
  void (*soma_forward)(int, const SomaParameters<S>&, const S*, const StepRows<S>&);
  void (*surrogate)(int, const S*, const S*, S, S, S*);
  // null: the next two do it
  void (*soma_backward)(int, const SomaParameters<S>&, const SomaRows<S>&, const SomaSums<S>&);
  void (*fire_backward)(int, const SomaParameters<S>&, const SomaRows<S>&, const SomaSums<S>&);
  void (*polynomial_backward)(int, const SomaParameters<S>&, const SomaRows<S>&, S*, S*, const SomaSums<S>&);
  void (*direct_backward)(int, const S*, const S*, const S*, S*, const Sum<S>&);
  void (*branch_backward)(int, int, const BranchParameters<S>&, const BranchRows<S>&, const BranchSums<S>&);
};

template <class P, int A, class S>
static void choose_activation(const Call& call, Loops<S>& loops) {
  if constexpr (A < ACTIVATIONS) {
    if (call.activation != A) return choose_activation<P, A + 1>(call, loops);
    const bool fold = call.fold();
    loops.branch_forward = fold ? branch_forward<A, true, P, S> : branch_forward<A, false, P, S>;
    if (call.parameter[PARAMETER_gain] || call.parameter[PARAMETER_offset])
      loops.branch_backward = fold ? branch_backward<A, true, AFFINE, P, S> : branch_backward<A, false, AFFINE, P, S>;
    else if (call.g_parameter[PARAMETER_alpha] || call.g_parameter[PARAMETER_direct])
      loops.branch_backward = fold ? branch_backward<A, true, DECAY, P, S> : branch_backward<A, false, DECAY, P, S>;
    else
      loops.branch_backward =
          fold ? branch_backward<A, true, STRENGTH, P, S> : branch_backward<A, false, STRENGTH, P, S>;
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
  const bool fold = call.fold();
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
  loops.direct_forward = direct_forward<P, S>;
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
