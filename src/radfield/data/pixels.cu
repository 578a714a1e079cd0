#include "pixels.h"

#include "../cuda/device.h"

namespace radfield {

// A thread is a ray.
__global__ void pixels_sample(const PixelsSample a) {
  const int64_t i = thread_number();
  if (i >= a.N) return;
  const uint32_t seed = a.schedule ? (uint32_t)*a.schedule : (uint32_t)a.seed;
  const uint32_t counter = (uint32_t)i * NUMBERS_PER_RAY;
  const int64_t q = random_below(random_bits(seed, counter), random_bits(seed, counter + 1), a.drawable);
  const int64_t p = pixel_of(a.span_first, a.span_start, a.S, q);
  const int64_t view = view_of(a.offset, a.V, p);
  const uint32_t inside = (uint32_t)(p - a.offset[view]), width = (uint32_t)a.size[2 * view];
  a.view[i] = (int32_t)view;
  a.pixel[i] = (float)(inside % width) + 0.5f;
  a.pixel[a.N + i] = (float)(inside / width) + 0.5f;
  const uint8_t* const rgb = a.images + p * a.C;
  const float alpha = a.C == 4 ? (float)rgb[3] / 255.0f : 1.0f;
  a.alpha[i] = alpha;
  for (int c = 0; c < 3; ++c) {
    const float background = a.fixed ? a.fixed[c * a.B + (a.B == 1 ? 0 : i)]
                                     : unit_float(random_bits(seed, counter + 2 + (uint32_t)c));
    a.background[c * a.N + i] = background;
    a.color[c * a.N + i] = blend((float)rgb[c] / 255.0f, background, alpha);
  }
}

}  // namespace radfield
