// The particles' records, and what rays see of them (gaussian_trace_device.h).
#include "gaussian_trace.h"

#include "gaussian_projection_device.h"
#include "gaussian_trace_device.h"

namespace radfield {

// Whether a particle stands out of the box that the tree has for it.
RADFIELD_FN bool stands_out(const TracedParticle<float>& p, const float (&half)[3], const float* boxes, int lane) {
  bool out = false;
  for (int k = 0; k < 3; ++k) {
    out |= p.mean[k] - half[k] < boxes[k * PARTICLE_WIDE + lane];
    out |= p.mean[k] + half[k] > boxes[(3 + k) * PARTICLE_WIDE + lane];
  }
  return out;
}

// A thread is a place of the tree; half a warp is a leaf.
__global__ void gaussian_trace_pack(const GaussianTracePack a) {
  const int64_t place = thread_number(), leaf = place / PARTICLE_WIDE;
  const int lane = (int)(place % PARTICLE_WIDE);
  const float least = (float)a.min_response;
  const int64_t number = place < a.G ? a.order[place] : 0;
  const Gaussian<float> g = load_gaussian(a, number);
  const bool met = place < a.G && is_met(g, least);
  const TracedParticle<float> p = traced_particle(g, met);
  float half[3], row[PARTICLE_NUMBERS];
  particle_half(p, least, a.degree, kernel_scale(a.degree), half);
  const bool out = met && stands_out(p, half, a.leaf_box + leaf * 6 * PARTICLE_WIDE, lane);
  const uint32_t outside = __ballot_sync(FULL, out) >> (lane_number() - lane) & 0xffffu;
  if (leaf >= a.L) return;
  if (lane == 0) a.stale[leaf] = __popc(outside);
  for (int k = 0; k < 3; ++k) {
    row[BLOCK_MEAN + k] = p.mean[k];
    row[BLOCK_COLOR + k] = fma(a.base[k * a.G + number], GAUSSIAN_HARMONIC_0, 0.5f);
  }
  for (int k = 0; k < 9; ++k) row[BLOCK_WHITEN + k] = p.whiten[k];
  row[BLOCK_OPACITY] = p.opacity;
  float4* const to = (float4*)(a.block + place * PARTICLE_NUMBERS);
  for (int k = 0; k < 4; ++k) to[k] = make_float4(row[4 * k], row[4 * k + 1], row[4 * k + 2], row[4 * k + 3]);
  for (int64_t r = 0; r < a.R && place < a.G; ++r) a.coefficients[place * a.R + r] = a.rest[r * a.G + number];
}

// BANDS: of the colours' harmonics; MOST: at least k.
template <int BANDS, int MOST>
__global__ void gaussian_trace_forward(const GaussianTraceForward a) {
  const int64_t i = ray_of_thread(a);
  if (i < 0) return;
  DeviceRay ray;
  RayState state = {{}, 0, {}, 1.0f, 0, 0};
  if (read_ray(a, i, ray)) {
    float harmonics[BANDS * BANDS];
    ray_harmonics<BANDS>(ray, harmonics);
    const float least = (float)a.min_response, scale = kernel_scale(a.degree);
    walk_ray<MOST>(a, ray, [&](const KEntry& e) {
      const LoneParticle p = seen_particle<BANDS>(a, e.place, harmonics);
      float normal[3];
      if (a.normals) {
        const float radius = kernel_radius(p.opacity, least, a.degree, scale);
        entry_normal(meet(p.mean, p.whiten, ray.o, ray.d), p.whiten, radius, normal);
      }
      return blend(state, e.alpha, key_depth(e.key), p.color, a.normals ? normal : nullptr, (float)a.min_transmittance);
    });
    a.rows[i] = state.hits;
  } else {
    a.rows[i] = 0, state.hits = -1;
  }
  write_ray(a, i, state);
  for (int k = 0; k < 3 && a.visits; ++k) a.visits[3 * i + k] = ray.visits[k];
}

}  // namespace radfield
