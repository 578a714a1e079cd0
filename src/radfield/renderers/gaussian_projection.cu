// A thread is a Gaussian; as gaussian_projection.cpp.
#include "gaussian_projection_device.h"

namespace radfield {

__global__ void gaussian_project_forward(const GaussianProjectForward a) {
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

template <bool WITH_CAMERA>
__global__ void gaussian_project_backward(const GaussianProjectBackward a) {
  const GaussianCamera camera = gaussian_camera(a);
  backward_part<WITH_CAMERA>(a, [&](const Gaussian<float>& g, const ProjectedGaussian<float>& grad, CameraGradient<float>* sum) {
    return projection_gradient<WITH_CAMERA>(camera, g, projection(camera, g), grad, sum);
  });
}

}  // namespace radfield
