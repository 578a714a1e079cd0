// The keywords of CUDA C++, its vector types, half and bfloat16, and the intrinsics that concern one thread alone.
#pragma once
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <xmmintrin.h>

#include <type_traits>
#include <utility>

#define CUDA_EMU 1
#define __global__
#ifdef __SANITIZE_THREAD__  // GCC does not instrument the store of a struct that a call returns: no calls
#define __device__ __attribute__((always_inline))
#else
#define __device__
#endif
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __shared__ declare_shared_memory_by_the_macros_of_device_h
// Emulator code itself is never instrumented.
#define EMU inline __attribute__((no_sanitize("thread"), no_sanitize("address")))
// The place of a call, filled in by the compiler: what a collective is matched and reported by.
#define SITE int line = __builtin_LINE(), const char* fn = __builtin_FUNCTION()

// ---- vector types
#define EMU_VEC2(T, V, A) \
  struct alignas(A) V { T x, y; }; \
  __forceinline__ V make_##V(T x, T y) { return {x, y}; }
#define EMU_VEC3(T, V) \
  struct V { T x, y, z; }; \
  __forceinline__ V make_##V(T x, T y, T z) { return {x, y, z}; }
#define EMU_VEC4(T, V, A) \
  struct alignas(A) V { T x, y, z, w; }; \
  __forceinline__ V make_##V(T x, T y, T z, T w) { return {x, y, z, w}; }
#define EMU_VECTORS(T, V) \
  EMU_VEC2(T, V##2, 2 * sizeof(T)) EMU_VEC3(T, V##3) EMU_VEC4(T, V##4, 4 * sizeof(T))
EMU_VECTORS(float, float)
EMU_VECTORS(int, int)
EMU_VECTORS(unsigned, uint)
struct dim3 { unsigned x = 1, y = 1, z = 1; };

// ---- numbers
__forceinline__ float __uint_as_float(unsigned u) { return __builtin_bit_cast(float, u); }
__forceinline__ unsigned __float_as_uint(float f) { return __builtin_bit_cast(unsigned, f); }
__forceinline__ float __int_as_float(int i) { return __builtin_bit_cast(float, i); }
__forceinline__ int __float_as_int(float f) { return __builtin_bit_cast(int, f); }
namespace cuda_emu {
EMU uint16_t bfloat_bits(float f) {  // round to nearest even, NaN kept
  unsigned u = __float_as_uint(f);
  return f != f ? 0x7fff : uint16_t((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
EMU float bfloat_value(uint16_t b) { return __uint_as_float(unsigned(b) << 16); }
EMU uint16_t half_bits(float f) {
  unsigned sign = (__float_as_uint(f) >> 16) & 0x8000, u = __float_as_uint(f) & 0x7fffffff;
  if (u > 0x7f800000) return 0x7fff;
  if (u >= 0x477ff000) return uint16_t(sign | 0x7c00);  // rounds to infinity
  if (u < 0x38800000)                                   // subnormal: let the adder round
    return uint16_t(sign | (__float_as_uint(__uint_as_float(u) + 0.5f) - 0x3f000000));
  return uint16_t(sign | ((u + 0xfff + ((u >> 13) & 1) - 0x38000000) >> 13));
}
EMU float half_value(uint16_t h) {
  unsigned sign = unsigned(h & 0x8000) << 16, exponent = (h >> 10) & 31, fraction = h & 0x3ff;
  if (exponent == 31) return __uint_as_float(sign | 0x7f800000 | fraction << 13);
  float f = exponent ? __uint_as_float((exponent + 112) << 23 | fraction << 13) : fraction * 0x1p-24f;
  return sign ? -f : f;
}
}  // namespace cuda_emu

// Arithmetic in float, then rounded: exact for + - * / because 24 bits >= 2 * 11 + 2. Conversions are inlined, so that
// the loads and stores of their callers are checked.
#define EMU_SMALL_FLOAT(T, T2, bits, value, to, from, to2, low, high)                             \
  struct T {                                                                                      \
    uint16_t x;                                                                                   \
    T() = default;                                                                                \
    __forceinline__ T(float f) : x(cuda_emu::bits(f)) {}                                          \
    __forceinline__ operator float() const { return cuda_emu::value(x); }                         \
    __forceinline__ T& operator+=(T o) { return *this = T(float(*this) + float(o)); }             \
  };                                                                                              \
  struct alignas(4) T2 { T x, y; };                                                               \
  __forceinline__ T to(float f) { return T(f); }                                                  \
  __forceinline__ float from(T h) { return float(h); }                                            \
  __forceinline__ T2 to2(float x, float y) { return {T(x), T(y)}; }                               \
  __forceinline__ float low(T2 v) { return float(v.x); }                                          \
  __forceinline__ float high(T2 v) { return float(v.y); }                                         \
  __forceinline__ T __hadd(T a, T b) { return T(float(a) + float(b)); }                           \
  __forceinline__ T __hmul(T a, T b) { return T(float(a) * float(b)); }                           \
  __forceinline__ T __hfma(T a, T b, T c) { return T(float(double(a) * double(b) + double(c))); } \
  __forceinline__ T2 __hadd2(T2 a, T2 b) { return {__hadd(a.x, b.x), __hadd(a.y, b.y)}; }         \
  __forceinline__ T2 __hmul2(T2 a, T2 b) { return {__hmul(a.x, b.x), __hmul(a.y, b.y)}; }
EMU_SMALL_FLOAT(__half, __half2, half_bits, half_value, __float2half, __half2float,
                __floats2half2_rn, __low2float, __high2float)
EMU_SMALL_FLOAT(__nv_bfloat16, __nv_bfloat162, bfloat_bits, bfloat_value, __float2bfloat16,
                __bfloat162float, __floats2bfloat162_rn, __low2float, __high2float)
typedef __half half;
typedef __half2 half2;

// ---- intrinsics
// glibc's own math.h already declares __expf and its like: macros, not functions.
#define __expf(x) expf(x)
#define __logf(x) logf(x)
EMU float rsqrtf(float x) { return 1.f / sqrtf(x); }
EMU float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
EMU float __fsqrt_rn(float x) { return sqrtf(x); }
EMU float __saturatef(float x) { return x > 0.f ? (x < 1.f ? x : 1.f) : 0.f; }  // NaN gives 0
EMU int __float2int_rn(float x) { return int(rintf(x)); }
// cvt.rzi: NaN gives 0, what is beyond the integers the nearest of them
EMU int __float2int_rz(float x) {
  return x != x ? 0 : x >= 0x1p31f ? 0x7fffffff : x <= -0x1p31f ? int(0x80000000u) : int(x);
}
EMU int __popc(unsigned x) { return __builtin_popcount(x); }
EMU int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
EMU int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
EMU int __ffs(int x) { return __builtin_ffs(x); }
EMU int __ffsll(long long x) { return __builtin_ffsll(x); }
#define EMU_MIN(name, fname, condition)                                                    \
  template <class A, class B> EMU std::common_type_t<A, B> name(A x, B y) {                \
    std::common_type_t<A, B> a = x, b = y;                                                 \
    if constexpr (std::is_floating_point_v<decltype(a)>) return fname(a, b);               \
    else return condition ? a : b;                                                         \
  }
EMU_MIN(min, fmin, a < b)
EMU_MIN(max, fmax, b < a)
