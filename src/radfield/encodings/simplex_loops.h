// The simplex encoding's Lookup (level_loops.h), and the choice of the compiled sizes.
#pragma once
#include "level_loops.h"
#include "simplex.h"

namespace radfield {
namespace {

template <int DIMENSIONS>
struct SimplexLookup {
  static constexpr int D = DIMENSIONS, C = D + 1;
  using Cell = SimplexCell<D, vf, vi>;
  struct Last {
    vi base[D], order;
  };
  uint32_t factor[D];
  bool hashed;
  int32_t mask;  // of the entry number: all bits where the level is dense
  float map[D * (D + 1)];  // a copy: the compiler must not think that a store of features changes it

  template <class Args>
  SimplexLookup(const Args& a, int64_t l) {
    memcpy(map, a.maps + l * D * (D + 1), sizeof map);
    const int64_t rule = a.levels[4 * l + 3];
    hashed = rule == 1;
    mask = rule ? (int32_t)a.levels[4 * l + 1] - 1 : -1;
    for (int d = 0; d < D; ++d) factor[d] = vertex_factor<D>(d, rule, (uint32_t)a.levels[4 * l + 2]);
  }
  // Two copies of the loop, so that the compiler sees whether it hashes.
  template <class Body>
  RADFIELD_SIMD void specialised(Body body) const {
    SimplexLookup known = *this;
    if (hashed) known.hashed = true, body(known);
    else known.hashed = false, body(known);
  }
  RADFIELD_SIMD Cell find(const vf (&x)[D]) const { return locate_simplex<D, vi>(x, map, factor, hashed); }
  RADFIELD_SIMD vi moved(const Cell& cell, Last& last) const {
    vi moved = {};
    for (int d = 0; d < D; ++d)
      moved |= (vi)(cell.base[d] != moved_up_one(cell.base[d], last.base[d])), last.base[d] = cell.base[d];
    vi order = cell.axis[0];
    for (int k = 1; k < D; ++k) order = order << 3 | cell.axis[k];
    moved |= (vi)(order != moved_up_one(order, last.order));
    last.order = order;
    return moved;
  }
  RADFIELD_SIMD vi entry(const Cell& cell, int k) const { return cell.entry[k] & mask; }
  RADFIELD_SIMD vf weight(const Cell& cell, int k) const { return vertex_weight(cell, k); }
  RADFIELD_SIMD vf weight_along(const Cell& cell, int k, const vf (&tangent)[D]) const {
    return vertex_weight_along(cell, k, tangent, map);
  }
  RADFIELD_SIMD void pull(const Cell& cell, const vf (&dots)[C], const vf (*tangent)[D], vf (&sum)[D]) const {
    if (!tangent) pull_simplex(cell, dots, map, sum);  // along a tangent it is 0: weights are linear in the simplex
  }
};

// Calls body.operator()<D, F>() for the run-time D in 2..6 and F in 1, 2, 4, 8 (Python checks both).
template <class Body>
void with_simplex_sizes(int64_t D, int64_t F, Body body) {
  with_features(F, [&]<int f>() {
    if (D == 2) body.template operator()<2, f>();
    else if (D == 3) body.template operator()<3, f>();
    else if (D == 4) body.template operator()<4, f>();
    else if (D == 5) body.template operator()<5, f>();
    else body.template operator()<6, f>();
  });
}

}  // namespace
}  // namespace radfield
