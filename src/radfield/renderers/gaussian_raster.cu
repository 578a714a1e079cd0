// A block is a tile, a thread a pixel; two warps are a block of 8 x 8 pixels and pass over the entries that do not reach
// it. Records come to shared memory in batches. As in gaussian_raster_backward.cpp an entry's gradients are sums over its
// pixels, written to its own row, and each Gaussian then sums its rows: no atomics, every sum in one order.
#include "gaussian_raster.h"

#include "../cuda/device.h"

namespace radfield {

constexpr int RASTER_THREADS = GAUSSIAN_TILE * GAUSSIAN_TILE, RASTER_WARPS = RASTER_THREADS / WARP;
constexpr int RASTER_BATCH = 32;  // entries at a time in the backward pass

// The part of a record that is in use.
constexpr int RECORD_VECTORS = 3;
struct alignas(16) SharedRecord {
  float values[4 * RECORD_VECTORS];
};
template <class Struct>
RADFIELD_FN void fetch(const Struct& a, int32_t entry, int part, SharedRecord& to) {
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

// What a Gaussian is at a pixel.
struct OnPixel {
  float dx, off, raw;  // raw: its opacity without the ceiling
};
RADFIELD_FN OnPixel on_pixel(const float* record, const TilePixel& pixel) {
  const float dx = pixel.x - record[RECORD_MEAN];
  const float off = pixel.y - record[RECORD_MEAN + 1] + dx * record[RECORD_CONIC + 1];
  const float power = gaussian_power(dx * dx * record[RECORD_CONIC], record[RECORD_CONIC + 2], off);
  return {dx, off, exp2_negative(power) * record[RECORD_OPACITY]};
}

template <int C>
__global__ void __launch_bounds__(256) gaussian_raster_forward(const GaussianRasterForward a) {
  SHARED_ARRAY(SharedRecord, records, [RASTER_THREADS]);
  SHARED_ARRAY(int32_t, bits, [RASTER_THREADS]);
  const TilePixel pixel = tile_pixel(a);
  const int64_t end = a.tile_start[blockIdx.x + 1];
  float transmittance = pixel.inside ? 1.0f : -1.0f, color[C] = {};  // beyond the image: rays that have ended
  int32_t last = -1;
  for (int64_t begin = a.tile_start[blockIdx.x]; begin < end; begin += RASTER_THREADS) {
    if (!__syncthreads_or(transmittance > 0.0f)) break;  // also: the batch before is read
    const int n = end - begin < RASTER_THREADS ? (int)(end - begin) : RASTER_THREADS, thread = (int)threadIdx.x;
    if (thread < n) {
      const int32_t entry = a.entries[begin + thread];
      bits[thread] = entry;
      for (int part = 0; part < RECORD_VECTORS; ++part) fetch(a, entry, part, records[thread]);
    }
    __syncthreads();
    for (int i = 0; i < n && transmittance > 0.0f; ++i) {
      if (!(bits[i] >> pixel.block & 1)) continue;
      const float* const record = records[i].values;
      const float weight = blend_weight(min(on_pixel(record, pixel).raw, (float)a.max_alpha), transmittance);
      if (!(weight > 0.0f)) continue;
      for (int c = 0; c < C; ++c) color[c] = fma(weight, record[RECORD_COLOR + c], color[c]);
      last = (int32_t)(begin + i);
    }
  }
  if (!pixel.inside) return;
  const float left = abs(transmittance);
  a.alpha[pixel.at] = 1.0f - left, a.transmittance[pixel.at] = left, a.last[pixel.at] = last;
  for (int c = 0; c < C; ++c) a.image[pixel.at * C + c] = a.background ? fma(left, a.background[c], color[c]) : color[c];
}

// What a pixel has to pass on to the Gaussians in front.
template <int C>
struct BehindPixel {
  float transmittance, light, gradient[C];
  int32_t last;
};
template <int C>
RADFIELD_FN BehindPixel<C> begin_behind(const GaussianRasterBackward& a, const TilePixel& pixel) {
  BehindPixel<C> b = {0.0f, 0.0f, {}, -1};
  if (!pixel.inside) return b;
  b.transmittance = a.transmittance[pixel.at], b.last = a.last[pixel.at];
  float behind = a.grad_alpha ? -a.grad_alpha[pixel.at] : 0.0f;
  for (int c = 0; c < C; ++c) {
    b.gradient[c] = a.grad_image ? a.grad_image[pixel.at * C + c] : 0.0f;
    if (a.background) behind = fma(b.gradient[c], a.background[c], behind);
  }
  b.light = behind * b.transmittance;
  return b;
}

// What one Gaussian has of one pixel, in the order of a row of `partial`; its weight there.
template <int C, bool ABSOLUTE>
RADFIELD_FN float pixel_sums(const float* record, const TilePixel& pixel, int32_t k, float max_alpha, BehindPixel<C>& b,
                             float (&sums)[RASTER_SUMS]) {
  const OnPixel g = on_pixel(record, pixel);
  const RasterShare<float> share = raster_share(g.raw, b.last >= k, max_alpha, b.transmittance);
  float light = 0.0f;
  for (int c = 0; c < C; ++c) {
    light = fma(b.gradient[c], record[RECORD_COLOR + c], light);
    sums[SUM_COLOR + c] = share.weight * b.gradient[c];
  }
  const float grad = alpha_gradient(g.raw, share, light, max_alpha, b.light);
  const float grad_x = grad * g.dx, grad_off = grad * g.off;
  sums[SUM_1] = grad, sums[SUM_X] = grad_x, sums[SUM_XX] = grad_x * g.dx;
  sums[SUM_OFF] = grad_off, sums[SUM_X_OFF] = grad_off * g.dx, sums[SUM_OFF_OFF] = grad_off * g.off;
  if (ABSOLUTE) {
    const float along_y = g.off * (2.0f * record[RECORD_CONIC + 2]);
    const float along_x = fma(g.dx, 2.0f * record[RECORD_CONIC], along_y * record[RECORD_CONIC + 1]);
    sums[SUM_ABSOLUTE] = abs(grad * along_x), sums[SUM_ABSOLUTE + 1] = abs(grad * along_y);
  }
  return share.weight;
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
RADFIELD_FN void write_rows(const GaussianRasterBackward& a, int64_t first, int n,
                            const float (&sums)[RASTER_WARPS][RASTER_BATCH][RASTER_SUMS], const uint32_t* found) {
  for (int v = (int)threadIdx.x; v < n * RASTER_SUMS; v += RASTER_THREADS) {
    const int i = v / RASTER_SUMS, j = v % RASTER_SUMS;
    float sum = 0.0f;
    for (int w = 0; w < RASTER_WARPS; ++w)
      if (found[w] >> i & 1) sum = sum + sums[w][i][j];
    a.partial[RASTER_SUMS * first + v] = sum;
  }
}

template <int C, bool ABSOLUTE>
__global__ void __launch_bounds__(256) gaussian_raster_backward(const GaussianRasterBackward a) {
  SHARED_ARRAY(SharedRecord, records, [RASTER_BATCH]);
  SHARED_ARRAY(int32_t, bits, [RASTER_BATCH]);
  SHARED_ARRAY(float, sums, [RASTER_WARPS][RASTER_BATCH][RASTER_SUMS]);
  SHARED_ARRAY(uint32_t, found, [RASTER_WARPS]);
  SHARED_ARRAY(int32_t, lasts, [RASTER_WARPS]);
  const TilePixel pixel = tile_pixel(a);
  const int thread = (int)threadIdx.x, warp = thread / WARP;
  BehindPixel<C> behind = begin_behind<C>(a, pixel);
  const int32_t farthest = warp_last(behind.last);
  const int64_t begin = a.tile_start[blockIdx.x], end = a.tile_start[blockIdx.x + 1];
  const int64_t past = (int64_t)block_last(farthest, lasts) + 1, reach = past < begin ? begin : past < end ? past : end;
  for (int64_t i = RASTER_SUMS * reach + thread; i < RASTER_SUMS * end; i += RASTER_THREADS) a.partial[i] = 0.0f;
  for (int64_t stop = reach; stop > begin; stop -= RASTER_BATCH) {
    const int64_t first = stop - begin < RASTER_BATCH ? begin : stop - RASTER_BATCH;
    const int n = (int)(stop - first);
    if (thread < n * RECORD_VECTORS) {
      const int i = thread / RECORD_VECTORS, part = thread % RECORD_VECTORS;
      const int32_t entry = a.entries[first + i];
      if (part == 0) bits[i] = entry;
      fetch(a, entry, part, records[i]);
    }
    __syncthreads();
    uint32_t seen = 0;
    for (int i = n - 1; i >= 0; --i) {
      const int32_t k = (int32_t)first + i;
      if (k > farthest || !(bits[i] >> pixel.block & 1)) continue;  // whole warps
      float values[RASTER_SUMS] = {};
      const float weight = pixel_sums<C, ABSOLUTE>(records[i].values, pixel, k, (float)a.max_alpha, behind, values);
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
}

// 16 lanes are a Gaussian, each sums a column of its rows.
__global__ void gaussian_raster_gather(const GaussianRasterGather a) {
  const int64_t g = thread_number() / RASTER_SUMS;
  const int column = (int)threadIdx.x % RASTER_SUMS;
  const bool inside = g < a.G;
  float sum = 0.0f, sums[RASTER_SUMS];
  if (inside)
    for (int64_t slot = a.slot_start[g]; slot < a.slot_start[g + 1]; ++slot)
      sum = sum + a.partial[RASTER_SUMS * (int64_t)a.position[slot] + column];
  for (int k = 0; k < RASTER_SUMS; ++k) sums[k] = __shfl_sync(FULL, sum, k, RASTER_SUMS);
  if (!inside || column != 0) return;
  const bool seen = a.slot_start[g] < a.slot_start[g + 1];  // records of the others are not written
  const float* const record = a.records + GAUSSIAN_RECORD * g;
  float conic[3] = {};
  for (int k = 0; k < 3 && seen; ++k) conic[k] = record[RECORD_CONIC + k];
  const RasterGradient<float> out = raster_gradient(sums, conic, seen ? record[RECORD_OPACITY] : 0.0f);
  for (int k = 0; k < 2; ++k) a.grad_mean2d[k * a.G + g] = out.mean2d[k];
  for (int k = 0; k < 3; ++k) a.grad_conic[k * a.G + g] = out.conic[k];
  a.grad_opacity[g] = out.opacity;
  for (int c = 0; c < 4 && c < a.C; ++c) a.grad_colors[c * a.G + g] = sums[SUM_COLOR + c];
  for (int k = 0; k < 2 && a.absolute; ++k)
    a.absolute[k * a.G + g] = fma(sums[SUM_ABSOLUTE + k], RASTER_LN2, a.absolute[k * a.G + g]);
}

}  // namespace radfield
