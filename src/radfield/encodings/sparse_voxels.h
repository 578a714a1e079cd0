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
  double rate;
  double beta1;
  double beta2;
  double epsilon;
  double correction2;
  double l2;
  int64_t skip;
  int64_t E, F, C, M, D, L, I;
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

}  // namespace radfield
