// Hash grid and MLP in one pass, for inference. The maths is that of hash_grid.h and mlp.h.
#pragma once
#include "../maths.h"

namespace radfield {

struct GridMlpForward {
  void* y;
  int64_t y_type;
  const float* x;
  const void* table;
  int64_t table_type;
  const int64_t* levels;
  const float* scales;
  int64_t smoothstep;
  const float* parameters;
  const int64_t* layers;
  float* packed;
  int64_t activation;
  int64_t output_activation;
  int64_t bias;
  int64_t channels;
  int64_t widest;
  int64_t kernel;
  int64_t O, M, D, E, F, L, P, N, Q;
};

}  // namespace radfield
