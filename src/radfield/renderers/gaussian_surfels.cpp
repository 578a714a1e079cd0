// Loops of 2D Gaussians, over the blocks of the rasteriser of 3D ones and in the same two directions.
#include "gaussian_surfels.h"

#include "gaussian_blocks.h"

using namespace radfield;

namespace {

// C is the number of channels that are blended, at least that of the image: a record has zeros beyond.
template <int C>
void forward_block(const GaussianSurfelsForward& a, const Block& block, const int32_t* list, int64_t count) {
  const float max_alpha = (float)a.max_alpha, near = (float)a.near;
  vf transmittance[VECTORS], color[C][VECTORS] = {}, median[VECTORS] = {};
  DepthSpread<vf> depths[VECTORS] = {};
  vi last[VECTORS];
  alignas(64) float pixels[PIXELS];
  for (int p = 0; p < PIXELS; ++p) pixels[p] = -1.0f;  // beyond the image: rays that have ended
  for_pixels(a, block, [&](int64_t p, int64_t) { pixels[p] = 1.0f; });
  for (int v = 0; v < VECTORS; ++v) transmittance[v] = load(pixels + v * W), last[v] = vi{} - 1;
  for (int64_t i = 0; i < count; ++i) {
    const float* record = record_of(a, list, i, count);
    vf left = vf{} - 1.0f;
    for (int v = 0; v < VECTORS; ++v) {
      SurfelHit<vf> hit;
      surfel_hit(record, block.px[v % SETS], block.py[v], near, hit);
      const vf before = transmittance[v];
      const vf weight = blend_weight(min(surfel_alpha(hit.rho, record[SURFEL_OPACITY]), vf{} + max_alpha), transmittance[v]);
      const vi blended = weight > 0.0f;
      for (int c = 0; c < C; ++c) color[c][v] = fma(weight, vf{} + record[SURFEL_COLOR + c], color[c][v]);
      add_depth(depths[v], weight, hit.depth);
      median[v] = select(blended & (before > 0.5f), hit.depth, median[v]);
      last[v] = select(blended, vi{} + list[i], last[v]);
      left = max(left, transmittance[v]);
    }
    if (!any(left > 0.0f)) break;
  }
  alignas(64) float planes[4][PIXELS], channels[C][PIXELS];
  alignas(64) int32_t ends[PIXELS];
  for (int v = 0; v < VECTORS; ++v) {
    store(planes[0] + v * W, abs(transmittance[v])), store(planes[1] + v * W, depths[v].weight * depths[v].mean);
    store(planes[2] + v * W, depths[v].weight * depths[v].spread), store(planes[3] + v * W, median[v]);
    store(ends + v * W, last[v]);
    for (int c = 0; c < C; ++c) store(channels[c] + v * W, color[c][v]);
  }
  for_pixels(a, block, [&](int64_t p, int64_t at) {
    a.transmittance[at] = planes[0][p], a.depth[at] = planes[1][p], a.distortion[at] = planes[2][p];
    a.median[at] = planes[3][p], a.last[at] = ends[p];
    for (int64_t c = 0; c < a.C; ++c)
      a.image[at * a.C + c] = a.background ? fma(planes[0][p], a.background[c], channels[c][p]) : channels[c][p];
  });
}

template <int C>
struct Behind {
  BehindSurfel<C, vf, vi> vectors[VECTORS];
  int32_t farthest;
};
template <int C>
RADFIELD_SIMD void begin_behind(const GaussianSurfelsBackward& a, const Block& block, Behind<C>& b) {
  alignas(64) float left[PIXELS] = {}, light[PIXELS] = {}, gradient[C][PIXELS] = {}, of_depth[PIXELS] = {}, of_distortion[PIXELS] = {};
  alignas(64) float mean[PIXELS] = {}, spread[PIXELS] = {};
  alignas(64) int32_t last[PIXELS];
  for (int p = 0; p < PIXELS; ++p) last[p] = -1;
  b.farthest = -1;
  for_pixels(a, block, [&](int64_t p, int64_t at) {
    left[p] = a.transmittance[at], last[p] = a.last[at];
    b.farthest = last[p] > b.farthest ? last[p] : b.farthest;
    of_depth[p] = a.grad_depth[at], of_distortion[p] = a.grad_distortion[at];
    const float weight = 1.0f - left[p];
    if (weight > 0.0f) mean[p] = a.depth[at] / weight, spread[p] = a.distortion[at] / weight;
    float behind = -a.grad_alpha[at];
    for (int64_t c = 0; c < a.C; ++c) {
      gradient[c][p] = a.grad_image[at * a.C + c];
      if (a.background) behind = fma(gradient[c][p], a.background[c], behind);
    }
    light[p] = behind * left[p];
  });
  for (int v = 0; v < VECTORS; ++v) {
    auto& lanes = b.vectors[v];
    lanes.transmittance = load(left + v * W), lanes.light = load(light + v * W), lanes.last = load(last + v * W);
    lanes.depth = load(of_depth + v * W), lanes.distortion = load(of_distortion + v * W);
    lanes.depths = {1.0f - lanes.transmittance, load(mean + v * W), load(spread + v * W)};
    for (int c = 0; c < C; ++c) lanes.gradient[c] = load(gradient[c] + v * W);
  }
}

// The gradients of one surfel on one block.
template <int C>
RADFIELD_SIMD void backward_entry(const GaussianSurfelsBackward& a, const float* record, const Block& block, int32_t k, Behind<C>& b) {
  vf sums[SUMS] = {}, found = {};
  for (int v = 0; v < VECTORS; ++v) {
    vf parts[SUMS];
    found = found + surfel_backward(record, block.px[v % SETS], block.py[v], k, (float)a.near, (float)a.max_alpha, b.vectors[v], parts);
    for (int i = 0; i < SURFEL_COLOR + C; ++i) sums[i] = sums[i] + parts[i];
  }
  if (any(found > 0.0f)) add_sums<SURFEL_COLOR + C>(a.partial + (int64_t)SUMS * k, sums);
}

template <int C>
void backward_block(const GaussianSurfelsBackward& a, const Block& block, const int32_t* list, int64_t count) {
  Behind<C> behind;
  begin_behind(a, block, behind);
  while (count > 0 && list[count - 1] > behind.farthest) --count;
  for (int64_t i = count - 1; i >= 0; --i) {
    const int32_t k = list[i];
    backward_entry<C>(a, a.records + GAUSSIAN_RECORD * (int64_t)((uint32_t)a.entries[k] >> 4), block, k, behind);
  }
}

template <int C>
struct ForwardBody {
  const GaussianSurfelsForward& a;
  void begin(int64_t, int64_t) const {}
  void block(const Block& block, const int32_t* list, int64_t count) const { forward_block<C>(a, block, list, count); }
};
template <int C>
struct BackwardBody {
  const GaussianSurfelsBackward& a;
  void begin(int64_t begin, int64_t end) const { memset(a.partial + begin * SUMS, 0, (size_t)(end - begin) * SUMS * 4); }
  void block(const Block& block, const int32_t* list, int64_t count) const { backward_block<C>(a, block, list, count); }
};

}  // namespace

RADFIELD_OP(gaussian_surfels_forward, GaussianSurfelsForward) {
  if (a.C <= 3) for_blocks(a, ForwardBody<3>{a});
  else for_blocks(a, ForwardBody<6>{a});
}

RADFIELD_OP(gaussian_surfels_backward, GaussianSurfelsBackward) {
  if (a.C <= 3) for_blocks(a, BackwardBody<3>{a});
  else for_blocks(a, BackwardBody<6>{a});
}

RADFIELD_OP(gaussian_surfels_gather, GaussianSurfelsGather) {
  parallel_blocks(a.G, 1024, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float row[SUMS] = {};
      for (int64_t slot = a.slot_start[i]; slot < a.slot_start[i + 1]; ++slot)
        for (int k = 0; k < SUMS; ++k) row[k] += a.partial[SUMS * (int64_t)a.position[slot] + k];
      const float opacity = a.records[GAUSSIAN_RECORD * i + SURFEL_OPACITY];
      row[SURFEL_OPACITY] = opacity > 0.0f ? row[SURFEL_OPACITY] / opacity : 0.0f;
      memcpy(a.grad_records + GAUSSIAN_RECORD * i, row, sizeof row);
    }
  });
}
