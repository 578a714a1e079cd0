// Rays and boxes, as geometry.py has them. F: float or SIMD vector.
#pragma once
#include "maths.h"

namespace radfield {

// The interval of a ray inside the box from `low` to `high` [3]; near = far = 0 where it misses.
template <class F>
RADFIELD_FN void intersect_box(const F* o, const F* d, const float* low, const float* high, F& near, F& far) {
  const F inf = F{} + as_float(0x7f800000);
  near = F{}, far = inf;
  for (int i = 0; i < 3; ++i) {
    // a direction along the slab never crosses it: 0/0 must not decide
    const auto parallel = d[i] == 0.0f;
    const F enters = select(o[i] >= low[i], select(o[i] <= high[i], F{}, inf), inf);
    const F divisor = select(parallel, F{} + 1.0f, d[i]);
    const F a = (low[i] - o[i]) / divisor, b = (high[i] - o[i]) / divisor;
    near = max(select(parallel, enters, min(a, b)), near);  // in this order NaN changes nothing
    far = min(select(parallel, inf, max(a, b)), far);
  }
  const auto hit = near < far;
  near = select(hit, near, F{}), far = select(hit, far, F{});
}

}  // namespace radfield
