// What the CUDA kernels that read the hash grid share. Only device compilers take this file.
#pragma once
#include "../cuda/device.h"
#include "hash_grid.h"

namespace radfield {

template <int D>
RADFIELD_FN void read_point(float (&x)[D], const float* streams, int64_t M, int64_t i) {
  for (int d = 0; d < D; ++d) x[d] = streams[d * M + i];
}

// The cell of sample i in a level.
template <int D>
RADFIELD_FN GridCell<D, float, int32_t> cell_of(const float* x, int64_t M, int64_t i, const GridLevel& level,
                                                int interpolation) {
  float point[D];
  uint32_t factor[D];
  read_point(point, x, M, i);
  for (int d = 0; d < D; ++d) factor[d] = axis_factor(level, d);
  return locate<D, int32_t>(point, level, factor, interpolation);
}

// sum += the features of the cell's corners, each times weight(corner).
template <int D, int F, class T, class Weight>
RADFIELD_FN void add_corners(float (&sum)[F], const GridCell<D, float, int32_t>& cell, const GridLevel& level,
                             const T* table, Weight weight) {
  float values[F];
#pragma unroll
  for (int c = 0; c < 1 << D; ++c) {
    read_vector(values, table + (int64_t)corner_entry(cell, c, level) * F);
    const float w = weight(c);
    for (int f = 0; f < F; ++f) sum[f] = fma(values[f], w, sum[f]);
  }
}

// The gradients of F features of a sample, M apart; whether any is not 0.
template <int F, class G>
RADFIELD_FN bool read_gradient(float (&g)[F], const G* grad, int64_t M) {
  bool any = false;
  for (int f = 0; f < F; ++f) g[f] = read(grad + f * M), any |= g[f] != 0.0f;
  return any;  // none: a sample behind the end of its ray
}

// table += the gradients g of a sample's features, at each corner's entry times weight(corner).
template <int D, int F, class Sum, class Weight>
RADFIELD_FN void spread_to_corners(Sum* table, const GridCell<D, float, int32_t>& cell, const GridLevel& level,
                                   const float (&g)[F], Weight weight) {
  float added[F];
#pragma unroll
  for (int c = 0; c < 1 << D; ++c) {
    const float w = weight(c);
    for (int f = 0; f < F; ++f) added[f] = g[f] * w;
    add_vector(table + (int64_t)corner_entry(cell, c, level) * F, added);
  }
}

}  // namespace radfield
