// Colours of Gaussians seen from a point (gaussian_color.py): the harmonics are those of the encoding.
#pragma once
#include "../encodings/spherical_harmonics.h"

namespace radfield {

struct GaussianColorForward {
  float* colors;
  const float* means;
  const float* base;
  const float* rest;
  const float* radius;
  const float* position;
  int64_t degree;
  int64_t G, R;
};
struct GaussianColorBackward {
  float* grad_means;
  float* grad_base;
  float* grad_rest;
  const float* grad_colors;
  const float* colors;
  const float* means;
  const float* rest;
  const float* radius;
  const float* position;
  int64_t degree;
  int64_t G, R;
};

constexpr float GAUSSIAN_HARMONIC_0 = 0.28209479177f;

// The unit vector from `position` to `mean`, and 1 / their distance; 0 where they are the same point.
template <class F>
RADFIELD_FN F view_direction(const F (&mean)[3], const float* position, F (&direction)[3]) {
  F squared = F{};
  for (int k = 0; k < 3; ++k) {
    direction[k] = mean[k] - position[k];
    squared = fma(direction[k], direction[k], squared);
  }
  const F inverse = select(squared > 0.0f, 1.0f / sqrt(squared), F{});
  for (int k = 0; k < 3; ++k) direction[k] = direction[k] * inverse;
  return inverse;
}

// The gradient of v / |v|, from that of its result.
template <class F>
RADFIELD_FN void direction_gradient(const F (&direction)[3], F inverse, const F (&grad)[3], F (&out)[3]) {
  F along = F{};
  for (int k = 0; k < 3; ++k) along = fma(grad[k], direction[k], along);
  for (int k = 0; k < 3; ++k) out[k] = (grad[k] - along * direction[k]) * inverse;
}

}  // namespace radfield
