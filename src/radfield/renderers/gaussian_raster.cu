// The rasteriser's kernels, by the walks of gaussian_raster_device.h. As in gaussian_raster_backward.cpp an entry's gradients
// are sums over its pixels, written to its own row, and each Gaussian then sums its rows: no atomics, every sum in one order.
#include "gaussian_raster_device.h"

namespace radfield {

constexpr int RECORD_VECTORS = 3;  // the part of a record that is in use

// What a Gaussian is at a pixel.
struct OnPixel {
  float dx, off, raw;  // raw: its opacity without the ceiling
};
RADFIELD_FN OnPixel on_pixel(const float* record, const TilePixel& pixel) {
  const float dx = pixel.x - record[RECORD_MEAN];
  const float off = pixel.y - record[RECORD_MEAN + 1] + dx * record[RECORD_CONIC + 1];
  const float power = gaussian_power(dx * dx * record[RECORD_CONIC], record[RECORD_CONIC + 2], off);
  return {dx, off, exp2_negative(power) * record[RECORD_OPACITY]};
}

template <int C>
__global__ void __launch_bounds__(256) gaussian_raster_forward(const GaussianRasterForward a) {
  const TilePixel pixel = tile_pixel(a);
  float transmittance = pixel.inside ? 1.0f : -1.0f, color[C] = {};  // beyond the image: rays that have ended
  int32_t last = -1;
  front_to_back<RECORD_VECTORS>(a, pixel, [&] { return transmittance > 0.0f; }, [&](const float* record, int32_t k) {
    const float weight = blend_weight(min(on_pixel(record, pixel).raw, (float)a.max_alpha), transmittance);
    if (!(weight > 0.0f)) return;
    for (int c = 0; c < C; ++c) color[c] = fma(weight, record[RECORD_COLOR + c], color[c]);
    last = k;
  });
  if (!pixel.inside) return;
  const float left = abs(transmittance);
  a.alpha[pixel.at] = 1.0f - left, a.transmittance[pixel.at] = left, a.last[pixel.at] = last;
  for (int c = 0; c < C; ++c) a.image[pixel.at * C + c] = a.background ? fma(left, a.background[c], color[c]) : color[c];
}

// What a pixel has to pass on to the Gaussians in front.
template <int C>
struct BehindPixel {
  float transmittance, light, gradient[C];
  int32_t last;
};
template <int C>
RADFIELD_FN BehindPixel<C> begin_behind(const GaussianRasterBackward& a, const TilePixel& pixel) {
  BehindPixel<C> b = {0.0f, 0.0f, {}, -1};
  if (!pixel.inside) return b;
  b.transmittance = a.transmittance[pixel.at], b.last = a.last[pixel.at];
  float behind = a.grad_alpha ? -a.grad_alpha[pixel.at] : 0.0f;
  for (int c = 0; c < C; ++c) {
    b.gradient[c] = a.grad_image ? a.grad_image[pixel.at * C + c] : 0.0f;
    if (a.background) behind = fma(b.gradient[c], a.background[c], behind);
  }
  b.light = behind * b.transmittance;
  return b;
}

// What one Gaussian has of one pixel, in the order of a row of `partial`; its weight there.
template <int C, bool ABSOLUTE>
RADFIELD_FN float pixel_sums(const float* record, const TilePixel& pixel, int32_t k, float max_alpha, BehindPixel<C>& b,
                             float (&sums)[RASTER_SUMS]) {
  const OnPixel g = on_pixel(record, pixel);
  const RasterShare<float> share = raster_share(g.raw, b.last >= k, max_alpha, b.transmittance);
  float light = 0.0f;
  for (int c = 0; c < C; ++c) {
    light = fma(b.gradient[c], record[RECORD_COLOR + c], light);
    sums[SUM_COLOR + c] = share.weight * b.gradient[c];
  }
  const float grad = alpha_gradient(g.raw, share, light, max_alpha, b.light);
  const float grad_x = grad * g.dx, grad_off = grad * g.off;
  sums[SUM_1] = grad, sums[SUM_X] = grad_x, sums[SUM_XX] = grad_x * g.dx;
  sums[SUM_OFF] = grad_off, sums[SUM_X_OFF] = grad_off * g.dx, sums[SUM_OFF_OFF] = grad_off * g.off;
  if (ABSOLUTE) {
    const float along_y = g.off * (2.0f * record[RECORD_CONIC + 2]);
    const float along_x = fma(g.dx, 2.0f * record[RECORD_CONIC], along_y * record[RECORD_CONIC + 1]);
    sums[SUM_ABSOLUTE] = abs(grad * along_x), sums[SUM_ABSOLUTE + 1] = abs(grad * along_y);
  }
  return share.weight;
}

template <int C, bool ABSOLUTE>
__global__ void __launch_bounds__(256) gaussian_raster_backward(const GaussianRasterBackward a) {
  const TilePixel pixel = tile_pixel(a);
  BehindPixel<C> behind = begin_behind<C>(a, pixel);
  rows_back_to_front<RECORD_VECTORS>(a, pixel, behind.last, [&](const float* record, int32_t k, float (&values)[RASTER_SUMS]) {
    return pixel_sums<C, ABSOLUTE>(record, pixel, k, (float)a.max_alpha, behind, values);
  });
}

__global__ void gaussian_raster_gather(const GaussianRasterGather a) {
  const int64_t g = thread_number() / RASTER_SUMS;
  const int column = (int)threadIdx.x % RASTER_SUMS;
  const bool inside = g < a.G;
  const float sum = column_sum(a, g);
  float sums[RASTER_SUMS];
  for (int k = 0; k < RASTER_SUMS; ++k) sums[k] = __shfl_sync(FULL, sum, k, RASTER_SUMS);
  if (!inside || column != 0) return;
  const bool seen = a.slot_start[g] < a.slot_start[g + 1];  // records of the others are not written
  const float* const record = a.records + GAUSSIAN_RECORD * g;
  float conic[3] = {};
  for (int k = 0; k < 3 && seen; ++k) conic[k] = record[RECORD_CONIC + k];
  const RasterGradient<float> out = raster_gradient(sums, conic, seen ? record[RECORD_OPACITY] : 0.0f);
  for (int k = 0; k < 2; ++k) a.grad_mean2d[k * a.G + g] = out.mean2d[k];
  for (int k = 0; k < 3; ++k) a.grad_conic[k * a.G + g] = out.conic[k];
  a.grad_opacity[g] = out.opacity;
  for (int c = 0; c < 4 && c < a.C; ++c) a.grad_colors[c * a.G + g] = sums[SUM_COLOR + c];
  for (int k = 0; k < 2 && a.absolute; ++k)
    a.absolute[k * a.G + g] = fma(sums[SUM_ABSOLUTE + k], RASTER_LN2, a.absolute[k * a.G + g]);
}

}  // namespace radfield
