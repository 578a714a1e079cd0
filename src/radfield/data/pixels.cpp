#include "pixels.h"

#include "../cpu/parallel.h"

using namespace radfield;

constexpr int BLOCK = 128;  // rays per task: all their pixels are on the way from memory before the first is used

static void write_color(const PixelsSample& a, int64_t i, const uint8_t* rgb, uint32_t seed) {
  const float alpha = a.C == 4 ? (float)rgb[3] / 255.0f : 1.0f;
  a.alpha[i] = alpha;
  for (int c = 0; c < 3; ++c) {
    const float background = a.fixed ? a.fixed[c * a.B + (a.B == 1 ? 0 : i)]
                                     : unit_float(random_bits(seed, (uint32_t)i * NUMBERS_PER_RAY + 2 + (uint32_t)c));
    a.background[c * a.N + i] = background;
    a.color[c * a.N + i] = blend((float)rgb[c] / 255.0f, background, alpha);
  }
}

RADFIELD_OP(pixels_sample, PixelsSample) {
  const uint32_t seed = (uint32_t)a.seed;
  parallel_blocks(a.N, BLOCK, [&](int64_t begin, int64_t end) {
    const uint8_t* found[BLOCK];
    for (int64_t i = begin; i < end; ++i) {
      const uint32_t counter = (uint32_t)i * NUMBERS_PER_RAY;
      const int64_t q = random_below(random_bits(seed, counter), random_bits(seed, counter + 1), a.drawable);
      const int64_t p = pixel_of(a.span_first, a.span_start, a.S, q);
      found[i - begin] = a.images + p * a.C;
      __builtin_prefetch(found[i - begin]);
      const int64_t view = view_of(a.offset, a.V, p);
      const uint32_t inside = (uint32_t)(p - a.offset[view]), width = (uint32_t)a.size[2 * view];
      a.view[i] = (int32_t)view;
      a.pixel[i] = (float)(inside % width) + 0.5f;
      a.pixel[a.N + i] = (float)(inside / width) + 0.5f;
    }
    for (int64_t i = begin; i < end; ++i) write_color(a, i, found[i - begin], seed);
  });
}
