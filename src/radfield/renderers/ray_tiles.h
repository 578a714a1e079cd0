// Tiles of rays, as tasks: squares of an image where the rays are its pixels row by row, so that neighbours share what
// is in the caches; else rays that follow one another.
#pragma once
#include <string.h>

#include "../cpu/parallel.h"

namespace radfield {
namespace {

// The rays of a tile, by `slot` from 0 on.
struct RayTile {
  int64_t first, across, count, width;

  int64_t ray(int64_t slot) const { return first + slot / across * width + slot % across; }
  // Their part of the streams `from` [3][rays].
  void load(float* const (&to)[3], const float* from, int64_t rays) const {
    for (int64_t slot = 0; slot < count; slot += across)
      for (int k = 0; k < 3; ++k) memcpy(to[k] + slot, from + k * rays + ray(slot), (size_t)(4 * across));
  }
};

// body(tile) for tiles of side * side rays at most; width: of the image, 0 where there is none.
template <class Body>
void for_ray_tiles(int64_t rays, int64_t width, int64_t side, Body body) {
  if (width == 0)
    return parallel_blocks(rays, side * side, [&](int64_t begin, int64_t end) {
      body(RayTile{begin, end - begin, end - begin, 0});
    });
  const int64_t height = rays / width, across = (width + side - 1) / side, down = (height + side - 1) / side;
  parallel_for(across * down, [&](int64_t task) {
    const int64_t row = task / across * side, column = task % across * side;
    const int64_t columns = width - column < side ? width - column : side;
    const int64_t rows = height - row < side ? height - row : side;
    body(RayTile{row * width + column, columns, rows * columns, width});
  });
}

}  // namespace
}  // namespace radfield
