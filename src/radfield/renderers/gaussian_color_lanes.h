// The colours of W Gaussians at a time; a coefficient of a channel is a stream.
#pragma once
#include "../cpu/lanes.h"
#include "../cpu/parallel.h"
#include "gaussian_color.h"

namespace radfield {

constexpr int64_t COLOR_CHUNK = 1024;  // Gaussians per task

// body.run<BANDS>() for the run-time degree 0..4 (Python checks it); a degree has one band more.
template <int BANDS = 1, class Body>
void with_bands(int64_t degree, Body body) {
  if (degree + 1 == BANDS) body.template operator()<BANDS>();
  else if constexpr (BANDS < 5) with_bands<BANDS + 1>(degree, body);
}

template <int BANDS>
RADFIELD_SIMD void color_forward(const GaussianColorForward& a, int64_t i, int n) {
  const vi drawn = load_n(a.radius + i, n) > 0.0f;
  vf mean[3], direction[3], color[3];
  for (int k = 0; k < 3; ++k) {
    mean[k] = load_n(a.means + k * a.G + i, n);
    color[k] = fma(load_n(a.base + k * a.G + i, n), vf{} + GAUSSIAN_HARMONIC_0, vf{} + 0.5f);
  }
  view_direction(mean, a.position, direction);
  if constexpr (BANDS > 1)
    if (any(drawn))
      sh_values<BANDS>(direction[0], direction[1], direction[2], vf{} + 1.0f, vf{}, [&](int c, vf value) {
        if (c == 0) return;
        for (int k = 0; k < 3; ++k) color[k] = fma(value, load_n(a.rest + ((c - 1) * 3 + k) * a.G + i, n), color[k]);
      });
  for (int k = 0; k < 3; ++k) store_n(a.colors + k * a.G + i, select(drawn, max(color[k], vf{}), vf{}), n);
}

template <int BANDS>
RADFIELD_SIMD void color_backward(const GaussianColorBackward& a, int64_t i, int n) {
  const vi drawn = load_n(a.radius + i, n) > 0.0f;
  vf mean[3], direction[3], grad[3], along[3] = {}, grad_mean[3];
  for (int k = 0; k < 3; ++k) {
    mean[k] = load_n(a.means + k * a.G + i, n);
    const vi positive = load_n(a.colors + k * a.G + i, n) > 0.0f;  // never where it is not drawn
    grad[k] = select(positive, load_n(a.grad_colors + k * a.G + i, n), vf{});
    store_n(a.grad_base + k * a.G + i, grad[k] * GAUSSIAN_HARMONIC_0, n);
  }
  const vf inverse = view_direction(mean, a.position, direction);
  if constexpr (BANDS > 1) {
    sh_values<BANDS>(direction[0], direction[1], direction[2], vf{} + 1.0f, vf{}, [&](int c, vf value) {
      if (c == 0) return;
      for (int k = 0; k < 3; ++k) {
        const vf product = value * grad[k];
        store_n(a.grad_rest + ((c - 1) * 3 + k) * a.G + i, select(drawn, product, vf{}), n);
      }
    });
    auto of_value = [&](int c) {
      vf sum = {};
      for (int k = 0; k < 3 && c > 0; ++k) sum = fma(grad[k], load_n(a.rest + ((c - 1) * 3 + k) * a.G + i, n), sum);
      return sum;
    };
    if (any(drawn)) sh_gradient<BANDS>(direction[0], direction[1], direction[2], vf{} + 1.0f, vf{}, vf{}, vf{}, of_value, along);
  }
  direction_gradient(direction, inverse, along, grad_mean);
  for (int k = 0; k < 3; ++k) store_n(a.grad_means + k * a.G + i, select(drawn, grad_mean[k], vf{}), n);
}

}  // namespace radfield
