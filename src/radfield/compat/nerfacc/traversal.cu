// A thread is a ray, in both passes.
#include "traversal.h"

#include "../../cuda/device.h"

namespace radfield {

__global__ void grid_traverse_count(const GridTraverseCount a) {
  const int64_t i = thread_number();
  if (i < a.N) count_ray(a, i);
}

__global__ void grid_traverse_fill(const GridTraverseFill a) {
  const int64_t i = thread_number();
  if (i < a.N) fill_ray(a, i);
}

}  // namespace radfield
