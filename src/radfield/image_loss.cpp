// Loops of the image loss. A task is a tile: it filters columns of R rows straight from both images (one load serves R
// outputs), then along the rows, takes the similarity and its three derivatives, filters these along the rows into a
// ring of rows, and from there along the columns into the gradient. All but the images stays in the cache of its core.
// Pixels outside the image count as 0, for the images and for the derivatives (there is no similarity out there).
#include "image_loss.h"

#include <string.h>

#include "cpu/lanes.h"
#include "cpu/parallel.h"

using namespace radfield;

namespace {

constexpr int HALF = 5, RING = 16;   // window half width; rows kept of the filtered derivatives, >= R + 2 HALF
constexpr int R = W == 16 ? 4 : 2;   // rows at once: as many as their sums fit the registers

struct Weights {
  vf w[HALF + 1];  // of offset 0, +-1, ...
  explicit Weights(const float* window) {
    for (int k = 0; k <= HALF; ++k) w[k] = vf{} + window[HALF + k];
  }
};

// A tile, in values (a pixel has C). Lines hold columns x0 - 10 C .. x1 + 10 C - 1.
struct Tile {
  int64_t r0, r1, x0, x1;
  int64_t first, last;  // columns of the lines that lie in the image
  int64_t stride;       // of lines: their length and what whole vectors overrun
  float *lines, *derivatives, *ring;

  Tile(const ImageLoss& a, int64_t t) {
    const int64_t across = (a.W + a.tile_columns - 1) / a.tile_columns, width = a.W * a.C;
    r0 = t / across * a.tile_rows, r1 = min(r0 + a.tile_rows, a.H);
    x0 = t % across * a.tile_columns * a.C, x1 = min(x0 + a.tile_columns * a.C, width);
    first = max(x0 - 2 * HALF * a.C, (int64_t)0), last = min(x1 + 2 * HALF * a.C, width);
    stride = (x1 - x0 + 4 * HALF * a.C + 3 * W - 1) / W * W;
    lines = (float*)scratch((4 * R + 3 + 3 * RING) * stride * 4);
    derivatives = lines + 4 * R * stride, ring = derivatives + 3 * stride;
    memset(lines, 0, (size_t)((4 * R + 3) * stride) * 4);
  }
  static int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
  static int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
  float* line(int field, int r) const { return lines + (field * R + r) * stride; }
  float* ring_row(int field, int64_t row) const { return ring + (field * RING + (row & (RING - 1))) * stride; }
};

// Means along the columns of x, y, x^2 + y^2 and x y, for rows row .. row + R - 1, into the lines.
void filter_columns(const ImageLoss& a, const Tile& tile, const Weights& weights, int64_t row) {
  const int64_t width = a.W * a.C, origin = tile.x0 - 2 * HALF * a.C;
  for_lanes(tile.first, tile.last, [&](int64_t i, int n) RADFIELD_LANES {
    vf sums[4][R] = {};
#pragma GCC unroll 14
    for (int k = -HALF; k < R + HALF; ++k) {
      if (row + k < 0 || row + k >= a.H) continue;
      const vf x = load_n(a.image + (row + k) * width + i, n), y = load_n(a.target + (row + k) * width + i, n);
      const vf fields[4] = {x, y, fma(x, x, y * y), x * y};
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r)
        if (k - r >= -HALF && k - r <= HALF)
          for (int f = 0; f < 4; ++f) sums[f][r] = fma(weights.w[k < r ? r - k : k - r], fields[f], sums[f][r]);
    }
    for (int f = 0; f < 4; ++f)
      for (int r = 0; r < R; ++r) store_n(tile.line(f, r) + i - origin, sums[f][r], n);
  });
}

// The mean along a row around p[0], neighbouring pixels being `step` values apart.
RADFIELD_SIMD vf filter_row(const float* p, int64_t step, const Weights& weights) {
  vf sum = load(p) * weights.w[0];
#pragma GCC unroll 5
  for (int k = 1; k <= HALF; ++k) sum = fma(load(p - k * step) + load(p + k * step), weights.w[k], sum);
  return sum;
}

// The similarity in line r, its sum over the tile's own columns, and (where the gradient is wanted) its derivatives.
vf similarities(const ImageLoss& a, const Tile& tile, const Weights& weights, int r) {
  const int64_t halo = HALF * a.C, own = tile.x1 - tile.x0;
  vf sum = {};
  for (int64_t i = 0; i < own + 2 * halo; i += W) {
    vf mean[4];
    for (int f = 0; f < 4; ++f) mean[f] = filter_row(tile.line(f, r) + halo + i, a.C, weights);
    const Similarity<vf> found = similarity(mean[0], mean[1], mean[2], mean[3]);
    const vi column = lanes() + (int32_t)(i - halo);
    sum = sum + select((vi)(column >= 0) & (vi)(column < (int32_t)own), found.s, vf{});
    if (!a.grad) continue;
    store(tile.derivatives + i, found.p);
    store(tile.derivatives + tile.stride + i, found.q);
    store(tile.derivatives + 2 * tile.stride + i, found.r);
  }
  return sum;
}

// The derivatives of one row, without those outside the image, filtered along the row into the ring.
void filter_derivatives(const ImageLoss& a, const Tile& tile, const Weights& weights, int64_t row) {
  const int64_t halo = HALF * a.C, own = tile.x1 - tile.x0;
  const int64_t before = Tile::max(halo - tile.x0, 0), inside = Tile::min(a.W * a.C - tile.x0 + halo, own + 2 * halo);
  for (int f = 0; f < 3; ++f) {
    float* p = tile.derivatives + f * tile.stride;
    memset(p, 0, (size_t)before * 4);
    memset(p + inside, 0, (size_t)(own + 2 * halo - inside) * 4);
    for (int64_t i = 0; i < own; i += W) store(tile.ring_row(f, row) + i, filter_row(p + halo + i, a.C, weights));
  }
}

// The gradient of rows row .. row + R - 1, from the ring.
void gradient(const ImageLoss& a, const Tile& tile, const Weights& weights, int64_t row) {
  const float per_value = 1.0f / (float)(a.H * a.W * a.C);
  const float l1 = (1.0f - (float)a.ssim_weight) * per_value, ssim = -(float)a.ssim_weight * per_value;
  for_lanes(0, tile.x1 - tile.x0, [&](int64_t i, int n) RADFIELD_LANES {
    vf sums[3][R] = {};
#pragma GCC unroll 14
    for (int k = -HALF; k < R + HALF; ++k)
      for (int f = 0; f < 3; ++f) {
        const vf value = load(tile.ring_row(f, row + k) + i);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r)
          if (k - r >= -HALF && k - r <= HALF) sums[f][r] = fma(weights.w[k < r ? r - k : k - r], value, sums[f][r]);
      }
    for (int r = 0; r < R; ++r) {
      if (row + r < tile.r0 || row + r >= tile.r1) continue;
      const int64_t at = (row + r) * a.W * a.C + tile.x0 + i;
      const vf x = load_n(a.image + at, n), y = load_n(a.target + at, n);
      const vf similar = fma(x + x, sums[0][r], fma(y, sums[1][r], sums[2][r]));
      const vf sign = select(x > y, vf{} + l1, select(x < y, vf{} - l1, vf{}));
      store_n(a.grad + at, fma(similar, vf{} + ssim, sign), n);
    }
  });
}

float absolute_difference(const ImageLoss& a, const Tile& tile) {
  vf sum = {};
  for (int64_t row = tile.r0; row < tile.r1; ++row)
    for_lanes(row * a.W * a.C + tile.x0, row * a.W * a.C + tile.x1, [&](int64_t i, int n) RADFIELD_LANES {
      sum = sum + abs(load_n(a.image + i, n) - load_n(a.target + i, n));
    });
  return total(sum);
}

void tile_loss(const ImageLoss& a, int64_t t) {
  const Tile tile(a, t);
  const Weights weights(a.window);
  const int64_t halo = a.grad ? HALF : 0;
  vf sum = {};
  for (int64_t row = tile.r0 - halo; row < tile.r1 + halo; row += R) {
    filter_columns(a, tile, weights, row);
    for (int r = 0; r < R; ++r) {
      const int64_t at = row + r;
      if (at < 0 || at >= a.H) {
        for (int f = 0; f < 3; ++f) memset(tile.ring_row(f, at), 0, (size_t)tile.stride * 4);
        continue;
      }
      const vf found = similarities(a, tile, weights, r);
      if (at >= tile.r0 && at < tile.r1) sum = sum + found;
      if (a.grad) filter_derivatives(a, tile, weights, at);
    }
    if (a.grad && row + R - HALF > tile.r0) gradient(a, tile, weights, row - HALF);
  }
  a.sums[2 * t] = absolute_difference(a, tile);
  a.sums[2 * t + 1] = total(sum);
}

}  // namespace

RADFIELD_OP(image_loss, ImageLoss) {
  parallel_for(a.T, [&](int64_t t) { tile_loss(a, t); });
}
