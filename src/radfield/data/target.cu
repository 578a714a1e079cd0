// A thread is a cell; as target.cpp.
#include "target.h"

#include "../cuda/device.h"

namespace radfield {

template <int C>
__global__ void target_image(const TargetImage a) {
  const int64_t i = thread_number();
  if (i >= a.h * a.w) return;
  const TargetCell cell = target_cell(a, i % a.w, i / a.w);
  TargetSums sums = {};
  for (int64_t row = cell.top; row < cell.bottom; ++row)
    for (int64_t column = cell.left; column < cell.right; ++column) {
      const int64_t at = row * a.W + column;
      if (!a.mask || a.mask[at]) target_add<C>(a.pixels + at * C, sums);
    }
  target_store(a, i, sums);
}

}  // namespace radfield
