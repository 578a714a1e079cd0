// Hash grid and MLP in one pass: a block's threads find the features of its tile of samples, level by level, and leave
// them in the rows that the network reads.
#include "grid_mlp.h"

#include "../encodings/hash_grid_device.h"
#include "mlp_tiles.h"

namespace radfield {

template <int MMA>
__global__ void grid_mlp_pack(const GridMlpForward a) {
  SHARED_ARRAY(TileShape, shape, [1]);
  read_shape(shape[0], a.layers, a.N, a.bias);
  pack_weights<MMA>(a, shape[0]);
}

// Features as the grid's own kernel would have written them: rounded where the table has 16 bits.
template <int D, int F, class T>
RADFIELD_FN void load_features(const GridMlpForward& a, float* x, int64_t i, int rows) {
  for_rows((int)a.L, [&](int l, int s) {
    float sum[F] = {};
    if (i + s < a.M) {
      const GridLevel level = grid_level(a.levels, a.scales, l);
      const auto cell = cell_of<D>(a.x, a.M, i + s, level, a.smoothstep);
      add_corners<D, F>(sum, cell, level, (const T*)a.table + level.offset * F,
                        [&](int c) { return corner_weight(cell, c); });
    }
    for (int f = 0; f < F; ++f) {
      T feature;
      write(&feature, sum[f]);
      x[(l * F + f) * STRIDE + s] = read(&feature);
    }
  });
  const int channels = (int)a.L * F;
  for_rows(rows - channels, [&](int c, int s) { x[(channels + c) * STRIDE + s] = 0.0f; });
}

template <int MMA, int D, int F, class T>
__global__ void __launch_bounds__(128) grid_mlp_forward(const GridMlpForward a, float* scratch, int64_t rows) {
  SHARED_ARRAY(TileShape, shape, [1]);
  read_shape(shape[0], a.layers, a.N, a.bias);
  Rows memory = block_rows(scratch, rows);
  const int inputs = shape[0].layer[0].rows;
  float* const x = memory.take(inputs);
  float* const h[2] = {memory.take((int)a.widest), memory.take((int)a.widest)};
  for (int64_t i = (int64_t)blockIdx.x * TILE; i < a.M; i += (int64_t)gridDim.x * TILE) {
    load_features<D, F, T>(a, x, i, inputs);
    __syncthreads();
    run_layers<MMA>(a, shape[0], x, h, [&](int o, int s, float value) {
      if (i + s < a.M) write_stream(a.y, a.y_type, o * a.M + i + s, value);
    });
  }
}

}  // namespace radfield
