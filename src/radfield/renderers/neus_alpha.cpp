#include "neus_alpha.h"

#include "../cpu/lanes.h"
#include "../cpu/parallel.h"

using namespace radfield;

namespace {

constexpr int64_t BLOCK = 4096;  // samples per task

template <class Args>
RADFIELD_SIMD SurfaceSample<vf> load_sample(const Args& a, int64_t i, int n) {
  SurfaceSample<vf> x;
  x.f = load_n(a.f + i, n);
  for (int c = 0; c < 3; ++c) {
    x.normal[c] = load_n(a.normal + c * a.M + i, n);
    x.d[c] = load_n(a.directions + c * a.M + i, n);
  }
  x.dt = interval_length(load_n(a.t_start + i, n), load_n(a.t_end + i, n));
  return x;
}

}  // namespace

RADFIELD_OP(neus_alpha_forward, NeusAlphaForward) {
  const float s = (float)a.sharpness, annealed = (float)a.annealed;
  parallel_blocks(a.M, BLOCK, [&](int64_t begin, int64_t end) {
    for_lanes(begin, end, [&](int64_t i, int n) RADFIELD_LANES {
      const SurfaceAnswer<vf> answer = surface_answer(load_sample(a, i, n), s, annealed);
      store_n(a.sigma + i, answer.sigma, n);
      store_n(a.stretch + i, answer.stretch, n);
      for (int c = 0; c < 3; ++c) store_n(a.rgb + c * a.M + i, sigmoid(load_n(a.logits + c * a.M + i, n)), n);
    });
  });
}

RADFIELD_OP(neus_alpha_backward, NeusAlphaBackward) {
  const float s = (float)a.sharpness, annealed = (float)a.annealed, weight = (float)a.stretch_weight;
  parallel_blocks(a.M, BLOCK, [&](int64_t begin, int64_t end) {
    for_lanes(begin, end, [&](int64_t i, int n) RADFIELD_LANES {
      const vf by_stretch = a.grad_stretch ? load_n(a.grad_stretch + i, n) : vf{} + weight;
      const vf by_sigma = load_n(a.grad_sigma + i, n);
      const SurfaceGradient<vf> found = surface_gradient(load_sample(a, i, n), by_sigma, by_stretch, s, annealed);
      store_n(a.grad_f + i, found.f, n);
      store_n(a.grad_sharpness + i, found.sharpness, n);
      for (int c = 0; c < 3; ++c) {
        store_n(a.grad_normal + c * a.M + i, found.normal[c], n);
        const vf value = load_n(a.rgb + c * a.M + i, n);
        store_n(a.grad_logits + c * a.M + i, load_n(a.grad_rgb + c * a.M + i, n) * value * (1.0f - value), n);
      }
    });
  });
}
