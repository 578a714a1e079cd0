// Density and colour of samples of a signed distance field (neus_alpha.py has the equations and the letters): the maths
// of one sample.
#pragma once
#include "../maths.h"

namespace radfield {

struct NeusAlphaForward {
  float* sigma;
  float* rgb;
  float* stretch;
  const float* f;
  const float* normal;
  const float* logits;
  const float* directions;
  const float* t_start;
  const float* t_end;
  const int64_t* count;
  const double* schedule;
  double sharpness;
  double annealed;
  int64_t M;
};
struct NeusAlphaBackward {
  float* grad_f;
  float* grad_normal;
  float* grad_logits;
  float* grad_sharpness;
  const float* grad_sigma;
  const float* grad_rgb;
  const float* grad_stretch;
  const float* f;
  const float* normal;
  const float* rgb;
  const float* directions;
  const float* t_start;
  const float* t_end;
  const int64_t* count;
  const double* schedule;
  double sharpness;
  double annealed;
  double stretch_weight;
  int64_t M;
};

// log(1 + e^x), without overflow, and without loss where it is small.
template <class F>
RADFIELD_FN F softplus(F x) {
  const F e = exp(F{} - abs(x));
  // log(1 + e) of a small e by its series, whose digits 1 + e has lost
  const F tail = select(e < 1e-3f, e * fma(e, fma(e, F{} + 0.333333333f, F{} - 0.5f), F{} + 1.0f), log(e + 1.0f));
  return max(x, F{}) + tail;
}

// How fast the distance falls along the ray, per unit of t, and its derivative by the cosine c = d . normal.
template <class F>
struct Descent {
  F k, dk;
};
template <class F>
RADFIELD_FN Descent<F> descent(F c, float a) {
  const F soft = fma(c, F{} - 0.5f, F{} + 0.5f), hard = F{} - c;
  const F ks = select(soft > 0.0f, soft, F{}), kh = select(hard > 0.0f, hard, F{});
  const F ds = select(soft > 0.0f, F{} - 0.5f, F{}), dh = select(hard > 0.0f, F{} - 1.0f, F{});
  return {fma(ks, F{} + (1.0f - a), kh * a), fma(ds, F{} + (1.0f - a), dh * a)};
}

// The sample's optical depth log Phi(s f_prev) - log Phi(s f_next), and its derivatives by f, k and s.
template <class F>
struct OpticalDepth {
  F tau, df, dk, ds;
};
template <class F>
RADFIELD_FN OpticalDepth<F> optical_depth(F f, F k, F dt, float s) {
  const F half = k * dt * 0.5f, before = f + half, after = f - half;
  const F a = sigmoid(before * (0.0f - s)), b = sigmoid(after * (0.0f - s));  // 1 - Phi
  const F tau = softplus(after * (0.0f - s)) - softplus(before * (0.0f - s));
  return {max(tau, F{}), (a - b) * s, (a + b) * dt * (0.5f * s), a * before - b * after};
}

// A sample as the field answers it. dt is the length of its interval, d the ray's direction.
template <class F>
struct SurfaceSample {
  F f, normal[3], d[3], dt;
};
template <class F>
RADFIELD_FN F inner(const F (&a)[3], const F (&b)[3]) {
  return fma(a[2], b[2], fma(a[1], b[1], a[0] * b[0]));
}
// The length of [start, end], never 0.
template <class F>
RADFIELD_FN F interval_length(F start, F end) {
  return max(end - start, F{} + 1e-20f);
}

template <class F>
struct SurfaceAnswer {
  F sigma, stretch;
};
template <class F>
RADFIELD_FN SurfaceAnswer<F> surface_answer(const SurfaceSample<F>& x, float s, float annealed) {
  const F k = descent(inner(x.d, x.normal), annealed).k, off = sqrt(inner(x.normal, x.normal)) - 1.0f;
  return {optical_depth(x.f, k, x.dt, s).tau / x.dt, off * off};
}

// From the gradients of sigma and of the stretch.
template <class F>
struct SurfaceGradient {
  F f, normal[3], sharpness;
};
template <class F>
RADFIELD_FN SurfaceGradient<F> surface_gradient(const SurfaceSample<F>& x, F by_sigma, F by_stretch, float s,
                                                float annealed) {
  const F g = by_sigma / x.dt;  // by tau
  const Descent<F> down = descent(inner(x.d, x.normal), annealed);
  const OpticalDepth<F> depth = optical_depth(x.f, down.k, x.dt, s);
  const F by_cosine = g * depth.dk * down.dk, length = sqrt(inner(x.normal, x.normal));
  // d (|n| - 1)^2 / d n; at n = 0, where it has none, 0
  const F radial = select(length > 0.0f, by_stretch * 2.0f * (length - 1.0f) / max(length, F{} + 1e-30f), F{});
  SurfaceGradient<F> out;
  out.f = g * depth.df, out.sharpness = g * depth.ds;
  for (int c = 0; c < 3; ++c) out.normal[c] = fma(by_cosine, x.d[c], radial * x.normal[c]);
  return out;
}

}  // namespace radfield
