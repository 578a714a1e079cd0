// Projection of a Gaussian (gaussian_projection.py has the equations and the letters): the maths of one Gaussian, and
// its derivative.
#pragma once
#include "../maths.h"

namespace radfield {

struct GaussianProjectForward {
  float* mean2d;
  float* conic;
  float* depth;
  float* radius;
  float* opacity;
  const float* means;
  const float* quaternions;
  const float* scales;
  const float* opacities;
  const float* world_to_camera;
  double focal_x;
  double focal_y;
  double center_x;
  double center_y;
  int64_t width;
  int64_t height;
  double near;
  double far;
  int64_t antialiased;
  int64_t G;
};
struct GaussianProjectBackward {
  float* grad_means;
  float* grad_quaternions;
  float* grad_scales;
  float* grad_opacities;
  float* grad_camera;
  const float* grad_mean2d;
  const float* grad_conic;
  const float* grad_depth;
  const float* grad_opacity;
  const float* radius;
  const float* means;
  const float* quaternions;
  const float* scales;
  const float* opacities;
  const float* world_to_camera;
  double focal_x;
  double focal_y;
  double center_x;
  double center_y;
  int64_t width;
  int64_t height;
  double near;
  double far;
  int64_t antialiased;
  int64_t G, B;
};

constexpr float GAUSSIAN_EPS = 0.3f, GAUSSIAN_MIN_ALPHA = 1.0f / 255, GAUSSIAN_MIN_COMPENSATION = 0.005f;

// The camera as the kernels use it.
struct GaussianCamera {
  float pose[12], fx, fy, cx, cy, width, height, near, far;
  float low_x, high_x, low_y, high_y;  // of x / z and y / z in J
  bool antialiased;
};

template <class Struct>
RADFIELD_FN GaussianCamera gaussian_camera(const Struct& a) {
  GaussianCamera c;
  for (int i = 0; i < 12; ++i) c.pose[i] = a.world_to_camera[i];
  c.fx = (float)a.focal_x, c.fy = (float)a.focal_y, c.cx = (float)a.center_x, c.cy = (float)a.center_y;
  c.width = (float)a.width, c.height = (float)a.height, c.near = (float)a.near, c.far = (float)a.far;
  const double margin_x = 0.15 * a.width / a.focal_x, margin_y = 0.15 * a.height / a.focal_y;
  c.low_x = (float)(-a.center_x / a.focal_x - margin_x);
  c.high_x = (float)((a.width - a.center_x) / a.focal_x + margin_x);
  c.low_y = (float)(-a.center_y / a.focal_y - margin_y);
  c.high_y = (float)((a.height - a.center_y) / a.focal_y + margin_y);
  c.antialiased = a.antialiased != 0;
  return c;
}

// The parameters of a Gaussian, or their gradient.
template <class F>
struct Gaussian {
  F mean[3], quaternion[4], scale[3], opacity;
};
// d loss / d camera: the rows of world_to_camera, the focal lengths, the principal point.
constexpr int GAUSSIAN_CAMERA_GRADIENTS = 16;
template <class F>
struct CameraGradient {
  F pose[12], focal[2], center[2];
};
// What projection makes of it, or the gradient of that.
template <class F>
struct ProjectedGaussian {
  F mean2d[2], conic[3], depth, opacity;
};

// Values on the way that the derivative needs again.
template <class F>
struct Projection {
  F local[3], inverse_z, slope_x, slope_y;  // the centre in the camera's axes; x / z and y / z in J
  F unit[4], inverse_length;                // the quaternion
  F rotation[9], axes[9];                   // R; R_c R diag(s)
  F u[3], v[3], uu, uv, vv;                 // the rows of U; U U^T
  F before, inverse_det, inverse_xx;        // det(U U^T); 1 / det cov; 1 / cov_xx
  F compensation;
};

template <class F>
RADFIELD_FN void rotation_matrix(const F (&q)[4], F (&r)[9]) {
  const F w = q[0], x = q[1], y = q[2], z = q[3];
  r[0] = 1.0f - 2.0f * fma(y, y, z * z), r[1] = 2.0f * (x * y - w * z), r[2] = 2.0f * fma(x, z, w * y);
  r[3] = 2.0f * fma(x, y, w * z), r[4] = 1.0f - 2.0f * fma(x, x, z * z), r[5] = 2.0f * (y * z - w * x);
  r[6] = 2.0f * (x * z - w * y), r[7] = 2.0f * fma(y, z, w * x), r[8] = 1.0f - 2.0f * fma(x, x, y * y);
}

// row . (x, 1), to the last digit where fma is fused (Ogita, Rump, Oishi 2005, Dot2): by its rounding Gaussians at nearly
// the same depth would change places, and with them the colours of all pixels that both cover.
template <class F>
RADFIELD_FN F exact_affine(const float* row, const F (&x)[3]) {
  F sum = F{} + row[3], error = F{};
  for (int k = 0; k < 3; ++k) {
    const F product = x[k] * row[k], next = sum + product, back = next - sum;
    error = error + fma(x[k], F{} + row[k], F{} - product) + ((sum - (next - back)) + (product - back));
    sum = next;
  }
  return sum + error;
}

// The Gaussian in the camera's axes.
template <class F>
RADFIELD_FN void place(const GaussianCamera& c, const Gaussian<F>& g, Projection<F>& p) {
  for (int r = 0; r < 3; ++r) {
    const float* row = c.pose + 4 * r;
    p.local[r] = exact_affine(row, g.mean);
  }
  F squared = F{};
  for (int k = 0; k < 4; ++k) squared = fma(g.quaternion[k], g.quaternion[k], squared);
  p.inverse_length = 1.0f / sqrt(squared);
  for (int k = 0; k < 4; ++k) p.unit[k] = g.quaternion[k] * p.inverse_length;
  rotation_matrix(p.unit, p.rotation);
  for (int r = 0; r < 3; ++r)
    for (int k = 0; k < 3; ++k) {
      const float* row = c.pose + 4 * r;
      const F turned = fma(p.rotation[k], F{} + row[0], fma(p.rotation[3 + k], F{} + row[1], p.rotation[6 + k] * row[2]));
      p.axes[3 * r + k] = turned * g.scale[k];
    }
}

// What follows from `before` and the sums uu, uv, vv.
template <class F>
RADFIELD_FN void invert_covariance(Projection<F>& p) {
  p.inverse_det = 1.0f / fma(F{} + GAUSSIAN_EPS, p.uu + p.vv, p.before + GAUSSIAN_EPS * GAUSSIAN_EPS);
  p.inverse_xx = 1.0f / (p.uu + GAUSSIAN_EPS);
  const F floor_squared = F{} + GAUSSIAN_MIN_COMPENSATION * GAUSSIAN_MIN_COMPENSATION;
  p.compensation = sqrt(max(p.before * p.inverse_det, floor_squared));
}

template <class F>
RADFIELD_FN Projection<F> projection(const GaussianCamera& c, const Gaussian<F>& g) {
  Projection<F> p;
  place(c, g, p);
  p.inverse_z = 1.0f / p.local[2];
  p.slope_x = min(max(p.local[0] * p.inverse_z, F{} + c.low_x), F{} + c.high_x);
  p.slope_y = min(max(p.local[1] * p.inverse_z, F{} + c.low_y), F{} + c.high_y);
  const F fx = c.fx * p.inverse_z, fy = c.fy * p.inverse_z;
  for (int k = 0; k < 3; ++k) {
    p.u[k] = fx * (p.axes[k] - p.slope_x * p.axes[6 + k]);
    p.v[k] = fy * (p.axes[3 + k] - p.slope_y * p.axes[6 + k]);
  }
  p.uu = p.uv = p.vv = F{};
  for (int k = 0; k < 3; ++k)
    p.uu = fma(p.u[k], p.u[k], p.uu), p.uv = fma(p.u[k], p.v[k], p.uv), p.vv = fma(p.v[k], p.v[k], p.vv);
  // det(U U^T) = |u x v|^2: never the difference of two large products, as it is for a needle
  const F x = p.u[1] * p.v[2] - p.u[2] * p.v[1], y = p.u[2] * p.v[0] - p.u[0] * p.v[2];
  const F z = p.u[0] * p.v[1] - p.u[1] * p.v[0];
  p.before = fma(x, x, fma(y, y, z * z));
  invert_covariance(p);
  return p;
}

template <class F>
RADFIELD_FN void conic_and_opacity(const GaussianCamera& c, const Gaussian<F>& g, const Projection<F>& p, ProjectedGaussian<F>& out) {
  out.conic[0] = p.inverse_xx;
  out.conic[1] = (F{} - p.uv) * p.inverse_xx;
  out.conic[2] = (p.uu + GAUSSIAN_EPS) * p.inverse_det;
  out.opacity = c.antialiased ? g.opacity * p.compensation : g.opacity;
}

template <class F>
RADFIELD_FN ProjectedGaussian<F> projected(const GaussianCamera& c, const Gaussian<F>& g, const Projection<F>& p) {
  ProjectedGaussian<F> out;
  out.mean2d[0] = fma(c.fx * p.local[0], p.inverse_z, F{} + c.cx);
  out.mean2d[1] = fma(c.fy * p.local[1], p.inverse_z, F{} + c.cy);
  out.depth = p.local[2];
  conic_and_opacity(c, g, p, out);
  return out;
}

// Half the sides of the box outside which opacity times density is below 1/255.
template <class F>
RADFIELD_FN void box_radius(const Projection<F>& p, F opacity, F (&radius)[2]) {
  const F level = 2.0f * log(max(opacity * 255.0f, F{} + 1.0f));
  radius[0] = sqrt(level * (p.uu + GAUSSIAN_EPS));
  radius[1] = sqrt(level * (p.vv + GAUSSIAN_EPS));
}

// Whether every value is finite (x - x is 0 for those alone) and the quaternion has a length.
template <class F>
RADFIELD_FN auto is_sound(const Gaussian<F>& g) {
  F sum = g.opacity - g.opacity, squared = F{};
  for (int k = 0; k < 3; ++k) sum = sum + (g.mean[k] - g.mean[k]) + (g.scale[k] - g.scale[k]);
  for (int k = 0; k < 4; ++k) sum = sum + (g.quaternion[k] - g.quaternion[k]), squared = fma(g.quaternion[k], g.quaternion[k], squared);
  return (sum == 0.0f) & (squared > 0.0f);
}

template <class F>
RADFIELD_FN auto is_drawn(const GaussianCamera& c, const Gaussian<F>& g, const ProjectedGaussian<F>& s, const F (&radius)[2]) {
  F sum = F{};
  for (int k = 0; k < 3; ++k) sum = sum + (s.conic[k] - s.conic[k]);
  for (int k = 0; k < 2; ++k) sum = sum + (s.mean2d[k] - s.mean2d[k]);
  return is_sound(g) & (sum == 0.0f) & (s.depth >= c.near) & (s.depth <= c.far) & (s.opacity >= GAUSSIAN_MIN_ALPHA) & (radius[0] > 0.0f) &
         (s.mean2d[0] + radius[0] > 0.0f) & (s.mean2d[0] - radius[0] < c.width) &
         (s.mean2d[1] + radius[1] > 0.0f) & (s.mean2d[1] - radius[1] < c.height);
}

}  // namespace radfield
