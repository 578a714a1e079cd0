// A warp is a ray, its lanes are steps, or segments of steps: what march.cpp does with W lanes. The chunks of ray i
// start at entry i * (most_steps / 16 + 2).
#include "march.h"

#include "../cuda/device.h"

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

template <bool CONE, bool CASCADES>
__global__ void march_count(const MarchCount a) {
  SHARED_ARRAY(Constants, constants, [1]);
  const int segment = steps_per_segment(a.skip, CONE, CASCADES, a.schedule ? (float)a.schedule[0] : (float)a.step, a.resolution);
  make_constants(constants[0], a, segment);
  const int64_t i = thread_number() / WARP;
  if (i >= a.N) return;  // whole warps
  Ray r = load_ray<CONE>(a, constants[0], i);
  if (r.steps > a.most_steps) r.steps = (int32_t)a.most_steps;
  const Marcher<CONE, CASCADES> marcher{a, constants[0], segment, (int)a.resolution, 3 * log2_of(a.resolution)};
  const int64_t found = marcher.march(r, a.chunks + i * (a.most_steps / CHUNK + 2));
  if (lane_number() == 0) a.ray_start[i + 1] = (int32_t)found;
}

// Counts to starts, by one block. Rays from the first that no longer fits on have no samples.
__global__ void march_starts(const MarchCount a) {
  int64_t done = 0, kept = 0, kept_total = 0;
  for (int64_t begin = 0; begin < a.N; begin += blockDim.x) {
    const int64_t i = begin + threadIdx.x, own = i < a.N ? a.ray_start[i + 1] : 0;
    int64_t total;
    const int64_t upto = done + block_sum_before(own, total) + own;
    const bool fits = i < a.N && upto <= a.max_samples;
    if (fits) a.ray_start[i + 1] = (int32_t)upto;
    kept += __syncthreads_count(fits);
    kept_total += block_sum(fits ? own : (int64_t)0);
    done += total;
  }
  for (int64_t i = kept + threadIdx.x; i < a.N; i += blockDim.x) a.ray_start[i + 1] = (int32_t)kept_total;
  if (threadIdx.x == 0) a.ray_start[0] = 0, a.totals[0] = kept, a.totals[1] = kept_total;
}

template <bool CONE>
RADFIELD_FN void write_sample(const MarchFill& a, const Stepping& p, const Ray& r, int64_t ray, int32_t step, int64_t at) {
  float q[3];
  a.t_start[at] = step_time<CONE>(p, r, step, 0.0f), a.t_end[at] = step_time<CONE>(p, r, step + 1, 0.0f);
  r.point_at(step_time<CONE>(p, r, step, 0.5f), q);
  for (int c = 0; c < 3; ++c) {
    a.x[c * a.M + at] = q[c];
    if (a.directions_out) a.directions_out[c * a.M + at] = r.d[c];
  }
  if (a.ray_index) a.ray_index[at] = (int32_t)ray;
}

// Two chunks at a time, a lane per step.
template <bool CONE>
__global__ void march_fill(const MarchFill a) {
  SHARED_ARRAY(Constants, constants, [1]);
  make_constants(constants[0], a, 0);
  const Stepping& p = constants[0].stepping;
  const int64_t i = thread_number() / WARP;
  if (i >= a.N) return;  // whole warps
  const int64_t begin = a.ray_start[i], wanted = a.ray_start[i + 1] - begin;
  if (wanted <= 0) return;
  const Ray r = load_ray<CONE>(a, constants[0], i);
  const int lane = lane_number();
  const int32_t* chunk = a.chunks + i * (a.P / a.N);
  for (int64_t found = 0; found < wanted; chunk += 2) {
    const int32_t one = chunk[0], low = __popc((uint32_t)one & 0xffffu);
    const int32_t two = found + low < wanted ? chunk[1] : 0;  // there may be no more
    const uint32_t bits = ((uint32_t)one & 0xffffu) | (uint32_t)two << CHUNK;
    const int64_t rank = found + __popc(bits & ((1u << lane) - 1));
    const int32_t step = first_step(lane < CHUNK ? one : two) + lane % CHUNK;
    if ((bits >> lane & 1) && rank < wanted) write_sample<CONE>(a, p, r, i, step, begin + rank);
    found += __popc(bits);
  }
}

}  // namespace radfield
