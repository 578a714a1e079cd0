// What the CUDA kernels of the projections share: one Gaussian in and out, and the sums for the camera. Gaussians that lie
// as rows have `load_gaussian` and `store_gradient` of their own (gaussian_projection_rows.cu).
#pragma once
#include "../cuda/device.h"
#include "gaussian_projection_backward.h"

namespace radfield {

template <int D>
RADFIELD_FN void load_rows(const float* stream, int64_t G, int64_t i, float (&out)[D]) {
  for (int k = 0; k < D; ++k) out[k] = stream[k * G + i];
}
template <int D>
RADFIELD_FN void store_rows(float* stream, int64_t G, int64_t i, bool kept, const float (&values)[D]) {
  for (int k = 0; k < D; ++k) stream[k * G + i] = kept ? values[k] : 0.0f;
}

template <class Struct>
RADFIELD_FN Gaussian<float> load_gaussian(const Struct& a, int64_t i) {
  Gaussian<float> g;
  load_rows(a.means, a.G, i, g.mean);
  load_rows(a.quaternions, a.G, i, g.quaternion);
  load_rows(a.scales, a.G, i, g.scale);
  g.opacity = a.opacities[i];
  return g;
}

template <class Struct>
RADFIELD_FN void store_projected(const Struct& a, int64_t i, bool kept, const ProjectedGaussian<float>& s,
                                 const float (&radius)[2]) {
  store_rows(a.mean2d, a.G, i, kept, s.mean2d);
  store_rows(a.conic, a.G, i, kept, s.conic);
  store_rows(a.radius, a.G, i, kept, radius);
  a.depth[i] = kept ? s.depth : 0.0f;
  a.opacity[i] = kept ? s.opacity : 0.0f;
}

template <class Struct>
RADFIELD_FN void store_gradient(const Struct& a, int64_t i, const Gaussian<float>& out) {
  store_rows(a.grad_means, a.G, i, true, out.mean);
  store_rows(a.grad_quaternions, a.G, i, true, out.quaternion);
  store_rows(a.grad_scales, a.G, i, true, out.scale);
  a.grad_opacities[i] = out.opacity;
}

// The gradient of Gaussian i; adds what it gives to the camera to the sums of this thread.
template <bool WITH_CAMERA, class Struct, class Gradient>
RADFIELD_FN void backward_gaussian(const Struct& a, int64_t i, Gradient gradient, float (&sums)[GAUSSIAN_CAMERA_GRADIENTS]) {
  const bool kept = a.radius[i] > 0.0f;
  Gaussian<float> out = {};
  if (kept) {
    ProjectedGaussian<float> grad;
    load_rows(a.grad_mean2d, a.G, i, grad.mean2d);
    load_rows(a.grad_conic, a.G, i, grad.conic);
    grad.depth = a.grad_depth[i], grad.opacity = a.grad_opacity[i];
    CameraGradient<float> camera;
    out = gradient(load_gaussian(a, i), grad, &camera);
    for (int k = 0; k < 12 && WITH_CAMERA; ++k) sums[k] = sums[k] + camera.pose[k];
    for (int k = 0; k < 2 && WITH_CAMERA; ++k)
      sums[12 + k] = sums[12 + k] + camera.focal[k], sums[14 + k] = sums[14 + k] + camera.center[k];
  }
  store_gradient(a, i, out);
}

// gradient(g, grad, camera gradient) for all Gaussians. With the camera's gradients a block is one of the B parts, whose
// sums have a fixed order; without, a thread is a Gaussian.
template <bool WITH_CAMERA, class Struct, class Gradient>
RADFIELD_FN void backward_part(const Struct& a, Gradient gradient) {
  float sums[GAUSSIAN_CAMERA_GRADIENTS] = {};
  if (!WITH_CAMERA) {
    const int64_t i = thread_number();
    if (i < a.G) backward_gaussian<WITH_CAMERA>(a, i, gradient, sums);
    return;
  }
  const int64_t b = blockIdx.x, end = a.G * (b + 1) / a.B;
  for (int64_t i = a.G * b / a.B + threadIdx.x; i < end; i += blockDim.x)
    backward_gaussian<WITH_CAMERA>(a, i, gradient, sums);
  for (int k = 0; k < GAUSSIAN_CAMERA_GRADIENTS; ++k) {
    const float sum = block_sum(sums[k]);
    if (threadIdx.x == 0) a.grad_camera[GAUSSIAN_CAMERA_GRADIENTS * b + k] = sum;
  }
}

// By a perspective lens: the Gaussian of this thread, and its gradient.
template <class Struct>
RADFIELD_FN void project_gaussian(const Struct& a) {
  const int64_t i = thread_number();
  if (i >= a.G) return;
  const GaussianCamera camera = gaussian_camera(a);
  const Gaussian<float> g = load_gaussian(a, i);
  const Projection<float> p = projection(camera, g);
  const ProjectedGaussian<float> s = projected(camera, g, p);
  float radius[2];
  box_radius(p, s.opacity, radius);
  store_projected(a, i, is_drawn(camera, g, s, radius), s, radius);
}
template <bool WITH_CAMERA, class Struct>
RADFIELD_FN void project_gaussian_backward(const Struct& a) {
  const GaussianCamera camera = gaussian_camera(a);
  backward_part<WITH_CAMERA>(a, [&](const Gaussian<float>& g, const ProjectedGaussian<float>& grad, CameraGradient<float>* sum) {
    return projection_gradient<WITH_CAMERA>(camera, g, projection(camera, g), grad, sum);
  });
}

}  // namespace radfield
