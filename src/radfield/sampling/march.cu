// A warp is a ray, its lanes are steps, or segments of steps: what march.cpp does with W lanes. The chunks of ray i
// start at entry i * (most_steps / 16 + 2).
#include "march_device.h"

namespace radfield {

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
