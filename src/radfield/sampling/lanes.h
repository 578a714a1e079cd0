// What marching needs of a SIMD mask beyond cpu/simd.h: its lanes as bits, and the numbers of its set lanes.
#pragma once
#include "../maths.h"

namespace radfield {

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
