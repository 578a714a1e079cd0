#include "grid_jacobian.h"

#include "hash_grid_loops.h"

using namespace radfield;

namespace {

constexpr int64_t SAMPLES = 2048;  // per task of the products

template <int F, class T>
void jacobian_level(const GridJacobianForward& a, int64_t l, int64_t begin, int64_t end) {
  const T* table = (const T*)a.table + a.levels[4 * l] * F;
  GridLookup<3>(a, l).specialised([&](const GridLookup<3>& lookup) __attribute__((always_inline)) {
    for (int64_t i = begin; i < end; i += W) {
      const int n = (int)(end - i < W ? end - i : W);
      vf x[3], values[F], sum[F] = {}, slopes[F][3] = {};
      load_point(x, a.x, a.M, i, n);
      const auto cell = lookup.find(x);
      const CornerWeights<vf> weights = corner_weights(cell, x);
      for (int c = 0; c < 8; ++c) {
        load_features<F>(values, table, lookup.entry(cell, c));
        for (int f = 0; f < F; ++f) {
          sum[f] = fma(values[f], weights.w[c], sum[f]);
          for (int d = 0; d < 3; ++d) slopes[f][d] = fma(values[f], weights.dw[c][d], slopes[f][d]);
        }
      }
      for (int f = 0; f < F; ++f) {
        store_stream(a.features, a.features_type, (l * F + f) * a.M + i, sum[f], n);
        for (int d = 0; d < 3; ++d)
          store_stream(a.jacobian, a.jacobian_type, ((l * F + f) * 3 + d) * a.M + i, slopes[f][d], n);
      }
    }
  });
}

}  // namespace

RADFIELD_OP(grid_jacobian_forward, GridJacobianForward) {
  with_features(a.F, [&]<int F>() {
    level_by_level(a.L, a.M, [&](int64_t l, int64_t begin, int64_t end) {
      a.table_type == F32 ? jacobian_level<F, float>(a, l, begin, end) : jacobian_level<F, bf16>(a, l, begin, end);
    });
  });
}

RADFIELD_OP(grid_jacobian_pull, GridJacobianPull) {
  parallel_blocks(a.M, SAMPLES, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += W) {
      const int n = (int)(end - i < W ? end - i : W);
      vf sum[3] = {};
      for (int64_t c = 0; c < a.C; ++c) {
        const vf value = load_stream(a.values, a.values_type, c * a.M + i, n);
        for (int d = 0; d < 3; ++d)
          sum[d] = fma(load_stream(a.jacobian, a.jacobian_type, (3 * c + d) * a.M + i, n), value, sum[d]);
      }
      for (int d = 0; d < 3; ++d) store_n(a.pulled + d * a.M + i, sum[d], n);
    }
  });
}

RADFIELD_OP(grid_jacobian_push, GridJacobianPush) {
  parallel_blocks(a.M, SAMPLES, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += W) {
      const int n = (int)(end - i < W ? end - i : W);
      vf tangent[3];
      load_point(tangent, a.tangent, a.M, i, n);
      for (int64_t c = 0; c < a.C; ++c) {
        vf sum = {};
        for (int d = 0; d < 3; ++d)
          sum = fma(load_stream(a.jacobian, a.jacobian_type, (3 * c + d) * a.M + i, n), tangent[d], sum);
        store_stream(a.pushed, a.pushed_type, c * a.M + i, sum, n);
      }
    }
  });
}
