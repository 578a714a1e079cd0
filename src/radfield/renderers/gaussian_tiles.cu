// Packing, the depth order and the tiles' lists on CUDA. Where the CPU counts chunks of the depth order into the tiles,
// here the entries are made in that order and sorted by tile: each sort takes the bits in use. All is counts of whole
// numbers, so that the lists are those of the CPU.
#include "gaussian_tiles.h"

#include "gaussian_sort_device.h"

namespace radfield {

// A thread is a Gaussian.
__global__ void gaussian_pack(const GaussianPack a) {
  const int64_t i = thread_number();
  if (i >= a.G) return;
  float row[GAUSSIAN_RECORD] = {}, conic[3], scaled[3];
  for (int k = 0; k < 2; ++k) row[RECORD_MEAN + k] = a.mean2d[k * a.G + i];
  for (int k = 0; k < 3; ++k) conic[k] = a.conic[k * a.G + i];
  scaled_conic(conic, scaled);
  for (int k = 0; k < 3; ++k) row[RECORD_CONIC + k] = scaled[k];
  row[RECORD_OPACITY] = a.opacity[i];
  for (int c = 0; c < 4 && c < a.C; ++c) row[RECORD_COLOR + c] = a.colors[c * a.G + i];
  a.boxes[2 * i] = block_range(row[RECORD_MEAN], a.radius[i], (float)a.width);
  a.boxes[2 * i + 1] = block_range(row[RECORD_MEAN + 1], a.radius[a.G + i], (float)a.height);
  float4* const out = (float4*)(a.records + GAUSSIAN_RECORD * i);
  for (int k = 0; k < 4; ++k) out[k] = make_float4(row[4 * k], row[4 * k + 1], row[4 * k + 2], row[4 * k + 3]);
}

// ---- the depth order

// Scratch memory of the sort by depth; blocks: of THREADS Gaussians.
struct DepthSort {
  uint32_t *drawn, *low, *passes, *totals, *counts, *block_drawn, *block_low, *block_high;
  int64_t blocks, B;

  RADFIELD_FN DepthSort(uint32_t* scratch, int64_t G) {
    blocks = (G + SORT_THREADS - 1) / SORT_THREADS, B = (G + SORT_ITEMS - 1) / SORT_ITEMS;
    drawn = scratch, low = scratch + 1, passes = scratch + 2, totals = scratch + 4, counts = totals + SORT_DIGITS;
    block_drawn = counts + SORT_DIGITS * B, block_low = block_drawn + blocks, block_high = block_low + blocks;
  }
};
// The items before pass `pass` (the last one writes where pass 4 would read), and where they go.
RADFIELD_FN uint2* depth_items(const GaussianSort& a, int64_t pass) { return (uint2*)a.work + pass % 2 * a.G; }
RADFIELD_FN bool is_drawn(const GaussianSort& a, int64_t g) { return g < a.G && !is_empty(block_box(a.boxes + 2 * g)); }
// The bits of positive numbers are in their order.
RADFIELD_FN uint32_t depth_key(const GaussianSort& a, int64_t g) { return (uint32_t)as_int(a.depth[g]); }

// How many a block has, the nearest and the farthest.
__global__ void gaussian_sort_limits(const GaussianSort a, uint32_t* scratch) {
  SHARED_ARRAY(uint32_t, limits, [2]);
  const DepthSort s(scratch, a.G);
  if (threadIdx.x == 0) limits[0] = ~0u, limits[1] = 0;
  __syncthreads();
  const bool drawn = is_drawn(a, thread_number());
  if (drawn) {
    const uint32_t key = depth_key(a, thread_number());
    atomicMin(&limits[0], key), atomicMax(&limits[1], key);
  }
  const uint32_t count = block_sum((uint32_t)drawn);
  if (threadIdx.x == 0) s.block_drawn[blockIdx.x] = count, s.block_low[blockIdx.x] = limits[0], s.block_high[blockIdx.x] = limits[1];
}

// By one block: where each block's items go, and how many passes the bits that differ need.
__global__ void gaussian_sort_starts(const GaussianSort a, uint32_t* scratch) {
  SHARED_ARRAY(uint32_t, limits, [2]);
  const DepthSort s(scratch, a.G);
  if (threadIdx.x == 0) limits[0] = ~0u, limits[1] = 0;
  __syncthreads();
  for (int64_t b = threadIdx.x; b < s.blocks; b += blockDim.x) atomicMin(&limits[0], s.block_low[b]), atomicMax(&limits[1], s.block_high[b]);
  const uint32_t drawn = scan_before(s.block_drawn, s.blocks);
  __syncthreads();
  if (threadIdx.x != 0) return;
  const uint32_t differ = drawn ? limits[1] - limits[0] : 0;
  *a.drawn = drawn, *s.drawn = drawn, *s.low = limits[0];
  *s.passes = differ ? (32 - __clz((int)differ) + SORT_BITS - 1) / SORT_BITS : 0;
}

// The drawn ones in the order of their numbers.
__global__ void gaussian_sort_collect(const GaussianSort a, uint32_t* scratch) {
  const DepthSort s(scratch, a.G);
  const int64_t g = thread_number();
  const bool drawn = is_drawn(a, g);
  uint32_t all;
  const uint32_t at = s.block_drawn[blockIdx.x] + block_sum_before((uint32_t)drawn, all);
  if (drawn) depth_items(a, 0)[at] = make_uint2(depth_key(a, g) - *s.low, (uint32_t)g);
}

RADFIELD_FN SortPass depth_pass(const GaussianSort& a, const DepthSort& s, int64_t pass) {
  return {depth_items(a, pass), depth_items(a, pass + 1), s.totals, s.counts, *s.drawn, s.B, (int)pass * SORT_BITS};
}
__global__ void gaussian_sort_count(const GaussianSort a, uint32_t* scratch, int64_t pass) {
  const DepthSort s(scratch, a.G);
  if (pass < *s.passes) sort_count(depth_pass(a, s, pass));
}
__global__ void gaussian_sort_scan(const GaussianSort a, uint32_t* scratch, int64_t pass) {
  const DepthSort s(scratch, a.G);
  if (pass < *s.passes) sort_scan(depth_pass(a, s, pass));
}
__global__ void gaussian_sort_scatter(const GaussianSort a, uint32_t* scratch, int64_t pass) {
  const DepthSort s(scratch, a.G);
  if (pass < *s.passes) sort_scatter(depth_pass(a, s, pass));
}
__global__ void gaussian_sort_write(const GaussianSort a, uint32_t* scratch) {
  const DepthSort s(scratch, a.G);
  const int64_t i = thread_number();
  if (i < *s.drawn) a.order[i] = (int32_t)depth_items(a, *s.passes)[i].y;
}

// ---- how many entries there are

// Whether they are more than there is room for, or than 31 bits can number.
RADFIELD_FN bool too_many(const GaussianTilesCount& a, int64_t total) { return total > (a.most ? *a.most : 0x7fffffff); }
template <class Args>
RADFIELD_FN int64_t drawn_of(const Args& a) { return rows_in_use(a.in_use, a.drawn); }
RADFIELD_FN int64_t tiles_of(const GaussianTilesCount& a, int64_t g) { return g < a.G ? count_tiles(a.boxes + 2 * g) : 0; }

// A thread is a tile.
__global__ void gaussian_tiles_clear(const GaussianTilesCount a, int64_t*) {
  if (thread_number() <= a.T) a.tile_start[thread_number()] = 0;
}
// A thread is a Gaussian, by its number.
__global__ void gaussian_tiles_sum(const GaussianTilesCount a, int64_t* block_tiles) {
  const int64_t sum = block_sum(tiles_of(a, thread_number()));
  if (threadIdx.x == 0) block_tiles[blockIdx.x] = sum;
}
// By one block.
__global__ void gaussian_tiles_starts(const GaussianTilesCount a, int64_t* block_tiles) {
  const int64_t total = scan_before(block_tiles, (a.G + SORT_THREADS - 1) / SORT_THREADS);
  if (threadIdx.x == 0) *a.total = total, a.slot_start[a.G] = too_many(a, total) ? 0 : (int32_t)total;
}
__global__ void gaussian_tiles_slots(const GaussianTilesCount a, int64_t* block_tiles) {
  const int64_t g = thread_number();
  int64_t all;
  const int64_t before = block_sum_before(tiles_of(a, g), all);
  if (g < a.G) a.slot_start[g] = too_many(a, *a.total) ? 0 : (int32_t)(block_tiles[blockIdx.x] + before);
}
// A warp is a drawn Gaussian, its lanes are tiles.
__global__ void gaussian_tiles_count(const GaussianTilesCount a, int64_t*) {
  const int64_t r = thread_number() / WARP;
  if (r >= drawn_of(a) || too_many(a, *a.total)) return;
  const BlockBox box = block_box(a.boxes + 2 * (int64_t)a.order[r]);
  const int64_t count = count_tiles(box);
  for (int64_t j = lane_number(); j < count; j += WARP) atomicAdd(a.tile_start + tile_at(box, j, a.tiles_x, a.T).tile, 1);
}
// By one block.
__global__ void gaussian_tiles_offsets(const GaussianTilesCount a, int64_t*) {
  const int32_t sum = scan_before(a.tile_start, a.T);
  if (threadIdx.x == 0) a.tile_start[a.T] = sum;
}

// ---- the entries, made in the order of the depths and sorted by tile

// Scratch memory: items of (tile, number in the order of making), what they stand for, and what sorting needs.
struct TileSort {
  uint2* items[2];
  int32_t *entries, *slots;
  uint32_t *block_entries, *totals, *counts;
  int64_t blocks, B;

  RADFIELD_FN TileSort(void* scratch, const GaussianTilesFill& a) {
    blocks = (a.drawn + SORT_THREADS - 1) / SORT_THREADS, B = (a.K + SORT_ITEMS - 1) / SORT_ITEMS;
    items[0] = (uint2*)scratch, items[1] = items[0] + a.K;
    entries = (int32_t*)(items[1] + a.K), slots = entries + a.K;
    totals = (uint32_t*)(slots + a.K), counts = totals + SORT_DIGITS, block_entries = counts + SORT_DIGITS * B;
  }
};
RADFIELD_FN int64_t entries_in_use(const GaussianTilesFill& a) { return !a.total ? a.K : *a.total > a.K ? 0 : *a.total; }
RADFIELD_FN uint32_t entries_of(const GaussianTilesFill& a, int64_t r) {
  return r < drawn_of(a) ? (uint32_t)count_tiles(block_box(a.boxes + 2 * (int64_t)a.order[r])) : 0;
}

// A thread is a drawn Gaussian, in the order of the depths.
__global__ void gaussian_tiles_fill_sum(const GaussianTilesFill a, void* scratch) {
  const TileSort s(scratch, a);
  const uint32_t sum = block_sum(entries_of(a, thread_number()));
  if (threadIdx.x == 0) s.block_entries[blockIdx.x] = sum;
}
// By one block.
__global__ void gaussian_tiles_fill_starts(const GaussianTilesFill a, void* scratch) {
  const TileSort s(scratch, a);
  scan_before(s.block_entries, s.blocks);
}
// A block is as many Gaussians as it has threads; a warp writes the entries of one after another.
__global__ void gaussian_tiles_fill_make(const GaussianTilesFill a, void* scratch) {
  SHARED_ARRAY(uint32_t, starts, [SORT_THREADS]);
  const TileSort s(scratch, a);
  uint32_t all;
  const uint32_t before = block_sum_before(entries_of(a, thread_number()), all);
  starts[threadIdx.x] = s.block_entries[blockIdx.x] + before;
  __syncthreads();
  for (int i = (int)threadIdx.x / WARP; i < SORT_THREADS; i += SORT_WARPS) {
    const int64_t r = (int64_t)blockIdx.x * SORT_THREADS + i;
    if (r >= drawn_of(a)) return;  // whole warps
    const int64_t g = a.order[r];
    const BlockBox box = block_box(a.boxes + 2 * g);
    const int64_t count = count_tiles(box);
    for (int64_t j = lane_number(); j < count && starts[i] + j < a.K; j += WARP) {
      const TileOfBox found = tile_at(box, j, a.tiles_x, a.T);
      const int64_t at = starts[i] + j;
      s.items[0][at] = make_uint2((uint32_t)found.tile, (uint32_t)at);
      s.entries[at] = (int32_t)g << 4 | found.bits, s.slots[at] = a.slot_start[g] + (int32_t)j;
    }
  }
}

RADFIELD_FN SortPass tile_pass(const GaussianTilesFill& a, const TileSort& s, int64_t pass) {
  return {s.items[pass % 2], s.items[(pass + 1) % 2], s.totals, s.counts, entries_in_use(a), s.B, (int)pass * SORT_BITS};
}
__global__ void gaussian_tiles_fill_count(const GaussianTilesFill a, void* scratch, int64_t pass) {
  sort_count(tile_pass(a, TileSort(scratch, a), pass));
}
__global__ void gaussian_tiles_fill_scan(const GaussianTilesFill a, void* scratch, int64_t pass) {
  sort_scan(tile_pass(a, TileSort(scratch, a), pass));
}
__global__ void gaussian_tiles_fill_scatter(const GaussianTilesFill a, void* scratch, int64_t pass) {
  sort_scatter(tile_pass(a, TileSort(scratch, a), pass));
}
// A thread is an entry; after `passes` passes.
__global__ void gaussian_tiles_fill_write(const GaussianTilesFill a, void* scratch, int64_t passes) {
  const TileSort s(scratch, a);
  const int64_t k = thread_number();
  if (k >= entries_in_use(a)) return;
  const uint32_t made = s.items[passes % 2][k].y;
  a.entries[k] = s.entries[made];
  if (a.position) a.position[s.slots[made]] = (int32_t)k;
}

// A block is a tile, a thread one entry after another.
__global__ void gaussian_tiles_trim(const GaussianTilesTrim a) {
  const int64_t tile = blockIdx.x, end = a.tile_start[tile + 1];
  const float x = (float)(tile % a.tiles_x * GAUSSIAN_TILE), y = (float)(tile / a.tiles_x * GAUSSIAN_TILE);
  for (int64_t k = a.tile_start[tile] + threadIdx.x; k < end; k += blockDim.x) {
    const int32_t entry = a.entries[k];
    const float* const record = a.records + GAUSSIAN_RECORD * (int64_t)((uint32_t)entry >> 4);
    const float conic[3] = {record[RECORD_CONIC], record[RECORD_CONIC + 1], record[RECORD_CONIC + 2]};
    a.entries[k] = entry & ~hidden_blocks(record[RECORD_MEAN], record[RECORD_MEAN + 1], conic, record[RECORD_OPACITY], x, y);
  }
}

}  // namespace radfield
