// The way of one ray through the tree: the k nearest particles behind the last one are found by going down, nearest box
// first; then the next k (3DGRT, sec. 4.2). What a ray gathers, and its gradients. For both compilers: how 16 boxes or
// particles are met is for `meet_boxes` and `search_leaf` of the ray's type, side by side on a CPU
// (gaussian_trace_ray.h), one after another on a GPU (gaussian_trace_device.h).
#pragma once
#include "../tracing/bvh.h"
#include "gaussian_trace.h"

namespace radfield {

// Of the nodes that wait. The tree is at most 6 levels deep and those that halve 2^28 particles by 16 (particle_bvh.cpp):
// fewer than 16, each of which leaves 15 children waiting.
constexpr int MOST_K = 64, STACK = 256;

struct KEntry {
  uint64_t key;  // bits of tau, number of the particle: the order along the ray
  int32_t place;  // in the tree
  float alpha;
};
template <int MOST>
struct KBuffer {
  KEntry entry[MOST];
  int n, k;
  float end;  // nothing at or beyond this is wanted
};

RADFIELD_FN float key_depth(uint64_t key) { return as_float((int32_t)(key >> 32)); }
RADFIELD_FN uint64_t make_key(float tau, int32_t number) { return (uint64_t)(uint32_t)as_int(tau) << 32 | (uint32_t)number; }

template <int MOST>
RADFIELD_FN void keep_nearest(KBuffer<MOST>& buffer, const KEntry& e) {
  if (buffer.n == buffer.k && e.key >= buffer.entry[buffer.n - 1].key) return;
  int at = buffer.n < buffer.k ? buffer.n++ : buffer.n - 1;
  for (; at > 0 && buffer.entry[at - 1].key > e.key; --at) buffer.entry[at] = buffer.entry[at - 1];
  buffer.entry[at] = e;
}

// The k nearest behind ray.last.
template <class Struct, class Ray, int MOST>
RADFIELD_FN void find_nearest(const Struct& a, Ray& ray, float scale, KBuffer<MOST>& buffer) {
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
      if (buffer.n == buffer.k) buffer.end = min(buffer.end, key_depth(buffer.entry[buffer.k - 1].key));
      continue;
    }
    alignas(64) float depth[PARTICLE_WIDE];
    const int bottom = top;
    ++ray.visits[0];
    uint32_t bits = meet_boxes(ray, begin, buffer.end, a.box + (int64_t)next.child * 6 * PARTICLE_WIDE, depth);
    for (; bits; bits &= bits - 1) {
      const int lane = lowest_bit(bits);
      const Waiting child = {depth[lane], a.child[(int64_t)next.child * PARTICLE_WIDE + lane]};
      int at = top++;
      for (; at > bottom && stack[at - 1].depth < child.depth; --at) stack[at] = stack[at - 1];
      stack[at] = child;
    }
  }
}

// body(entry) for the particles behind ray.last, nearest first, until it returns false. MOST: at least a.k.
template <int MOST, class Struct, class Ray, class Body>
RADFIELD_FN void walk_ray(const Struct& a, Ray& ray, Body body) {
  KBuffer<MOST> buffer;
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

// The ray of lane i of a tile, -1 for none. In an image lanes go along a Morton curve, so that neighbours keep together.
template <class Struct>
RADFIELD_FN int64_t ray_of(const Struct& a, int64_t tile, int i) {
  if (!a.width) {
    const int64_t ray = tile * TRACE_TILE + i;
    return ray < a.N ? ray : -1;
  }
  const int64_t tiles_x = (a.width + TRACE_SIDE - 1) / TRACE_SIDE;
  const int64_t x = tile % tiles_x * TRACE_SIDE + ((i & 1) | (i >> 1 & 2) | (i >> 2 & 4));
  const int64_t y = tile / tiles_x * TRACE_SIDE + ((i >> 1 & 1) | (i >> 2 & 2) | (i >> 3 & 4));
  return x < a.width && y * a.width + x < a.N ? y * a.width + x : -1;
}

// Whether a ray has a direction of length 1 and an origin in reach.
RADFIELD_FN bool is_ray(const float (&o)[3], const float (&d)[3]) {
  float square = 0, sum = 0;
  for (int c = 0; c < 3; ++c) square += d[c] * d[c], sum += abs(o[c]);
  return abs(square - 1.0f) < 0.01f && sum < FARTHEST_MEAN;
}

// Blends one particle; returns whether the ray goes on.
RADFIELD_FN bool blend(RayState& s, float alpha, float tau, const float* color, const float* normal, float least) {
  const float weight = alpha * s.transmittance;
  for (int c = 0; c < 3; ++c) s.color[c] = fma(weight, color[c], s.color[c]);
  s.depth = fma(weight, tau, s.depth);
  for (int c = 0; c < 3 && normal; ++c) s.normal[c] = fma(weight, normal[c], s.normal[c]);
  s.transmittance -= weight, ++s.hits;
  return s.transmittance > least;
}
// The same on the way of gradients; slope: d loss / d alpha.
RADFIELD_FN bool blend_gradient(RayState& s, RayGradient& g, float alpha, float tau, const float* color, float least,
                                float& slope, float& weight) {
  const float light = fma(color[0], g.color[0], fma(color[1], g.color[1], fma(color[2], g.color[2], tau * g.depth)));
  weight = alpha * s.transmittance;
  slope = g.alpha(alpha, s.transmittance, light);
  s.transmittance -= weight;
  return s.transmittance > least;
}

// What a ray has seen.
RADFIELD_FN void write_ray(const GaussianTraceForward& a, int64_t ray, const RayState& s) {
  for (int c = 0; c < 3; ++c) a.color[3 * ray + c] = s.color[c];
  for (int c = 0; c < 3 && a.normals; ++c) a.normals[3 * ray + c] = s.normal[c];
  a.depth[ray] = s.depth, a.transmittance[ray] = s.transmittance, a.hits[ray] = s.hits;
}

// What its gradient begins with.
RADFIELD_FN RayGradient gradient_of(const GaussianTraceBackward& a, int64_t ray) {
  RayGradient g = {};
  g.depth = a.grad_depth ? a.grad_depth[ray] : 0.0f;
  g.total = g.depth * a.depth[ray];
  if (a.grad_transmittance) g.total = fma(a.grad_transmittance[ray], a.transmittance[ray], g.total);
  for (int c = 0; c < 3 && a.grad_color; ++c) {
    g.color[c] = a.grad_color[3 * ray + c];
    g.total = fma(g.color[c], a.color[3 * ray + c], g.total);
  }
  return g;
}

// Where rows of sums go.
struct RowWriter {
  const GaussianTraceBackward& a;
  int64_t next, end;

  RADFIELD_FN int64_t take(int32_t number) {  // -1: the forward pass counted less, which no unchanged input does
    if (next == end) return -1;
    a.row_particle[next] = number;
    return next++;
  }
  RADFIELD_FN void finish() {
    while (next < end) a.row_particle[next++] = -1;
  }
};

// A particle as a single ray meets it.
struct LoneParticle {
  float mean[3], whiten[9], opacity, color[3];
};

// Gradients by a lone ray.
struct LoneGradient {
  float origin[3], direction[3], by_harmonic[MOST_HARMONICS];
};

// The row of sums of a particle that a lone ray blends; and what it adds to the gradient of the ray. harmonic(k): the
// ray's k-th harmonic.
template <class Harmonic>
RADFIELD_FN void lone_row(const GaussianTraceBackward& a, float scale, const float (&o)[3], const float (&d)[3],
                          const RayGradient& grad, const LoneParticle& p, int64_t place, float slope, float weight,
                          Harmonic harmonic, RowWriter& writer, LoneGradient& by_ray) {
  const int64_t at = writer.take(a.order[place]);
  if (at < 0) return;
  Meeting<float> hit = meet(p.mean, p.whiten, o, d);
  refine(hit);
  const float response = kernel_response(hit.square, a.degree, scale);
  if (!(p.opacity * response < (float)a.max_alpha)) slope = 0;
  float color[3], sums[TRACE_SUMS] = {};
  for (int c = 0; c < 3; ++c) color[c] = p.color[c] > 0 ? weight * grad.color[c] : 0;
  trace_sums(hit, response, kernel_derivative(hit.square, response, a.degree, scale), p.opacity, slope, weight, grad.depth, color, sums);
  for (int k = 0; k < TRACE_SUMS; ++k) a.partial[at * TRACE_SUMS + k] = sums[k];
  for (int64_t r = 0; r < a.R; ++r) a.partial_rest[at * a.R + r] = harmonic(r / 3 + 1) * color[r % 3];
  if (!a.grad_origins) return;
  const float force[3] = {sums[TRACE_FORCE], sums[TRACE_FORCE + 1], sums[TRACE_FORCE + 2]};
  trace_ray_gradient(hit, p.whiten, force, weight * grad.depth * hit.inverse, by_ray.origin, by_ray.direction);
  for (int64_t r = 0; r < a.R; ++r) by_ray.by_harmonic[r / 3 + 1] += color[r % 3] * a.coefficients[place * a.R + r];
}

RADFIELD_FN void add_ray_gradient(const GaussianTraceBackward& a, int64_t ray, const float* origin, const float* direction) {
  for (int c = 0; c < 3; ++c) a.grad_origins[3 * ray + c] += origin[c], a.grad_directions[3 * ray + c] += direction[c];
}

}  // namespace radfield
