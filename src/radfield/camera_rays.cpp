#include "camera_rays.h"

#include "cpu/parallel.h"

using namespace radfield;

constexpr int64_t BLOCK = 1024;  // rays per task

RADFIELD_OP(camera_rays, CameraRays) {
  parallel_blocks(a.N, BLOCK, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += W) {
      const int n = (int)(end - i < W ? end - i : W);
      const vi view = load_n(a.view + i, n), pose = view * 16, two = view * 2, six = view * 6;
      const vf u = (load_n(a.pixel + i, n) - gather(a.principal, two)) / gather(a.focal, two);
      const vf v = (load_n(a.pixel + a.N + i, n) - gather(a.principal, two + 1)) / gather(a.focal, two + 1);
      Lens<vf> lens = {};
      if (a.distorted)
        lens = {gather(a.distortion, six),     gather(a.distortion, six + 1), gather(a.distortion, six + 2),
                gather(a.distortion, six + 3), gather(a.distortion, six + 4), gather(a.distortion, six + 5)};
      vf d[3];
      if (a.fisheye)
        fisheye_direction(lens, u, v, d);
      else
        perspective_direction(lens, a.distorted, u, v, d);
      for (int row = 0; row < 3; ++row) {
        const float* m = a.camera_to_world + 4 * row;
        const vf turned = gather(m, pose) * d[0] + gather(m + 1, pose) * d[1] + gather(m + 2, pose) * d[2];
        store_n(a.directions + row * a.N + i, turned, n);
        store_n(a.origins + row * a.N + i, gather(m + 3, pose), n);
      }
    }
  });
}
