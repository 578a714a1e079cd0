// Boxes of particles, and those of a tree (particle_bvh.py), which is built on the CPU.
#include "particle_bvh.h"

#include "../renderers/gaussian_projection_device.h"

namespace radfield {

// A thread is a particle.
__global__ void particle_bounds(const ParticleBounds a) {
  const int64_t i = thread_number();
  if (i >= a.G) return;
  const Gaussian<float> g = load_gaussian(a, i);
  const TracedParticle<float> p = traced_particle(g, is_met(g, (float)a.min_response));
  float half[3];
  particle_half(p, (float)a.min_response, a.degree, kernel_scale(a.degree), half);
  float* const item = a.item + 8 * i;
  for (int k = 0; k < 3; ++k) item[k] = p.mean[k] - half[k], item[4 + k] = p.mean[k] + half[k];
  item[3] = as_float((int32_t)i), item[7] = log(max(half[0], max(half[1], half[2])));
}

// A thread is a bound of an inner node's box.
__global__ void particle_bvh_refit_clear(const ParticleBvhRefit a) {
  const int64_t i = thread_number();
  if (i < a.I * 6 * PARTICLE_WIDE) a.box[i] = i / PARTICLE_WIDE % 6 < 3 ? NOWHERE : -NOWHERE;
}

// Where the union of a node's boxes stands in its parent's.
RADFIELD_FN float* box_in_parent(const ParticleBvhRefit& a, int32_t place) {
  return a.box + (int64_t)(place / PARTICLE_WIDE) * 6 * PARTICLE_WIDE + place % PARTICLE_WIDE;
}

// A thread is a place of the tree; half a warp is a leaf.
__global__ void particle_bvh_refit_leaves(const ParticleBvhRefit a) {
  const int64_t place = thread_number(), leaf = place / PARTICLE_WIDE;
  const int lane = (int)(place % PARTICLE_WIDE);
  const Gaussian<float> g = load_gaussian(a, place < a.G ? a.order[place] : 0);
  const bool met = place < a.G && is_met(g, (float)a.min_response);
  const TracedParticle<float> p = traced_particle(g, met);
  float half[3], low[3], high[3];
  particle_half(p, (float)a.min_response, a.degree, kernel_scale(a.degree), half);
  for (int k = 0; k < 3; ++k) {
    low[k] = met ? p.mean[k] - half[k] : NOWHERE, high[k] = met ? p.mean[k] + half[k] : -NOWHERE;
    if (leaf < a.L) {
      float* const boxes = a.leaf_box + leaf * 6 * PARTICLE_WIDE + lane;
      boxes[k * PARTICLE_WIDE] = low[k], boxes[(3 + k) * PARTICLE_WIDE] = high[k];
    }
    for (int d = PARTICLE_WIDE / 2; d; d >>= 1) {
      low[k] = min(low[k], __shfl_xor_sync(FULL, low[k], d));
      high[k] = max(high[k], __shfl_xor_sync(FULL, high[k], d));
    }
  }
  if (lane != 0 || leaf >= a.L) return;
  float* const out = box_in_parent(a, a.leaf_slot[leaf]);
  for (int k = 0; k < 3; ++k) out[k * PARTICLE_WIDE] = low[k], out[(3 + k) * PARTICLE_WIDE] = high[k];
}

// By one block: a thread is an inner node. Nodes stand in the order of their parents, so that the children of those
// behind the last one's parent are done when that is reached.
__global__ void particle_bvh_refit_nodes(const ParticleBvhRefit a) {
  for (int64_t end = a.I; end > 1;) {
    const int64_t begin = a.slot[end - 1] / PARTICLE_WIDE + 1;
    for (int64_t node = begin + threadIdx.x; node < end; node += blockDim.x) {
      const float* const boxes = a.box + node * 6 * PARTICLE_WIDE;
      float* const out = box_in_parent(a, a.slot[node]);
      for (int c = 0; c < 6; ++c) {
        float bound = boxes[c * PARTICLE_WIDE];
        for (int i = 1; i < PARTICLE_WIDE; ++i) {
          const float other = boxes[c * PARTICLE_WIDE + i];
          bound = c < 3 ? min(bound, other) : max(bound, other);
        }
        out[c * PARTICLE_WIDE] = bound;
      }
    }
    __syncthreads();
    end = begin;
  }
}

}  // namespace radfield
