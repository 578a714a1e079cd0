// A warp is a ray, its samples stand in the lanes, 32 at a time: running sums and products are scans within the warp,
// carried on to the next samples. The order of sums depends on a sample's place in its ray alone.
#include "segments.h"

#include "../../cuda/device.h"

namespace radfield {

template <bool PRODUCT>
RADFIELD_FN double join(double a, double b) {
  return PRODUCT ? a * b : a + b;
}

// Of this lane and those below.
template <bool PRODUCT>
RADFIELD_FN double scanned(double x) {
  for (int d = 1; d < WARP; d <<= 1) {
    const double below = __shfl_up_sync(FULL, x, d);
    if (lane_number() >= d) x = join<PRODUCT>(below, x);
  }
  return x;
}

template <bool PRODUCT, class T>
__global__ void segment_scan(const SegmentScan a) {
  const int64_t ray = thread_number() / WARP;
  if (ray >= a.N) return;  // whole warps
  const int64_t begin = a.ray_start[ray], end = a.ray_start[ray + 1];
  double found = PRODUCT ? 1.0 : 0.0;
  for (int64_t at = 0; at < end - begin; at += WARP) {
    const int64_t n = at + lane_number(), i = a.reverse ? end - 1 - n : begin + n;
    const bool inside = n < end - begin;
    const double x = inside ? (double)((const T*)a.x)[i] : PRODUCT ? 1.0 : 0.0;
    const double upto = join<PRODUCT>(found, scanned<PRODUCT>(x));
    const double before = from_below(upto, found);
    if (inside) ((T*)a.y)[i] = (T)(a.exclusive ? before : upto);
    found = __shfl_sync(FULL, upto, WARP - 1);
  }
}

// c -> add + scale c: what a sample, or some that follow one another, make of `behind` (segments.h).
struct Affine {
  double add, scale;
};

// Of this lane and those above, which come first.
RADFIELD_FN Affine composed(Affine f) {
  for (int d = 1; d < WARP; d <<= 1) {
    const double add = __shfl_down_sync(FULL, f.add, d), scale = __shfl_down_sync(FULL, f.scale, d);
    if (lane_number() + d < WARP) f = {f.add + f.scale * add, f.scale * scale};
  }
  return f;
}

template <class T>
__global__ void segment_product_backward(const SegmentProductBackward a) {
  const int64_t ray = thread_number() / WARP;
  if (ray >= a.N) return;  // whole warps
  const T *const x = (const T*)a.x, *const grad_y = (const T*)a.grad_y;
  const int64_t begin = a.ray_start[ray], end = a.ray_start[ray + 1], vectors = (end - begin + WARP - 1) / WARP;
  double product = 1.0;
  for (int64_t v = 0; v < vectors; ++v) {
    const int64_t i = begin + v * WARP + lane_number();
    const double upto = product * scanned<true>(i < end ? (double)x[i] : 1.0);
    const double before = from_below(upto, product);
    if (i < end) ((T*)a.grad_x)[i] = (T)before;
    product = __shfl_sync(FULL, upto, WARP - 1);
  }
  double behind = 0.0;
  for (int64_t v = vectors - 1; v >= 0; --v) {
    const int64_t i = begin + v * WARP + lane_number();
    const double grad = i < end ? (double)grad_y[i] : 0.0, value = i < end ? (double)x[i] : 1.0;
    const Affine f = composed({a.exclusive ? grad : value * grad, value});
    const double after = f.add + f.scale * behind, mine = from_above(after, behind) + (a.exclusive ? 0.0 : grad);
    if (i < end) ((T*)a.grad_x)[i] = (T)((double)((T*)a.grad_x)[i] * mine);
    behind = __shfl_sync(FULL, after, 0);
  }
}

}  // namespace radfield
