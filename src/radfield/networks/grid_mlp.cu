// Hash grid and MLP in one pass: a block's threads find the features of its tile of samples, level by level, and leave
// them in the rows that the network reads.
#include "grid_mlp.h"

#include "grid_field_device.h"

namespace radfield {

template <int MMA>
__global__ void grid_mlp_pack(const GridMlpForward a) {
  pack_network<MMA>(a);
}

template <int MMA, int D, int F, class T>
__global__ void __launch_bounds__(128) grid_mlp_forward(const GridMlpForward a, float* scratch, int64_t rows) {
  SHARED_ARRAY(TileShape, shape, [1]);
  read_shape(shape[0], a.layers, a.N, a.bias);
  SHARED_ARRAY(TilePoints<D>, points, [1]);
  const FieldRows memory = field_rows(a, shape[0], scratch, rows);
  const int s = (int)threadIdx.x;
  for (int64_t i = (int64_t)blockIdx.x * TILE; i < a.M; i += (int64_t)gridDim.x * TILE) {
    if (s < TILE) {
      points[0].used[s] = i + s < a.M;
      for (int d = 0; d < D; ++d) points[0].x[d][s] = i + s < a.M ? a.x[d * a.M + i + s] : 0.0f;
    }
    __syncthreads();
    load_features<GridEncoding<F>, T>(a, points[0], memory.x, memory.inputs);
    __syncthreads();
    run_layers<MMA>(a, shape[0], memory.x, memory.h, [&](int o, int at, float value) {
      if (i + at < a.M) write_stream(a.y, a.y_type, o * a.M + i + at, value);
    });
  }
}

}  // namespace radfield
