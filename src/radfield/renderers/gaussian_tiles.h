// Tiles of Gaussians (gaussian_tiles.py has the words): records, boxes of blocks, and what a tile takes of a box.
#pragma once
#include "../maths.h"

namespace radfield {

struct GaussianPack {
  float* records;
  int32_t* boxes;
  const float* mean2d;
  const float* conic;
  const float* radius;
  const float* opacity;
  const float* colors;
  int64_t width;
  int64_t height;
  int64_t G, C;
};
struct GaussianSort {
  int32_t* order;
  int64_t* drawn;
  int64_t* work;
  const float* depth;
  const int32_t* boxes;
  int64_t G;
};
struct GaussianTilesCount {
  int32_t* tile_start;
  int32_t* cursors;
  int32_t* slot_start;
  int64_t* total;
  const int32_t* order;
  const int32_t* boxes;
  const int64_t* in_use;
  const int64_t* most;
  int64_t drawn;
  int64_t tiles_x;
  int64_t T, B, G;
};
struct GaussianTilesFill {
  int32_t* entries;
  int32_t* position;
  int32_t* cursors;
  const int32_t* slot_start;
  const int32_t* order;
  const int32_t* boxes;
  const int64_t* in_use;
  const int64_t* total;
  int64_t drawn;
  int64_t tiles_x;
  int64_t K, B, T, G;
};

struct GaussianTilesTrim {
  int32_t* entries;
  const int32_t* tile_start;
  const float* records;
  int64_t tiles_x;
  int64_t K, T, G;
};

constexpr int GAUSSIAN_RECORD = 16, GAUSSIAN_TILE = 16, GAUSSIAN_BLOCK = 8;
// where a record has what
constexpr int RECORD_MEAN = 0, RECORD_CONIC = 2, RECORD_OPACITY = 5, RECORD_COLOR = 6;

// The conic in a record: alpha = opacity 2^(e dx^2 + c (dy + k dx)^2), so that the power needs no further factor.
constexpr float HALF_LOG2E = 0.72134752044f;
template <class F>
RADFIELD_FN void scaled_conic(const F (&conic)[3], F (&scaled)[3]) {
  scaled[0] = conic[0] * -HALF_LOG2E, scaled[1] = conic[1], scaled[2] = conic[2] * -HALF_LOG2E;
}

// The blocks [low, high) along one axis of `size` pixels, as low + 65536 high, which hold the centre of a pixel within
// `radius` of `mean`; the slack is for the rounding of both. 0: none.
template <class F>
RADFIELD_FN auto block_range(F mean, F radius, float size) {
  const F reach = fma(radius, F{} + 1.0001f, F{} + 2e-3f);
  const F first = max(F{} - floor(F{} - (mean - reach - 0.5f)), F{});
  const F last = min(floor(mean + reach - 0.5f), F{} + (size - 1));
  const F low = floor(min(first, F{} + size) * (1.0f / GAUSSIAN_BLOCK)), high = floor(max(last, F{} - 8.0f) * (1.0f / GAUSSIAN_BLOCK)) + 1.0f;
  const auto empty = (radius <= 0.0f) | (last < first);
  return select(empty, to_int(F{}), to_int(low) + (to_int(high) << 16));
}

struct BlockBox {
  int32_t x0, x1, y0, y1;  // blocks
};
RADFIELD_FN BlockBox block_box(const int32_t* packed) {
  const uint32_t x = (uint32_t)packed[0], y = (uint32_t)packed[1];
  return {(int32_t)(x & 0xffff), (int32_t)(x >> 16), (int32_t)(y & 0xffff), (int32_t)(y >> 16)};
}
RADFIELD_FN bool is_empty(const BlockBox& b) { return b.x1 <= b.x0 || b.y1 <= b.y0; }

RADFIELD_FN int64_t count_tiles(const BlockBox& b) {
  return is_empty(b) ? 0 : (int64_t)((b.x1 + 1) / 2 - b.x0 / 2) * ((b.y1 + 1) / 2 - b.y0 / 2);
}
RADFIELD_FN int64_t count_tiles(const int32_t* packed) { return count_tiles(block_box(packed)); }

// The bits of the four blocks of tile (tile_x, tile_y) that the box has.
RADFIELD_FN int32_t block_bits(const BlockBox& b, int32_t tile_x, int32_t tile_y) {
  const int32_t x = 2 * tile_x, y = 2 * tile_y;
  const int32_t columns = (b.x0 <= x && x < b.x1 ? 5 : 0) | (b.x0 <= x + 1 && x + 1 < b.x1 ? 10 : 0);
  const int32_t rows = (b.y0 <= y && y < b.y1 ? 3 : 0) | (b.y0 <= y + 1 && y + 1 < b.y1 ? 12 : 0);
  return columns & rows;
}

// Tile j of a box, row by row, clamped to T tiles, and its bits.
struct TileOfBox {
  int64_t tile;
  int32_t bits;
};
RADFIELD_FN TileOfBox tile_at(const BlockBox& b, int64_t j, int64_t tiles_x, int64_t T) {
  const int32_t across = (b.x1 + 1) / 2 - b.x0 / 2, x = b.x0 / 2 + (int32_t)(j % across), y = b.y0 / 2 + (int32_t)(j / across);
  const int64_t tile = y * tiles_x + x;
  return {tile < T ? tile : T - 1, block_bits(b, x, y)};
}

// The largest power (e dx^2 + c (dy + k dx)^2, concave) over dx in [x0, x1], dy in [y0, y1], from the centre: 0 where
// that is inside, else on the side that faces it, by x or by y.
template <class F>
RADFIELD_FN F largest_power(F e, F k, F c, F x0, F x1, F y0, F y1) {
  const F dx = min(max(F{}, x0), x1), dy = min(max(F{}, y0), y1);
  const F along_y = min(max(F{} - k * dx, y0), y1), along_x = min(max(F{} - c * k * dy / fma(c * k, k, e), x0), x1);
  const F off_y = fma(k, dx, along_y), off_x = fma(k, along_x, dy);
  return max(fma(e, dx * dx, c * off_y * off_y), fma(e, along_x * along_x, c * off_x * off_x));
}

// The bits of the blocks of a tile, whose first pixel is at (x, y), between whose pixels' centres a Gaussian of the conic
// in a record stays below 1/255.
template <class F>
RADFIELD_FN auto hidden_blocks(F mean_x, F mean_y, const F (&conic)[3], F opacity, float x, float y) {
  // the power below which alpha is below 1/255, with a slack for rounding
  const F least = log(opacity * 255.0f) * (-2 * HALF_LOG2E) * 1.0001f - 1e-3f;
  const auto none = to_int(F{});
  auto bits = none;
  for (int block = 0; block < 4; ++block) {
    const F x0 = x + (block % 2 * GAUSSIAN_BLOCK + 0.5f) - mean_x, y0 = y + (block / 2 * GAUSSIAN_BLOCK + 0.5f) - mean_y;
    const F power = largest_power(conic[0], conic[1], conic[2], x0, x0 + (GAUSSIAN_BLOCK - 1.0f), y0, y0 + (GAUSSIAN_BLOCK - 1.0f));
    bits = bits | select(power < least, none + (1 << block), none);
  }
  return bits;
}

}  // namespace radfield
