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
  double stretch_weight;
  double sharpness;
  double annealed;
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

}  // namespace radfield
