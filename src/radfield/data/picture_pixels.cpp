// Loops of the pixels drawn from a picture: blocks of them over threads.
#include "picture_pixels.h"

#include "../cpu/parallel.h"

using namespace radfield;

namespace {

constexpr int64_t PIXELS = 1 << 12;  // per task

template <class T>
void draw(const PicturePixels& a) {
  parallel_blocks(a.M, PIXELS, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) draw_pixel<T>(a, (uint32_t)a.seed, i);
  });
}

}  // namespace

RADFIELD_OP(picture_pixels, PicturePixels) {
  if (a.values_type == U8) draw<uint8_t>(a);
  else if (a.values_type == U16) draw<uint16_t>(a);
  else draw<float>(a);
}
