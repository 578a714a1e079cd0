// The SIMD vector of the instruction set that this file is compiled for: `vf` (floats) and `vi` (int32), W lanes each.
// Built on the vector extensions of GCC and Clang: + - * / < & | ^ << work as they stand, m ? a : b selects; only what
// the extensions lack is written per instruction set. A comparison gives a `vi` of 0 and -1.
#pragma once
#include <stdint.h>
#include <string.h>

#include "features.h"
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace radfield {

#if defined(__AVX512F__)
constexpr int W = 16;
#elif defined(__AVX2__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif
typedef float vf __attribute__((vector_size(4 * W), aligned(4 * W)));
typedef int32_t vi __attribute__((vector_size(4 * W), aligned(4 * W)));
typedef uint32_t vu __attribute__((vector_size(4 * W), aligned(4 * W)));
typedef uint16_t vh __attribute__((vector_size(2 * W), aligned(2 * W)));

#define RADFIELD_SIMD inline __attribute__((always_inline))

// Memory. Addresses need no alignment. The _n forms touch only the first n lanes (0 <= n <= W), the others read 0.
RADFIELD_SIMD vf load(const float* p) { vf v; memcpy(&v, p, sizeof v); return v; }
RADFIELD_SIMD vi load(const int32_t* p) { vi v; memcpy(&v, p, sizeof v); return v; }
RADFIELD_SIMD void store(float* p, vf v) { memcpy(p, &v, sizeof v); }
RADFIELD_SIMD void store(int32_t* p, vi v) { memcpy(p, &v, sizeof v); }
#if defined(__AVX512F__)
RADFIELD_SIMD vf load_n(const float* p, int n) { return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
RADFIELD_SIMD vi load_n(const int32_t* p, int n) { return (vi)_mm512_maskz_loadu_epi32((__mmask16)((1u << n) - 1), p); }
RADFIELD_SIMD void store_n(float* p, vf v, int n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v); }
#else
RADFIELD_SIMD vf load_n(const float* p, int n) {
  if (n == W) return load(p);  // a copy of a size known at run time only is a call
  vf v = {};
  memcpy(&v, p, 4 * (size_t)n);
  return v;
}
RADFIELD_SIMD vi load_n(const int32_t* p, int n) {
  if (n == W) return load(p);
  vi v = {};
  memcpy(&v, p, 4 * (size_t)n);
  return v;
}
RADFIELD_SIMD void store_n(float* p, vf v, int n) {
  if (n == W) return store(p, v);
  memcpy(p, &v, 4 * (size_t)n);
}
#endif

// Arithmetic that the extensions lack.
RADFIELD_SIMD vf splat(float x) { return x - vf{}; }  // x + 0 would be an addition: it turns -0 into 0
RADFIELD_SIMD vi as_int(vf x) { return (vi)x; }
RADFIELD_SIMD vf as_float(vi x) { return (vf)x; }
RADFIELD_SIMD vf to_float(vi x) { return __builtin_convertvector(x, vf); }
RADFIELD_SIMD vi to_int(vf x) { return __builtin_convertvector(x, vi); }  // towards zero
RADFIELD_SIMD vf select(vi mask, vf a, vf b) { return mask ? a : b; }
RADFIELD_SIMD vi select(vi mask, vi a, vi b) { return mask ? a : b; }
RADFIELD_SIMD vf min(vf a, vf b) { return a < b ? a : b; }  // b where either is NaN
RADFIELD_SIMD vf max(vf a, vf b) { return a > b ? a : b; }
RADFIELD_SIMD vi min(vi a, vi b) { return a < b ? a : b; }
RADFIELD_SIMD vi max(vi a, vi b) { return a > b ? a : b; }
RADFIELD_SIMD vf abs(vf x) { return (vf)((vi)x & 0x7fffffff); }
#if defined(__AVX512F__)
RADFIELD_SIMD vf fma(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
RADFIELD_SIMD vf sqrt(vf x) { return (vf)_mm512_sqrt_ps((__m512)x); }
RADFIELD_SIMD vf floor(vf x) { return (vf)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
#elif defined(__AVX2__)
RADFIELD_SIMD vf fma(vf a, vf b, vf c) { return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
RADFIELD_SIMD vf sqrt(vf x) { return (vf)_mm256_sqrt_ps((__m256)x); }
RADFIELD_SIMD vf floor(vf x) { return (vf)_mm256_floor_ps((__m256)x); }
#elif defined(__aarch64__)
RADFIELD_SIMD vf fma(vf a, vf b, vf c) { return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
RADFIELD_SIMD vf sqrt(vf x) { return (vf)vsqrtq_f32((float32x4_t)x); }
RADFIELD_SIMD vf floor(vf x) { return (vf)vrndmq_f32((float32x4_t)x); }
#else  // x86-64-v2 has no fused multiply-add: two roundings there
RADFIELD_SIMD vf fma(vf a, vf b, vf c) { return a * b + c; }
RADFIELD_SIMD vf sqrt(vf x) { return (vf)_mm_sqrt_ps((__m128)x); }
RADFIELD_SIMD vf floor(vf x) { return (vf)_mm_floor_ps((__m128)x); }
#endif

// The sum of all lanes: halves are added until one lane is left, the same order on every compiler.
RADFIELD_SIMD float sum(vf v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)v);
#else
#if defined(__AVX2__)
  const __m128 q = _mm_add_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
  float lane[4];
  memcpy(lane, &q, sizeof lane);
  return (lane[0] + lane[2]) + (lane[1] + lane[3]);
#else
  return (v[0] + v[2]) + (v[1] + v[3]);
#endif
#endif
}
RADFIELD_SIMD bool any(vi mask) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask((__m512i)mask) != 0;
#else
  int32_t r = 0;
  for (int i = 0; i < W; ++i) r |= mask[i];
  return r != 0;
#endif
}

// Lane numbers 0..W-1.
RADFIELD_SIMD vi lanes() {
  vi v;
  for (int i = 0; i < W; ++i) v[i] = i;
  return v;
}

// The even and the odd ones of the 2 W words a, b.
RADFIELD_SIMD void deinterleave(vi a, vi b, vi& even, vi& odd) {
#if defined(__AVX512F__)
  const __m512i at = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  even = (vi)_mm512_permutex2var_epi32((__m512i)a, at, (__m512i)b);
  odd = (vi)_mm512_permutex2var_epi32((__m512i)a, _mm512_add_epi32(at, _mm512_set1_epi32(1)), (__m512i)b);
#elif defined(__AVX2__)
  even = __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14);
  odd = __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
#else
  even = __builtin_shufflevector(a, b, 0, 2, 4, 6), odd = __builtin_shufflevector(a, b, 1, 3, 5, 7);
#endif
}

// W records of R words, one after another, to R vectors of one word of each record. R is a power of two.
template <int R>
RADFIELD_SIMD void transpose_records(const vi (&records)[R], vi (&words)[R]) {
  if constexpr (R == 1) {
    words[0] = records[0];
  } else {
    vi even[R / 2], odd[R / 2], even_words[R / 2], odd_words[R / 2];
    for (int k = 0; k < R / 2; ++k) deinterleave(records[2 * k], records[2 * k + 1], even[k], odd[k]);
    transpose_records<R / 2>(even, even_words), transpose_records<R / 2>(odd, odd_words);
    for (int k = 0; k < R / 2; ++k) words[2 * k] = even_words[k], words[2 * k + 1] = odd_words[k];
  }
}

// The words of a and b in turn: a0 b0 a1 b1 ...
RADFIELD_SIMD void interleave(vi a, vi b, vi& low, vi& high) {
#if defined(__AVX512F__)
  const __m512i at = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  low = (vi)_mm512_permutex2var_epi32((__m512i)a, at, (__m512i)b);
  high = (vi)_mm512_permutex2var_epi32((__m512i)a, _mm512_add_epi32(at, _mm512_set1_epi32(8)), (__m512i)b);
#elif defined(__AVX2__)
  low = __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
  high = __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#else
  low = __builtin_shufflevector(a, b, 0, 4, 1, 5), high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
#endif
}

// The inverse of transpose_records: R vectors of one word of each record to W records of R words.
template <int R>
RADFIELD_SIMD void make_records(const vi (&words)[R], vi (&records)[R]) {
  if constexpr (R == 1) {
    records[0] = words[0];
  } else {
    vi even[R / 2], odd[R / 2], even_records[R / 2], odd_records[R / 2];
    for (int k = 0; k < R / 2; ++k) even[k] = words[2 * k], odd[k] = words[2 * k + 1];
    make_records<R / 2>(even, even_records), make_records<R / 2>(odd, odd_records);
    for (int k = 0; k < R / 2; ++k) interleave(even_records[k], odd_records[k], records[2 * k], records[2 * k + 1]);
  }
}

// base[at[0]], base[at[1]], ... as a vector: by a gather instruction where that is fast, else by plain loads put together
// in registers (through the stack it was slower: a wide load that meets several narrow stores waits for all of them).
RADFIELD_SIMD vi load_each(const int32_t* base, const int32_t* at) {
#define RADFIELD_AT(i) base[(uint32_t)at[i]]
#if defined(__AVX512F__)
  if (cpu_features.fast_gather) return (vi)_mm512_i32gather_epi32(_mm512_loadu_si512(at), base, 4);
  return vi{RADFIELD_AT(0), RADFIELD_AT(1), RADFIELD_AT(2), RADFIELD_AT(3), RADFIELD_AT(4), RADFIELD_AT(5),
            RADFIELD_AT(6), RADFIELD_AT(7), RADFIELD_AT(8), RADFIELD_AT(9), RADFIELD_AT(10), RADFIELD_AT(11),
            RADFIELD_AT(12), RADFIELD_AT(13), RADFIELD_AT(14), RADFIELD_AT(15)};
#elif defined(__AVX2__)
  return vi{RADFIELD_AT(0), RADFIELD_AT(1), RADFIELD_AT(2), RADFIELD_AT(3),
            RADFIELD_AT(4), RADFIELD_AT(5), RADFIELD_AT(6), RADFIELD_AT(7)};
#else
  return vi{RADFIELD_AT(0), RADFIELD_AT(1), RADFIELD_AT(2), RADFIELD_AT(3)};
#endif
#undef RADFIELD_AT
}
// The same with pairs of words (8-byte records): W / 2 of them fill a vector.
RADFIELD_SIMD vi load_each_pair(const int32_t* base, const int32_t* at) {
  typedef int64_t Pairs __attribute__((vector_size(4 * W), aligned(4 * W)));
  auto pair = [&](int i) __attribute__((always_inline)) {
    int64_t p;
    memcpy(&p, base + 2 * (int64_t)(uint32_t)at[i], 8);
    return p;
  };
#if defined(__AVX512F__)
  if (cpu_features.fast_gather)
    return (vi)_mm512_i32gather_epi64(_mm256_loadu_si256((const __m256i*)at), base, 8);
  return (vi)Pairs{pair(0), pair(1), pair(2), pair(3), pair(4), pair(5), pair(6), pair(7)};
#elif defined(__AVX2__)
  return (vi)Pairs{pair(0), pair(1), pair(2), pair(3)};
#else
  return (vi)Pairs{pair(0), pair(1)};
#endif
}
RADFIELD_SIMD vi gather(const int32_t* base, vi index) {
  alignas(64) int32_t at[W];
  store(at, index);
  return load_each(base, at);
}
// The words that start at each of W bytes, wherever these lie.
RADFIELD_SIMD vi gather_words(const uint8_t* base, vi byte) {
#if defined(__AVX512F__)
  if (cpu_features.fast_gather) return (vi)_mm512_i32gather_epi32((__m512i)byte, base, 1);
#endif
  alignas(64) int32_t at[W];
  store(at, byte);
  vi words;
  for (int i = 0; i < W; ++i) {
    int32_t word;
    memcpy(&word, base + (uint32_t)at[i], 4);
    words[i] = word;
  }
  return words;
}
RADFIELD_SIMD vf gather(const float* base, vi index) { return (vf)gather((const int32_t*)base, index); }

// Records of R words (R a power of two) at base[R at[0]], base[R at[1]], ...: one vector per word.
template <int R>
RADFIELD_SIMD void load_each_record(const int32_t* base, const int32_t* at, vi (&words)[R]) {
  vi records[R];
  if constexpr (R == 1) {
    records[0] = load_each(base, at);
  } else if constexpr (R == 2) {
    records[0] = load_each_pair(base, at), records[1] = load_each_pair(base, at + W / 2);
  } else {
    alignas(64) int32_t copies[W * R];
    for (int i = 0; i < W; ++i) memcpy(copies + i * R, base + R * (int64_t)(uint32_t)at[i], 4 * R);
    for (int k = 0; k < R; ++k) records[k] = load(copies + k * W);
  }
  transpose_records<R>(records, words);
}

// bf16: the upper half of a float. Rounds to nearest, ties to even; NaN stays NaN.
RADFIELD_SIMD vi bf16_bits(vf x) {
  vu u = (vu)x;
  vu rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
  return (vi)(x != x ? (vi)((u >> 16) | 0x40) : (vi)rounded);
}
// W bf16 to and from the low halves of W words.
RADFIELD_SIMD vi widen(vh h) {
#if defined(__AVX512F__)
  return (vi)_mm512_cvtepu16_epi32((__m256i)h);  // the compilers' own conversion goes by quarters
#else
  return (vi)__builtin_convertvector(h, vu);
#endif
}
RADFIELD_SIMD vh narrow(vi words) {
#if defined(__AVX512F__)
  return (vh)_mm512_cvtepi32_epi16((__m512i)words);
#else
  return __builtin_convertvector((vu)words, vh);
#endif
}
RADFIELD_SIMD vf load(const bf16* p) {
  vh h;
  memcpy(&h, p, sizeof h);
  return (vf)(widen(h) << 16);
}
RADFIELD_SIMD void store(bf16* p, vf v) {
  const vh h = narrow(bf16_bits(v));
  memcpy(p, &h, sizeof h);
}
RADFIELD_SIMD vf load_n(const bf16* p, int n) {
  if (n == W) return load(p);
  vh h = {};
  memcpy(&h, p, 2 * (size_t)n);
  return (vf)(widen(h) << 16);
}
RADFIELD_SIMD void store_n(bf16* p, vf v, int n) {
  if (n == W) return store(p, v);
  const vh h = narrow(bf16_bits(v));
  memcpy(p, &h, 2 * (size_t)n);
}

}  // namespace radfield
