#include "camera_rays.h"

#include "cuda/device.h"

namespace radfield {

// A thread is a ray.
template <int MODEL, bool DISTORTED>
__global__ void camera_rays(const CameraRays a) {
  const int64_t i = thread_number();
  if (i >= a.N) return;
  const int64_t view = a.view[i];
  const float *const principal = a.principal + 2 * view, *const focal = a.focal + 2 * view;
  const float u = (a.pixel[i] - principal[0]) / focal[0], v = (a.pixel[a.N + i] - principal[1]) / focal[1];
  Lens<float> lens = {};
  if (DISTORTED) {
    const float* const k = a.distortion + DISTORTION * view;
    lens = {k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7], k[8]};
  }
  float d[3];
  lens_direction(MODEL == MIXED ? (int64_t)a.models[view] : (int64_t)MODEL, lens, DISTORTED, u, v, d);
  const float* const pose = a.camera_to_world + 16 * view;
  for (int row = 0; row < 3; ++row) {
    const float* const m = pose + 4 * row;
    a.directions[row * a.N + i] = m[0] * d[0] + m[1] * d[1] + m[2] * d[2];
    a.origins[row * a.N + i] = m[3];
  }
}

}  // namespace radfield
