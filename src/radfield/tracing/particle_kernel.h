// The response of a particle at the squared distance from its centre in its own units (particle_bvh.py: kernels), its
// derivative, and where it has fallen to a given value. F: float or SIMD vector.
#pragma once
#include "../renderers/gaussian_raster.h"

namespace radfield {

// b of exp(-4.5 (d / 3)^b); 0: the linear one, 1 - KERNEL_SLOPE d.
constexpr float KERNEL_SLOPE = 0.329630334487f;
constexpr float LOG2_E = 1.44269504f;

// 4.5 / 3^b
RADFIELD_FN float kernel_scale(int64_t degree) {
  float scale = 4.5f;
  for (int64_t i = 0; i < degree; ++i) scale = scale * (1.0f / 3.0f);
  return scale;
}

// d^b of d^2.
template <class F>
RADFIELD_FN F kernel_power(F square, int64_t degree) {
  if (degree == 2) return square;
  if (degree == 4) return square * square;
  if (degree == 8) return square * square * (square * square);
  const F d = sqrt(square);
  if (degree == 1) return d;
  if (degree == 3) return square * d;
  return square * square * d;  // 5
}

template <class F>
RADFIELD_FN F kernel_response(F square, int64_t degree, float scale) {
  if (degree == 0) return max(F{} + 1.0f - sqrt(square) * KERNEL_SLOPE, F{});
  return exp2_negative(min(kernel_power(square, degree) * (scale * -LOG2_E), F{}));
}

// d response / d square. The floor of d keeps the derivative of d itself finite at the centre.
template <class F>
RADFIELD_FN F kernel_derivative(F square, F response, int64_t degree, float scale) {
  if (degree == 2) return response * -scale;
  if (degree == 4) return response * square * (-2.0f * scale);
  if (degree == 8) return response * square * square * square * (-4.0f * scale);
  const F d = max(sqrt(square), F{} + 1e-12f);
  if (degree == 0) return select(response > 0.0f, F{} - (0.5f * KERNEL_SLOPE) / d, F{});
  if (degree == 1) return response * (-0.5f * scale) / d;
  if (degree == 3) return response * d * (-1.5f * scale);
  return response * square * d * (-2.5f * scale);
}

// The distance at which opacity times response is `least`; opacity > least.
template <class F>
RADFIELD_FN F kernel_radius(F opacity, float least, int64_t degree, float scale) {
  if (degree == 0) return (F{} + 1.0f - least / opacity) * (1.0f / KERNEL_SLOPE);
  const F power = max(log(opacity * (1.0f / least)), F{}) * (1.0f / scale);  // d^b
  if (degree == 1) return power;
  if (degree == 2) return sqrt(power);
  if (degree == 4) return sqrt(sqrt(power));
  if (degree == 8) return sqrt(sqrt(sqrt(power)));
  return exp(log(max(power, F{} + 1e-30f)) * (degree == 3 ? 1.0f / 3 : 0.2f));
}

}  // namespace radfield
