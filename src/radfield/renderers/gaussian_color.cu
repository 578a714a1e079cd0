// A thread is a Gaussian; as gaussian_color.cpp.
#include "gaussian_color_device.h"

namespace radfield {

template <int BANDS>
__global__ void gaussian_color_forward(const GaussianColorForward a) {
  const int64_t i = thread_number();
  if (i >= a.G) return;
  const float mean[3] = {a.means[i], a.means[a.G + i], a.means[2 * a.G + i]};
  auto value = [&](int c, int k) { return c ? a.rest[((c - 1) * 3 + k) * a.G + i] : a.base[k * a.G + i]; };
  float color[3] = {};
  if (a.radius[i] > 0.0f) seen_color<BANDS>(mean, a.position, value, color);
  for (int k = 0; k < 3; ++k) a.colors[k * a.G + i] = max(color[k], 0.0f);
}

template <int BANDS>
__global__ void gaussian_color_backward(const GaussianColorBackward a) {
  const int64_t i = thread_number();
  if (i >= a.G) return;
  const float mean[3] = {a.means[i], a.means[a.G + i], a.means[2 * a.G + i]};
  float grad[3], grad_mean[3] = {};
  uncut_gradient(a, i, grad);
  auto value = [&](int c, int k) { return a.rest[((c - 1) * 3 + k) * a.G + i]; };
  auto store = [&](int c, int k, float x) { (c ? a.grad_rest + (c - 1) * 3 * a.G : a.grad_base)[k * a.G + i] = x; };
  if (a.radius[i] > 0.0f) {
    seen_color_gradient<BANDS>(mean, a.position, grad, value, store, grad_mean);
  } else {
    for (int c = 0; c < BANDS * BANDS; ++c)
      for (int k = 0; k < 3; ++k) store(c, k, 0.0f);
  }
  for (int k = 0; k < 3; ++k) a.grad_means[k * a.G + i] = grad_mean[k];
}

}  // namespace radfield
