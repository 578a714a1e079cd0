// The features of a hash grid in three dimensions and their derivatives by the position (grid_jacobian.py). The maths of
// a cell is that of hash_grid.h.
#pragma once
#include "hash_grid.h"

namespace radfield {

struct GridJacobianForward {
  void* features;
  int64_t features_type;
  void* jacobian;
  int64_t jacobian_type;
  const float* x;
  const void* table;
  int64_t table_type;
  const int64_t* levels;
  const float* scales;
  int64_t smoothstep;
  const int64_t* count;
  int64_t C, M, J, D, E, F, L;
};
struct GridJacobianPull {
  float* pulled;
  const void* jacobian;
  int64_t jacobian_type;
  const void* values;
  int64_t values_type;
  const int64_t* count;
  int64_t D, M, J, C;
};
struct GridJacobianPush {
  void* pushed;
  int64_t pushed_type;
  const void* jacobian;
  int64_t jacobian_type;
  const float* tangent;
  const int64_t* count;
  int64_t C, M, J, D;
};

// The weights of a cell's 8 corners and their derivatives along the three axes. Clamped points do not move.
template <class F>
struct CornerWeights {
  F w[8], dw[8][3];
};
template <class F, class I>
RADFIELD_FN CornerWeights<F> corner_weights(const GridCell<3, F, I>& cell, const F (&x)[3]) {
  F side[3][2], slope[3][2];
  for (int d = 0; d < 3; ++d) {
    const F moves = select(x[d] >= 0.0f, select(x[d] <= 1.0f, cell.ds[d], F{}), F{});
    side[d][0] = F{} + 1.0f - cell.s[d], side[d][1] = cell.s[d];
    slope[d][0] = F{} - moves, slope[d][1] = moves;
  }
  CornerWeights<F> out;
  for (int c = 0; c < 8; ++c) {
    const int a = c & 1, b = c >> 1 & 1, e = c >> 2;
    const F xy = side[0][a] * side[1][b];
    out.w[c] = xy * side[2][e];
    out.dw[c][0] = slope[0][a] * side[1][b] * side[2][e];
    out.dw[c][1] = slope[1][b] * side[0][a] * side[2][e];
    out.dw[c][2] = slope[2][e] * xy;
  }
  return out;
}

}  // namespace radfield
