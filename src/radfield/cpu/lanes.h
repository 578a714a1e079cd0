// Loops over a stream, W lanes at a time; sums along the lanes; masks as bits.
#pragma once
#include <utility>

#include "../maths.h"

namespace radfield {

// body(i, n) for i = begin, begin + W, ...: n lanes, W but for the last. Where n is W the compiler knows it (the body
// stands twice), so that the load_n and store_n of whole vectors become plain moves on every instruction set.
template <class Body>
RADFIELD_SIMD void for_lanes(int64_t begin, int64_t end, Body body) {
  int64_t i = begin;
  for (; i + W <= end; i += W) body(i, W);
  if (i < end) body(i, (int)(end - i));
}

template <int K, int... i>
RADFIELD_SIMD vf moved_up(vf v, vf below, std::integer_sequence<int, i...>) {
  return __builtin_shufflevector(below, v, (W - K + i)...);
}
// v moved up by K lanes: lane i takes lane i - K; the lanes below take the last ones of `below`.
template <int K>
RADFIELD_SIMD vf moved_up(vf v, vf below = vf{}) {
  return moved_up<K>(v, below, std::make_integer_sequence<int, W>{});
}
RADFIELD_SIMD vi moved_up_one(vi v, vi below) { return (vi)moved_up<1>((vf)v, (vf)below); }
// v moved down by K lanes: lane i takes lane i + K; the lanes above take the first ones of `above`.
template <int K>
RADFIELD_SIMD vf moved_down(vf v, vf above = vf{}) {
  return moved_up<W - K>(above, v);
}

// Lane i: the sum of lanes 0..i; and of lanes i..W-1.
template <int K = 1>
RADFIELD_SIMD vf prefix_sum(vf v) {
  v = v + moved_up<K>(v);
  if constexpr (2 * K < W) v = prefix_sum<2 * K>(v);
  return v;
}
template <int K = 1>
RADFIELD_SIMD vf suffix_sum(vf v) {
  v = v + moved_down<K>(v);
  if constexpr (2 * K < W) v = suffix_sum<2 * K>(v);
  return v;
}

// The sums of the lanes of W vectors, as one vector: halves are added pairwise until one vector is left.
template <int N>
RADFIELD_SIMD vf lane_sums(vf (&v)[N]) {
  if constexpr (N == 1) {
    return v[0];
  } else {
    vf half[N / 2];
    for (int i = 0; i < N / 2; ++i) {
      vi even, odd;
      deinterleave((vi)v[2 * i], (vi)v[2 * i + 1], even, odd);
      half[i] = (vf)even + (vf)odd;
    }
    return lane_sums<N / 2>(half);
  }
}

// Rows to columns: as many perfect shuffles of the rows as W has bits.
RADFIELD_SIMD void transpose(vi (&rows)[W]) {
  for (int stage = 1; stage < W; stage *= 2) {
    vi shuffled[W];
    for (int i = 0; i < W / 2; ++i) interleave(rows[i], rows[i + W / 2], shuffled[2 * i], shuffled[2 * i + 1]);
    for (int i = 0; i < W; ++i) rows[i] = shuffled[i];
  }
}

// Bit i is the sign bit of lane i: of a mask (0 or -1 per lane), the lane itself.
RADFIELD_SIMD uint32_t mask_bits(vi mask) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask((__m512i)mask);
#elif defined(__AVX2__)
  return (uint32_t)_mm256_movemask_ps((__m256)mask);
#elif defined(__x86_64__)
  return (uint32_t)_mm_movemask_ps((__m128)mask);
#else
  uint32_t bits = 0;
  for (int i = 0; i < W; ++i) bits |= ((uint32_t)mask[i] >> 31) << i;
  return bits;
#endif
}

// Writes first + i for each set bit i, in order; returns how many. Up to W words at `out` are overwritten.
RADFIELD_SIMD int64_t append_lanes(int32_t* out, int32_t first, uint32_t bits) {
#if defined(__AVX512F__)
  // Compressed in a register and stored whole: the store that compresses is microcode on some processors.
  store(out, (vi)_mm512_maskz_compress_epi32((__mmask16)bits, (__m512i)(lanes() + first)));
  return __builtin_popcount(bits);
#else
  int64_t count = 0;
  for (; bits; bits &= bits - 1) out[count++] = first + __builtin_ctz(bits);
  return count;
#endif
}

}  // namespace radfield

// Marks the lambda given to for_lanes: both copies are inlined.
#define RADFIELD_LANES __attribute__((always_inline))
