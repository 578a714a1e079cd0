// A warp is a ray, its samples stand in the lanes, 32 at a time: sums along the ray are prefix sums within the warp,
// carried to the next samples. As in composite.cpp the backward pass goes from the far end, so that what lies behind a
// sample is a sum of small terms and never a difference of large ones.
#include "composite.h"

#include "../cuda/device.h"

namespace radfield {

// A ray's samples; clamped, so that a broken ray_start cannot reach outside the streams.
struct Range {
  int64_t begin, end;
};
RADFIELD_FN Range ray_range(const int32_t* ray_start, int64_t ray, int64_t M) {
  const int64_t begin = ray_start[ray] < 0 ? 0 : ray_start[ray] > M ? M : ray_start[ray];
  const int64_t end = ray_start[ray + 1] > M ? M : ray_start[ray + 1];
  return {begin, end < begin ? begin : end};
}

RADFIELD_FN float last_lane(float x) { return __shfl_sync(FULL, x, WARP - 1); }

// What a ray carries from one 32 samples to the next; the same in all lanes but for the depth.
struct Walk {
  float before, thick;  // transmittance and optical depth up to here
  float depth;          // this lane's part
  int64_t live;         // samples that the ray reached
};

// The weight of sample i (none where !inside) into w; false where the transmittance falls below `stop` (or is no
// number) within these 32 samples.
template <bool RAW>
RADFIELD_FN bool weigh(const CompositeForward& a, int64_t i, bool inside, Walk& walk, float& w) {
  const float stop = (float)a.stop;
  const float t0 = inside ? a.t_start[i] : 0.0f, t1 = inside ? a.t_end[i] : 0.0f;
  float sigma = inside ? a.sigma[i] : 0.0f;
  if (RAW) sigma = density(sigma, (float)a.shift);
  const float tau = sigma * (t1 - t0);  // 0 beyond the ray
  const float sums = walk.thick + prefix_sum(tau);
  const float after = transmittance(sums);
  const float reached = from_below(after, walk.before);
  w = reached * absorbed(tau);
  const float left = last_lane(after);
  const bool goes_on = left >= stop;
  if (!goes_on && !(reached >= stop)) w = 0.0f;
  walk.depth = fma(w, (t0 + t1) * 0.5f, walk.depth);
  if (goes_on) {
    walk.before = left, walk.thick = last_lane(sums);
    walk.live += __popc(__ballot_sync(FULL, inside));
    return true;
  }
  // the samples up to the first that is not reached
  const uint32_t unreached = __ballot_sync(FULL, !(inside && reached >= stop));
  const int live = unreached ? __ffs((int)unreached) - 1 : WARP;
  walk.live += live;
  const float final = __shfl_sync(FULL, after, live > 0 ? live - 1 : 0);
  if (live > 0) walk.before = final;
  return false;
}

template <bool RAW>
__global__ void composite_forward(const CompositeForward a) {
  const int64_t r = thread_number() / WARP;
  const int lane = lane_number();
  if (r >= a.N) return;  // whole warps
  const Range ray = ray_range(a.ray_start, r, a.M);
  Walk walk = {1.0f, 0.0f, 0.0f, 0};
  bool goes_on = true;
  for (int64_t at = ray.begin; at < ray.end; at += WARP) {
    const int64_t i = at + lane;
    float w = 0.0f;
    if (goes_on) goes_on = weigh<RAW>(a, i, i < ray.end, walk, w);
    if (i < ray.end) a.weights[i] = w;
  }
  const float depth = warp_sum(walk.depth);
  if (lane == 0) a.live[r] = (int32_t)walk.live, a.opacity[r] = 1.0f - walk.before, a.depth[r] = depth;
  for (int64_t c = 0; c < a.C; ++c) {
    float mixed = 0.0f;
    for (int64_t i = ray.begin + lane; i < ray.begin + walk.live; i += WARP) {  // its own weights, written above
      const float value = a.rgb[c * a.M + i];
      mixed = fma(a.weights[i], RAW ? colour(value) : value, mixed);
    }
    mixed = warp_sum(mixed);
    if (lane == 0)
      a.color[c * a.N + r] = a.background ? fma(walk.before, a.background[c * a.N + r], mixed) : mixed;
  }
}

RADFIELD_FN float at(const float* stream, int64_t i) { return stream ? stream[i] : 0.0f; }

// What the samples of one ray share in the backward pass.
struct RayGradient {
  float constant, depth;  // d loss / d w: constant + depth * t + colours
  float after, behind;    // transmittance after, and sum of w g, of the samples that follow; all lanes alike
};

// The gradients of sample i of ray r.
template <bool RAW>
RADFIELD_FN void sample_gradient(const CompositeBackward& a, int64_t r, int64_t i, bool inside, RayGradient& ray) {
  const float w = inside ? a.weights[i] : 0.0f;
  const float t0 = inside ? a.t_start[i] : 0.0f, t1 = inside ? a.t_end[i] : 0.0f;
  float g = fma((t0 + t1) * 0.5f, ray.depth, ray.constant);
  if (inside) {
    g = g + at(a.grad_weights, i);
    for (int64_t c = 0; c < a.C; ++c) {
      const float channel = at(a.grad_color, c * a.N + r);
      float value = a.rgb[c * a.M + i];
      if (RAW) value = colour(value);
      g = fma(value, channel, g);
      if (a.grad_rgb) a.grad_rgb[c * a.M + i] = RAW ? w * channel * colour_derivative(value) : w * channel;
    }
  }
  const float w_sum = suffix_sum(w), wg_sum = suffix_sum(w * g);
  const float after = ray.after + from_above(w_sum, 0.0f), behind = ray.behind + from_above(wg_sum, 0.0f);
  if (inside) {
    float grad = optical_depth_gradient(g, after, behind) * (t1 - t0);
    if (RAW) grad = grad * density_derivative(a.sigma[i], (float)a.shift);
    a.grad_sigma[i] = grad;
  }
  ray.after = ray.after + __shfl_sync(FULL, w_sum, 0), ray.behind = ray.behind + __shfl_sync(FULL, wg_sum, 0);
}

template <bool RAW>
__global__ void composite_backward(const CompositeBackward a) {
  const int64_t r = thread_number() / WARP;
  const int lane = lane_number();
  if (r >= a.N) return;  // whole warps
  const Range samples = ray_range(a.ray_start, r, a.M);
  const int64_t reach = samples.begin + a.live[r], end = reach < samples.end ? reach : samples.end;
  const float left = 1.0f - a.opacity[r];
  RayGradient ray = {at(a.grad_opacity, r), at(a.grad_depth, r), left, 0.0f};
  for (int64_t c = 0; c < a.C && a.background; ++c) {
    const float grad = at(a.grad_color, c * a.N + r);
    ray.constant = fma(-grad, a.background[c * a.N + r], ray.constant);
    if (a.grad_background && lane == 0) a.grad_background[c * a.N + r] = grad * left;
  }
  for (int64_t i = end + lane; i < samples.end; i += WARP) {  // none for the samples that the ray does not reach
    a.grad_sigma[i] = 0.0f;
    for (int64_t c = 0; a.grad_rgb && c < a.C; ++c) a.grad_rgb[c * a.M + i] = 0.0f;
  }
  const int64_t vectors = (end - samples.begin + WARP - 1) / WARP;
  for (int64_t v = vectors - 1; v >= 0; --v) {
    const int64_t i = samples.begin + v * WARP + lane;
    sample_gradient<RAW>(a, r, i, i < end, ray);
  }
}

// The live samples of each ray, one run after the other: a warp is a ray, a row of the grid a stream. T is what is
// moved: 16 or 32 bits.
template <class T>
__global__ void compact_streams(const CompactStreams a) {
  const int64_t r = thread_number() / WARP, c = blockIdx.y;
  if (r >= a.N) return;
  const Range old = ray_range(a.ray_start, r, a.M), packed = ray_range(a.new_start, r, a.K);
  const int64_t room = packed.end - packed.begin, samples = old.end - old.begin, n = room < samples ? room : samples;
  const T* const from = (const T*)a.stream + c * a.M + old.begin;
  T* const to = (T*)a.packed + c * a.K + packed.begin;
  for (int64_t i = lane_number(); i < n; i += WARP) to[i] = from[i];
}

}  // namespace radfield
