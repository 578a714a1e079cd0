// Projection by sigma points (gaussian_projection.py has the equations): the maths of one Gaussian, and its derivative.
#pragma once
#include "gaussian_lens.h"
#include "gaussian_projection_backward.h"

namespace radfield {

struct GaussianUnscentedForward {
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
  const float* distortion;
  const float* shutter;
  int64_t model;
  int64_t distorted;
  double reach;
  double angle;
  int64_t direction;
  int64_t G;
};
struct GaussianUnscentedBackward {
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
  const float* distortion;
  const float* shutter;
  int64_t model;
  int64_t distorted;
  double reach;
  double angle;
  int64_t direction;
  int64_t G, B;
};

constexpr int SIGMA_POINTS = 7;  // the centre, then + and - along each axis
constexpr float SIGMA_SPREAD = 1.73205081f, SIGMA_WEIGHT = 1.0f / 6, SIGMA_CENTER_WEIGHT = 2.0f;
constexpr float SIGMA_MARGIN = 0.1f;

template <class F>
struct SigmaPoints {
  F local[SIGMA_POINTS][3];  // in the axes at the time of each
  F time[SIGMA_POINTS];
  F off[SIGMA_POINTS][2];    // pixels, from `mean`
  F mean[2], depth;
  F near_image;              // 1 where one of them is on the image or within SIGMA_MARGIN of its size around it, else 0
  F nearest;                 // below `near` where the image of these points says nothing of the Gaussian between them
};

// Point i of a Gaussian in the axes at time 0.
template <class F>
RADFIELD_FN void sigma_point(const Projection<F>& p, int i, F (&x)[3]) {
  for (int r = 0; r < 3; ++r) {
    x[r] = p.local[r];
    if (i > 0) x[r] = fma(p.axes[3 * r + (i - 1) / 2], F{} + (i % 2 ? SIGMA_SPREAD : -SIGMA_SPREAD), x[r]);
  }
}

// What `nearest` is taken over: a perspective lens sees nothing behind itself; a fisheye lens sees all around, but a
// Gaussian across the axis behind it would be spread over the whole image.
template <class F>
RADFIELD_FN F usable_depth(const GaussianLens& l, const F (&x)[3], const SigmaPoints<F>& s) {
  if (l.model == GAUSSIAN_PERSPECTIVE) return x[2];
  if (l.model == GAUSSIAN_ORTHOGRAPHIC) return s.depth;
  const F same_side = fma(x[0], s.local[0][0], x[1] * s.local[0][1]);
  return select((x[2] < 0.0f) & (same_side <= 0.0f), F{} - 1.0f, s.depth);
}

template <class F>
RADFIELD_FN SigmaPoints<F> sigma_points(const GaussianCamera& c, const GaussianLens& l, const Projection<F>& p) {
  SigmaPoints<F> s;
  const float wide[2] = {SIGMA_MARGIN * c.width, SIGMA_MARGIN * c.height};
  F first[2] = {}, sum[2] = {};
  s.near_image = F{};
  for (int i = 0; i < SIGMA_POINTS; ++i) {
    F x[3], q[2];
    sigma_point(p, i, x);
    s.time[i] = F{};
    if (l.rolling) s.time[i] = when_exposed(c, l, x, s.local[i]);
    else for (int r = 0; r < 3; ++r) s.local[i][r] = x[r];
    if (i == 0) {
      const F(&at)[3] = s.local[0];
      s.depth = l.model == GAUSSIAN_FISHEYE ? sqrt(fma(at[0], at[0], fma(at[1], at[1], at[2] * at[2]))) : at[2];
      s.nearest = s.depth;
    }
    s.nearest = min(s.nearest, usable_depth(l, s.local[i], s));
    lens_point(l, s.local[i], q);
    const F x_at = fma(q[0], F{} + c.fx, F{} + c.cx), y_at = fma(q[1], F{} + c.fy, F{} + c.cy);
    const auto in = (x_at > -wide[0]) & (x_at < c.width + wide[0]) & (y_at > -wide[1]) & (y_at < c.height + wide[1]);
    s.near_image = select(in, F{} + 1.0f, s.near_image);
    for (int k = 0; k < 2; ++k) {
      const F pixel = q[k] * (k == 0 ? c.fx : c.fy);
      if (i == 0) first[k] = pixel;
      s.off[i][k] = pixel - first[k];  // differences first: they are small
      sum[k] = sum[k] + s.off[i][k];
    }
  }
  for (int k = 0; k < 2; ++k) {
    const F shift = sum[k] * SIGMA_WEIGHT;
    for (int i = 0; i < SIGMA_POINTS; ++i) s.off[i][k] = s.off[i][k] - shift;
    s.mean[k] = first[k] + shift + (k == 0 ? c.cx : c.cy);
  }
  return s;
}

RADFIELD_FN float sigma_weight(int i) { return i == 0 ? SIGMA_CENTER_WEIGHT : SIGMA_WEIGHT; }

// The covariance of the points' pixels, into p, and what is drawn.
template <class F>
RADFIELD_FN void unscented(const GaussianCamera& c, const Gaussian<F>& g, const SigmaPoints<F>& s, Projection<F>& p,
                           ProjectedGaussian<F>& out) {
  p.uu = p.uv = p.vv = p.before = F{};
  for (int i = 0; i < SIGMA_POINTS; ++i) {
    const F u = s.off[i][0] * sigma_weight(i), v = s.off[i][1] * sigma_weight(i);
    p.uu = fma(u, s.off[i][0], p.uu), p.uv = fma(u, s.off[i][1], p.uv), p.vv = fma(v, s.off[i][1], p.vv);
    // Lagrange's identity: never the difference of two large products, as it is for a needle
    for (int j = 0; j < i; ++j) {
      const F cross = u * s.off[j][1] - v * s.off[j][0];
      p.before = fma(cross, (s.off[i][0] * s.off[j][1] - s.off[i][1] * s.off[j][0]) * sigma_weight(j), p.before);
    }
  }
  invert_covariance(p);
  for (int k = 0; k < 2; ++k) out.mean2d[k] = s.mean[k];
  out.depth = s.depth;
  conic_and_opacity(c, g, p, out);
}

// The gradient of point i at time 0, from that of its pixel; `depth` is that of the centre.
template <class F>
RADFIELD_FN void sigma_gradient(const GaussianCamera& c, const GaussianLens& l, const SigmaPoints<F>& s, int i,
                                const F (&pixel)[2], F depth, F (&out)[3]) {
  const F of_q[2] = {pixel[0] * c.fx, pixel[1] * c.fy};
  lens_gradient(l, s.local[i], of_q, out);
  if (i == 0) {
    if (l.model == GAUSSIAN_FISHEYE) {
      const F part = depth / s.depth;
      for (int r = 0; r < 3; ++r) out[r] = fma(part, s.local[0][r], out[r]);
    } else {
      out[2] = out[2] + depth;
    }
  }
  if (l.rolling) shutter_gradient(c, l, s.time[i], s.local[i], out);
}

template <bool WITH_CAMERA, class F>
RADFIELD_FN Gaussian<F> unscented_gradient(const GaussianCamera& c, const GaussianLens& l, const Gaussian<F>& g,
                                           const ProjectedGaussian<F>& grad, CameraGradient<F>* camera) {
  Projection<F> p;
  place(c, g, p);
  const SigmaPoints<F> s = sigma_points(c, l, p);
  ProjectedGaussian<F> drawn;
  unscented(c, g, s, p, drawn);
  const RowsGradient<F> rows = rows_gradient(c, g, p, grad);
  F center[2];  // of e_0, also through the mean, which it is measured from
  column_gradient(rows, s.off[0][0], s.off[0][1], center[0], center[1]);
  for (int k = 0; k < 2; ++k) center[k] = center[k] * SIGMA_CENTER_WEIGHT;
  F local[3] = {}, axes[9] = {}, focal[2] = {};
  for (int i = 0; i < SIGMA_POINTS; ++i) {
    F pixel[2] = {center[0], center[1]}, of_point[3];
    if (i > 0) {
      column_gradient(rows, s.off[i][0], s.off[i][1], pixel[0], pixel[1]);
      for (int k = 0; k < 2; ++k) pixel[k] = (pixel[k] + grad.mean2d[k] - center[k]) * SIGMA_WEIGHT;
    }
    sigma_gradient(c, l, s, i, pixel, grad.depth, of_point);
    for (int r = 0; r < 3; ++r) {
      local[r] = local[r] + of_point[r];
      if (i > 0) axes[3 * r + (i - 1) / 2] = fma(of_point[r], F{} + (i % 2 ? SIGMA_SPREAD : -SIGMA_SPREAD), axes[3 * r + (i - 1) / 2]);
    }
    if constexpr (WITH_CAMERA) {
      focal[0] = fma(pixel[0], (s.off[i][0] + s.mean[0] - c.cx) * (1.0f / c.fx), focal[0]);
      focal[1] = fma(pixel[1], (s.off[i][1] + s.mean[1] - c.cy) * (1.0f / c.fy), focal[1]);
    }
  }
  if constexpr (WITH_CAMERA) {
    pose_gradient(g, p, local, axes, camera->pose);
    for (int k = 0; k < 2; ++k) camera->focal[k] = focal[k], camera->center[k] = grad.mean2d[k];
  }
  return parameter_gradient(c, g, p, local, axes, grad.opacity);
}

}  // namespace radfield
