// Random numbers by counter: a hash of (seed, index) and no state, so that the same index gives the same number
// whatever the order, the vector width or the number of threads. U is uint32_t or a SIMD vector of them (`vu`).
#pragma once
#include "../maths.h"

namespace radfield {

// A bijection of 32 bits that passes for random (Jarzynski and Olano 2020, "Hash functions for GPU rendering": pcg).
template <class U>
RADFIELD_FN U pcg(U x) {
  x = x * 747796405u + 2891336453u;
  x = ((x >> ((x >> 28u) + 4u)) ^ x) * 277803737u;
  return (x >> 22u) ^ x;
}

// 32 random bits of number `index` in stream `seed`. Hashed twice: with one hash, two seeds would give the same
// sequence shifted.
template <class U>
RADFIELD_FN U random_bits(uint32_t seed, U index) {
  return pcg(pcg(index) + seed);
}

// [0, 1) in steps of 2^-24.
RADFIELD_FN float unit_float(uint32_t bits) { return (float)(bits >> 8) * 5.9604644775390625e-8f; }
#ifdef RADFIELD_CPU
RADFIELD_FN vf unit_float(vu bits) { return to_float((vi)(bits >> 8)) * 5.9604644775390625e-8f; }
#endif

// floor(bits / 2^32 * n): a whole number below n, for n up to 2^32.
RADFIELD_FN int64_t random_below(uint32_t bits, int64_t n) { return (int64_t)(((uint64_t)bits * (uint64_t)n) >> 32); }

}  // namespace radfield
