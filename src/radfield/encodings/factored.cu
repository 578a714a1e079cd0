// A thread is a sample along x, and a product of a level along y.
#include "factored.h"

#include "hash_grid_device.h"

namespace radfield {

// values[f][k]: the features of factor k of product p in level l, for sample i.
template <class Kind, int F, class T, int k, class Args>
RADFIELD_FN void factor_values(float (&values)[F][Kind::K], const Args& a, int64_t i, int64_t p, int64_t l, int64_t L) {
  if constexpr (k < Kind::K) {
    constexpr int D = Kind::dimensions(k);
    const GridLevel level = grid_level(a.levels, a.scales, factor_row<Kind>(p, k, l, L));
    float point[D], sum[F] = {};
    uint32_t factor[D];
    for (int d = 0; d < D; ++d)
      point[d] = a.x[Kind::axis((int)p, k, d) * a.M + i], factor[d] = axis_factor(level, d);
    const auto cell = locate<D, int32_t>(point, level, factor, LINEAR);
    add_corners<D, F>(sum, cell, level, (const T*)a.table + level.offset * F,
                      [&](int c) { return corner_weight(cell, c); });
    for (int f = 0; f < F; ++f) values[f][k] = sum[f];
    factor_values<Kind, F, T, k + 1>(values, a, i, p, l, L);
  }
}

template <class Kind, int F, class T>
__global__ void factored_forward(const FactoredForward a) {
  const int64_t i = thread_number(), at = blockIdx.y, L = gridDim.y / Kind::P;
  if (i >= a.M) return;
  float values[F][Kind::K];
  factor_values<Kind, F, T, 0>(values, a, i, at / L, at % L, L);
  for (int f = 0; f < F; ++f) write((T*)a.features + (at * F + f) * a.M + i, product(values[f]));
}

template <class Kind, int F, class T>
__global__ void factored_backward(const FactoredBackward a) {
  const int64_t i = thread_number(), at = blockIdx.y, L = gridDim.y / Kind::P;
  if (i >= a.M) return;
  float values[F][Kind::K];
  factor_values<Kind, F, T, 0>(values, a, i, at / L, at % L, L);
  for (int k = 0; k < Kind::K; ++k) {
    T* const out = (T*)a.grad_factors + factor_row<Kind>(at / L, k, at % L, L) * F * a.M + i;
    for (int f = 0; f < F; ++f) {
      const float g = read((const T*)a.grad_features + (at * F + f) * a.M + i);
      write(out + f * a.M, g * product_but(values[f], k));
    }
  }
}

}  // namespace radfield
