// A block's tile is 32 pixels, one after another in the picture's order. Features are those of the grid's own kernel,
// not of the CPU's way row by row (grid_lattice.h).
#include "picture_frame.h"

#include "../networks/grid_field_device.h"

namespace radfield {

template <int MMA>
__global__ void picture_frame_pack(const PictureFrame a) {
  pack_network<MMA>(a);
}

RADFIELD_FN void put_value(uint8_t* to, float value, float) { *to = (uint8_t)quantized(value, 255.0f); }
RADFIELD_FN void put_value(uint16_t* to, float value, float) { *to = (uint16_t)quantized(value, 65535.0f); }
RADFIELD_FN void put_value(float* to, float value, float peak) { *to = value * peak; }

template <int MMA, int F, class T, class V>
__global__ void __launch_bounds__(128) picture_frame(const PictureFrame a, float* scratch, int64_t rows) {
  SHARED_ARRAY(TileShape, shape, [1]);
  SHARED_ARRAY(TilePoints<2>, points, [1]);
  read_shape(shape[0], a.layers, a.N, a.bias);
  const FieldRows memory = field_rows(a, shape[0], scratch, rows);
  const int64_t pixels = a.rows * a.columns;
  for (int64_t i = (int64_t)blockIdx.x * TILE; i < pixels; i += (int64_t)gridDim.x * TILE) {
    if (threadIdx.x < TILE) {
      const int s = (int)threadIdx.x;
      const bool used = points[0].used[s] = i + s < pixels;
      points[0].x[0][s] = used ? a.across[(i + s) % a.columns] : 0.0f;
      points[0].x[1][s] = used ? a.down[(i + s) / a.columns] : 0.0f;
    }
    __syncthreads();
    load_features<GridEncoding<F>, T>(a, points[0], memory.x, memory.inputs);
    __syncthreads();
    run_layers<MMA>(a, shape[0], memory.x, memory.h, [&](int o, int s, float value) {
      if (i + s < pixels) put_value((V*)a.values + (i + s) * a.O + o, value, (float)a.peak);
    });
  }
}

}  // namespace radfield
