// Rasterisation of Gaussians (gaussian_raster.py has the equations): one Gaussian on the pixels in the lanes of F.
#pragma once
#include "gaussian_tiles.h"

namespace radfield {

struct GaussianRasterForward {
  float* image;
  float* alpha;
  float* transmittance;
  int32_t* last;
  const float* records;
  const int32_t* entries;
  const int32_t* tile_start;
  const float* background;
  double max_alpha;
  int64_t rows, columns, C, G, K, T;
};
struct GaussianRasterBackward {
  float* partial;
  const float* grad_image;
  const float* grad_alpha;
  const float* transmittance;
  const int32_t* last;
  const float* records;
  const int32_t* entries;
  const int32_t* tile_start;
  const float* background;
  double max_alpha;
  int64_t absolute;
  int64_t K, rows, columns, C, G, T;
};
struct GaussianRasterGather {
  float* grad_mean2d;
  float* grad_conic;
  float* grad_opacity;
  float* grad_colors;
  float* absolute;
  const float* partial;
  const int32_t* position;
  const int32_t* slot_start;
  const float* records;
  int64_t G, C, K;
};

constexpr float RASTER_MIN_ALPHA = 1.0f / 255, RASTER_MIN_TRANSMITTANCE = 1e-4f;

// 2^x for x in [-126, 0], to 3e-7 of its value: 2^whole times a polynomial (Taylor's of degree 6 in x ln 2, of which
// |x| <= 1/2 is left). Adding 1.5 2^23 rounds to the nearest whole number, which then stands in the lowest bits.
template <class F>
RADFIELD_FN F exp2_negative(F x) {
  x = max(x, F{} - 126.0f);
  const F shifted = x + 12582912.0f;
  const F f = x - (shifted - 12582912.0f);
  F p = fma(f, F{} + 1.5403530e-4f, F{} + 1.3333558e-3f);
  p = fma(p, f, F{} + 9.6181291e-3f);
  p = fma(p, f, F{} + 5.5504109e-2f);
  p = fma(p, f, F{} + 2.4022651e-1f);
  p = fma(p, f, F{} + 6.9314718e-1f);
  p = fma(p, f, F{} + 1.0f);
  return as_float(as_int(p) + (as_int(shifted) << 23));
}

// The power of two at dx and off = dy + k dx from the centre: both terms are at most 0.
template <class F>
RADFIELD_FN F gaussian_power(F e_dx_dx, F c, F off) {
  return fma(c * off, off, e_dx_dx);
}

// 1 / x for x in [0.001, 1]: on AVX-512 the processor's estimate and a step of Newton's, to 1e-7 of its value, since a
// division takes as long as all else that the backward pass does for a pixel.
template <class F>
RADFIELD_FN F reciprocal(F x) {
  return 1.0f / x;
}
#if defined(RADFIELD_CPU) && defined(__AVX512F__)
template <>
RADFIELD_FN vf reciprocal(vf x) {
  const vf estimate = (vf)_mm512_rcp14_ps((__m512)x);
  return fma(estimate, fma(vf{} - x, estimate, vf{} + 1.0f), estimate);
}
#endif

// Blends in one Gaussian of unclamped opacity `alpha`: its weight (0 where it is below the threshold, or the ray ends
// here or has ended). An ended ray keeps its transmittance with the sign turned.
template <class F>
RADFIELD_FN F blend_weight(F alpha, F& transmittance) {
  const F share = alpha * transmittance, next = transmittance - share;
  const auto goes_on = next > RASTER_MIN_TRANSMITTANCE, seen = alpha >= RASTER_MIN_ALPHA;
  const F weight = select(seen, select(goes_on, share, F{}), F{});
  transmittance = select(seen, select(goes_on, next, F{} - abs(transmittance)), transmittance);
  return weight;
}

// where a row of `partial` has what
enum { SUM_1, SUM_X, SUM_XX, SUM_OFF, SUM_X_OFF, SUM_OFF_OFF, SUM_COLOR, SUM_ABSOLUTE = SUM_COLOR + 4, RASTER_SUMS = 16 };

// A Gaussian of unclamped opacity `raw` at a pixel, as the backward pass meets it from the far end: `transmittance` is
// that behind it, and becomes that before it. reached: whether the ray came so far.
template <class F>
struct RasterShare {
  F alpha, inverse, weight;
};
template <class F, class Mask>
RADFIELD_FN RasterShare<F> raster_share(F raw, Mask reached, float max_alpha, F& transmittance) {
  F alpha = min(raw, F{} + max_alpha);
  alpha = select(alpha >= RASTER_MIN_ALPHA, alpha, F{});
  alpha = select(reached, alpha, F{});
  const F inverse = reciprocal(1.0f - alpha);
  transmittance = transmittance * inverse;
  return {alpha, inverse, alpha * transmittance};
}
// d loss / d ln alpha, none where the ceiling holds alpha. light: colour . gradient; behind: sum of weight * light of what
// is behind, to which this one is added.
template <class F>
RADFIELD_FN F alpha_gradient(F raw, const RasterShare<F>& s, F light, float max_alpha, F& behind) {
  const F grad = s.weight * light - s.alpha * s.inverse * behind;
  behind = fma(s.weight, light, behind);
  return select(raw <= max_alpha, grad, F{});
}

// The gradients of one Gaussian from the sums of its rows and what its record has; e and c of a record are those of a
// power of two, with their signs turned.
constexpr float RASTER_LN2 = 0.69314718056f;
template <class F>
struct RasterGradient {
  F mean2d[2], conic[3], opacity;
};
template <class F>
RADFIELD_FN RasterGradient<F> raster_gradient(const F (&sums)[RASTER_SUMS], const F (&conic)[3], F opacity) {
  const F e = conic[0] * (-2 * RASTER_LN2), shear = conic[1], c = conic[2] * (-2 * RASTER_LN2);
  const auto drawn = opacity > 0.0f;
  RasterGradient<F> out;
  out.mean2d[0] = fma(e, sums[SUM_X], c * shear * sums[SUM_OFF]);
  out.mean2d[1] = c * sums[SUM_OFF];
  out.conic[0] = sums[SUM_XX] * -0.5f;
  out.conic[1] = F{} - c * sums[SUM_X_OFF];
  out.conic[2] = sums[SUM_OFF_OFF] * -0.5f;
  out.opacity = select(drawn, sums[SUM_1] / select(drawn, opacity, F{} + 1.0f), F{});
  return out;
}

}  // namespace radfield
