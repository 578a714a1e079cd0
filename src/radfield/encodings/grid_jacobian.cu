// Features and Jacobian: a thread is a sample along x and a level along y, as in hash_grid.cu. Products with the
// Jacobian, which stream it once: a thread is a sample.
#include "grid_jacobian.h"

#include "hash_grid_device.h"

namespace radfield {

// Out: the type of features and Jacobian.
template <int F, class T, class Out>
__global__ void grid_jacobian_forward(const GridJacobianForward a) {
  const int64_t i = thread_number(), l = blockIdx.y;
  if (i >= rows_in_use(a.count, a.M)) return;
  const GridLevel level = grid_level(a.levels, a.scales, l);
  const T* const table = (const T*)a.table + level.offset * F;
  const auto cell = cell_of<3>(a.x, a.M, i, level, a.smoothstep);
  float x[3], values[F], sum[F] = {}, slopes[F][3] = {};
  read_point(x, a.x, a.M, i);
  const CornerWeights<float> weights = corner_weights(cell, x);
#pragma unroll
  for (int c = 0; c < 8; ++c) {
    read_vector(values, table + (int64_t)corner_entry(cell, c, level) * F);
    for (int f = 0; f < F; ++f) {
      sum[f] = fma(values[f], weights.w[c], sum[f]);
      for (int d = 0; d < 3; ++d) slopes[f][d] = fma(values[f], weights.dw[c][d], slopes[f][d]);
    }
  }
  Out *const features = (Out*)a.features + l * F * a.M + i, *const jacobian = (Out*)a.jacobian + 3 * l * F * a.M + i;
  for (int f = 0; f < F; ++f) {
    write(features + f * a.M, sum[f]);
    for (int d = 0; d < 3; ++d) write(jacobian + (3 * f + d) * a.M, slopes[f][d]);
  }
}

template <class J, class T>
__global__ void grid_jacobian_pull(const GridJacobianPull a) {
  const int64_t i = thread_number();
  if (i >= rows_in_use(a.count, a.M)) return;
  float sum[3] = {};
  for (int64_t c = 0; c < a.C; ++c) {
    const float value = read((const T*)a.values + c * a.M + i);
    const J* const row = (const J*)a.jacobian + 3 * c * a.M + i;
    for (int d = 0; d < 3; ++d) sum[d] = fma(read(row + d * a.M), value, sum[d]);
  }
  for (int d = 0; d < 3; ++d) a.pulled[d * a.M + i] = sum[d];
}

template <class J, class Out>
__global__ void grid_jacobian_push(const GridJacobianPush a) {
  const int64_t i = thread_number();
  if (i >= rows_in_use(a.count, a.M)) return;
  float tangent[3];
  read_point(tangent, a.tangent, a.M, i);
  for (int64_t c = 0; c < a.C; ++c) {
    const J* const row = (const J*)a.jacobian + 3 * c * a.M + i;
    float sum = 0.0f;
    for (int d = 0; d < 3; ++d) sum = fma(read(row + d * a.M), tangent[d], sum);
    write((Out*)a.pushed + c * a.M + i, sum);
  }
}

}  // namespace radfield
