// A thread is a sample along x and a level along y, as in hash_grid.cu; corners without an entry are passed over.
#include "sparse_voxels.h"

#include "../training/adam_device.h"
#include "hash_grid_device.h"

namespace radfield {

// The row of corner c of a cell.
RADFIELD_FN int32_t corner_row(const GridCell<3, float, int32_t>& cell, int c, const GridLevel& level, const int32_t* index) {
  return index[corner_entry(cell, c, level)];
}

// TANGENT: the derivative of the features along a.tangent.
template <int F, class T, class Out, bool TANGENT>
__global__ void sparse_voxels_forward(const SparseVoxelsForward a) {
  const int64_t i = thread_number(), l = blockIdx.y;
  if (i >= rows_in_use(a.count, a.M)) return;
  const GridLevel level = voxel_level(a.levels, a.scales, l);
  const T* const table = (const T*)a.table + level.offset * F;
  const auto cell = cell_of<3>(a.x, a.M, i, level, LINEAR);
  float tangent[3], sum[F] = {}, values[F];
  if (TANGENT) read_point(tangent, a.tangent, a.M, i);
#pragma unroll
  for (int c = 0; c < 8; ++c) {
    const int32_t row = corner_row(cell, c, level, a.index);
    if (row < 0) continue;
    read_vector(values, table + (int64_t)row * F);
    const float w = TANGENT ? tangent_weight(cell, c, tangent) : corner_weight(cell, c);
    for (int f = 0; f < F; ++f) sum[f] = fma(values[f], w, sum[f]);
  }
  Out* const out = (Out*)a.features + l * F * a.M;
  for (int f = 0; f < F; ++f) write(out + f * a.M + i, sum[f]);
}

// grad += the gradients g of sample i's features in level l.
template <int F, bool TANGENT, class Args>
RADFIELD_FN void spread_to_voxels(const Args& a, int64_t l, int64_t i, const float (&g)[F], const float* tangents, float* grad) {
  float tangent[3], added[F];
  const GridLevel level = voxel_level(a.levels, a.scales, l);
  const auto cell = cell_of<3>(a.x, a.M, i, level, LINEAR);
  if (TANGENT) read_point(tangent, tangents, a.M, i);
#pragma unroll
  for (int c = 0; c < 8; ++c) {
    const int32_t row = corner_row(cell, c, level, a.index);
    if (row < 0) continue;
    const float w = TANGENT ? tangent_weight(cell, c, tangent) : corner_weight(cell, c);
    for (int f = 0; f < F; ++f) added[f] = g[f] * w;
    add_vector(grad + (level.offset + row) * F, added);
  }
}

template <int F, class G, bool TANGENT>
__global__ void sparse_voxels_backward(const SparseVoxelsBackward a) {
  const int64_t i = thread_number(), l = blockIdx.y;
  float g[F];
  if (i >= rows_in_use(a.count, a.M) || !read_gradient(g, (const G*)a.grad_features + l * F * a.M + i, a.M)) return;
  spread_to_voxels<F, TANGENT>(a, l, i, g, a.tangent, a.grad_table);
}

// A thread is a sample and goes through all levels: no atomics, sums in one order.
template <int F, class T, class G, bool TANGENT>
__global__ void sparse_voxels_backward_x(const SparseVoxelsBackwardX a) {
  const int64_t i = thread_number();
  if (i >= a.M) return;
  float sum[3] = {}, tangent[3], values[F], g[F];
  if (TANGENT) read_point(tangent, a.tangent, a.M, i);
  for (int64_t l = 0; l < a.L; ++l) {
    const GridLevel level = voxel_level(a.levels, a.scales, l);
    const T* const table = (const T*)a.table + level.offset * F;
    const G* const grad = (const G*)a.grad_features + l * F * a.M;
    const auto cell = cell_of<3>(a.x, a.M, i, level, LINEAR);
    for (int f = 0; f < F; ++f) g[f] = read(grad + f * a.M + i);
#pragma unroll
    for (int c = 0; c < 8; ++c) {
      const int32_t row = corner_row(cell, c, level, a.index);
      if (row < 0) continue;
      read_vector(values, table + (int64_t)row * F);
      float along = values[0] * g[0];
      for (int f = 1; f < F; ++f) along = fma(values[f], g[f], along);
      for (int d = 0; d < 3; ++d) {
        const float w = TANGENT ? tangent_weight_derivative(cell, c, d, tangent) : corner_weight_derivative(cell, c, d);
        sum[d] = fma(along, w, sum[d]);
      }
    }
  }
  for (int d = 0; d < 3; ++d) {
    const float x = a.x[d * a.M + i];
    a.grad_x[d * a.M + i] = x >= 0.0f && x <= 1.0f ? sum[d] : 0.0f;  // clamped points do not move
  }
}

// Adam on the table, as hash_grid_adam.cu.
__global__ void sparse_voxels_adam_clear(const SparseVoxelsAdam a, float* grad) { clear_table(a, grad); }

template <int D, int F, class G>
__global__ void sparse_voxels_adam_add(const SparseVoxelsAdam a, float* grad) {
  const int64_t i = thread_number(), l = blockIdx.y;
  float g[F];
  if (i >= rows_in_use(a.count, a.M) || !read_gradient(g, (const G*)a.grad_features + l * F * a.M + i, a.M)) return;
  spread_to_voxels<F, false>(a, l, i, g, nullptr, grad);
}

template <bool SKIP>
__global__ void sparse_voxels_adam_step(const SparseVoxelsAdam a, float* grad) {
  step_table<SKIP>(a, grad);
}

// A thread is a row along x and a block of values along y.
template <int F>
__global__ void sparse_voxels_smooth(const SparseVoxelsSmooth a) {
  const int64_t row = thread_number(), offset = a.levels[4 * blockIdx.y] * F;
  if (row >= a.V) return;
  int32_t rows[6] = {};
  const int count = a.vertex[row] < 0 ? 0 : neighbour_rows(a.vertex[row], (int32_t)a.levels[2], a.index, rows);
  smooth_row<F>(a.smoothed + offset, a.table + offset, row, rows, count, (float)a.step);
}

}  // namespace radfield
