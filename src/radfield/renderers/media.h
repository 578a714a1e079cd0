// Light in a medium (media.py has the equations and the letters): what one ray needs. F: float or SIMD vector.
#pragma once
#include "composite.h"

namespace radfield {

struct MediaMarch {
  float* color;
  int64_t* nanoseconds;
  const float* origins;
  const float* directions;
  const float* box;
  const float* towards;
  const float* light;
  const float* sky;
  double sharpness;
  double extinction;
  double g;
  double least;
  int64_t steps;
  int64_t light_steps;
  int64_t width;
  const void* table;
  int64_t table_type;
  const int64_t* levels;
  const float* scales;
  int64_t smoothstep;
  const float* parameters;
  const int64_t* layers;
  float* packed;
  int64_t activation;
  int64_t output_activation;
  int64_t bias;
  int64_t channels;
  int64_t widest;
  int64_t kernel;
  int64_t R, K, E, F, L, P, N, Q;
};

// 4 pi p of the cosine between two directions of flight (Henyey and Greenstein).
template <class F>
RADFIELD_FN F phase(F cosine, float g) {
  const F y = (1.0f + g * g) - 2.0f * g * cosine;
  return (1.0f - g * g) / (y * sqrt(y));
}

// Where a ray is in the box: near >= 0, and far, which is not beyond near where it misses.
template <class F>
RADFIELD_FN void crossing(const F (&o)[3], const F (&d)[3], const float* low, const float* high, F& near, F& far) {
  near = F{}, far = F{} + 3e38f;
  for (int k = 0; k < 3; ++k) {
    const F divisor = select(d[k] == 0.0f, F{} + 1.17549435e-38f, d[k]);
    const F a = (low[k] - o[k]) / divisor, b = (high[k] - o[k]) / divisor;
    near = max(near, min(a, b)), far = min(far, max(a, b));
  }
}

// Radiance of the environment from the direction w; sky: zenith, horizon, ground, the sun's direction and colour.
template <class F>
RADFIELD_FN void sky_radiance(F (&color)[3], const F (&w)[3], const float* sky, float sharpness) {
  const float *zenith = sky, *horizon = sky + 3, *ground = sky + 6, *sun = sky + 9, *sun_color = sky + 12;
  const F part = sqrt(abs(w[2]));
  const F cosine = w[0] * sun[0] + w[1] * sun[1] + w[2] * sun[2];
  const F glow = exponential(sharpness * (cosine - 1.0f)).value();
  for (int k = 0; k < 3; ++k) {
    const F end = select(w[2] < 0.0f, F{} + ground[k], F{} + zenith[k]);
    color[k] = horizon[k] + part * (end - horizon[k]) + sun_color[k] * glow;
  }
}

}  // namespace radfield
