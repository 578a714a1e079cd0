// What the loops of both projections share: W Gaussians in and out, and the sums for the camera.
#pragma once
#include "../cpu/lanes.h"
#include "../cpu/parallel.h"
#include "gaussian_projection_backward.h"

namespace radfield {

constexpr int64_t PROJECTION_CHUNK = 2048;  // Gaussians per task

template <int D>
RADFIELD_SIMD void load_rows(const float* stream, int64_t G, int64_t i, int n, vf (&out)[D]) {
  for (int k = 0; k < D; ++k) out[k] = load_n(stream + k * G + i, n);
}
template <int D>
RADFIELD_SIMD void store_rows(float* stream, int64_t G, int64_t i, int n, vi kept, const vf (&values)[D]) {
  for (int k = 0; k < D; ++k) store_n(stream + k * G + i, select(kept, values[k], vf{}), n);
}

template <class Struct>
RADFIELD_SIMD Gaussian<vf> load_gaussians(const Struct& a, int64_t i, int n) {
  Gaussian<vf> g;
  load_rows(a.means, a.G, i, n, g.mean);
  load_rows(a.quaternions, a.G, i, n, g.quaternion);
  load_rows(a.scales, a.G, i, n, g.scale);
  g.opacity = load_n(a.opacities + i, n);
  return g;
}

// Adds what the lanes kept give to the sums of a chunk.
RADFIELD_SIMD void add_camera(const CameraGradient<vf>& g, vi kept, vf (&sums)[GAUSSIAN_CAMERA_GRADIENTS]) {
  for (int k = 0; k < 12; ++k) sums[k] = sums[k] + select(kept, g.pose[k], vf{});
  for (int k = 0; k < 2; ++k) {
    sums[12 + k] = sums[12 + k] + select(kept, g.focal[k], vf{});
    sums[14 + k] = sums[14 + k] + select(kept, g.center[k], vf{});
  }
}

template <class Struct>
RADFIELD_SIMD ProjectedGaussian<vf> load_gradient(const Struct& a, int64_t i, int n) {
  ProjectedGaussian<vf> grad;
  load_rows(a.grad_mean2d, a.G, i, n, grad.mean2d);
  load_rows(a.grad_conic, a.G, i, n, grad.conic);
  grad.depth = load_n(a.grad_depth + i, n), grad.opacity = load_n(a.grad_opacity + i, n);
  return grad;
}

template <class Struct>
RADFIELD_SIMD void store_projected(const Struct& a, int64_t i, int n, vi kept, const ProjectedGaussian<vf>& s, const vf (&radius)[2]) {
  store_rows(a.mean2d, a.G, i, n, kept, s.mean2d);
  store_rows(a.conic, a.G, i, n, kept, s.conic);
  store_rows(a.radius, a.G, i, n, kept, radius);
  store_n(a.depth + i, select(kept, s.depth, vf{}), n);
  store_n(a.opacity + i, select(kept, s.opacity, vf{}), n);
}
template <class Struct>
RADFIELD_SIMD void store_gradient(const Struct& a, int64_t i, int n, vi kept, const Gaussian<vf>& out) {
  store_rows(a.grad_means, a.G, i, n, kept, out.mean);
  store_rows(a.grad_quaternions, a.G, i, n, kept, out.quaternion);
  store_rows(a.grad_scales, a.G, i, n, kept, out.scale);
  store_n(a.grad_opacities + i, select(kept, out.opacity, vf{}), n);
}

// body<WITH_CAMERA>(i, n, camera gradient) for all Gaussians, W at a time, in parts whose camera gradients are summed; it
// answers which lanes count.
template <class Struct, class Body>
void backward_loops(const Struct& a, Body body) {
  if (!a.grad_camera) {
    parallel_blocks(a.G, PROJECTION_CHUNK, [&](int64_t begin, int64_t end) {
      CameraGradient<vf> unused;
      for_lanes(begin, end, [&](int64_t i, int n) RADFIELD_LANES { body.template operator()<false>(i, n, &unused); });
    });
    return;
  }
  parallel_for(a.B, [&](int64_t b) {
    vf sums[GAUSSIAN_CAMERA_GRADIENTS] = {};
    for_lanes(a.G * b / a.B, a.G * (b + 1) / a.B, [&](int64_t i, int n) RADFIELD_LANES {
      CameraGradient<vf> camera;
      const vi kept = body.template operator()<true>(i, n, &camera);
      add_camera(camera, kept, sums);
    });
    for (int k = 0; k < GAUSSIAN_CAMERA_GRADIENTS; ++k) a.grad_camera[GAUSSIAN_CAMERA_GRADIENTS * b + k] = sum(sums[k]);
  });
}

// The same for gradient<WITH_CAMERA>(g, grad, camera gradient) of Gaussians that lie as streams.
template <class Struct, class Gradient>
void backward_parts(const Struct& a, Gradient gradient) {
  backward_loops(a, [&]<bool WITH_CAMERA>(int64_t i, int n, CameraGradient<vf>* camera) RADFIELD_LANES {
    const vi kept = load_n(a.radius + i, n) > 0.0f;
    store_gradient(a, i, n, kept, gradient.template operator()<WITH_CAMERA>(load_gaussians(a, i, n), load_gradient(a, i, n), camera));
    return kept;
  });
}

}  // namespace radfield
