// Loops of the rasteriser's forward pass.
#include "gaussian_raster.h"

#include "gaussian_blocks.h"

using namespace radfield;

namespace {

template <int C>
void forward_block(const GaussianRasterForward& a, const Block& block, const int32_t* list, int64_t count) {
  const float max_alpha = (float)a.max_alpha;
  vf transmittance[VECTORS], color[C][VECTORS] = {};
  vi last[VECTORS];
  alignas(64) float pixels[PIXELS];
  for (int p = 0; p < PIXELS; ++p) pixels[p] = -1.0f;  // beyond the image: rays that have ended
  for_pixels(a, block, [&](int64_t p, int64_t) { pixels[p] = 1.0f; });
  for (int v = 0; v < VECTORS; ++v) transmittance[v] = load(pixels + v * W), last[v] = vi{} - 1;
  for (int64_t i = 0; i < count; ++i) {
    const float* record = record_of(a, list, i, count);
    const OnBlock g = on_block(record, block);
    vf left = vf{} - 1.0f;
    for (int v = 0; v < VECTORS; ++v) {
      const int s = v % SETS;
      const vf off = block.py[v] - record[RECORD_MEAN + 1] + g.k_dx[s];
      const vf power = gaussian_power(g.e_dx_dx[s], vf{} + g.c, off);
      const vf alpha = min(exp2_negative(power) * record[RECORD_OPACITY], vf{} + max_alpha);
      const vf weight = blend_weight(alpha, transmittance[v]);
      for (int c = 0; c < C; ++c) color[c][v] = fma(weight, vf{} + record[RECORD_COLOR + c], color[c][v]);
      last[v] = select(weight > 0.0f, vi{} + list[i], last[v]);
      left = max(left, transmittance[v]);
    }
    if (!any(left > 0.0f)) break;
  }
  alignas(64) float left[PIXELS], channels[C][PIXELS];
  alignas(64) int32_t ends[PIXELS];
  for (int v = 0; v < VECTORS; ++v) {
    store(left + v * W, abs(transmittance[v])), store(ends + v * W, last[v]);
    for (int c = 0; c < C; ++c) store(channels[c] + v * W, color[c][v]);
  }
  for_pixels(a, block, [&](int64_t p, int64_t at) {
    a.alpha[at] = 1.0f - left[p], a.transmittance[at] = left[p], a.last[at] = ends[p];
    for (int c = 0; c < C; ++c)
      a.image[at * C + c] = a.background ? fma(left[p], a.background[c], channels[c][p]) : channels[c][p];
  });
}

template <int C>
struct ForwardBody {
  const GaussianRasterForward& a;
  void begin(int64_t, int64_t) const {}
  void block(const Block& block, const int32_t* list, int64_t count) const { forward_block<C>(a, block, list, count); }
};

}  // namespace

RADFIELD_OP(gaussian_raster_forward, GaussianRasterForward) {
  with_channels(a.C, [&]<int C>() { for_blocks(a, ForwardBody<C>{a}); });
}
