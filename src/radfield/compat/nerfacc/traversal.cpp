#include "traversal.h"

#include "../../cpu/parallel.h"

using namespace radfield;

constexpr int64_t RAYS = 32;  // per task

RADFIELD_OP(grid_traverse_count, GridTraverseCount) {
  parallel_blocks(a.N, RAYS, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) count_ray(a, i);
  });
}

RADFIELD_OP(grid_traverse_fill, GridTraverseFill) {
  parallel_blocks(a.N, RAYS, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) fill_ray(a, i);
  });
}
