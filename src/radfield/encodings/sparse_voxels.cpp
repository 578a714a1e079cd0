// The ops of sparse voxels: level_loops.h and level_adam.h with their Lookup.
#include "sparse_voxels.h"

#include "hash_grid_loops.h"
#include "level_adam.h"

using namespace radfield;

namespace {

struct VoxelLookup {
  static constexpr int D = 3, C = 8;
  struct Cell {
    GridCell<3, vf, vi> grid;
    vi row[C];
  };
  using Last = GridLookup<3>::Last;
  GridLevel level;
  uint32_t factor[D];
  const int32_t* index;

  template <class Args>
  VoxelLookup(const Args& a, int64_t l) : level(voxel_level(a.levels, a.scales, l)), index(a.index) {
    for (int d = 0; d < D; ++d) factor[d] = axis_factor(level, d);
  }
  template <class Body>
  RADFIELD_SIMD void specialised(Body body) const {
    VoxelLookup known = *this;
    known.level.hashed = false;
    body(known);
  }
  RADFIELD_SIMD Cell find(const vf (&x)[D]) const {
    Cell cell;
    cell.grid = locate<D, vi>(x, level, factor, LINEAR);
    for (int c = 0; c < C; ++c) cell.row[c] = gather(index, corner_entry(cell.grid, c, level));
    return cell;
  }
  RADFIELD_SIMD vi moved(const Cell& cell, Last& last) const {
    vi moved = {};
    for (int d = 0; d < D; ++d)
      moved |= (vi)(cell.grid.base[d] != moved_up_one(cell.grid.base[d], last.base[d])), last.base[d] = cell.grid.base[d];
    return moved;
  }
  RADFIELD_SIMD vi entry(const Cell& cell, int c) const { return voxel_entry(cell.row[c]); }
  RADFIELD_SIMD vf weight(const Cell& cell, int c) const {
    return voxel_weight(corner_weight(cell.grid, c), cell.row[c]);
  }
  RADFIELD_SIMD vf weight_along(const Cell& cell, int c, const vf (&tangent)[D]) const {
    return voxel_weight(tangent_weight(cell.grid, c, tangent), cell.row[c]);
  }
  RADFIELD_SIMD void pull(const Cell& cell, const vf (&dots)[C], const vf (*tangent)[D], vf (&sum)[D]) const {
    for (int c = 0; c < C; ++c) {
      const vf dot = voxel_weight(dots[c], cell.row[c]);
      for (int e = 0; e < D; ++e)
        sum[e] = fma(dot, tangent ? tangent_weight_derivative(cell.grid, c, e, *tangent) : corner_weight_derivative(cell.grid, c, e), sum[e]);
    }
  }
};

}  // namespace

RADFIELD_OP(sparse_voxels_forward, SparseVoxelsForward) {
  with_features(a.F, [&]<int F>() { forward_levels<VoxelLookup, F>(a); });
}

RADFIELD_OP(sparse_voxels_backward, SparseVoxelsBackward) {
  with_features(a.F, [&]<int F>() { add_gradients<VoxelLookup, F>(a); });
}

RADFIELD_OP(sparse_voxels_backward_x, SparseVoxelsBackwardX) {
  with_features(a.F, [&]<int F>() { backward_x<VoxelLookup, F>(a); });
}

RADFIELD_OP(sparse_voxels_adam, SparseVoxelsAdam) {
  SparseVoxelsBackward back{};
  back.scales = a.scales, back.index = a.index;
  with_features(a.F, [&]<int F>() { *a.bad = step_levels<VoxelLookup, F>(a, back); });
}

RADFIELD_OP(sparse_voxels_smooth, SparseVoxelsSmooth) {
  const int32_t n = (int32_t)a.levels[2];
  with_features(a.F, [&]<int F>() {
    parallel_blocks(a.V, CHUNK, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        int32_t rows[6] = {};
        const int count = a.vertex[row] < 0 ? 0 : neighbour_rows(a.vertex[row], n, a.index, rows);
        for (int64_t l = 0; l < a.L; ++l) {
          const int64_t offset = a.levels[4 * l] * F;
          smooth_row<F>(a.smoothed + offset, a.table + offset, row, rows, count, (float)a.step);
        }
      }
    });
  });
}
