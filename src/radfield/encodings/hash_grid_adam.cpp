// A level's gradient is summed in scratch memory, which stays in the cache from level to level, and applied at once: the
// gradient of the whole table never goes to memory and back.
#include "hash_grid_adam.h"

#include "hash_grid_loops.h"

using namespace radfield;

namespace {

// Sums the gradient of level l and applies it; returns how many entries could not take theirs.
template <int D, int F, class G>
int64_t step_level(const HashGridAdam& a, int64_t l) {
  const GridLevel level = grid_level(a.levels, a.scales, l);
  const int64_t first = level.offset * F, count = (int64_t)level.size * F;
  float* grad = zeroed_scratch(4 * count);
  HashGridBackward back{};
  back.grad_features = a.grad_features, back.grad_features_type = a.grad_features_type;
  back.x = a.x, back.levels = a.levels, back.scales = a.scales, back.smoothstep = a.smoothstep, back.M = a.M;
  add_gradient<D, F, G>(back, l, grad);
  AdamStep step{};
  step.parameter = a.parameter + first, step.m = a.m + first, step.v = a.v + first, step.grad = grad;
  step.shadow = a.shadow ? a.shadow + first : nullptr;
  step.rate = a.rate, step.beta1 = a.beta1, step.beta2 = a.beta2, step.epsilon = a.epsilon;
  step.correction2 = a.correction2, step.l2 = a.l2, step.skip = a.skip, step.P = count;
  return adam_range(step, 0, count);  // and clears the gradient
}

}  // namespace

RADFIELD_OP(hash_grid_adam, HashGridAdam) {
  int64_t bad = 0;
  with_sizes(a.D, a.F, [&]<int D, int F>() {
    parallel_for(a.L, [&](int64_t task) {
      const int64_t l = a.L - 1 - task;  // the slowest first
      const int64_t found = a.grad_features_type == F32 ? step_level<D, F, float>(a, l) : step_level<D, F, bf16>(a, l);
      if (found) __atomic_fetch_add(&bad, found, __ATOMIC_RELAXED);
    });
  });
  *a.bad = bad;
}
