// Sparse voxels (sparse_voxels.py has the equations and the letters): the corners of a cell as in hash_grid.h, but their
// entries stand in an index table, which has -1 where a vertex has none.
#pragma once
#include "hash_grid.h"

namespace radfield {

struct SparseVoxelsForward {
  void* features;
  int64_t features_type;
  const float* x;
  const void* table;
  int64_t table_type;
  const int64_t* levels;
  const float* scales;
  const float* tangent;
  const int64_t* count;
  const int32_t* index;
  int64_t C, M, D, E, F, L, I;
};
struct SparseVoxelsBackward {
  float* grad_table;
  const void* grad_features;
  int64_t grad_features_type;
  const float* x;
  const int64_t* levels;
  const float* scales;
  const float* tangent;
  const int64_t* count;
  const int32_t* index;
  int64_t E, F, C, M, D, L, I;
};
struct SparseVoxelsBackwardX {
  float* grad_x;
  const void* grad_features;
  int64_t grad_features_type;
  const float* x;
  const void* table;
  int64_t table_type;
  const int64_t* levels;
  const float* scales;
  const float* tangent;
  const int32_t* index;
  int64_t D, M, C, E, F, L, I;
};
struct SparseVoxelsAdam {
  float* parameter;
  float* m;
  float* v;
  bf16* shadow;
  int64_t* bad;
  const void* grad_features;
  int64_t grad_features_type;
  const float* x;
  const int64_t* levels;
  const float* scales;
  const int32_t* index;
  const int64_t* count;
  const double* schedule;
  double rate;
  double beta1;
  double beta2;
  double epsilon;
  double correction2;
  double l2;
  int64_t skip;
  int64_t E, F, C, M, D, L, I;
};

struct SparseVoxelsSmooth {
  float* smoothed;
  const float* table;
  const int32_t* index;
  const int32_t* vertex;
  const int64_t* levels;
  double step;
  int64_t E, F, I, V, L;
};

// The rule of a row of `levels` is 0 as for dense levels: its corner entries are places in the index.
RADFIELD_FN GridLevel voxel_level(const int64_t* levels, const float* scales, int64_t l) {
  const int32_t n = (int32_t)levels[4 * l + 2];
  return {levels[4 * l], n * n * n, n, false, -1, scales[l]};
}

// The entry of a corner, and its weight, from the number that the index has for it.
template <class I>
RADFIELD_FN I voxel_entry(I row) {
  return select(row < 0, I{}, row);
}
template <class F, class I>
RADFIELD_FN F voxel_weight(F weight, I row) {
  return select(row < 0, F{}, weight);
}

// The rows of the up to 6 neighbours of a vertex of n^3; returns how many have one.
RADFIELD_FN int neighbour_rows(int32_t vertex, int32_t n, const int32_t* index, int32_t (&rows)[6]) {
  int count = 0;
  int32_t stride = 1;
  for (int axis = 0; axis < 3; ++axis, stride *= n) {
    const int32_t place = vertex / stride % n;
    for (int side = 0; side < 2; ++side) {
      if (place == (side ? n - 1 : 0)) continue;
      const int32_t row = index[side ? vertex + stride : vertex - stride];
      if (row >= 0) rows[count++] = row;
    }
  }
  return count;
}

// The F values of a row after a step against 1/2 sum over its neighbours of (difference)^2.
template <int F>
RADFIELD_FN void smooth_row(float* out, const float* table, int64_t row, const int32_t (&neighbours)[6], int count, float step) {
  float own[F], sum[F];
  for (int f = 0; f < F; ++f) own[f] = table[row * F + f], sum[f] = 0.0f;
  for (int k = 0; k < count; ++k)
    for (int f = 0; f < F; ++f) sum[f] = sum[f] + (own[f] - table[(int64_t)neighbours[k] * F + f]);
  for (int f = 0; f < F; ++f) out[row * F + f] = fma(-step, sum[f], own[f]);
}

}  // namespace radfield
