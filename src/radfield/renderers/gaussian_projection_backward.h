// The derivative of the projection of one Gaussian (gaussian_projection.h).
#pragma once
#include "gaussian_projection.h"

namespace radfield {

// d loss / d U, column by column: with w = v + k u, which is small for a needle where u and v are not,
//   d e = -2 e^2 u du     d k = -e (u (dv + k du) + w du)     d (1 / c) = 2 w (dv + k du)
template <class F>
struct RowsGradient {
  F k, of_e, of_k, of_c;  // the factors of these three, times the gradients
  F uu, uv, vv;           // of the compensation
};

template <class F>
RADFIELD_FN RowsGradient<F> rows_gradient(const GaussianCamera& c, const Gaussian<F>& g, const Projection<F>& p,
                                          const ProjectedGaussian<F>& grad) {
  const F shear = (p.uu + GAUSSIAN_EPS) * p.inverse_det;
  RowsGradient<F> out = {F{} - p.uv * p.inverse_xx, -2.0f * grad.conic[0] * p.inverse_xx * p.inverse_xx,
                         F{} - grad.conic[1] * p.inverse_xx, -2.0f * grad.conic[2] * shear * shear, F{}, F{}, F{}};
  if (!c.antialiased) return out;
  // compensation^2 = r = det(U U^T) / det cov
  const F r = p.before * p.inverse_det;
  const auto floored = r < GAUSSIAN_MIN_COMPENSATION * GAUSSIAN_MIN_COMPENSATION;
  const F g_r = select(floored, F{}, 0.5f * grad.opacity * g.opacity / p.compensation) * p.inverse_det;
  out.uu = g_r * (p.vv - r * (p.vv + GAUSSIAN_EPS));
  out.uv = -2.0f * g_r * p.uv * (1.0f - r);
  out.vv = g_r * (p.uu - r * (p.uu + GAUSSIAN_EPS));
  return out;
}

template <class F>
RADFIELD_FN void column_gradient(const RowsGradient<F>& r, F u, F v, F& g_u, F& g_v) {
  const F w = fma(r.k, u, v), both = fma(r.of_c, w, r.of_k * u);
  g_u = fma(r.k, both, fma(r.of_k, w, fma(r.of_e, u, fma(2.0f * r.uu, u, r.uv * v))));
  g_v = both + fma(2.0f * r.vv, v, r.uv * u);
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

// d loss / d parameters, from the gradients of the centre and the axes (R_c R diag(s)) in the camera's axes.
template <class F>
RADFIELD_FN Gaussian<F> parameter_gradient(const GaussianCamera& c, const Gaussian<F>& g, const Projection<F>& p,
                                           const F (&local)[3], const F (&axes)[9], F grad_opacity) {
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
  out.opacity = c.antialiased ? grad_opacity * p.compensation : grad_opacity;
  return out;
}

// d loss / d parameters, from the gradient of what projection gives; with WITH_CAMERA also the camera's.
template <bool WITH_CAMERA = false, class F>
RADFIELD_FN Gaussian<F> projection_gradient(const GaussianCamera& c, const Gaussian<F>& g, const Projection<F>& p,
                                            const ProjectedGaussian<F>& grad, CameraGradient<F>* camera = nullptr) {
  const RowsGradient<F> rows = rows_gradient(c, g, p, grad);
  const F fx = c.fx * p.inverse_z, fy = c.fy * p.inverse_z;
  F axes[9], along_x = F{}, along_y = F{}, slope_x = F{}, slope_y = F{};
  for (int k = 0; k < 3; ++k) {
    F g_u, g_v;
    column_gradient(rows, p.u[k], p.v[k], g_u, g_v);
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
  return parameter_gradient(c, g, p, local, axes, grad.opacity);
}

}  // namespace radfield
