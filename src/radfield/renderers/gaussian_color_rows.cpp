// W Gaussians at a time are turned into streams, which stay in the first cache, for the loops of gaussian_color_lanes.h.
#include "gaussian_color_rows.h"

#include "../cpu/rows.h"
#include "gaussian_color_lanes.h"

using namespace radfield;

namespace {

constexpr int64_t padded(int64_t count) { return (count + W - 1) / W * W; }

// Streams of W Gaussians: their means and coefficients.
template <int BANDS>
struct Block {
  static constexpr int64_t COUNT = 3 * BANDS * BANDS;
  alignas(64) float means[3 * W];
  alignas(64) float coefficients[padded(COUNT) * W];

  template <class Args>
  RADFIELD_SIMD void load(const Args& a, const RowsOf& row) {
    vf mean[3];
    load_columns(a.means, row, mean);
    for (int k = 0; k < 3; ++k) store(means + k * W, mean[k]);
    load_streams(a.coefficients, a.S, row, COUNT, coefficients);
  }
};

// Not inlined, so that these stand once.
template <int BANDS>
void rows_forward(const GaussianColorRowsForward& a, int64_t i, int n) {
  Block<BANDS> block;
  alignas(64) float colors[3 * W];
  block.load(a, {a.rows, i, n});
  color_forward<BANDS>(
      {colors, block.means, block.coefficients, block.coefficients + 3 * W, a.radius + i, a.position, a.degree, W, 0}, 0, n);
  for (int k = 0; k < 3; ++k) store_n(a.colors + k * a.G + i, load(colors + k * W), n);
}

template <int BANDS>
void rows_backward(const GaussianColorRowsBackward& a, int64_t i, int n) {
  Block<BANDS> block, grads;
  alignas(64) float colors[3 * W], grad_colors[3 * W];
  const RowsOf row = {a.rows, i, n};
  block.load(a, row);
  for (int k = 0; k < 3; ++k) {
    store(colors + k * W, load_n(a.colors + k * a.G + i, n));
    store(grad_colors + k * W, load_n(a.grad_colors + k * a.G + i, n));
  }
  color_backward<BANDS>({grads.means, grads.coefficients, grads.coefficients + 3 * W, grad_colors, colors, block.means,
                         block.coefficients + 3 * W, a.radius + i, a.position, a.degree, W, 0}, 0, n);
  vf mean[3];
  for (int k = 0; k < 3; ++k) mean[k] = load(grads.means + k * W);
  store_columns(a.grad_means, row, vi{} - 1, mean);
  store_streams(a.grad_coefficients, a.S, row, Block<BANDS>::COUNT, grads.coefficients);
  clear_between(row, a.G, a.N, [&](int64_t first, int64_t end) {
    memset(a.grad_means + first * 3, 0, 12 * (size_t)(end - first));
    memset(a.grad_coefficients + first * a.S, 0, 4 * (size_t)((end - first) * a.S));
  });
}

}  // namespace

RADFIELD_OP(gaussian_color_rows_forward, GaussianColorRowsForward) {
  with_bands(a.degree, [&]<int BANDS>() {
    parallel_blocks(a.G, COLOR_CHUNK, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i += W) rows_forward<BANDS>(a, i, (int)(end - i < W ? end - i : W));
    });
  });
}

RADFIELD_OP(gaussian_color_rows_backward, GaussianColorRowsBackward) {
  with_bands(a.degree, [&]<int BANDS>() {
    parallel_blocks(a.G, COLOR_CHUNK, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i += W) rows_backward<BANDS>(a, i, (int)(end - i < W ? end - i : W));
    });
  });
}
