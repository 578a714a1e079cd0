// Rays through Gaussians on CUDA (gaussian_trace_walk.h): a thread is a ray, with a stack and the k nearest particles of its
// own. A particle is 16 numbers that lie together. Only device compilers take this file.
#pragma once
#include "../cuda/device.h"
#include "gaussian_trace_walk.h"

namespace radfield {

constexpr int PARTICLE_NUMBERS = BLOCK_ROWS;  // mean, whiten, opacity, colour

struct DeviceRay {
  float o[3], d[3], inverse[3];
  float near, far;
  uint64_t last;
  int32_t visits[3];
};

// The ray of this thread, -1 for none: blocks are made of tiles.
template <class Struct>
RADFIELD_FN int64_t ray_of_thread(const Struct& a) {
  return ray_of(a, thread_number() / TRACE_TILE, (int)(thread_number() % TRACE_TILE));
}

// Whether it is one.
template <class Struct>
RADFIELD_FN bool read_ray(const Struct& a, int64_t i, DeviceRay& ray) {
  for (int c = 0; c < 3; ++c) {
    ray.o[c] = a.origins[c * a.N + i], ray.d[c] = a.directions[c * a.N + i];
    ray.inverse[c] = inverse_direction(ray.d[c]);
    ray.visits[c] = 0;
  }
  ray.near = a.near ? max(a.near[i], 0.0f) : 0.0f, ray.far = a.far ? min(a.far[i], 3e38f) : 3e38f;
  ray.last = 0;
  return is_ray(ray.o, ray.d);
}

// Which of 16 boxes the ray meets between its last particle and the end, and where it enters them.
RADFIELD_FN uint32_t meet_boxes(const DeviceRay& ray, float begin, float end, const float* box, float* depth) {
  uint32_t bits = 0;
  for (int i = 0; i < PARTICLE_WIDE; i += 4) {
    float low[3][4], high[3][4];
    for (int c = 0; c < 3; ++c) {
      read_vector(low[c], box + c * PARTICLE_WIDE + i);
      read_vector(high[c], box + (3 + c) * PARTICLE_WIDE + i);
    }
    for (int k = 0; k < 4; ++k) {
      float near = begin, far = end;
      for (int c = 0; c < 3; ++c) {
        const float a = (low[c][k] - ray.o[c]) * ray.inverse[c], b = (high[c][k] - ray.o[c]) * ray.inverse[c];
        near = max(min(a, b), near), far = min(max(a, b), far);
      }
      depth[i + k] = near;
      const bool there = low[0][k] <= high[0][k];  // an empty box is entered behind where it is left
      bits |= (uint32_t)(there && near * (1 - 1e-6f) <= far * (1 + 1e-6f)) << (i + k);
    }
  }
  return bits;
}

// The particle at a place of the tree; its colour before the ray's harmonics.
template <class Struct>
RADFIELD_FN LoneParticle read_particle(const Struct& a, int64_t place) {
  float row[PARTICLE_NUMBERS];
  read_vector(row, a.block + place * PARTICLE_NUMBERS);
  LoneParticle p;
  for (int k = 0; k < 3; ++k) p.mean[k] = row[BLOCK_MEAN + k], p.color[k] = row[BLOCK_COLOR + k];
  for (int k = 0; k < 9; ++k) p.whiten[k] = row[BLOCK_WHITEN + k];
  p.opacity = row[BLOCK_OPACITY];
  return p;
}

template <class Struct, int MOST>
RADFIELD_FN void search_leaf(const Struct& a, DeviceRay& ray, int64_t leaf, float begin, float scale, KBuffer<MOST>& buffer) {
  float depth[PARTICLE_WIDE];
  ++ray.visits[1];
  uint32_t bits = meet_boxes(ray, begin, buffer.end, a.leaf_box + leaf * 6 * PARTICLE_WIDE, depth);
  for (; bits; bits &= bits - 1) {
    const int64_t place = leaf * PARTICLE_WIDE + lowest_bit(bits);
    const LoneParticle p = read_particle(a, place);
    const Meeting<float> hit = meet(p.mean, p.whiten, ray.o, ray.d);
    const float alpha = p.opacity * kernel_response(hit.square, a.degree, scale);
    ++ray.visits[2];
    if (!(alpha >= (float)a.min_response && hit.tau > ray.near && hit.tau < ray.far)) continue;
    const KEntry e = {make_key(hit.tau, a.order[place]), (int32_t)place, min(alpha, (float)a.max_alpha)};
    if (e.key > ray.last) keep_nearest(buffer, e);
  }
}

// The harmonics of the ray's direction: BANDS^2 of them.
template <int BANDS>
RADFIELD_FN void ray_harmonics(const DeviceRay& ray, float (&out)[BANDS * BANDS]) {
  sh_values<BANDS>(ray.d[0], ray.d[1], ray.d[2], 1.0f, 0.0f, [&](int c, float value) { out[c] = value; });
}

// The same particle, its colour as the ray sees it.
template <int BANDS, class Struct>
RADFIELD_FN LoneParticle seen_particle(const Struct& a, int64_t place, const float (&harmonics)[BANDS * BANDS]) {
  LoneParticle p = read_particle(a, place);
  const float* coefficient = a.coefficients + place * a.R;
  for (int k = 1; k < BANDS * BANDS; ++k, coefficient += 3)
    for (int c = 0; c < 3; ++c) p.color[c] = fma(harmonics[k], coefficient[c], p.color[c]);
  for (int c = 0; c < 3; ++c) p.color[c] = max(p.color[c], 0.0f);
  return p;
}

}  // namespace radfield
