// Instructions that CUDA C++ has no name for, one function each. The emulator has a twin of every one of them
// (tests/cuda_emulator/ptx_twins.h): whoever adds one adds both, and tests/cuda/test_emulator.py compares.
#pragma once
#include "../maths.h"
#ifndef CUDA_EMU

namespace radfield {

// p[0..1] += (a, b), p aligned to 8 bytes; p[0..3] += (a, b, c, d), p aligned to 16. Each value by itself is atomic.
RADFIELD_FN void add_2(float* p, float a, float b) {
#if __CUDA_ARCH__ >= 900
  asm volatile("red.global.add.v2.f32 [%0], {%1, %2};" : : "l"(__cvta_generic_to_global(p)), "f"(a), "f"(b) : "memory");
#else
  atomicAdd(p, a), atomicAdd(p + 1, b);
#endif
}
RADFIELD_FN void add_4(float* p, float a, float b, float c, float d) {
#if __CUDA_ARCH__ >= 900
  asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};"
               : : "l"(__cvta_generic_to_global(p)), "f"(a), "f"(b), "f"(c), "f"(d) : "memory");
#else
  atomicAdd(p, a), atomicAdd(p + 1, b), atomicAdd(p + 2, c), atomicAdd(p + 3, d);
#endif
}

// The bits of fp16 and fp32, to nearest.
RADFIELD_FN uint16_t half_of(float x) {
  uint16_t y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
  return y;
}
RADFIELD_FN float value_of_half(uint16_t x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
  return y;
}

// *p += a in fp16; p[0..1] += (a, b), p aligned to 4 bytes; p[0..N-1] += values, p aligned to 2 N bytes. Each value by
// itself is atomic.
RADFIELD_FN void add_1(uint16_t* p, float a) {
  asm volatile("red.global.add.noftz.f16 [%0], %1;" : : "l"(__cvta_generic_to_global(p)), "h"(half_of(a)) : "memory");
}
RADFIELD_FN void add_2(uint16_t* p, float a, float b) {
  const uint32_t word = (uint32_t)half_of(a) | (uint32_t)half_of(b) << 16;
  asm volatile("red.global.add.noftz.f16x2 [%0], %1;" : : "l"(__cvta_generic_to_global(p)), "r"(word) : "memory");
}
RADFIELD_FN void add_4(uint16_t* p, const float (&x)[4]) {
#if __CUDA_ARCH__ >= 900
  uint32_t w[2];
  for (int i = 0; i < 2; ++i) w[i] = (uint32_t)half_of(x[2 * i]) | (uint32_t)half_of(x[2 * i + 1]) << 16;
  asm volatile("red.global.add.noftz.v2.f16x2 [%0], {%1, %2};"
               : : "l"(__cvta_generic_to_global(p)), "r"(w[0]), "r"(w[1]) : "memory");
#else
  add_2(p, x[0], x[1]), add_2(p + 2, x[2], x[3]);
#endif
}
RADFIELD_FN void add_8(uint16_t* p, const float (&x)[8]) {
#if __CUDA_ARCH__ >= 900
  uint32_t w[4];
  for (int i = 0; i < 4; ++i) w[i] = (uint32_t)half_of(x[2 * i]) | (uint32_t)half_of(x[2 * i + 1]) << 16;
  asm volatile("red.global.add.noftz.v4.f16x2 [%0], {%1, %2, %3, %4};"
               : : "l"(__cvta_generic_to_global(p)), "r"(w[0]), "r"(w[1]), "r"(w[2]), "r"(w[3]) : "memory");
#else
  for (int i = 0; i < 8; i += 2) add_2(p + i, x[i], x[i + 1]);
#endif
}

// d (16x8, fp32) += a (16x16, bf16, row) * b (16x8, bf16, column). Lane l = 4 g + t holds
//   a: rows g, g+8, g, g+8 at columns 2t, 2t, 2t+8, 2t+8 (two to a word)
//   b: column g at rows 2t and 2t+8;   d: rows g, g, g+8, g+8 at columns 2t, 2t+1, 2t, 2t+1
RADFIELD_FN void mma_by_shuffles(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
RADFIELD_FN void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  mma_by_shuffles(d, a, b);  // Turing has no bf16 mma
#endif
}

// The same with fp16 operands. Turing has it for 8 of k at a time.
RADFIELD_FN void mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  for (int k = 0; k < 2; ++k)
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[2 * k]), "r"(a[2 * k + 1]), "r"(b[k]));
#endif
}

// What another thread may be writing atomically: read past the caches that are not coherent.
RADFIELD_FN float read_shared_by_all(const float* p) { return *(const volatile float*)p; }

}  // namespace radfield
#endif

namespace radfield {

// The same product by shuffles: for sm_75, and a second reading of the layout.
RADFIELD_FN void mma_by_shuffles(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  const int lane = (int)(threadIdx.x % 32), g = lane / 4, t = lane % 4;
  for (int j = 0; j < 8; ++j) {  // k = 2 (j % 4) + 8 (j / 4) and the one after
    const int from = j % 4, upper = j / 4;
    for (int r = 0; r < 2; ++r) {
      const uint32_t low = __shfl_sync(~0u, a[r], 4 * g + from), high = __shfl_sync(~0u, a[r + 2], 4 * g + from);
      const uint32_t x = upper ? high : low;
      for (int c = 0; c < 2; ++c) {
        const int lane_of = 4 * (2 * t + c) + from;
        const uint32_t first = __shfl_sync(~0u, b[0], lane_of), second = __shfl_sync(~0u, b[1], lane_of);
        const uint32_t y = upper ? second : first;
        d[2 * r + c] = fma(as_float((int32_t)(x << 16)), as_float((int32_t)(y << 16)), d[2 * r + c]);
        d[2 * r + c] = fma(as_float((int32_t)(x & 0xffff0000u)), as_float((int32_t)(y & 0xffff0000u)), d[2 * r + c]);
      }
    }
  }
}

}  // namespace radfield
