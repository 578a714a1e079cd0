// A grid and the network behind it, asked at a tile of points from within a CUDA kernel: what ops in one pass are built
// of. Arguments have the tensors and letters of grid_mlp.py: FIELD. Only device compilers take this file.
#pragma once
#include "../encodings/hash_grid_device.h"
#include "mlp_tiles.h"

namespace radfield {

// Packs the network's weights, by all threads of the grid: a launch before those that ask.
template <int MMA, class Args>
RADFIELD_FN void pack_network(const Args& a) {
  SHARED_ARRAY(TileShape, shape, [1]);
  read_shape(shape[0], a.layers, a.N, a.bias);
  pack_weights<MMA>(a, shape[0]);
}

// The points of a tile, D coordinates each.
template <int D>
struct TilePoints {
  float x[D][TILE];
  bool used[TILE];
};

// The value as it is between grid and network: rounded where the table has 16 bits.
template <class T>
RADFIELD_FN float as_stored(float value) {
  T kept;
  write(&kept, value);
  return read(&kept);
}

// An encoding whose features lie in groups of F: find(a, point, g, values) adds those of group g to values of 0. This one
// is the grids of hash_grid.h; others are in encodings_device.h.
template <int FEATURES>
struct GridEncoding {
  static constexpr int F = FEATURES;

  template <class Args>
  RADFIELD_FN static int groups(const Args& a) { return (int)a.L; }

  template <class T, class Args, int D>
  RADFIELD_FN static void find(const Args& a, const float (&point)[D], int l, float (&values)[F]) {
    uint32_t factor[D];
    const GridLevel level = grid_level(a.levels, a.scales, l);
    for (int d = 0; d < D; ++d) factor[d] = axis_factor(level, d);
    const auto cell = locate<D, int32_t>(point, level, factor, a.smoothstep);
    add_corners<D, F>(values, cell, level, (const T*)a.table + level.offset * F,
                      [&](int c) { return corner_weight(cell, c); });
  }
};

// The encoding's features of the tile, rows of the network's inputs. What is behind them, up to `rows`, is 0.
template <class Encoding, class T, class Args, int D>
RADFIELD_FN void load_features(const Args& a, const TilePoints<D>& points, float* x, int rows) {
  constexpr int F = Encoding::F;
  const int groups = Encoding::groups(a), channels = groups * F;
  for_rows(groups, [&](int g, int s) {
    float values[F] = {}, point[D];
    if (points.used[s]) {
      for (int d = 0; d < D; ++d) point[d] = points.x[d][s];
      Encoding::template find<T>(a, point, g, values);
    }
    for (int f = 0; f < F; ++f) x[(g * F + f) * STRIDE + s] = as_stored<T>(values[f]);
  });
  for_rows(rows - channels, [&](int c, int s) { x[(channels + c) * STRIDE + s] = 0.0f; });
}

// The rows of this block: the network's inputs, and two sets for what is between its layers.
struct FieldRows {
  int inputs;
  float *x, *h[2];
};
template <class Args>
RADFIELD_FN FieldRows field_rows(const Args& a, const TileShape& shape, float* scratch, int64_t rows) {
  Rows memory = block_rows(scratch, rows);
  const int inputs = shape.layer[0].rows;
  float* const x = memory.take(inputs);
  float* const first = memory.take((int)a.widest);
  return {inputs, x, {first, memory.take((int)a.widest)}};
}

}  // namespace radfield
