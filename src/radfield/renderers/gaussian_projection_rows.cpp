// The loops of gaussian_projection_lanes.h, with other ways in and out.
#include "gaussian_projection_rows.h"

#include "../cpu/rows.h"
#include "gaussian_projection_lanes.h"

using namespace radfield;

namespace {

template <class Args>
RADFIELD_SIMD Gaussian<vf> load_gaussians(const Args& a, const RowsOf& row) {
  Gaussian<vf> g;
  vf opacity[1];
  load_columns(a.means, row, g.mean);
  load_columns(a.quaternions, row, g.quaternion);
  load_columns(a.scales, row, g.scale);
  load_columns(a.opacities, row, opacity);
  g.opacity = opacity[0];
  return g;
}

RADFIELD_SIMD void store_gradient(const GaussianProjectRowsBackward& a, const RowsOf& row, vi kept, const Gaussian<vf>& out) {
  const vf opacity[1] = {out.opacity};
  store_columns(a.grad_means, row, kept, out.mean);
  store_columns(a.grad_quaternions, row, kept, out.quaternion);
  store_columns(a.grad_scales, row, kept, out.scale);
  store_columns(a.grad_opacities, row, kept, opacity);
  clear_between(row, a.G, a.N, [&](int64_t first, int64_t end) {
    const size_t bytes = 4 * (size_t)(end - first);
    memset(a.grad_means + 3 * first, 0, 3 * bytes);
    memset(a.grad_quaternions + 4 * first, 0, 4 * bytes);
    memset(a.grad_scales + 3 * first, 0, 3 * bytes);
    memset(a.grad_opacities + first, 0, bytes);
  });
}

}  // namespace

RADFIELD_OP(gaussian_project_rows_forward, GaussianProjectRowsForward) {
  const GaussianCamera camera = gaussian_camera(a);
  parallel_blocks(a.G, PROJECTION_CHUNK, [&](int64_t begin, int64_t end) {
    for_lanes(begin, end, [&](int64_t i, int n) RADFIELD_LANES {
      const Gaussian<vf> g = load_gaussians(a, {nullptr, i, n});
      const Projection<vf> p = projection(camera, g);
      const ProjectedGaussian<vf> s = projected(camera, g, p);
      vf radius[2];
      box_radius(p, s.opacity, radius);
      store_projected(a, i, n, is_drawn(camera, g, s, radius), s, radius);
    });
  });
}

RADFIELD_OP(gaussian_project_rows_backward, GaussianProjectRowsBackward) {
  const GaussianCamera c = gaussian_camera(a);
  backward_loops(a, [&]<bool WITH_CAMERA>(int64_t i, int n, CameraGradient<vf>* camera) RADFIELD_LANES {
    const vi kept = load_n(a.radius + i, n) > 0.0f;
    const RowsOf row = {a.rows, i, n};
    const Gaussian<vf> g = load_gaussians(a, row);
    store_gradient(a, row, kept, projection_gradient<WITH_CAMERA>(c, g, projection(c, g), load_gradient(a, i, n), camera));
    return kept;
  });
}
