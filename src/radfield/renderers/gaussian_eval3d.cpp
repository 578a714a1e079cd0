// Loops of the rasteriser with its response in space, over the blocks of the other rasterisers: W pixels of a block walk
// its list, front to back in both directions of the passes.
#include "gaussian_eval3d.h"

#include "../tracing/particle_lanes.h"
#include "gaussian_blocks.h"

using namespace radfield;

namespace {

using Hit = SpaceHit<vf, vi>;

// W values at a time of 16 words, as rows of W records; and back.
RADFIELD_SIMD void to_rows(const vf (&words)[EVAL3D_RECORD], int part, vi (&rows)[W]) {
  for (int k = 0; k < W; ++k) rows[k] = as_int(words[part + k]);
  transpose(rows);
}

RADFIELD_SIMD void pack_vector(const GaussianEval3dPack& a, int64_t i, int n) {
  const Gaussian<vf> g = load_gaussians(a, i, n);
  const vi met = is_met(g, EVAL3D_MIN_ALPHA);
  const TracedParticle<vf> p = traced_particle(g, met);
  vf words[EVAL3D_RECORD], color[3];
  load_rows(a.colors, a.G, i, n, color);
  space_record(p, met, color, words);
  for (int part = 0; part < EVAL3D_RECORD; part += W) {
    vi rows[W];
    to_rows(words, part, rows);
    for (int k = 0; k < n; ++k) store(a.records + EVAL3D_RECORD * (i + k) + part, as_float(rows[k]));
  }
}

// The rays of a block's pixels.
struct BlockRays {
  alignas(64) float o[3][PIXELS], d[3][PIXELS], inside[PIXELS];
  int64_t at[PIXELS];  // the pixel in the image
};
template <class Struct>
BlockRays block_rays(const Struct& a, const Block& block) {
  BlockRays r = {};
  for_pixels(a, block, [&](int64_t p, int64_t at) {
    r.at[p] = at, r.inside[p] = 1.0f;
    for (int c = 0; c < 3; ++c) r.o[c][p] = a.origins[c * a.N + at], r.d[c][p] = a.directions[c * a.N + at];
  });
  for (int p = 0; p < PIXELS; ++p)
    if (r.inside[p] == 0.0f) r.d[2][p] = 1.0f;  // any direction
  return r;
}
// body(pixel in the block, lane) for the lanes of vector v within the image.
template <class Body>
RADFIELD_SIMD void for_inside(const BlockRays& r, int v, Body body) {
  for (int lane = 0; lane < W; ++lane)
    if (r.inside[v * W + lane] != 0.0f) body(r.at[v * W + lane], lane);
}

// W rays, and what they have seen.
struct Rays {
  vf o[3], d[3];
  SpaceState<vf> state;
};
RADFIELD_SIMD Rays rays_of(const BlockRays& r, int v) {
  Rays out;
  for (int c = 0; c < 3; ++c) out.o[c] = load(r.o[c] + v * W), out.d[c] = load(r.d[c] + v * W);
  out.state = SpaceState<vf>{{}, {}, load(r.inside + v * W)};
  return out;
}

RADFIELD_SIMD SpaceGaussian<vf> same_gaussian(const float* record) {
  return space_gaussian<vf>([&](int i) { return splat(record[i]); });
}
// The Gaussians of the lanes' own entries.
template <class Struct>
RADFIELD_SIMD SpaceGaussian<vf> lane_gaussians(const Struct& a, vi entries) {
  vf words[EVAL3D_RECORD];
  for (int part = 0; part < EVAL3D_RECORD; part += W) {
    vi rows[W];
    for (int lane = 0; lane < W; ++lane) rows[lane] = as_int(load(record_at(a, entries[lane]) + part));
    transpose(rows);
    for (int k = 0; k < W; ++k) words[part + k] = as_float(rows[k]);
  }
  return space_gaussian<vf>([&](int i) { return words[i]; });
}

// blend(hit, entry) for the hits of W rays in the order in which they leave the buffer, until all rays have ended: `entry`
// is that of all lanes, or -1 where they have their own. It lessens the rays' transmittance.
template <class Struct, class Blend>
RADFIELD_SIMD void walk_list(const Struct& a, const int32_t* list, int64_t count, Rays& rays, Blend blend) {
  if (!count) return;
  const float near = (float)a.near, max_alpha = (float)a.max_alpha, least = (float)a.min_transmittance;
  SortBuffer<vf, vi, EVAL3D_MOST_K> buffer;
  clear(buffer, (int)a.k, vi{} + list[0]);
  for (int64_t i = 0; i < count; ++i) {
    const vi open = rays.state.transmittance > least;
    if (!any(open)) return;
    vi on;
    Hit hit = space_hit(same_gaussian(record_of(a, list, i, count)), rays.o, rays.d, vi{} + list[i], open, near, max_alpha, on);
    if (!any(on)) continue;
    for (int place = buffer.k - 1; place >= 0; --place) exchange_at(buffer, place, hit);
    if (any(hit.tau >= 0.0f)) blend(hit, a.k ? -1 : list[i]);
  }
  for (int i = 0; i < buffer.k; ++i)
    if (any(buffer.tau[i] >= 0.0f)) blend(Hit{buffer.tau[i], buffer.alpha[i], buffer.entry[i]}, -1);
}

void forward_vector(const GaussianEval3dForward& a, const BlockRays& block, int v, const int32_t* list, int64_t count) {
  Rays rays = rays_of(block, v);
  walk_list(a, list, count, rays, [&](const Hit& hit, int32_t entry) __attribute__((always_inline)) {
    vf color[3] = {};
    for (int c = 0; c < 3; ++c) {
      if (entry >= 0) color[c] = splat(record_at(a, entry)[EVAL3D_COLOR + c]);
      else for (int lane = 0; lane < W; ++lane) color[c][lane] = record_at(a, hit.entry[lane])[EVAL3D_COLOR + c];
    }
    blend_hit(hit, color, (float)a.min_transmittance, rays.state);
  });
  const SpaceState<vf>& seen = rays.state;
  for_inside(block, v, [&](int64_t at, int lane) {
    for (int c = 0; c < 3; ++c) a.image[3 * at + c] = seen.color[c][lane];
    a.depth[at] = seen.depth[lane], a.transmittance[at] = seen.transmittance[lane];
  });
}

// What the gradients of W rays begin with.
RADFIELD_SIMD RayGradientOf<vf> gradients_of(const GaussianEval3dBackward& a, const BlockRays& block, int v) {
  RayGradientOf<vf> g = {};
  for_inside(block, v, [&](int64_t at, int lane) {
    const RayGradient one = pixel_gradient(a, at);
    for (int c = 0; c < 3; ++c) g.color[c][lane] = one.color[c];
    g.depth[lane] = one.depth, g.total[lane] = one.total;
  });
  return g;
}

// Adds the lanes' sums to the rows of their own entries, lane by lane.
RADFIELD_SIMD void add_lane_rows(const GaussianEval3dBackward& a, vi entries, vf weight, const vf (&sums)[TRACE_SUMS]) {
  for (int part = 0; part < TRACE_SUMS; part += W) {
    vi rows[W];
    to_rows(sums, part, rows);
    for (int lane = 0; lane < W; ++lane) {
      float* row = a.partial + TRACE_SUMS * (int64_t)entries[lane] + part;
      if (weight[lane] > 0.0f) store(row, load(row) + as_float(rows[lane]));
    }
  }
}

void backward_vector(const GaussianEval3dBackward& a, const BlockRays& block, int v, const int32_t* list, int64_t count) {
  Rays rays = rays_of(block, v);
  RayGradientOf<vf> grad = gradients_of(a, block, v);
  walk_list(a, list, count, rays, [&](const Hit& hit, int32_t entry) __attribute__((always_inline)) {
    vf& transmittance = rays.state.transmittance;
    const vf weight = hit_weight(hit, transmittance, (float)a.min_transmittance);
    const SpaceGaussian<vf> g = entry >= 0 ? same_gaussian(record_at(a, entry)) : lane_gaussians(a, hit.entry);
    vf sums[TRACE_SUMS] = {};
    hit_sums(g, hit, rays.o, rays.d, weight, transmittance, (float)a.max_alpha, grad, sums);
    transmittance = transmittance - weight;
    if (entry >= 0) add_sums<TRACE_USED>(a.partial + TRACE_SUMS * (int64_t)entry, sums);
    else add_lane_rows(a, hit.entry, weight, sums);
  });
}

struct ForwardBody {
  const GaussianEval3dForward& a;
  void begin(int64_t, int64_t) const {}
  void block(const Block& block, const int32_t* list, int64_t count) const {
    const BlockRays rays = block_rays(a, block);
    for (int v = 0; v < VECTORS; ++v) forward_vector(a, rays, v, list, count);
  }
};
struct BackwardBody {
  const GaussianEval3dBackward& a;
  void begin(int64_t begin, int64_t end) const { memset(a.partial + begin * SUMS, 0, (size_t)(end - begin) * SUMS * 4); }
  void block(const Block& block, const int32_t* list, int64_t count) const {
    const BlockRays rays = block_rays(a, block);
    for (int v = 0; v < VECTORS; ++v) backward_vector(a, rays, v, list, count);
  }
};

}  // namespace

RADFIELD_OP(gaussian_eval3d_pack, GaussianEval3dPack) {
  parallel_blocks(a.G, 1024, [&](int64_t begin, int64_t end) {
    for_lanes(begin, end, [&](int64_t i, int n) RADFIELD_LANES { pack_vector(a, i, n); });
  });
}

RADFIELD_OP(gaussian_eval3d_forward, GaussianEval3dForward) { for_blocks(a, ForwardBody{a}); }

RADFIELD_OP(gaussian_eval3d_backward, GaussianEval3dBackward) { for_blocks(a, BackwardBody{a}); }
