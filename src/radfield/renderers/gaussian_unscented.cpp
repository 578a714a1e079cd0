// Loops of the projection by sigma points: W Gaussians at a time.
#include "gaussian_unscented.h"

#include "gaussian_projection_lanes.h"

using namespace radfield;

RADFIELD_OP(gaussian_unscented_forward, GaussianUnscentedForward) {
  const GaussianCamera camera = gaussian_camera(a);
  const GaussianLens lens = gaussian_lens(a);
  parallel_blocks(a.G, PROJECTION_CHUNK, [&](int64_t begin, int64_t end) {
    for_lanes(begin, end, [&](int64_t i, int n) RADFIELD_LANES {
      const Gaussian<vf> g = load_gaussians(a, i, n);
      Projection<vf> p;
      place(camera, g, p);
      const SigmaPoints<vf> points = sigma_points(camera, lens, p);
      ProjectedGaussian<vf> s;
      unscented(camera, g, points, p, s);
      vf radius[2];
      box_radius(p, s.opacity, radius);
      const vi kept = is_drawn(camera, g, s, radius) & (points.nearest >= camera.near) & (points.near_image > 0.0f);
      store_projected(a, i, n, kept, s, radius);
    });
  });
}

RADFIELD_OP(gaussian_unscented_backward, GaussianUnscentedBackward) {
  const GaussianCamera camera = gaussian_camera(a);
  const GaussianLens lens = gaussian_lens(a);
  backward_parts(a, [&]<bool WITH_CAMERA>(const Gaussian<vf>& g, const ProjectedGaussian<vf>& grad, CameraGradient<vf>* sum) RADFIELD_LANES {
    return unscented_gradient<WITH_CAMERA>(camera, lens, g, grad, sum);
  });
}
