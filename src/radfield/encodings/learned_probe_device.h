// The entries that a learned probe chose for a point's cell, as CUDA kernels read them. Only device compilers take this
// file.
#pragma once
#include "hash_grid_device.h"
#include "learned_probe.h"

namespace radfield {

template <int D>
RADFIELD_FN ProbeCell<D, float, int32_t> probe_cell(const float (&point)[D], const GridLevel& level, int interpolation,
                                                    const Codebook& book) {
  uint32_t factor[D];
  for (int d = 0; d < D; ++d) factor[d] = axis_factor(level, d);
  return locate_probe<D, int32_t>(point, level, factor, interpolation, book);
}

// sum += the features of the cell's corners, each times weight(corner). table: of the level.
template <int D, int F, class T, class Weight>
RADFIELD_FN void add_probed(float (&sum)[F], const ProbeCell<D, float, int32_t>& cell, const GridLevel& level,
                            const Codebook& book, const T* table, Weight weight) {
  float values[F];
#pragma unroll
  for (int c = 0; c < 1 << D; ++c) {
    read_vector(values, table + (int64_t)probed_entry(cell, c, level, book) * F);
    const float w = weight(c);
    for (int f = 0; f < F; ++f) sum[f] = fma(values[f], w, sum[f]);
  }
}

}  // namespace radfield
