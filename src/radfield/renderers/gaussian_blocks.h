// The blocks that the rasterisers' loops go over: tiles over threads; within a tile one block of 8 x 8 pixels after
// another, W pixels to a vector, so that what a block needs stays in registers and the first-level cache.
#pragma once
#include "../cpu/lanes.h"
#include "../cpu/parallel.h"
#include "gaussian_tiles.h"

namespace radfield {

constexpr int PIXELS = GAUSSIAN_BLOCK * GAUSSIAN_BLOCK, VECTORS = PIXELS / W;
constexpr int SUMS = 16;  // of a row of `partial`
constexpr int SETS = W < GAUSSIAN_BLOCK ? GAUSSIAN_BLOCK / W : 1;  // vectors differ in their columns only so many ways

// A block's pixels.
struct Block {
  int64_t x, y;  // of the first pixel
  vf px[SETS], py[VECTORS];
};
RADFIELD_SIMD Block make_block(int64_t x, int64_t y) {
  Block b = {x, y, {}, {}};
  for (int v = 0; v < VECTORS; ++v) {
    const vi pixel = lanes() + v * W;
    if (v < SETS) b.px[v] = to_float(pixel % GAUSSIAN_BLOCK) + ((float)x + 0.5f);
    b.py[v] = to_float(pixel / GAUSSIAN_BLOCK) + ((float)y + 0.5f);
  }
  return b;
}

// body(pixel in the block, pixel in the image) for those within the image.
template <class Struct, class Body>
RADFIELD_SIMD void for_pixels(const Struct& a, const Block& b, Body body) {
  for (int64_t y = b.y; y < b.y + GAUSSIAN_BLOCK && y < a.rows; ++y)
    for (int64_t x = b.x; x < b.x + GAUSSIAN_BLOCK && x < a.columns; ++x)
      body((y - b.y) * GAUSSIAN_BLOCK + x - b.x, y * a.columns + x);
}

// The entries of a tile that are in block `bit`, in order: their places in the list.
inline int64_t list_block(const int32_t* entries, int64_t begin, int64_t end, int bit, int32_t* out) {
  int64_t count = 0;
  int64_t k = begin;
  for (; k + W <= end; k += W)
    count += append_lanes(out + count, (int32_t)k, mask_bits(load(entries + k) << (31 - bit)));
  for (; k < end; ++k) {
    out[count] = (int32_t)k;
    count += (entries[k] >> bit) & 1;
  }
  return count;
}

// What a Gaussian is on the pixels of a block.
struct OnBlock {
  float k, c;
  vf dx[SETS], e_dx_dx[SETS], k_dx[SETS];
};
RADFIELD_SIMD OnBlock on_block(const float* record, const Block& block) {
  OnBlock g = {record[RECORD_CONIC + 1], record[RECORD_CONIC + 2], {}, {}, {}};
  for (int s = 0; s < SETS; ++s) {
    g.dx[s] = block.px[s] - record[RECORD_MEAN];
    g.e_dx_dx[s] = g.dx[s] * g.dx[s] * record[RECORD_CONIC];
    g.k_dx[s] = g.dx[s] * g.k;
  }
  return g;
}

template <class Struct>
RADFIELD_SIMD const float* record_of(const Struct& a, const int32_t* list, int64_t i, int64_t count) {
  if (i + 4 < count) __builtin_prefetch(a.records + GAUSSIAN_RECORD * (int64_t)((uint32_t)a.entries[list[i + 4]] >> 4));
  return a.records + GAUSSIAN_RECORD * (int64_t)((uint32_t)a.entries[list[i]] >> 4);
}

// `lane_sums` (cpu/lanes.h) of vectors of which the first USED alone are not 0.
template <int USED, int N>
RADFIELD_SIMD vf used_sums(vf (&v)[N]) {
  if constexpr (N == 1 || USED <= 0) {
    return v[0];
  } else {
    vf half[N / 2] = {};
    for (int i = 0; 2 * i < USED && i < N / 2; ++i) {
      vi even, odd;
      deinterleave((vi)v[2 * i], (vi)v[2 * i + 1], even, odd);
      half[i] = (vf)even + (vf)odd;
    }
    return used_sums<(USED + 1) / 2>(half);
  }
}

// Adds the lanes' sums, of which the first USED are not 0, to a row of `partial`.
template <int USED, int part = 0>
RADFIELD_SIMD void add_sums(float* row, vf (&sums)[SUMS]) {
  if constexpr (part * W < USED) {
    vf vectors[W];
    for (int k = 0; k < W; ++k) vectors[k] = sums[part * W + k];
    store(row + part * W, load(row + part * W) + used_sums<USED - part * W>(vectors));
    add_sums<USED, part + 1>(row, sums);
  }
}

// body(block, list, count) for the blocks of all tiles.
template <class Struct, class Body>
void for_blocks(const Struct& a, Body body) {
  const int64_t tiles_x = (a.columns + GAUSSIAN_TILE - 1) / GAUSSIAN_TILE;
  parallel_for(a.T, [&](int64_t tile) {
    const int64_t begin = a.tile_start[tile], end = a.tile_start[tile + 1];
    int32_t* list = (int32_t*)scratch((end - begin + W) * 4);
    body.begin(begin, end);
    for (int bit = 0; bit < 4; ++bit) {
      const int64_t x = tile % tiles_x * GAUSSIAN_TILE + bit % 2 * GAUSSIAN_BLOCK;
      const int64_t y = tile / tiles_x * GAUSSIAN_TILE + bit / 2 * GAUSSIAN_BLOCK;
      if (x < a.columns && y < a.rows) body.block(make_block(x, y), list, list_block(a.entries, begin, end, bit, list));
    }
  });
}

// body.run<C>() for the run-time number of channels 1..4 (Python checks it).
template <int C = 1, class Body>
void with_channels(int64_t channels, Body body) {
  if (channels == C) body.template operator()<C>();
  else if constexpr (C < 4) with_channels<C + 1>(channels, body);
}

}  // namespace radfield
