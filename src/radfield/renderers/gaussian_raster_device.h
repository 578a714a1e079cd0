// The rasterisers' walks along the list of a tile. A block is a tile, a thread a pixel; two warps are a block of 8 x 8
// pixels and pass over the entries that do not reach it. Records come to shared memory in batches, VECTORS float4 of each.
#pragma once
#include "../cuda/device.h"
#include "gaussian_raster.h"

namespace radfield {

constexpr int RASTER_THREADS = GAUSSIAN_TILE * GAUSSIAN_TILE, RASTER_WARPS = RASTER_THREADS / WARP;
constexpr int RASTER_BATCH = 32;  // entries at a time in the backward pass

// The part of a record that is in use.
template <int VECTORS>
struct alignas(16) SharedRecord {
  float values[4 * VECTORS];
};
template <int VECTORS, class Struct>
RADFIELD_FN void fetch(const Struct& a, int32_t entry, int part, SharedRecord<VECTORS>& to) {
  const float* const record = a.records + GAUSSIAN_RECORD * (int64_t)((uint32_t)entry >> 4);
  ((float4*)to.values)[part] = ((const float4*)record)[part];
}

// This thread's pixel.
struct TilePixel {
  int block;   // of the tile's four
  float x, y;  // its centre
  bool inside;
  int64_t at;
};
template <class Struct>
RADFIELD_FN TilePixel tile_pixel(const Struct& a) {
  const int64_t tiles_x = (a.columns + GAUSSIAN_TILE - 1) / GAUSSIAN_TILE, tile = blockIdx.x;
  const int block = (int)threadIdx.x / (GAUSSIAN_BLOCK * GAUSSIAN_BLOCK), p = (int)threadIdx.x % (GAUSSIAN_BLOCK * GAUSSIAN_BLOCK);
  const int64_t x = tile % tiles_x * GAUSSIAN_TILE + block % 2 * GAUSSIAN_BLOCK + p % GAUSSIAN_BLOCK;
  const int64_t y = tile / tiles_x * GAUSSIAN_TILE + block / 2 * GAUSSIAN_BLOCK + p / GAUSSIAN_BLOCK;
  return {block, (float)x + 0.5f, (float)y + 0.5f, x < a.columns && y < a.rows, y * a.columns + x};
}

// body(records, entries, first, n) for the entries of the tile from `first` on, n at a time, nearest first, while open() of
// any thread.
template <int VECTORS, class Struct, class Open, class Body>
RADFIELD_FN void for_batches(const Struct& a, Open open, Body body) {
  SHARED_ARRAY(SharedRecord<VECTORS>, records, [RASTER_THREADS]);
  SHARED_ARRAY(int32_t, entries, [RASTER_THREADS]);
  const int64_t end = a.tile_start[blockIdx.x + 1];
  for (int64_t first = a.tile_start[blockIdx.x]; first < end; first += RASTER_THREADS) {
    if (!__syncthreads_or(open())) break;  // also: the batch before is read
    const int n = end - first < RASTER_THREADS ? (int)(end - first) : RASTER_THREADS, thread = (int)threadIdx.x;
    if (thread < n) {
      const int32_t entry = a.entries[first + thread];
      entries[thread] = entry;
      for (int part = 0; part < VECTORS; ++part) fetch(a, entry, part, records[thread]);
    }
    __syncthreads();
    body(records, entries, (int32_t)first, n);
  }
}
// body(record, k) for each entry k that reaches the pixel's block, nearest first, while open().
template <int VECTORS, class Struct, class Open, class Body>
RADFIELD_FN void front_to_back(const Struct& a, const TilePixel& pixel, Open open, Body body) {
  for_batches<VECTORS>(a, open, [&](const auto& records, const auto& entries, int32_t first, int n) {
    for (int i = 0; i < n && open(); ++i)
      if (entries[i] >> pixel.block & 1) body(records[i].values, first + i);
  });
}

// The sum over the warp of each of 16 values: of value l / 2 in lane l. At each step half of the values go over.
template <int N>
RADFIELD_FN float sums_in_lanes(const float (&values)[N]) {
  if constexpr (N == 1) {
    return values[0] + __shfl_xor_sync(FULL, values[0], 1);
  } else {
    const bool upper = lane_number() & N;
    float half[N / 2];
#pragma unroll
    for (int k = 0; k < N / 2; ++k) {
      const float kept = upper ? values[k + N / 2] : values[k], given = upper ? values[k] : values[k + N / 2];
      half[k] = kept + __shfl_xor_sync(FULL, given, N);
    }
    return sums_in_lanes(half);
  }
}

// The largest of `last` over the warp; over the block, with `shared` for its warps.
RADFIELD_FN int32_t warp_last(int32_t last) {
  for (int d = WARP / 2; d; d >>= 1) {
    const int32_t other = __shfl_xor_sync(FULL, last, d);
    last = other > last ? other : last;
  }
  return last;
}
RADFIELD_FN int32_t block_last(int32_t of_warp, int32_t* shared) {
  if (lane_number() == 0) shared[threadIdx.x / WARP] = of_warp;
  __syncthreads();
  int32_t last = -1;
  for (int w = 0; w < RASTER_WARPS; ++w) last = shared[w] > last ? shared[w] : last;
  return last;
}

// The rows of n entries from `first` on: sums over the warps that `found` them, in their order.
template <class Struct>
RADFIELD_FN void write_rows(const Struct& a, int64_t first, int n, const float (&sums)[RASTER_WARPS][RASTER_BATCH][RASTER_SUMS],
                            const uint32_t* found) {
  for (int v = (int)threadIdx.x; v < n * RASTER_SUMS; v += RASTER_THREADS) {
    const int i = v / RASTER_SUMS, j = v % RASTER_SUMS;
    float sum = 0.0f;
    for (int w = 0; w < RASTER_WARPS; ++w)
      if (found[w] >> i & 1) sum = sum + sums[w][i][j];
    a.partial[RASTER_SUMS * first + v] = sum;
  }
}

// Clears the rows of entries `begin` to `end`, by all threads.
template <class Struct>
RADFIELD_FN void clear_rows(const Struct& a, int64_t begin, int64_t end) {
  for (int64_t i = RASTER_SUMS * begin + threadIdx.x; i < RASTER_SUMS * end; i += RASTER_THREADS) a.partial[i] = 0.0f;
}

// Writes the rows of n entries from `first` on, asked in that order or from the last one (STEP: 1 or -1). weight =
// body(record, k, values): what entry k has of the pixel, and its weight there; warps pass over what does not reach(k).
template <int VECTORS, int STEP, class Struct, class Reach, class Body>
RADFIELD_FN void rows_of_batch(const Struct& a, const TilePixel& pixel, int64_t first, int n, Reach reach, Body body) {
  SHARED_ARRAY(SharedRecord<VECTORS>, records, [RASTER_BATCH]);
  SHARED_ARRAY(int32_t, bits, [RASTER_BATCH]);
  SHARED_ARRAY(float, sums, [RASTER_WARPS][RASTER_BATCH][RASTER_SUMS]);
  SHARED_ARRAY(uint32_t, found, [RASTER_WARPS]);
  const int thread = (int)threadIdx.x, warp = thread / WARP;
  if (thread < n * VECTORS) {
    const int i = thread / VECTORS, part = thread % VECTORS;
    const int32_t entry = a.entries[first + i];
    if (part == 0) bits[i] = entry;
    fetch(a, entry, part, records[i]);
  }
  __syncthreads();
  uint32_t seen = 0;
  for (int i = STEP > 0 ? 0 : n - 1; i >= 0 && i < n; i += STEP) {
    const int32_t k = (int32_t)first + i;
    if (!(bits[i] >> pixel.block & 1) || !reach(k)) continue;  // whole warps
    float values[RASTER_SUMS] = {};
    const float weight = body(records[i].values, k, values);
    if (!__any_sync(FULL, weight > 0.0f)) continue;
    const float sum = sums_in_lanes(values);
    if (lane_number() % 2 == 0) sums[warp][i][lane_number() / 2] = sum;
    seen |= 1u << i;
  }
  if (lane_number() == 0) found[warp] = seen;
  __syncthreads();
  write_rows(a, first, n, sums, found);
  __syncthreads();
}

// Writes the rows of the tile's entries, farthest first; `last` is the entry that the pixel's ray ends with.
template <int VECTORS, class Struct, class Body>
RADFIELD_FN void rows_back_to_front(const Struct& a, const TilePixel& pixel, int32_t last, Body body) {
  SHARED_ARRAY(int32_t, lasts, [RASTER_WARPS]);
  const int32_t farthest = warp_last(last);
  const int64_t begin = a.tile_start[blockIdx.x], end = a.tile_start[blockIdx.x + 1];
  const int64_t past = (int64_t)block_last(farthest, lasts) + 1, reach = past < begin ? begin : past < end ? past : end;
  clear_rows(a, reach, end);
  for (int64_t stop = reach; stop > begin; stop -= RASTER_BATCH) {
    const int64_t first = stop - begin < RASTER_BATCH ? begin : stop - RASTER_BATCH;
    rows_of_batch<VECTORS, -1>(a, pixel, first, (int)(stop - first), [&](int32_t k) { return k <= farthest; }, body);
  }
}
// The same, nearest first, while open() of any thread.
template <int VECTORS, class Struct, class Open, class Body>
RADFIELD_FN void rows_front_to_back(const Struct& a, const TilePixel& pixel, Open open, Body body) {
  const int64_t end = a.tile_start[blockIdx.x + 1];
  int64_t first = a.tile_start[blockIdx.x];
  for (; first < end && __syncthreads_or(open()); first += RASTER_BATCH) {
    const int n = end - first < RASTER_BATCH ? (int)(end - first) : RASTER_BATCH;
    rows_of_batch<VECTORS, 1>(a, pixel, first, n, [&](int32_t) { return __any_sync(FULL, open()); }, body);
  }
  clear_rows(a, first, end);
}

// The sum of the rows of Gaussian g in this thread's column: 16 lanes are a Gaussian.
template <class Struct>
RADFIELD_FN float column_sum(const Struct& a, int64_t g) {
  float sum = 0.0f;
  if (g < a.G)
    for (int64_t slot = a.slot_start[g]; slot < a.slot_start[g + 1]; ++slot)
      sum = sum + a.partial[RASTER_SUMS * (int64_t)a.position[slot] + threadIdx.x % RASTER_SUMS];
  return sum;
}

}  // namespace radfield
