// Ray marching: one ray in steps of constant length, or of length growing with distance ("cone"), and which of its
// steps lie in occupied cells. Letters: N rays, M samples, P entries of `chunks`. Step i of a ray covers t from
// time(s) to time(s + 1), s = i + jitter; its middle is time(s + 1/2).
#pragma once
#include "../geometry.h"
#include "occupancy.h"

namespace radfield {

struct MarchCount {
  int32_t* ray_start;
  int64_t* totals;
  int32_t* chunks;
  const float* origins;
  const float* directions;
  const float* near;
  const float* far;
  const int32_t* bitfield;
  const int32_t* near_blocks;
  int64_t resolution;
  const double* schedule;
  int64_t cascades;
  double step;
  double cone;
  double max_step;
  int64_t jitter;
  int64_t seed;
  int64_t max_per_ray;
  int64_t max_samples;
  int64_t most_steps;
  int64_t skip;
  int64_t N, P, B, S;
};
struct MarchFill {
  float* x;
  float* directions_out;
  float* t_start;
  float* t_end;
  int32_t* ray_index;
  const int32_t* ray_start;
  const int32_t* chunks;
  const float* origins;
  const float* directions;
  const float* near;
  const float* far;
  const double* schedule;
  int64_t cascades;
  double step;
  double cone;
  double max_step;
  int64_t jitter;
  int64_t seed;
  int64_t M, N, P;
};

// Where the steps of a ray lie. Constant: time(s) = start + s step. Cone: steps of t * cone, clamped to [step,
// max_step], in closed form (instant-ngp's "stepping space" u, in which every step has length 1): u is linear in t up
// to t_low, logarithmic up to t_high, linear beyond; then time(s) = t(start + s), start being the u of the ray's near
// end.
struct Stepping {
  float step, max_step, cone;
  float log_growth;  // ln(1 + cone), 0 for constant steps
  float t_low, t_high, u_low, u_high;
};

inline Stepping make_stepping(double step, double cone, double max_step) {
  Stepping s = {};
  s.step = (float)step;
  s.max_step = (float)max_step;
  s.cone = (float)cone;
  if (!(cone > 0)) return s;
  const double growth = log_of_one_plus(cone);
  s.log_growth = (float)growth;
  s.t_low = (float)(step / growth);
  s.t_high = (float)(max_step / growth);
  s.u_low = (float)(natural_log(step / growth) / growth);
  s.u_high = (float)(natural_log(max_step / growth) / growth);
  return s;
}

// Chunks: groups of 16 steps with occupied ones, found by march_count for march_fill. An entry has the chunk's first
// step, a multiple of 8, divided by 8 in its upper half, and a bit per occupied step in its lower half.
constexpr int CHUNK = 16;
constexpr int RAYS = 64;  // rays per task; the chunks of a task stand together, ray after ray

RADFIELD_FN int32_t pack_chunk(int32_t first, uint32_t bits) { return (int32_t)((uint32_t)first << 13 | bits); }
RADFIELD_FN int32_t first_step(int32_t chunk) { return (int32_t)((uint32_t)chunk >> 16 << 3); }

// The u of distance t >= 0.
template <class F>
RADFIELD_FN F to_stepping_space(const Stepping& p, F t) {
  const F middle = log(max(t, F{} + p.t_low)) / p.log_growth;
  const F upper = (t - p.t_high) / p.max_step + p.u_high;
  const F lower = (t - p.t_low) / p.step + p.u_low;
  return select(t <= p.t_low, lower, select(t <= p.t_high, middle, upper));
}

// time(s). CONE: whether steps grow.
template <bool CONE, class F>
RADFIELD_FN F time_at(const Stepping& p, F start, F s) {
  if constexpr (!CONE) {
    return start + s * p.step;
  } else {
    const F u = start + s;
    const F upper = (u - p.u_high) * p.max_step + p.t_high;
    const F lower = (u - p.u_low) * p.step + p.t_low;
    return select(u <= p.u_low, lower, select(u <= p.u_high, exp(u * p.log_growth), upper));
  }
}

// The interval of a ray inside the box [low, high]^3.
template <class F>
RADFIELD_FN void intersect_cube(const F* o, const F* d, float low, float high, F& near, F& far) {
  const float lows[3] = {low, low, low}, highs[3] = {high, high, high};
  intersect_box(o, d, lows, highs, near, far);
}

// The length of a step at distance t.
template <bool CONE, class F>
RADFIELD_FN F step_length(const Stepping& p, F t) {
  return CONE ? min(max(t * p.cone, F{} + p.step), F{} + p.max_step) : F{} + p.step;
}

// The cascade of steps of this length at this distance from the centre: cells finer than two steps are not needed.
template <class F>
RADFIELD_FN auto step_cascade(F distance, F length, int resolution, int cascades) {
  const auto by_place = binary_exponent(distance) + 1, by_length = binary_exponent(length * (2.0f * (float)resolution));
  return clamp_index(select(by_place > by_length, by_place, by_length), cascades);
}

// A ray clipped to the outermost cascade and to its limits: the `start` of its steps (see time_at), the distance `far`
// that no step's middle reaches, and how many steps there may be at most. None on rays that are not finite.
template <bool CONE, class F, class I>
RADFIELD_FN void clip_ray(const Stepping& p, const F* o, const F* d, int64_t cascades, F nearest, F farthest, F& start,
                          F& far, I& steps) {
  const float half = 0.5f * (float)(1 << (cascades - 1));
  F near;
  intersect_cube(o, d, 0.5f - half, 0.5f + half, near, far);
  near = max(near, nearest), far = min(far, farthest);
  const F all = (o[0] + o[1] + o[2]) + (d[0] + d[1] + d[2]) + far;
  far = select(all - all == 0.0f, far, F{});
  start = CONE ? to_stepping_space(p, near) : near;
  const F length = CONE ? to_stepping_space(p, far) - start : (far - near) / p.step;
  steps = select(near < far, to_int(min(length, F{} + 1.0e6f)) + 2, I{});
}

constexpr float NEAR_CELLS = 1.99f;  // what `near_blocks` covers, less a margin for rounding

// Steps that are skipped together, 8 or 16; 0 where steps are too long to skip any. With cascades the cells grow with
// the steps, and each segment is checked.
RADFIELD_FN int steps_per_segment(bool skip, bool cone, bool cascades, float step, int64_t resolution) {
  const float cells = step * (float)resolution;  // per step
  if (!skip) return 0;
  if (!cone && 8 * cells <= NEAR_CELLS) return 16;
  return cone || cascades || 4 * cells <= NEAR_CELLS ? 8 : 0;
}
// Of a step over half a segment, at most.
inline float growth_over_segment(double cone, int segment) { return (float)power(1 + cone, 0.5 * segment + 1); }

}  // namespace radfield
