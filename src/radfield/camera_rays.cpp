#include "camera_rays.h"

#include "cpu/parallel.h"

using namespace radfield;

constexpr int64_t BLOCK = 1024;  // rays per task

namespace {

// Each lane by the model of its view.
RADFIELD_SIMD void mixed_direction(vi models, const Lens<vf>& lens, bool distorted, vf u, vf v, vf* d) {
  for (int64_t model = 0; model < MIXED; ++model) {
    const vi chosen = models == (int)model;
    if (!any(chosen)) continue;
    vf each[3];
    lens_direction(model, lens, distorted, u, v, each);
    for (int axis = 0; axis < 3; ++axis) d[axis] = select(chosen, each[axis], d[axis]);
  }
}

}  // namespace

RADFIELD_OP(camera_rays, CameraRays) {
  parallel_blocks(a.N, BLOCK, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += W) {
      const int n = (int)(end - i < W ? end - i : W);
      const vi view = load_n(a.view + i, n), pose = view * 16, two = view * 2, row_of = view * DISTORTION;
      const vf u = (load_n(a.pixel + i, n) - gather(a.principal, two)) / gather(a.focal, two);
      const vf v = (load_n(a.pixel + a.N + i, n) - gather(a.principal, two + 1)) / gather(a.focal, two + 1);
      Lens<vf> lens = {};
      if (a.distorted) {
        const float* k = a.distortion;
        lens = {gather(k, row_of),     gather(k + 1, row_of), gather(k + 2, row_of),
                gather(k + 3, row_of), gather(k + 4, row_of), gather(k + 5, row_of),
                gather(k + 6, row_of), gather(k + 7, row_of), gather(k + 8, row_of)};
      }
      vf d[3] = {};
      if (a.model == MIXED)
        mixed_direction(gather(a.models, view), lens, a.distorted, u, v, d);
      else
        lens_direction(a.model, lens, a.distorted, u, v, d);
      for (int row = 0; row < 3; ++row) {
        const float* m = a.camera_to_world + 4 * row;
        const vf turned = gather(m, pose) * d[0] + gather(m + 1, pose) * d[1] + gather(m + 2, pose) * d[2];
        store_n(a.directions + row * a.N + i, turned, n);
        store_n(a.origins + row * a.N + i, gather(m + 3, pose), n);
      }
    }
  });
}
