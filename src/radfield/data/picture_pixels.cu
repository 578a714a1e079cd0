#include "picture_pixels.h"

#include "../cuda/device.h"

namespace radfield {

// A thread is a pixel.
template <class T>
__global__ void picture_pixels(const PicturePixels a) {
  const int64_t i = thread_number();
  if (i < a.M) draw_pixel<T>(a, a.schedule ? (uint32_t)*a.schedule : (uint32_t)a.seed, i);
}

}  // namespace radfield
