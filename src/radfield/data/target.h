// A photograph as a training target (target.py has the equations): the maths of one cell.
#pragma once
#include "../maths.h"

namespace radfield {

struct TargetImage {
  float* target;
  uint8_t* kept;
  const uint8_t* pixels;
  const uint8_t* mask;
  const float* background;
  int64_t h, w, H, W, C;
};

// The pixels of cell (x, y).
struct TargetCell {
  int64_t left, right, top, bottom;
};
RADFIELD_FN TargetCell target_cell(const TargetImage& a, int64_t x, int64_t y) {
  return {x * a.W / a.w, ((x + 1) * a.W + a.w - 1) / a.w, y * a.H / a.h, ((y + 1) * a.H + a.h - 1) / a.h};
}

// Sums of the kept pixels of a cell: colour times alpha, alpha, and their number.
struct TargetSums {
  float color[3], alpha, count;
};

// Adds the pixel p of C channels.
template <int C>
RADFIELD_FN void target_add(const uint8_t* p, TargetSums& s) {
  const float alpha = C == 4 ? (float)p[C - 1] * (1.0f / 255.0f) : 1.0f;
  for (int c = 0; c < 3; ++c) s.color[c] = fma((float)p[c] * (1.0f / 255.0f), alpha, s.color[c]);
  s.alpha += alpha, s.count += 1.0f;
}

// The mean over the cell; the background's colour where nothing is kept.
RADFIELD_FN void target_store(const TargetImage& a, int64_t i, const TargetSums& s) {
  const bool any = s.count > 0.0f;
  const float part = 1.0f / s.count;
  for (int c = 0; c < 3; ++c) {
    const float sum = fma(a.background[c], s.count - s.alpha, s.color[c]);
    a.target[3 * i + c] = any ? sum * part : a.background[c];
  }
  if (a.kept) a.kept[i] = any;
}

}  // namespace radfield
