// Where the samples of a ray lie: what the CUDA kernels that march share. Only device compilers take this file.
#pragma once
#include "../cuda/device.h"
#include "march.h"

namespace radfield {

struct Ray {
  float o[3], d[3];
  float start, far, jitter;
  int32_t steps;

  RADFIELD_FN void point_at(float t, float (&q)[3]) const {
    for (int c = 0; c < 3; ++c) q[c] = o[c] + t * d[c];
  }
};

// What all threads of a block share: logarithms in double precision, taken once.
struct Constants {
  Stepping stepping;
  float growth;
  uint32_t seed;
};
template <class Args>
RADFIELD_FN void make_constants(Constants& constants, const Args& a, int segment) {
  if (threadIdx.x == 0)
    constants = {a.schedule ? make_stepping(a.schedule[0], a.schedule[1], a.schedule[2])
                            : make_stepping(a.step, a.cone, a.max_step),
                 growth_over_segment(a.schedule ? a.schedule[1] : a.cone, segment),
                 a.schedule ? (uint32_t)a.schedule[3] : (uint32_t)a.seed};
  __syncthreads();
}

template <bool CONE, class Args>
RADFIELD_FN Ray load_ray(const Args& a, const Constants& constants, int64_t i) {
  const Stepping& p = constants.stepping;
  Ray r;
  for (int c = 0; c < 3; ++c) r.o[c] = a.origins[c * a.N + i], r.d[c] = a.directions[c * a.N + i];
  const float nearest = a.near ? a.near[i] : 0.0f, farthest = a.far ? a.far[i] : as_float(0x7f800000);
  clip_ray<CONE>(p, r.o, r.d, a.cascades, nearest, farthest, r.start, r.far, r.steps);
  r.jitter = a.jitter ? unit_float(random_bits(constants.seed, (uint32_t)i)) : 0.0f;
  return r;
}

template <bool CONE>
RADFIELD_FN float step_time(const Stepping& p, const Ray& r, int32_t i, float offset) {
  return time_at<CONE>(p, r.start, to_float(i) + (r.jitter + offset));
}

// CASCADES: more than one.
template <bool CONE, bool CASCADES>
struct Marcher {
  const MarchCount& a;
  const Constants& constants;
  const int segment;  // steps per segment, 0 where none are skipped
  const int resolution, log2_cells;

  // Whether step i lies in an occupied cell.
  RADFIELD_FN bool occupied(const Ray& r, int32_t i) const {
    const float t = step_time<CONE>(constants.stepping, r, i, 0.5f);
    float q[3], inverse = 1.0f;
    r.point_at(t, q);
    int32_t k = 0;
    if constexpr (CASCADES) {
      const float length = step_length<CONE>(constants.stepping, t);
      k = step_cascade(distance_from_centre(q[0], q[1], q[2]), length, resolution, (int)a.cascades);
      inverse = inverse_side(k);
    }
    int32_t c[3];
    for (int d = 0; d < 3; ++d) c[d] = cell_coordinate(q[d], inverse, resolution);
    const int32_t cell = morton(c[0], c[1], c[2]) | (k << log2_cells);
    return t < r.far && ((uint32_t)a.bitfield[cell >> 5] >> (cell & 31) & 1);
  }

  // Whether the segment that starts at step i may hold occupied steps.
  RADFIELD_FN bool near_occupied(const Ray& r, int32_t i) const {
    const float half = 0.5f * (float)segment, t = step_time<CONE>(constants.stepping, r, i, half);
    float q[3], inverse = 1.0f;
    r.point_at(t, q);
    int32_t k = 0;
    bool too_long = false;
    if constexpr (CONE || CASCADES) {  // march.cpp says why
      const float longest = 1.01f * constants.growth * step_length<CONE>(constants.stepping, t), reach = half * longest;
      k = step_cascade(distance_from_centre(q[0], q[1], q[2]) + reach, longest, resolution, (int)a.cascades);
      inverse = inverse_side(k);
      too_long = reach * inverse * (float)resolution > NEAR_CELLS;
    }
    const int n = resolution / 4;
    int32_t b[3];
    for (int d = 0; d < 3; ++d) b[d] = cell_coordinate(q[d], inverse, n);
    const int32_t word = a.near_blocks[((k * n + b[2]) * n + b[1]) * ((n + 31) / 32) + (b[0] >> 5)];
    return too_long || ((uint32_t)word >> (b[0] & 31) & 1);
  }

  // Tests the chunks that start at steps first[0] and first[1] (none where negative), writes those with occupied steps
  // to `out`, moves it on, and returns the number of steps.
  RADFIELD_FN int chunks(const Ray& r, const int32_t (&first)[2], int32_t*& out) const {
    const int lane = lane_number();
    const int32_t base = first[lane / CHUNK];
    const uint32_t bits = __ballot_sync(FULL, base >= 0 && occupied(r, base + lane % CHUNK));
    for (int half = 0; half < 2; ++half) {
      const uint32_t own = bits >> (CHUNK * half) & 0xffffu;
      if (own && lane == 0) *out = pack_chunk(first[half], own);
      out += own != 0;
    }
    return __popc(bits);
  }

  RADFIELD_FN int64_t march(const Ray& r, int32_t* out) const {
    int64_t found = 0;
    if (!segment) {
      for (int32_t i = 0; i < r.steps && found < a.max_per_ray; i += 2 * CHUNK)
        found += chunks(r, {i, i + CHUNK < r.steps ? i + CHUNK : -1}, out);
    }
    for (int32_t i = 0; segment && i < r.steps && found < a.max_per_ray; i += WARP * segment) {
      uint32_t marked = __ballot_sync(FULL, near_occupied(r, i + lane_number() * segment));
      if (segment == 8) marked = (marked | marked >> 1) & 0x55555555u;
      while (marked && found < a.max_per_ray) {
        const uint32_t rest = marked & (marked - 1);
        const int32_t one = i + (__ffs((int)marked) - 1) * segment;
        found += chunks(r, {one, rest ? i + (__ffs((int)rest) - 1) * segment : -1}, out);
        marked = rest & (rest - 1);
      }
    }
    return found < a.max_per_ray ? found : a.max_per_ray;
  }
};

}  // namespace radfield
