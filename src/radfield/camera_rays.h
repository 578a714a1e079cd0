// Rays through pixels: what `Cameras.rays` (cameras.py) does in torch. Letters: N rays, V views. F: float or SIMD
// vector.
#pragma once
#include "maths.h"

namespace radfield {

struct CameraRays {
  float* origins;
  float* directions;
  const int32_t* view;
  const float* pixel;
  const float* camera_to_world;
  const float* focal;
  const float* principal;
  const float* distortion;
  const int32_t* models;
  int64_t model;
  int64_t distorted;
  int64_t N, V;
};

// Newton doubles the correct digits per step: real lenses need 3 to 5. A fixed number, so that a ray does not depend on
// its neighbours in a vector.
constexpr int NEWTON_STEPS = 8;

// The values of `model` and `models`, and of the rows of `distortion`; cameras.py has the models. MIXED is of `model`
// alone: each view has its own in `models`.
constexpr int64_t PERSPECTIVE = 0, FISHEYE = 1, EQUIRECTANGULAR = 2, MIXED = 3;
constexpr int DISTORTION = 9;

template <class F>
struct Lens {
  F k1, k2, k3, k4, p1, p2, d1, d2, d3;
};

// The (x, y) that a perspective lens distorts to (u, v).
template <class F>
RADFIELD_FN void undistort(const Lens<F>& k, F u, F v, F& x, F& y) {
  x = u, y = v;
  for (int i = 0; i < NEWTON_STEPS; ++i) {
    const F r2 = x * x + y * y, xy2 = 2.0f * x * y;
    const F under = 1.0f / (1.0f + r2 * (k.d1 + r2 * (k.d2 + r2 * k.d3)));
    const F radial = (1.0f + r2 * (k.k1 + r2 * (k.k2 + r2 * (k.k3 + r2 * k.k4)))) * under;
    const F above = k.k1 + r2 * (2.0f * k.k2 + r2 * (3.0f * k.k3 + r2 * (4.0f * k.k4)));
    const F below = k.d1 + r2 * (2.0f * k.d2 + r2 * (3.0f * k.d3));
    const F slope = 2.0f * (above - radial * below) * under;
    const F error_x = radial * x + k.p1 * xy2 + k.p2 * (r2 + 2.0f * x * x) - u;
    const F error_y = radial * y + k.p2 * xy2 + k.p1 * (r2 + 2.0f * y * y) - v;
    const F a = radial + slope * x * x + 2.0f * k.p1 * y + 6.0f * k.p2 * x;
    const F b = slope * x * y + 2.0f * k.p1 * x + 2.0f * k.p2 * y;
    const F d = radial + slope * y * y + 2.0f * k.p2 * x + 6.0f * k.p1 * y;
    const F determinant = a * d - b * b;
    // at a fold of the lens model the determinant is 0: stay there instead of leaping to infinity
    const F scale = select(determinant > 1e-6f, 1.0f / determinant, F{});
    x = x - (d * error_x - b * error_y) * scale;
    y = y - (a * error_y - b * error_x) * scale;
  }
}

// The angle from the axis that a fisheye lens maps to the radius theta_d, in [0, pi].
template <class F>
RADFIELD_FN F fisheye_angle(const Lens<F>& k, F theta_d) {
  const F pi = F{} + 3.14159265f;
  F theta = min(theta_d, pi);
  for (int i = 0; i < NEWTON_STEPS; ++i) {
    const F t2 = theta * theta;
    const F value = theta * (1.0f + t2 * (k.k1 + t2 * (k.k2 + t2 * (k.k3 + t2 * k.k4))));
    const F slope = 1.0f + t2 * (3.0f * k.k1 + t2 * (5.0f * k.k2 + t2 * (7.0f * k.k3 + t2 * (9.0f * k.k4))));
    theta = theta - select(slope > 1e-6f, (value - theta_d) / slope, F{});
    theta = max(min(theta, pi), F{});
  }
  return theta;
}

// The unit direction in camera axes of the normalised image point (u, v).
template <class F>
RADFIELD_FN void perspective_direction(const Lens<F>& k, bool distorted, F u, F v, F* d) {
  F x = u, y = v;
  if (distorted) undistort(k, u, v, x, y);
  const F length = sqrt(x * x + y * y + 1.0f);
  d[0] = x / length, d[1] = y / length, d[2] = 1.0f / length;
}
template <class F>
RADFIELD_FN void fisheye_direction(const Lens<F>& k, F u, F v, F* d) {
  const F theta_d = sqrt(u * u + v * v);
  const F turns = fisheye_angle(k, theta_d) * 0.159154943f;
  // on the axis both are 0 and the quotient's limit does not matter: it multiplies u = v = 0
  const F ratio = sin_turns(turns) / max(theta_d, F{} + 1e-30f);
  d[0] = u * ratio, d[1] = v * ratio, d[2] = sin_turns(turns + 0.25f);
}
template <class F>
RADFIELD_FN void equirectangular_direction(F longitude, F latitude, F* d) {
  const F u = longitude * 0.159154943f, v = latitude * 0.159154943f, across = sin_turns(v + 0.25f);
  d[0] = across * sin_turns(u), d[1] = sin_turns(v), d[2] = across * sin_turns(u + 0.25f);
}
template <class F>
RADFIELD_FN void lens_direction(int64_t model, const Lens<F>& k, bool distorted, F u, F v, F* d) {
  if (model == EQUIRECTANGULAR)
    equirectangular_direction(u, v, d);
  else if (model == FISHEYE)
    fisheye_direction(k, u, v, d);
  else
    perspective_direction(k, distorted, u, v, d);
}

}  // namespace radfield
