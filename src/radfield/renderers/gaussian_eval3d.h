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

// The hits that wait, nearest first; where there are fewer than k, the first are none.
template <class F, class I>
struct SortBuffer {
  F tau[EVAL3D_MOST_K], alpha[EVAL3D_MOST_K];
  I entry[EVAL3D_MOST_K];
  int k;
};
template <class F, class I>
RADFIELD_FN void clear(SortBuffer<F, I>& b, int k, I some) {
  b.k = k;
  for (int i = 0; i < k; ++i) b.tau[i] = F{} + NO_HIT, b.alpha[i] = F{}, b.entry[i] = some;
}
// Lets a hit in, behind those as near as it is; the nearest of all leaves, which may be none.
template <class F, class I>
RADFIELD_FN void exchange(SortBuffer<F, I>& b, SpaceHit<F, I>& hit) {
  for (int i = b.k - 1; i >= 0; --i) {
    const SpaceHit<F, I> other = {b.tau[i], b.alpha[i], b.entry[i]};
    const auto stays = hit.tau >= other.tau;
    b.tau[i] = select(stays, hit.tau, other.tau), hit.tau = select(stays, other.tau, hit.tau);
    b.alpha[i] = select(stays, hit.alpha, other.alpha), hit.alpha = select(stays, other.alpha, hit.alpha);
    b.entry[i] = select(stays, hit.entry, other.entry), hit.entry = select(stays, other.entry, hit.entry);
  }
}

// What a ray has gathered.
template <class F>
struct SpaceState {
  F color[3], depth, transmittance;
};
// The weight of a hit that left the buffer: 0 where it is none, or the ray has ended.
template <class F, class I>
RADFIELD_FN F hit_weight(const SpaceHit<F, I>& hit, F transmittance, float least) {
  return select((hit.tau >= 0.0f) & (transmittance > least), hit.alpha * transmittance, F{});
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
