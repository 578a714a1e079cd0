// The way back of rays through Gaussians: a thread is a ray, which is traced again and writes a row of sums for each
// particle that it blends. Rows are sorted by particle and added in their order: no atomics, one order of sums.
#include "gaussian_projection_device.h"
#include "gaussian_raster_device.h"
#include "gaussian_sort_device.h"
#include "gaussian_trace_device.h"

namespace radfield {

// Of the rays first_tile .. first_tile + tiles - 1: here a tile is a ray.
template <int BANDS, int MOST>
__global__ void gaussian_trace_backward(const GaussianTraceBackward a) {
  const int64_t i = ray_of_thread(a);
  if (i < a.first_tile || i >= a.first_tile + a.tiles) return;
  DeviceRay ray;
  if (!read_ray(a, i, ray)) return;  // it has no rows
  const int64_t start = a.row_start[a.first_tile];
  RowWriter writer = {a, a.row_start[i] - start, a.row_start[i + 1] - start};
  RayState state = {{}, 0, {}, 1.0f, 0, 0};
  RayGradient grad = gradient_of(a, i);
  LoneGradient by_ray = {};
  float harmonics[BANDS * BANDS];
  ray_harmonics<BANDS>(ray, harmonics);
  const float scale = kernel_scale(a.degree);
  walk_ray<MOST>(a, ray, [&](const KEntry& e) {
    const LoneParticle p = seen_particle<BANDS>(a, e.place, harmonics);
    float slope, weight;
    const bool on = blend_gradient(state, grad, e.alpha, key_depth(e.key), p.color, (float)a.min_transmittance, slope, weight);
    auto harmonic = [&](int64_t k) { return harmonics[k]; };
    lone_row(a, scale, ray.o, ray.d, grad, p, e.place, slope, weight, harmonic, writer, by_ray);
    return on;
  });
  writer.finish();
  if (!a.grad_origins) return;
  if constexpr (BANDS > 1)
    sh_gradient<BANDS>(ray.d[0], ray.d[1], ray.d[2], 1.0f, 0.0f, 0.0f, 0.0f,
                       [&](int c) { return c ? by_ray.by_harmonic[c] : 0.0f; }, by_ray.direction);
  add_ray_gradient(a, i, by_ray.origin, by_ray.direction);
}

// ---- rows by particle, in their order

struct RowSort {
  uint2* items[2];  // particle, or G for none; row
  uint32_t *totals, *counts;
  int64_t B;

  RADFIELD_FN RowSort(void* scratch, const GaussianTraceSort& a) {
    B = (a.K + SORT_ITEMS - 1) / SORT_ITEMS;
    items[0] = (uint2*)scratch, items[1] = items[0] + a.K;
    totals = (uint32_t*)(items[1] + a.K), counts = totals + SORT_DIGITS;
  }
};
RADFIELD_FN SortPass row_pass(const GaussianTraceSort& a, const RowSort& s, int64_t pass) {
  return {s.items[pass % 2], s.items[(pass + 1) % 2], s.totals, s.counts, a.K, s.B, (int)pass * SORT_BITS};
}

// A thread is a row.
__global__ void gaussian_trace_sort_make(const GaussianTraceSort a, void* scratch) {
  const int64_t k = thread_number();
  if (k >= a.K) return;
  const int32_t particle = a.row_particle[k];
  RowSort(scratch, a).items[0][k] = make_uint2(particle < 0 ? (uint32_t)a.G : (uint32_t)particle, (uint32_t)k);
}
__global__ void gaussian_trace_sort_count(const GaussianTraceSort a, void* scratch, int64_t pass) {
  sort_count(row_pass(a, RowSort(scratch, a), pass));
}
__global__ void gaussian_trace_sort_scan(const GaussianTraceSort a, void* scratch, int64_t pass) {
  sort_scan(row_pass(a, RowSort(scratch, a), pass));
}
__global__ void gaussian_trace_sort_scatter(const GaussianTraceSort a, void* scratch, int64_t pass) {
  sort_scatter(row_pass(a, RowSort(scratch, a), pass));
}
// A thread is a row; after `passes` passes.
__global__ void gaussian_trace_sort_write(const GaussianTraceSort a, void* scratch, int64_t passes) {
  const int64_t k = thread_number();
  if (k < a.K) a.position[k] = (int32_t)RowSort(scratch, a).items[passes % 2][k].y;
}
// A thread is a particle: the first row that is its own, or a later one's.
__global__ void gaussian_trace_sort_starts(const GaussianTraceSort a, void* scratch, int64_t passes) {
  const int64_t g = thread_number();
  if (g > a.G) return;
  const uint2* const items = RowSort(scratch, a).items[passes % 2];
  int64_t low = 0, high = a.K;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (items[middle].x < (uint32_t)g) low = middle + 1;
    else high = middle;
  }
  a.slot_start[g] = (int32_t)low;
}

// 16 lanes are a particle.
__global__ void gaussian_trace_gather(const GaussianTraceGather a) {
  const int64_t g = thread_number() / TRACE_SUMS;
  const int column = (int)threadIdx.x % TRACE_SUMS;
  const float own = column_sum(a, g);
  float sums[TRACE_SUMS], base[3];
  for (int k = 0; k < TRACE_SUMS; ++k) sums[k] = __shfl_sync(FULL, own, k, TRACE_SUMS);
  if (g >= a.G) return;
  for (int64_t r = column; r < a.R; r += TRACE_SUMS) {
    float sum = 0.0f;
    for (int64_t slot = a.slot_start[g]; slot < a.slot_start[g + 1]; ++slot)
      sum = sum + a.partial_rest[a.position[slot] * a.R + r];
    a.grad_rest[r * a.G + g] = sum;
  }
  if (column != 0) return;
  const Gaussian<float> from = load_gaussian(a, g);
  const bool met = is_met(from, (float)a.min_response);
  const Gaussian<float> out = particle_gradient(traced_particle(from, met), from, sums);
  for (int c = 0; c < 3; ++c) base[c] = sums[TRACE_COLOR + c] * GAUSSIAN_HARMONIC_0;
  store_rows(a.grad_means, a.G, g, met, out.mean);
  store_rows(a.grad_quaternions, a.G, g, met, out.quaternion);
  store_rows(a.grad_scales, a.G, g, met, out.scale);
  store_rows(a.grad_base, a.G, g, met, base);
  a.grad_opacities[g] = met ? out.opacity : 0.0f;
}

}  // namespace radfield
