// 2D Gaussians (gaussian_surfels.py has the equations): where the rays of the pixels in the lanes of F meet one.
#pragma once
#include "gaussian_raster.h"

namespace radfield {

struct GaussianSurfelsForward {
  float* image;
  float* transmittance;
  float* depth;
  float* distortion;
  float* median;
  int32_t* last;
  const float* records;
  const int32_t* entries;
  const int32_t* tile_start;
  const float* background;
  double near;
  double max_alpha;
  int64_t rows, columns, C, G, K, T;
};
struct GaussianSurfelsBackward {
  float* partial;
  const float* grad_image;
  const float* grad_alpha;
  const float* grad_depth;
  const float* grad_distortion;
  const float* transmittance;
  const float* depth;
  const float* distortion;
  const int32_t* last;
  const float* records;
  const int32_t* entries;
  const int32_t* tile_start;
  const float* background;
  double near;
  double max_alpha;
  int64_t K, rows, columns, C, G, T;
};
struct GaussianSurfelsGather {
  float* grad_records;
  const float* partial;
  const int32_t* position;
  const int32_t* slot_start;
  const float* records;
  int64_t G, K;
};

constexpr float SURFEL_LEAST_CROSS = 1e-20f;
// where a record has what
constexpr int SURFEL_MEAN = 0, SURFEL_JACOBIAN = 2, SURFEL_SLOPE = 6, SURFEL_DEPTH = 8, SURFEL_OPACITY = 9, SURFEL_COLOR = 10;

template <class F>
struct SurfelHit {
  F dx, dy, u, v, inverse;  // inverse: 1 / (p x q)
  F pu, pv, qu, qv;
  F depth, rho;
};

// `met` (a mask): whether rho and depth are those of the disc, and not of the filter.
template <class F>
RADFIELD_FN auto surfel_hit(const float* r, F x, F y, float near, SurfelHit<F>& h) {
  const float su = r[SURFEL_SLOPE], sv = r[SURFEL_SLOPE + 1], z = r[SURFEL_DEPTH];
  h.dx = x - r[SURFEL_MEAN], h.dy = y - r[SURFEL_MEAN + 1];
  h.pu = h.dx * su - r[SURFEL_JACOBIAN], h.pv = h.dx * sv - r[SURFEL_JACOBIAN + 1];
  h.qu = h.dy * su - r[SURFEL_JACOBIAN + 2], h.qv = h.dy * sv - r[SURFEL_JACOBIAN + 3];
  const F cross = h.pu * h.qv - h.pv * h.qu;
  const auto crosses = abs(cross) > SURFEL_LEAST_CROSS;
  h.inverse = 1.0f / select(crosses, cross, F{} + 1.0f);
  h.u = (h.pv * h.dy - h.dx * h.qv) * h.inverse, h.v = (h.dx * h.qu - h.pu * h.dy) * h.inverse;
  const F where_met = (1.0f + h.u * su + h.v * sv) * z;
  const F flat = fma(h.u, h.u, h.v * h.v), filtered = 2.0f * fma(h.dx, h.dx, h.dy * h.dy);
  const auto met = crosses & (where_met >= near) & (flat <= filtered);
  h.depth = select(met, where_met, F{} + z);
  h.rho = select(met, flat, filtered);
  return met;
}

template <class F>
RADFIELD_FN F surfel_alpha(F rho, float opacity) {
  return exp2_negative(rho * -HALF_LOG2E) * opacity;
}

// Depths with weights: their sum, and the sum of weight times squared distance from the mean (Chan et al. 1983).
template <class F>
struct DepthSpread {
  F weight, mean, spread;
};
template <class F>
RADFIELD_FN void add_depth(DepthSpread<F>& d, F weight, F depth) {
  const F total = d.weight + weight, share = weight / max(total, F{} + 1e-30f), off = depth - d.mean;
  d.spread = fma(d.weight * share, off * off, d.spread);
  d.mean = fma(share, off, d.mean);
  d.weight = total;
}

// The gradient of the parts of a record that say where the disc is, from those of rho and depth.
template <class F, class Mask>
RADFIELD_FN void surfel_gradient(const float* r, const SurfelHit<F>& h, Mask met, F g_rho, F g_depth, F (&out)[SURFEL_OPACITY]) {
  const float su = r[SURFEL_SLOPE], sv = r[SURFEL_SLOPE + 1], z = r[SURFEL_DEPTH];
  const F disc_depth = select(met, g_depth, F{}), disc_rho = select(met, g_rho, F{});
  const F g_u = fma(2.0f * disc_rho, h.u, disc_depth * (z * su)), g_v = fma(2.0f * disc_rho, h.v, disc_depth * (z * sv));
  const F g0 = g_u * h.inverse, g1 = g_v * h.inverse, g2 = F{} - (g0 * h.u + g1 * h.v);
  const F g_pu = g2 * h.qv - g1 * h.dy, g_pv = g0 * h.dy - g2 * h.qu;
  const F g_qu = g1 * h.dx - g2 * h.pv, g_qv = g2 * h.pu - g0 * h.dx;
  const F filter = 4.0f * select(met, F{}, g_rho);
  out[SURFEL_MEAN] = F{} - (g1 * h.qu - g0 * h.qv + g_pu * su + g_pv * sv + filter * h.dx);
  out[SURFEL_MEAN + 1] = F{} - (g0 * h.pv - g1 * h.pu + g_qu * su + g_qv * sv + filter * h.dy);
  out[SURFEL_JACOBIAN] = F{} - g_pu, out[SURFEL_JACOBIAN + 1] = F{} - g_pv;
  out[SURFEL_JACOBIAN + 2] = F{} - g_qu, out[SURFEL_JACOBIAN + 3] = F{} - g_qv;
  out[SURFEL_SLOPE] = fma(disc_depth * z, h.u, g_pu * h.dx + g_qu * h.dy);
  out[SURFEL_SLOPE + 1] = fma(disc_depth * z, h.v, g_pv * h.dx + g_qv * h.dy);
  out[SURFEL_DEPTH] = select(met, g_depth * (1.0f + h.u * su + h.v * sv), g_depth);
}

// What a pixel, or the pixels in the lanes of F, has to pass on to the surfels in front.
template <int C, class F, class I>
struct BehindSurfel {
  F transmittance, gradient[C];
  F light;  // sum over what is behind of weight * d loss / d weight, and the background's
  F depth, distortion;  // gradients
  DepthSpread<F> depths;  // of the whole ray
  I last;  // the entry that the ray ends with
};

// The gradient of entry k's record at a pixel, and its weight there.
// d distortion / d w_i = weight ((m_i - mean)^2) + spread, with all weights and depths.
template <int C, class F, class I>
RADFIELD_FN F surfel_backward(const float* record, F x, F y, int32_t k, float near, float max_alpha, BehindSurfel<C, F, I>& b,
                              F (&out)[RASTER_SUMS]) {
  SurfelHit<F> hit;
  const auto met = surfel_hit(record, x, y, near, hit);
  const F raw = surfel_alpha(hit.rho, record[SURFEL_OPACITY]);
  const RasterShare<F> share = raster_share(raw, b.last >= I{} + k, max_alpha, b.transmittance);
  const F off = hit.depth - b.depths.mean;
  F light = fma(b.depth, hit.depth, b.distortion * fma(b.depths.weight, off * off, b.depths.spread));
  for (int c = 0; c < C; ++c) {
    light = fma(b.gradient[c], F{} + record[SURFEL_COLOR + c], light);
    out[SURFEL_COLOR + c] = share.weight * b.gradient[c];
  }
  const auto counts = share.alpha > 0.0f;  // elsewhere (u, v) may be anything
  const F grad = alpha_gradient(raw, share, select(counts, light, F{}), max_alpha, b.light);
  F parts[SURFEL_OPACITY];
  surfel_gradient(record, hit, met, grad * -0.5f, share.weight * fma(2.0f * b.distortion * b.depths.weight, off, b.depth), parts);
  for (int i = 0; i < SURFEL_OPACITY; ++i) out[i] = select(counts, parts[i], F{});
  out[SURFEL_OPACITY] = grad;
  return share.weight;
}

}  // namespace radfield
