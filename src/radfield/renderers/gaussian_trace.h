// Particles met by rays (gaussian_trace.py has the equations and the letters): one particle and one ray, and the
// derivatives. F: float, or a SIMD vector whose lanes are rays, or particles.
#pragma once
#include "../tracing/particle_bvh.h"
#include "gaussian_color.h"
#include "gaussian_projection_backward.h"

namespace radfield {

struct GaussianTracePack {
  float* block;
  float* coefficients;
  int32_t* stale;
  const float* leaf_box;
  const int32_t* order;
  const float* means;
  const float* quaternions;
  const float* scales;
  const float* opacities;
  const float* base;
  const float* rest;
  double min_response;
  int64_t degree;
  int64_t L, G, R;
};
struct GaussianTraceForward {
  float* color;
  float* depth;
  float* transmittance;
  int32_t* hits;
  float* normals;
  int32_t* rows;
  int32_t* visits;
  const float* origins;
  const float* directions;
  const float* near;
  const float* far;
  const float* box;
  const int32_t* child;
  const float* leaf_box;
  const int32_t* order;
  const float* block;
  const float* coefficients;
  double min_response;
  double min_transmittance;
  double max_alpha;
  int64_t degree;
  int64_t harmonics;
  int64_t k;
  int64_t width;
  int64_t packets;
  int64_t N, T, I, L, G, R;
};
struct GaussianTraceBackward {
  float* partial;
  float* partial_rest;
  int32_t* row_particle;
  float* grad_origins;
  float* grad_directions;
  const int64_t* row_start;
  const float* grad_color;
  const float* grad_depth;
  const float* grad_transmittance;
  const float* color;
  const float* depth;
  const float* transmittance;
  int64_t first_tile;
  int64_t tiles;
  const float* origins;
  const float* directions;
  const float* near;
  const float* far;
  const float* box;
  const int32_t* child;
  const float* leaf_box;
  const int32_t* order;
  const float* block;
  const float* coefficients;
  double min_response;
  double min_transmittance;
  double max_alpha;
  int64_t degree;
  int64_t harmonics;
  int64_t k;
  int64_t width;
  int64_t packets;
  int64_t K, R, N, T, I, L, G;
};
struct GaussianTraceSort {
  int32_t* position;
  int32_t* slot_start;
  int32_t* counts;
  const int32_t* row_particle;
  int64_t K, G, B;
};
struct GaussianTraceGather {
  float* grad_means;
  float* grad_quaternions;
  float* grad_scales;
  float* grad_opacities;
  float* grad_base;
  float* grad_rest;
  const float* partial;
  const float* partial_rest;
  const int32_t* position;
  const int32_t* slot_start;
  const float* means;
  const float* quaternions;
  const float* scales;
  const float* opacities;
  double min_response;
  int64_t G, R, K;
};

constexpr int TRACE_TILE = 64;  // rays that go down the tree together: 8 x 8 pixels, or 64 one after another
constexpr int TRACE_SIDE = 8;
constexpr int MOST_HARMONICS = 25;
// where a block of 16 particles has what, 16 numbers each
enum { BLOCK_MEAN = 0, BLOCK_WHITEN = 3, BLOCK_OPACITY = 12, BLOCK_COLOR = 13, BLOCK_ROWS = 16 };
// where a row of `partial` has what
enum { TRACE_FORCE = 0, TRACE_OUTER = 3, TRACE_OPACITY = 9, TRACE_COLOR = 10, TRACE_USED = 13, TRACE_SUMS = 16 };

// a - b = result + rest, exactly (Knuth).
template <class F>
RADFIELD_FN F exact_difference(F a, F b, F& rest) {
  const F x = a - b, back = a - x, there = x + back;
  rest = (a - there) + (back - b);
  return x;
}

// Where a ray is nearest to a particle, in the particle's units.
template <class F>
struct Meeting {
  F u[3], m[3], inverse;  // that point from the centre; the direction; 1 / |m|^2
  F tau, square;          // its distance along the ray; |u|^2
};

// First a point of the ray near the particle is found in the world, then the nearest one in the particle's units from
// there, so that no digits are lost between a far ray and a small particle.
template <class F>
RADFIELD_FN Meeting<F> meet(const F (&mean)[3], const F (&whiten)[9], const F (&o)[3], const F (&d)[3]) {
  Meeting<F> hit;
  F x[3], rest[3], near[3];
  for (int k = 0; k < 3; ++k) x[k] = exact_difference(o[k], mean[k], rest[k]);
  const F s = F{} - fma(x[0], d[0], fma(x[1], d[1], x[2] * d[2]));
  for (int k = 0; k < 3; ++k) near[k] = fma(s, d[k], x[k]) + rest[k];
  F along = F{}, length = F{};
  for (int i = 0; i < 3; ++i) {
    const F* row = whiten + 3 * i;
    hit.u[i] = fma(row[0], near[0], fma(row[1], near[1], row[2] * near[2]));
    hit.m[i] = fma(row[0], d[0], fma(row[1], d[1], row[2] * d[2]));
    along = fma(hit.u[i], hit.m[i], along), length = fma(hit.m[i], hit.m[i], length);
  }
  hit.inverse = reciprocal(length);
  const F t = F{} - along * hit.inverse;
  hit.square = F{};
  for (int i = 0; i < 3; ++i) hit.u[i] = fma(t, hit.m[i], hit.u[i]), hit.square = fma(hit.u[i], hit.u[i], hit.square);
  hit.tau = s + t;
  return hit;
}

// The point again, to more digits: in a flat particle's units its component across is tiny, what the ray was moved by to
// come there is not, and gradients multiply it by 1 / scale.
template <class F>
RADFIELD_FN void refine(Meeting<F>& hit) {
  const F along = fma(hit.u[0], hit.m[0], fma(hit.u[1], hit.m[1], hit.u[2] * hit.m[2]));
  const F t = F{} - along * hit.inverse;
  for (int i = 0; i < 3; ++i) hit.u[i] = fma(t, hit.m[i], hit.u[i]);
}

// The outward normal of the ellipsoid where the ray enters it, the particle's end by opacity.
template <class F>
RADFIELD_FN void entry_normal(const Meeting<F>& hit, const F (&whiten)[9], F radius, F (&normal)[3]) {
  const F back = sqrt(max(radius * radius - hit.square, F{}) * hit.inverse);
  F p[3], length = F{};
  for (int i = 0; i < 3; ++i) p[i] = hit.u[i] - back * hit.m[i];
  for (int j = 0; j < 3; ++j) {
    normal[j] = fma(whiten[j], p[0], fma(whiten[3 + j], p[1], whiten[6 + j] * p[2]));
    length = fma(normal[j], normal[j], length);
  }
  const F inverse = select(length > 0.0f, 1.0f / sqrt(length), F{});
  for (int j = 0; j < 3; ++j) normal[j] = normal[j] * inverse;
}

// A ray on its way: what it has gathered, or what is left of its gradient.
struct RayState {
  float color[3], depth, normal[3], transmittance;
  int32_t hits;
  uint64_t last;  // key of the last particle: bits of tau, then number
};

// d loss / d alpha of the next particle, front to back: what lies behind it is the whole less what was passed.
template <class F>
struct RayGradientOf {
  F color[3], depth;  // gradients of the ray's colour and depth
  F total;            // sum of weight * light over the ray, and the transmittance's share
  F passed;

  RADFIELD_FN F alpha(F a, F transmittance, F light) {
    const F weight = a * transmittance;
    passed = fma(weight, light, passed);
    return fma(transmittance, light, (passed - total) / (1.0f - a));
  }
};
using RayGradient = RayGradientOf<float>;

// The sums of one particle from one ray, or several in lanes. slope: d loss / d alpha; weight: alpha times transmittance;
// color: the gradient of the particle's colour.
template <class F>
RADFIELD_FN void trace_sums(const Meeting<F>& hit, F response, F derivative, F opacity, F slope, F weight, F grad_depth,
                            const F (&color)[3], F (&sums)[TRACE_SUMS]) {
  const F pull = 2.0f * slope * opacity * derivative, shift = weight * grad_depth * hit.inverse;
  F force[3], drag[3];
  for (int i = 0; i < 3; ++i) drag[i] = shift * hit.m[i], force[i] = pull * hit.u[i] - drag[i];
  int at = TRACE_OUTER;
  for (int i = 0; i < 3; ++i)
    for (int j = i; j < 3; ++j) sums[at++] = fma(force[i], hit.u[j], F{} - drag[j] * hit.u[i]);
  for (int i = 0; i < 3; ++i) sums[TRACE_FORCE + i] = force[i], sums[TRACE_COLOR + i] = color[i];
  sums[TRACE_OPACITY] = slope * response;
}

// d loss / d ray, added: origin, direction.
template <class F>
RADFIELD_FN void trace_ray_gradient(const Meeting<F>& hit, const F (&whiten)[9], const F (&force)[3], F shift, F (&origin)[3],
                                    F (&direction)[3]) {
  for (int j = 0; j < 3; ++j) {
    const F along = fma(whiten[j], force[0], fma(whiten[3 + j], force[1], whiten[6 + j] * force[2]));
    const F off = fma(whiten[j], hit.u[0], fma(whiten[3 + j], hit.u[1], whiten[6 + j] * hit.u[2]));
    origin[j] = origin[j] + along;
    direction[j] = direction[j] + fma(hit.tau, along, F{} - shift * off);
  }
}

// The gradients of a particle from its sums. With whiten = A = S^-1 R^T, f and M the sums of force and outer products:
//   d mean = -A^T f     d s_i = -M_ii / s_i     d R = R S M S^-1
template <class F>
RADFIELD_FN Gaussian<F> particle_gradient(const TracedParticle<F>& p, const Gaussian<F>& g, const F (&sums)[TRACE_SUMS]) {
  Gaussian<F> out;
  const F* m = sums + TRACE_OUTER;
  const F outer[9] = {m[0], m[1], m[2], m[1], m[3], m[4], m[2], m[4], m[5]};
  F turned[9], grad[9];
  for (int i = 0; i < 3; ++i) {
    const F* f = sums + TRACE_FORCE;
    out.mean[i] = F{} - fma(p.whiten[i], f[0], fma(p.whiten[3 + i], f[1], p.whiten[6 + i] * f[2]));
    out.scale[i] = select(g.scale[i] == p.scale[i], (F{} - outer[4 * i]) / p.scale[i], F{});  // none at the floor
    for (int j = 0; j < 3; ++j) turned[3 * i + j] = p.scale[i] * outer[3 * i + j] / p.scale[j];
  }
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 3; ++j)
      grad[3 * i + j] = fma(p.rotation[3 * i], turned[j], fma(p.rotation[3 * i + 1], turned[3 + j], p.rotation[3 * i + 2] * turned[6 + j]));
  Projection<F> q;
  for (int k = 0; k < 4; ++k) q.unit[k] = p.unit[k];
  q.inverse_length = p.inverse_length;
  quaternion_gradient(q, grad, out.quaternion);
  out.opacity = sums[TRACE_OPACITY];
  return out;
}

}  // namespace radfield
