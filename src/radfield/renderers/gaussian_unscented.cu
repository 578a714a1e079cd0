// A thread is a Gaussian; as gaussian_unscented.cpp.
#include "gaussian_projection_device.h"
#include "gaussian_unscented.h"

namespace radfield {

__global__ void gaussian_unscented_forward(const GaussianUnscentedForward a) {
  const int64_t i = thread_number();
  if (i >= a.G) return;
  const GaussianCamera camera = gaussian_camera(a);
  const GaussianLens lens = gaussian_lens(a);
  const Gaussian<float> g = load_gaussian(a, i);
  Projection<float> p;
  place(camera, g, p);
  const SigmaPoints<float> points = sigma_points(camera, lens, p);
  ProjectedGaussian<float> s;
  unscented(camera, g, points, p, s);
  float radius[2];
  box_radius(p, s.opacity, radius);
  const bool kept = is_drawn(camera, g, s, radius) & (points.nearest >= camera.near) & (points.near_image > 0.0f);
  store_projected(a, i, kept, s, radius);
}

template <bool WITH_CAMERA>
__global__ void gaussian_unscented_backward(const GaussianUnscentedBackward a) {
  const GaussianCamera camera = gaussian_camera(a);
  const GaussianLens lens = gaussian_lens(a);
  backward_part<WITH_CAMERA>(a, [&](const Gaussian<float>& g, const ProjectedGaussian<float>& grad, CameraGradient<float>* sum) {
    return unscented_gradient<WITH_CAMERA>(camera, lens, g, grad, sum);
  });
}

}  // namespace radfield
