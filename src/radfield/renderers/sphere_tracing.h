// Sphere tracing (sphere_tracing.py has the equations and the letters): the steps of one ray. F: float or SIMD vector, I:
// its integers.
#pragma once
#include "../geometry.h"

namespace radfield {

struct SphereTrace {
  float* color;
  float* opacity;
  float* depth;
  int64_t* nanoseconds;
  const float* origins;
  const float* directions;
  const float* free;
  const float* box;
  const float* crop;
  const float* background;
  const float* albedo;
  const float* corners;
  double level;
  double relaxed;
  double hit;
  double normal_step;
  int64_t most_steps;
  int64_t free_steps;
  int64_t cells;
  int64_t width;
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
  int64_t R, K, E, F, L, P, N, Q;
};

// The number of the cell of x in [0, 1]^3, x slowest.
template <class I, class F>
RADFIELD_FN I cell_of(const F (&x)[3], int cells) {
  I number = I{};
  for (int k = 0; k < 3; ++k) {
    const I i = to_int(x[k] * (float)cells);
    number = number * cells + select(i < 0, I{}, select(i > cells - 1, I{} + (cells - 1), i));
  }
  return number;
}

// How far x is outside a box along the axis where that is most; negative inside.
template <class F>
RADFIELD_FN F outside_box(const F (&x)[3], const float* low, const float* high) {
  F most = x[0] - high[0];
  for (int k = 0; k < 3; ++k) most = max(most, max(x[k] - high[k], low[k] - x[k]));
  return most;
}

// How bright a surface is under a light at the camera, and a little from everywhere; either way round.
template <class F>
RADFIELD_FN F light_from_camera(const F (&gradient)[3], const F (&d)[3]) {
  F along = {}, length = {};
  for (int k = 0; k < 3; ++k) along = fma(gradient[k], d[k], along), length = fma(gradient[k], gradient[k], length);
  return 0.1f + 0.9f * abs(along) / max(sqrt(length), F{} + 1e-12f);
}

}  // namespace radfield
