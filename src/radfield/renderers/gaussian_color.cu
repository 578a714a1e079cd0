// A thread is a Gaussian; as gaussian_color.cpp.
#include "gaussian_color.h"

#include "../cuda/device.h"

namespace radfield {

template <class Struct>
RADFIELD_FN float seen_from(const Struct& a, int64_t i, float (&direction)[3]) {
  const float mean[3] = {a.means[i], a.means[a.G + i], a.means[2 * a.G + i]};
  return view_direction(mean, a.position, direction);
}

template <int BANDS>
__global__ void gaussian_color_forward(const GaussianColorForward a) {
  const int64_t i = thread_number();
  if (i >= a.G) return;
  const bool drawn = a.radius[i] > 0.0f;
  float direction[3], color[3] = {};
  if (drawn) {
    seen_from(a, i, direction);
    for (int k = 0; k < 3; ++k) color[k] = fma(a.base[k * a.G + i], GAUSSIAN_HARMONIC_0, 0.5f);
    sh_values<BANDS>(direction[0], direction[1], direction[2], 1.0f, 0.0f, [&](int c, float value) {
      for (int k = 0; k < 3 && c > 0; ++k) color[k] = fma(value, a.rest[((c - 1) * 3 + k) * a.G + i], color[k]);
    });
  }
  for (int k = 0; k < 3; ++k) a.colors[k * a.G + i] = max(color[k], 0.0f);
}

template <int BANDS>
__global__ void gaussian_color_backward(const GaussianColorBackward a) {
  const int64_t i = thread_number();
  if (i >= a.G) return;
  const bool drawn = a.radius[i] > 0.0f;
  float direction[3], grad[3], along[3] = {}, grad_mean[3] = {};
  for (int k = 0; k < 3; ++k) {
    grad[k] = a.colors[k * a.G + i] > 0.0f ? a.grad_colors[k * a.G + i] : 0.0f;  // never where it is not drawn
    a.grad_base[k * a.G + i] = grad[k] * GAUSSIAN_HARMONIC_0;
  }
  if (drawn) {
    const float inverse = seen_from(a, i, direction);
    sh_values<BANDS>(direction[0], direction[1], direction[2], 1.0f, 0.0f, [&](int c, float value) {
      for (int k = 0; k < 3 && c > 0; ++k) a.grad_rest[((c - 1) * 3 + k) * a.G + i] = value * grad[k];
    });
    auto of_value = [&](int c) {
      float sum = 0.0f;
      for (int k = 0; k < 3 && c > 0; ++k) sum = fma(grad[k], a.rest[((c - 1) * 3 + k) * a.G + i], sum);
      return sum;
    };
    sh_gradient<BANDS>(direction[0], direction[1], direction[2], 1.0f, 0.0f, 0.0f, 0.0f, of_value, along);
    direction_gradient(direction, inverse, along, grad_mean);
  } else {
    for (int row = 0; row < a.R; ++row) a.grad_rest[row * a.G + i] = 0.0f;
  }
  for (int k = 0; k < 3; ++k) a.grad_means[k * a.G + i] = grad_mean[k];
}

}  // namespace radfield
