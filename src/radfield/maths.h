// The scalar functions and number types that kernels are written in, for every compiler.
//
// A kernel's maths (`name.h`) is templated on the number type F: `float` on a GPU and in scalar code, a SIMD vector
// (`vf`, cpu/simd.h) on a CPU. It is straight-line code that calls the overloads here; branches are select(mask, a, b).
// Contraction is off in all compilers, so a fused multiply-add happens exactly where fma() stands.
#pragma once
#if defined(__CUDACC_RTC__)
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#define RADFIELD_FN __device__ __forceinline__
#elif defined(__CUDACC__) || defined(CUDA_EMU)
#include <stdint.h>
#define RADFIELD_FN __device__ __forceinline__
#else
#include <stdint.h>
#define RADFIELD_CPU 1
#define RADFIELD_FN inline __attribute__((always_inline))
#endif

namespace radfield {

struct bf16 {
  uint16_t bits;
};

// IEEE half precision: storage; cuda/ptx.h converts it, CPUs have none.
struct f16 {
  uint16_t bits;
};

// Codes of op.py's DTYPES.
enum DType { F32 = 0, BF16 = 1, U8 = 2, F16 = 7, U16 = 8 };

#ifdef RADFIELD_CPU
RADFIELD_FN int32_t as_int(float x) { int32_t i; __builtin_memcpy(&i, &x, 4); return i; }
RADFIELD_FN float as_float(int32_t i) { float x; __builtin_memcpy(&x, &i, 4); return x; }
RADFIELD_FN float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
RADFIELD_FN float sqrt(float x) { return __builtin_sqrtf(x); }
RADFIELD_FN float floor(float x) { return __builtin_floorf(x); }
RADFIELD_FN int32_t to_int(float x) { return (int32_t)x; }
RADFIELD_FN float abs(float x) { return __builtin_fabsf(x); }
RADFIELD_FN int bit_count(uint64_t x) { return __builtin_popcountll(x); }
RADFIELD_FN int lowest_bit(uint64_t x) { return __builtin_ctzll(x); }  // x is not 0
inline double natural_log(double x) { return __builtin_log(x); }
RADFIELD_FN double square_root(double x) { return __builtin_sqrt(x); }
inline double log_of_one_plus(double x) { return __builtin_log1p(x); }
inline double power(double x, double y) { return __builtin_pow(x, y); }
#else  // the names of CUDA, which has no builtins of GCC
RADFIELD_FN int32_t as_int(float x) { return __float_as_int(x); }
RADFIELD_FN float as_float(int32_t i) { return __int_as_float(i); }
RADFIELD_FN float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
RADFIELD_FN float sqrt(float x) { return __fsqrt_rn(x); }
RADFIELD_FN float floor(float x) { return floorf(x); }
RADFIELD_FN int32_t to_int(float x) { return __float2int_rz(x); }  // the nearest int where x is beyond
RADFIELD_FN float abs(float x) { return fabsf(x); }
RADFIELD_FN int bit_count(uint64_t x) { return __popcll(x); }
RADFIELD_FN int lowest_bit(uint64_t x) { return __ffsll((long long)x) - 1; }
RADFIELD_FN double natural_log(double x) { return ::log(x); }
RADFIELD_FN double square_root(double x) { return ::sqrt(x); }
RADFIELD_FN double log_of_one_plus(double x) { return ::log1p(x); }
RADFIELD_FN double power(double x, double y) { return ::pow(x, y); }
#endif
RADFIELD_FN float min(float a, float b) { return a < b ? a : b; }  // b where either is NaN
RADFIELD_FN float max(float a, float b) { return a > b ? a : b; }
RADFIELD_FN float select(bool mask, float a, float b) { return mask ? a : b; }
RADFIELD_FN int32_t select(bool mask, int32_t a, int32_t b) { return mask ? a : b; }
RADFIELD_FN float to_float(int32_t i) { return (float)i; }

// Round to nearest, ties to even; NaN stays NaN because its quiet bit is set.
RADFIELD_FN bf16 to_bf16(float x) {
  uint32_t u = (uint32_t)as_int(x);
  if (x != x) return {(uint16_t)((u >> 16) | 0x40)};
  return {(uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16)};
}
RADFIELD_FN float to_float(bf16 x) { return as_float((int32_t)((uint32_t)x.bits << 16)); }

}  // namespace radfield

#ifdef RADFIELD_CPU
#include "cpu/simd.h"
#endif

namespace radfield {

// e^x to 2 units in the last place for x in [-87, 88]; clamped outside, NaN stays. Cephes expf: 2^n times a degree-5 polynomial.
template <class F>
RADFIELD_FN F exp(F x) {
  x = min(F{} + 88.0f, max(F{} - 87.0f, x));
  F n = floor(fma(x, F{} + 1.44269504f, F{} + 0.5f));
  F r = fma(n, F{} - 0.693359375f, x);  // ln 2 in two pieces, the first exact in few bits
  r = fma(n, F{} + 2.12194440e-4f, r);
  F p = F{} + 1.9875691500e-4f;
  p = fma(p, r, F{} + 1.3981999507e-3f);
  p = fma(p, r, F{} + 8.3334519073e-3f);
  p = fma(p, r, F{} + 4.1665795894e-2f);
  p = fma(p, r, F{} + 1.6666665459e-1f);
  p = fma(p, r, F{} + 5.0000001201e-1f);
  p = fma(p, r * r, r + 1.0f);
  return p * as_float((to_int(n) + 127) << 23);
}

// ln x for x > 0 (normal numbers), to about 2 units in the last place. Cephes logf.
template <class F>
RADFIELD_FN F log(F x) {
  auto bits = as_int(x);
  auto exponent = ((bits >> 23) & 0xff) - 126;
  F m = as_float((bits & 0x7fffff) | 0x3f000000);  // in [0.5, 1)
  auto low = m < 0.707106781f;
  F e = to_float(exponent) - select(low, F{} + 1.0f, F{});
  m = select(low, m + m, m) - 1.0f;
  F z = m * m, p = F{} + 7.0376836292e-2f;
  p = fma(p, m, F{} - 1.1514610310e-1f);
  p = fma(p, m, F{} + 1.1676998740e-1f);
  p = fma(p, m, F{} - 1.2420140846e-1f);
  p = fma(p, m, F{} + 1.4249322787e-1f);
  p = fma(p, m, F{} - 1.6668057665e-1f);
  p = fma(p, m, F{} + 2.0000714765e-1f);
  p = fma(p, m, F{} - 2.4999993993e-1f);
  p = fma(p, m, F{} + 3.3333331174e-1f);
  p = p * m * z;
  p = fma(e, F{} - 2.12194440e-4f, p);
  p = fma(z, F{} - 0.5f, p);
  return fma(e, F{} + 0.693359375f, m + p);
}

// sin(2 pi u), exact period reduction because u is in turns; error below 2e-7. sin(2 pi (u + 1/4)) is the cosine.
template <class F>
RADFIELD_FN F sin_turns(F u) {
  u = u - floor(u + 0.5f);                                  // [-0.5, 0.5)
  F a = abs(u);
  F folded = select(a > 0.25f, F{} + 0.5f - a, a);          // sin(pi - t) = sin t
  F t = folded * 6.28318530718f, t2 = t * t;
  F p = F{} - 2.50521084e-8f;
  p = fma(p, t2, F{} + 2.75573192e-6f);
  p = fma(p, t2, F{} - 1.98412698e-4f);
  p = fma(p, t2, F{} + 8.33333333e-3f);
  p = fma(p, t2, F{} - 1.66666667e-1f);
  F s = fma(p * t2, t, t);
  return select(u < 0.0f, F{} - s, s);
}

template <class F>
RADFIELD_FN F sigmoid(F x) {
  return (F{} + 1.0f) / (exp(F{} - x) + 1.0f);
}

}  // namespace radfield
