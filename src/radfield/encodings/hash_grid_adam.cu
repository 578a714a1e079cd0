// Adam on the hash grid's table, from the gradients of its features: they are summed by atomics in scratch memory [E F],
// which the step then reads.
#include "hash_grid_adam.h"

#include "../training/adam_device.h"
#include "hash_grid_device.h"

namespace radfield {

__global__ void hash_grid_adam_clear(const HashGridAdam a, float* grad) { clear_table(a, grad); }

// A thread is a sample along x and a level along y.
template <int D, int F, class G>
__global__ void hash_grid_adam_add(const HashGridAdam a, float* grad) {
  const int64_t i = thread_number(), l = blockIdx.y;
  float g[F];
  if (i >= rows_in_use(a.count, a.M) || !read_gradient(g, (const G*)a.grad_features + l * F * a.M + i, a.M)) return;
  const GridLevel level = grid_level(a.levels, a.scales, l);
  const auto cell = cell_of<D>(a.x, a.M, i, level, a.smoothstep);
  spread_to_corners<D, F>(grad + level.offset * F, cell, level, g, [&](int c) { return corner_weight(cell, c); });
}

template <bool SKIP>
__global__ void hash_grid_adam_step(const HashGridAdam a, float* grad) {
  step_table<SKIP>(a, grad);
}

}  // namespace radfield
