// A field of values on a lattice of points (picture_frame.py has the letters): how a value is stored.
#pragma once
#include "../maths.h"

namespace radfield {

struct PictureFrame {
  void* values;
  int64_t values_type;
  int64_t* nanoseconds;
  const float* across;
  const float* down;
  double peak;
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
  int64_t rows, columns, O, E, F, L, P, N, Q;
};

// A value in [0, 1] in steps of 1 / most, rounded to nearest (halves up); NaN is 1.
template <class F>
RADFIELD_FN F quantized(F value, float most) {
  return floor(max(min(value, F{} + 1.0f), F{}) * most + 0.5f);
}

}  // namespace radfield
