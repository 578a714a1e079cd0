// A block is 128 Gaussians, whose coefficients come to shared memory row by row, and go back from there as gradients.
#include "gaussian_color_rows.h"

#include "gaussian_color_device.h"

namespace radfield {

constexpr int COLOR_ROWS = 128;  // threads and Gaussians of a block

// The coefficients of a block's Gaussians: rows of an odd number of words, so that lanes read from banks of their own.
template <int BANDS>
struct ColorRows {
  static constexpr int COUNT = 3 * BANDS * BANDS, WIDTH = COUNT | 1;
  float values[COLOR_ROWS * WIDTH];

  RADFIELD_FN float* own() { return values + threadIdx.x * WIDTH; }
};
template <class Struct>
RADFIELD_FN int64_t row_of(const Struct& a, int64_t i) {
  return a.rows ? a.rows[i] : i;
}
RADFIELD_FN int gaussians_of_block(int64_t G) {
  const int64_t left = G - (int64_t)blockIdx.x * COLOR_ROWS;
  return (int)(left < COLOR_ROWS ? left : COLOR_ROWS);
}

// Of those that are drawn.
template <int BANDS, class Struct>
RADFIELD_FN void load_color_rows(const Struct& a, ColorRows<BANDS>& block) {
  constexpr int COUNT = ColorRows<BANDS>::COUNT, WIDTH = ColorRows<BANDS>::WIDTH;
  const int64_t first = (int64_t)blockIdx.x * COLOR_ROWS;
  for (int v = (int)threadIdx.x; v < gaussians_of_block(a.G) * COUNT; v += COLOR_ROWS) {
    const int g = v / COUNT, c = v % COUNT;
    if (a.radius[first + g] > 0.0f) block.values[g * WIDTH + c] = a.coefficients[row_of(a, first + g) * a.S + c];
  }
  __syncthreads();
}

template <class Struct>
RADFIELD_FN void load_mean(const Struct& a, int64_t i, float (&mean)[3]) {
  const float* const from = a.means + 3 * row_of(a, i);
  for (int k = 0; k < 3; ++k) mean[k] = from[k];
}

template <int BANDS>
__global__ void __launch_bounds__(128) gaussian_color_rows_forward(const GaussianColorRowsForward a) {
  SHARED_ARRAY(ColorRows<BANDS>, block, [1]);
  load_color_rows(a, block[0]);
  const int64_t i = thread_number();
  if (i >= a.G) return;
  float mean[3], color[3] = {};
  const float* const own = block[0].own();
  load_mean(a, i, mean);
  if (a.radius[i] > 0.0f) seen_color<BANDS>(mean, a.position, [&](int c, int k) { return own[3 * c + k]; }, color);
  for (int k = 0; k < 3; ++k) a.colors[k * a.G + i] = max(color[k], 0.0f);
}

// Where rows are named: what they do not name.
__global__ void gaussian_color_rows_clear(const GaussianColorRowsBackward a) {
  clear_numbers(a.grad_means, 3 * a.N);
  clear_numbers(a.grad_coefficients, a.S * a.N);
}

template <int BANDS>
__global__ void __launch_bounds__(128) gaussian_color_rows_backward(const GaussianColorRowsBackward a) {
  constexpr int COUNT = ColorRows<BANDS>::COUNT, WIDTH = ColorRows<BANDS>::WIDTH;
  SHARED_ARRAY(ColorRows<BANDS>, block, [1]);
  load_color_rows(a, block[0]);
  const int64_t i = thread_number(), first = (int64_t)blockIdx.x * COLOR_ROWS;
  if (i < a.G) {
    float mean[3], grad[3], grad_mean[3] = {};
    float* const own = block[0].own();
    load_mean(a, i, mean);
    uncut_gradient(a, i, grad);
    auto value = [&](int c, int k) { return own[3 * c + k]; };
    auto store = [&](int c, int k, float x) { own[3 * c + k] = x; };
    if (a.radius[i] > 0.0f) {
      seen_color_gradient<BANDS>(mean, a.position, grad, value, store, grad_mean);
    } else {
      for (int c = 0; c < COUNT; ++c) own[c] = 0.0f;
    }
    for (int k = 0; k < 3; ++k) a.grad_means[3 * row_of(a, i) + k] = grad_mean[k];
  }
  __syncthreads();
  const int width = (int)a.S;
  for (int v = (int)threadIdx.x; v < gaussians_of_block(a.G) * width; v += COLOR_ROWS) {
    const int g = v / width, c = v % width;
    a.grad_coefficients[row_of(a, first + g) * a.S + c] = c < COUNT ? block[0].values[g * WIDTH + c] : 0.0f;
  }
}

}  // namespace radfield
