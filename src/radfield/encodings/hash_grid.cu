// A thread is a sample along x and a level along y: one launch over all levels, whose blocks run level by level, so
// that one level's entries compete for the cache and not the whole table. An entry's F features are read by one vector
// load and its gradients added by one vector of atomics; so sums of gradients are in no fixed order.
#include "hash_grid.h"

#include "hash_grid_device.h"

namespace radfield {

// TANGENT: the derivative of the features along a.tangent.
template <int D, int F, class T, class Out, bool TANGENT>
__global__ void hash_grid_forward(const HashGridForward a) {
  const int64_t i = thread_number(), l = blockIdx.y;
  if (i >= rows_in_use(a.count, a.M)) return;
  const GridLevel level = grid_level(a.levels, a.scales, l);
  const T* const table = (const T*)a.table + level.offset * F;
  const auto cell = cell_of<D>(a.x, a.M, i, level, a.smoothstep);
  float tangent[D], sum[F] = {};
  if (TANGENT) read_point(tangent, a.tangent, a.M, i);
  add_corners<D, F>(sum, cell, level, table, [&](int c) {
    return TANGENT ? tangent_weight(cell, c, tangent) : corner_weight(cell, c);
  });
  Out* const out = (Out*)a.features + l * F * a.M;
  for (int f = 0; f < F; ++f) write(out + f * a.M + i, sum[f]);
}

// Sum: the type that gradients are summed in.
template <int D, int F, class G, bool TANGENT, class Sum>
__global__ void hash_grid_backward(const HashGridBackward a) {
  const int64_t i = thread_number(), l = blockIdx.y;
  if (i >= rows_in_use(a.count, a.M)) return;
  float g[F], tangent[D];
  if (!read_gradient(g, (const G*)a.grad_features + l * F * a.M + i, a.M)) return;
  const GridLevel level = grid_level(a.levels, a.scales, l);
  const auto cell = cell_of<D>(a.x, a.M, i, level, a.smoothstep);
  if (TANGENT) read_point(tangent, a.tangent, a.M, i);
  spread_to_corners<D, F>((Sum*)a.grad_table + level.offset * F, cell, level, g, [&](int c) {
    return TANGENT ? tangent_weight(cell, c, tangent) : corner_weight(cell, c);
  });
}

// A thread is a sample and goes through all levels: no atomics, sums in one order.
template <int D, int F, class T, class G, bool TANGENT>
__global__ void hash_grid_backward_x(const HashGridBackwardX a) {
  const int64_t i = thread_number();
  if (i >= a.M) return;
  float sum[D] = {}, tangent[D], values[F], g[F];
  if (TANGENT) read_point(tangent, a.tangent, a.M, i);
  for (int64_t l = 0; l < a.L; ++l) {
    const GridLevel level = grid_level(a.levels, a.scales, l);
    const T* const table = (const T*)a.table + level.offset * F;
    const G* const grad = (const G*)a.grad_features + l * F * a.M;
    const auto cell = cell_of<D>(a.x, a.M, i, level, a.smoothstep);
    for (int f = 0; f < F; ++f) g[f] = read(grad + f * a.M + i);
#pragma unroll
    for (int c = 0; c < 1 << D; ++c) {
      read_vector(values, table + (int64_t)corner_entry(cell, c, level) * F);
      float along = values[0] * g[0];
      for (int f = 1; f < F; ++f) along = fma(values[f], g[f], along);
      for (int d = 0; d < D; ++d) {
        const float w = TANGENT ? tangent_weight_derivative(cell, c, d, tangent) : corner_weight_derivative(cell, c, d);
        sum[d] = fma(along, w, sum[d]);
      }
    }
  }
  for (int d = 0; d < D; ++d) {
    const float x = a.x[d * a.M + i];
    a.grad_x[d * a.M + i] = x >= 0.0f && x <= 1.0f ? sum[d] : 0.0f;  // clamped points do not move
  }
}

}  // namespace radfield
