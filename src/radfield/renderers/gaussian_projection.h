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
  F before, inverse_det, compensation;      // det(U U^T); 1 / det cov
};

template <class F>
RADFIELD_FN void rotation_matrix(const F (&q)[4], F (&r)[9]) {
  const F w = q[0], x = q[1], y = q[2], z = q[3];
  r[0] = 1.0f - 2.0f * fma(y, y, z * z), r[1] = 2.0f * (x * y - w * z), r[2] = 2.0f * fma(x, z, w * y);
  r[3] = 2.0f * fma(x, y, w * z), r[4] = 1.0f - 2.0f * fma(x, x, z * z), r[5] = 2.0f * (y * z - w * x);
  r[6] = 2.0f * (x * z - w * y), r[7] = 2.0f * fma(y, z, w * x), r[8] = 1.0f - 2.0f * fma(x, x, y * y);
}

template <class F>
RADFIELD_FN Projection<F> projection(const GaussianCamera& c, const Gaussian<F>& g) {
  Projection<F> p;
  for (int r = 0; r < 3; ++r) {
    const float* row = c.pose + 4 * r;
    p.local[r] = fma(g.mean[0], F{} + row[0], fma(g.mean[1], F{} + row[1], fma(g.mean[2], F{} + row[2], F{} + row[3])));
  }
  p.inverse_z = 1.0f / p.local[2];
  p.slope_x = min(max(p.local[0] * p.inverse_z, F{} + c.low_x), F{} + c.high_x);
  p.slope_y = min(max(p.local[1] * p.inverse_z, F{} + c.low_y), F{} + c.high_y);
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
  p.inverse_det = 1.0f / fma(F{} + GAUSSIAN_EPS, p.uu + p.vv, p.before + GAUSSIAN_EPS * GAUSSIAN_EPS);
  const F floor_squared = F{} + GAUSSIAN_MIN_COMPENSATION * GAUSSIAN_MIN_COMPENSATION;
  p.compensation = sqrt(max(p.before * p.inverse_det, floor_squared));
  return p;
}

template <class F>
RADFIELD_FN ProjectedGaussian<F> projected(const GaussianCamera& c, const Gaussian<F>& g, const Projection<F>& p) {
  ProjectedGaussian<F> out;
  out.mean2d[0] = fma(c.fx * p.local[0], p.inverse_z, F{} + c.cx);
  out.mean2d[1] = fma(c.fy * p.local[1], p.inverse_z, F{} + c.cy);
  out.conic[0] = (p.vv + GAUSSIAN_EPS) * p.inverse_det;
  out.conic[1] = (F{} - p.uv) * p.inverse_det;
  out.conic[2] = (p.uu + GAUSSIAN_EPS) * p.inverse_det;
  out.depth = p.local[2];
  out.opacity = c.antialiased ? g.opacity * p.compensation : g.opacity;
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

// d loss / d (uu, uv, vv), from the gradients of conic = cov^-1 and of the opacity as drawn.
template <class F>
RADFIELD_FN void covariance_gradient(const GaussianCamera& c, const Gaussian<F>& g, const Projection<F>& p,
                                     const ProjectedGaussian<F>& grad, F& g_uu, F& g_uv, F& g_vv) {
  const F a = (p.vv + GAUSSIAN_EPS) * p.inverse_det, b = (F{} - p.uv) * p.inverse_det;
  const F d = (p.uu + GAUSSIAN_EPS) * p.inverse_det;
  // -Q G Q, with Q = [[a, b], [b, d]] and G symmetric
  const F half = grad.conic[1] * 0.5f;
  const F m00 = fma(grad.conic[0], a, half * b), m01 = fma(grad.conic[0], b, half * d);
  const F m10 = fma(half, a, grad.conic[2] * b), m11 = fma(half, b, grad.conic[2] * d);
  g_uu = F{} - fma(a, m00, b * m10), g_uv = -2.0f * fma(a, m01, b * m11), g_vv = F{} - fma(b, m01, d * m11);
  if (!c.antialiased) return;
  // compensation^2 = r = det(U U^T) / det cov
  const F r = p.before * p.inverse_det;
  const auto floored = r < GAUSSIAN_MIN_COMPENSATION * GAUSSIAN_MIN_COMPENSATION;
  const F g_r = select(floored, F{}, 0.5f * grad.opacity * g.opacity / p.compensation) * p.inverse_det;
  g_uu = g_uu + g_r * (p.vv - r * (p.vv + GAUSSIAN_EPS));
  g_uv = g_uv - 2.0f * g_r * p.uv * (1.0f - r);
  g_vv = g_vv + g_r * (p.uu - r * (p.uu + GAUSSIAN_EPS));
}

// d loss / d q of R(q / |q|), from that of R.
template <class F>
RADFIELD_FN void quaternion_gradient(const Projection<F>& p, const F (&r)[9], F (&out)[4]) {
  const F w = p.unit[0], x = p.unit[1], y = p.unit[2], z = p.unit[3];
  F unit[4];
  unit[0] = 2.0f * (x * (r[7] - r[5]) + y * (r[2] - r[6]) + z * (r[3] - r[1]));
  unit[1] = 2.0f * (y * (r[1] + r[3]) + z * (r[2] + r[6]) + w * (r[7] - r[5]) - 2.0f * x * (r[4] + r[8]));
  unit[2] = 2.0f * (x * (r[1] + r[3]) + z * (r[5] + r[7]) + w * (r[2] - r[6]) - 2.0f * y * (r[0] + r[8]));
  unit[3] = 2.0f * (x * (r[2] + r[6]) + y * (r[5] + r[7]) + w * (r[3] - r[1]) - 2.0f * z * (r[0] + r[4]));
  F along = F{};
  for (int k = 0; k < 4; ++k) along = fma(unit[k], p.unit[k], along);
  for (int k = 0; k < 4; ++k) out[k] = (unit[k] - along * p.unit[k]) * p.inverse_length;
}

// d loss / d camera's share of one Gaussian, from the gradients of its centre and its axes in the camera's axes.
template <class F>
RADFIELD_FN void pose_gradient(const Gaussian<F>& g, const Projection<F>& p, const F (&local)[3], const F (&axes)[9],
                               F (&pose)[12]) {
  for (int r = 0; r < 3; ++r) {
    for (int c = 0; c < 3; ++c) {
      pose[4 * r + c] = local[r] * g.mean[c];
      for (int k = 0; k < 3; ++k) pose[4 * r + c] = fma(axes[3 * r + k], p.rotation[3 * c + k] * g.scale[k], pose[4 * r + c]);
    }
    pose[4 * r + 3] = local[r];
  }
}

// d loss / d parameters, from the gradient of what projection gives; with WITH_CAMERA also the camera's.
template <bool WITH_CAMERA = false, class F>
RADFIELD_FN Gaussian<F> projection_gradient(const GaussianCamera& c, const Gaussian<F>& g, const Projection<F>& p,
                                            const ProjectedGaussian<F>& grad, CameraGradient<F>* camera = nullptr) {
  F g_uu, g_uv, g_vv;
  covariance_gradient(c, g, p, grad, g_uu, g_uv, g_vv);
  const F fx = c.fx * p.inverse_z, fy = c.fy * p.inverse_z;
  F axes[9], along_x = F{}, along_y = F{}, slope_x = F{}, slope_y = F{};
  for (int k = 0; k < 3; ++k) {
    const F g_u = fma(2.0f * g_uu, p.u[k], g_uv * p.v[k]), g_v = fma(2.0f * g_vv, p.v[k], g_uv * p.u[k]);
    axes[k] = fx * g_u, axes[3 + k] = fy * g_v;
    axes[6 + k] = F{} - fma(axes[k], p.slope_x, axes[3 + k] * p.slope_y);
    along_x = fma(g_u, p.u[k], along_x), along_y = fma(g_v, p.v[k], along_y);  // u and v are proportional to 1 / z
    slope_x = slope_x - axes[k] * p.axes[6 + k], slope_y = slope_y - axes[3 + k] * p.axes[6 + k];
  }
  // beyond the limits of the slopes J does not follow the centre
  const F ratio_x = p.local[0] * p.inverse_z, ratio_y = p.local[1] * p.inverse_z;
  slope_x = select((ratio_x >= c.low_x) & (ratio_x <= c.high_x), slope_x, F{});
  slope_y = select((ratio_y >= c.low_y) & (ratio_y <= c.high_y), slope_y, F{});
  const F of_x = fma(grad.mean2d[0], F{} + c.fx, slope_x), of_y = fma(grad.mean2d[1], F{} + c.fy, slope_y);
  const F local[3] = {of_x * p.inverse_z, of_y * p.inverse_z,
                      grad.depth - p.inverse_z * (along_x + along_y + of_x * ratio_x + of_y * ratio_y)};
  if constexpr (WITH_CAMERA) {
    pose_gradient(g, p, local, axes, camera->pose);
    camera->focal[0] = fma(grad.mean2d[0], ratio_x, along_x * (1.0f / c.fx));
    camera->focal[1] = fma(grad.mean2d[1], ratio_y, along_y * (1.0f / c.fy));
    for (int k = 0; k < 2; ++k) camera->center[k] = grad.mean2d[k];
  }
  Gaussian<F> out;
  F rotation[9];
  for (int k = 0; k < 3; ++k) {
    out.mean[k] = fma(local[0], F{} + c.pose[k], fma(local[1], F{} + c.pose[4 + k], local[2] * c.pose[8 + k]));
    out.scale[k] = F{};
  }
  for (int r = 0; r < 3; ++r)
    for (int k = 0; k < 3; ++k) {
      const F turned = fma(axes[k], F{} + c.pose[r], fma(axes[3 + k], F{} + c.pose[4 + r], axes[6 + k] * c.pose[8 + r]));
      out.scale[k] = fma(turned, p.rotation[3 * r + k], out.scale[k]);
      rotation[3 * r + k] = turned * g.scale[k];
    }
  quaternion_gradient(p, rotation, out.quaternion);
  out.opacity = c.antialiased ? grad.opacity * p.compensation : grad.opacity;
  return out;
}

}  // namespace radfield
