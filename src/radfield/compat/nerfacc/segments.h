// Running sums and products along rays, and the gradient of products: the maths of one ray. segments.py has the
// equations and the letters.
#pragma once
#include "../../maths.h"

namespace radfield {

struct SegmentScan {
  void* y;
  int64_t y_type;
  const void* x;
  int64_t x_type;
  const int64_t* ray_start;
  int64_t product;
  int64_t exclusive;
  int64_t reverse;
  int64_t M, N;
};
struct SegmentProductBackward {
  void* grad_x;
  int64_t grad_x_type;
  const void* grad_y;
  int64_t grad_y_type;
  const void* x;
  int64_t x_type;
  const int64_t* ray_start;
  int64_t exclusive;
  int64_t M, N;
};

// y[i] for i = first, first + step, ... of `count` samples: what is found before (exclusive) or with x[i].
template <bool PRODUCT, class T>
RADFIELD_FN void scan_segment(T* y, const T* x, int64_t first, int64_t count, int64_t step, bool exclusive) {
  double found = PRODUCT ? 1.0 : 0.0;
  for (int64_t n = 0, i = first; n < count; ++n, i += step) {
    const double before = found, value = (double)x[i];
    found = PRODUCT ? found * value : found + value;
    y[i] = (T)(exclusive ? before : found);
  }
}

// The gradient of a running product, without a division, so that it is right where factors are 0:
// grad_x[k] = prod_(j < k) x[j] * behind[k], behind[k] the sum over later products of their gradient and other factors.
template <class T>
RADFIELD_FN void product_gradient(T* grad_x, const T* grad_y, const T* x, int64_t begin, int64_t end, bool exclusive) {
  scan_segment<true>(grad_x, x, begin, end - begin, 1, true);
  double behind = 0.0;
  for (int64_t k = end - 1; k >= begin; --k) {
    if (!exclusive) behind += (double)grad_y[k];
    grad_x[k] = (T)((double)grad_x[k] * behind);
    if (exclusive) behind = behind * (double)x[k] + (double)grad_y[k];
    else behind *= (double)x[k];
  }
}

}  // namespace radfield
