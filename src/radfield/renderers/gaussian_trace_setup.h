// A tile made ready, walked, and finished ray by ray where its rays do not keep together.
#pragma once
#include <new>

#include "gaussian_trace_tile.h"

namespace radfield {

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
    const float o[3] = {rays.o[0][i], rays.o[1][i], rays.o[2][i]}, d[3] = {rays.d[0][i], rays.d[1][i], rays.d[2][i]};
    if (is_ray(o, d)) some = i;
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

// The particle at a place. Its colour is that of a packet's ray, to the bit: where fma() is two roundings for vectors
// it is one for floats.
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
