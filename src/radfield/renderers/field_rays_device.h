// Rays that ask a field for one point after another, on CUDA. A block holds 32 of them, one per lane of its first warp,
// and asks grid and network for the next points of all at once, 32 being a tile of the network's kernels. A ray that
// has ended gives its lane to the next one of the block, so that tiles stay full until the block's rays end; a ray's
// result depends on that ray alone. Only device compilers take this file.
//
// What a ray asks for, and makes of the answers, is a `Walker`:
//   bool next(float (&x)[3])      the next point, of the next ray where this one has ended; false where none is left
//   void see(const FieldTile& t, int s)   takes the field's values there, t.y[output][s]
#pragma once
#include "../networks/grid_field_device.h"

namespace radfield {

constexpr int FIELD_OUTPUTS = 4;   // the first ones, which a walker may see
constexpr int RAYS_IN_A_ROW = 64;  // that a block takes before it leaves as many to each of the others

struct FieldTile {
  TilePoints<3> points;
  float y[FIELD_OUTPUTS][TILE];
  int taken;  // rays of the block
};

// The next ray of this block, of `rays`; -1 where there is none.
RADFIELD_FN int64_t take_ray(FieldTile& tile, int64_t rays) {
  const int n = atomicAdd(&tile.taken, 1);
  const int64_t row = (int64_t)(n / RAYS_IN_A_ROW) * gridDim.x + blockIdx.x;
  const int64_t ray = row * RAYS_IN_A_ROW + n % RAYS_IN_A_ROW;
  return ray < rays ? ray : -1;
}

// BESIDE: inputs of the network behind the features: none, or the 3 coordinates in [-1, 1].
template <int MMA, int F, class T, int BESIDE, class Walker, class Args>
RADFIELD_FN void walk_rays(const Args& a, float* scratch, int64_t rows) {
  SHARED_ARRAY(TileShape, shape, [1]);
  SHARED_ARRAY(FieldTile, tiles, [1]);
  FieldTile& tile = tiles[0];
  if (threadIdx.x == 0) tile.taken = 0;
  read_shape(shape[0], a.layers, a.N, a.bias);
  const FieldRows memory = field_rows(a, shape[0], scratch, rows);
  Walker walker{a, tile};
  const int s = (int)threadIdx.x, channels = (int)a.L * F;
  for (;;) {
    bool found = false;
    if (s < TILE) {
      float point[3];
      found = tile.points.used[s] = walker.next(point);
      for (int c = 0; c < 3; ++c) tile.points.x[c][s] = found ? point[c] : 0.0f;
    }
    if (!__syncthreads_or(found)) return;
    load_features<GridEncoding<F>, T>(a, tile.points, memory.x, memory.inputs);
    if constexpr (BESIDE) {
      __syncthreads();
      for_rows(BESIDE, [&](int c, int at) {
        memory.x[(channels + c) * STRIDE + at] = 2.0f * tile.points.x[c][at] - 1.0f;
      });
    }
    __syncthreads();
    run_layers<MMA>(a, shape[0], memory.x, memory.h, [&](int o, int at, float value) {
      if (o < FIELD_OUTPUTS) tile.y[o][at] = value;
    });
    if (found) walker.see(tile, s);
  }
}

}  // namespace radfield
