// Gaussians rasterised with their response in space (gaussian_eval3d.py has the equations and the letters): how a ray hits
// one, and the buffer in which hits wait until they are the nearest. F: float, or a SIMD vector whose lanes are pixels; I:
// whole numbers alike.
#pragma once
#include "gaussian_trace.h"

namespace radfield {

struct GaussianEval3dPack {
  float* records;
  const float* means;
  const float* quaternions;
  const float* scales;
  const float* opacities;
  const float* colors;
  int64_t G;
};
struct GaussianEval3dForward {
  float* image;
  float* depth;
  float* transmittance;
  const float* origins;
  const float* directions;
  const float* records;
  const int32_t* entries;
  const int32_t* tile_start;
  double near;
  double min_transmittance;
  double max_alpha;
  int64_t k;
  int64_t rows, columns, N, G, K, T;
};
struct GaussianEval3dBackward {
  float* partial;
  const float* image;
  const float* depth;
  const float* transmittance;
  const float* grad_image;
  const float* grad_depth;
  const float* grad_transmittance;
  const float* origins;
  const float* directions;
  const float* records;
  const int32_t* entries;
  const int32_t* tile_start;
  double near;
  double min_transmittance;
  double max_alpha;
  int64_t k;
  int64_t K, rows, columns, N, G, T;
};

constexpr int EVAL3D_MOST_K = 64;
constexpr float EVAL3D_MIN_ALPHA = RASTER_MIN_ALPHA, EVAL3D_KERNEL = 0.5f;  // response: exp(-EVAL3D_KERNEL |u|^2)
constexpr float NO_HIT = -1.0f;  // tau of none: that of a hit is beyond `near`, which is at least 0
// where a record has what
enum { EVAL3D_MEAN = 0, EVAL3D_WHITEN = 3, EVAL3D_OPACITY = 12, EVAL3D_COLOR = 13, EVAL3D_RECORD = 16 };

// A Gaussian as rays meet it.
template <class F>
struct SpaceGaussian {
  F mean[3], whiten[9], opacity, color[3];
};
// From the values of its record, value(i).
template <class F, class Value>
RADFIELD_FN SpaceGaussian<F> space_gaussian(Value value) {
  SpaceGaussian<F> g;
  for (int i = 0; i < 3; ++i) g.mean[i] = value(EVAL3D_MEAN + i), g.color[i] = value(EVAL3D_COLOR + i);
  for (int i = 0; i < 9; ++i) g.whiten[i] = value(EVAL3D_WHITEN + i);
  g.opacity = value(EVAL3D_OPACITY);
  return g;
}
// The words of its record, of a particle that is met or none.
template <class F, class Mask>
RADFIELD_FN void space_record(const TracedParticle<F>& p, Mask met, const F (&color)[3], F (&words)[EVAL3D_RECORD]) {
  for (int k = 0; k < 3; ++k) words[EVAL3D_MEAN + k] = p.mean[k], words[EVAL3D_COLOR + k] = select(met, color[k], F{});
  for (int k = 0; k < 9; ++k) words[EVAL3D_WHITEN + k] = p.whiten[k];
  words[EVAL3D_OPACITY] = p.opacity;
}
// The record of an entry's Gaussian.
template <class Struct>
RADFIELD_FN const float* record_at(const Struct& a, int32_t entry) {
  return a.records + EVAL3D_RECORD * (int64_t)((uint32_t)a.entries[entry] >> 4);
}

template <class F, class I>
struct SpaceHit {
  F tau, alpha;
  I entry;
};

// The hit of a Gaussian by a ray, which has not ended where `open` (a mask) is set; `on`: where it is one.
template <class F, class I, class Mask>
RADFIELD_FN SpaceHit<F, I> space_hit(const SpaceGaussian<F>& g, const F (&o)[3], const F (&d)[3], I entry, Mask open,
                                     float near, float max_alpha, Mask& on) {
  const Meeting<F> hit = meet(g.mean, g.whiten, o, d);
  const F alpha = g.opacity * kernel_response(hit.square, 2, EVAL3D_KERNEL);
  on = open & (alpha >= EVAL3D_MIN_ALPHA) & (hit.tau > near);
  return {select(on, hit.tau, F{} + NO_HIT), min(alpha, F{} + max_alpha), entry};
}

// The hits that wait, nearest first; where there are fewer than k, at most MOST, the first are none.
template <class F, class I, int MOST>
struct SortBuffer {
  F tau[MOST], alpha[MOST];
  I entry[MOST];
  int k;
};
template <class F, class I, int MOST>
RADFIELD_FN void clear(SortBuffer<F, I, MOST>& b, int k, I some) {
  b.k = k;
  for (int i = 0; i < k; ++i) b.tau[i] = F{} + NO_HIT, b.alpha[i] = F{}, b.entry[i] = some;
}
// Exchanges a hit for that at place i, where it is not nearer. From the last of the k places to the first: lets it in,
// behind those as near as it is; the nearest of all leaves, which may be none.
template <class F, class I, int MOST>
RADFIELD_FN void exchange_at(SortBuffer<F, I, MOST>& b, int i, SpaceHit<F, I>& hit) {
  const SpaceHit<F, I> other = {b.tau[i], b.alpha[i], b.entry[i]};
  const auto stays = hit.tau >= other.tau;
  b.tau[i] = select(stays, hit.tau, other.tau), hit.tau = select(stays, other.tau, hit.tau);
  b.alpha[i] = select(stays, hit.alpha, other.alpha), hit.alpha = select(stays, other.alpha, hit.alpha);
  b.entry[i] = select(stays, hit.entry, other.entry), hit.entry = select(stays, other.entry, hit.entry);
}

// The weight of a hit that left the buffer: 0 where it is none, or the ray has ended.
template <class F, class I>
RADFIELD_FN F hit_weight(const SpaceHit<F, I>& hit, F transmittance, float least) {
  return select((hit.tau >= 0.0f) & (transmittance > least), hit.alpha * transmittance, F{});
}

// What a ray has gathered, and what is left of its light.
template <class F>
struct SpaceState {
  F color[3], depth, transmittance;
};
// Blends in a hit that left the buffer, of this colour.
template <class F, class I>
RADFIELD_FN void blend_hit(const SpaceHit<F, I>& hit, const F (&color)[3], float least, SpaceState<F>& s) {
  const F weight = hit_weight(hit, s.transmittance, least);
  for (int c = 0; c < 3; ++c) s.color[c] = fma(weight, color[c], s.color[c]);
  s.depth = fma(weight, hit.tau, s.depth);
  s.transmittance = s.transmittance - weight;
}

// What the gradient of a pixel's ray begins with.
RADFIELD_FN RayGradient pixel_gradient(const GaussianEval3dBackward& a, int64_t at) {
  RayGradient g = {};
  g.depth = a.grad_depth ? a.grad_depth[at] : 0.0f;
  g.total = g.depth * a.depth[at];
  if (a.grad_transmittance) g.total = fma(a.grad_transmittance[at], a.transmittance[at], g.total);
  for (int c = 0; c < 3 && a.grad_image; ++c) {
    g.color[c] = a.grad_image[3 * at + c];
    g.total = fma(g.color[c], a.image[3 * at + c], g.total);
  }
  return g;
}

// The row of sums (gaussian_trace.h) of a hit of weight `weight` > 0 in some lanes; 0 in the others.
template <class F, class I>
RADFIELD_FN void hit_sums(const SpaceGaussian<F>& g, const SpaceHit<F, I>& hit, const F (&o)[3], const F (&d)[3], F weight,
                          F transmittance, float max_alpha, RayGradientOf<F>& grad, F (&sums)[TRACE_SUMS]) {
  Meeting<F> met = meet(g.mean, g.whiten, o, d);
  refine(met);
  const F response = kernel_response(met.square, 2, EVAL3D_KERNEL);
  const auto on = weight > 0.0f;
  const F light = fma(g.color[0], grad.color[0], fma(g.color[1], grad.color[1], fma(g.color[2], grad.color[2], hit.tau * grad.depth)));
  const F alpha = select(on, hit.alpha, F{});
  F slope = grad.alpha(alpha, transmittance, light);
  slope = select(on & (g.opacity * response < max_alpha), slope, F{});
  F color[3];
  for (int c = 0; c < 3; ++c) color[c] = weight * grad.color[c];
  const F derivative = kernel_derivative(met.square, response, 2, EVAL3D_KERNEL);
  trace_sums(met, response, derivative, g.opacity, slope, weight, grad.depth, color, sums);
}

}  // namespace radfield
