// Loops over a stream, W lanes at a time, and sums along the lanes.
#pragma once
#include <utility>

#include "simd.h"

namespace radfield {

// body(i, n) for i = begin, begin + W, ...: n lanes, W but for the last. Where n is W the compiler knows it (the body
// stands twice), so that the load_n and store_n of whole vectors become plain moves on every instruction set.
template <class Body>
RADFIELD_SIMD void for_lanes(int64_t begin, int64_t end, Body body) {
  int64_t i = begin;
  for (; i + W <= end; i += W) body(i, W);
  if (i < end) body(i, (int)(end - i));
}

template <int K, int... i>
RADFIELD_SIMD vf moved_up(vf v, vf below, std::integer_sequence<int, i...>) {
  return __builtin_shufflevector(below, v, (W - K + i)...);
}
// v moved up by K lanes: lane i takes lane i - K; the lanes below take the last ones of `below`.
template <int K>
RADFIELD_SIMD vf moved_up(vf v, vf below = vf{}) {
  return moved_up<K>(v, below, std::make_integer_sequence<int, W>{});
}
// v moved down by K lanes: lane i takes lane i + K; the lanes above take the first ones of `above`.
template <int K>
RADFIELD_SIMD vf moved_down(vf v, vf above = vf{}) {
  return moved_up<W - K>(above, v);
}

// Lane i: the sum of lanes 0..i; and of lanes i..W-1.
template <int K = 1>
RADFIELD_SIMD vf prefix_sum(vf v) {
  v = v + moved_up<K>(v);
  if constexpr (2 * K < W) v = prefix_sum<2 * K>(v);
  return v;
}
template <int K = 1>
RADFIELD_SIMD vf suffix_sum(vf v) {
  v = v + moved_down<K>(v);
  if constexpr (2 * K < W) v = suffix_sum<2 * K>(v);
  return v;
}

// The sum of all lanes, pairwise, in registers: the value of sum(v), many times faster.
template <int K = W / 2>
RADFIELD_SIMD float total(vf v) {
  v = v + moved_down<K>(v);
  if constexpr (K > 1) return total<K / 2>(v);
  return v[0];
}

}  // namespace radfield

// Marks the lambda given to for_lanes: both copies are inlined.
#define RADFIELD_LANES __attribute__((always_inline))
