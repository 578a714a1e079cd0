// Loops of the training target: rows of cells over threads. A cell's pixels are added row by row.
#include "target.h"

#include "../cpu/parallel.h"

using namespace radfield;

namespace {

constexpr int64_t ROWS = 16;  // of cells per task

// Pixels begin .. end - 1 of a photograph that keeps its size, all of them kept.
template <int C>
void target_pixels(const TargetImage& a, int64_t begin, int64_t end) {
  const float b[3] = {a.background[0], a.background[1], a.background[2]};
  for (int64_t i = begin; i < end; ++i) {
    TargetSums sums = {};
    target_add<C>(a.pixels + i * C, sums);
    for (int c = 0; c < 3; ++c) a.target[3 * i + c] = fma(b[c], 1.0f - sums.alpha, sums.color[c]);
  }
}

template <int C>
void target_rows(const TargetImage& a, int64_t begin, int64_t end) {
  if (!a.mask && a.h == a.H && a.w == a.W) return target_pixels<C>(a, begin * a.w, end * a.w);
  for (int64_t y = begin; y < end; ++y) {
    for (int64_t x = 0; x < a.w; ++x) {
      const TargetCell cell = target_cell(a, x, y);
      TargetSums sums = {};
      for (int64_t row = cell.top; row < cell.bottom; ++row)
        for (int64_t column = cell.left; column < cell.right; ++column) {
          const int64_t i = row * a.W + column;
          if (!a.mask || a.mask[i]) target_add<C>(a.pixels + i * C, sums);
        }
      target_store(a, y * a.w + x, sums);
    }
  }
}

}  // namespace

RADFIELD_OP(target_image, TargetImage) {
  parallel_blocks(a.h, ROWS, [&](int64_t begin, int64_t end) {
    if (a.C == 4) target_rows<4>(a, begin, end);
    else target_rows<3>(a, begin, end);
  });
}
