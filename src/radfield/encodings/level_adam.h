// One step of Adam on the table of any encoding with a Lookup, level by level: a level's gradient is summed in scratch
// memory, which stays in the cache from level to level, and applied at once. The gradient of the whole table never goes
// to memory and back.
#pragma once
#include "../training/adam.h"
#include "level_loops.h"

namespace radfield {
namespace {

// Sums the gradient of level l and applies it; returns how many entries could not take theirs. Back: the arguments of
// the encoding's backward op.
template <class Lookup, int F, class Back, class Args>
int64_t step_level(const Args& a, const Back& back, int64_t l) {
  const int64_t first = a.levels[4 * l] * F, count = a.levels[4 * l + 1] * F;
  float* grad = zeroed_scratch(4 * count);
  add_gradient<Lookup, F>(back, l, grad);
  AdamStep step{};
  step.parameter = a.parameter + first, step.m = a.m + first, step.v = a.v + first, step.grad = grad;
  step.shadow = a.shadow ? a.shadow + first : nullptr;
  step.rate = a.rate, step.beta1 = a.beta1, step.beta2 = a.beta2, step.epsilon = a.epsilon;
  step.correction2 = a.correction2, step.l2 = a.l2, step.skip = a.skip, step.P = count;
  return adam_range(step, 0, count);  // and clears the gradient
}

// `back` has what differs between encodings; returns the number of entries that could not take their gradient.
template <class Lookup, int F, class Back, class Args>
int64_t step_levels(const Args& a, Back back) {
  back.grad_features = a.grad_features, back.grad_features_type = a.grad_features_type;
  back.x = a.x, back.levels = a.levels, back.M = a.M;
  int64_t bad = 0;
  parallel_for(a.L, [&](int64_t task) {
    const int64_t l = a.L - 1 - task;  // the slowest first
    const int64_t found = step_level<Lookup, F>(a, back, l);
    if (found) __atomic_fetch_add(&bad, found, __ATOMIC_RELAXED);
  });
  return bad;
}

}  // namespace
}  // namespace radfield
