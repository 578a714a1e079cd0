#include "segments.h"

#include "../../cpu/parallel.h"

using namespace radfield;

namespace {

constexpr int64_t RAYS = 64;  // per task

template <class T>
void scan(const SegmentScan& a) {
  T* y = (T*)a.y;
  const T* x = (const T*)a.x;
  parallel_blocks(a.N, RAYS, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      const int64_t begin = a.ray_start[i], end = a.ray_start[i + 1];
      const int64_t first = a.reverse ? end - 1 : begin, step = a.reverse ? -1 : 1;
      a.product ? scan_segment<true>(y, x, first, end - begin, step, a.exclusive)
                : scan_segment<false>(y, x, first, end - begin, step, a.exclusive);
    }
  });
}

template <class T>
void backward(const SegmentProductBackward& a) {
  parallel_blocks(a.N, RAYS, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i)
      product_gradient((T*)a.grad_x, (const T*)a.grad_y, (const T*)a.x, a.ray_start[i], a.ray_start[i + 1],
                       a.exclusive);
  });
}

}  // namespace

RADFIELD_OP(segment_scan, SegmentScan) { a.x_type == F32 ? scan<float>(a) : scan<double>(a); }

RADFIELD_OP(segment_product_backward, SegmentProductBackward) {
  a.x_type == F32 ? backward<float>(a) : backward<double>(a);
}
