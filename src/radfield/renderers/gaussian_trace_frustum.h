// What bounds a group of rays: along its main axis w, the other two coordinates lie between lines. A box outside of these
// is met by none of the rays.
#pragma once
#include "../cpu/lanes.h"
#include "gaussian_trace.h"

namespace radfield {

// Rays as scalars, 64 at a time.
struct TileRays {
  alignas(64) float o[3][TRACE_TILE], d[3][TRACE_TILE], near[TRACE_TILE], far[TRACE_TILE];
  int64_t index[TRACE_TILE];  // of the ray; -1: none
};

struct Frustum {
  int w, across[2];
  float sign, base;                             // sign: which way the rays go along w; base: where they begin, times sign
  float low[2], high[2], slope_low[2], slope_high[2];
};

constexpr float LEAST_ALONG = 0.4f, MOST_SPREAD = 0.35f, MOST_BASE = 0.1f;

// Chooses w. Returns false where the rays do not go one way.
inline bool main_axis(const TileRays& rays, Frustum& f) {
  float sum[3] = {};
  for (int i = 0; i < TRACE_TILE; ++i)
    for (int c = 0; c < 3 && rays.index[i] >= 0; ++c) sum[c] += rays.d[c][i];
  f.w = abs(sum[0]) >= max(abs(sum[1]), abs(sum[2])) ? 0 : abs(sum[1]) >= abs(sum[2]) ? 1 : 2;
  f.across[0] = (f.w + 1) % 3, f.across[1] = (f.w + 2) % 3;
  f.sign = sum[f.w] < 0 ? -1.0f : 1.0f, f.base = 3e38f;
  for (int i = 0; i < TRACE_TILE; ++i) {
    if (rays.index[i] < 0) continue;
    if (!(rays.d[f.w][i] * f.sign > LEAST_ALONG)) return false;
    f.base = min(f.base, rays.o[f.w][i] * f.sign);
  }
  return true;
}

// The lines around rays first .. first + count - 1, whose w and base are there. extent: the largest coordinate of the
// scene, to which roundings are compared.
inline void bound_rays(const TileRays& rays, int first, int count, float extent, Frustum& f) {
  for (int side = 0; side < 2; ++side) {
    const int c = f.across[side];
    float low = 3e38f, high = -3e38f, slope_low = 3e38f, slope_high = -3e38f;
    for (int i = first; i < first + count; ++i) {
      if (rays.index[i] < 0) continue;
      const float slope = rays.d[c][i] / (rays.d[f.w][i] * f.sign);
      const float at = rays.o[c][i] - (rays.o[f.w][i] * f.sign - f.base) * slope;
      low = min(low, at), high = max(high, at), slope_low = min(slope_low, slope), slope_high = max(slope_high, slope);
    }
    const float slack = 2e-6f * (max(abs(low), abs(high)) + abs(f.base) + extent);
    f.low[side] = low - slack, f.high[side] = high + slack, f.slope_low[side] = slope_low, f.slope_high[side] = slope_high;
  }
}

// Whether the rays are so close together that they share their way: else each goes alone.
inline bool is_narrow(const Frustum& f, float extent) {
  for (int side = 0; side < 2; ++side)
    if (!(f.slope_high[side] - f.slope_low[side] <= MOST_SPREAD && f.high[side] - f.low[side] <= MOST_BASE * extent)) return false;
  return true;
}

// Which of 16 boxes the rays may meet; depth: where those begin along w, from the base.
RADFIELD_SIMD uint32_t meet_boxes(const Frustum& f, const float* box, float* depth) {
  uint32_t bits = 0;
  for (int i = 0; i < PARTICLE_WIDE; i += W) {
    auto bound = [&](int c, int end) { return load(box + (3 * end + c) * PARTICLE_WIDE + i); };
    const vf w0 = f.sign > 0 ? bound(f.w, 0) : vf{} - bound(f.w, 1), w1 = f.sign > 0 ? bound(f.w, 1) : vf{} - bound(f.w, 0);
    const vf from = max(w0 - f.base, vf{}), to = w1 - f.base;
    vi on = to >= 0.0f;
    for (int side = 0; side < 2; ++side) {
      const vf low = fma(f.slope_low[side] < 0 ? to : from, vf{} + f.slope_low[side], vf{} + f.low[side]);
      const vf high = fma(f.slope_high[side] < 0 ? from : to, vf{} + f.slope_high[side], vf{} + f.high[side]);
      on = on & (low <= bound(f.across[side], 1)) & (high >= bound(f.across[side], 0));
    }
    store(depth + i, from);
    bits |= mask_bits(on) << i;
  }
  return bits;
}

}  // namespace radfield
