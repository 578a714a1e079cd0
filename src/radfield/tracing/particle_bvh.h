// Particles as rays meet them, and their boxes (particle_bvh.py has the tree and the rules). Letters: G particles, I inner
// nodes, L leaves of 16 particles. F: float or SIMD vector.
#pragma once
#include "../renderers/gaussian_projection.h"
#include "particle_kernel.h"

namespace radfield {

struct ParticleBounds {
  float* item;
  const float* means;
  const float* quaternions;
  const float* scales;
  const float* opacities;
  double min_response;
  int64_t degree;
  int64_t G;
};
struct ParticleBvhBuild {
  int32_t* order;
  int32_t* child;
  int32_t* slot;
  int32_t* leaf_slot;
  int64_t* used;
  float* item;
  int64_t G, I, L;
};
struct ParticleBvhRefit {
  float* box;
  float* leaf_box;
  const float* means;
  const float* quaternions;
  const float* scales;
  const float* opacities;
  const int32_t* order;
  const int32_t* child;
  const int32_t* slot;
  const int32_t* leaf_slot;
  double min_response;
  int64_t degree;
  int64_t I, L, G;
};

constexpr int PARTICLE_WIDE = 16;        // children of a node, particles of a leaf
constexpr float NOWHERE = 1e15f;         // low corner of an empty box; its high corner is -NOWHERE
constexpr float LARGEST_SCALE = 1e9f, SMALLEST_SCALE = 1e-9f, FARTHEST_MEAN = 1e12f;
constexpr float THINNEST = 1e-5f;        // a scale counts as at least this part of the particle's largest one

// A particle: x is at the distance |whiten (x - mean)| from it, in its own units.
template <class F>
struct TracedParticle {
  F mean[3], whiten[9], half[3];  // half: sides of the box of the unit ellipsoid
  F rotation[9], unit[4], inverse_length, scale[3];
  F opacity;
};

// Whether a ray can meet it at all.
template <class F>
RADFIELD_FN auto is_met(const Gaussian<F>& g, float least) {
  const F largest = max(g.scale[0], max(g.scale[1], g.scale[2])), smallest = min(g.scale[0], min(g.scale[1], g.scale[2]));
  auto met = is_sound(g) & (g.opacity > least) & (largest <= LARGEST_SCALE) & (largest >= SMALLEST_SCALE) & (smallest >= 0.0f);
  for (int k = 0; k < 3; ++k) met = met & (abs(g.mean[k]) <= FARTHEST_MEAN);
  return met;
}

// What is not met becomes a unit ball of no opacity, so that no NaN goes on.
template <class F, class Mask>
RADFIELD_FN TracedParticle<F> traced_particle(const Gaussian<F>& g, Mask met) {
  TracedParticle<F> p;
  F squared = F{};
  for (int k = 0; k < 4; ++k) p.unit[k] = select(met, g.quaternion[k], F{} + (k == 0 ? 1.0f : 0.0f));
  F largest = abs(p.unit[0]);  // lengths whose squares are no numbers any more
  for (int k = 1; k < 4; ++k) largest = max(largest, abs(p.unit[k]));
  const F inverse = 1.0f / largest;
  for (int k = 0; k < 4; ++k) p.unit[k] = p.unit[k] * inverse, squared = fma(p.unit[k], p.unit[k], squared);
  const F length = 1.0f / sqrt(squared);
  for (int k = 0; k < 4; ++k) p.unit[k] = p.unit[k] * length;
  p.inverse_length = length * inverse;
  rotation_matrix(p.unit, p.rotation);
  const F thinnest = max(g.scale[0], max(g.scale[1], g.scale[2])) * THINNEST;
  for (int i = 0; i < 3; ++i) {
    p.scale[i] = select(met, max(g.scale[i], thinnest), F{} + 1.0f);
    const F inverse_scale = 1.0f / p.scale[i];
    for (int j = 0; j < 3; ++j) p.whiten[3 * i + j] = p.rotation[3 * j + i] * inverse_scale;
  }
  for (int j = 0; j < 3; ++j) {
    p.mean[j] = select(met, g.mean[j], F{});
    F sum = F{};
    for (int i = 0; i < 3; ++i) {
      const F axis = p.rotation[3 * j + i] * p.scale[i];
      sum = fma(axis, axis, sum);
    }
    p.half[j] = sqrt(sum);
  }
  p.opacity = select(met, g.opacity, F{});
  return p;
}

// Half the sides of the box outside which opacity times response is below `least`, and what rounding may add.
template <class F>
RADFIELD_FN void particle_half(const TracedParticle<F>& p, float least, int64_t degree, float scale, F (&half)[3]) {
  const F radius = kernel_radius(max(p.opacity, F{} + least), least, degree, scale);
  for (int k = 0; k < 3; ++k) half[k] = fma(p.half[k] * radius, F{} + 1.00002f, abs(p.mean[k]) * 1e-6f);
}

}  // namespace radfield
