// Lenses and rolling shutters of Gaussians' cameras (gaussian_camera.py has the equations): points of the camera's axes
// to pixels, and the derivative of that.
#pragma once
#include "../camera_rays.h"
#include "gaussian_projection.h"

namespace radfield {

// The values of `model` and `direction`.
constexpr int64_t GAUSSIAN_PERSPECTIVE = 0, GAUSSIAN_FISHEYE = 1, GAUSSIAN_ORTHOGRAPHIC = 2;
constexpr int64_t SHUTTER_UP = 1, SHUTTER_RIGHT = 2, SHUTTER_LEFT = 3;
constexpr int GAUSSIAN_SHUTTER_STEPS = 5;

struct GaussianLens {
  int64_t model, direction;
  bool distorted, rolling;
  Lens<float> k;
  float reach;
  float axis[3], shift[3], start[3], turns;  // of the shutter; start: the translation at time 0
};

template <class Struct>
RADFIELD_FN GaussianLens gaussian_lens(const Struct& a) {
  GaussianLens l = {a.model, a.direction, a.distorted != 0, a.shutter != nullptr, {}, (float)a.reach, {}, {}, {}, (float)a.angle};
  const float* k = a.distortion;
  l.k = {k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7], k[8]};
  for (int i = 0; i < 3; ++i) {
    l.axis[i] = a.shutter ? a.shutter[i] : 0.0f, l.shift[i] = a.shutter ? a.shutter[3 + i] : 0.0f;
    l.start[i] = a.world_to_camera[4 * i + 3];
  }
  return l;
}

// The angle of (z, r) from the z axis, r >= 0: in [0, pi], to 3e-7. Cephes atanf of a ratio in [0, 1].
template <class F>
RADFIELD_FN F angle_from_axis(F r, F z) {
  const F flat = abs(z), small = min(r, flat), large = max(max(r, flat), F{} + 1e-30f);
  const auto beyond = small > large * 0.41421356f;  // tan(pi / 8)
  const F x = select(beyond, small - large, small) / select(beyond, small + large, large), z2 = x * x;
  F p = fma(z2, F{} + 8.05374449538e-2f, F{} - 1.38776856032e-1f);
  p = fma(p, z2, F{} + 1.99777106478e-1f);
  p = fma(p, z2, F{} - 3.33329491539e-1f);
  F angle = fma(p * z2, x, x) + select(beyond, F{} + 0.78539816f, F{});
  angle = select(r > flat, 1.57079633f - angle, angle);
  return select(z < 0.0f, 3.14159265f - angle, angle);
}

// The distorted point p of (x, y), and the derivative of that: (dp_x/dx, dp_x/dy = dp_y/dx, dp_y/dy).
template <class F>
RADFIELD_FN void distort(const Lens<float>& k, F x, F y, F (&p)[2], F (&jacobian)[3]) {
  const F r2 = x * x + y * y, xy2 = 2.0f * x * y;
  const F under = 1.0f / (1.0f + r2 * (k.d1 + r2 * (k.d2 + r2 * k.d3)));
  const F radial = (1.0f + r2 * (k.k1 + r2 * (k.k2 + r2 * (k.k3 + r2 * k.k4)))) * under;
  const F above = k.k1 + r2 * (2.0f * k.k2 + r2 * (3.0f * k.k3 + r2 * (4.0f * k.k4)));
  const F below = k.d1 + r2 * (2.0f * k.d2 + r2 * (3.0f * k.d3));
  const F slope = 2.0f * (above - radial * below) * under;
  p[0] = radial * x + k.p1 * xy2 + k.p2 * (r2 + 2.0f * x * x);
  p[1] = radial * y + k.p2 * xy2 + k.p1 * (r2 + 2.0f * y * y);
  jacobian[0] = radial + slope * x * x + 2.0f * k.p1 * y + 6.0f * k.p2 * x;
  jacobian[1] = slope * x * y + 2.0f * k.p1 * x + 2.0f * k.p2 * y;
  jacobian[2] = radial + slope * y * y + 2.0f * k.p2 * x + 6.0f * k.p1 * y;
}

// A perspective lens at q = (x, y) / z: the distorted point, the derivative at the point within the lens's reach, and
// by how much that one is nearer to the axis (`within`, 1 where q is).
template <class F>
RADFIELD_FN F perspective_map(const GaussianLens& l, const F (&q)[2], F (&p)[2], F (&jacobian)[3]) {
  const F squared = fma(q[0], q[0], q[1] * q[1]);
  const F within = select(squared > l.reach * l.reach, l.reach / sqrt(max(squared, F{} + 1e-30f)), F{} + 1.0f);
  distort(l.k, q[0] * within, q[1] * within, p, jacobian);
  for (int k = 0; k < 2; ++k) p[k] = p[k] / within;
  return within;
}

// A fisheye lens: the distance from the axis on the image plane of an angle, and its derivative by the angle.
template <class F>
RADFIELD_FN F fisheye_distance(const GaussianLens& l, F theta, F& slope) {
  const F held = min(theta, F{} + l.reach), t2 = held * held;
  const Lens<float>& k = l.k;
  const F value = held * (1.0f + t2 * (k.k1 + t2 * (k.k2 + t2 * (k.k3 + t2 * k.k4))));
  slope = 1.0f + t2 * (3.0f * k.k1 + t2 * (5.0f * k.k2 + t2 * (7.0f * k.k3 + t2 * (9.0f * k.k4))));
  const auto beyond = theta > l.reach;
  slope = select(beyond, value * (1.0f / l.reach), slope);
  return select(beyond, slope * theta, value);
}

// q of the point, without focal length and principal point.
template <class F>
RADFIELD_FN void lens_point(const GaussianLens& l, const F (&x)[3], F (&q)[2]) {
  if (l.model == GAUSSIAN_ORTHOGRAPHIC) {
    q[0] = x[0], q[1] = x[1];
  } else if (l.model == GAUSSIAN_PERSPECTIVE) {
    const F inverse = 1.0f / x[2], straight[2] = {x[0] * inverse, x[1] * inverse};
    F jacobian[3];
    q[0] = straight[0], q[1] = straight[1];
    if (l.distorted) perspective_map(l, straight, q, jacobian);
  } else {
    const F r = sqrt(fma(x[0], x[0], x[1] * x[1]));
    F slope;
    const F distance = fisheye_distance(l, angle_from_axis(r, x[2]), slope);
    const F scale = select(r > 1e-18f, distance / r, 1.0f / x[2]);
    q[0] = x[0] * scale, q[1] = x[1] * scale;
  }
}

// d loss / d x, from that of q.
template <class F>
RADFIELD_FN void lens_gradient(const GaussianLens& l, const F (&x)[3], const F (&grad)[2], F (&out)[3]) {
  if (l.model == GAUSSIAN_ORTHOGRAPHIC) {
    out[0] = grad[0], out[1] = grad[1], out[2] = F{};
  } else if (l.model == GAUSSIAN_PERSPECTIVE) {
    const F inverse = 1.0f / x[2], q[2] = {x[0] * inverse, x[1] * inverse};
    F of_q[2] = {grad[0], grad[1]};
    if (l.distorted) {
      F p[2], j[3];
      const F within = perspective_map(l, q, p, j);
      of_q[0] = fma(j[0], grad[0], j[1] * grad[1]), of_q[1] = fma(j[1], grad[0], j[2] * grad[1]);
      // beyond the reach the map is p(q within) / within, and `within` goes with 1 / |q|
      const F squared = fma(q[0], q[0], q[1] * q[1]);
      const F change = q[0] * of_q[0] + q[1] * of_q[1] - p[0] * grad[0] - p[1] * grad[1];
      const F along = select(within < 1.0f, change / squared, F{});
      for (int k = 0; k < 2; ++k) of_q[k] = of_q[k] - q[k] * along;
    }
    for (int k = 0; k < 2; ++k) out[k] = of_q[k] * inverse;
    out[2] = F{} - (out[0] * q[0] + out[1] * q[1]);
  } else {
    const F r = sqrt(fma(x[0], x[0], x[1] * x[1])), squared = fma(r, r, x[2] * x[2]);
    F slope;
    const F distance = fisheye_distance(l, angle_from_axis(r, x[2]), slope);
    const auto off_axis = r > 1e-18f;
    const F inverse = select(off_axis, 1.0f / r, F{}), scale = select(off_axis, distance * inverse, 1.0f / x[2]);
    const F unit[2] = {x[0] * inverse, x[1] * inverse};
    const F along = fma(unit[0], grad[0], unit[1] * grad[1]), turn = slope / squared;
    for (int k = 0; k < 2; ++k) out[k] = fma(scale, grad[k], (turn * x[2] - scale) * along * unit[k]);
    out[2] = F{} - turn * r * along;
  }
}

// v turned by `turns` about the shutter's axis (Rodrigues' formula).
template <class F>
RADFIELD_FN void turn_about(const GaussianLens& l, F turns, const F (&v)[3], F (&out)[3]) {
  const F sine = sin_turns(turns), half = sin_turns(turns * 0.5f), versine = 2.0f * half * half;  // 1 - cos
  const float* a = l.axis;
  const F along = v[0] * a[0] + v[1] * a[1] + v[2] * a[2];
  const F cross[3] = {v[2] * a[1] - v[1] * a[2], v[0] * a[2] - v[2] * a[0], v[1] * a[0] - v[0] * a[1]};
  for (int k = 0; k < 3; ++k) out[k] = v[k] + sine * cross[k] - versine * (v[k] - along * a[k]);
}

// The point x of the axes at time 0, in the axes at `time`.
template <class F>
RADFIELD_FN void at_time(const GaussianLens& l, F time, const F (&x)[3], F (&out)[3]) {
  F off[3];
  for (int k = 0; k < 3; ++k) off[k] = x[k] - l.start[k];
  turn_about(l, time * l.turns, off, out);
  for (int k = 0; k < 3; ++k) out[k] = fma(time, F{} + l.shift[k], out[k] + l.start[k]);
}

// When the pixel is exposed; 1/2 of what is no number.
template <class F>
RADFIELD_FN F exposure_time(const GaussianCamera& c, const GaussianLens& l, const F (&q)[2]) {
  const bool across = l.direction == SHUTTER_RIGHT || l.direction == SHUTTER_LEFT;
  F part = across ? fma(q[0], F{} + c.fx, F{} + c.cx) * (1.0f / c.width) : fma(q[1], F{} + c.fy, F{} + c.cy) * (1.0f / c.height);
  part = select(part - part == 0.0f, part, F{} + 0.5f);
  part = min(max(part, F{}), F{} + 1.0f);
  return l.direction == SHUTTER_UP || l.direction == SHUTTER_LEFT ? 1.0f - part : part;
}

// d time / d out of `when_exposed`, with the pose held: 0 at the first and the last time.
template <class F>
RADFIELD_FN void exposure_gradient(const GaussianCamera& c, const GaussianLens& l, F time, const F (&local)[3], F (&out)[3]) {
  const bool across = l.direction == SHUTTER_RIGHT || l.direction == SHUTTER_LEFT;
  const float slope = (across ? c.fx / c.width : c.fy / c.height) * (l.direction == SHUTTER_UP || l.direction == SHUTTER_LEFT ? -1 : 1);
  const F inside = select((time > 0.0f) & (time < 1.0f), F{} + slope, F{});
  const F grad[2] = {across ? inside : F{}, across ? F{} : inside};
  lens_gradient(l, local, grad, out);
}

// The gradient at time 0 of a point, from that of the point at the time when it is exposed. The time t solves
// t = seen(x, t): dt = (d seen / dx) dx / (1 - d seen / dt).
template <class F>
RADFIELD_FN void shutter_gradient(const GaussianCamera& c, const GaussianLens& l, F time, const F (&local)[3], F (&grad)[3]) {
  F off[3], of_time[3], moves = F{}, seen = F{};
  for (int k = 0; k < 3; ++k) off[k] = local[k] - l.start[k] - time * l.shift[k];
  exposure_gradient(c, l, time, local, of_time);
  const float rate = 6.28318531f * l.turns, *a = l.axis;
  const F velocity[3] = {rate * (off[2] * a[1] - off[1] * a[2]) + l.shift[0], rate * (off[0] * a[2] - off[2] * a[0]) + l.shift[1],
                         rate * (off[1] * a[0] - off[0] * a[1]) + l.shift[2]};
  for (int k = 0; k < 3; ++k) moves = fma(velocity[k], grad[k], moves), seen = fma(velocity[k], of_time[k], seen);
  const F share = moves / (1.0f - seen);
  for (int k = 0; k < 3; ++k) off[k] = fma(share, of_time[k], grad[k]);
  turn_about(l, time * -l.turns, off, grad);
}

// The point x of the axes at time 0, in the axes at the time when it is exposed, which is returned.
template <class F>
RADFIELD_FN F when_exposed(const GaussianCamera& c, const GaussianLens& l, const F (&x)[3], F (&out)[3]) {
  F time = F{} + 0.5f, q[2];
  for (int i = 0; i < GAUSSIAN_SHUTTER_STEPS; ++i) {
    at_time(l, time, x, out);
    lens_point(l, out, q);
    time = exposure_time(c, l, q);
  }
  at_time(l, time, x, out);
  return time;
}

}  // namespace radfield
