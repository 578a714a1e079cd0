// Streams [C][M] of fp32 or bf16 in and out of panels: n samples from i, n <= PW.
#pragma once
#include "mlp_kernels.h"

namespace radfield {
namespace {

RADFIELD_SIMD Channel load_stream(const void* stream, int64_t type, int64_t row, int64_t M, int64_t i, int n) {
  const int low = n < W ? n : W, high = n - low;
  if (type == F32) {
    const float* p = (const float*)stream + row * M + i;
    return {load_n(p, low), load_n(p + low, high)};
  }
  const bf16* p = (const bf16*)stream + row * M + i;
  return {load_n(p, low), load_n(p + low, high)};
}
RADFIELD_SIMD void store_stream(void* stream, int64_t type, int64_t row, int64_t M, int64_t i, int n, Channel c) {
  const int low = n < W ? n : W, high = n - low;
  if (type == F32) {
    float* p = (float*)stream + row * M + i;
    store_n(p, c.low, low), store_n(p + low, c.high, high);
  } else {
    bf16* p = (bf16*)stream + row * M + i;
    store_n(p, c.low, low), store_n(p + low, c.high, high);
  }
}

// Asks for the panel of a stream that comes two panels later. A panel reads and writes dozens of streams, more than the
// hardware foresees: without this a third of the backward pass was waiting.
constexpr int PREFETCH_AHEAD = 2;
RADFIELD_SIMD void prefetch_stream(const void* stream, int64_t type, int64_t row, int64_t M, int64_t i) {
  const int64_t size = type == F32 ? 4 : 2;
  const char* p = (const char*)stream + (row * M + i + PREFETCH_AHEAD * PW) * size;
  for (int64_t line = 0; line < PW * size; line += 64) __builtin_prefetch(p + line);
}

struct Inputs {
  const void *x0, *x1;
  int64_t type0, type1, A, B, M;
  RADFIELD_SIMD Channel channel(int c, int64_t i, int n) const {
    if (c < A) return load_stream(x0, type0, c, M, i, n);
    if (c < A + B) return load_stream(x1, type1, c - A, M, i, n);
    return Channel{};
  }
  // Channel c from sample i on where it lies there as bf16, for a whole panel; else null.
  RADFIELD_SIMD const bf16* whole_bf16(int c, int64_t i, int n) const {
    if (n != PW || c >= A + B || (c < A ? type0 : type1) != BF16) return nullptr;
    return c < A ? (const bf16*)x0 + c * M + i : (const bf16*)x1 + (c - A) * M + i;
  }
  RADFIELD_SIMD void prefetch(int64_t i) const {
    for (int64_t c = 0; c < A; ++c) prefetch_stream(x0, type0, c, M, i);
    for (int64_t c = 0; c < B; ++c) prefetch_stream(x1, type1, c, M, i);
  }
};

}  // namespace
}  // namespace radfield
