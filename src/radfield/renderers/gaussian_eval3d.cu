// The rasteriser with its response in space, by the walks of gaussian_raster_device.h: front to back in both directions of
// the passes. A thread is a pixel, and its buffer of hits lies in registers where k is at most 16. What leaves unsorted is one
// entry for all pixels, whose sums have one order; sorted, pixels are at entries of their own, and sums are added by
// atomics, of a warp at a time where its pixels agree.
#include "gaussian_eval3d.h"

#include "gaussian_projection_device.h"
#include "gaussian_raster_device.h"

namespace radfield {

constexpr int EVAL3D_VECTORS = 4;      // the whole record
constexpr float BEHIND_ALL = 3e38f;  // the distance of what is none

// A thread is a Gaussian.
__global__ void gaussian_eval3d_pack(const GaussianEval3dPack a) {
  const int64_t i = thread_number();
  if (i >= a.G) return;
  const Gaussian<float> g = load_gaussian(a, i);
  const bool met = is_met(g, EVAL3D_MIN_ALPHA);
  float color[3], words[EVAL3D_RECORD];
  load_rows(a.colors, a.G, i, color);
  space_record(traced_particle(g, met), met, color, words);
  float4* const to = (float4*)(a.records + EVAL3D_RECORD * i);
  for (int k = 0; k < EVAL3D_VECTORS; ++k) to[k] = make_float4(words[4 * k], words[4 * k + 1], words[4 * k + 2], words[4 * k + 3]);
}

// The ray of this thread's pixel; beyond the image one that has ended.
struct SpaceRay {
  float o[3], d[3];
  SpaceState<float> state;
};
template <class Struct>
RADFIELD_FN SpaceRay space_ray(const Struct& a, const TilePixel& pixel) {
  SpaceRay ray = {};
  ray.d[2] = 1.0f;
  if (!pixel.inside) return ray;
  for (int c = 0; c < 3; ++c) ray.o[c] = a.origins[c * a.N + pixel.at], ray.d[c] = a.directions[c * a.N + pixel.at];
  ray.state.transmittance = 1.0f;
  return ray;
}

// A Gaussian as the threads' rays meet it, entry k.
using Hit = SpaceHit<float, int32_t>;
RADFIELD_FN SpaceGaussian<float> gaussian_of(const float* record) {
  return space_gaussian<float>([&](int i) { return record[i]; });
}
template <class Struct>
RADFIELD_FN Hit hit_of(const Struct& a, const SpaceRay& ray, const float* record, int32_t k, bool& on) {
  const bool open = ray.state.transmittance > (float)a.min_transmittance;
  return space_hit(gaussian_of(record), ray.o, ray.d, k, open, (float)a.near, (float)a.max_alpha, on);
}

// A thread's buffer: of at least k places, in registers where these are few (no place is named by a variable then).
template <int MOST>
struct Waiting {
  SortBuffer<float, int32_t, MOST> buffer;

  RADFIELD_FN explicit Waiting(int64_t k) {
    buffer.k = (int)k;
#pragma unroll
    for (int i = 0; i < MOST; ++i) buffer.tau[i] = NO_HIT, buffer.alpha[i] = 0.0f, buffer.entry[i] = 0;
  }
  RADFIELD_FN void exchange(Hit& hit) {
#pragma unroll(MOST <= 16 ? MOST : 1)
    for (int i = MOST - 1; i >= 0; --i)
      if (i < buffer.k) exchange_at(buffer, i, hit);
  }
  // body(hit) for what waits, and may be none: each leaves for one that is farther than all.
  template <class Body>
  RADFIELD_FN void empty(Body body) {
#pragma unroll 1
    for (int i = 0; i < buffer.k; ++i) {
      Hit hit = {BEHIND_ALL, 0.0f, 0};
      exchange(hit);
      body(hit);
    }
  }
};
template <>
struct Waiting<0> {
  RADFIELD_FN explicit Waiting(int64_t) {}
  RADFIELD_FN void exchange(Hit&) {}
  template <class Body>
  RADFIELD_FN void empty(Body) {}
};

// MOST: at least k; 0: unsorted.
template <int MOST>
__global__ void __launch_bounds__(256) gaussian_eval3d_forward(const GaussianEval3dForward a) {
  const TilePixel pixel = tile_pixel(a);
  const float least = (float)a.min_transmittance;
  SpaceRay ray = space_ray(a, pixel);
  Waiting<MOST> waiting(a.k);
  auto blend = [&](const Hit& hit, const float* record) {
    if (!(hit.tau >= 0.0f)) return;
    const float color[3] = {record[EVAL3D_COLOR], record[EVAL3D_COLOR + 1], record[EVAL3D_COLOR + 2]};
    blend_hit(hit, color, least, ray.state);
  };
  auto open = [&] { return ray.state.transmittance > least; };
  front_to_back<EVAL3D_VECTORS>(a, pixel, open, [&](const float* record, int32_t k) {
    bool on;
    Hit hit = hit_of(a, ray, record, k, on);
    if (!on) return;
    waiting.exchange(hit);
    blend(hit, MOST && hit.tau >= 0.0f ? record_at(a, hit.entry) : record);
  });
  waiting.empty([&](const Hit& hit) {
    if (hit.tau >= 0.0f) blend(hit, record_at(a, hit.entry));
  });
  if (!pixel.inside) return;
  for (int c = 0; c < 3; ++c) a.image[3 * pixel.at + c] = ray.state.color[c];
  a.depth[pixel.at] = ray.state.depth, a.transmittance[pixel.at] = ray.state.transmittance;
}

// The sums of a hit, and its weight; 0 where it is none.
RADFIELD_FN float sums_of_hit(const GaussianEval3dBackward& a, const float* record, const Hit& hit, SpaceRay& ray,
                              RayGradient& grad, float (&sums)[TRACE_SUMS]) {
  float& transmittance = ray.state.transmittance;
  const float weight = hit_weight(hit, transmittance, (float)a.min_transmittance);
  if (!(weight > 0.0f)) return 0.0f;
  hit_sums(gaussian_of(record), hit, ray.o, ray.d, weight, transmittance, (float)a.max_alpha, grad, sums);
  transmittance = transmittance - weight;
  return weight;
}

// Adds what leaves the buffers of a warp to the rows of its entries, which this block has cleared.
RADFIELD_FN void add_to_rows(const GaussianEval3dBackward& a, const Hit& hit, SpaceRay& ray, RayGradient& grad) {
  float sums[TRACE_SUMS] = {};
  const float weight = hit.tau >= 0.0f ? sums_of_hit(a, record_at(a, hit.entry), hit, ray, grad, sums) : 0.0f;
  const uint32_t lanes = __ballot_sync(FULL, weight > 0.0f);
  if (!lanes) return;
  const int32_t entry = __shfl_sync(FULL, hit.entry, lowest_bit(lanes));
  if (__all_sync(FULL, !(weight > 0.0f) || hit.entry == entry)) {
    const float sum = sums_in_lanes(sums);
    if (lane_number() % 2 == 0) atomicAdd(a.partial + TRACE_SUMS * (int64_t)entry + lane_number() / 2, sum);
  } else if (weight > 0.0f) {
    add_vector(a.partial + TRACE_SUMS * (int64_t)hit.entry, sums);
  }
}

template <int MOST>
RADFIELD_FN void sorted_rows(const GaussianEval3dBackward& a, const TilePixel& pixel, SpaceRay& ray, RayGradient& grad) {
  Waiting<MOST> waiting(a.k);
  clear_rows(a, a.tile_start[blockIdx.x], a.tile_start[blockIdx.x + 1]);
  __syncthreads();
  auto open = [&] { return ray.state.transmittance > (float)a.min_transmittance; };
  for_batches<EVAL3D_VECTORS>(a, open, [&](const auto& records, const auto& entries, int32_t first, int n) {
    for (int i = 0; i < n && __any_sync(FULL, open()); ++i) {
      if (!(entries[i] >> pixel.block & 1)) continue;  // whole warps
      bool on;
      Hit hit = hit_of(a, ray, records[i].values, first + i, on);
      if (!__any_sync(FULL, on)) continue;
      if (on) waiting.exchange(hit);
      add_to_rows(a, hit, ray, grad);
    }
  });
  waiting.empty([&](const Hit& hit) { add_to_rows(a, hit, ray, grad); });
}

template <int MOST>
__global__ void __launch_bounds__(256) gaussian_eval3d_backward(const GaussianEval3dBackward a) {
  const TilePixel pixel = tile_pixel(a);
  SpaceRay ray = space_ray(a, pixel);
  RayGradient grad = {};
  if (pixel.inside) grad = pixel_gradient(a, pixel.at);
  if constexpr (MOST > 0) {
    sorted_rows<MOST>(a, pixel, ray, grad);
  } else {
    auto open = [&] { return ray.state.transmittance > (float)a.min_transmittance; };
    rows_front_to_back<EVAL3D_VECTORS>(a, pixel, open, [&](const float* record, int32_t k, float (&values)[TRACE_SUMS]) {
      bool on;
      const Hit hit = hit_of(a, ray, record, k, on);
      return on ? sums_of_hit(a, record, hit, ray, grad, values) : 0.0f;
    });
  }
}

}  // namespace radfield
