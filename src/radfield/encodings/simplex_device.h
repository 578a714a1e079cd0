// A point's simplex in a level, as CUDA kernels read its vertices. Only device compilers take this file.
#pragma once
#include "hash_grid_device.h"
#include "simplex.h"

namespace radfield {

template <int D>
struct DeviceSimplex {
  SimplexCell<D, float, int32_t> cell;
  const float* map;
  int64_t offset;
  int32_t mask;  // of the entry number: all bits where the level is dense

  // In level l, of arguments with levels and maps.
  template <class Args>
  RADFIELD_FN DeviceSimplex(const Args& a, int64_t l, const float (&point)[D]) {
    const int64_t* const level = a.levels + 4 * l;
    uint32_t factor[D];
    map = a.maps + l * D * (D + 1), offset = level[0], mask = level[3] ? (int32_t)level[1] - 1 : -1;
    for (int d = 0; d < D; ++d) factor[d] = vertex_factor<D>(d, level[3], (uint32_t)level[2]);
    cell = locate_simplex<D, int32_t>(point, map, factor, level[3] == 1);
  }
  // Where the F features of vertex k stand in the table.
  template <int F>
  RADFIELD_FN int64_t at(int k) const { return (offset + (cell.entry[k] & mask)) * F; }
  // Its weight; or the weight's derivative along a tangent.
  template <bool TANGENT>
  RADFIELD_FN float weight(int k, const float (&tangent)[D]) const {
    return TANGENT ? vertex_weight_along(cell, k, tangent, map) : vertex_weight(cell, k);
  }
};

// sum += the features of the simplex's vertices, each times its weight.
template <bool TANGENT, int D, int F, class T>
RADFIELD_FN void add_vertices(float (&sum)[F], const DeviceSimplex<D>& simplex, const T* table, const float (&tangent)[D]) {
  float values[F];
#pragma unroll
  for (int k = 0; k <= D; ++k) {
    read_vector(values, table + simplex.template at<F>(k));
    const float w = simplex.template weight<TANGENT>(k, tangent);
    for (int f = 0; f < F; ++f) sum[f] = fma(values[f], w, sum[f]);
  }
}

}  // namespace radfield
