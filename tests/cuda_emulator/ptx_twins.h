// The twins of cuda/ptx.h: what each instruction does, from its description in the PTX manual.
#pragma once
#include "atomics.h"

namespace radfield {

namespace emulated {
template <int N>
EMU __attribute__((always_inline)) void add_each(float* p, const float (&values)[N], void* caller) {
  cuda_emu::instruction = caller;
  if (size_t(p) % (4 * N)) cuda_emu::fail("misaligned address %p of %d floats to add", (void*)p, N);
  for (int i = 0; i < N; ++i) {
    cuda_emu::access(p + i, 4, true, true);
    p[i] += values[i];
  }
  cuda_emu::instruction = nullptr;
}
}  // namespace emulated

EMU void add_2(float* p, float a, float b) {
  emulated::add_each<2>(p, {a, b}, __builtin_return_address(0));
}
EMU void add_4(float* p, float a, float b, float c, float d) {
  emulated::add_each<4>(p, {a, b, c, d}, __builtin_return_address(0));
}
EMU uint16_t half_of(float x) { return cuda_emu::half_bits(x); }
EMU float value_of_half(uint16_t x) { return cuda_emu::half_value(x); }

namespace emulated {
template <int N>
EMU __attribute__((always_inline)) void add_halves(uint16_t* p, const float (&values)[N], void* caller) {
  cuda_emu::instruction = caller;
  if (size_t(p) % (2 * N)) cuda_emu::fail("misaligned address %p of %d halves to add", (void*)p, N);
  for (int i = 0; i < N; ++i) {
    cuda_emu::access(p + i, 2, true, true);
    p[i] = half_of(value_of_half(p[i]) + value_of_half(half_of(values[i])));
  }
  cuda_emu::instruction = nullptr;
}
}  // namespace emulated

EMU void add_1(uint16_t* p, float a) { emulated::add_halves<1>(p, {a}, __builtin_return_address(0)); }
EMU void add_2(uint16_t* p, float a, float b) { emulated::add_halves<2>(p, {a, b}, __builtin_return_address(0)); }
EMU void add_4(uint16_t* p, const float (&x)[4]) { emulated::add_halves<4>(p, x, __builtin_return_address(0)); }
EMU void add_8(uint16_t* p, const float (&x)[8]) { emulated::add_halves<8>(p, x, __builtin_return_address(0)); }

EMU float read_shared_by_all(const float* p) {
  cuda_emu::instruction = __builtin_return_address(0);
  cuda_emu::access(p, 4, false, true);
  return *p;
}

// d (16x8) += a (16x16, row) * b (16x8, column), the fragments laid out as PTX mma.m16n8k16 has it; value(bits) is what
// an operand of 16 bits stands for.
namespace emulated {
template <class Value>
EMU __attribute__((always_inline)) void mma(const char* name, float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], Value value, const char* fn,
             int line) {
  struct Payload { float* d; const unsigned *a, *b; } mine = {d, a, b};
  cuda_emu::warp_collective({name, fn, line}, ~0u, &mine, [](void** p, unsigned lanes) {
    if (lanes != ~0u) cuda_emu::fail("mma needs a full warp, not lanes %08x", lanes);
    auto part = [](unsigned word, int i) { return Value()(uint16_t(word >> 16 * i)); };
    float A[16][16], B[8][16];
    for (int l = 0; l < 32; ++l) {
      Payload& f = *static_cast<Payload*>(p[l]);
      for (int i = 0; i < 8; ++i) A[l / 4 + 8 * (i / 2 % 2)][l % 4 * 2 + i % 2 + 8 * (i / 4)] = part(f.a[i / 2], i % 2);
      for (int i = 0; i < 4; ++i) B[l / 4][l % 4 * 2 + i % 2 + 8 * (i / 2)] = part(f.b[i / 2], i % 2);
    }
    for (int l = 0; l < 32; ++l)
      for (int i = 0; i < 4; ++i) {
        float& out = static_cast<Payload*>(p[l])->d[i];
        double sum = out;  // more exact than the hardware, which truncates as it aligns
        for (int k = 0; k < 16; ++k) sum += double(A[l / 4 + 8 * (i / 2)][k]) * B[l % 4 * 2 + i % 2][k];
        out = float(sum);
      }
  });
}
struct OfBfloat {
  float operator()(uint16_t bits) const { return cuda_emu::bfloat_value(bits); }
};
struct OfHalf {
  float operator()(uint16_t bits) const { return cuda_emu::half_value(bits); }
};
}  // namespace emulated

EMU void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], SITE) {
  emulated::mma("mma_m16n8k16", d, a, b, emulated::OfBfloat(), fn, line);
}
EMU void mma_m16n8k16_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], SITE) {
  emulated::mma("mma_m16n8k16_f16", d, a, b, emulated::OfHalf(), fn, line);
}

}  // namespace radfield
