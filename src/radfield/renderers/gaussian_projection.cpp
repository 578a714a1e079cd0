// Loops of the projection: W Gaussians at a time.
#include "gaussian_projection.h"

#include "../cpu/lanes.h"
#include "../cpu/parallel.h"

using namespace radfield;

namespace {

constexpr int64_t CHUNK = 2048;  // Gaussians per task

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

template <bool WITH_CAMERA>
void backward_chunk(const GaussianProjectBackward& a, const GaussianCamera& camera, int64_t begin, int64_t end, float* row) {
  vf sums[GAUSSIAN_CAMERA_GRADIENTS] = {};
  for_lanes(begin, end, [&](int64_t i, int n) RADFIELD_LANES {
    const Gaussian<vf> g = load_gaussians(a, i, n);
    ProjectedGaussian<vf> grad;
    load_rows(a.grad_mean2d, a.G, i, n, grad.mean2d);
    load_rows(a.grad_conic, a.G, i, n, grad.conic);
    grad.depth = load_n(a.grad_depth + i, n), grad.opacity = load_n(a.grad_opacity + i, n);
    const vi kept = load_n(a.radius + i, n) > 0.0f;
    CameraGradient<vf> of_camera;
    const Gaussian<vf> out = projection_gradient<WITH_CAMERA>(camera, g, projection(camera, g), grad, &of_camera);
    if constexpr (WITH_CAMERA) add_camera(of_camera, kept, sums);
    store_rows(a.grad_means, a.G, i, n, kept, out.mean);
    store_rows(a.grad_quaternions, a.G, i, n, kept, out.quaternion);
    store_rows(a.grad_scales, a.G, i, n, kept, out.scale);
    store_n(a.grad_opacities + i, select(kept, out.opacity, vf{}), n);
  });
  if constexpr (WITH_CAMERA)
    for (int k = 0; k < GAUSSIAN_CAMERA_GRADIENTS; ++k) row[k] = sum(sums[k]);
}

}  // namespace

RADFIELD_OP(gaussian_project_forward, GaussianProjectForward) {
  const GaussianCamera camera = gaussian_camera(a);
  parallel_blocks(a.G, CHUNK, [&](int64_t begin, int64_t end) {
    for_lanes(begin, end, [&](int64_t i, int n) RADFIELD_LANES {
      const Gaussian<vf> g = load_gaussians(a, i, n);
      const Projection<vf> p = projection(camera, g);
      const ProjectedGaussian<vf> s = projected(camera, g, p);
      vf radius[2];
      box_radius(p, s.opacity, radius);
      const vi kept = is_drawn(camera, g, s, radius);
      store_rows(a.mean2d, a.G, i, n, kept, s.mean2d);
      store_rows(a.conic, a.G, i, n, kept, s.conic);
      store_rows(a.radius, a.G, i, n, kept, radius);
      store_n(a.depth + i, select(kept, s.depth, vf{}), n);
      store_n(a.opacity + i, select(kept, s.opacity, vf{}), n);
    });
  });
}

RADFIELD_OP(gaussian_project_backward, GaussianProjectBackward) {
  const GaussianCamera camera = gaussian_camera(a);
  if (!a.grad_camera) {
    parallel_blocks(a.G, CHUNK, [&](int64_t begin, int64_t end) { backward_chunk<false>(a, camera, begin, end, nullptr); });
    return;
  }
  parallel_for(a.B, [&](int64_t b) {
    backward_chunk<true>(a, camera, a.G * b / a.B, a.G * (b + 1) / a.B, a.grad_camera + GAUSSIAN_CAMERA_GRADIENTS * b);
  });
}
