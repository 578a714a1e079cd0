// Structural similarity of one pixel's window, with its derivatives (image_loss.py has the equations and the letters).
#pragma once
#include "maths.h"

namespace radfield {

struct ImageLoss {
  float* sums;
  float* grad;
  const float* image;
  const float* target;
  const float* window;
  int64_t tile_rows;
  int64_t tile_columns;
  double ssim_weight;
  int64_t T, H, W, C;
};

template <class F>
struct Similarity {
  F s;        // the similarity
  F p, q, r;  // d s / d E[x^2], d E[x y], d E[x]
};

// From the window's means of x, of y, of x^2 + y^2 (both variances only occur as their sum) and of x y.
template <class F>
RADFIELD_FN Similarity<F> similarity(F mx, F my, F squares, F product) {
  const F mxy = mx * my, mm = fma(mx, mx, my * my);
  const F a1 = fma(mxy, F{} + 2.0f, F{} + 1e-4f), a2 = fma(product - mxy, F{} + 2.0f, F{} + 9e-4f);
  const F b1 = mm + 1e-4f, b2 = squares - mm + 9e-4f;
  const F inverse = (F{} + 1.0f) / (b1 * b2);
  const F s = a1 * a2 * inverse;
  const F p = F{} - s * b1 * inverse, q = 2.0f * a1 * inverse;
  const F luminance = my * a2 * inverse - mx * s * b2 * inverse;
  return {s, p, q, 2.0f * (luminance - mx * p) - my * q};
}

}  // namespace radfield
