// Loops of compositing. The samples of a ray stand in lanes, W at a time: sums along the ray are prefix sums within a
// vector, carried to the next. The backward pass goes from the far end, so that what lies behind a sample is a sum of
// small terms and never a difference of large ones.
#include "composite.h"

#include "../cpu/lanes.h"
#include "../cpu/parallel.h"

using namespace radfield;

namespace {

constexpr int64_t RAYS = 32;  // per task

// A ray's samples; clamped, so that a broken ray_start cannot reach outside the streams.
struct Range {
  int64_t begin, end;
};
Range ray_range(const int32_t* ray_start, int64_t ray, int64_t M) {
  const int64_t begin = ray_start[ray] < 0 ? 0 : ray_start[ray] > M ? M : ray_start[ray];
  const int64_t end = ray_start[ray + 1] > M ? M : ray_start[ray + 1];
  return {begin, end < begin ? begin : end};
}

RADFIELD_SIMD int lanes_left(int64_t i, int64_t end) { return end - i < W ? (int)(end - i) : W; }

// What a ray carries from vector to vector.
struct Walk {
  vf before = vf{} + 1.0f, thick = {};  // transmittance and optical depth up to here, all lanes alike
  vf depth = {};
  int live = 0;  // of the vector where the ray ended: samples that it reached
};

// Weights of samples i .. i + n - 1; false where the transmittance falls below `stop` (or is no number).
template <bool RAW>
RADFIELD_SIMD bool weigh_vector(const CompositeForward& a, int64_t i, int n, Walk& walk) {
  const float stop = (float)a.stop;
  const vf t0 = load_n(a.t_start + i, n), t1 = load_n(a.t_end + i, n);
  vf sigma = load_n(a.sigma + i, n);
  if (RAW) sigma = density(sigma, (float)a.shift);
  const vf tau = sigma * (t1 - t0);  // 0 in lanes beyond n
  const vf sums = walk.thick + prefix_sum(tau);
  const vf after = transmittance(sums);
  const vf reached = moved_up<1>(after, walk.before);
  vf w = reached * absorbed(tau);
  const bool goes_on = after[W - 1] >= stop;
  if (!goes_on) w = select(reached >= stop, w, vf{});
  store_n(a.weights + i, w, n);
  walk.depth = fma(w, (t0 + t1) * 0.5f, walk.depth);
  if (!goes_on) {
    while (walk.live < n && reached[walk.live] >= stop) ++walk.live;
    if (walk.live > 0) walk.before = vf{} + after[walk.live - 1];
    return false;
  }
  walk.before = vf{} + after[W - 1], walk.thick = vf{} + sums[W - 1];
  return true;
}

struct Passed {
  int64_t live;         // samples that the ray reaches
  float transmittance;  // after the last of them
  float depth;
};

// Weights of a ray.
template <bool RAW>
Passed weigh(const CompositeForward& a, Range ray) {
  Walk walk;
  for (int64_t i = ray.begin; i < ray.end; i += W) {
    const int n = lanes_left(i, ray.end);
    if (n == W ? weigh_vector<RAW>(a, i, W, walk) : weigh_vector<RAW>(a, i, n, walk)) continue;
    for_lanes(i + n, ray.end, [&](int64_t j, int rest) RADFIELD_LANES { store_n(a.weights + j, vf{}, rest); });
    return {i + walk.live - ray.begin, walk.before[0], total(walk.depth)};
  }
  return {ray.end - ray.begin, walk.before[0], total(walk.depth)};
}

template <bool RAW>
float mix_channel(const float* weights, const float* stream, int64_t begin, int64_t end) {
  vf mixed = {};
  for_lanes(begin, end, [&](int64_t i, int n) RADFIELD_LANES {
    const vf value = load_n(stream + i, n);
    mixed = fma(load_n(weights + i, n), RAW ? colour(value) : value, mixed);
  });
  return total(mixed);
}

template <bool RAW>
void forward(const CompositeForward& a) {
  parallel_blocks(a.N, RAYS, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      const Range ray = ray_range(a.ray_start, r, a.M);
      const Passed passed = weigh<RAW>(a, ray);
      a.live[r] = (int32_t)passed.live;
      a.opacity[r] = 1.0f - passed.transmittance;
      a.depth[r] = passed.depth;
      for (int64_t c = 0; c < a.C; ++c) {
        const float mixed = mix_channel<RAW>(a.weights, a.rgb + c * a.M, ray.begin, ray.begin + passed.live);
        a.color[c * a.N + r] = a.background ? fma(passed.transmittance, a.background[c * a.N + r], mixed) : mixed;
      }
    }
  });
}

RADFIELD_SIMD float at(const float* stream, int64_t i) { return stream ? stream[i] : 0.0f; }

// What the samples of one ray share in the backward pass.
struct RayGradient {
  float constant, depth;  // d loss / d w: constant + depth * t + colours
  vf after, behind;       // transmittance after, and sum of w g, of the samples that follow; all lanes alike
};

// The gradients of samples i .. i + n - 1 of ray r.
template <bool RAW>
RADFIELD_SIMD void sample_gradients(const CompositeBackward& a, int64_t r, int64_t i, int n, RayGradient& ray) {
  const vf w = load_n(a.weights + i, n), t0 = load_n(a.t_start + i, n), t1 = load_n(a.t_end + i, n);
  vf g = fma((t0 + t1) * 0.5f, vf{} + ray.depth, vf{} + ray.constant);
  if (a.grad_weights) g = g + load_n(a.grad_weights + i, n);
  for (int64_t c = 0; c < a.C; ++c) {
    const float channel = at(a.grad_color, c * a.N + r);
    vf value = load_n(a.rgb + c * a.M + i, n);
    if (RAW) value = colour(value);
    g = fma(value, vf{} + channel, g);
    if (!a.grad_rgb) continue;
    const vf grad = w * channel;
    store_n(a.grad_rgb + c * a.M + i, RAW ? grad * colour_derivative(value) : grad, n);
  }
  const vf wg = w * g;
  const vf w_sum = suffix_sum(w), wg_sum = suffix_sum(wg);
  vf grad = optical_depth_gradient(g, ray.after + moved_down<1>(w_sum), ray.behind + moved_down<1>(wg_sum)) * (t1 - t0);
  if (RAW) grad = grad * density_derivative(load_n(a.sigma + i, n), (float)a.shift);
  store_n(a.grad_sigma + i, grad, n);
  ray.after = ray.after + w_sum[0], ray.behind = ray.behind + wg_sum[0];
}

// No gradient for the samples that the ray does not reach.
void clear(const CompositeBackward& a, int64_t begin, int64_t end) {
  for_lanes(begin, end, [&](int64_t i, int n) RADFIELD_LANES {
    store_n(a.grad_sigma + i, vf{}, n);
    for (int64_t c = 0; a.grad_rgb && c < a.C; ++c) store_n(a.grad_rgb + c * a.M + i, vf{}, n);
  });
}

template <bool RAW>
void backward(const CompositeBackward& a) {
  parallel_blocks(a.N, RAYS, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      const Range samples = ray_range(a.ray_start, r, a.M);
      const int64_t reach = samples.begin + a.live[r], end = reach < samples.end ? reach : samples.end;
      const float left = 1.0f - a.opacity[r];
      RayGradient ray = {at(a.grad_opacity, r), at(a.grad_depth, r), vf{} + left, {}};
      for (int64_t c = 0; c < a.C && a.background; ++c) {
        const float grad = at(a.grad_color, c * a.N + r);
        ray.constant = fma(-grad, a.background[c * a.N + r], ray.constant);
        if (a.grad_background) a.grad_background[c * a.N + r] = grad * left;
      }
      clear(a, end, samples.end);
      const int64_t whole = samples.begin + (end - samples.begin) / W * W;
      if (whole < end) sample_gradients<RAW>(a, r, whole, (int)(end - whole), ray);
      for (int64_t i = whole - W; i >= samples.begin; i -= W) sample_gradients<RAW>(a, r, i, W, ray);
    }
  });
}

// The live samples of each ray, one run after the other.
template <class T>
void compact(const CompactStreams& a) {
  const int64_t blocks = (a.N + RAYS * 32 - 1) / (RAYS * 32);
  parallel_for(blocks * a.C, [&](int64_t task) {
    const int64_t c = task / blocks, first = task % blocks * RAYS * 32;
    const T* from = (const T*)a.stream + c * a.M;
    T* to = (T*)a.packed + c * a.K;
    for (int64_t r = first; r < a.N && r < first + RAYS * 32; ++r) {
      const Range old = ray_range(a.ray_start, r, a.M), packed = ray_range(a.new_start, r, a.K);
      const int64_t room = packed.end - packed.begin, samples = old.end - old.begin;
      memcpy(to + packed.begin, from + old.begin, (size_t)(room < samples ? room : samples) * sizeof(T));
    }
  });
}

}  // namespace

RADFIELD_OP(composite_forward, CompositeForward) { a.raw ? forward<true>(a) : forward<false>(a); }
RADFIELD_OP(composite_backward, CompositeBackward) { a.raw ? backward<true>(a) : backward<false>(a); }
RADFIELD_OP(compact_streams, CompactStreams) { a.packed_type == BF16 ? compact<bf16>(a) : compact<int32_t>(a); }
