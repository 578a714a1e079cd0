// Random pixels of random views, for training. Letters: N rays, V views, P pixels of all images, C channels (3, or 4
// with straight alpha), B backgrounds (1 or N), S spans of pixels that count (0: all do).
#pragma once
#include "../sampling/random.h"

namespace radfield {

struct PixelsSample {
  int32_t* view;
  float* pixel;
  float* color;
  float* alpha;
  float* background;
  const uint8_t* images;
  const int64_t* offset;
  const int64_t* size;
  const float* fixed;
  const int64_t* span_first;
  const int64_t* span_start;
  const double* schedule;
  int64_t seed;
  int64_t drawable;
  int64_t N, P, C, V, B, S;
};

// Random numbers per ray: two for the pixel, three for the background.
constexpr uint32_t NUMBERS_PER_RAY = 5;

// A whole number below n < 2^31 from 64 random bits: with 32, some of 10^9 pixels would be met twice as often.
RADFIELD_FN int64_t random_below(uint32_t high, uint32_t low, int64_t n) {
  return (int64_t)(((uint64_t)high * (uint64_t)n + ((uint64_t)low * (uint64_t)n >> 32)) >> 32);
}

// The last view that starts at p or before; `offset` is rising.
RADFIELD_FN int64_t view_of(const int64_t* offset, int64_t views, int64_t p) {
  int64_t low = 0;
  for (int64_t n = views; n > 1;) {
    const int64_t half = n / 2;
    low += offset[low + half] <= p ? half : 0;
    n -= half;
  }
  return low;
}

// The pixel that is the q-th of those that count. An empty span has the start of the next, which is then the last.
RADFIELD_FN int64_t pixel_of(const int64_t* span_first, const int64_t* span_start, int64_t spans, int64_t q) {
  if (!spans) return q;
  const int64_t span = view_of(span_start, spans, q);
  return span_first[span] + q - span_start[span];
}

RADFIELD_FN float blend(float color, float background, float alpha) {
  return color * alpha + background * (1.0f - alpha);
}

}  // namespace radfield
