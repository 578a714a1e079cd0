// Products of grids over some of the axes (factored.py has the equations and the letters): the kinds of products, which
// axes a factor spans, and the product's gradient.
#pragma once
#include "hash_grid.h"

namespace radfield {

struct FactoredForward {
  void* features;
  int64_t features_type;
  const float* x;
  const void* table;
  int64_t table_type;
  const int64_t* levels;
  const float* scales;
  int64_t kind;
  int64_t C, M, E, F, R;
};
struct FactoredBackward {
  void* grad_factors;
  int64_t grad_factors_type;
  const void* grad_features;
  int64_t grad_features_type;
  const float* x;
  const void* table;
  int64_t table_type;
  const int64_t* levels;
  const float* scales;
  int64_t kind;
  int64_t Q, M, C, E, F, R;
};

// A kind has P products of K factors; axis(p, k, d) is the d-th of the dimensions(k) axes of factor k.
struct TriplaneKind {
  static constexpr int P = 1, K = 3;
  RADFIELD_FN static constexpr int dimensions(int) { return 2; }
  RADFIELD_FN static constexpr int axis(int, int k, int d) { return d == 0 ? (k == 2) : (k == 0 ? 1 : 2); }
};
struct VMKind {
  static constexpr int P = 3, K = 2;
  RADFIELD_FN static constexpr int dimensions(int k) { return k == 0 ? 2 : 1; }
  RADFIELD_FN static constexpr int axis(int p, int k, int d) {
    return k == 1 ? p : d == 0 ? (p == 0 ? 1 : 0) : (p == 2 ? 1 : 2);
  }
};
struct CPKind {
  static constexpr int P = 1, K = 3;
  RADFIELD_FN static constexpr int dimensions(int) { return 1; }
  RADFIELD_FN static constexpr int axis(int, int k, int) { return k; }
};

// Row of `levels` of factor k of product p in level l of L: rows go grid by grid.
template <class Kind>
RADFIELD_FN int64_t factor_row(int64_t p, int k, int64_t l, int64_t L) {
  return (p * Kind::K + k) * L + l;
}

// The product of the values of all factors; and of all but the k-th, which is the derivative by that.
template <int K, class F>
RADFIELD_FN F product(const F (&values)[K]) {
  F all = values[0];
  for (int k = 1; k < K; ++k) all = all * values[k];
  return all;
}
template <int K, class F>
RADFIELD_FN F product_but(const F (&values)[K], int k) {
  F others = values[k == 0 ? 1 : 0];
  for (int j = k == 0 ? 2 : 1; j < K; ++j)
    if (j != k) others = others * values[j];
  return others;
}

}  // namespace radfield
