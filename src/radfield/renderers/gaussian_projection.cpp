// Loops of the projection: W Gaussians at a time.
#include "gaussian_projection_lanes.h"

using namespace radfield;

RADFIELD_OP(gaussian_project_forward, GaussianProjectForward) {
  const GaussianCamera camera = gaussian_camera(a);
  parallel_blocks(a.G, PROJECTION_CHUNK, [&](int64_t begin, int64_t end) {
    for_lanes(begin, end, [&](int64_t i, int n) RADFIELD_LANES {
      const Gaussian<vf> g = load_gaussians(a, i, n);
      const Projection<vf> p = projection(camera, g);
      const ProjectedGaussian<vf> s = projected(camera, g, p);
      vf radius[2];
      box_radius(p, s.opacity, radius);
      store_projected(a, i, n, is_drawn(camera, g, s, radius), s, radius);
    });
  });
}

RADFIELD_OP(gaussian_project_backward, GaussianProjectBackward) {
  const GaussianCamera camera = gaussian_camera(a);
  backward_parts(a, [&]<bool WITH_CAMERA>(const Gaussian<vf>& g, const ProjectedGaussian<vf>& grad, CameraGradient<vf>* sum) RADFIELD_LANES {
    return projection_gradient<WITH_CAMERA>(camera, g, projection(camera, g), grad, sum);
  });
}
