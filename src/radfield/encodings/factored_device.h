// The factors of a point's features in CUDA kernels. Only device compilers take this file.
#pragma once
#include "factored.h"
#include "hash_grid_device.h"

namespace radfield {

// values[f][k]: the features of factor k of product p in level l of L, at the point whose coordinates are x(axis).
template <class Kind, int F, class T, int k = 0, class Args, class Point>
RADFIELD_FN void factor_values(float (&values)[F][Kind::K], const Args& a, Point x, int64_t p, int64_t l, int64_t L) {
  if constexpr (k < Kind::K) {
    constexpr int D = Kind::dimensions(k);
    const GridLevel level = grid_level(a.levels, a.scales, factor_row<Kind>(p, k, l, L));
    float point[D], sum[F] = {};
    uint32_t factor[D];
    for (int d = 0; d < D; ++d) point[d] = x(Kind::axis((int)p, k, d)), factor[d] = axis_factor(level, d);
    const auto cell = locate<D, int32_t>(point, level, factor, LINEAR);
    add_corners<D, F>(sum, cell, level, (const T*)a.table + level.offset * F,
                      [&](int c) { return corner_weight(cell, c); });
    for (int f = 0; f < F; ++f) values[f][k] = sum[f];
    factor_values<Kind, F, T, k + 1>(values, a, x, p, l, L);
  }
}

}  // namespace radfield
