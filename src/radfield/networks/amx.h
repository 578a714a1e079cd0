// AMX tiles of 16 rows of 64 bytes, wrapped one function per instruction. With RADFIELD_EMULATE_AMX they are plain C++,
// so that the kernels built on them are tested on CPUs without AMX.
#pragma once
#if defined(__AVX512F__)
#include <stdint.h>
#include <string.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "../maths.h"

namespace radfield::amx {

#if defined(RADFIELD_EMULATE_AMX)

inline thread_local uint32_t tiles[8][16][16];

inline bool enable() { return true; }
inline void configure() {}
inline void release() {}
template <int T> inline void zero() { memset(tiles[T], 0, sizeof tiles[T]); }
template <int T> inline void load(const void* p, int64_t stride) {
  for (int i = 0; i < 16; ++i) memcpy(tiles[T][i], (const char*)p + i * stride, 64);
}
template <int T> inline void store(void* p, int64_t stride) {
  for (int i = 0; i < 16; ++i) memcpy((char*)p + i * stride, tiles[T][i], 64);
}
// C [16][16] fp32 += A [16][16 pairs] B [16 pairs][16]
template <int C, int A, int B> inline void dot() {
  for (int m = 0; m < 16; ++m)
    for (int n = 0; n < 16; ++n) {
      float sum = as_float((int32_t)tiles[C][m][n]);
      for (int k = 0; k < 16; ++k) {
        const uint32_t a = tiles[A][m][k], b = tiles[B][k][n];
        sum += as_float((int32_t)(a << 16)) * as_float((int32_t)(b << 16));
        sum += as_float((int32_t)(a & 0xffff0000u)) * as_float((int32_t)(b & 0xffff0000u));
      }
      tiles[C][m][n] = (uint32_t)as_int(sum);
    }
}

#else

// Asks the system for the tile registers; false where CPU or system have none. Once per process.
inline bool enable() {
#if defined(__linux__)
  constexpr int REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
  return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
  return false;
#endif
}

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes_per_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
inline void configure() {
  const TileConfig config;
  asm volatile("ldtilecfg %0" ::"m"(config) : "memory");
}
inline void release() { asm volatile("tilerelease" ::: "memory"); }

// Written out with a memory clobber: GCC 12's intrinsics declare no dependency, and stores before them were dropped.
template <int T> inline void zero() { asm volatile("tilezero %%tmm%c0" ::"i"(T) : "memory"); }
template <int T> inline void load(const void* p, int64_t stride) {
  asm volatile("tileloadd (%1,%2,1), %%tmm%c0" ::"i"(T), "r"(p), "r"(stride) : "memory");
}
template <int T> inline void store(void* p, int64_t stride) {
  asm volatile("tilestored %%tmm%c0, (%1,%2,1)" ::"i"(T), "r"(p), "r"(stride) : "memory");
}
template <int C, int A, int B> inline void dot() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B) : "memory");
}

#endif

}  // namespace radfield::amx
#endif
