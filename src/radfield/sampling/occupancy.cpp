#include "occupancy.h"

#include "../cpu/parallel.h"
#include "../cpu/lanes.h"

using namespace radfield;

constexpr int64_t BLOCK = 4096;      // cells or samples per task
constexpr int64_t OWNERS = 16;       // ranges of cells in an update, one task each
constexpr int64_t SUM_BLOCK = 65536;  // values per partial sum

static int lanes_left(int64_t left) { return (int)(left < W ? left : W); }

// One cell of each run of `stride` neighbours, another one at each update: after `stride` updates every cell had its
// turn. Neighbours in Morton order follow one another, which the encoding's caches like.
RADFIELD_OP(occupancy_uniform_cells, OccupancyUniformCells) {
  const uint32_t seed = (uint32_t)a.seed;
  parallel_blocks(a.N, BLOCK, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j) {
      const int64_t cell = uniform_cell(seed, j, a.stride, a.update);
      a.cells[j] = cell < a.T && a.values[cell] >= 0 ? (int32_t)cell : -1;
    }
  });
  int64_t count = 0;
  for (int64_t j = 0; j < a.N; ++j) {
    const int32_t cell = a.cells[j];
    a.cells[count] = cell;
    count += cell >= 0;
  }
  *a.count = count;
}

namespace {

constexpr int64_t RANK_BLOCK = 256;  // words of 64 bits whose set bits are counted together

int64_t set_bits(const int64_t* words, int64_t n) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) count += __builtin_popcountll((unsigned long long)words[i]);
  return count;
}

}  // namespace

RADFIELD_OP(occupancy_occupied_cells, OccupancyOccupiedCells) {
  const uint32_t seed = (uint32_t)a.seed;
  const int64_t blocks = (a.B + RANK_BLOCK - 1) / RANK_BLOCK;
  int64_t* first = (int64_t*)scratch((blocks + 1) * 8);  // rank of the first set bit of each block
  auto words_of = [&](int64_t b) { return a.B - b * RANK_BLOCK < RANK_BLOCK ? a.B - b * RANK_BLOCK : RANK_BLOCK; };
  parallel_for(blocks, [&](int64_t b) { first[b + 1] = set_bits(a.bitfield + b * RANK_BLOCK, words_of(b)); });
  first[0] = 0;
  for (int64_t b = 0; b < blocks; ++b) first[b + 1] += first[b];
  const int64_t total = first[blocks], n = a.N < total ? a.N : total;
  *a.count = n;
  if (n == 0) return;
  parallel_for(blocks, [&](int64_t b) {
    if (first[b] == first[b + 1]) return;
    int64_t j = first[b] * n / total - 1;  // draws are in order of rank: the first that may fall in this block
    if (j < 0) j = 0;
    const int64_t* word = a.bitfield + b * RANK_BLOCK;
    int64_t before = first[b], inside = set_bits(word, 1);  // ranks before the word, and in it
    for (; j < n; ++j) {
      const int64_t rank = drawn_rank(seed, j, n, total);
      if (rank < first[b]) continue;
      if (rank >= first[b + 1]) return;
      for (; rank >= before + inside; inside = set_bits(word, 1)) before += inside, ++word;
      a.cells[j] = (int32_t)((word - a.bitfield) * 64 + lowest_bit_of_rank((uint64_t)*word, rank - before));
    }
  });
}

RADFIELD_OP(occupancy_points, OccupancyPoints) {
  const int G = (int)a.resolution, shift = 3 * log2_of(G);
  const uint32_t seed = (uint32_t)a.seed;
  parallel_blocks(a.N, BLOCK, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += W) {
      const int n = lanes_left(end - i);
      const vi cell = load_n(a.cells + i, n), cascade = cell >> shift;
      const vf side = as_float((cascade + 127) << 23);
      const vu counter = (vu)(lanes() + (int32_t)i) * 3u;
      for (int d = 0; d < 3; ++d) {
        const vi coordinate = gather3((cell & ((1 << shift) - 1)) >> d);
        const vf place = random_place(random_bits(seed, counter + (uint32_t)d));
        store_n(a.x + d * a.N + i, point_in_cell(coordinate, G, side, place), n);
      }
    }
  });
}

// Each task owns a range of cells and looks through the whole list for them: no atomics, any order, any duplicates.
RADFIELD_OP(occupancy_update, OccupancyUpdate) {
  const float decay = (float)a.decay;
  const int64_t owned = (a.T + OWNERS - 1) / OWNERS;
  parallel_for(OWNERS, [&](int64_t owner) {
    const int64_t low = owner * owned, high = low + owned < a.T ? low + owned : a.T;
    if (low >= high) return;
    uint64_t* met = (uint64_t*)scratch((owned + 63) / 64 * 8);  // cells already decayed by this call
    memset(met, 0, (size_t)((owned + 63) / 64 * 8));
    for (int64_t i = 0; i < a.N; i += W) {
      const int n = lanes_left(a.N - i);
      const vi cell = load_n(a.cells + i, n);
      uint32_t mine = mask_bits((cell >= (int32_t)low) & (cell < (int32_t)high)) & ((1u << n) - 1);
      for (; mine; mine &= mine - 1) {
        const int64_t j = i + __builtin_ctz(mine), c = a.cells[j] - low;
        float& value = a.values[a.cells[j]];
        if (value < 0) continue;  // no camera sees it
        const float found = density_value(a.sigma[j]);
        const bool again = met[c >> 6] >> (c & 63) & 1;
        met[c >> 6] |= 1ull << (c & 63);
        const float old = again ? value : value > 3.1e38f ? 0 : decay * value;  // the first one replaces "unknown"
        value = found > old ? found : old;
      }
    }
  });
}

namespace {

// value = max(value, found), whatever the order in which threads come: the bits are those of a sequential run.
void raise_to(float* value, float found) {
  int32_t* bits = (int32_t*)value;
  int32_t old = __atomic_load_n(bits, __ATOMIC_RELAXED);
  for (;;) {
    const float present = as_float(old);
    if (present < 0 || (present >= found && present <= 3.1e38f)) return;
    if (__atomic_compare_exchange_n(bits, &old, as_int(found), true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) return;
  }
}

}  // namespace

RADFIELD_OP(occupancy_observe, OccupancyObserve) {
  const int G = (int)a.resolution, K = (int)a.cascades, shift = 3 * log2_of(G);
  parallel_blocks(a.M, BLOCK, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += W) {
      const int n = lanes_left(end - i);
      const vf x = load_n(a.x + i, n), y = load_n(a.x + a.M + i, n), z = load_n(a.x + 2 * a.M + i, n);
      const vf distance = distance_from_centre(x, y, z);
      const vi k = finest_cascade(distance, K);
      const vf s = inverse_side(k);
      const vi code = morton(cell_coordinate(x, s, G), cell_coordinate(y, s, G), cell_coordinate(z, s, G));
      const vi cell = (k << shift) + code;
      const vf found = density_value(load_n(a.sigma + i, n));
      const vf all = x + y + z;
      const vi inside = (distance <= 0.5f * (float)(1 << (K - 1))) & (all == all);  // not NaN
      const vf present = gather(a.values, cell);
      const vi raises = inside & (((present >= 0.0f) & (present < found)) | (present > 3.1e38f));
      for (uint32_t bits = mask_bits(raises) & ((1u << n) - 1); bits; bits &= bits - 1) {
        const int lane = __builtin_ctz(bits);
        raise_to(a.values + cell[lane], found[lane]);
      }
    }
  });
}

namespace {

struct Sum {
  double total;
  int64_t count;
};

// Sum and number of the cells that a camera sees and that were evaluated.
Sum sum_of_known(const float* values, int64_t n) {
  vf total = {};
  vi count = {};
  for (int64_t i = 0; i < n; i += W) {
    const vf v = load(values + i);
    const vi known = (v >= 0.0f) & (v < 3.1e38f);
    total = total + select(known, v, vf{});
    count = count - known;
  }
  int64_t c = 0;
  for (int i = 0; i < W; ++i) c += count[i];
  return {(double)sum(total), c};
}

float occupied_above(const OccupancyBitfield& a) {
  const int64_t blocks = (a.T + SUM_BLOCK - 1) / SUM_BLOCK;
  Sum* sums = (Sum*)scratch(blocks * (int64_t)sizeof(Sum));
  parallel_for(blocks, [&](int64_t b) {
    const int64_t begin = b * SUM_BLOCK, left = a.T - begin;
    sums[b] = sum_of_known(a.values + begin, left < SUM_BLOCK ? left : SUM_BLOCK);
  });
  Sum all = {};
  for (int64_t b = 0; b < blocks; ++b) all.total += sums[b].total, all.count += sums[b].count;
  const double mean = all.count ? all.total / (double)all.count : a.limit;
  return (float)(mean < a.limit ? mean : a.limit);
}

uint64_t bits_above(const float* values, float threshold) {
  uint64_t word = 0;
  for (int i = 0; i < 64; i += W) word |= (uint64_t)mask_bits(load(values + i) > threshold) << i;
  return word;
}

// ORs a cascade into the next coarser one, whose middle it fills: 8 blocks of 4^3 fine cells are one coarse block.
void merge_into_coarser(uint64_t* coarse, const uint64_t* fine, int blocks) {
  const int quarter = blocks / 4, half = blocks / 2;
  parallel_for(half, [&](int64_t z) {
    for (int y = 0; y < half; ++y)
      for (int x = 0; x < half; ++x) {
        const uint64_t* eight = fine + 8 * morton<int32_t>(x, y, (int32_t)z);
        uint64_t merged = 0;
        for (int i = 0; i < 8; ++i) merged |= (uint64_t)bytes_set(eight[i]) << (8 * i);
        coarse[morton<int32_t>(x + quarter, y + quarter, (int32_t)z + quarter)] |= merged;
      }
  });
}

// The 2x2x2 cells of which some are occupied ("octants", half a block along each axis): bit x of row (z, y).
void list_octants(uint64_t* rows, const uint64_t* cells, int blocks) {
  const int words = (2 * blocks + 63) / 64;
  parallel_for(blocks, [&](int64_t z) {
    uint64_t* slab = rows + 4 * z * blocks * words;  // two layers of 2 blocks rows each
    memset(slab, 0, (size_t)(4 * blocks * words) * 8);
    for (int y = 0; y < blocks; ++y)
      for (int x = 0; x < blocks; ++x) {
        const uint64_t word = cells[morton<int32_t>(x, y, (int32_t)z)];
        if (word == 0) continue;
        const uint32_t octants = bytes_set(word);  // bit 4 z + 2 y + x
        for (int i = 0; i < 4; ++i) {
          uint64_t* row = slab + ((i / 2) * 2 * blocks + 2 * y + i % 2) * words;
          row[x / 32] |= (uint64_t)(octants >> (2 * i) & 3) << (2 * x & 63);
        }
      }
  });
}

// Bit i of the result is bit 2 i of the word.
uint32_t even_bits(uint64_t word) {
  word &= 0x5555555555555555ull;
  word = (word | word >> 1) & 0x3333333333333333ull;
  word = (word | word >> 2) & 0x0f0f0f0f0f0f0f0full;
  word = (word | word >> 4) & 0x00ff00ff00ff00ffull;
  word = (word | word >> 8) & 0x0000ffff0000ffffull;
  return (uint32_t)(word | word >> 16);
}

// Marks the 4^3 blocks that have an occupied cell within 2 cells: those where some octant from 2 b - 1 to 2 b + 2 along
// each axis has one. Bit x of row (z, y), whole words.
void mark_near_blocks(int32_t* near, const uint64_t* cells, int blocks) {
  const int words = (2 * blocks + 63) / 64, side = 2 * blocks;
  uint64_t* rows = (uint64_t*)scratch((int64_t)side * side * words * 8);
  const uint32_t inside = blocks < 32 ? (1u << blocks) - 1 : ~0u;
  list_octants(rows, cells, blocks);
  parallel_for(blocks, [&](int64_t z) {
    for (int y = 0; y < blocks; ++y) {
      uint64_t merged[4] = {};  // a word on each side stays 0
      for (int oz = 2 * (int)z - 1; oz <= 2 * z + 2; ++oz)
        for (int oy = 2 * y - 1; oy <= 2 * y + 2; ++oy)
          for (int w = 0; w < words && oz >= 0 && oy >= 0 && oz < side && oy < side; ++w)
            merged[w + 1] |= rows[(oz * side + oy) * words + w];
      for (int w = 1; w <= words; ++w) {
        const uint64_t m = merged[w], left = m << 1 | merged[w - 1] >> 63;
        const uint64_t right = m >> 1 | merged[w + 1] << 63, right2 = m >> 2 | merged[w + 1] << 62;
        near[(z * blocks + y) * words + w - 1] = (int32_t)(even_bits(m | left | right | right2) & inside);
      }
    }
  });
}

}  // namespace

RADFIELD_OP(occupancy_bitfield, OccupancyBitfield) {
  const int blocks = (int)a.resolution / 4;
  const int64_t words = a.B / a.cascades, near_words = a.S / a.cascades;
  const float threshold = occupied_above(a);
  *a.threshold = threshold;
  parallel_blocks(a.B, BLOCK / 64 * 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) a.bitfield[i] = (int64_t)bits_above(a.values + 64 * i, threshold);
  });
  for (int64_t k = 0; k < a.cascades; ++k) {
    uint64_t* cells = (uint64_t*)a.bitfield + k * words;
    if (k > 0) merge_into_coarser(cells, cells - words, blocks);
    mark_near_blocks(a.near_blocks + k * near_words, cells, blocks);
  }
}
