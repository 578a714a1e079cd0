// One step of Adam on a hash grid's table from the gradients of its features and of their derivatives by the position
// (slope_gradients.py). The maths is that of hash_grid.h and training/adam.h.
#pragma once
#include "../training/adam.h"
#include "hash_grid.h"

namespace radfield {

struct SlopeAdam {
  float* parameter;
  float* m;
  float* v;
  bf16* shadow;
  int64_t* bad;
  const void* grad_features;
  int64_t grad_features_type;
  const void* slopes;
  int64_t slopes_type;
  const float* x;
  const float* tangent;
  const int64_t* levels;
  const float* scales;
  int64_t smoothstep;
  const int64_t* count;
  const double* schedule;
  double rate;
  double beta1;
  double beta2;
  double epsilon;
  double correction2;
  double l2;
  int64_t skip;
  int64_t E, F, C, M, D, L;
};

}  // namespace radfield
