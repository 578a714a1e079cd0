// The hash grid's Lookup (level_loops.h), and the choice of the compiled sizes.
#pragma once
#include "hash_grid.h"
#include "level_loops.h"

namespace radfield {
namespace {

template <int DIMENSIONS>
struct GridLookup {
  static constexpr int D = DIMENSIONS, C = 1 << D;
  struct Last {
    vi base[D];
  };
  GridLevel level;
  uint32_t factor[D];
  int interpolation;

  template <class Args>
  GridLookup(const Args& a, int64_t l) : level(grid_level(a.levels, a.scales, l)), interpolation((int)a.smoothstep) {
    for (int d = 0; d < D; ++d) factor[d] = axis_factor(level, d);
  }
  // Two copies of the loop, so that the compiler sees whether it hashes.
  template <class Body>
  RADFIELD_SIMD void specialised(Body body) const {
    GridLookup known = *this;
    if (level.hashed) known.level.hashed = true, body(known);
    else known.level.hashed = false, body(known);
  }
  RADFIELD_SIMD GridCell<D, vf, vi> find(const vf (&x)[D]) const { return locate<D, vi>(x, level, factor, interpolation); }
  RADFIELD_SIMD vi moved(const GridCell<D, vf, vi>& cell, Last& last) const {
    vi moved = {};
    for (int d = 0; d < D; ++d)
      moved |= (vi)(cell.base[d] != moved_up_one(cell.base[d], last.base[d])), last.base[d] = cell.base[d];
    return moved;
  }
  RADFIELD_SIMD vi entry(const GridCell<D, vf, vi>& cell, int c) const { return corner_entry(cell, c, level); }
  RADFIELD_SIMD vf weight(const GridCell<D, vf, vi>& cell, int c) const { return corner_weight(cell, c); }
  RADFIELD_SIMD vf weight_along(const GridCell<D, vf, vi>& cell, int c, const vf (&tangent)[D]) const {
    return tangent_weight(cell, c, tangent);
  }
  RADFIELD_SIMD void pull(const GridCell<D, vf, vi>& cell, const vf (&dots)[C], const vf (*tangent)[D], vf (&sum)[D]) const {
    for (int c = 0; c < C; ++c)
      for (int e = 0; e < D; ++e)
        sum[e] = fma(dots[c], tangent ? tangent_weight_derivative(cell, c, e, *tangent) : corner_weight_derivative(cell, c, e), sum[e]);
  }
};

// Calls body.operator()<D, F>() for the run-time D in 1..4 and F in 1, 2, 4, 8 (Python checks both).
template <class Body>
void with_sizes(int64_t D, int64_t F, Body body) {
  with_features(F, [&]<int f>() {
    if (D == 1) body.template operator()<1, f>();
    else if (D == 2) body.template operator()<2, f>();
    else if (D == 3) body.template operator()<3, f>();
    else body.template operator()<4, f>();
  });
}

}  // namespace
}  // namespace radfield
