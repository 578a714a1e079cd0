// Pixels drawn from a picture (picture_pixels.py has the equations): the maths of one of them.
#pragma once
#include "../sampling/random.h"

namespace radfield {

struct PicturePixels {
  float* x;
  float* target;
  const void* values;
  int64_t values_type;
  const double* schedule;
  int64_t width;
  int64_t height;
  int64_t across;
  int64_t down;
  int64_t whole_rows;
  int64_t seed;
  double scale;
  int64_t M, C, P;
};

// A number of the cell i of n along a side of N pixels, by random bits.
RADFIELD_FN int64_t in_cell(int64_t i, int64_t n, int64_t N, uint32_t bits) {
  const int64_t at = (int64_t)(((double)i + (double)unit_float(bits)) * ((double)N / (double)n));
  return at < N ? at : N - 1;
}

// Pixel i of those drawn with this seed. T: the type of the picture's values.
template <class T>
RADFIELD_FN void draw_pixel(const PicturePixels& a, uint32_t seed, int64_t i) {
  const int64_t column = i % a.across, row = i / a.across;
  const int64_t x = in_cell(column, a.across, a.width, random_bits(seed, (uint32_t)(2 * i)));
  const int64_t y = in_cell(row, a.down, a.height, random_bits(seed, (uint32_t)(2 * (a.whole_rows ? row : i) + 1)));
  const float longer = (float)(a.width > a.height ? a.width : a.height);
  a.x[i] = ((float)x + 0.5f) / longer;
  a.x[a.M + i] = ((float)y + 0.5f) / longer;
  const T* const value = (const T*)a.values + (y * a.width + x) * a.C;
  for (int64_t c = 0; c < a.C; ++c) a.target[c * a.M + i] = (float)value[c] * (float)a.scale;
}

}  // namespace radfield
