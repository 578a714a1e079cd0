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

// What another thread may be writing atomically: read past the caches that are not coherent.
RADFIELD_FN float read_shared_by_all(const float* p) { return *(const volatile float*)p; }

}  // namespace radfield
#endif
