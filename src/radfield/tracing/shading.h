// Light on surfaces and the sky: shading.py has the equations. Letters: N points or directions, Q materials. F: float
// or SIMD vector.
#pragma once
#include "../maths.h"

namespace radfield {

struct Shade {
  float* color;
  const float* albedo;
  const float* normal;
  const float* directions;
  const float* visible;
  const int32_t* index;
  const float* gloss;
  const float* light;
  int64_t N, Q;
};
struct Sky {
  float* color;
  const float* directions;
  const float* light;
  int64_t N;
};

constexpr float AMBIENT_BELOW = 0.14f, AMBIENT_ABOVE = 0.38f;

template <class F>
RADFIELD_FN F power(F x, F exponent) {
  return exp(exponent * log(x));
}

// Linear light to sRGB.
template <class F>
RADFIELD_FN F encode_srgb(F x) {
  x = min(max(x, F{}), F{} + 1.0f);
  const F curve = 1.055f * power(max(x, F{} + 1e-8f), F{} + 1.0f / 2.4f) - 0.055f;
  return select(x <= 0.0031308f, 12.92f * x, curve);
}

template <class F>
RADFIELD_FN F sky_light(const float* light, int channel, F z) {
  const F horizon = F{} + light[9 + channel];
  const F end = select(z < 0.0f, F{} + light[12 + channel], F{} + light[6 + channel]);
  return horizon + sqrt(abs(z)) * (end - horizon);
}

template <class F>
RADFIELD_FN void shade_point(const float* light, const F* albedo, const F* n, const F* d, F visible, F highlight,
                             F shininess, F reflection, F* color) {
  const F zero = F{}, one = F{} + 1.0f;
  const F cosine = max(n[0] * light[0] + n[1] * light[1] + n[2] * light[2], zero);
  const F ambient = AMBIENT_BELOW + (AMBIENT_ABOVE - AMBIENT_BELOW) * (0.5f + 0.5f * n[2]);
  const F across = d[0] * n[0] + d[1] * n[1] + d[2] * n[2];
  F r[3];
  for (int i = 0; i < 3; ++i) r[i] = d[i] - 2.0f * across * n[i];
  const F miss = one - min(abs(across), one), miss2 = miss * miss;
  const F fresnel = select(reflection > 0.0f, reflection + (one - reflection) * (miss2 * miss2 * miss), zero);
  const F towards = r[0] * light[0] + r[1] * light[1] + r[2] * light[2];
  const F glint = power(max(towards, zero + 1e-6f), shininess) * highlight * visible;
  for (int i = 0; i < 3; ++i) {
    const F lit = albedo[i] * (ambient + cosine * visible * light[3 + i]);
    color[i] = encode_srgb((one - fresnel) * lit + fresnel * sky_light(light, i, r[2]) + glint * light[3 + i]);
  }
}

}  // namespace radfield
