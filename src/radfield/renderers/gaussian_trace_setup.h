// A tile made ready, walked, and finished ray by ray where its rays do not keep together.
#pragma once
#include <new>

#include "gaussian_trace_tile.h"

namespace radfield {

// The ray of lane i of a tile, -1 for none. In an image lanes go along a Morton curve, so that packets are squares.
template <class Struct>
inline int64_t ray_of(const Struct& a, int64_t tile, int i) {
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
inline bool is_ray(const TileRays& rays, int i) {
  float square = 0, sum = 0;
  for (int c = 0; c < 3; ++c) square += rays.d[c][i] * rays.d[c][i], sum += abs(rays.o[c][i]);
  return abs(square - 1.0f) < 0.01f && sum < FARTHEST_MEAN;
}

// Reads the rays of a tile; those that are none are left out (`refused`: bits). Empty lanes repeat a ray that is there.
template <class Struct>
inline bool read_rays(const Struct& a, int64_t tile, TileRays& rays, uint64_t& refused) {
  int some = -1;
  refused = 0;
  for (int i = 0; i < TRACE_TILE; ++i) {
    const int64_t ray = rays.index[i] = ray_of(a, tile, i);
    if (ray < 0) continue;
    for (int c = 0; c < 3; ++c) rays.o[c][i] = a.origins[c * a.N + ray], rays.d[c][i] = a.directions[c * a.N + ray];
    rays.near[i] = a.near ? max(a.near[ray], 0.0f) : 0.0f, rays.far[i] = a.far ? min(a.far[ray], 3e38f) : 3e38f;
    if (is_ray(rays, i)) some = i;
    else refused |= (uint64_t)1 << i, rays.index[i] = -1;
  }
  if (some < 0) return false;
  for (int i = 0; i < TRACE_TILE; ++i) {
    if (rays.index[i] >= 0) continue;
    for (int c = 0; c < 3; ++c) rays.o[c][i] = rays.o[c][some], rays.d[c][i] = rays.d[c][some];
    rays.near[i] = rays.far[i] = 0;
  }
  return true;
}

// The largest coordinate of the tree and the rays' origins.
template <class Struct>
inline float extent_of(const Struct& a, const TileRays& rays) {
  float extent = 1e-30f;
  for (int c = 0; c < 3; ++c) {
    for (int i = 0; i < PARTICLE_WIDE; ++i) {
      const float low = a.box[c * PARTICLE_WIDE + i], high = a.box[(3 + c) * PARTICLE_WIDE + i];
      if (low <= high) extent = max(extent, max(abs(low), abs(high)));
    }
    for (int i = 0; i < TRACE_TILE; ++i) extent = max(extent, abs(rays.o[c][i]));
  }
  return extent;
}

template <class Struct>
inline void begin_packet(Tile<Struct>& t, Packet& p, int first, const Frustum& frustum, bool backward) {
  p.first = first, p.rows = 0, p.full = false, p.frustum = frustum, p.active = 0;
  p.state = t.state + first, p.gradient = backward ? t.gradient + first : nullptr;
  bound_rays(t.rays, first, W, t.extent, p.frustum);
  for (int c = 0; c < 3; ++c) p.o[c] = load(t.rays.o[c] + first), p.d[c] = load(t.rays.d[c] + first);
  p.near = load(t.rays.near + first), p.far = load(t.rays.far + first);
  if (t.a.R) trace_harmonics<vf>(t.a.harmonics, p.d, p.harmonics);
  for (int lane = 0; lane < W; ++lane) {
    const int i = first + lane;
    p.head[lane] = p.tail[lane] = 0;
    p.limit_begin[lane] = t.rays.o[frustum.w][i] * frustum.sign - frustum.base;
    p.limit_scale[lane] = 1.0f / (t.rays.d[frustum.w][i] * frustum.sign);
    if (t.rays.index[i] >= 0) p.active |= 1u << lane;
  }
}

// The tile in this thread's memory, its rays read; null where it has none. `gradient` of the rays is for the caller.
template <class Struct>
inline Tile<Struct>* make_tile(const Struct& a, int64_t tile, uint64_t& refused) {
  Tile<Struct>* t = new (scratch((int64_t)(sizeof(Tile<Struct>) + PACKETS * sizeof(Table)))) Tile<Struct>(a);
  if (!read_rays(a, tile, t->rays, refused)) return nullptr;
  Table* tables = (Table*)(t + 1);
  for (int i = 0; i < PACKETS; ++i) t->packet[i].table = tables + i, t->packet[i].active = t->packet[i].rows = 0;
  t->scale = kernel_scale(a.degree), t->extent = extent_of(a, t->rays), t->normals = false;
  for (RayState& s : t->state) s = {{}, 0, {}, 1.0f, 0, 0};
  for (int32_t& n : t->visits) n = 0;
  return t;
}

// Traces the tile's packets where its rays keep together. What is left goes alone: bits.
template <class Struct>
inline uint64_t trace_packets(Tile<Struct>& t, bool backward) {
  uint64_t there = 0, left = 0;
  for (int i = 0; i < TRACE_TILE; ++i) there |= (uint64_t)(t.rays.index[i] >= 0) << i;
  Frustum frustum;
  if (!t.a.packets || !main_axis(t.rays, frustum)) return there;
  bound_rays(t.rays, 0, TRACE_TILE, t.extent, frustum);
  if (!is_narrow(frustum, t.extent)) return there;
  for (int i = 0; i < PACKETS; ++i) begin_packet(t, t.packet[i], i * W, frustum, backward);
  walk_tile(t, frustum);
  for (int i = 0; i < PACKETS; ++i) left |= (uint64_t)t.packet[i].active << i * W;
  return left;
}

template <class Struct>
inline LoneRay lone_ray(const Tile<Struct>& t, int i) {
  LoneRay ray;
  for (int c = 0; c < 3; ++c) {
    ray.o[c] = splat(t.rays.o[c][i]), ray.d[c] = splat(t.rays.d[c][i]);
    ray.inverse[c] = inverse_direction(ray.d[c]);
  }
  ray.near = t.rays.near[i], ray.far = t.rays.far[i], ray.last = t.state[i].last;
  for (int32_t& n : ray.visits) n = 0;
  return ray;
}

// A particle for a single ray. Its colour is that of a packet's ray, to the bit: where fma() is two roundings for vectors
// it is one for floats.
struct LoneParticle {
  float mean[3], whiten[9], opacity, color[3];
};
template <class Struct>
inline LoneParticle lone_particle(const Struct& a, int64_t place, const vf* harmonics) {
  LoneParticle p;
  const float* data = a.block + place / PARTICLE_WIDE * BLOCK_ROWS * PARTICLE_WIDE + place % PARTICLE_WIDE;
  for (int k = 0; k < 3; ++k) p.mean[k] = data[(BLOCK_MEAN + k) * PARTICLE_WIDE];
  for (int k = 0; k < 9; ++k) p.whiten[k] = data[(BLOCK_WHITEN + k) * PARTICLE_WIDE];
  p.opacity = data[BLOCK_OPACITY * PARTICLE_WIDE];
  vf color[3];
  color_of(a, harmonics, data, place, color);
  for (int k = 0; k < 3; ++k) p.color[k] = color[k][0];
  return p;
}

}  // namespace radfield
