// A stable radix sort on CUDA: items (key, number), 8 bits of the keys per pass, three kernels per pass. Each block of
// the first and the third takes SORT_ITEMS items that lie together; every place follows from counts, so the order is
// one and the same.
//
// Letters: n items, B blocks.
#pragma once
#include "../cuda/device.h"

namespace radfield {

constexpr int SORT_BITS = 8, SORT_DIGITS = 1 << SORT_BITS, SORT_THREADS = SORT_DIGITS, SORT_WARPS = SORT_THREADS / WARP;
constexpr int SORT_ROUNDS = 8, SORT_ITEMS = SORT_THREADS * SORT_ROUNDS;

struct SortPass {
  const uint2* from;
  uint2* to;
  uint32_t* totals;  // [SORT_DIGITS]: items of each digit
  uint32_t* counts;  // [SORT_DIGITS, B]: items of each digit in each block, then in the blocks before it
  int64_t n, B;
  int shift;

  RADFIELD_FN uint32_t digit(uint2 item) const { return item.x >> shift & (SORT_DIGITS - 1); }
  RADFIELD_FN int64_t end(int64_t begin, int64_t items) const { return begin + items < n ? begin + items : n; }
};

// By B blocks.
RADFIELD_FN void sort_count(const SortPass& p) {
  SHARED_ARRAY(uint32_t, counts, [SORT_DIGITS]);
  counts[threadIdx.x] = 0;
  __syncthreads();
  const int64_t begin = (int64_t)blockIdx.x * SORT_ITEMS, end = p.end(begin, SORT_ITEMS);
  for (int64_t i = begin + threadIdx.x; i < end; i += SORT_THREADS) atomicAdd(&counts[p.digit(p.from[i])], 1u);
  __syncthreads();
  p.counts[threadIdx.x * p.B + blockIdx.x] = counts[threadIdx.x];
}

// By a block per digit.
RADFIELD_FN void sort_scan(const SortPass& p) {
  const uint32_t total = scan_before(p.counts + blockIdx.x * p.B, p.B);
  if (threadIdx.x == 0) p.totals[blockIdx.x] = total;
}

// The lanes of the warp that have the same digit, of those where `inside`.
RADFIELD_FN uint32_t lanes_with(uint32_t digit, bool inside) {
  uint32_t peers = __ballot_sync(FULL, inside);
  for (int bit = 0; bit < SORT_BITS; ++bit) {
    const uint32_t set = __ballot_sync(FULL, digit >> bit & 1);
    peers &= digit >> bit & 1 ? set : ~set;
  }
  return peers;
}

// By B blocks. A warp takes items that lie together, in order.
RADFIELD_FN void sort_scatter(const SortPass& p) {
  SHARED_ARRAY(uint32_t, next, [SORT_WARPS][SORT_DIGITS]);  // where the warp's next item of a digit goes
  const int thread = (int)threadIdx.x, warp = thread / WARP;
  for (int w = 0; w < SORT_WARPS; ++w) next[w][thread] = 0;
  __syncthreads();
  const int64_t begin = (int64_t)blockIdx.x * SORT_ITEMS + warp * (WARP * SORT_ROUNDS), end = p.end(begin, WARP * SORT_ROUNDS);
  for (int64_t i = begin + lane_number(); i < end; i += WARP) atomicAdd(&next[warp][p.digit(p.from[i])], 1u);
  uint32_t all, start = block_sum_before(p.totals[thread], all) + p.counts[thread * p.B + blockIdx.x];
  for (int w = 0; w < SORT_WARPS; ++w) {
    const uint32_t count = next[w][thread];
    next[w][thread] = start, start += count;
  }
  __syncthreads();
  for (int64_t at = begin; at < end; at += WARP) {
    const int64_t i = at + lane_number();
    const uint2 item = p.from[i < end ? i : at];
    const uint32_t digit = p.digit(item), peers = lanes_with(digit, i < end);
    const int before = __popc(peers & ((1u << lane_number()) - 1));
    const uint32_t place = next[warp][digit] + before;
    __syncwarp();
    if (i < end) {
      p.to[place] = item;
      if (before == 0) next[warp][digit] = place + __popc(peers);
    }
    __syncwarp();
  }
}

}  // namespace radfield
