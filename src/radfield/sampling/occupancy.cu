// Lists are packed in order, without atomics: counts per block, a scan over the blocks, then every thread knows where
// it writes. Values only rise by atomics on their bits, which compare like the numbers where these are not negative;
// -1 (unseen) has bits above all of them as an unsigned integer, so that it stays.
#include "occupancy.h"

#include "../cuda/device.h"

namespace radfield {

constexpr int BLOCK = 256;  // threads of the kernels that pack

// ---- uniform cells: counts [blocks] int64 in the scratch memory

RADFIELD_FN int64_t known_cell(const OccupancyUniformCells& a, int64_t j) {
  if (j >= a.N) return -1;
  const int64_t cell = uniform_cell((uint32_t)a.seed, j, a.stride, a.update);
  return cell < a.T && a.values[cell] >= 0.0f ? cell : -1;
}

__global__ void occupancy_uniform_count(const OccupancyUniformCells a, int64_t* counts) {
  const int kept = __syncthreads_count(known_cell(a, thread_number()) >= 0);
  if (threadIdx.x == 0) counts[blockIdx.x] = kept;
}
__global__ void occupancy_uniform_scan(const OccupancyUniformCells a, int64_t* counts, int64_t blocks) {
  const int64_t total = scan_before(counts, blocks);
  if (threadIdx.x == 0) *a.count = total;
}
__global__ void occupancy_uniform_write(const OccupancyUniformCells a, const int64_t* counts) {
  const int64_t cell = known_cell(a, thread_number());
  int all;
  const int before = block_sum_before(cell >= 0 ? 1 : 0, all);
  if (cell >= 0) a.cells[counts[blockIdx.x] + before] = (int32_t)cell;
}

// ---- occupied cells: the scratch memory has, per block of words, the rank of its first set bit [blocks + 1] int64, and
// per word the set bits before it in its block [B] int32

__global__ void occupancy_occupied_count(const OccupancyOccupiedCells a, int64_t* first, int64_t blocks) {
  int32_t* const before = (int32_t*)(first + blocks + 1);
  const int64_t w = thread_number();
  int total;
  const int sum = block_sum_before(w < a.B ? bit_count((uint64_t)a.bitfield[w]) : 0, total);
  if (w < a.B) before[w] = sum;
  if (threadIdx.x == 0) first[blockIdx.x] = total;
}
__global__ void occupancy_occupied_scan(const OccupancyOccupiedCells a, int64_t* first, int64_t blocks) {
  const int64_t total = scan_before(first, blocks);
  if (threadIdx.x == 0) first[blocks] = total, *a.count = a.N < total ? a.N : total;
}

// The last of n rising values that is at most x, found by halving; the first is.
template <class T>
RADFIELD_FN int64_t last_not_above(const T* values, int64_t n, int64_t x) {
  int64_t low = 0;
  while (n > 1) {
    const int64_t half = n / 2;
    low += values[low + half] <= x ? half : 0;
    n -= half;
  }
  return low;
}

// A thread is a draw.
__global__ void occupancy_occupied_draw(const OccupancyOccupiedCells a, const int64_t* first, int64_t blocks) {
  const int32_t* const before = (const int32_t*)(first + blocks + 1);
  const int64_t j = thread_number(), total = first[blocks], n = a.N < total ? a.N : total;
  if (j >= n) return;
  const int64_t rank = drawn_rank((uint32_t)a.seed, j, n, total);
  const int64_t block = last_not_above(first, blocks, rank), inside = rank - first[block], word = block * BLOCK;
  const int64_t w = word + last_not_above(before + word, a.B - word < BLOCK ? a.B - word : BLOCK, inside);
  a.cells[j] = (int32_t)(w * 64 + lowest_bit_of_rank((uint64_t)a.bitfield[w], inside - before[w]));
}

// ---- points

__global__ void occupancy_points(const OccupancyPoints a) {
  const int64_t i = thread_number();
  if (i >= a.N) return;
  const int G = (int)a.resolution, shift = 3 * log2_of(G);
  const int32_t cell = a.cells[i];
  const float side = as_float(((cell >> shift) + 127) << 23);
  for (int d = 0; d < 3; ++d) {
    const int32_t coordinate = gather3((cell & ((1 << shift) - 1)) >> d);
    const float place = random_place(random_bits((uint32_t)a.seed, (uint32_t)i * 3u + (uint32_t)d));
    a.x[d * a.N + i] = point_in_cell(coordinate, G, side, place);
  }
}

// ---- update: the scratch memory has a bit per cell that this call has decayed

__global__ void occupancy_update_clear(const OccupancyUpdate a, uint32_t* met) {
  const int64_t w = thread_number();
  if (w < (a.T + 31) / 32) met[w] = 0;
}
// The first thread that meets a cell decays it, or makes it known.
__global__ void occupancy_update_decay(const OccupancyUpdate a, uint32_t* met) {
  const int64_t j = thread_number();
  if (j >= a.N) return;
  const int32_t cell = a.cells[j];
  const uint32_t bit = 1u << (cell & 31);
  if (atomicOr(met + (cell >> 5), bit) & bit) return;
  const float value = a.values[cell];
  if (value >= 0.0f) a.values[cell] = value > 3.1e38f ? 0.0f : (float)a.decay * value;
}
__global__ void occupancy_update_raise(const OccupancyUpdate a) {
  const int64_t j = thread_number();
  if (j < a.N) atomicMax((uint32_t*)a.values + a.cells[j], (uint32_t)as_int(density_value(a.sigma[j])));
}

// ---- observe

// value = max(value, found), where it is known or unknown but not unseen.
RADFIELD_FN void raise_to(float* value, float found) {
  float old = read_shared_by_all(value);
  while (old >= 0.0f && (old < found || old > 3.1e38f)) {
    const int seen = atomicCAS((int*)value, as_int(old), as_int(found));
    if (seen == as_int(old)) return;
    old = as_float(seen);
  }
}

__global__ void occupancy_observe(const OccupancyObserve a) {
  const int64_t i = thread_number();
  if (i >= a.M) return;
  const int G = (int)a.resolution, K = (int)a.cascades, shift = 3 * log2_of(G);
  const float x = a.x[i], y = a.x[a.M + i], z = a.x[2 * a.M + i], all = x + y + z;
  const float distance = distance_from_centre(x, y, z);
  if (!(distance <= 0.5f * (float)(1 << (K - 1))) || all != all) return;
  const int32_t k = finest_cascade(distance, K);
  const float s = inverse_side(k);
  const int32_t code = morton(cell_coordinate(x, s, G), cell_coordinate(y, s, G), cell_coordinate(z, s, G));
  raise_to(a.values + (k << shift) + code, density_value(a.sigma[i]));
}

// ---- bitfield: the scratch memory has a partial sum and count per block of values

struct PartialSum {
  double total;
  int64_t count;
};
constexpr int64_t SUM_BLOCK = 65536;  // values per partial sum

__global__ void occupancy_sum(const OccupancyBitfield a, PartialSum* sums) {
  float total = 0.0f;
  int count = 0;
  const int64_t begin = blockIdx.x * SUM_BLOCK, end = begin + SUM_BLOCK < a.T ? begin + SUM_BLOCK : a.T;
  for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
    const float v = a.values[i];
    if (v >= 0.0f && v < 3.1e38f) total = total + v, ++count;
  }
  const double sum = block_sum((double)total);
  const int known = block_sum(count);
  if (threadIdx.x == 0) sums[blockIdx.x] = {sum, known};
}
__global__ void occupancy_threshold(const OccupancyBitfield a, const PartialSum* sums, int64_t blocks) {
  double total = 0;
  int64_t count = 0;
  for (int64_t b = 0; b < blocks; ++b) total += sums[b].total, count += sums[b].count;
  const double mean = count ? total / (double)count : a.limit;
  *a.threshold = (float)(mean < a.limit ? mean : a.limit);
}
// A thread is a cell; a warp writes 32 bits.
__global__ void occupancy_bits(const OccupancyBitfield a) {
  const int64_t i = thread_number();
  const bool occupied = i < a.T && a.values[i] > *a.threshold;
  const uint32_t bits = __ballot_sync(FULL, occupied);
  if (lane_number() == 0 && i < a.T) ((uint32_t*)a.bitfield)[i / 32] = bits;
}
// ORs cascade k - 1 into the middle of cascade k: a thread is a block of 4^3 coarse cells, 8 blocks of fine ones.
__global__ void occupancy_merge(const OccupancyBitfield a, int64_t k) {
  const int blocks = (int)a.resolution / 4, half = blocks / 2, quarter = blocks / 4;
  const int64_t i = thread_number(), words = a.B / a.cascades;
  if (i >= (int64_t)half * half * half) return;
  const int32_t x = (int32_t)(i % half), y = (int32_t)(i / half % half), z = (int32_t)(i / half / half);
  const int64_t* const fine = a.bitfield + (k - 1) * words + 8 * (int64_t)morton(x, y, z);
  uint64_t merged = 0;
  for (int c = 0; c < 8; ++c) merged |= (uint64_t)bytes_set((uint64_t)fine[c]) << (8 * c);
  a.bitfield[k * words + morton(x + quarter, y + quarter, z + quarter)] |= (int64_t)merged;
}

// Whether block (x, y, z) has an occupied octant (2x2x2 cells) from 2 b - 1 to 2 b + 2 along each axis.
RADFIELD_FN bool near_occupied(const int64_t* cells, int blocks, int x, int y, int z) {
  // octants of a neighbour that count, per axis: its upper ones below, both, its lower ones above
  const uint32_t along_x[3] = {0xaa, 0xff, 0x55}, along_y[3] = {0xcc, 0xff, 0x33}, along_z[3] = {0xf0, 0xff, 0x0f};
  bool found = false;
  for (int n = 0; n < 27; ++n) {
    const int i = n % 3, j = n / 3 % 3, k = n / 9, u = x + i - 1, v = y + j - 1, w = z + k - 1;
    if (u < 0 || v < 0 || w < 0 || u >= blocks || v >= blocks || w >= blocks) continue;
    found |= (bytes_set((uint64_t)cells[morton<int32_t>(u, v, w)]) & along_x[i] & along_y[j] & along_z[k]) != 0;
  }
  return found;
}
// A warp is a word of a row (k, z, y), a lane a block.
__global__ void occupancy_near(const OccupancyBitfield a) {
  const int blocks = (int)a.resolution / 4, words = (blocks + 31) / 32;
  const int64_t word = thread_number() / WARP;
  if (word >= a.S) return;  // whole warps
  const int x = (int)(word % words) * 32 + lane_number();
  const int64_t row = word / words;
  const int y = (int)(row % blocks), z = (int)(row / blocks % blocks);
  const int64_t* const cells = a.bitfield + row / blocks / blocks * (a.B / a.cascades);
  const uint32_t bits = __ballot_sync(FULL, x < blocks && near_occupied(cells, blocks, x, y, z));
  if (lane_number() == 0) a.near_blocks[word] = (int32_t)bits;
}

}  // namespace radfield
