// Adam on a hash grid's table, from the gradients of its features and of their derivatives by the position: summed by
// atomics in scratch memory [E F], in no fixed order, which the step then reads.
#include "slope_gradients.h"

#include "../training/adam_device.h"
#include "hash_grid_device.h"

namespace radfield {

__global__ void slope_adam_clear(const SlopeAdam a, float* grad) { clear_table(a, grad); }

// A thread is a sample along x and a level along y. G: the type of both gradients.
template <int F, class G>
__global__ void slope_adam_add(const SlopeAdam a, float* grad) {
  const int64_t i = thread_number(), l = blockIdx.y;
  if (i >= rows_in_use(a.count, a.M)) return;
  float g[F], slopes[F], tangent[3], added[F];
  const bool by_features = read_gradient(g, (const G*)a.grad_features + l * F * a.M + i, a.M);
  const bool by_slopes = read_gradient(slopes, (const G*)a.slopes + l * F * a.M + i, a.M);
  if (!by_features && !by_slopes) return;
  const GridLevel level = grid_level(a.levels, a.scales, l);
  const auto cell = cell_of<3>(a.x, a.M, i, level, a.smoothstep);
  read_point(tangent, a.tangent, a.M, i);
  float* const table = grad + level.offset * F;
#pragma unroll
  for (int c = 0; c < 8; ++c) {
    const float w = corner_weight(cell, c), along = tangent_weight(cell, c, tangent);
    for (int f = 0; f < F; ++f) added[f] = fma(along, slopes[f], w * g[f]);
    add_vector(table + (int64_t)corner_entry(cell, c, level) * F, added);
  }
}

template <bool SKIP>
__global__ void slope_adam_step(const SlopeAdam a, float* grad) {
  step_table<SKIP>(a, grad);
}

}  // namespace radfield
