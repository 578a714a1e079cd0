// Packing, the depth order (radix sort over the bits in use) and the tiles' lists (counting sort). Work is cut into
// fixed chunks; every place in a list follows from counts, so no thread changes it.
#include "gaussian_tiles.h"

#include "../cpu/lanes.h"
#include "../cpu/parallel.h"

using namespace radfield;

namespace {

constexpr int64_t CHUNK = 2048;  // Gaussians per task of packing
constexpr int64_t PARTS = 16;    // of the sort
constexpr int DIGIT = 11, DIGITS = 1 << DIGIT;

struct Part {
  int64_t begin, end;
};
Part part(int64_t n, int64_t parts, int64_t p) { return {n * p / parts, n * (p + 1) / parts}; }

RADFIELD_SIMD void pack_vector(const GaussianPack& a, int64_t i, int n) {
  vf rows[GAUSSIAN_RECORD] = {};
  vf conic[3], scaled[3], radius[2];
  for (int k = 0; k < 2; ++k) rows[RECORD_MEAN + k] = load_n(a.mean2d + k * a.G + i, n), radius[k] = load_n(a.radius + k * a.G + i, n);
  for (int k = 0; k < 3; ++k) conic[k] = load_n(a.conic + k * a.G + i, n);
  scaled_conic(conic, scaled);
  for (int k = 0; k < 3; ++k) rows[RECORD_CONIC + k] = scaled[k];
  rows[RECORD_OPACITY] = load_n(a.opacity + i, n);
  for (int c = 0; c < a.C; ++c) rows[RECORD_COLOR + c] = load_n(a.colors + c * a.G + i, n);
  alignas(64) int32_t x[W], y[W];
  store(x, block_range(rows[0], radius[0], (float)a.width));
  store(y, block_range(rows[1], radius[1], (float)a.height));
  for (int k = 0; k < n; ++k) a.boxes[2 * (i + k)] = x[k], a.boxes[2 * (i + k) + 1] = y[k];
  for (int half = 0; half < GAUSSIAN_RECORD / W; ++half) {
    vi words[W];
    for (int k = 0; k < W; ++k) words[k] = as_int(rows[half * W + k]);
    transpose(words);
    for (int k = 0; k < n; ++k) store(a.records + GAUSSIAN_RECORD * (i + k) + half * W, as_float(words[k]));
  }
}

struct Keyed {
  uint32_t key, id;
};

// One pass of the sort, by `DIGIT` bits from `shift` on.
void sort_pass(const Keyed* from, Keyed* to, int64_t n, int shift, uint32_t (*counts)[DIGITS]) {
  parallel_for(PARTS, [&](int64_t p) {
    memset(counts[p], 0, sizeof counts[p]);
    const Part range = part(n, PARTS, p);
    for (int64_t i = range.begin; i < range.end; ++i) ++counts[p][(from[i].key >> shift) & (DIGITS - 1)];
  });
  uint32_t sum = 0;
  for (int d = 0; d < DIGITS; ++d)
    for (int p = 0; p < PARTS; ++p) {
      const uint32_t count = counts[p][d];
      counts[p][d] = sum, sum += count;
    }
  parallel_for(PARTS, [&](int64_t p) {
    const Part range = part(n, PARTS, p);
    for (int64_t i = range.begin; i < range.end; ++i) to[counts[p][(from[i].key >> shift) & (DIGITS - 1)]++] = from[i];
  });
}

// The drawn Gaussians with their depths' bits (which are in the order of the depths, as those are positive).
int64_t collect(const GaussianSort& a, Keyed* out, uint32_t& low, uint32_t& high) {
  int64_t n = 0;
  low = ~0u, high = 0;
  for (int64_t g = 0; g < a.G; ++g) {
    if (is_empty(block_box(a.boxes + 2 * g))) continue;
    const uint32_t key = (uint32_t)as_int(a.depth[g]);
    out[n++] = {key, (uint32_t)g};
    low = key < low ? key : low, high = key > high ? key : high;
  }
  return n;
}

// body(tile, bits) for the tiles of a box, clamped to T.
template <class Body>
RADFIELD_SIMD void for_tiles(const int32_t* packed, int64_t tiles_x, int64_t T, Body body) {
  const BlockBox box = block_box(packed);
  for (int32_t y = box.y0 / 2; 2 * y < box.y1; ++y)
    for (int32_t x = box.x0 / 2; 2 * x < box.x1; ++x) {
      const int64_t tile = y * tiles_x + x;
      if (tile < T) body(tile, block_bits(box, x, y));
    }
}

// Entries k .. k + n - 1 of a tile whose first pixel is at (x, y).
RADFIELD_SIMD void trim_vector(const GaussianTilesTrim& a, int64_t k, int n, float x, float y) {
  alignas(64) int32_t entries[W] = {};
  alignas(64) float rows[8][W];
  for (int i = 0; i < n; ++i) entries[i] = a.entries[k + i];
  for (int64_t i = k + W; i < k + 2 * W && i < a.K; ++i)
    __builtin_prefetch(a.records + GAUSSIAN_RECORD * (int64_t)((uint32_t)a.entries[i] >> 4));
  for (int i = 0; i < W; ++i) {
    const float* record = a.records + GAUSSIAN_RECORD * (int64_t)((uint32_t)entries[i] >> 4);
    for (int j = 0; j <= RECORD_OPACITY; ++j) rows[j][i] = record[j];
  }
  const vf conic[3] = {load(rows[RECORD_CONIC]), load(rows[RECORD_CONIC + 1]), load(rows[RECORD_CONIC + 2])};
  const vi hidden = hidden_blocks(load(rows[0]), load(rows[1]), conic, load(rows[RECORD_OPACITY]), x, y);
  const vi trimmed = load(entries) & ~hidden;
  for (int i = 0; i < n; ++i) a.entries[k + i] = trimmed[i];
}

// Gaussians stand in memory by number and are met by depth: fetched early, their boxes wait in the cache.
template <class Struct>
RADFIELD_SIMD int64_t next_drawn(const Struct& a, int64_t r) {
  if (r + 12 < a.drawn) __builtin_prefetch(a.boxes + 2 * (int64_t)a.order[r + 12]);
  return a.order[r];
}

}  // namespace

RADFIELD_OP(gaussian_pack, GaussianPack) {
  parallel_blocks(a.G, CHUNK, [&](int64_t begin, int64_t end) {
    for_lanes(begin, end, [&](int64_t i, int n) RADFIELD_LANES { pack_vector(a, i, n); });
  });
}

RADFIELD_OP(gaussian_sort, GaussianSort) {
  Keyed *from = (Keyed*)a.work, *to = from + a.G;
  uint32_t low, high;
  const int64_t n = collect(a, from, low, high);
  auto* counts = (uint32_t(*)[DIGITS])scratch(PARTS * DIGITS * 4);
  // depths lie within a few octaves: the bits above those that differ need no pass
  for (int64_t i = 0; i < n; ++i) from[i].key -= low;
  for (int shift = 0; n > 0 && shift < 32 && ((high - low) >> shift) > 0; shift += DIGIT) {
    sort_pass(from, to, n, shift, counts);
    Keyed* swapped = from;
    from = to, to = swapped;
  }
  for (int64_t i = 0; i < n; ++i) a.order[i] = (int32_t)from[i].id;
  *a.drawn = n;
}

RADFIELD_OP(gaussian_tiles_count, GaussianTilesCount) {
  int64_t slots = 0;
  for (int64_t g = 0; g < a.G; ++g) {
    a.slot_start[g] = (int32_t)slots;
    slots += count_tiles(a.boxes + 2 * g);
  }
  a.slot_start[a.G] = (int32_t)slots;
  *a.total = slots;
  if (slots > 0x7fffffff) return;
  parallel_for(a.B, [&](int64_t b) {
    int32_t* counts = a.cursors + b * a.T;
    memset(counts, 0, (size_t)a.T * 4);
    const Part range = part(a.drawn, a.B, b);
    for (int64_t r = range.begin; r < range.end; ++r)
      for_tiles(a.boxes + 2 * next_drawn(a, r), a.tiles_x, a.T, [&](int64_t tile, int32_t) { ++counts[tile]; });
  });
  int32_t sum = 0;
  for (int64_t t = 0; t < a.T; ++t) {
    a.tile_start[t] = sum;
    for (int64_t b = 0; b < a.B; ++b) {
      const int32_t count = a.cursors[b * a.T + t];
      a.cursors[b * a.T + t] = sum, sum += count;
    }
  }
  a.tile_start[a.T] = sum;
}

RADFIELD_OP(gaussian_tiles_fill, GaussianTilesFill) {
  parallel_for(a.B, [&](int64_t b) {
    int32_t* cursors = a.cursors + b * a.T;
    const Part range = part(a.drawn, a.B, b);
    for (int64_t r = range.begin; r < range.end; ++r) {
      const int64_t g = next_drawn(a, r);
      int32_t slot = a.slot_start[g];
      for_tiles(a.boxes + 2 * g, a.tiles_x, a.T, [&](int64_t tile, int32_t bits) {
        const int32_t at = cursors[tile]++;
        a.entries[at] = (int32_t)g << 4 | bits;
        if (a.position) a.position[slot++] = at;
      });
    }
  });
}

RADFIELD_OP(gaussian_tiles_trim, GaussianTilesTrim) {
  parallel_for(a.T, [&](int64_t tile) {
    const float x = (float)(tile % a.tiles_x * GAUSSIAN_TILE), y = (float)(tile / a.tiles_x * GAUSSIAN_TILE);
    for_lanes(a.tile_start[tile], a.tile_start[tile + 1], [&](int64_t k, int n) RADFIELD_LANES { trim_vector(a, k, n, x, y); });
  });
}
