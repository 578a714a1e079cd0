#include "neus_alpha.h"

#include "../cpu/lanes.h"
#include "../cpu/parallel.h"

using namespace radfield;

namespace {

constexpr int64_t BLOCK = 4096;  // samples per task

RADFIELD_SIMD void load_three(vf (&v)[3], const float* streams, int64_t M, int64_t i, int n) {
  for (int k = 0; k < 3; ++k) v[k] = load_n(streams + k * M + i, n);
}
RADFIELD_SIMD vf inner(const vf (&a)[3], const vf (&b)[3]) { return fma(a[2], b[2], fma(a[1], b[1], a[0] * b[0])); }

template <class Args>
RADFIELD_SIMD vf interval(const Args& a, int64_t i, int n) {
  return max(load_n(a.t_end + i, n) - load_n(a.t_start + i, n), vf{} + 1e-20f);
}

}  // namespace

RADFIELD_OP(neus_alpha_forward, NeusAlphaForward) {
  const float s = (float)a.sharpness, annealed = (float)a.annealed;
  parallel_blocks(a.M, BLOCK, [&](int64_t begin, int64_t end) {
    for_lanes(begin, end, [&](int64_t i, int n) RADFIELD_LANES {
      vf normal[3], d[3], logits[3];
      load_three(normal, a.normal, a.M, i, n), load_three(d, a.directions, a.M, i, n);
      load_three(logits, a.logits, a.M, i, n);
      const vf dt = interval(a, i, n), k = descent(inner(d, normal), annealed).k;
      store_n(a.sigma + i, optical_depth(load_n(a.f + i, n), k, dt, s).tau / dt, n);
      for (int c = 0; c < 3; ++c) store_n(a.rgb + c * a.M + i, sigmoid(logits[c]), n);
      const vf off = sqrt(inner(normal, normal)) - 1.0f;
      store_n(a.stretch + i, off * off, n);
    });
  });
}

RADFIELD_OP(neus_alpha_backward, NeusAlphaBackward) {
  const float s = (float)a.sharpness, annealed = (float)a.annealed, weight = (float)a.stretch_weight;
  parallel_blocks(a.M, BLOCK, [&](int64_t begin, int64_t end) {
    for_lanes(begin, end, [&](int64_t i, int n) RADFIELD_LANES {
      vf normal[3], d[3];
      load_three(normal, a.normal, a.M, i, n), load_three(d, a.directions, a.M, i, n);
      const vf dt = interval(a, i, n), g = load_n(a.grad_sigma + i, n) / dt;  // by tau
      const Descent<vf> down = descent(inner(d, normal), annealed);
      const OpticalDepth<vf> depth = optical_depth(load_n(a.f + i, n), down.k, dt, s);
      store_n(a.grad_f + i, g * depth.df, n);
      store_n(a.grad_sharpness + i, g * depth.ds, n);
      const vf by_cosine = g * depth.dk * down.dk, length = sqrt(inner(normal, normal));
      const vf by_stretch = a.grad_stretch ? load_n(a.grad_stretch + i, n) : vf{} + weight;
      // d (|n| - 1)^2 / d n; at n = 0, where it has none, 0
      const vf radial = select(length > 0.0f, by_stretch * 2.0f * (length - 1.0f) / max(length, vf{} + 1e-30f), vf{});
      for (int c = 0; c < 3; ++c) {
        store_n(a.grad_normal + c * a.M + i, fma(by_cosine, d[c], radial * normal[c]), n);
        const vf value = load_n(a.rgb + c * a.M + i, n);
        store_n(a.grad_logits + c * a.M + i, load_n(a.grad_rgb + c * a.M + i, n) * value * (1.0f - value), n);
      }
    });
  });
}
