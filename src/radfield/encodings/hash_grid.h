// Multiresolution hash grid (hash_grid.py has the equations and the letters): where a point lies in a level, which
// entries its cell's 2^D corners have, and their interpolation weights with derivatives.
#pragma once
#include "../maths.h"

namespace radfield {

struct HashGridForward {
  void* features;
  int64_t features_type;
  const float* x;
  const void* table;
  int64_t table_type;
  const int64_t* levels;
  const float* scales;
  const float* tangent;
  const int64_t* count;
  int64_t smoothstep;
  int64_t C, M, D, E, F, L;
};
struct HashGridBackward {
  void* grad_table;
  int64_t grad_table_type;
  const void* grad_features;
  int64_t grad_features_type;
  const float* x;
  const int64_t* levels;
  const float* scales;
  const float* tangent;
  const int64_t* count;
  int64_t smoothstep;
  int64_t E, F, C, M, D, L;
};
struct HashGridBackwardX {
  float* grad_x;
  const void* grad_features;
  int64_t grad_features_type;
  const float* x;
  const void* table;
  int64_t table_type;
  const int64_t* levels;
  const float* scales;
  const float* tangent;
  int64_t smoothstep;
  int64_t D, M, C, E, F, L;
};

// One row of `levels`, with its scale.
struct GridLevel {
  int64_t offset;      // first entry in the table
  int32_t size;        // entries
  int32_t resolution;  // vertices along an axis
  bool hashed;         // else row-major
  int32_t mask;        // of the entry number: size - 1 where hashed or tiled, all bits where dense
  float scale;
};
enum GridInterpolation { LINEAR = 0, SMOOTHSTEP = 1, NEAREST = 2 };  // the scalar `smoothstep` of the ops

RADFIELD_FN GridLevel grid_level(const int64_t* levels, const float* scales, int64_t l) {
  const int64_t size = levels[4 * l + 1], rule = levels[4 * l + 3];  // 0 dense, 1 hashed, 2 tiled
  return {levels[4 * l], (int32_t)size, (int32_t)levels[4 * l + 2], rule == 1, rule ? (int32_t)size - 1 : -1, scales[l]};
}

// The factor of axis d in the entry number: coherent prime hash, or row-major strides.
RADFIELD_FN uint32_t axis_factor(const GridLevel& level, int d) {
  if (level.hashed) return d == 0 ? 1u : d == 1 ? 2654435761u : d == 2 ? 805459861u : 3674653429u;
  uint32_t stride = 1;
  for (int i = 0; i < d; ++i) stride *= (uint32_t)level.resolution;
  return stride;
}

// A point in a level: per axis the interpolation factor s(f), its derivatives by x, and both corners' part of the
// entry number. F is the number type, I its integers.
template <int D, class F, class I>
struct GridCell {
  I base[D];
  I part[D][2];
  F s[D], ds[D], dds[D];
};

// Points outside [0, 1] are clamped to it (their derivative is that of the clamped point); NaN reads as 1.
template <int D, class I, class F>
RADFIELD_FN GridCell<D, F, I> locate(const F (&x)[D], const GridLevel& level, const uint32_t (&factor)[D], int kind) {
  GridCell<D, F, I> cell;
  for (int d = 0; d < D; ++d) {
    const F inside = max(min(x[d], F{} + 1.0f), F{});
    const F position = fma(inside, F{} + level.scale, F{} + 0.5f);
    const F whole = floor(position);
    const F f = position - whole;
    cell.base[d] = to_int(whole);
    cell.part[d][0] = cell.base[d] * (int32_t)factor[d];
    cell.part[d][1] = cell.part[d][0] + (int32_t)factor[d];
    cell.s[d] = kind == LINEAR ? f : kind == SMOOTHSTEP ? f * f * (3.0f - 2.0f * f) : F{};
    cell.ds[d] = kind == LINEAR ? F{} + level.scale : kind == SMOOTHSTEP ? 6.0f * level.scale * f * (1.0f - f) : F{};
    cell.dds[d] = kind == SMOOTHSTEP ? 6.0f * level.scale * level.scale * (1.0f - 2.0f * f) : F{};
  }
  return cell;
}

// Entry of corner c (bit d: the upper one along axis d) within the level. A dense index passes the last vertex by less
// than one level, so the remainder is one subtraction.
template <int D, class F, class I>
RADFIELD_FN I corner_entry(const GridCell<D, F, I>& cell, int c, const GridLevel& level) {
  I index = cell.part[0][c & 1];
  if (level.hashed) {
    for (int d = 1; d < D; ++d) index = index ^ cell.part[d][c >> d & 1];
    return index & level.mask;
  }
  for (int d = 1; d < D; ++d) index = index + cell.part[d][c >> d & 1];
  index = index & level.mask;
  return select(index >= level.size, index - level.size, index);
}

// Weight of corner c: the product over the axes of s or 1 - s.
template <int D, class F, class I>
RADFIELD_FN F corner_weight(const GridCell<D, F, I>& cell, int c) {
  F w = c & 1 ? cell.s[0] : 1.0f - cell.s[0];
  for (int d = 1; d < D; ++d) w = w * (c >> d & 1 ? cell.s[d] : 1.0f - cell.s[d]);
  return w;
}

// d weight / d x_e; and d^2 weight / d x_e d x_g.
template <int D, class F, class I>
RADFIELD_FN F corner_weight_derivative(const GridCell<D, F, I>& cell, int c, int e) {
  F w = c >> e & 1 ? cell.ds[e] : 0.0f - cell.ds[e];
  for (int d = 0; d < D; ++d)
    if (d != e) w = w * (c >> d & 1 ? cell.s[d] : 1.0f - cell.s[d]);
  return w;
}
template <int D, class F, class I>
RADFIELD_FN F corner_weight_second(const GridCell<D, F, I>& cell, int c, int e, int g) {
  if (e == g) {
    F w = c >> e & 1 ? cell.dds[e] : 0.0f - cell.dds[e];
    for (int d = 0; d < D; ++d)
      if (d != e) w = w * (c >> d & 1 ? cell.s[d] : 1.0f - cell.s[d]);
    return w;
  }
  F w = (c >> e & 1 ? cell.ds[e] : 0.0f - cell.ds[e]) * (c >> g & 1 ? cell.ds[g] : 0.0f - cell.ds[g]);
  for (int d = 0; d < D; ++d)
    if (d != e && d != g) w = w * (c >> d & 1 ? cell.s[d] : 1.0f - cell.s[d]);
  return w;
}

// The weight of corner c, or its derivative along `tangent` where one is given (then features are a directional
// derivative, and gradients are those of it: second derivatives by the same loops).
template <int D, class F, class I>
RADFIELD_FN F tangent_weight(const GridCell<D, F, I>& cell, int c, const F (&tangent)[D]) {
  F w = corner_weight_derivative(cell, c, 0) * tangent[0];
  for (int d = 1; d < D; ++d) w = fma(corner_weight_derivative(cell, c, d), tangent[d], w);
  return w;
}
template <int D, class F, class I>
RADFIELD_FN F tangent_weight_derivative(const GridCell<D, F, I>& cell, int c, int e, const F (&tangent)[D]) {
  F w = corner_weight_second(cell, c, e, 0) * tangent[0];
  for (int d = 1; d < D; ++d) w = fma(corner_weight_second(cell, c, e, d), tangent[d], w);
  return w;
}

}  // namespace radfield
