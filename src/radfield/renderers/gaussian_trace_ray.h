// A ray alone: the k nearest particles behind the last one are found by going down the tree, nearest box first, 16 boxes
// or particles side by side; then the next k (3DGRT, sec. 4.2).
#pragma once
#include "../tracing/bvh.h"
#include "../tracing/particle_lanes.h"
#include "gaussian_trace.h"

namespace radfield {

constexpr int MOST_K = 64, STACK = 512;

struct KEntry {
  uint64_t key;  // bits of tau, number of the particle: the order along the ray
  int32_t place;  // in the tree
  float alpha;
};
struct LoneRay {
  vf o[3], d[3], inverse[3];
  float near, far;
  uint64_t last;
  int32_t visits[3];
};
struct KBuffer {
  KEntry entry[MOST_K + 1];
  int n, k;
  float end;  // nothing at or beyond this is wanted
};

RADFIELD_SIMD float key_depth(uint64_t key) { return as_float((int32_t)(key >> 32)); }
RADFIELD_SIMD uint64_t make_key(float tau, int32_t number) { return (uint64_t)(uint32_t)as_int(tau) << 32 | (uint32_t)number; }

inline void keep_nearest(KBuffer& buffer, const KEntry& e) {
  if (buffer.n == buffer.k && e.key >= buffer.entry[buffer.n - 1].key) return;
  int at = buffer.n < buffer.k ? buffer.n++ : buffer.n - 1;
  for (; at > 0 && buffer.entry[at - 1].key > e.key; --at) buffer.entry[at] = buffer.entry[at - 1];
  buffer.entry[at] = e;
}

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

template <class Struct>
inline void search_leaf(const Struct& a, LoneRay& ray, int64_t leaf, float begin, float scale, KBuffer& buffer) {
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
  if (buffer.n == buffer.k) buffer.end = min(buffer.end, key_depth(buffer.entry[buffer.k - 1].key));
}

// The k nearest behind ray.last.
template <class Struct>
inline void find_nearest(const Struct& a, LoneRay& ray, float scale, KBuffer& buffer) {
  struct Waiting {
    float depth;
    int32_t child;
  } stack[STACK];
  int top = 0;
  const float begin = max(ray.near, key_depth(ray.last));
  buffer.n = 0, buffer.end = ray.far;
  stack[top++] = {begin, 0};
  while (top) {
    const Waiting next = stack[--top];
    if (next.depth * (1 - 1e-6f) > buffer.end) continue;
    if (next.child < 0) {
      search_leaf(a, ray, -1 - (int64_t)next.child, begin, scale, buffer);
      continue;
    }
    alignas(64) float depth[PARTICLE_WIDE];
    const int bottom = top;
    ++ray.visits[0];
    uint32_t bits = meet_boxes(ray, begin, buffer.end, a.box + (int64_t)next.child * 6 * PARTICLE_WIDE, depth);
    for (; bits; bits &= bits - 1) {
      const int lane = __builtin_ctz(bits);
      const Waiting child = {depth[lane], a.child[(int64_t)next.child * PARTICLE_WIDE + lane]};
      int at = top++;
      for (; at > bottom && stack[at - 1].depth < child.depth; --at) stack[at] = stack[at - 1];
      stack[at] = child;
    }
  }
}

// body(entry) for the particles behind state.last, nearest first, until it returns false.
template <class Struct, class Body>
inline void walk_ray(const Struct& a, LoneRay& ray, Body body) {
  KBuffer buffer;
  buffer.k = (int)a.k;
  const float scale = kernel_scale(a.degree);
  do {
    find_nearest(a, ray, scale, buffer);
    for (int i = 0; i < buffer.n; ++i) {
      ray.last = buffer.entry[i].key;
      if (!body(buffer.entry[i])) return;
    }
  } while (buffer.n == buffer.k);
}

}  // namespace radfield
