// A block is 32 rays, one per lane of its first warp, and the network's tile of their samples (fused.py).
#include "fused.h"

#include "../encodings/spherical_harmonics.h"
#include "../networks/encodings_device.h"
#include "../sampling/march_device.h"
#include "composite.h"

namespace radfield {

// A network's part of the arguments, by the names that mlp_tiles.h asks for.
struct FusedNetwork {
  const float* parameters;
  float* packed;
  int64_t activation, output_activation;
};
RADFIELD_FN FusedNetwork density_network(const RenderFused& a) {
  return {a.density_parameters, a.density_packed, a.activation, NONE};
}
RADFIELD_FN FusedNetwork color_network(const RenderFused& a) {
  return {a.color_parameters, a.color_packed, a.activation, NONE};
}

template <int MMA>
__global__ void render_fused_pack(const RenderFused a) {
  SHARED_ARRAY(TileShape, shape, [2]);
  read_shape(shape[0], a.density_layers, a.A, a.bias);
  read_shape(shape[1], a.color_layers, a.K, a.bias);
  pack_weights<MMA>(density_network(a), shape[0]);
  pack_weights<MMA>(color_network(a), shape[1]);
}

// A tile's samples: where they are, and what the networks say of them.
struct FusedTile {
  TilePoints<3> points;
  float d[3][TILE], logit[TILE], color[3][TILE];
};

// The ray of a lane, and what it has seen so far.
template <bool CONE, bool CASCADES>
struct FusedRay {
  const RenderFused& a;
  const Marcher<CONE, CASCADES> march;
  Ray ray;
  int64_t number = -1;  // -1: none
  int32_t step = 0;
  float reached = 1.0f, thick = 0.0f, depth = 0.0f, color[3] = {};

  // Moves on to the next occupied step, of the next ray where this one has no more. False where there are none left.
  RADFIELD_FN bool next() {
    for (;;) {
      if (number < 0 && !take()) return false;
      for (; step < ray.steps; ++step) {
        const bool at_segment = march.segment && step % march.segment == 0;
        if (at_segment && !march.near_occupied(ray, step)) step += march.segment - 1;
        else if (march.occupied(ray, step)) return true;
      }
      leave();
    }
  }
  RADFIELD_FN bool take() {
    const int64_t next = (int64_t)atomicAdd((unsigned long long*)a.taken, 1ull);
    if (next >= a.N) return false;
    ray = load_ray<CONE>(march.a, march.constants, next);
    number = next, step = 0, reached = 1.0f, thick = depth = 0.0f;
    for (int c = 0; c < 3; ++c) color[c] = 0.0f;
    return true;
  }
  RADFIELD_FN void leave() {
    for (int c = 0; c < 3; ++c) a.color[c * a.N + number] = color[c];
    a.opacity[number] = 1.0f - reached, a.depth[number] = depth;
    number = -1;
  }
  RADFIELD_FN void put(FusedTile& tile, int s) const {
    float q[3];
    ray.point_at(step_time<CONE>(march.constants.stepping, ray, step, 0.5f), q);
    const float scale = inverse_side((int32_t)a.cascades - 1);
    for (int c = 0; c < 3; ++c) {
      const float x = a.cascades == 1 ? q[c] : (q[c] - 0.5f) * scale + 0.5f;
      tile.points.x[c][s] = a.box ? (x - a.box[c]) / (a.box[3 + c] - a.box[c]) : x;
      tile.d[c][s] = ray.d[c];
    }
  }
  // Composites the sample and goes one step on.
  RADFIELD_FN void see(const FusedTile& tile, int s) {
    const float t0 = step_time<CONE>(march.constants.stepping, ray, step, 0.0f);
    const float t1 = step_time<CONE>(march.constants.stepping, ray, step + 1, 0.0f);
    const float tau = density(tile.logit[s], 0.0f) * (t1 - t0), w = reached * absorbed(tau);
    for (int c = 0; c < 3; ++c) color[c] = fma(w, colour(tile.color[c][s]), color[c]);
    depth = fma(w, (t0 + t1) * 0.5f, depth);
    thick = thick + tau, reached = transmittance(thick);
    ++step;
    if (!(reached >= (float)a.stop)) leave();
  }
};

// The direction's harmonics behind the geometry features, rows of the colour network's inputs.
template <int DEGREE, class T>
RADFIELD_FN void fused_harmonics(const RenderFused& a, const FusedTile& tile, float* x, int rows) {
  const int first = (int)a.features, behind = first + DEGREE * DEGREE;
  if (threadIdx.x < TILE) {
    const int s = (int)threadIdx.x;
    const bool used = tile.points.used[s];
    const float u = used ? tile.d[0][s] : 0.0f, v = used ? tile.d[1][s] : 0.0f, w = used ? tile.d[2][s] : 1.0f;
    sh_values<DEGREE>(u, v, w, 1.0f, 0.0f,
                      [&](int c, float value) { x[(first + c) * STRIDE + s] = as_stored<T>(value); });
  }
  for_rows(rows - behind, [&](int c, int s) { x[(behind + c) * STRIDE + s] = 0.0f; });
}

// Encoding: of the positions, as load_features takes it.
template <int MMA, bool CONE, bool CASCADES, class Encoding, int DEGREE, class T>
__global__ void __launch_bounds__(128) render_fused(const RenderFused a, float* scratch, int64_t rows) {
  SHARED_ARRAY(TileShape, shape, [2]);
  SHARED_ARRAY(Constants, constants, [1]);
  SHARED_ARRAY(FusedTile, tiles, [1]);
  read_shape(shape[0], a.density_layers, a.A, a.bias);
  read_shape(shape[1], a.color_layers, a.K, a.bias);
  const MarchCount m = march_arguments(a);
  const int segment = steps_per_segment(true, CONE, CASCADES, (float)a.step, a.resolution);
  make_constants(constants[0], m, segment);
  Rows memory = block_rows(scratch, rows);
  float *const x = memory.take(shape[0].layer[0].rows), *const seen = memory.take(shape[1].layer[0].rows);
  float* const h[2] = {memory.take((int)a.widest), memory.take((int)a.widest)};
  FusedTile& tile = tiles[0];
  FusedRay<CONE, CASCADES> ray{a, {m, constants[0], segment, (int)a.resolution, 3 * log2_of(a.resolution)}};
  const int s = (int)threadIdx.x;
  for (;;) {
    bool found = false;
    if (s < TILE) {
      found = tile.points.used[s] = ray.next();
      if (found) ray.put(tile, s);
    }
    if (!__syncthreads_or(found)) return;
    load_features<Encoding, T>(a, tile.points, x, shape[0].layer[0].rows);
    fused_harmonics<DEGREE, T>(a, tile, seen, shape[1].layer[0].rows);
    __syncthreads();
    run_layers<MMA>(density_network(a), shape[0], x, h, [&](int o, int at, float value) {
      seen[o * STRIDE + at] = as_stored<T>(value);
      if (o == 0) tile.logit[at] = value;
    });
    run_layers<MMA>(color_network(a), shape[1], seen, h, [&](int o, int at, float value) { tile.color[o][at] = value; });
    if (found) ray.see(tile, s);
  }
}

}  // namespace radfield
