// What the MLP's kernels on AMX tiles share.
#pragma once
#include "amx.h"
#include "mlp_kernels.h"

namespace radfield {
namespace {

// Four perfect shuffles of the 16 rows turn rows into columns.
RADFIELD_SIMD void transpose_16x16(__m512i (&a)[16]) {
  const __m512i low = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const __m512i high = _mm512_set_epi32(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8);
  __m512i b[16];
  for (int stage = 0; stage < 2; ++stage) {
    for (int i = 0; i < 8; ++i) {
      b[2 * i] = _mm512_permutex2var_epi32(a[i], low, a[i + 8]);
      b[2 * i + 1] = _mm512_permutex2var_epi32(a[i], high, a[i + 8]);
    }
    for (int i = 0; i < 8; ++i) {
      a[2 * i] = _mm512_permutex2var_epi32(b[i], low, b[i + 8]);
      a[2 * i + 1] = _mm512_permutex2var_epi32(b[i], high, b[i + 8]);
    }
  }
}
inline void transpose_16x16(uint32_t* out, const uint32_t* in) {
  __m512i a[16];
  for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_si512(in + 16 * i);
  transpose_16x16(a);
  for (int i = 0; i < 16; ++i) _mm512_storeu_si512(out + 16 * i, a[i]);
}

// dw[(i + r) down + (j + c) across] += tile[r][c], one of down and across being 1.
inline void add_tile(float* dw, int64_t down, int64_t across, float* tile, int i, int j, int rows, int columns) {
  if (across != 1) {
    alignas(64) float turned[16 * 16];
    transpose_16x16((uint32_t*)turned, (const uint32_t*)tile);
    return add_tile(dw, across, 1, turned, j, i, columns, rows);
  }
  const int n = columns - j < 16 ? columns - j : 16;
  for (int r = 0; r < 16 && i + r < rows; ++r) {
    float* at = dw + (i + r) * down + j;
    store_n(at, load_n(at, n) + load(tile + 16 * r), n);
  }
}

}  // namespace
}  // namespace radfield
