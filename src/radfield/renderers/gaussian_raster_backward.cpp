// Loops of the rasteriser's backward pass, which goes from the far end. A tile writes the gradients of its entries to its
// own rows of `partial`; afterwards each Gaussian sums its rows in a fixed order: no atomics, and no copy per thread.
#include "gaussian_blocks.h"
#include "gaussian_raster.h"

using namespace radfield;

namespace {

// What a pixel has to pass on to the Gaussians in front.
template <int C>
struct Behind {
  vf transmittance[VECTORS], gradient[C][VECTORS];
  vf light[VECTORS];  // sum over what is behind of weight * (colour . gradient), and the background's
  vi last[VECTORS];
  int32_t farthest;
};
template <int C>
RADFIELD_SIMD void begin_behind(const GaussianRasterBackward& a, const Block& block, Behind<C>& b) {
  alignas(64) float left[PIXELS] = {}, light[PIXELS] = {}, gradient[C][PIXELS] = {};
  alignas(64) int32_t last[PIXELS];
  for (int p = 0; p < PIXELS; ++p) last[p] = -1;
  b.farthest = -1;
  for_pixels(a, block, [&](int64_t p, int64_t at) {
    left[p] = a.transmittance[at], last[p] = a.last[at];
    b.farthest = last[p] > b.farthest ? last[p] : b.farthest;
    float behind = a.grad_alpha ? -a.grad_alpha[at] : 0.0f;
    for (int c = 0; c < C; ++c) {
      gradient[c][p] = a.grad_image ? a.grad_image[at * C + c] : 0.0f;
      if (a.background) behind = fma(gradient[c][p], a.background[c], behind);
    }
    light[p] = behind * left[p];
  });
  for (int v = 0; v < VECTORS; ++v) {
    b.transmittance[v] = load(left + v * W), b.light[v] = load(light + v * W), b.last[v] = load(last + v * W);
    for (int c = 0; c < C; ++c) b.gradient[c][v] = load(gradient[c] + v * W);
  }
}

// The gradients of one Gaussian on one block.
template <int C, bool ABSOLUTE>
RADFIELD_SIMD void backward_entry(const float* record, const Block& block, int32_t k, float max_alpha, Behind<C>& b,
                                  float* row) {
  const OnBlock g = on_block(record, block);
  vf sums[SUMS] = {}, sum_1[SETS] = {}, sum_off[SETS] = {};
  vf found = {};
  for (int v = 0; v < VECTORS; ++v) {
    const int s = v % SETS;
    const vf off = block.py[v] - record[RECORD_MEAN + 1] + g.k_dx[s];
    const vf raw = exp2_negative(gaussian_power(g.e_dx_dx[s], vf{} + g.c, off)) * record[RECORD_OPACITY];
    const RasterShare<vf> share = raster_share(raw, b.last[v] >= vi{} + k, max_alpha, b.transmittance[v]);
    vf light = {};
    for (int c = 0; c < C; ++c) {
      light = fma(b.gradient[c][v], vf{} + record[RECORD_COLOR + c], light);
      sums[SUM_COLOR + c] = fma(share.weight, b.gradient[c][v], sums[SUM_COLOR + c]);
    }
    const vf grad = alpha_gradient(raw, share, light, max_alpha, b.light[v]);
    const vf grad_off = grad * off;
    sum_1[s] = sum_1[s] + grad, sum_off[s] = sum_off[s] + grad_off, sums[SUM_OFF_OFF] = fma(grad_off, off, sums[SUM_OFF_OFF]);
    found = found + share.weight;
    if constexpr (ABSOLUTE) {
      const vf along_y = off * (2.0f * g.c), along_x = fma(g.dx[s], vf{} + 2.0f * record[RECORD_CONIC], along_y * g.k);
      sums[SUM_ABSOLUTE] = sums[SUM_ABSOLUTE] + abs(grad * along_x);
      sums[SUM_ABSOLUTE + 1] = sums[SUM_ABSOLUTE + 1] + abs(grad * along_y);
    }
  }
  if (!any(found > 0.0f)) return;
  for (int s = 0; s < SETS; ++s) {
    const vf grad_x = sum_1[s] * g.dx[s];
    sums[SUM_1] = sums[SUM_1] + sum_1[s], sums[SUM_X] = sums[SUM_X] + grad_x;
    sums[SUM_XX] = fma(grad_x, g.dx[s], sums[SUM_XX]);
    sums[SUM_OFF] = sums[SUM_OFF] + sum_off[s], sums[SUM_X_OFF] = fma(sum_off[s], g.dx[s], sums[SUM_X_OFF]);
  }
  add_sums<ABSOLUTE ? SUM_ABSOLUTE + 2 : SUM_COLOR + C>(row, sums);
}

template <int C, bool ABSOLUTE>
void backward_block(const GaussianRasterBackward& a, const Block& block, const int32_t* list, int64_t count) {
  Behind<C> behind;
  begin_behind(a, block, behind);
  while (count > 0 && list[count - 1] > behind.farthest) --count;
  for (int64_t i = count - 1; i >= 0; --i) {
    if (i >= 4) __builtin_prefetch(a.records + GAUSSIAN_RECORD * (int64_t)((uint32_t)a.entries[list[i - 4]] >> 4));
    const int32_t k = list[i];
    const float* record = a.records + GAUSSIAN_RECORD * (int64_t)((uint32_t)a.entries[k] >> 4);
    backward_entry<C, ABSOLUTE>(record, block, k, (float)a.max_alpha, behind, a.partial + (int64_t)SUMS * k);
  }
}

template <int C, bool ABSOLUTE>
struct BackwardBody {
  const GaussianRasterBackward& a;
  void begin(int64_t begin, int64_t end) const { memset(a.partial + begin * SUMS, 0, (size_t)(end - begin) * SUMS * 4); }
  void block(const Block& block, const int32_t* list, int64_t count) const {
    backward_block<C, ABSOLUTE>(a, block, list, count);
  }
};

// The sums of the rows of Gaussians i .. i + n - 1, as streams.
RADFIELD_SIMD void gather_sums(const GaussianRasterGather& a, int64_t i, int n, vf (&sums)[SUMS]) {
  for (int part = 0; part < SUMS / W; ++part) {
    vi words[W] = {};
    for (int k = 0; k < n; ++k) {
      vf row = {};
      for (int64_t slot = a.slot_start[i + k]; slot < a.slot_start[i + k + 1]; ++slot)
        row = row + load(a.partial + SUMS * (int64_t)a.position[slot] + part * W);
      words[k] = as_int(row);
    }
    transpose(words);
    for (int k = 0; k < W; ++k) sums[part * W + k] = as_float(words[k]);
  }
}

RADFIELD_SIMD void gather_vector(const GaussianRasterGather& a, int64_t i, int n) {
  vf sums[SUMS], conic[3], opacity = {};
  gather_sums(a, i, n, sums);
  for (int k = 0; k < 3; ++k) conic[k] = vf{};
  for (int k = 0; k < n; ++k) {
    const float* record = a.records + GAUSSIAN_RECORD * (i + k);
    for (int j = 0; j < 3; ++j) conic[j][k] = record[RECORD_CONIC + j];
    opacity[k] = record[RECORD_OPACITY];
  }
  const RasterGradient<vf> found = raster_gradient(sums, conic, opacity);
  auto out = [&](float* stream, int row, vf value) { store_n(stream + row * a.G + i, value, n); };
  for (int k = 0; k < 2; ++k) out(a.grad_mean2d, k, found.mean2d[k]);
  for (int k = 0; k < 3; ++k) out(a.grad_conic, k, found.conic[k]);
  out(a.grad_opacity, 0, found.opacity);
  for (int k = 0; k < a.C; ++k) out(a.grad_colors, k, sums[SUM_COLOR + k]);
  if (!a.absolute) return;
  for (int k = 0; k < 2; ++k) {
    const vf before = load_n(a.absolute + k * a.G + i, n);
    out(a.absolute, k, fma(sums[SUM_ABSOLUTE + k], vf{} + RASTER_LN2, before));
  }
}

}  // namespace

RADFIELD_OP(gaussian_raster_backward, GaussianRasterBackward) {
  with_channels(a.C, [&]<int C>() {
    if (a.absolute) for_blocks(a, BackwardBody<C, true>{a});
    else for_blocks(a, BackwardBody<C, false>{a});
  });
}

RADFIELD_OP(gaussian_raster_gather, GaussianRasterGather) {
  parallel_blocks(a.G, 1024, [&](int64_t begin, int64_t end) {
    for_lanes(begin, end, [&](int64_t i, int n) RADFIELD_LANES { gather_vector(a, i, n); });
  });
}
