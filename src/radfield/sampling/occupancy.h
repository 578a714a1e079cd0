// Occupancy grid. K cascades of G^3 cells, G a power of two from 8 to 256; cascade k is the cube of side 2^k centred at
// 0.5. Cell k G^3 + morton(x, y, z) has a value (density times MIN_STEP; -1 where no camera sees it; +inf while never
// evaluated) and a bit. A byte of bits is 2x2x2 cells, a word of 64 is a block of 4x4x4.
#pragma once
#include "random.h"

namespace radfield {

struct OccupancyUniformCells {
  int32_t* cells;
  int64_t* count;
  const float* values;
  int64_t stride;
  int64_t update;
  int64_t seed;
  int64_t N, T;
};
struct OccupancyOccupiedCells {
  int32_t* cells;
  int64_t* count;
  const int64_t* bitfield;
  int64_t seed;
  int64_t N, B;
};
struct OccupancyPoints {
  float* x;
  const int32_t* cells;
  int64_t resolution;
  int64_t seed;
  int64_t N;
};
struct OccupancyUpdate {
  float* values;
  const int32_t* cells;
  const float* sigma;
  double decay;
  int64_t T, N;
};
struct OccupancyObserve {
  float* values;
  const float* x;
  const float* sigma;
  int64_t resolution;
  int64_t cascades;
  int64_t T, M;
};
struct OccupancyBitfield {
  int64_t* bitfield;
  int32_t* near_blocks;
  float* threshold;
  const float* values;
  int64_t resolution;
  int64_t cascades;
  double limit;
  int64_t B, S, T;
};

constexpr float MIN_STEP = 1.7320508f / 1024;  // sqrt(3)/1024, the unit of a value: opacity of one finest step

RADFIELD_FN int log2_of(int64_t power_of_two) { return lowest_bit((uint64_t)power_of_two); }

// Bit i of v (i < 8) to bit 3i.
template <class I>
RADFIELD_FN I spread3(I v) {
  v = (v | (v << 8)) & 0x0000f00f;
  v = (v | (v << 4)) & 0x000c30c3;
  return (v | (v << 2)) & 0x00249249;
}
// Bit 3i of v to bit i; the other bits of v are ignored.
template <class I>
RADFIELD_FN I gather3(I v) {
  v = v & 0x00249249;
  v = (v | (v >> 2)) & 0x000c30c3;
  v = (v | (v >> 4)) & 0x0000f00f;
  return (v | (v >> 8)) & 0x000000ff;
}
template <class I>
RADFIELD_FN I morton(I x, I y, I z) {
  return spread3(x) | (spread3(y) << 1) | (spread3(z) << 2);
}

// The exponent e with x = m 2^e, m in [1/2, 1), for x >= 0; -126 for 0.
template <class F>
RADFIELD_FN auto binary_exponent(F x) {
  return (as_int(x) >> 23) - 126;
}

template <class F>
RADFIELD_FN F distance_from_centre(F x, F y, F z) {
  return max(max(abs(x - 0.5f), abs(y - 0.5f)), abs(z - 0.5f));
}

// i, or the nearest of 0 .. n-1.
template <class I>
RADFIELD_FN I clamp_index(I i, int n) {
  i = select(i < 0, I{}, i);
  return select(i > n - 1, I{} + (n - 1), i);
}

// The finest cascade that contains a point at this distance from the centre; the last one beyond all.
template <class F>
RADFIELD_FN auto finest_cascade(F distance, int cascades) {
  return clamp_index(binary_exponent(distance) + 1, cascades);
}

// 2^-k.
template <class I>
RADFIELD_FN auto inverse_side(I k) {
  return as_float((127 - k) << 23);
}

// The coordinate along one axis of the cell of x, the cascade's cube (1/side given) being cut into n cells. Mirrored
// bit by bit in Python: no fused multiply-add.
template <class F>
RADFIELD_FN auto cell_coordinate(F x, F inverse_side, int n) {
  return clamp_index(to_int(((x - 0.5f) * inverse_side) * (float)n + 0.5f * (float)n), n);
}

// A point in the cell with this coordinate, at random in 2^15 places: then every operation here is exact, and rounding
// cannot move the point into the next cell.
template <class F, class I>
RADFIELD_FN F point_in_cell(I coordinate, int32_t resolution, F side, F place) {
  return ((to_float(coordinate) + place) * (1.0f / (float)resolution) - 0.5f) * side + 0.5f;
}
template <class U>
RADFIELD_FN auto random_place(U bits) {
  return unit_float((bits >> 17) << 17) + 1.52587890625e-5f;
}

// The cell of run j of `stride` cells at this update: another one each time, all of them after `stride` updates.
RADFIELD_FN int64_t uniform_cell(uint32_t seed, int64_t j, int64_t stride, int64_t update) {
  const uint32_t turn = random_bits(seed, (uint32_t)j) >> 8;
  return j * stride + (turn + update) % stride;
}

// The rank (position among all set bits) that draw j of n picks: one at random of the j-th of n equal parts.
RADFIELD_FN int64_t drawn_rank(uint32_t seed, int64_t j, int64_t n, int64_t total) {
  return (j * total + random_below(random_bits(seed, (uint32_t)j), total)) / n;
}
RADFIELD_FN int lowest_bit_of_rank(uint64_t word, int64_t rank) {
  for (; rank > 0; --rank) word &= word - 1;
  return lowest_bit(word);
}

// Bit i is set where byte i of the word is not 0.
RADFIELD_FN uint32_t bytes_set(uint64_t word) {
  const uint64_t low = 0x7f7f7f7f7f7f7f7full;
  const uint64_t tops = (((word & low) + low) | word) & ~low;  // the top bit of each byte that is not 0
  return (uint32_t)((tops >> 7) * 0x0102040810204080ull >> 56);
}

// A density as it is kept in a cell: not negative, finite (infinity means unknown), 0 for NaN.
template <class F>
RADFIELD_FN F density_value(F sigma) {
  return min(max(sigma * MIN_STEP, F{}), F{} + 3.0e38f);
}

}  // namespace radfield
