// The ops of products of grids: a product's factors are looked up side by side and multiplied in registers, level by
// level. The backward pass hands each factor the gradient of its values; grids then sum them (hash_grid_adam.cpp), so
// that entries have one owner as everywhere.
#include "factored.h"

#include "hash_grid_loops.h"

using namespace radfield;

namespace {

// What GridLookup asks of an op's arguments.
struct Rows {
  const int64_t* levels;
  const float* scales;
  int64_t smoothstep;
};

// One factor in one level. It is a plane or a line by its kind; the other lookup is never used.
template <int F, class T>
struct Factor {
  GridLookup<2> plane;
  GridLookup<1> line;
  const T* table;

  Factor(const Rows& rows, const T* table, int64_t row)
      : plane(rows, row), line(rows, row), table(table + rows.levels[4 * row] * F) {
    plane.level.hashed = line.level.hashed = false;  // so that the compiler knows
  }

  template <int D, class Lookup>
  RADFIELD_SIMD void interpolate(const Lookup& lookup, const vf (&x)[D], vf (&sum)[F]) const {
    vf values[F];
    const auto cell = lookup.find(x);
    for (int f = 0; f < F; ++f) sum[f] = vf{};
    for (int c = 0; c < 1 << D; ++c) {
      load_features<F>(values, table, lookup.entry(cell, c));
      const vf w = lookup.weight(cell, c);
      for (int f = 0; f < F; ++f) sum[f] = fma(values[f], w, sum[f]);
    }
  }
};

// The factors of product p in level l.
template <class Kind, int F, class T>
struct Factors {
  Factor<F, T> factor[Kind::K];
  int64_t p;

  template <int... k>
  Factors(const Rows& rows, const T* table, int64_t p, int64_t l, int64_t L, std::integer_sequence<int, k...>)
      : factor{Factor<F, T>(rows, table, factor_row<Kind>(p, k, l, L))...}, p(p) {}

  // values[f][k] of samples i .. i + n - 1
  template <int k = 0>
  RADFIELD_SIMD void find(const float* x, int64_t M, int64_t i, int n, vf (&values)[F][Kind::K]) const {
    if constexpr (k < Kind::K) {
      constexpr int D = Kind::dimensions(k);
      vf point[D], sum[F];
      for (int d = 0; d < D; ++d) point[d] = load_n(x + Kind::axis((int)p, k, d) * M + i, n);
      if constexpr (D == 2) factor[k].template interpolate<2>(factor[k].plane, point, sum);
      else factor[k].template interpolate<1>(factor[k].line, point, sum);
      for (int f = 0; f < F; ++f) values[f][k] = sum[f];
      find<k + 1>(x, M, i, n, values);
    }
  }
};

// body(factors, number of the product among all levels', begin, end), in parallel.
template <class Kind, int F, class T, class Args, class Body>
void for_products(const Args& a, Body body) {
  const int64_t L = a.R / (Kind::P * Kind::K);
  const Rows rows{a.levels, a.scales, LINEAR};
  level_by_level(Kind::P * L, a.M, [&](int64_t product, int64_t begin, int64_t end) {
    constexpr auto order = std::make_integer_sequence<int, Kind::K>{};
    const Factors<Kind, F, T> factors(rows, (const T*)a.table, product / L, product % L, L, order);
    for_lanes(begin, end, [&](int64_t i, int n) RADFIELD_LANES { body(factors, product, L, i, n); });
  });
}

template <class Kind, int F, class T>
void forward(const FactoredForward& a) {
  for_products<Kind, F, T>(a, [&](const auto& factors, int64_t at, int64_t, int64_t i, int n) RADFIELD_LANES {
    vf values[F][Kind::K];
    factors.find(a.x, a.M, i, n, values);
    T* out = (T*)a.features + at * F * a.M + i;
    for (int f = 0; f < F; ++f) store_n(out + f * a.M, product(values[f]), n);
  });
}

template <class Kind, int F, class T>
void backward(const FactoredBackward& a) {
  for_products<Kind, F, T>(a, [&](const auto& factors, int64_t at, int64_t L, int64_t i, int n) RADFIELD_LANES {
    vf values[F][Kind::K] = {}, g[F];
    vi nonzero = {};
    const T* grad = (const T*)a.grad_features + at * F * a.M + i;
    for (int f = 0; f < F; ++f) g[f] = load_n(grad + f * a.M, n), nonzero |= (vi)g[f] << 1;
    const bool reached = any(nonzero != 0);  // else samples behind a surface
    if (reached) factors.find(a.x, a.M, i, n, values);
    for (int k = 0; k < Kind::K; ++k) {
      T* out = (T*)a.grad_factors + factor_row<Kind>(at / L, k, at % L, L) * F * a.M + i;
      for (int f = 0; f < F; ++f) store_n(out + f * a.M, reached ? g[f] * product_but(values[f], k) : vf{}, n);
    }
  });
}

// Calls body.operator()<Kind, F, T>() for the run-time kind, F and type (Python checks them).
template <class Kind, class Body>
void with_entries(int64_t F, int64_t type, Body body) {
  with_features(F, [&]<int f>() {
    if (type == F32) body.template operator()<Kind, f, float>();
    else body.template operator()<Kind, f, bf16>();
  });
}
template <class Args, class Body>
void with_kind(const Args& a, Body body) {
  if (a.kind == 0) with_entries<TriplaneKind>(a.F, a.table_type, body);
  else if (a.kind == 1) with_entries<VMKind>(a.F, a.table_type, body);
  else with_entries<CPKind>(a.F, a.table_type, body);
}

}  // namespace

RADFIELD_OP(factored_forward, FactoredForward) {
  with_kind(a, [&]<class Kind, int F, class T>() { forward<Kind, F, T>(a); });
}

RADFIELD_OP(factored_backward, FactoredBackward) {
  with_kind(a, [&]<class Kind, int F, class T>() { backward<Kind, F, T>(a); });
}
