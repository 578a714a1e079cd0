// A thread is a point.
#include "texture.h"

#include "../cuda/device.h"

namespace radfield {

__global__ void texture(const Texture a) {
  const int64_t i = thread_number();
  if (i >= a.N) return;
  const int32_t q = a.index[i];
  float x[3], color[3] = {};
  for (int c = 0; c < 3; ++c) x[c] = a.x[c * a.N + i];
  if (q >= 0 && q < (int32_t)a.Q)
    surface_color(a.pattern[q], a.values + 9 * (int64_t)q, a.placement + 12 * (int64_t)q, x, a.width[i], color);
  for (int c = 0; c < 3; ++c) a.color[c * a.N + i] = color[c];
}

}  // namespace radfield
