// Rendering of a radiance field in one pass (fused.py has the whole and the letters).
#pragma once
#include "../sampling/march.h"

namespace radfield {

struct RenderFused {
  float* color;
  float* opacity;
  float* depth;
  int64_t* taken;
  int64_t* nanoseconds;
  const float* origins;
  const float* directions;
  const float* near;
  const float* far;
  const int32_t* bitfield;
  const int32_t* near_blocks;
  const void* table;
  int64_t table_type;
  const int64_t* levels;
  const float* scales;
  const float* maps;
  const uint8_t* choices;
  const float* box;
  const float* density_parameters;
  const int64_t* density_layers;
  float* density_packed;
  const float* color_parameters;
  const int64_t* color_layers;
  float* color_packed;
  int64_t smoothstep;
  int64_t encoding;
  int64_t log2_codebook;
  int64_t log2_probes;
  int64_t activation;
  int64_t bias;
  int64_t widest;
  int64_t features;
  int64_t degree;
  int64_t kernel;
  int64_t width;
  int64_t resolution;
  int64_t cascades;
  double step;
  double cone;
  double max_step;
  double stop;
  int64_t N, B, S, E, F, L, W, U, P, A, Q, I, K, J;
};

// What the march reads.
RADFIELD_FN MarchCount march_arguments(const RenderFused& a) {
  MarchCount m{};
  m.origins = a.origins, m.directions = a.directions, m.near = a.near, m.far = a.far;
  m.bitfield = a.bitfield, m.near_blocks = a.near_blocks, m.resolution = a.resolution, m.cascades = a.cascades;
  m.step = a.step, m.cone = a.cone, m.max_step = a.max_step, m.N = a.N, m.skip = 1;
  return m;
}

}  // namespace radfield
