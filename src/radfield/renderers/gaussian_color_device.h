// The colour of one Gaussian on CUDA, wherever its coefficients lie: value(c, k) is coefficient c of channel k. Only device
// compilers take this file.
#pragma once
#include "../cuda/device.h"
#include "gaussian_color.h"

namespace radfield {

// Of a Gaussian that is drawn.
template <int BANDS, class Value>
RADFIELD_FN void seen_color(const float (&mean)[3], const float* position, Value value, float (&color)[3]) {
  float direction[3];
  view_direction(mean, position, direction);
  for (int k = 0; k < 3; ++k) color[k] = fma(value(0, k), GAUSSIAN_HARMONIC_0, 0.5f);
  sh_values<BANDS>(direction[0], direction[1], direction[2], 1.0f, 0.0f, [&](int c, float y) {
    for (int k = 0; k < 3 && c > 0; ++k) color[k] = fma(y, value(c, k), color[k]);
  });
}

// From the gradient of its colour that of its mean, and store(c, k, gradient) of its coefficients: after all are read.
template <int BANDS, class Value, class Store>
RADFIELD_FN void seen_color_gradient(const float (&mean)[3], const float* position, const float (&grad)[3], Value value,
                                     Store store, float (&grad_mean)[3]) {
  float direction[3], along[3] = {};
  const float inverse = view_direction(mean, position, direction);
  auto of_value = [&](int c) {
    float sum = 0.0f;
    for (int k = 0; k < 3 && c > 0; ++k) sum = fma(grad[k], value(c, k), sum);
    return sum;
  };
  sh_gradient<BANDS>(direction[0], direction[1], direction[2], 1.0f, 0.0f, 0.0f, 0.0f, of_value, along);
  direction_gradient(direction, inverse, along, grad_mean);
  for (int k = 0; k < 3; ++k) store(0, k, grad[k] * GAUSSIAN_HARMONIC_0);
  sh_values<BANDS>(direction[0], direction[1], direction[2], 1.0f, 0.0f, [&](int c, float y) {
    for (int k = 0; k < 3 && c > 0; ++k) store(c, k, y * grad[k]);
  });
}

// The gradient of Gaussian i's colour before it was cut off at 0: never where it is not drawn.
template <class Struct>
RADFIELD_FN void uncut_gradient(const Struct& a, int64_t i, float (&grad)[3]) {
  for (int k = 0; k < 3; ++k) grad[k] = a.colors[k * a.G + i] > 0.0f ? a.grad_colors[k * a.G + i] : 0.0f;
}

}  // namespace radfield
