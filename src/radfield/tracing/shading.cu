// A thread is a point, or a direction.
#include "shading.h"

#include "../cuda/device.h"

namespace radfield {

__global__ void shade(const Shade a) {
  const int64_t i = thread_number();
  if (i >= a.N) return;
  const float* const gloss = a.gloss + 3 * (int64_t)a.index[i];
  float albedo[3], normal[3], d[3], color[3];
  for (int c = 0; c < 3; ++c) {
    const int64_t at = c * a.N + i;
    albedo[c] = a.albedo[at], normal[c] = a.normal[at], d[c] = a.directions[at];
  }
  shade_point(a.light, albedo, normal, d, a.visible[i], gloss[0], gloss[1], gloss[2], color);
  for (int c = 0; c < 3; ++c) a.color[c * a.N + i] = color[c];
}

__global__ void sky(const Sky a) {
  const int64_t i = thread_number();
  if (i >= a.N) return;
  const float z = a.directions[2 * a.N + i];
  for (int c = 0; c < 3; ++c) a.color[c * a.N + i] = encode_srgb(sky_light(a.light, c, z));
}

}  // namespace radfield
