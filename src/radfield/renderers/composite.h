// Compositing along a ray (composite.py has the equations and the letters): the maths of one sample.
#pragma once
#include "../maths.h"

namespace radfield {

struct CompositeForward {
  float* color;
  float* opacity;
  float* depth;
  float* weights;
  int32_t* live;
  const float* sigma;
  const float* rgb;
  const float* t_start;
  const float* t_end;
  const int32_t* ray_start;
  const float* background;
  int64_t raw;
  double shift;
  double stop;
  int64_t C, N, M;
};
struct CompositeBackward {
  float* grad_sigma;
  float* grad_rgb;
  float* grad_background;
  const float* grad_color;
  const float* grad_opacity;
  const float* grad_depth;
  const float* grad_weights;
  const float* opacity;
  const float* weights;
  const int32_t* live;
  const float* sigma;
  const float* rgb;
  const float* t_start;
  const float* t_end;
  const int32_t* ray_start;
  const float* background;
  int64_t raw;
  double shift;
  int64_t M, C, N;
};
struct CompactStreams {
  void* packed;
  int64_t packed_type;
  const void* stream;
  int64_t stream_type;
  const int32_t* ray_start;
  const int32_t* new_start;
  int64_t C, K, M, N;
};

// e^x = scale (1 + rest), so that e^x - 1 = scale rest + (scale - 1) keeps its digits near 0. The polynomial of exp in
// maths.h, but NaN stays NaN: a broken density must be seen in the colour.
template <class F>
struct Exponential {
  F scale, rest;
  RADFIELD_FN F value() const { return fma(scale, rest, scale); }
  RADFIELD_FN F minus_one() const { return fma(scale, rest, scale - 1.0f); }
};

template <class F>
RADFIELD_FN Exponential<F> exponential(F x) {
  x = min(F{} + 88.0f, max(F{} - 87.0f, x));  // in this order both give x where x is NaN
  F n = floor(fma(x, F{} + 1.44269504f, F{} + 0.5f));
  F r = fma(n, F{} - 0.693359375f, x);
  r = fma(n, F{} + 2.12194440e-4f, r);
  F p = F{} + 1.9875691500e-4f;
  p = fma(p, r, F{} + 1.3981999507e-3f);
  p = fma(p, r, F{} + 8.3334519073e-3f);
  p = fma(p, r, F{} + 4.1665795894e-2f);
  p = fma(p, r, F{} + 1.6666665459e-1f);
  p = fma(p, r, F{} + 5.0000001201e-1f);
  return {as_float((to_int(n) + 127) << 23), fma(p, r * r, r)};
}

// Density and colour of a network's raw outputs, and their derivatives. The density's is bounded as in instant-ngp:
// beyond e^15 per unit length the sample is opaque and a larger gradient only overflows.
template <class F>
RADFIELD_FN F density(F logit, float shift) {
  return exponential(logit - shift).value();
}
template <class F>
RADFIELD_FN F density_derivative(F logit, float shift) {
  return exponential(min(F{} + 15.0f, max(F{} - 15.0f, logit - shift))).value();
}
template <class F>
RADFIELD_FN F colour(F logit) {
  return (F{} + 1.0f) / (exponential(F{} - logit).value() + 1.0f);
}
template <class F>
RADFIELD_FN F colour_derivative(F colour) {
  return colour * (F{} + 1.0f - colour);
}

// 1 - e^(-tau), with full relative precision however thin the sample is.
template <class F>
RADFIELD_FN F absorbed(F tau) {
  return F{} - exponential(F{} - tau).minus_one();
}
template <class F>
RADFIELD_FN F transmittance(F tau) {
  return exponential(F{} - tau).value();
}

// d loss / d tau_i, from g_i = d loss / d w_i, the transmittance T_(i+1) after the sample, and sum_(j > i) w_j g_j.
template <class F>
RADFIELD_FN F optical_depth_gradient(F g, F transmittance_after, F behind) {
  return fma(transmittance_after, g, F{} - behind);
}

}  // namespace radfield
