// Simplex interpolation on the skewed lattice (simplex.py has the equations and the letters): in which simplex of a
// level a point lies, which entries its D + 1 vertices have, and their barycentric weights.
#pragma once
#include "hash_grid.h"

namespace radfield {

struct SimplexForward {
  void* features;
  int64_t features_type;
  const float* x;
  const void* table;
  int64_t table_type;
  const int64_t* levels;
  const float* maps;
  const float* tangent;
  const int64_t* count;
  int64_t C, M, D, E, F, L, K;
};
struct SimplexBackward {
  void* grad_table;
  int64_t grad_table_type;
  const void* grad_features;
  int64_t grad_features_type;
  const float* x;
  const int64_t* levels;
  const float* maps;
  const float* tangent;
  const int64_t* count;
  int64_t E, F, C, M, D, L, K;
};
struct SimplexBackwardX {
  float* grad_x;
  const void* grad_features;
  int64_t grad_features_type;
  const float* x;
  const void* table;
  int64_t table_type;
  const int64_t* levels;
  const float* maps;
  const float* tangent;
  int64_t D, M, C, E, F, L, K;
};
struct SimplexAdam {
  float* parameter;
  float* m;
  float* v;
  bf16* shadow;
  int64_t* bad;
  const void* grad_features;
  int64_t grad_features_type;
  const float* x;
  const int64_t* levels;
  const float* maps;
  const int64_t* count;
  const double* schedule;
  double rate;
  double beta1;
  double beta2;
  double epsilon;
  double correction2;
  double l2;
  int64_t skip;
  int64_t E, F, C, M, D, L, K;
};

// The factor of axis d in the entry number. hashed: coherent primes, joined by XOR; permutohedral: the hash of
// PermutoSDF, k = (k + key_i) 2531011 over the first D elevated coordinates of the vertex, key_i = (D + 1) v_i -
// sum(v), is linear in v; dense: row-major strides.
template <int D>
RADFIELD_FN uint32_t vertex_factor(int d, int64_t rule, uint32_t resolution) {
  const uint32_t primes[6] = {1u, 2654435761u, 805459861u, 3674653429u, 2097192037u, 1434869437u};
  if (rule == 1) return primes[d];
  uint32_t power = 1, sum = 0, own = 0;
  if (rule == 0) {
    for (int i = 0; i < d; ++i) power *= resolution;
    return power;
  }
  for (int i = D - 1; i >= 0; --i) {
    power *= 2531011u;
    sum += power;
    if (i == d) own = power;
  }
  return (D + 1) * own - sum;
}

// A point's simplex: the lattice's axes in descending order of the point's fractions f, and what each adds to the
// number of the vertex before. F is the number type, I its integers.
template <int D, class F, class I>
struct SimplexCell {
  I base[D];
  I entry[D + 1];  // not yet reduced to the level's size
  I axis[D];
  F f[D];
};

// The D axes in descending order of their fractions, by a network of exchanges.
template <int D, class F, class I>
RADFIELD_FN void sort_axes(F (&f)[D], I (&step)[D], I (&axis)[D]) {
  for (int last = D - 1; last > 0; --last)
    for (int i = 0; i < last; ++i) {
      const auto swap = f[i] < f[i + 1];
      const F high = select(swap, f[i + 1], f[i]), low = select(swap, f[i], f[i + 1]);
      const I step0 = select(swap, step[i + 1], step[i]), step1 = select(swap, step[i], step[i + 1]);
      const I axis0 = select(swap, axis[i + 1], axis[i]), axis1 = select(swap, axis[i], axis[i + 1]);
      f[i] = high, f[i + 1] = low, step[i] = step0, step[i + 1] = step1, axis[i] = axis0, axis[i + 1] = axis1;
    }
}

// map: the level's D rows of D factors, then D shifts. Points outside [0, 1] are clamped to it; NaN reads as 1.
template <int D, class I, class F>
RADFIELD_FN SimplexCell<D, F, I> locate_simplex(const F (&x)[D], const float* map, const uint32_t (&factor)[D], bool hashed) {
  SimplexCell<D, F, I> cell;
  F inside[D];
  for (int d = 0; d < D; ++d) inside[d] = max(min(x[d], F{} + 1.0f), F{});
  I step[D], first = I{};
  for (int d = 0; d < D; ++d) {
    F y = F{} + map[D * D + d];
    for (int e = 0; e < D; ++e) y = fma(inside[e], F{} + map[D * d + e], y);
    const F whole = floor(y);
    cell.f[d] = y - whole;
    cell.base[d] = to_int(whole);
    cell.axis[d] = I{} + d;
    const I part = cell.base[d] * (int32_t)factor[d], next = part + (int32_t)factor[d];
    first = hashed ? first ^ part : first + part;
    step[d] = hashed ? part ^ next : next - part;
  }
  sort_axes<D, F, I>(cell.f, step, cell.axis);
  cell.entry[0] = first;
  for (int k = 0; k < D; ++k) cell.entry[k + 1] = hashed ? cell.entry[k] ^ step[k] : cell.entry[k] + step[k];
  return cell;
}

// Weight of vertex k: f_k - f_(k+1) of the sorted fractions, with f_0 = 1 and f_(D+1) = 0.
template <int D, class F, class I>
RADFIELD_FN F vertex_weight(const SimplexCell<D, F, I>& cell, int k) {
  if (k == 0) return 1.0f - cell.f[0];
  return k == D ? cell.f[D - 1] : cell.f[k - 1] - cell.f[k];
}

// The k-th of the values by axis, in the order of the sorted fractions.
template <int D, class F, class I>
RADFIELD_FN F along_sorted(const SimplexCell<D, F, I>& cell, const F (&values)[D], int k) {
  F value = values[0];
  for (int d = 1; d < D; ++d) value = select(cell.axis[k] == d, values[d], value);
  return value;
}

// d weight_k along `tangent` of x: the same differences, of the tangent on the lattice. It is constant in the simplex.
template <int D, class F, class I>
RADFIELD_FN F vertex_weight_along(const SimplexCell<D, F, I>& cell, int k, const F (&tangent)[D], const float* map) {
  F y[D];
  for (int d = 0; d < D; ++d) {
    y[d] = tangent[0] * map[D * d];
    for (int e = 1; e < D; ++e) y[d] = fma(tangent[e], F{} + map[D * d + e], y[d]);
  }
  const F upper = k == 0 ? F{} : along_sorted(cell, y, k - 1);
  return k == D ? upper : upper - along_sorted(cell, y, k);
}

// sum[e] += sum_k dots[k] d weight_k / d x_e. The derivative by the axis of f_k is dots[k] - dots[k-1].
template <int D, class F, class I>
RADFIELD_FN void pull_simplex(const SimplexCell<D, F, I>& cell, const F (&dots)[D + 1], const float* map, F (&sum)[D]) {
  for (int d = 0; d < D; ++d) {
    F by_axis = F{};
    for (int k = 0; k < D; ++k) by_axis = by_axis + select(cell.axis[k] == d, dots[k + 1] - dots[k], F{});
    for (int e = 0; e < D; ++e) sum[e] = fma(by_axis, F{} + map[D * d + e], sum[e]);
  }
}

}  // namespace radfield
