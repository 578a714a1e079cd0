// A ray alone (gaussian_trace_walk.h) on a CPU: 16 boxes or particles side by side.
#pragma once
#include "../tracing/particle_lanes.h"
#include "gaussian_trace_walk.h"

namespace radfield {

struct LoneRay {
  vf o[3], d[3], inverse[3];
  float near, far;
  uint64_t last;
  int32_t visits[3];
};
// Which of 16 boxes the ray meets between its last particle and the end, and where it enters them.
RADFIELD_SIMD uint32_t meet_boxes(const LoneRay& ray, float begin, float end, const float* box, float* depth) {
  uint32_t bits = 0;
  for (int i = 0; i < PARTICLE_WIDE; i += W) {
    vf near = vf{} + begin, far = vf{} + end;
    for (int c = 0; c < 3; ++c) {
      const vf a = (load(box + c * PARTICLE_WIDE + i) - ray.o[c]) * ray.inverse[c];
      const vf b = (load(box + (3 + c) * PARTICLE_WIDE + i) - ray.o[c]) * ray.inverse[c];
      near = max(min(a, b), near), far = min(max(a, b), far);
    }
    store(depth + i, near);
    const vi there = load(box + i) <= load(box + 3 * PARTICLE_WIDE + i);  // an empty box is entered behind where it is left
    bits |= mask_bits(there & (near * (1 - 1e-6f) <= far * (1 + 1e-6f))) << i;
  }
  return bits;
}

// Particles place .. place + W - 1 of the tree, as a ray meets them.
struct LeafHits {
  vf tau, alpha;
  uint32_t bits;
};
template <class Struct>
RADFIELD_SIMD LeafHits meet_leaf(const Struct& a, const LoneRay& ray, int64_t place, float scale) {
  const float* data = a.block + place / PARTICLE_WIDE * BLOCK_ROWS * PARTICLE_WIDE + place % PARTICLE_WIDE;
  vf mean[3], whiten[9];
  for (int k = 0; k < 3; ++k) mean[k] = load(data + (BLOCK_MEAN + k) * PARTICLE_WIDE);
  for (int k = 0; k < 9; ++k) whiten[k] = load(data + (BLOCK_WHITEN + k) * PARTICLE_WIDE);
  const Meeting<vf> hit = meet(mean, whiten, ray.o, ray.d);
  const vf alpha = load(data + BLOCK_OPACITY * PARTICLE_WIDE) * kernel_response(hit.square, a.degree, scale);
  const vi on = (alpha >= (float)a.min_response) & (hit.tau > ray.near) & (hit.tau < ray.far);
  return {hit.tau, min(alpha, vf{} + (float)a.max_alpha), mask_bits(on)};
}

template <class Struct, int MOST>
inline void search_leaf(const Struct& a, LoneRay& ray, int64_t leaf, float begin, float scale, KBuffer<MOST>& buffer) {
  alignas(64) float depth[PARTICLE_WIDE], tau[W], alpha[W];
  const uint32_t boxes = meet_boxes(ray, begin, buffer.end, a.leaf_box + leaf * 6 * PARTICLE_WIDE, depth);
  ++ray.visits[1];
  for (int i = 0; i < PARTICLE_WIDE; i += W) {
    if (!(boxes >> i & ((1u << W) - 1))) continue;
    const LeafHits hits = meet_leaf(a, ray, leaf * PARTICLE_WIDE + i, scale);
    store(tau, hits.tau), store(alpha, hits.alpha);
    ++ray.visits[2];
    for (uint32_t bits = hits.bits; bits; bits &= bits - 1) {
      const int lane = __builtin_ctz(bits);
      const int64_t place = leaf * PARTICLE_WIDE + i + lane;
      if (place >= a.G) break;
      const KEntry e = {make_key(tau[lane], a.order[place]), (int32_t)place, alpha[lane]};
      if (e.key > ray.last) keep_nearest(buffer, e);
    }
  }
}

}  // namespace radfield
