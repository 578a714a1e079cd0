// 2D Gaussians, by the walks of gaussian_raster_device.h.
#include "gaussian_raster_device.h"
#include "gaussian_surfels.h"

namespace radfield {

constexpr int SURFEL_VECTORS = 4;  // the whole record

template <int C>
__global__ void __launch_bounds__(256) gaussian_surfels_forward(const GaussianSurfelsForward a) {
  const TilePixel pixel = tile_pixel(a);
  float transmittance = pixel.inside ? 1.0f : -1.0f, color[C] = {}, median = 0.0f;  // beyond the image: rays that have ended
  DepthSpread<float> depths = {};
  int32_t last = -1;
  front_to_back<SURFEL_VECTORS>(a, pixel, [&] { return transmittance > 0.0f; }, [&](const float* record, int32_t k) {
    SurfelHit<float> hit;
    surfel_hit(record, pixel.x, pixel.y, (float)a.near, hit);
    const float before = transmittance;
    const float weight = blend_weight(min(surfel_alpha(hit.rho, record[SURFEL_OPACITY]), (float)a.max_alpha), transmittance);
    if (!(weight > 0.0f)) return;
    for (int c = 0; c < C; ++c) color[c] = fma(weight, record[SURFEL_COLOR + c], color[c]);
    add_depth(depths, weight, hit.depth);
    if (before > 0.5f) median = hit.depth;
    last = k;
  });
  if (!pixel.inside) return;
  const float left = abs(transmittance);
  a.transmittance[pixel.at] = left, a.median[pixel.at] = median, a.last[pixel.at] = last;
  a.depth[pixel.at] = depths.weight * depths.mean, a.distortion[pixel.at] = depths.weight * depths.spread;
  for (int c = 0; c < C; ++c) a.image[pixel.at * C + c] = a.background ? fma(left, a.background[c], color[c]) : color[c];
}

template <int C>
RADFIELD_FN BehindSurfel<C, float, int32_t> begin_behind(const GaussianSurfelsBackward& a, const TilePixel& pixel) {
  BehindSurfel<C, float, int32_t> b = {};
  b.last = -1;
  if (!pixel.inside) return b;
  b.transmittance = a.transmittance[pixel.at], b.last = a.last[pixel.at];
  b.depth = a.grad_depth[pixel.at], b.distortion = a.grad_distortion[pixel.at];
  const float weight = 1.0f - b.transmittance;
  b.depths.weight = weight;
  if (weight > 0.0f) b.depths.mean = a.depth[pixel.at] / weight, b.depths.spread = a.distortion[pixel.at] / weight;
  float behind = -a.grad_alpha[pixel.at];
  for (int c = 0; c < C; ++c) {
    b.gradient[c] = a.grad_image[pixel.at * C + c];
    if (a.background) behind = fma(b.gradient[c], a.background[c], behind);
  }
  b.light = behind * b.transmittance;
  return b;
}

template <int C>
__global__ void __launch_bounds__(256) gaussian_surfels_backward(const GaussianSurfelsBackward a) {
  const TilePixel pixel = tile_pixel(a);
  BehindSurfel<C, float, int32_t> behind = begin_behind<C>(a, pixel);
  rows_back_to_front<SURFEL_VECTORS>(a, pixel, behind.last, [&](const float* record, int32_t k, float (&values)[RASTER_SUMS]) {
    return surfel_backward(record, pixel.x, pixel.y, k, (float)a.near, (float)a.max_alpha, behind, values);
  });
}

__global__ void gaussian_surfels_gather(const GaussianSurfelsGather a) {
  const int64_t g = thread_number() / RASTER_SUMS;
  const int column = (int)threadIdx.x % RASTER_SUMS;
  if (g >= a.G) return;
  float sum = column_sum(a, g);
  if (column == SURFEL_OPACITY) {
    const float opacity = a.records[GAUSSIAN_RECORD * g + SURFEL_OPACITY];
    sum = opacity > 0.0f ? sum / opacity : 0.0f;
  }
  a.grad_records[GAUSSIAN_RECORD * g + column] = sum;
}

}  // namespace radfield
